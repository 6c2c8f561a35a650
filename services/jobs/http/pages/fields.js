// A control for each field of a schema. An empty one is not sent; its placeholder is the value that holds then.

import { h } from "./dom.js";
import { isCut, quoted, wordsOf } from "./words.js";

const NONE = "none";
/** Whether a value stands for none. */
export const isNone = (value) => value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length);

export const shown = (value) => (isNone(value) ? NONE : typeof value === "boolean" ? (value ? "yes" : "no") : Array.isArray(value) ? value.join(", ") : String(value));

/** The schema of the value itself: {"anyOf": [{number}, {null}]} is a number that may be left out. */
const plain = (schema) => ({ ...(schema.anyOf?.find((each) => each.type !== "null") ?? {}), ...schema });

const isNumeric = (schema) => ["integer", "number"].includes(schema.type);

export class Field {
  #kept = null; // a value that was put in, with its text: it is sent as it was while its text stands

  /** step: of a pipeline, or "". label: the field's name for people. prefix: of its id, where other fields may have its name.
   * marked: whether a value that differs is marked. */
  constructor(step, name, given, { label = name, type = null, prefix = "", marked = true } = {}) {
    const schema = plain(given);
    const canBeNone = Boolean(given.anyOf?.some((each) => each.type === "null"));
    this.id = prefix + [step, name].filter(Boolean).join("-");
    Object.assign(this, { step, name, label, schema, canBeNone, marked, needed: false, stands: { value: schema.default } });
    this.control = controlOf(schema, canBeNone, { id: this.id, name: this.id, "aria-describedby": `${this.id}-about`, ...(type ? { type } : {}) });
    this.mark = h("span", { class: "mark" });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.node = h("div", { class: "field" }, h("label", { for: this.id }, label, this.mark), this.control,
      h("p", { class: "quiet", id: `${this.id}-about` }, given.description ?? ""), this.problem);
    this.#suggest(schema.examples ?? []);
    this.stand(this.stands);
  }

  /** Suggests some of the values that the field may have. */
  #suggest(examples) {
    if (!examples.length) return;
    const list = h("datalist", { id: `${this.id}-examples` }, examples.map((each) => h("option", { value: each })));
    this.control.setAttribute("list", list.id);
    this.node.append(list);
  }

  /** Whether its parts are the words of a command, which may have commas and spaces. */
  get isWords() {
    return this.name === "words" && this.schema.type === "array";
  }

  /** Shows what holds where nothing is given: {value, from}, where from names its origin, or {text} where only words tell it. */
  stand(stands) {
    this.stands = stands;
    const text = stands.text ?? (this.needed ? "" : shown(stands.value));
    if (this.control.localName !== "select") this.control.placeholder = text;
    else this.control.options[0].textContent = this.needed ? "choose" : stands.text ?? `${text} (${stands.from ?? "default"})`;
    this.refresh();
  }

  /** Whether nothing holds until the user gives a value. */
  need(needed) {
    this.needed = needed;
    this.control.toggleAttribute("required", needed);
    this.stand(this.stands);
  }

  /** Shows whether the field is required, or what it changes. */
  refresh() {
    const isMarked = this.marked && this.differs && !this.needed;
    this.node.classList.toggle("differs", isMarked);
    const before = this.stands.text ?? shown(this.stands.value);
    this.mark.textContent = this.needed ? " required" : isMarked ? ` ${this.stands.from ?? "default"}: ${before}` : "";
  }

  /** Whether a value is given that is not the one that would hold anyway. */
  get differs() {
    return this.value !== undefined && JSON.stringify(this.value) !== JSON.stringify(this.stands.value);
  }

  /** What will hold: the given value, else the standing one. */
  get effective() {
    return this.value === undefined ? this.stands.value : this.value;
  }

  /** The value as it is to be sent; undefined where the field was left alone. */
  get value() {
    if (this.#kept && this.control.value === this.#kept.text) return this.#kept.value;
    const text = this.control.value.trim();
    return text === "" ? undefined : this.parsed(text);
  }

  /** The value of a text that is not empty. */
  parsed(text) {
    if (text === NONE && this.canBeNone) return null;
    if (this.schema.type === "boolean") return ["yes", "true"].includes(text);
    if (isNumeric(this.schema)) return Number.isNaN(Number(text)) ? text : Number(text); // what is no number is refused with its text
    if (this.isWords) return wordsOf(text);
    if (this.schema.type === "array") return text.split(",").map((each) => each.trim()).filter(Boolean);
    return text;
  }

  set value(value) {
    if (value === NONE && this.canBeNone) value = null;
    this.#kept = value === undefined ? null : { text: this.isWords ? value.map(quoted).join(" ") : shown(value), value };
    this.control.value = this.#kept?.text ?? "";
    this.refresh();
  }

  /** What is wrong with the text as it stands, in words; "" where nothing is. */
  get fault() {
    if (this.value === undefined && !this.control.validity.badInput) return this.needed ? `${this.label} is required` : "";
    if (isNumeric(this.schema) && typeof this.value === "string") return `must be a number${this.canBeNone ? `, or ${NONE}` : ""}`;
    if (this.isWords && isCut(this.control.value)) return "a quote is not closed";
    if (this.schema.says && !this.schema.pattern.test(this.control.value)) return this.schema.says;
    return this.control.validity.valueMissing ? "" : this.control.validationMessage;
  }

  /** Shows a text beside the field, or with "" takes it away. */
  complain(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
    if (text) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
  }

  /** Opens whatever folds the field away, and puts the cursor into it. */
  visit() {
    for (let at = this.node; at; at = at.parentElement) {
      at.hidden = false;
      if (at.localName === "details") at.open = true;
    }
    this.control.focus();
  }
}

function controlOf(schema, canBeNone, attributes) {
  const choices = schema.enum ?? (schema.type === "boolean" ? ["yes", "no"] : null);
  if (choices) {
    const options = canBeNone ? [...choices, NONE] : choices;
    return h("select", attributes, h("option", { value: "" }), options.map((each) => h("option", { value: each }, String(each))));
  }
  const common = { autocomplete: "off", spellcheck: "false" };
  if (schema.type === "array" && attributes.name === "words") return h("textarea", { rows: 3, ...common, ...attributes });
  if (!isNumeric(schema) || canBeNone) return h("input", { type: "text", inputmode: isNumeric(schema) && "decimal", ...common, ...attributes });
  const bounds = { min: schema.minimum ?? schema.exclusiveMinimum, max: schema.maximum ?? schema.exclusiveMaximum };
  return h("input", { type: "number", ...bounds, step: schema.type === "integer" ? 1 : "any", ...common, ...attributes });
}
