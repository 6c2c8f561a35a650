// One job: its progress, log, configuration and attempts.

import { listen, mayCancel, mayRetry } from "./actions.js";
import { get, picture } from "./api.js";
import { Chart } from "./chart.js";
import { commandLine } from "./command.js";
import { bar, copied, h, show, table } from "./dom.js";
import { ago, duration, isKnown, number, ordinal, percent, plural } from "./format.js";
import { Log } from "./log.js";
import { titleOf } from "./names.js";
import { metricWords, progressWords } from "./progress.js";
import { stateOf, WORDS } from "./states.js";
import { termsOf } from "./template.js";

const LIVE = ["starting", "running"];
const isOver = (job) => !LIVE.includes(job.state) && job.state !== "queued";

/** The parts of the page in reading order. Charts, log and pictures keep their own state; the others are redrawn. */
function parts(id) {
  const part = (name) => h("div", { class: name });
  const made = { head: part("head"), steps: part("steps"), facts: part("facts"), config: part("config"), attempts: part("attempts"), events: part("events") };
  const loss = new Chart("Loss", "step");
  const score = new Chart("Score on the dev classes", "step");
  const log = new Log(id);
  const attempt = h("select", { "aria-label": "Attempt", hidden: true });
  const logs = h("section", { hidden: true }, h("div", { class: "row" }, h("h2", {}, "Log"), h("span", { class: "end" }, attempt)), log.node);
  const pictures = h("div", { class: "pictures" });
  const node = h("div", { class: "job" }, made.head,
    h("div", { class: "columns" },
      h("div", {}, h("div", { class: "charts" }, loss.node, score.node), made.steps, pictures, logs, made.attempts, made.events),
      h("aside", {}, made.facts, made.config)));
  return { ...made, loss, score, log, logs, attempt, pictures, node };
}

export function jobPage({ main, me, poll, say }, id) {
  const page = parts(id);
  main.append(page.node);
  let job = null;
  page.attempt.addEventListener("change", () => page.log.choose(Number(page.attempt.value)));
  const polling = poll(async () => {
    try {
      job = await get(`/jobs/${id}`);
    } catch (error) {
      if (error.status !== 404) throw error;
      main.replaceChildren(h("div", { class: "empty" }, h("h1", {}, `There is no job ${id}`), h("p", {}, h("a", { href: "/" }, "See the queue"))));
      polling.stop();
      return;
    }
    drawAll(page, job, me);
    await Promise.all([drawCurves(page, job), drawLog(page, job), drawPictures(page, job)]);
    return isOver(job) ? 20 : 2;
  });
  listen(main, {
    chosen: () => [],
    say,
    changed: () => polling.now(),
  });
}

function drawAll(page, job, me) {
  document.title = `${WORDS[job.state] ?? job.state}${LIVE.includes(job.state) && isKnown(job.progress.frac) ? ` ${percent(job.progress.frac)}` : ""} — ${titleOf(job)} (job ${job.id})`;
  show(page.head, headOf(job, me));
  show(page.steps, stepsOf(job));
  show(page.facts, factsOf(job));
  show(page.config, configOf(job));
  show(page.attempts, attemptsOf(job));
  show(page.events, eventsOf(job));
}

function headOf(job, me) {
  const { frac } = job.progress;
  const state = job.cancelling && !isOver(job) ? "cancelling" : job.state;
  const waits = job.state === "queued" && [job.place && `${ordinal(job.place)} in line`, job.reason || (job.place ? "it starts next" : "")].filter(Boolean).join(": ");
  return [
    h("div", { class: "row title" },
      h("h1", {}, titleOf(job)), h("span", { class: "kind" }, `job ${job.id} · ${job.kind}`), h("span", { "aria-live": "polite" }, stateOf(state)),
      h("span", { class: "end buttons" },
        mayCancel(me, job) && h("button", { type: "button", "data-act": "cancel", "data-id": job.id }, "Cancel"),
        mayRetry(me, job) && h("button", { type: "button", class: "main", "data-act": "retry", "data-id": job.id }, "Retry"),
        me.role !== "viewer" && h("a", { class: "button", href: `/submit?like=${job.id}` }, "Use as template"))),
    waits && h("p", { class: "reason" }, waits),
    job.message && h("p", { class: { failed: "problem", timed_out: "banner" }[job.state] ?? "quiet" }, job.message),
    LIVE.includes(job.state) && h("div", { class: "progress" },
      h("div", { class: "row" }, h("span", { class: "quiet" }, progressWords(job.progress) || "no progress reported yet"), h("b", { class: "end" }, isKnown(frac) ? percent(frac) : "")),
      bar(frac, `Progress of job ${job.id}`)),
    job.score && h("p", { class: "kept" }, h("b", {}, number(job.score.value)), ` ${job.score.metric} on the ${job.score.on} classes`,
      isKnown(job.score.step) && h("span", { class: "quiet" }, ` kept from step ${job.score.step}`)),
    h("p", { class: "metrics" }, LIVE.includes(job.state) && metricWords(job).map((each) => h("span", {}, each))),
  ];
}

const section = (title, ...content) => h("section", { "data-key": title }, h("h2", {}, title), content);

/** What the job's links lead to, by name. */
const LINKS = { mlflow_run: "its run", mlflow_runs: "all runs" };

function factsOf(job) {
  const links = Object.entries(job.links ?? {}).filter(([, url]) => /^https?:\/\//.test(url)); // never javascript: or the like
  const facts = [
    ["Recipe", job.recipe], ["Seed", isKnown(job.seed) ? String(job.seed) : ""], ["Array", arrayLink(job)], ["After", afterOf(job)],
    ["Project", job.project], ["Owner", job.owner], ["Priority", number(job.priority)],
    ["Holds", `${plural(job.cpus, "CPU")}, ${plural(job.gpus, "GPU")}`],
    ["Submitted", ago(job.submitted_s)], ["Started", ago(job.started_s)], ["Ended", ago(job.ended_s)],
    ["Took", job.ended_s && job.started_s ? duration(job.ended_s - job.started_s) : ""],
    ["Starts by", ago(job.start_by_s)], ["Time limit", duration(job.time_limit_s)],
    ["Goes on with", job.retry_of ? h("a", { href: `/jobs/${job.retry_of}` }, `job ${job.retry_of}`) : ""],
    ["Result", job.result ? copied(job.result, "the result's address") : ""],
    ["MLflow", links.length ? links.map(([name, url], place) => [place ? ", " : "", h("a", { href: url, rel: "noreferrer" }, LINKS[name] ?? name)]) : ""],
  ];
  return section("Facts", h("dl", {}, facts.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
}

const arrayLink = ({ array_of }) => (array_of ? h("a", { href: `/?array=${array_of}` }, `all jobs of array ${array_of}`) : "");

/** The jobs that must have ended before this one starts. */
function afterOf({ after }) {
  const links = (after ?? []).map(({ job, on }, index) =>
    [index ? ", " : "", h("a", { href: `/jobs/${job}` }, `job ${job}`), on === "end" ? " (any end)" : ""]);
  return links.length ? h("span", {}, links) : "";
}

/** The fields that were given; in a pipeline, by step. */
function configOf(job) {
  const shown = (value) => (Array.isArray(value) ? value.join(", ") : typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  const list = (values) => h("dl", {}, Object.entries(values).map(([name, value]) => [h("dt", {}, name), h("dd", {}, h("code", {}, shown(value)))]));
  const steps = Object.entries(job.config).map(([name, value]) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? [h("h3", {}, name), Object.keys(value).length ? list(value) : h("p", { class: "quiet" }, "defaults")]
      : list({ [name]: value }));
  const all = job.kind === "pipeline" ? steps : list(job.config);
  return [
    section("Configuration", Object.keys(job.config).length ? all : h("p", { class: "quiet" }, "All defaults.")),
    section("The same again", copied(commandLine({ kind: job.kind, config: job.config, ...termsOf(job) }), "the command line")),
  ];
}

/** The end of an address, with the whole one as its tooltip. */
const short = (uri) => h("span", { class: "message", title: uri || null }, uri.split("/").length > 3 ? `…/${uri.split("/").slice(-2).join("/")}` : uri);

function stepsOf(job) {
  if (job.kind !== "pipeline" || !job.steps?.length) return [];
  const stages = new Map([job.progress.stages ?? []].flat().filter(Boolean).map((stage) => [stage.name, stage]));
  return section("Steps", h("ol", { class: "flow" }, job.steps.map((step) => {
    const state = isOver(job) && step.state === "waiting" ? "not_reached" : step.state;
    const took_s = state === "found" ? null : stages.get(step.name)?.took_s;
    return h("li", { "data-key": step.name }, h("b", {}, step.name), stateOf(state), h("span", { class: "quiet" }, isKnown(took_s) ? duration(took_s) : ""),
      step.made && copied(step.made, `the address of ${step.name}`));
  })));
}

function attemptsOf(job) {
  if (!job.attempts_made.length) return [];
  const rows = job.attempts_made.map((attempt) => [attempt.number, [
    attempt.number, attempt.cause ? (attempt.cause.replaceAll("_", " ")) : attempt.stop_reason ? `asked to end: ${attempt.stop_reason}` : "running",
    h("span", { class: "message" }, attempt.message), ago(attempt.started_s ?? attempt.claimed_s),
    attempt.ended_s ? duration(attempt.ended_s - (attempt.started_s ?? attempt.claimed_s)) : "", short(attempt.resumed_from)]]);
  return section("Attempts", table("Attempts", ["attempt", "end", "message", "started", "took", "resumed from"], rows));
}

function eventsOf(job) {
  const detailText = (detail) => Object.entries(detail ?? {}).filter(([, value]) => value !== "").map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
  return section("History", h("ol", { class: "history" }, job.events.map((event) =>
    h("li", {}, ago(event.at_s), h("span", {}, h("b", {}, event.actor), ` ${event.what} `, h("span", { class: "quiet" }, detailText(event.detail)))))));
}

async function drawCurves(page, job) {
  if (!job.attempts || (isOver(job) && page.curvesDone)) return;
  const { rows, step_name } = await get(`/jobs/${job.id}/curve`);
  page.curvesDone = isOver(job);
  const names = [...new Set(rows.flatMap(Object.keys))];
  page.loss.title = step_name && job.kind === "pipeline" ? `Loss of ${step_name}` : "Loss";
  page.loss.put(rows, names.filter((name) => /(^|\/)loss/.test(name)).sort((a, b) => a.length - b.length)); // the whole before its parts
  const trials = step_name === "sweep"; // a row a trial, not a step
  [page.score.title, page.score.xTitle] = trials ? ["Best dev score of each trial", "trial"] : ["Score on the dev classes", "step"];
  page.score.put(rows, names.filter((name) => name.startsWith("dev/")), trials ? null : keptOf(job, rows));
}

/** The dev score of the encoder that is kept, as a point of the chart. */
function keptOf({ score }, rows) {
  const name = `dev/${score?.on === "dev" ? score.metric : "map_all"}`;
  const scored = rows.filter((row) => typeof row[name] === "number");
  const kept = score?.on === "dev" && isKnown(score.step) ? { step: score.step, [name]: score.value } : null;
  const best = kept ?? scored.reduce((one, row) => (one && one[name] >= row[name] ? one : row), null);
  return best && { step: best.step, value: best[name], text: `kept: ${number(best[name])} at step ${best.step}` };
}

async function drawLog(page, job) {
  const newest = job.attempts_made.at(-1)?.number;
  page.logs.hidden = !newest;
  if (!newest) return;
  page.attempt.hidden = newest < 2;
  if (page.attempt.length !== newest) {
    page.attempt.replaceChildren(...job.attempts_made.map(({ number: each }) => h("option", { value: each, selected: each === newest }, `attempt ${each}`)));
    await page.log.choose(newest);
  } else {
    await page.log.more();
  }
}

async function drawPictures(page, job) {
  for (const each of job.pictures ?? []) {
    if ([...page.pictures.children].some((figure) => figure.dataset.key === each.name)) continue;
    const image = h("img", { alt: each.title, src: await picture(`/jobs/${job.id}/pictures/${encodeURIComponent(each.name)}`) });
    page.pictures.append(h("figure", { "data-key": each.name }, image, h("figcaption", {}, each.title)));
  }
}
