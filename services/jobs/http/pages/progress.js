// How far a job is, as text.

import { duration, isKnown, number } from "./format.js";

/** A job's progress in words: "stage 3 of 5: train · 120 of 200 steps · 41.2 steps/s · 2 s left". */
export function progressWords(progress) {
  const { step, steps, label, done, total, unit, per_s, left_s } = progress;
  const units = !unit || unit === unit.toUpperCase() || unit.endsWith("s") ? unit ?? "" : `${unit}s`; // 3 images, 3 MB
  const counted = !isKnown(done) ? "" : total ? `${number(done)} of ${number(total)} ${units}` : `${number(done)} ${units}`;
  return [
    steps ? `stage ${steps.replace("/", " of ")}: ${step}` : "",
    label && label !== step ? label : "",
    counted.trim(),
    per_s ? `${number(per_s)} ${units}/s` : "",
    !isKnown(left_s) ? "" : `${duration(left_s)} left`,
  ].filter(Boolean).join(" · ");
}

/** The most telling of the last metrics: the loss, and the dev scores unless a kept one is shown; without these, the first few. */
export function metricWords({ progress: { metrics }, score }) {
  const all = Object.entries(metrics ?? {}).filter(([name, value]) => name !== "step" && value !== null);
  const main = all.filter(([name]) => name === "train/loss" || (name.startsWith("dev/") && !score));
  return (main.length ? main : all.slice(0, 4))
    .map(([name, value]) => `${name} ${number(value)}`);
}
