// The states of jobs and steps as words and icons.

import { h, svg } from "./dom.js";

const SHAPES = {
  queued: [["circle", { cx: 8, cy: 8, r: 5 }]],
  starting: [["circle", { cx: 8, cy: 8, r: 5 }], ["path", { d: "M8 3a5 5 0 0 1 0 10z", class: "full" }]],
  running: [["path", { d: "M5 3l8 5-8 5z", class: "full" }]],
  succeeded: [["path", { d: "M3 8.5l3.5 3.5L13 4.5" }]],
  found: [["path", { d: "M3 6.5l3.5 3.5L13 2.5" }], ["path", { d: "M3 14h10" }]],
  not_reached: [["path", { d: "M4 8h8" }]],
  failed: [["path", { d: "M4 4l8 8M12 4l-8 8" }]],
  cancelled: [["circle", { cx: 8, cy: 8, r: 5 }], ["path", { d: "M4.5 11.5l7-7" }]],
  timed_out: [["circle", { cx: 8, cy: 8, r: 5 }], ["path", { d: "M8 5v3.2l2 1.3" }]],
};
const SAME_AS = { waiting: "queued", done: "succeeded", cancelling: "cancelled" };

export const WORDS = { queued: "waiting", timed_out: "timed out", found: "found, not made again", not_reached: "not reached" };

export const LIVE = ["running", "starting"];
export const ENDED = ["succeeded", "failed", "cancelled", "timed_out"];

/** A state as a word and an icon, so that colour is never the only sign. count: how many are in it, to be said before the word. */
export function stateOf(state, count = null) {
  const shapes = (SHAPES[SAME_AS[state] ?? state] ?? SHAPES.queued).map(([name, attributes]) => svg(name, attributes));
  const icon = svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, shapes);
  return h("span", { class: `state ${SAME_AS[state] ?? state}` }, icon, count === null ? "" : `${count} `, WORDS[state] ?? state);
}
