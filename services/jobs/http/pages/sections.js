// The fields of one command, folded, with a count and what differs; and a step of a pipeline, which has such a section.

import { Field, isNone, shown } from "./fields.js";
import { h } from "./dom.js";
import { plural } from "./format.js";

const MOST_SHOWN = 3;

/** The fields of one command. Those that it requires, and the recipe, are left to the caller to show; the others are folded. */
export class Section {
  /** outside: names of fields that the caller shows elsewhere. */
  constructor(step, schema, { title = "Settings", about = "", outside = [] } = {}) {
    this.schema = schema;
    this.fields = Object.entries(schema.properties).map(([name, each]) => new Field(step, name, each));
    this.outside = outside.map((name) => this.field(name)).filter(Boolean);
    this.folded = this.fields.filter((field) => !this.outside.includes(field));
    this.changes = h("span", { class: "changes" });
    const search = h("input", { type: "search", placeholder: "Filter by name or meaning", "aria-label": `Filter: ${step || title}`,
      oninput: () => this.#filter(search.value), onkeydown: (event) => event.key === "Enter" && event.preventDefault() });
    this.node = h("details", { class: "fold", hidden: !this.folded.length },
      h("summary", {}, h("b", {}, title), h("span", { class: "quiet count-of" }, plural(this.folded.length, "setting")), this.changes,
        about && h("span", { class: "quiet about" }, about)),
      this.folded.length > 6 && search, h("div", { class: "fields" }, this.folded.map((field) => field.node)));
  }

  #filter(text) {
    for (const field of this.folded) field.node.hidden = !field.node.textContent.toLowerCase().includes(text.trim().toLowerCase());
  }

  field(name) {
    return this.fields.find((field) => field.name === name);
  }

  get values() {
    return Object.fromEntries(this.fields.map((field) => [field.name, field.value]).filter(([, value]) => value !== undefined));
  }

  set values(values) {
    for (const field of this.fields) field.value = values[field.name];
  }

  /** Shows what holds where nothing is given. standing: a field's name to {value, from} or {text}; undefined for its own default. */
  stand(standing) {
    for (const field of this.fields) field.stand(standing(field.name) ?? { value: field.schema.default });
    const needed = this.#needed();
    for (const field of this.fields) field.need(needed.includes(field.name) && !field.stands.text && isNone(field.stands.value));
    this.refresh();
  }

  /** The names of the fields that this command requires, given what the others are. */
  #needed() {
    const { required = [], if: condition, else: otherwise } = this.schema;
    const isMet = Object.entries(condition?.properties ?? {}).every(([name, { const: value }]) => this.field(name)?.effective === value);
    const more = otherwise?.required ?? [];
    for (const name of more) this.field(name).node.hidden = isMet && this.field(name).value === undefined; // it would say nothing
    return isMet ? required : [...required, ...more];
  }

  /** Says in the summary which fields differ. */
  refresh() {
    for (const field of this.fields) field.refresh();
    const changed = this.folded.filter((field) => field.differs);
    const words = changed.slice(0, MOST_SHOWN).map((field) => `${field.label} ${shown(field.value)}`);
    const more = changed.length > MOST_SHOWN ? ` and ${changed.length - MOST_SHOWN} more` : "";
    this.changes.textContent = changed.length ? `${words.join(", ")}${more}` : "";
  }
}

/** A step of a pipeline. Its inputs come from the steps before it. isAsked: it runs only where the recipe or the user asks for it. */
export class Step {
  constructor(name, schema, { isAsked = false, outside = [] } = {}) {
    this.name = name;
    this.section = new Section(name, schema, { title: name, about: schema.description, outside });
    this.box = h("input", { type: "checkbox", id: `run-${name}`, "aria-label": `Run ${name}`, checked: !isAsked, disabled: !isAsked });
    this.isAsked = isAsked;
    this.inRecipe = !isAsked;
    this.node = h("li", { class: "step" }, this.box, this.section.node);
    this.section.node.addEventListener("input", ({ target }) => {
      if (target.type !== "search" && target.value !== "") this.box.checked = true;
    });
  }

  /** Whether the recipe has this step, so that it runs in any case. */
  set inRecipe(inRecipe) {
    if (!this.isAsked) return;
    if (this.box.disabled && !inRecipe) this.box.checked = false;
    this.box.disabled = inRecipe;
    if (inRecipe) this.box.checked = true;
  }

  get runs() {
    return this.box.checked;
  }

  /** The step's part of the configuration; undefined where the pipeline has it anyway, or not at all. */
  get values() {
    if (!this.runs) return undefined;
    const values = this.section.values;
    return Object.keys(values).length || !this.box.disabled ? values : undefined;
  }

  set values(values) {
    this.section.values = values ?? {};
    if (!this.box.disabled) this.box.checked = values !== undefined;
  }
}
