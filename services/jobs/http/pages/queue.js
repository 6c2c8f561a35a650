// The queue: running jobs, waiting jobs and why they wait, jobs that have ended.

import { listen, mayCancel, mayRetry } from "./actions.js";
import { get, query } from "./api.js";
import { bar, h, show, table } from "./dom.js";
import { ago, duration, isKnown, number, percent, plural } from "./format.js";
import { metricWords, progressWords } from "./progress.js";
import { stateOf, WORDS } from "./states.js";

const LIVE = ["running", "starting"];
const ENDED = ["succeeded", "failed", "cancelled", "timed_out"];
const KINDS = ["pipeline", "ingest", "pretrain", "teacher", "sweep", "train", "evaluate", "index"];
const PAGE = 25;
const MOST = 500;

/** What the page shows, and which filters its user has set. */
class Queue {
  constructor({ main, me, say }) {
    Object.assign(this, { main, me, say, chosen: new Set(), ended: [], endedMore: false, endedShown: PAGE, lineShown: PAGE });
    const wanted = new URLSearchParams(location.search);
    this.filter = Object.fromEntries(["state", "kind", "project", "owner"].map((name) => [name, wanted.get(name) ?? ""]));
  }

  async ask() {
    const { state, ...whose } = this.filter;
    const [queue, live] = await Promise.all([get("/queue"), get(`/jobs${query({ state: LIVE, ...whose, limit: MOST })}`)]);
    this.queue = queue;
    this.live = live.jobs;
    const states = ENDED.includes(state) ? [state] : ENDED;
    // Jobs that have ended do not change: they are asked for again only where there are more of them, or the filter is another.
    const wanted = JSON.stringify([states, whose, this.endedShown, states.map((each) => queue.counts[each])]);
    if (wanted === this.endedWanted) return;
    const { jobs, next } = await get(`/jobs${query({ state: states, ...whose, limit: this.endedShown })}`);
    Object.assign(this, { ended: jobs, endedMore: next !== null && this.endedShown < MOST, endedWanted: wanted });
  }

  /** The waiting jobs that match the filter. */
  get line() {
    const { state: _, ...whose } = this.filter;
    return this.queue.line.filter((job) => Object.entries(whose).every(([name, value]) => !value || job[name] === value));
  }

  get empty() {
    return !Object.values(this.queue.counts).some(Boolean);
  }
}

export function queuePage(context) {
  const queue = new Queue(context);
  const { main, poll, say } = context;
  const head = h("div");
  const body = h("div");
  main.append(h("h1", { class: "hidden" }, "Queue"), head, filters(queue, () => changed()), body);

  const draw = () => {
    document.title = titleOf(queue.queue.counts);
    show(head, headOf(queue));
    show(body, bodyOf(queue));
    main.querySelector("form.filters").hidden = queue.empty;
    for (const box of body.querySelectorAll("input[type=checkbox]")) box.checked = queue.chosen.has(Number(box.value));
  };
  const polling = poll(async () => {
    await queue.ask();
    draw();
  });
  const changed = () => polling.now();

  listen(main, {
    chosen: () => [...queue.chosen],
    say,
    changed: () => {
      queue.chosen.clear();
      changed();
    },
  });
  body.addEventListener("change", ({ target }) => {
    if (target.type !== "checkbox") return;
    if (target.checked) queue.chosen.add(Number(target.value));
    else queue.chosen.delete(Number(target.value));
    draw();
  });
  body.addEventListener("click", ({ target }) => {
    const more = target.closest("[data-more]")?.dataset.more;
    if (!more) return;
    queue[more] = more === "endedShown" ? Math.min(MOST, queue[more] + PAGE) : queue[more] + 4 * PAGE;
    changed();
  });
}

export function titleOf(counts) {
  const running = (counts.running ?? 0) + (counts.starting ?? 0);
  return `${running} running, ${counts.queued ?? 0} waiting — queue`;
}

function filters(queue, changed) {
  const field = (name) =>
    h("label", {}, name, h("input", { name, value: queue.filter[name] || null, autocomplete: "off", spellcheck: "false", placeholder: "all" }));
  const take = (event) => {
    event.preventDefault();
    for (const { name, value } of event.currentTarget.elements) queue.filter[name] = value.trim();
    history.replaceState(null, "", `/${query(queue.filter)}`);
    changed();
  };
  return h("form", { class: "filters", role: "search", "aria-label": "Filter the jobs", onsubmit: take, onchange: take, hidden: true },
    h("label", {}, "kind", h("select", { name: "kind" }, h("option", { value: "" }, "all"),
      KINDS.map((each) => h("option", { value: each, selected: each === queue.filter.kind }, each)))),
    field("project"), field("owner"));
}

function headOf({ queue, filter }) {
  const { counts, limits, usage, dispatcher } = queue;
  const { state, ...whose } = filter;
  const counter = (name, names = [name]) => {
    const here = state === name;
    const count = names.reduce((sum, each) => sum + (counts[each] ?? 0), 0);
    return h("a", { class: "count", href: `/${query({ ...whose, state: here ? "" : name })}`, "aria-current": here && "true" },
      h("b", {}, count), stateOf(name));
  };
  return [
    !dispatcher?.alive && h("p", { class: "banner", role: "status" }, noDispatcher(dispatcher)),
    h("nav", { class: "counts", "aria-label": "Jobs by state" },
      counter("running", LIVE), counter("queued"), ENDED.map((name) => counter(name))),
    h("p", { class: "quiet" }, usageWords(limits, usage, dispatcher)),
  ];
}

const noDispatcher = (dispatcher) =>
  dispatcher?.holder
    ? `The dispatcher has not been seen ${isKnown(dispatcher.seen_s_ago) ? `for ${duration(dispatcher.seen_s_ago)}` : "since this service started"}: jobs wait.`
    : "No dispatcher has been seen yet: jobs wait until one is started (python -m services.jobs up).";

function usageWords(limits, usage, dispatcher) {
  const used = (name, now, limit) => `${name} ${number(now)}${limit === null || limit === undefined ? ", no limit" : ` of ${number(limit)}`}`;
  const projects = Object.entries(limits.projects ?? {}).map(([name, own]) => {
    const shown = Object.entries(own).filter(([, value]) => value !== null).map(([what, value]) => `${number(value)} ${{ cpus: "CPUs", gpus: "GPUs", gpu_hours: "GPU-hours" }[what] ?? what}`);
    return `project ${name} at most ${shown.join(", ") || "what the queue may use"}`;
  });
  return [used("Running", usage.running, limits.running), used("CPUs", usage.cpus, limits.cpus), used("GPUs", usage.gpus, limits.gpus),
    ...projects, dispatcher?.alive ? "dispatcher alive" : ""].filter(Boolean).join(" · ");
}

function bodyOf(queue) {
  if (queue.empty) return [firstJob(queue.me)];
  const { state } = queue.filter;
  const seen = (...names) => !state || names.includes(state);
  return [
    toolbar(queue),
    seen(...LIVE) && section("Running", running(queue)),
    seen("queued") && section("Waiting", waiting(queue)),
    seen(...ENDED) && section(state ? `Ended: ${WORDS[state] ?? state}` : "Ended", ended(queue)),
  ];
}

const section = (title, content) => h("section", { "data-key": title, "aria-label": title }, h("h2", {}, title), content);
const nothing = (text) => h("p", { class: "quiet" }, text);

function toolbar({ chosen }) {
  if (!chosen.size) return null;
  return h("div", { class: "toolbar", "data-key": "toolbar", role: "group", "aria-label": "Chosen jobs" },
    `${plural(chosen.size, "job")} chosen`, h("button", { type: "button", "data-act": "cancel-chosen" }, "Cancel them"));
}

const box = (queue, job) =>
  mayCancel(queue.me, job) && h("input", { type: "checkbox", value: job.id, "aria-label": `Choose job ${job.id}` });
const button = (act, job, text) =>
  h("button", { type: "button", class: "plain", "data-act": act, "data-id": job.id, "aria-label": `${text} job ${job.id}` }, text);
export const nameOf = (job) => h("a", { class: "name", href: `/jobs/${job.id}` }, h("b", {}, job.id), ` ${job.kind}`);
const whose = (job) => h("span", { class: "whose", title: `project ${job.project}, owner ${job.owner}` }, `${job.project} · ${job.owner}`);

function running(queue) {
  if (!queue.live.length) return nothing("No job is running.");
  return h("ul", { class: "cards" }, queue.live.map((job) => {
    const { frac, metrics } = job.progress;
    return h("li", { class: "panel", "data-key": job.id },
      h("div", { class: "row" }, box(queue, job), nameOf(job), stateOf(job.cancelling ? "cancelling" : job.state), whose(job),
        h("span", { class: "end" }, h("b", {}, isKnown(frac) ? percent(frac) : ""), mayCancel(queue.me, job) && button("cancel", job, "Cancel"))),
      bar(frac, `Progress of job ${job.id}`),
      h("p", { class: "quiet" }, progressWords(job.progress) || "no progress reported yet"),
      h("p", { class: "metrics" }, metricWords(metrics).map((each) => h("span", {}, each))));
  }));
}

function waiting(queue) {
  const line = queue.line;
  if (!line.length) return nothing("No job is waiting.");
  const rows = line.slice(0, queue.lineShown).map((job) => {
    const mine = { ...job, state: "queued" };
    return [job.id, [box(queue, mine), h("span", { class: "place" }, job.place), nameOf(job), whose(job),
      h("span", { class: "message" }, job.reason || "it starts next"), job.priority ? number(job.priority) : "", mayCancel(queue.me, mine) && button("cancel", job, "Cancel")]];
  });
  const more = line.length > queue.lineShown && moreOf("lineShown", `Show more of ${line.length}`);
  return [table("Waiting jobs", [hidden("choose"), "place", "job", "project · owner", "why it waits", "priority", hidden("actions")], rows), more];
}

function ended(queue) {
  if (!queue.ended.length) return nothing("No job that has ended matches.");
  const rows = queue.ended.map((job) => [job.id, [nameOf(job), stateOf(job.state), whose(job), ago(job.ended_s),
    duration(job.ended_s - (job.started_s ?? job.ended_s)), h("span", { class: "message" }, job.state === "succeeded" ? metricWords(job.progress.metrics).slice(0, 2).join(" · ") : job.message),
    mayRetry(queue.me, job) && button("retry", job, "Retry")]]);
  const all = queue.endedShown >= MOST && nothing(`The newest ${MOST}; filter to see older ones.`);
  return [table("Jobs that have ended", ["job", "state", "project · owner", "ended", "took", "message", hidden("actions")], rows),
    queue.endedMore ? moreOf("endedShown", "Show more") : all];
}

const hidden = (text) => h("span", { class: "hidden" }, text);
const moreOf = (what, text) => h("button", { type: "button", class: "more", "data-more": what }, text);

function firstJob(me) {
  return h("div", { class: "empty", "data-key": "empty" },
    h("h2", {}, "No job was submitted here yet"),
    h("p", {}, "The demo's pipeline takes a minute or two on two CPU cores. From the command line:"),
    h("pre", {}, "python -m services.jobs submit pipeline --recipe toy"),
    me.role !== "viewer" && h("p", {}, "Or ", h("a", { href: "/submit" }, "fill in the form"), "."));
}
