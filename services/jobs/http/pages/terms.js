// What a submission says of the job itself, whatever it computes: its name, how many of it, when it may start, what it holds.

import { held } from "./command.js";
import { h } from "./dom.js";
import { Field, shown } from "./fields.js";

const NUMBERS = { pattern: /^\s*\d+(\s*,\s*\d+)*\s*,?\s*$/, says: "must be whole numbers with commas between them: 0, 1, 2" };
const PAIRS = { pattern: /^\s*[\w.-]+\s*=[^=;]+(;\s*[\w.-]+\s*=[^=;]+)*;?\s*$/, says: "must be fields with values: lr=0.001,0.003; steps=100,200" };

const OPEN = {
  name: { type: "string", description: "what people call it; none: the recipe and what differs" },
  seeds: { type: "string", description: "0, 1, 2: a job for each, listed as one", ...NUMBERS },
  after: { type: "string", description: "12, 13: it starts once these jobs have succeeded", ...NUMBERS },
  priority: { type: "integer", minimum: -100, maximum: 100, default: 0, description: "higher ones start first" },
  project: { type: "string", default: "default", description: "whose limits and budget it counts for" },
  notify: { type: "array", description: "who is told of its end: names of the operator's targets" },
};
const FOLDED = {
  each: { type: "string", description: "a job for each value, or each combination: lr=0.001,0.003; steps=100,200", ...PAIRS },
  notify_on: { type: "string", enum: ["end", "failure"], default: "end", description: "which ends they are told of: each, or those without success" },
  after_any: { type: "string", description: "14: it starts once these jobs have ended, however they end", ...NUMBERS },
  cpus: { type: "number", minimum: 0, description: "CPUs that it holds; none: what its configuration takes" },
  gpus: { type: "number", minimum: 0, description: "GPUs that it holds; none: what its configuration takes" },
  time_limit_min: { type: "number", exclusiveMinimum: 0, description: "minutes that an attempt may run" },
  start_by: { type: "string", description: "the time by which it must have started, else it is given up" },
};
const LABELS = { each: "several values", after_any: "after any end", notify_on: "notify on", time_limit_min: "time limit", start_by: "start by" };
const TYPES = { start_by: "datetime-local" };
const TRAINS = { train: "seed", sweep: "seed", pipeline: "train.seed" };

export class Terms {
  /** kind: of the job. given: the terms to begin with, in the words of the API. fieldAt: the field of its configuration at a path. */
  constructor(kind, given, fieldAt) {
    this.seed = TRAINS[kind]; // the path of its seed, where it has one
    this.fieldAt = fieldAt;
    const made = (schemas) => Object.entries(schemas).filter(([name]) => name !== "seeds" || this.seed)
      .map(([name, schema]) => new Field("", name, schema, { label: LABELS[name] ?? name, type: TYPES[name], prefix: "job-", marked: false }));
    const [open, folded] = [made(OPEN), made(FOLDED)];
    this.fields = [...open, ...folded];
    this.folded = folded;
    this.changes = h("span", { class: "changes" });
    this.node = h("section", { "aria-labelledby": "terms" }, h("h2", { id: "terms" }, "The job"),
      h("div", { class: "fields" }, open.map((field) => field.node)),
      h("details", { class: "fold" }, h("summary", {}, h("b", {}, "Several values, resources, time limits"), this.changes),
        h("div", { class: "fields" }, folded.map((field) => field.node))));
    for (const field of this.fields) if (field.schema.default === undefined) field.stand({ text: "" });
    const { project, priority, time_limit_s, notify } = given;
    const plain = { project: project === "default" ? null : project, priority: priority || null, time_limit_min: time_limit_s ? time_limit_s / 60 : null };
    const values = { ...plain, ...toldOf(notify ?? []), ...held(given) };
    for (const field of this.fields) field.value = values[field.name] ?? undefined;
  }

  refresh() {
    for (const field of this.fields) field.refresh();
    this.changes.textContent = this.folded.filter((field) => field.differs).map((field) => `${field.label} ${shown(field.value)}`).join(", ");
  }

  /** The values in the words of the API. */
  get values() {
    const given = this.fields.map((field) => [field.name, field.value]).filter(([, value]) => value !== undefined);
    const { seeds, each, after, after_any, notify, notify_on, time_limit_min, start_by, ...plain } = Object.fromEntries(given);
    const several = { ...(seeds ? { [this.seed]: listed(seeds).map(numberOf) } : {}), ...this.#several(each) };
    const needed = [...needs(after, "success"), ...needs(after_any, "end")];
    return {
      ...plain,
      ...(Object.keys(several).length ? { each: several } : {}),
      ...(notify ? { notify: notify.map((to) => ({ to, on: notify_on ?? "end" })) } : {}),
      ...(needed.length ? { after: needed } : {}),
      ...(time_limit_min ? { time_limit_s: 60 * time_limit_min } : {}),
      ...(start_by ? { start_by_s: new Date(start_by).getTime() / 1000 } : {}),
    };
  }

  /** Fields that contradict another one, each with what to do. */
  get contradictions() {
    const [seeds, each] = ["seeds", "each"].map((name) => this.fields.find((field) => field.name === name));
    const both = seeds?.value && this.seed in this.#several(each.value);
    return both ? [[seeds, "several values name the seed, too: leave one of the two empty"]] : [];
  }

  /** "lr=0.1,0.2; steps=5" -> {lr: [0.1, 0.2], steps: [5]}; in a pipeline, a name without a step is one of the training. */
  #several(text) {
    const step = this.seed?.includes(".") ? "train." : "";
    return Object.fromEntries((text ?? "").split(";").filter((part) => part.includes("=")).map((part) => {
      const [given, values] = part.split("=");
      const name = given.trim().replaceAll("-", "_");
      const path = name.includes(".") ? name : `${step}${name}`;
      const field = this.fieldAt(path);
      return [path, listed(values).map((value) => (field ? field.parsed(value) : value))];
    }));
  }
}

/** The fields for a list of {to, on}. */
const toldOf = (notify) => ({ notify: notify.length ? notify.map(({ to }) => to) : null, notify_on: notify.some(({ on }) => on === "failure") ? "failure" : null });

const listed = (text) => text.split(",").map((each) => each.trim()).filter(Boolean);
const needs = (text, on) => listed(text ?? "").map((job) => ({ job: numberOf(job), on }));
const numberOf = (text) => (/^\d+$/.test(text) ? Number(text) : text);
