// The configuration of a kind of job as controls: its fields, or those of each step of a pipeline.

import { h } from "./dom.js";
import { Field } from "./fields.js";
import { Section, Step } from "./sections.js";

const ASKED_FOR = ["pretrain", "sweep", "promote"];
const TOLD_FIRST = ["layout", "path"]; // of ingest: whatever the recipe, somebody has to say which pictures
/** What a recipe says of a field: its value, or that it is chosen once the data set is known. */
const inRecipe = ({ recipes, chosen }, recipe, name) =>
  chosen?.[recipe]?.includes(name) ? { text: "chosen for the data set" } : { value: recipes[recipe][name], from: "recipe" };
const isStep = ([, each]) => each.type === "object" && each.properties;

/** Configuration of any kind. told: more fields of a pipeline's ingest that are to be shown open. Of the result, fields to be shown
 * open; rest: the node of the others; refresh(): to be called on each change. */
export const configurationOf = (kind, schemas, told = []) => (kind === "pipeline" ? new Pipeline(schemas, told) : new Single(kind, schemas));

/** The configuration of one command. */
class Single {
  constructor(kind, schemas) {
    this.schemas = schemas;
    const schema = schemas.kinds[kind];
    const conditional = schema.else?.required ?? [];
    const outside = ["recipe", ...(schema.required ?? []), ...conditional].filter((name) => name in schema.properties);
    this.section = new Section("", schema, { title: "All others", outside });
    this.first = this.section.outside;
    this.recipe = this.section.field("recipe");
    this.rest = this.section.node;
    this.refresh();
  }

  get fields() {
    return this.section.fields;
  }

  get values() {
    return this.section.values;
  }

  set values(values) {
    this.section.values = values;
    this.refresh();
  }

  refresh() {
    const recipe = this.recipe && (this.schemas.recipes[this.recipe.value ?? "custom"] ?? {});
    this.section.stand((name) => {
      if (name === "recipe") return { value: "custom" };
      return recipe && name in recipe ? inRecipe(this.schemas, this.recipe.value ?? "custom", name) : undefined;
    });
  }
}

/** The configuration of a pipeline: a recipe, and steps of which each takes what earlier ones make. */
class Pipeline {
  constructor(schemas, told) {
    this.schemas = schemas;
    const { properties } = schemas.kinds.pipeline;
    this.recipe = new Field("", "recipe", properties.recipe, { marked: false });
    this.steps = Object.entries(properties).filter(isStep).map(([name, schema]) =>
      new Step(name, schema, { isAsked: ASKED_FOR.includes(name), outside: name === "ingest" ? [...TOLD_FIRST, ...told] : [] }));
    this.first = [this.recipe, ...this.steps.flatMap((step) => step.section.outside)];
    this.rest = h("ol", { class: "steps" }, this.steps.map((step) => step.node));
    this.refresh();
  }

  get fields() {
    return [this.recipe, ...this.steps.filter((step) => step.runs).flatMap((step) => step.section.fields)];
  }

  get values() {
    const steps = this.steps.map((step) => [step.name, step.values]).filter(([, values]) => values !== undefined);
    return { ...(this.recipe.value === undefined ? {} : { recipe: this.recipe.value }), ...Object.fromEntries(steps) };
  }

  set values({ recipe, ...values }) {
    this.recipe.value = recipe;
    this.refresh();
    for (const step of this.steps) step.values = values[step.name];
    this.refresh();
  }

  refresh() {
    this.recipe.stand({ value: "custom" });
    const start = this.schemas.starts[this.recipe.effective] ?? {};
    for (const step of this.steps) step.inRecipe = step.name in start;
    const runs = this.steps.filter((step) => step.runs).map((step) => step.name);
    for (const step of this.steps) step.section.stand((name) => this.#standing(step, name, start[step.name] ?? {}, runs));
  }

  /** What holds in a step for a field that the user leaves alone. */
  #standing(step, name, start, runs) {
    if (name === "recipe") return { value: this.recipe.effective, from: "recipe" };
    if (name in start) return { value: start[name], from: "recipe" };
    const named = step.section.field("recipe");
    const recipe = named && this.schemas.recipes[named.value ?? this.recipe.effective];
    if (recipe && name in recipe) {
      return step.name === "train" && runs.includes("sweep") ? { text: "what the sweep finds best" } : inRecipe(this.schemas, named.value ?? this.recipe.effective, name);
    }
    const source = this.schemas.inputs[step.name]?.[name];
    return source && runs.includes(source) ? { text: `what ${source} makes` } : undefined;
  }
}
