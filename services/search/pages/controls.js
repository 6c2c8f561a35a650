// The fields above the photos. They show the settings, change them, and say so.

import { h, show } from "./dom.js";
import { Filters } from "./filters.js";
import { plural } from "./format.js";
import { COUNTS } from "./settings.js";

/** What the switches of a search are called. One that is not here is shown by its name. */
const OPTIONS = {
  improve: "Better answers: photos that look alike vouch for each other",
  expand: "Search again with the first photos found",
};

export class Controls {
  /** settings: what they change; changed(): called after each change; feedback: who judges. */
  constructor({ settings, changed, feedback }) {
    Object.assign(this, { settings, feedback });
    this.changed = () => {
      this.refresh();
      changed();
    };
    this.models = [];
    this.filters = new Filters({ settings, offered: () => this.refresh() });
    this.#build();
    this.node.addEventListener("change", (event) => this.#take(event));
    this.node.addEventListener("input", (event) => event.target.type === "range" && this.#take(event)); // while it is moved
    this.node.addEventListener("click", (event) => this.#click(event));
    this.node.addEventListener("submit", (event) => event.preventDefault());
  }

  #build() {
    this.field = h("input", { id: "class", list: "classes", autocomplete: "off", spellcheck: "false", placeholder: "all classes" });
    this.classes = h("datalist", { id: "classes" });
    this.chips = h("div", { class: "chips" });
    this.model = h("select", { id: "model" });
    this.rest = h("div", { class: "fields" });
    this.field.addEventListener("input", ({ inputType }) => {
      if (!inputType || inputType === "insertReplacementText") this.#addClass(); // chosen from the list, not typed
    });
    this.classRow = h("div", { class: "field" }, h("label", { for: "class" }, "Only"), this.field, this.classes);
    this.modelRow = h("div", { class: "field" }, h("label", { for: "model" }, "Model"), this.model);
    this.node = h("form", { class: "controls", "aria-label": "What to search for" },
      this.classRow, this.modelRow, this.filters.node,
      h("details", {}, h("summary", {}, "Options"), this.rest), this.chips);
  }

  /** models: as the service describes them. */
  offer(models) {
    this.models = models;
    this.refresh();
  }

  /** The models that are asked, by the service's own description: one, or two side by side. */
  get chosen() {
    const named = this.settings.aliases.map((alias) => this.models.find((model) => model.alias === alias)).filter(Boolean);
    return named.length ? named : this.models.slice(0, 1);
  }

  refresh() {
    const [model] = this.chosen;
    if (!model) return;
    const { settings } = this;
    this.classRow.hidden = !model.classes.length;
    show(this.classes, model.classes.map(({ name, photos }) => h("option", { value: name }, plural(photos, "photo"))));
    show(this.chips, settings.classes.map((name) =>
      chip(`class-${name}`, name, `the class ${name}`, { "data-class": name })), this.filters.chosen.map(([key, text]) => chip(key, text, text, { "data-choice": key })));
    this.filters.offer(model);
    this.filters.refresh();
    this.modelRow.hidden = this.models.length < 2;
    const choices = modelChoices(this.models);
    show(this.model, choices.map(([value, text]) => h("option", { value }, text)));
    this.model.value = this.chosen.map(({ alias }) => alias).join("\n");
    show(this.rest, this.#fields(model));
    this.#fill(model);
  }

  #fields(model) {
    return [
      h("div", { class: "field", "data-key": "k" }, h("label", { for: "k" }, "Photos"), h("select", { id: "k" }, COUNTS.map((count) => h("option", { value: count }, count)))),
      h("div", { class: "field", "data-key": "least" }, h("label", { for: "least" }, "Least score"),
        h("input", { id: "least", type: "range", min: 0, max: 0.95, step: 0.05 }), h("output", { for: "least" }, this.settings.least ? this.settings.least.toFixed(2) : "any")),
      Object.keys(model.options).map((name) => optionField(name, { disabled: name !== "improve" && this.#said(model, "improve") === false, title: model.options_text })),
      model.why_plain && h("p", { class: "quiet", "data-key": "plain" }, `Plain search: ${model.why_plain}.`),
      h("label", { class: "check", "data-key": "judging" }, h("input", { type: "checkbox", id: "judging" }), "Say which photos are right or wrong"),
      this.feedback.agreed && h("button", { type: "button", class: "plain", "data-key": "withdraw", "data-act": "withdraw" }, "Delete what I said"),
      (Object.keys(this.settings.options).length > 0 || this.settings.least > 0) &&
        h("button", { type: "button", class: "plain", "data-key": "reset", "data-act": "reset" }, "Back to the defaults"),
    ];
  }

  #fill(model) {
    const node = (id) => this.node.querySelector(`#${id}`);
    node("k").value = String(this.settings.k);
    node("least").value = String(this.settings.least);
    node("judging").checked = this.feedback.on;
    for (const control of this.node.querySelectorAll("[data-option]")) control.checked = this.#said(model, control.dataset.option) === true;
  }

  /** How a switch of a model stands. */
  #said(model, name) {
    return this.settings.options[name] ?? model.options[name];
  }

  #take({ target }) {
    const { settings } = this;
    if (target === this.field) this.#addClass();
    else if (target.id === "judging") this.feedback.turn(target.checked).then(() => this.refresh());
    else if (target.dataset.filter === undefined) {
      if (target === this.model) settings.aliases = target.value.split("\n");
      else if (target.id === "k") settings.k = Number(target.value);
      else if (target.id === "least") settings.least = Number(target.value);
      else if (target.dataset.option) this.#setOption(target);
      this.changed();
    } else if (this.filters.take(target)) this.changed();
  }

  #setOption({ dataset: { option }, checked }) {
    if (checked === this.chosen[0].options[option]) delete this.settings.options[option];
    else this.settings.options[option] = checked;
  }

  /** Takes the class that was typed: its whole name, or a part that only one class has. */
  #addClass() {
    const said = this.field.value.trim().toLowerCase();
    if (!said) return;
    const names = this.chosen[0].classes.map(({ name }) => name);
    const like = names.filter((name) => name.toLowerCase().includes(said));
    const found = names.find((name) => name.toLowerCase() === said) ?? (like.length === 1 ? like[0] : null);
    this.field.setCustomValidity(found ? "" : `There is no class “${said}”`);
    if (!found) return this.field.reportValidity();
    this.field.value = "";
    if (!this.settings.classes.includes(found)) this.settings.classes.push(found);
    return this.changed();
  }

  #click({ target }) {
    const { settings } = this;
    const name = target.closest("[data-class]")?.dataset.class;
    const choice = target.closest("[data-choice]")?.dataset.choice;
    const act = target.closest("[data-act]")?.dataset.act;
    if (act === "withdraw") this.feedback.withdraw().then(() => this.refresh());
    if (act === "reset") Object.assign(settings, { options: {}, least: 0 });
    if (name) settings.classes = settings.classes.filter((each) => each !== name);
    if (choice) this.filters.remove(choice);
    if (name || act === "reset" || choice) this.changed();
    if (name || choice) (this.classRow.hidden ? this.node.querySelector("summary") : this.field).focus();
  }
}

/** A choice that is made, with a button that takes it away. */
const chip = (key, text, what, attributes) =>
  h("button", { type: "button", class: "chip", "data-key": key, "aria-label": `Remove ${what}`, ...attributes }, text, h("span", { "aria-hidden": "true" }, " ×"));

/** Each model by itself, then each with the first one: [value, text]. */
function modelChoices(models) {
  const [first, ...others] = models.map(({ alias }) => alias);
  return [...models.map(({ alias }) => [alias, alias]), ...others.map((other) => [`${first}\n${other}`, `${first} beside ${other}`])];
}

const optionField = (name, { disabled, title }) =>
  h("label", { class: "check", "data-key": `option-${name}`, title },
    h("input", { type: "checkbox", "data-option": name, disabled }), OPTIONS[name] ?? name.replaceAll("_", " "));
