// What jobs are called and how good they are, in lists and on pages.

import { h } from "./dom.js";
import { isKnown, number } from "./format.js";

/** What a job is called: its name, or for jobs without one its kind. */
export const titleOf = (job) => job.name || job.kind;

/** A job's name as a link, and below it its number, kind, recipe and seed. */
export const nameOf = (job) =>
  h("span", { class: "named" }, h("a", { class: "name", href: `/jobs/${job.id}` }, titleOf(job)), h("span", { class: "quiet" }, detailsOf(job)));

const detailsOf = (job) =>
  [`${job.id} ${job.kind}`, titleOf(job).split(" ").includes(job.recipe) ? "" : job.recipe, isKnown(job.seed) ? `seed ${job.seed}` : ""]
    .filter(Boolean).join(" · ");

/** Whose a job is. */
export const whose = (job) => h("span", { class: "whose", title: `project ${job.project}, owner ${job.owner}` }, `${job.project} · ${job.owner}`);

/** A score in words: "0.849 dev". Its tooltip says of what. null where there is none. */
export function scoreOf(score) {
  if (!score) return null;
  return h("span", { class: "score", title: scoreWords(score) }, h("b", {}, number(score.value)), ` ${score.on}`);
}

/** "map_all 0.849 on the dev classes, kept from step 150". */
export function scoreWords({ metric, value, on, step }) {
  return `${metric} ${number(value)} on the ${on} classes${isKnown(step) ? `, kept from step ${step}` : ""}`;
}
