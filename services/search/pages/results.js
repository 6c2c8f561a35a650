// Photos that were found, and how like the drawing they are.

import { h } from "./dom.js";
import { isKnown, number, percent, plural } from "./format.js";

/** What names a photo among all that the service has ever shown. */
export const keyOf = (answer, hit) => `${answer.index}/${hit.id}`;

/** How like a hit is: a share of one to show as a bar, the text beside it ("" without one), and both in words. */
export function likeness({ probability, score }) {
  const cosine = `cosine similarity ${number(score)}`;
  if (!isKnown(probability)) return { frac: score, text: "", words: cosine };
  return { frac: probability, text: percent(probability), words: `probability ${percent(probability)}, ${cosine}` };
}

/** The bar of a hit, with its probability where that is known. The tooltip says the rest. */
export function likenessOf(hit) {
  const { frac, text, words } = likeness(hit);
  const value = Math.min(1, Math.max(0, frac)).toFixed(3);
  return h("span", { class: "likeness", title: words }, h("meter", { min: 0, max: 1, value, "aria-label": words }), text && h("span", {}, text));
}

/** What a person calls a photo: its class, else its file. */
export const nameOf = (hit) => hit.class_name.replaceAll("_", " ") || hit.path.split("/").at(-1) || `photo ${hit.id}`;

/** A list of photos. source(address): what an img loads; judged: {mark(hit): true, false or null}, or null where nobody judges. */
export function photos(answer, { source, judged = null, label }) {
  return h("ol", { class: "photos", "aria-label": label }, answer.hits.map((hit) => tile(answer, hit, source, judged)));
}

function tile(answer, hit, source, judged) {
  const name = nameOf(hit);
  const key = keyOf(answer, hit);
  return h("li", { "data-key": key, class: judged && markOf(judged.mark(answer, hit)) },
    h("button", { type: "button", class: "photo", "data-open": key, "aria-label": `${hit.rank}. ${name}, ${likeness(hit).words}`, title: hit.path },
      h("img", { loading: "lazy", src: source(hit.thumbnail), alt: "", width: 128, height: 128, draggable: "false" })),
    h("div", { class: "caption" }, h("span", { class: "name" }, name), likenessOf(hit)),
    judged && judge(key, name, judged.mark(answer, hit)));
}

const markOf = (mark) => (mark === null ? null : mark ? "right" : "wrong");

/** Two buttons that say whether a photo shows what was drawn. */
export function judge(key, name, mark) {
  const button = (right, text, sign) =>
    h("button", { type: "button", class: "verdict", "data-judge": key, "data-right": String(right), "aria-pressed": String(mark === right),
      "aria-label": `${name} is ${text}` }, sign);
  return h("div", { class: "judge", "data-key": "judge" }, button(true, "right", "✓"), button(false, "wrong", "✗"));
}

const between = (interval) => (Array.isArray(interval) ? ` (${percent(interval[0])} to ${percent(interval[1])})` : "");

/** Says that nothing like the drawing is there, and how sure that is. measured: the model's `no_match`. */
export function nothingLikeThat(measured) {
  const rates = measured && [
    isKnown(measured.false_alarm) && `it says so wrongly for ${percent(measured.false_alarm)} of drawings${between(measured.false_alarm_interval)}`,
    isKnown(measured.miss) && `misses ${percent(measured.miss)} of those that have no photo${between(measured.miss_interval)}`,
    measured.measured_on && `measured on ${measured.measured_on}; with other photos it may be otherwise`,
  ].filter(Boolean).join(", ");
  return h("div", { class: "notice", "data-key": "nothing" },
    h("p", {}, h("b", {}, "Nothing like that seems to be here."), " These are the nearest photos."),
    rates && h("p", { class: "quiet" }, `${rates[0].toUpperCase()}${rates.slice(1)}.`));
}

/** Whether photos were found by a search whose scores are no probabilities: each way to search is calibrated by itself, or is not. */
const uncalibrated = ({ hits }) => hits.length > 0 && !hits.some(({ probability }) => isKnown(probability));

/** Which model and which photos an answer comes from. */
export const origin = (answer, model) =>
  [answer.model || answer.alias, `index ${answer.index.slice(0, 8)}`, model && plural(model.photos.toLocaleString("en"), "photo"), answer.options !== "off" && answer.options,
    answer.ranking !== "exact" && answer.ranking, uncalibrated(answer) && "scores are not calibrated", `${Math.round(answer.took_ms)} ms`]
    .filter(Boolean).join(" · ");
