// Times and numbers as people say them.

import { h } from "./dom.js";

export const isKnown = (value) => value !== null && value !== undefined;

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** 4000 -> "1 h 7 min": its two largest units, the smaller one only where it says something. */
export function duration(seconds) {
  if (!isKnown(seconds) || !isFinite(seconds)) return "";
  let left = Math.max(0, Math.round(seconds));
  if (left > 3600) left = Math.round(left / 60) * 60;
  const first = UNITS.findIndex(([, size]) => left >= size);
  if (first < 0) return "0 s";
  const [name, size] = UNITS[first];
  const [smaller, part] = UNITS[first + 1] ?? ["", 1];
  const rest = Math.floor((left % size) / part);
  const whole = Math.floor(left / size);
  return rest && smaller && whole < 10 ? `${whole} ${name} ${rest} ${smaller}` : `${whole} ${name}`;
}

/** "3 min ago", with the exact time to hover over. */
export function ago(at_s) {
  if (!at_s) return "";
  const at = new Date(at_s * 1000);
  const passed = Date.now() / 1000 - at_s;
  const text = passed < -2 ? `in ${duration(-passed)}` : passed < 3 ? "just now" : `${duration(passed)} ago`;
  return h("time", { datetime: at.toISOString(), title: at.toLocaleString() }, text);
}

/** Three digits that matter; whole numbers as they are. */
export function number(value) {
  if (typeof value !== "number") return String(value ?? "");
  if (!isFinite(value) || Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toString();
  if (size < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

export const percent = (frac) => `${Math.floor(100 * Math.min(1, Math.max(0, frac ?? 0)))} %`;

/** 1 -> "1st". */
export function ordinal(place) {
  const last = place % 100;
  const ending = last > 10 && last < 14 ? "th" : ["th", "st", "nd", "rd"][place % 10] ?? "th";
  return `${place}${ending}`;
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** What a progress says in words: "train · 120 of 200 steps · 41.2 steps/s · 2 s left". */
export function progressWords(progress) {
  const { step, steps, label, done, total, unit, per_s, left_s } = progress;
  const units = !unit || unit === unit.toUpperCase() || unit.endsWith("s") ? unit ?? "" : `${unit}s`; // 3 images, 3 MB
  const counted = !isKnown(done) ? "" : total ? `${number(done)} of ${number(total)} ${units}` : `${number(done)} ${units}`;
  return [
    steps ? `${step}, step ${steps.replace("/", " of ")}` : "",
    label && label !== step ? label : "",
    counted.trim(),
    per_s ? `${number(per_s)} ${units}/s` : "",
    !isKnown(left_s) ? "" : `${duration(left_s)} left`,
  ].filter(Boolean).join(" · ");
}

/** The last metrics that say most: the loss and the dev scores; where there are none, the first few. */
export function metricWords(metrics) {
  const all = Object.entries(metrics ?? {}).filter(([name, value]) => name !== "step" && value !== null);
  const main = all.filter(([name]) => name === "train/loss" || name.startsWith("dev/"));
  return (main.length ? main : all.slice(0, 4))
    .map(([name, value]) => `${name} ${number(value)}`);
}
