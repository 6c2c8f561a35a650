// Which photos are searched, besides their classes: a folder, and what is known of them. Only what the index has is offered.

import { ApiError, get } from "./api.js";
import { h, show } from "./dom.js";
import { plural } from "./format.js";

const MOST_IN_LIST = 40; // values that a list shows; of more, one is typed
const NONE = { folders: [], complete: true, columns: [] };
const YES_NO = { true: "yes", false: "no" };

export class Filters {
  #known = NONE;
  #of = ""; // the digest of the index that this is known of

  /** settings: what the fields change; offered(): called when it is known what can be chosen. */
  constructor({ settings, offered }) {
    Object.assign(this, { settings, offered });
    this.node = h("div", { class: "filters" });
  }

  /** Asks by what the photos of a model's index can be chosen; until it is known, nothing is offered. */
  async offer({ index: { digest } }) {
    if (digest === this.#of) return;
    this.#of = digest;
    this.#known = NONE;
    let known;
    try {
      known = await get(`/filters/${digest}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (this.#of === digest) this.#of = ""; // asked for again with the next change
      return;
    }
    if (this.#of !== digest) return; // another model was chosen since
    this.#known = known;
    this.offered();
  }

  refresh() {
    const { folders, columns } = this.#known;
    show(this.node, (folders.length > 0 || columns.length > 0) &&
      h("details", { "data-key": "filters" }, h("summary", {}, "Filter"),
        h("div", { class: "fields" }, folders.length > 0 && folderField(folders), columns.map((column, place) => columnField(column, place)))));
    for (const control of this.node.querySelectorAll("[data-filter]")) this.#fill(control);
  }

  /** All that photos are chosen by, as [key, text]. */
  get chosen() {
    const { folder, columns } = this.settings;
    return [...(folder ? [["folder", `in ${folder}`]] : []), ...[...columns].map(([name, wanted]) => [`column-${name}`, `${name}: ${textOf(wanted)}`])];
  }

  /** Takes a choice away again, by its key. */
  remove(key) {
    if (key === "folder") this.settings.folder = "";
    else this.settings.columns.delete(key.slice("column-".length));
  }

  /** Takes what a field says. Returns whether it is one of these fields and says something that can be. */
  take(control) {
    const { filter, end } = control.dataset;
    if (filter === undefined) return false;
    if (filter === "folder") return this.#takeFolder(control);
    const { name, kind, values, complete } = this.#known.columns[Number(filter)];
    const said = control.value.trim();
    const { columns } = this.settings;
    if (end) return this.#takeEnd(control, name, end);
    if (kind === "string" && said && complete && !values.some((value) => value.name === control.value)) return refuse(control, `No photo has “${said}”`);
    control.setCustomValidity("");
    if (!said) columns.delete(name);
    else columns.set(name, kind === "bool" ? said === "true" : control.value);
    return true;
  }

  #takeEnd(control, name, end) {
    if (control.validity.badInput) return refuse(control, "");
    const { columns } = this.settings;
    const { min, max } = { ...rangeOf(columns.get(name)), [end]: control.value === "" ? undefined : Number(control.value) };
    if (min === undefined && max === undefined) columns.delete(name);
    else columns.set(name, { ...(min !== undefined && { min }), ...(max !== undefined && { max }) });
    return true;
  }

  /** A folder's whole name, or a part that only one folder has. */
  #takeFolder(control) {
    const said = control.value.trim().replace(/^\/+|\/+$/g, "");
    const names = this.#known.folders.map(({ name }) => name);
    const like = names.filter((name) => name.toLowerCase().includes(said.toLowerCase()));
    const found = !said || names.includes(said) ? said : like.length === 1 ? like[0] : null;
    if (found === null && this.#known.complete) return refuse(control, `No single folder is called “${said}”`);
    control.setCustomValidity("");
    this.settings.folder = found ?? said;
    return true;
  }

  #fill(control) {
    const { filter, end } = control.dataset;
    const wanted = filter === "folder" ? this.settings.folder : this.settings.columns.get(this.#known.columns[Number(filter)].name);
    const value = String((end ? rangeOf(wanted)[end] : wanted) ?? "");
    if (control.value !== value && control.validity.valid) control.value = value;
  }
}

const rangeOf = (wanted) => (typeof wanted === "object" ? wanted : {});

function refuse(control, text) {
  if (text) control.setCustomValidity(text);
  control.reportValidity();
  return false;
}

const textOf = (wanted) => {
  if (typeof wanted === "boolean") return YES_NO[wanted];
  if (typeof wanted !== "object") return String(wanted);
  const { min, max } = wanted;
  if (min === undefined) return `to ${max}`;
  return max === undefined ? `from ${min}` : `${min} to ${max}`;
};

const labelled = (id, text, ...controls) => h("div", { class: "field", "data-key": id }, h("label", { for: id }, text), controls);

const suggestions = (id, counts) => h("datalist", { id }, counts.map(({ name, photos }) => h("option", { value: name }, plural(photos, "photo"))));

const folderField = (folders) =>
  labelled("folder", "Folder",
    h("input", { id: "folder", "data-filter": "folder", list: "folders", autocomplete: "off", spellcheck: "false", placeholder: "all folders" }),
    suggestions("folders", folders));

/** The control that fits what a column holds. */
function columnField({ name, kind, values: all, complete, low, high }, place) {
  const id = `column-${place}`;
  const values = all.filter((value) => value.name); // an empty text would look like none chosen
  if (kind === "bool") return labelled(id, name, choice(id, place, Object.entries(YES_NO)));
  if (kind === "string" && complete && values.length <= MOST_IN_LIST) {
    return labelled(id, name, choice(id, place, values.map((value) => [value.name, `${value.name} (${value.photos})`])));
  }
  if (kind === "string") {
    return labelled(id, name,
      h("input", { id, "data-filter": place, list: `${id}-values`, autocomplete: "off", spellcheck: "false", placeholder: "any" }), suggestions(`${id}-values`, values));
  }
  const end = (side, text, placeholder) =>
    h("input", { type: "number", step: "any", "data-filter": place, "data-end": side, "aria-label": `${name}, ${text}`, placeholder });
  return h("div", { class: "field range", "data-key": id, role: "group", "aria-labelledby": id },
    h("span", { id }, name), end("min", "at least", low), h("span", { "aria-hidden": "true" }, "to"), end("max", "at most", high));
}

const choice = (id, place, choices) =>
  h("select", { id, "data-filter": place }, h("option", { value: "" }, "any"), choices.map(([value, text]) => h("option", { value }, text)));
