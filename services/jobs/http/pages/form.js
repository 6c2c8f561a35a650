// The form of a new job, made from the service's schema of each kind. Only fields that were filled in are sent.

import { ApiError, get, post } from "./api.js";
import { h } from "./dom.js";
import { Section } from "./fields.js";

const TEMPLATE = "zsbir-template";
export const ASKED_FOR = ["pretrain", "sweep"]; // steps that a pipeline has only where its recipe or its user asks for them

const ABOUT = {
  project: { type: "string", default: "default", description: "whose limits and budget it counts for" },
  priority: { type: "integer", minimum: -100, maximum: 100, default: 0, description: "higher ones first" },
  cpus: { type: "number", minimum: 0, description: "CPUs that it holds; none: what its configuration takes" },
  gpus: { type: "number", minimum: 0, description: "GPUs that it holds; none: what its configuration takes" },
  time_limit_min: { type: "number", exclusiveMinimum: 0, description: "minutes that an attempt may run" },
  start_by: { type: "string", description: "the time by which it must have started, else it is given up" },
};

/** Remembers a job, so that the next form is filled in like it. */
export const keepTemplate = ({ kind, config, project, priority, cpus, gpus, time_limit_s }) =>
  sessionStorage.setItem(TEMPLATE, JSON.stringify({ kind, config, project, priority, ...held({ cpus, gpus }), time_limit_s }));

/** CPUs and GPUs to ask for again; nothing for one CPU alone, which is the default. */
export const held = ({ cpus, gpus }) => (cpus === 1 && gpus === 0 ? { cpus: "", gpus: "" } : { cpus, gpus });

function takeTemplate() {
  const kept = sessionStorage.getItem(TEMPLATE);
  sessionStorage.removeItem(TEMPLATE);
  return kept ? JSON.parse(kept) : null;
}

/** The configuration of one kind. */
class Configuration {
  constructor(kind, { kinds, recipes, about_recipes }) {
    Object.assign(this, { kind, recipes });
    this.aboutRecipe = h("p", { class: "quiet" });
    const schema = kinds[kind];
    const isStep = ([, each]) => each.type === "object";
    const own = Object.entries(schema.properties).filter((entry) => !isStep(entry));
    this.own = new Section("", { ...schema, properties: Object.fromEntries(own) });
    this.steps = Object.entries(schema.properties).filter(isStep).map(([name, each]) => new Step(name, each));
    this.node = h("div", {}, this.own.node, this.aboutRecipe, this.steps.map((step) => step.node));
    this.recipe = this.own.field("recipe");
    this.recipe?.control.addEventListener("change", () => this.#follow(about_recipes));
    this.#follow(about_recipes);
  }

  #follow(about) {
    const name = this.recipe?.value ?? "custom";
    this.aboutRecipe.textContent = (this.recipe && about[name]) ?? "";
    for (const section of [this.own, ...this.steps.map((step) => step.section)]) {
      if (section.field("recipe")) section.showDefaults(this.recipes[name]);
      section.field("recipe")?.showDefault(name);
    }
  }

  get fields() {
    return [...this.own.fields, ...this.steps.flatMap((step) => step.section.fields)];
  }

  get values() {
    const steps = this.steps.map((step) => [step.name, step.section.values]).filter(([name, values], index) => Object.keys(values).length || this.steps[index].wanted);
    return { ...this.own.values, ...Object.fromEntries(steps) };
  }

  set values(values) {
    this.own.values = values;
    for (const step of this.steps) step.fill(values[step.name]);
    this.recipe?.control.dispatchEvent(new Event("change"));
  }
}

/** A step of a pipeline. Its inputs come from the steps before it, so none of its fields is required. */
class Step {
  constructor(name, schema) {
    this.name = name;
    this.section = new Section(name, schema, { isStep: true, title: "Settings" });
    this.asked = ASKED_FOR.includes(name) ? h("input", { type: "checkbox", id: `ask-${name}` }) : null;
    this.node = h("section", { class: "panel" }, h("h2", {}, name), h("p", { class: "quiet" }, schema.description),
      this.asked && h("label", { class: "check", for: `ask-${name}` }, this.asked, " run this step even where the recipe does not have it"), this.section.node);
  }

  get wanted() {
    return Boolean(this.asked?.checked);
  }

  fill(values) {
    this.section.values = values ?? {};
    if (this.asked) this.asked.checked = values !== undefined;
  }
}

/** The field that an error line is about: the first one it names. */
export function fieldOf(message, fields) {
  const step = message.match(/^(\w+): /)?.[1];
  const inStep = fields.filter((field) => !field.step || field.step === step);
  const found = inStep.map((field) => [message.search(new RegExp(`(^|[^\\w])${field.name}([^\\w]|$)`)), field]).filter(([at]) => at >= 0);
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

export async function formPage({ main, me, poll }) {
  document.title = "Submit a job";
  if (me.role === "viewer") {
    main.append(h("p", { class: "empty" }, "Your token lets you see jobs, not submit them."));
    return;
  }
  const asking = poll(async () => {
    const schemas = await get("/kinds");
    asking.stop();
    build(main, schemas);
  });
}

function build(main, schemas) {
  const template = takeTemplate();
  const kind = h("select", { id: "kind" }, Object.keys(schemas.kinds).map((each) => h("option", { value: each }, each)));
  const about = h("p", { class: "quiet", id: "kind-about" });
  const configurationNode = h("div");
  const job = new Section("", { properties: ABOUT }, { title: "Project, priority, resources, time" });
  job.field("start_by").control.type = "datetime-local";
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const send = h("button", { class: "main" }, "Submit the job");
  let configuration;
  const choose = () => {
    configuration = new Configuration(kind.value, schemas);
    about.textContent = schemas.kinds[kind.value].description;
    configurationNode.replaceChildren(configuration.node);
  };
  const form = h("form", { class: "submit" }, h("h1", {}, "Submit a job"),
    h("div", { class: "field" }, h("label", { for: "kind" }, "Kind"), kind, about), configurationNode, job.node, problem,
    h("div", { class: "buttons" }, send));
  const keyOf = keys();

  kind.addEventListener("change", choose);
  kind.value = template?.kind ?? "pipeline";
  choose();
  if (template) {
    configuration.values = template.config;
    job.values = { project: template.project === "default" ? "" : template.project, priority: template.priority || "", cpus: template.cpus, gpus: template.gpus, time_limit_min: template.time_limit_s && template.time_limit_s / 60 };
  }
  form.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = [...configuration.fields, ...job.fields];
    const complain = (text) => {
      problem.textContent = text;
      problem.hidden = !text;
      for (const field of fields) field.complain("");
      if (text) fieldOf(text, fields)?.complain(text);
    };
    complain("");
    send.disabled = true;
    const body = { kind: kind.value, config: configuration.values, ...aboutTheJob(job.values) };
    try {
      const made = await post("/jobs", body, { "Idempotency-Key": keyOf(JSON.stringify(body)) });
      location.assign(`/jobs/${made.id}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      complain(error.status ? error.message : `${error.message}: nothing is lost, submit again`);
    }
    send.disabled = false;
  });
  main.replaceChildren(form);
}

function aboutTheJob({ time_limit_min, start_by, ...values }) {
  return { ...values, ...(time_limit_min ? { time_limit_s: 60 * time_limit_min } : {}), ...(start_by ? { start_by_s: new Date(start_by).getTime() / 1000 } : {}) };
}
