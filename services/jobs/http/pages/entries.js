// The entries of the queue's lists: a job is one, and so is an array of jobs, which opens to show them.

import { mayCancel, mayChange, mayRetry } from "./actions.js";
import { bar, h, table } from "./dom.js";
import { ago, duration, isKnown, number, percent, plural } from "./format.js";
import { nameOf, scoreOf, titleOf, whose } from "./names.js";
import { metricWords, progressWords } from "./progress.js";
import { ENDED, LIVE, stateOf } from "./states.js";

export const hidden = (text) => h("span", { class: "hidden" }, text);
const nothing = (text) => h("p", { class: "quiet" }, text);
const moreOf = (what, text) => h("button", { type: "button", class: "more", "data-more": what }, text);
const box = (queue, job) =>
  mayCancel(queue.me, job) && h("input", { type: "checkbox", value: job.id, "aria-label": `Choose job ${job.id}` });
const button = (act, { id }, text, what = "job") =>
  h("button", { type: "button", class: "plain", "data-act": act, "data-id": id, "aria-label": `${text} ${what} ${id}` }, text);

// --- arrays

const isOpen = (queue, array) => queue.opened.has(array.id);
const mayCancelArray = (me, { array, ...job }) => mayChange(me, job) && Object.keys(array.counts).some((state) => !ENDED.includes(state));
const mayRetryArray = (me, { array, ...job }) => mayChange(me, job) && Object.keys(array.counts).some((state) => ["failed", "cancelled", "timed_out"].includes(state));

/** The name of an array, with the button that opens it. */
function arrayName(queue, { array, kind }) {
  const open = isOpen(queue, array);
  const ids = [...array.ids].sort((one, other) => one - other);
  const numbers = ids.length > 1 ? `${ids[0]}–${ids.at(-1)}` : ids[0];
  return h("span", { class: "named" },
    h("button", { type: "button", class: "plain name opener", "data-open": array.id, "aria-expanded": String(open),
      "aria-label": `Array ${array.id}: ${array.name || kind}, ${plural(ids.length, "job")}` },
      h("span", { class: "arrow", "aria-hidden": "true" }, open ? "▾" : "▸"), ` ${array.name || kind} ×${ids.length}`),
    h("span", { class: "quiet" }, `${numbers} ${kind} · ${plural(ids.length, "job")}`));
}

const countsOf = (array) => h("span", { class: "states" }, Object.entries(array.counts).map(([state, count]) => stateOf(state, count)));

/** The best score of an array, and which job has it. */
function bestOf({ best }) {
  if (!best) return null;
  const which = isKnown(best.seed) ? `seed ${best.seed}` : `job ${best.id}`;
  return h("span", { class: "best" }, "best ", scoreOf(best.score), " ", h("a", { href: `/jobs/${best.id}` }, which));
}

const arrayActions = (queue, job) => [
  mayRetryArray(queue.me, job) && button("retry-array", job.array, "Retry", "array"),
  mayCancelArray(queue.me, job) && button("cancel-array", job.array, "Cancel", "array"),
];

/** The jobs of an array that is open; undefined as long as they have not arrived. */
function membersOf(queue, array) {
  const jobs = queue.members.get(array.id);
  return jobs?.filter((job) => array.ids.includes(job.id));
}

/** The jobs of an array as a table of its own. */
function memberTable(queue, array) {
  const members = membersOf(queue, array);
  if (!members) return nothing("Asking for its jobs …");
  return table(`Jobs of array ${array.id}`, ["job", "state", "score", "progress", hidden("actions")], members.map((job) => memberRow(queue, job)));
}

const memberRow = (queue, job) => [job.id, [
  nameOf(job), stateOf(job.cancelling && !ENDED.includes(job.state) ? "cancelling" : job.state), scoreOf(job.score),
  h("span", { class: "message" }, sayOf(job)), actionOf(queue, job)]];

const actionOf = (queue, job) => (mayCancel(queue.me, job) ? button("cancel", job, "Cancel") : mayRetry(queue.me, job) && button("retry", job, "Retry"));

/** What there is to say of a job in one line, whatever its state. */
function sayOf(job) {
  if (job.state === "queued") return job.reason || "it starts next";
  if (LIVE.includes(job.state)) return progressWords(job.progress);
  return job.state === "succeeded" ? "" : job.message;
}

// --- the lists

/** Jobs and arrays that run, as cards. */
export function running(queue) {
  if (!queue.live.length) return nothing("No job is running.");
  return h("ul", { class: "cards" }, queue.live.map((job) =>
    h("li", { class: "panel", "data-key": keyOf(job) }, job.array ? arrayCard(queue, job) : jobCard(queue, job))));
}

export const keyOf = (job) => (job.array ? `array ${job.array.id}` : job.id);

function jobCard(queue, job) {
  const { frac } = job.progress;
  return [
    h("div", { class: "row" }, box(queue, job), nameOf(job), stateOf(job.cancelling ? "cancelling" : job.state), whose(job),
      h("span", { class: "end" }, scoreOf(job.score), h("b", {}, isKnown(frac) ? percent(frac) : ""), mayCancel(queue.me, job) && button("cancel", job, "Cancel"))),
    bar(frac, `Progress of job ${job.id}`),
    h("p", { class: "quiet" }, progressWords(job.progress) || "no progress reported yet"),
    h("p", { class: "metrics" }, metricWords(job).map((each) => h("span", {}, each))),
  ];
}

function arrayCard(queue, job) {
  const { array } = job;
  const words = [isKnown(array.left_s) && `${duration(array.left_s)} left`, array.counts.queued && array.reason].filter(Boolean).join(" · ");
  return [
    h("div", { class: "row" }, arrayName(queue, job), countsOf(array), whose(job),
      h("span", { class: "end" }, h("b", {}, percent(array.frac)), arrayActions(queue, job))),
    bar(array.frac, `Progress of array ${array.id}`),
    h("p", { class: "quiet row" }, bestOf(array), words && h("span", {}, words)),
    isOpen(queue, array) && memberTable(queue, array),
  ];
}

/** A row of a table; behind that of an open array, one with the array's jobs. */
const rowsOf = (queue, job, cells) => [
  [keyOf(job), cells],
  ...(job.array && isOpen(queue, job.array) ? [[`${keyOf(job)} jobs`, [memberTable(queue, job.array)], "inside"]] : []),
];

/** What has become of the jobs of a waiting array that do not wait; null where there are none. */
function othersOf({ array }) {
  const others = Object.entries(array?.counts ?? {}).filter(([state]) => state !== "queued");
  return others.length ? h("span", { class: "states others" }, others.map(([state, count]) => stateOf(state, count))) : null;
}

/** Jobs and arrays that wait, in the order in which they will start. */
export function waiting(queue) {
  const entries = queue.line;
  if (!entries.length) return nothing("No job is waiting.");
  const rows = entries.slice(0, queue.lineShown).flatMap((job) => rowsOf(queue, job, [
    !job.array && box(queue, job), h("span", { class: "place" }, job.place), job.array ? arrayName(queue, job) : nameOf(job), whose(job),
    h("span", { class: "message" }, (job.array ?? job).reason || "it starts next", othersOf(job)), job.priority ? number(job.priority) : "",
    job.array ? arrayActions(queue, job) : mayCancel(queue.me, job) && button("cancel", job, "Cancel")]));
  const more = entries.length > queue.lineShown && moreOf("lineShown", `Show more of ${entries.length}`);
  return [table("Waiting jobs", [hidden("choose"), "place", "job", "project · owner", "why it waits", "priority", hidden("actions")], rows), more];
}

/** Jobs and arrays that have ended, the newest first. */
export function ended(queue, most) {
  if (!queue.ended.length) return nothing("No job that has ended matches.");
  const rows = queue.ended.flatMap((job) => rowsOf(queue, job, job.array ? endedArray(queue, job) : endedJob(queue, job)));
  const all = queue.endedShown >= most && nothing(`The newest ${most}; filter to see older ones.`);
  return [table("Jobs that have ended", ["job", "state", "score", "project · owner", "ended", "message", hidden("actions")], rows),
    queue.endedMore ? moreOf("endedShown", "Show more") : all];
}

const endedJob = (queue, job) => {
  const says = job.state === "succeeded" && !job.score ? metricWords(job).slice(0, 2).join(" · ") : sayOf(job);
  return [nameOf(job), stateOf(job.state), scoreOf(job.score), whose(job), endOf(job), h("span", { class: "message long", title: says || null }, says),
    mayRetry(queue.me, job) && button("retry", job, "Retry")];
};

/** When a job ended, how long it took, and in which attempt, if not the first. */
const endOf = ({ started_s, ended_s, attempts }) =>
  h("span", { class: "stacked" }, ago(ended_s), started_s && h("span", { class: "quiet" },
    `took ${duration(ended_s - started_s)}${attempts > 1 ? `, attempt ${attempts}` : ""}`));

const endedArray = (queue, job) => [arrayName(queue, job), countsOf(job.array), bestOf(job.array), whose(job), ago(job.ended_s), "", arrayActions(queue, job)];
