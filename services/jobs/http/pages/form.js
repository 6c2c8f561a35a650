// The page of a new job: first the choice of what is wanted, then its form, which always shows what it would submit.

import { listen } from "./actions.js";
import { ApiError, get, post } from "./api.js";
import { choice, ownRecipe, withCode } from "./choice.js";
import { commandLine } from "./command.js";
import { configurationOf } from "./configuration.js";
import { copied, h, show } from "./dom.js";
import { suggest } from "./suggestions.js";
import { givenBy, termsOf } from "./template.js";
import { Terms } from "./terms.js";

/** The field that an error line is about: the one it names as "field 'x'", else the first that it names at all. A field of a step is
 * named as step.field, or after "step: ". */
export function fieldOf(message, fields) {
  const step = message.match(/^(\w+): /)?.[1];
  const said = message.match(/\bfield '([\w.]+)'/)?.[1].split(".").at(-1);
  const at = (field) => {
    const name = field.name.replaceAll("_", "[-_]");
    const whole = field.step ? message.search(new RegExp(`(^|[^\\w])${field.step}\\.${name}([^\\w]|$)`)) : -1;
    return whole < 0 && (!field.step || field.step === step) ? message.search(new RegExp(`(^|[^\\w])${name}([^\\w]|$)`)) : whole;
  };
  const named = fields.filter((field) => !said || field.name === said);
  const found = named.map((field) => [at(field), field]).filter(([place]) => place >= 0);
  return found.sort(([one], [other]) => one - other)[0]?.[1];
}

/** Makes an idempotency key for each body: the same for the same body, so that a second click submits no second job. */
function keys() {
  let last = "";
  let key = "";
  return (body) => {
    if (body !== last) key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    last = body;
    return key;
  };
}

export async function formPage({ main, me, poll, say }) {
  document.title = "Submit a job";
  if (me.role === "viewer") {
    main.append(h("p", { class: "empty" }, "Your token lets you see jobs, not submit them."));
    return;
  }
  const query = new URLSearchParams(location.search);
  const asking = poll(async () => {
    const [schemas, job] = await Promise.all([get("/kinds"), query.has("like") ? jobOrNone(query.get("like")) : null]);
    asking.stop();
    const wanted = job ? likeJob(job, schemas) : wantedBy(query, schemas);
    if (wanted) new Form(wanted, schemas).put(main);
    else main.replaceChildren(...choice(schemas, me));
    if (query.has("like") && !job) main.prepend(h("p", { class: "problem", role: "alert" }, "The job to be taken as a template is not there."));
  });
  listen(main, { chosen: () => [], say, changed: () => {} });
}

/** The job of that number; null where there is none. */
async function jobOrNone(number) {
  try {
    return await get(`/jobs/${encodeURIComponent(number)}`);
  } catch (error) {
    if (![404, 422].includes(error.status)) throw error;
    return null;
  }
}

/** What an address asks for: {kind, title, config, terms, told}; null where it leaves the choice open. */
function wantedBy(query, schemas) {
  const [recipe, kind] = [query.get("recipe"), query.get("kind")];
  if (query.has("pictures")) return ownPictures(schemas);
  if (Object.hasOwn(schemas.recipes, recipe)) return { kind: "pipeline", title: `A pipeline of the recipe ${recipe}`, config: { recipe } };
  if (Object.hasOwn(schemas.kinds, kind)) return { kind, title: `One step: ${kind}`, config: {} };
  return null;
}

/** A pipeline for somebody's own pictures: a fifth of the classes is kept unseen, to measure on, unless the user says which. */
function ownPictures(schemas) {
  const recipe = ownRecipe(schemas);
  const layout = schemas.starts[recipe]?.ingest?.layout ? {} : { layout: "folder" };
  return { kind: "pipeline", title: "A pipeline for my own pictures", told: ["unseen_frac"], config: { recipe, ingest: { ...layout, unseen_frac: 0.2 } } };
}

const likeJob = (job, schemas) => ({
  kind: job.kind, title: `A ${job.kind} like job ${job.id}`, config: givenBy(job, schemas), terms: termsOf(job), like: job.id,
});

/** The form of one kind of job. */
class Form {
  constructor({ kind, title, config, terms = {}, told, like }, schemas) {
    this.kind = kind;
    this.configuration = configurationOf(kind, schemas, told);
    this.configuration.values = config;
    const pathOf = (field) => [field.step, field.name].filter(Boolean).join(".");
    this.terms = new Terms(kind, terms, (path) => this.configuration.fields.find((field) => pathOf(field) === path));
    this.about = (recipe) => [kind === "pipeline" ? "" : schemas.kinds[kind].description, schemas.about_recipes[recipe]].filter(Boolean).join(" ");
    this.aboutNode = h("p", { class: "quiet" });
    this.command = h("div");
    this.lacking = h("p", { class: "lacking" });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.send = h("button", { class: "main" }, "Submit the job");
    this.keyOf = keys();
    const changed = ({ target }) => this.#changed(target);
    this.node = h("form", { class: "submit", novalidate: true, oninput: changed, onchange: changed, onsubmit: (event) => this.#submit(event) },
      h("header", {}, h("p", {}, h("a", { href: like ? `/jobs/${like}` : "/submit" }, like ? `← Job ${like}` : "← Something else")),
        h("h1", {}, title), this.aboutNode),
      h("div", { class: "form-fields" },
        this.configuration.first.length > 0 && h("div", { class: "fields first" }, this.configuration.first.map((field) => field.node)),
        this.terms.node,
        h("section", {}, h("h2", {}, kind === "pipeline" ? "Its steps" : "Its other settings"), this.configuration.rest)),
      h("aside", { class: "panel", "aria-label": "What will be submitted" },
        h("h2", {}, "What will be submitted"), this.command, this.lacking, this.problem, this.send));
  }

  /** Shows the form, with the cursor in the first field that is still needed. */
  put(main) {
    main.replaceChildren(this.node);
    this.refresh();
    if (this.kind !== "pipeline") suggest(this.configuration.fields, this.node); // a pipeline's steps take what earlier ones make
    (this.#lacking()[0] ?? this.send).control?.focus();
  }

  get #fields() {
    return [...this.configuration.fields, ...this.terms.fields];
  }

  #lacking() {
    return this.#fields.filter((field) => field.needed && field.fault);
  }

  get body() {
    return { kind: this.kind, config: this.configuration.values, ...this.terms.values };
  }

  /** Takes what was said about a field away once it is changed, and shows what follows. */
  #changed(control) {
    this.#fields.find((field) => field.control === control)?.complain("");
    this.refresh();
  }

  /** Shows what follows from the fields as they are now. */
  refresh() {
    this.configuration.refresh();
    this.terms.refresh();
    show(this.aboutNode, withCode(this.about(this.configuration.recipe?.effective)));
    show(this.command, copied(commandLine(this.body), "the command line"));
    const lacking = this.#lacking().map((field) => field.label);
    this.lacking.textContent = lacking.length ? `Still needed: ${lacking.join(", ")}` : "";
  }

  /** Shows an error of the whole form, and takes all others away. */
  #complain(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
    for (const field of this.#fields) field.complain("");
  }

  /** Marks the fields that cannot be sent as they are, and returns whether there are any. */
  #markFaults() {
    const wrong = [...this.#fields.map((field) => [field, field.fault]).filter(([, fault]) => fault), ...this.terms.contradictions];
    for (const [field, fault] of wrong) field.complain(fault);
    wrong[0]?.[0].visit();
    return wrong.length > 0;
  }

  async #submit(event) {
    event.preventDefault();
    if (this.send.disabled) return;
    this.#complain("");
    if (this.#markFaults()) return;
    this.send.disabled = true;
    try {
      const body = this.body;
      const made = await post("/jobs", body, { "Idempotency-Key": this.keyOf(JSON.stringify(body)) });
      location.assign(made.array ? `/?array=${made.array.id}` : `/jobs/${made.id}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#refused(error);
    }
    this.send.disabled = false;
  }

  /** Shows why the service took no job: at the button, and beside the field that it is about. */
  #refused({ status, message }) {
    this.#complain(status === 401 ? "You are no longer signed in. Sign in in another tab; nothing is lost, then submit again."
      : status ? message : `${message}: nothing is lost, submit again`);
    const field = status && fieldOf(message, this.#fields);
    if (!field) return;
    field.complain(message);
    field.visit();
  }
}
