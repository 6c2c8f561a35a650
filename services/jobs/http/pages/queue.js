// The queue: running jobs, waiting jobs and why they wait, jobs that have ended.

import { listen } from "./actions.js";
import { get, query } from "./api.js";
import { h, show } from "./dom.js";
import { ended, running, waiting } from "./entries.js";
import { duration, isKnown, number, plural } from "./format.js";
import { ENDED, LIVE, stateOf, WORDS } from "./states.js";

const KINDS = ["pipeline", "ingest", "pretrain", "teacher", "sweep", "train", "evaluate", "index", "promote", "export", "command"];
const PAGE = 25;
const MOST = 500;

/** What the page shows, and which filters its user has set. */
class Queue {
  constructor({ main, me, say }) {
    Object.assign(this, { main, me, say, chosen: new Set(), ended: [], endedMore: false, endedShown: PAGE, lineShown: PAGE });
    const wanted = new URLSearchParams(location.search);
    this.filter = Object.fromEntries(["state", "kind", "project", "owner", "array"].map((name) => [name, wanted.get(name) ?? ""]));
    if (!/^\d+$/.test(this.filter.array)) this.filter.array = "";
    this.opened = new Set(this.filter.array ? [Number(this.filter.array)] : []); // arrays whose jobs are shown
    this.members = new Map(); // the jobs of these arrays
  }

  async ask() {
    const { state, ...whose } = this.filter;
    const asked = { ...whose, collapse: "true" };
    const [queue, live, waiting] = await Promise.all([
      get("/queue"), get(`/jobs${query({ state: LIVE, ...asked, limit: MOST })}`), get(`/jobs${query({ state: ["queued"], ...asked, limit: MOST })}`)]);
    Object.assign(this, { queue, live: live.jobs, waiting: waiting.jobs });
    await this.#askEnded(queue, ENDED.includes(state) ? [state] : ENDED, asked);
    // What ended between these answers is in two of them: it has ended.
    const over = this.ended.filter((job) => ENDED.includes((job.array ?? job).state));
    this.over = new Set(over.flatMap((job) => job.array?.ids ?? [job.id]));
    this.live = this.live.filter((job) => !this.over.has(job.id));
    await Promise.all([...this.opened].map((id) => this.#askMembers(id)));
  }

  /** Jobs that have ended do not change: they are asked for again only where there are more of them, or the filter is another. */
  async #askEnded(queue, states, asked) {
    const wanted = JSON.stringify([states, asked, this.endedShown, queue.counts]);
    if (wanted === this.endedWanted) return;
    const { jobs, next } = await get(`/jobs${query({ state: states, ...asked, limit: this.endedShown })}`);
    const shown = jobs.filter((job) => this.filter.state || !job.array || ENDED.includes(job.array.state)); // the others are above
    Object.assign(this, { ended: shown, endedMore: next !== null && this.endedShown < MOST, endedWanted: wanted });
  }

  async #askMembers(id) {
    try {
      this.members.set(id, (await get(`/arrays/${id}`)).jobs);
    } catch (error) {
      if (error.status !== 404) throw error;
      this.opened.delete(id); // there is no such array
    }
  }

  /** The waiting jobs and arrays that match the filter, in the order of their places. An array stands where its first job does. */
  get line() {
    const { state, array: _, ...whose } = this.filter;
    const entries = new Map(this.waiting.flatMap((job) => (job.array ? job.array.ids.map((id) => [id, job]) : [[job.id, job]])));
    const placed = [];
    for (const turn of this.queue.line) {
      const entry = entries.get(turn.id);
      if (this.over.has(turn.id)) continue;
      if (this.filter.array && !entry) continue;
      if (!Object.entries(whose).every(([name, value]) => !value || turn[name] === value)) continue;
      if (entry?.array && (placed.some(({ array }) => array?.id === entry.array.id) || (!state && entry.array.state !== "queued"))) continue;
      placed.push({ ...turn, ...entry, place: turn.place, state: "queued" });
    }
    return placed;
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
    const array = Number(target.closest("[data-open]")?.dataset.open);
    if (array) {
      if (!queue.opened.delete(array)) queue.opened.add(array);
      draw();
      changed();
    }
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
    queue.filter.array = "";
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
    return h("a", { class: count ? "count" : "count none", href: `/${query({ ...whose, state: here ? "" : name })}`, "aria-current": here && "true" },
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
    queue.filter.array && h("p", { "data-key": "one array" }, `Only the jobs of array ${queue.filter.array}. `, h("a", { href: "/" }, "Show all jobs")),
    toolbar(queue),
    seen(...LIVE) && section("Running", running(queue)),
    seen("queued") && section("Waiting", waiting(queue)),
    seen(...ENDED) && section(state ? `Ended: ${WORDS[state] ?? state}` : "Ended", ended(queue, MOST)),
  ];
}

const section = (title, content) => h("section", { "data-key": title, "aria-label": title }, h("h2", {}, title), content);

function toolbar({ chosen }) {
  if (!chosen.size) return null;
  return h("div", { class: "toolbar", "data-key": "toolbar", role: "group", "aria-label": "Chosen jobs" },
    `${plural(chosen.size, "job")} chosen`, h("button", { type: "button", "data-act": "cancel-chosen" }, "Cancel them"));
}

function firstJob(me) {
  return h("div", { class: "empty", "data-key": "empty" },
    h("h2", {}, "No job was submitted here yet"),
    h("p", {}, "The demo's pipeline takes a minute or two on two CPU cores. From the command line:"),
    h("pre", {}, "python -m services.jobs submit pipeline --recipe toy"),
    me.role !== "viewer" && h("p", {}, "Or ", h("a", { href: "/submit" }, "fill in the form"), "."));
}
