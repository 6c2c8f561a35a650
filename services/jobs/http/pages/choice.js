// What one may want of the queue: a pipeline of a recipe, one for pictures of one's own, or a single step.

import { h } from "./dom.js";

/** Recipes for pictures of one's own, the best one first. */
const FOR_OWN_PICTURES = ["folder", "custom"];

/** The recipe that a form for somebody's own pictures begins with. */
export const ownRecipe = ({ recipes }) => FOR_OWN_PICTURES.find((name) => name in recipes);

/** Whether to offer the kind that runs any command. The service decides; it takes them from operators who show a token. */
const mayCommand = (me) => me.role === "operator" && me.auth === "tokens" && !me.session;

/** The choice as nodes. Each of its links opens the form for one thing. */
export function choice(schemas, me) {
  const { kinds, recipes, starts, about_recipes } = schemas;
  const own = ownRecipe(schemas);
  const names = Object.keys(recipes).filter((name) => name !== own);
  const needsNothing = (name) => starts[name]?.ingest?.layout === "toy";
  const cards = [
    ...names.filter(needsNothing).map((name) => recipeCard(name, schemas, "draws its own pictures")),
    card("/submit?pictures", "My own pictures",
      h("p", {}, "Folders of photos and sketches by class. You say where they are; the other settings may be changed, and need not be."),
      h("p", { class: "quiet" }, `Recipe ${own}: `, withCode(about_recipes[own]))),
    ...names.filter((name) => !needsNothing(name)).map((name) => recipeCard(name, schemas, "needs its pictures")),
  ];
  const single = Object.keys(kinds).filter((kind) => kind !== "pipeline" && (kind !== "command" || mayCommand(me)));
  return [
    h("h1", {}, "Submit a job"),
    h("section", { "aria-labelledby": "whole" }, h("h2", { id: "whole" }, "The whole way, from pictures to a model that searches"),
      h("ul", { class: "choice" }, cards)),
    h("section", { "aria-labelledby": "single" }, h("h2", { id: "single" }, "One step alone"),
      h("ul", { class: "single" }, single.map((kind) =>
        h("li", {}, h("a", { href: `/submit?kind=${encodeURIComponent(kind)}` }, h("b", {}, kind)),
          h("span", { class: "quiet" }, kinds[kind].description))))),
  ];
}

const recipeCard = (name, { recipes, about_recipes }, needs) =>
  card(`/submit?recipe=${encodeURIComponent(name)}`, name, h("p", {}, withCode(about_recipes[name] ?? "")), facts(recipes[name], needs));

const card = (href, title, ...content) =>
  h("li", {}, h("a", { class: "panel card", href }, h("b", { class: "card-title" }, title), content));

const facts = ({ steps, epochs }, more) => h("p", { class: "quiet" }, [steps ? `${steps} steps` : `${epochs} epochs`, more].join(" · "));

/** A text whose `code` is set as code. */
export const withCode = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
