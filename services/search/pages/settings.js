// What a search is made with beside the drawing: model, filter, number of photos, minimum score, options. And all of it in an address.

export const COUNTS = [12, 24, 48, 96];
const LEAST_SCORE = 0;
const LONGEST = 2000; // characters of a folder
const MOST_COLUMNS = 20; // columns that photos are chosen by

export class Settings {
  constructor() {
    Object.assign(this, { aliases: [], classes: [], folder: "", columns: new Map(), k: COUNTS[1], least: LEAST_SCORE, options: {} });
  }

  /** Takes what an address says, from URLSearchParams; what it does not say, or says wrongly, is as in the beginning. */
  read(said) {
    const k = Number(said.get("k"));
    const least = Number(said.get("min"));
    const known = Object.entries(parsed(said.get("options"))).filter(([, value]) => typeof value === "boolean");
    this.aliases = said.getAll("model").slice(0, 2);
    this.classes = said.getAll("class").slice(0, 50);
    this.folder = (said.get("folder") ?? "").slice(0, LONGEST);
    this.columns = new Map(Object.entries(parsed(said.get("columns"))).filter(([, wanted]) => isCondition(wanted)).slice(0, MOST_COLUMNS));
    this.k = COUNTS.includes(k) ? k : COUNTS[1];
    this.least = least > 0 && least <= 1 ? least : LEAST_SCORE;
    this.options = Object.fromEntries(known);
  }

  /** As pairs for URLSearchParams; what is as in the beginning is left out. */
  get said() {
    return [
      ...this.aliases.map((alias) => ["model", alias]),
      ...this.classes.map((name) => ["class", name]),
      this.folder && ["folder", this.folder],
      this.columns.size > 0 && ["columns", JSON.stringify(Object.fromEntries(this.columns))],
      this.k !== COUNTS[1] && ["k", this.k],
      this.least !== LEAST_SCORE && ["min", this.least],
      Object.keys(this.options).length > 0 && ["options", JSON.stringify(this.options)],
    ].filter(Boolean);
  }

  /** The switches that a model has. model: as the service describes it. */
  optionsOf(model) {
    return Object.fromEntries(Object.entries(this.options).filter(([name]) => Object.hasOwn(model.options, name)));
  }

  /** Which photos are searched; empty for all. */
  get filter() {
    return {
      ...(this.classes.length && { classes: this.classes }),
      ...(this.folder && { folder: this.folder }),
      ...(this.columns.size && { columns: Object.fromEntries(this.columns) }),
    };
  }

  /** The fields of a search by one model. */
  body(model) {
    const { filter } = this;
    const options = this.optionsOf(model);
    return {
      model: model.alias,
      k: this.k,
      min_score: this.least === LEAST_SCORE ? null : this.least,
      ...(Object.keys(filter).length && { filter }),
      ...(Object.keys(options).length && { options }),
    };
  }
}

function parsed(text) {
  try {
    return Object(JSON.parse(text ?? "{}"));
  } catch {
    return {};
  }
}

/** Whether an address says of a column what can be asked: a text, a number, yes or no, or a range. */
function isCondition(wanted) {
  if (typeof wanted !== "object" || wanted === null) return ["string", "number", "boolean"].includes(typeof wanted);
  const ends = Object.entries(wanted);
  return ends.length > 0 && ends.every(([name, value]) => ["min", "max"].includes(name) && Number.isFinite(value));
}
