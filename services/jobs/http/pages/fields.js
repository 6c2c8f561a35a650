// A control for each field of a schema. An empty one is not sent; its placeholder is the value that holds then.

import { h } from "./dom.js";

const isNone = (value) => value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length);

const shown = (value) => (isNone(value) ? "none" : typeof value === "boolean" ? (value ? "yes" : "no") : Array.isArray(value) ? value.join(", ") : String(value));

/** The schema of the value itself: {"anyOf": [{number}, {null}]} is a number that may be left out. */
const plain = (schema) => ({ ...(schema.anyOf?.find((each) => each.type !== "null") ?? {}), ...schema });

export class Field {
  /** fed: in a pipeline, an earlier step or the recipe may give it. */
  constructor(step, name, given, { required = false, fed = false } = {}) {
    const schema = plain(given);
    Object.assign(this, { step, name, schema, required, fed });
    this.id = [step, name].filter(Boolean).join("-");
    this.control = controlOf(schema, { id: this.id, name: this.id, required, "aria-describedby": `${this.id}-about` });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.node = h("div", { class: "field" },
      h("label", { for: this.id }, name, required && h("span", { class: "quiet" }, " required")),
      this.control,
      h("p", { class: "quiet", id: `${this.id}-about` }, given.description ?? ""), this.problem);
    this.showDefault(schema.default);
  }

  /** Shows the value that holds where nothing is given: the schema's default, or the recipe's. */
  showDefault(value) {
    const isSelect = this.control.localName === "select";
    const text = this.required ? (isSelect ? "choose" : "") : this.fed ? "from the recipe, or an earlier step" : shown(value);
    if (isSelect) this.control.options[0].textContent = this.required || this.fed ? text : `${text} (default)`;
    else this.control.placeholder = text;
  }

  /** The value as it is to be sent; undefined where the field was left alone. */
  get value() {
    const text = this.control.value.trim();
    if (text === "") return undefined;
    if (this.schema.type === "boolean") return text === "yes";
    if (["integer", "number"].includes(this.schema.type)) return Number(text);
    if (this.schema.type === "array") return text.split(",").map((each) => each.trim()).filter(Boolean);
    return text;
  }

  set value(value) {
    this.control.value = isNone(value) ? "" : shown(value);
  }

  complain(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
    if (text) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
    if (text) this.control.closest("details")?.setAttribute("open", "");
    if (text) this.control.focus();
  }
}

function controlOf(schema, attributes) {
  const choices = schema.enum ?? (schema.type === "boolean" ? ["yes", "no"] : null);
  if (choices) {
    return h("select", attributes, h("option", { value: "" }), choices.map((each) => h("option", { value: each }, String(each))));
  }
  const isNumber = ["integer", "number"].includes(schema.type);
  const bounds = { min: schema.minimum ?? schema.exclusiveMinimum, max: schema.maximum ?? schema.exclusiveMaximum };
  return h("input", { ...attributes, autocomplete: "off", spellcheck: "false", type: isNumber ? "number" : "text",
    ...(isNumber ? { ...bounds, step: schema.type === "integer" ? 1 : "any" } : {}) });
}

/** The fields of one command: required ones open, the others folded, with a filter. A step of a pipeline requires none. */
export class Section {
  constructor(step, schema, { isStep = false, title = "All settings" } = {}) {
    const isRequired = (name) => (schema.required ?? []).includes(name);
    this.fields = Object.entries(schema.properties).map(([name, each]) =>
      new Field(step, name, each, isStep ? { fed: isRequired(name) } : { required: isRequired(name) }));
    const first = this.fields.filter((field) => field.required || (field.name === "recipe" && !isStep));
    const others = this.fields.filter((field) => !first.includes(field));
    const count = h("span", { class: "quiet" }, ` ${others.length}`);
    const search = h("input", { type: "search", placeholder: "Filter by name or meaning", "aria-label": `Filter: ${step || title}`,
      oninput: () => {
        for (const field of others) field.node.hidden = !field.node.textContent.toLowerCase().includes(search.value.trim().toLowerCase());
      },
      onkeydown: (event) => event.key === "Enter" && event.preventDefault() });
    this.folded = h("details", {}, h("summary", {}, title, count), search, h("div", { class: "fields" }, others.map((field) => field.node)));
    this.node = h("div", {}, h("div", { class: "fields" }, first.map((field) => field.node)), others.length ? this.folded : null);
  }

  field(name) {
    return this.fields.find((field) => field.name === name);
  }

  get values() {
    return Object.fromEntries(this.fields.map((field) => [field.name, field.value]).filter(([, value]) => value !== undefined));
  }

  set values(values) {
    for (const field of this.fields) field.value = values[field.name];
    if (this.fields.some((field) => this.folded.contains(field.node) && field.value !== undefined)) this.folded.open = true;
  }

  /** recipe: values that it changes. */
  showDefaults(recipe) {
    for (const field of this.fields) field.showDefault(recipe?.[field.name] ?? field.schema.default);
  }
}
