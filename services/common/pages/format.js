// Times and numbers as text for people.

import { h } from "./dom.js";

export const isKnown = (value) => value !== null && value !== undefined;

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** 4000 -> "1 h 7 min": the two largest units; the smaller one only where the larger one is below 10. */
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

/** "3 min ago", with the exact time as its tooltip. */
export function ago(at_s) {
  if (!at_s) return "";
  const at = new Date(at_s * 1000);
  const passed = Date.now() / 1000 - at_s;
  const text = passed < -2 ? `in ${duration(-passed)}` : passed < 3 ? "just now" : `${duration(passed)} ago`;
  return h("time", { datetime: at.toISOString(), title: at.toLocaleString() }, text);
}

/** Three significant digits; whole numbers as they are. */
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
export function ordinal(position) {
  const last = position % 100;
  const ending = last > 10 && last < 14 ? "th" : ["th", "st", "nd", "rd"][position % 10] ?? "th";
  return `${position}${ending}`;
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
