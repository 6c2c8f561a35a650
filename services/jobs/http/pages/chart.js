// Lines over optimiser steps, drawn as SVG in the available width. Missing values are skipped; few points are shown as dots.

import { h, show, svg } from "./dom.js";
import { number } from "./format.js";

const HEIGHT = 230;
const EDGE = { left: 48, right: 14, top: 12, bottom: 34 };
const DOTS_UP_TO = 40;

/** Some round numbers from low to high. */
export function ticks(low, high, about = 6) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((each) => each * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(10)));
}

/** The lowest and the highest value with some margin; never the same. */
function range(values, margin) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const more = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * margin;
  return [low - more, high + more];
}

const isNumber = (value) => typeof value === "number" && isFinite(value);

/** A chart whose rows can be replaced again and again. */
export class Chart {
  #rows = [];
  #names = [];
  #mark = null;
  #at = null; // the index of the row that the user points at

  constructor(title, xTitle) {
    this.drawing = h("div", { class: "drawing" });
    this.legend = h("p", { class: "legend" });
    this.name = h("span", {}, title);
    this.where = h("span", { class: "end quiet" });
    this.title = title;
    this.xTitle = xTitle;
    this.node = h("figure", { class: "chart", hidden: true, tabindex: 0, "aria-label": `${title}: arrow keys read out points` },
      h("figcaption", { class: "row" }, this.name, this.where), this.drawing, this.legend);
    for (const name of ["pointermove", "pointerdown"]) this.drawing.addEventListener(name, (event) => this.#pointAtNearest(event));
    this.drawing.addEventListener("pointerleave", () => this.#pointAt(null));
    this.node.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(this.node);
  }

  /** rows: values by name, each with its step. mark: a point to be ringed and named, {step, value, text}. */
  put(rows, names, mark = null) {
    this.#names = names;
    this.#mark = mark && isNumber(mark.step) && isNumber(mark.value) ? mark : null;
    this.#rows = rows.filter((row) => isNumber(row.step) && names.some((name) => isNumber(row[name])));
    this.node.hidden = !this.#rows.length;
    this.#draw();
  }

  #scales() {
    const width = Math.max(240, this.drawing.clientWidth);
    const steps = [...(this.#mark ? [this.#mark.step] : []), ...this.#rows.map((row) => row.step)];
    const marked = this.#mark ? [this.#mark.value] : [];
    const values = [...marked, ...this.#rows.flatMap((row) => this.#names.map((name) => row[name]).filter(isNumber))];
    const [left, right] = range(steps, 0.02);
    const [low, high] = range(values, 0.08);
    return {
      width, left, right, low, high,
      x: (step) => EDGE.left + ((step - left) / (right - left)) * (width - EDGE.left - EDGE.right),
      y: (value) => HEIGHT - EDGE.bottom - ((value - low) / (high - low)) * (HEIGHT - EDGE.top - EDGE.bottom),
    };
  }

  #draw() {
    if (!this.#rows.length || !this.drawing.clientWidth) return;
    const scales = this.#scales();
    show(this.drawing, svg("svg", { viewBox: `0 0 ${scales.width} ${HEIGHT}`, width: scales.width, height: HEIGHT, role: "img", "aria-label": this.#label() },
      this.#axes(scales), this.#names.map((name, index) => this.#line(name, index, scales)), this.#ring(scales), this.#pointer(scales)));
    this.#drawLegend();
  }

  #axes({ width, left, right, low, high, x, y }) {
    const text = (attributes, value) => svg("text", attributes, number(value));
    const whole = this.#rows.length === 1 ? [this.#rows[0].step] : ticks(left, right, width < 420 ? 4 : 7).filter(Number.isInteger);
    return [
      ticks(low, high).map((value) => [
        svg("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value), class: "grid" }),
        text({ x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, value)]),
      whole.filter((step) => step >= 0).map((step) => text({ x: x(step), y: HEIGHT - EDGE.bottom + 16, "text-anchor": "middle" }, step)),
      svg("text", { x: (EDGE.left + width - EDGE.right) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, this.xTitle),
    ];
  }

  #line(name, index, { x, y }) {
    const points = this.#rows.filter((row) => isNumber(row[name])).map((row) => [x(row.step), y(row[name])]);
    const path = points.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(" ");
    const dots = points.length <= DOTS_UP_TO ? points.map(([cx, cy]) => svg("circle", { cx, cy, r: 2.5 })) : [];
    return svg("g", { class: `line-${index % 6}`, "data-name": name, "data-points": points.length }, svg("polyline", { points: path }), dots);
  }

  /** The marked point, with its text on the side where there is room. */
  #ring({ x, y, width }) {
    if (!this.#mark) return null;
    const [cx, cy] = [x(this.#mark.step), y(this.#mark.value)];
    const right = cx < width / 2;
    return svg("g", { class: "ring" }, svg("line", { x1: cx, x2: cx, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }), svg("circle", { cx, cy, r: 5.5 }),
      svg("text", { x: cx + (right ? 9 : -9), y: HEIGHT - EDGE.bottom - 8, "text-anchor": right ? "start" : "end" }, this.#mark.text));
  }

  #pointer({ x, y }) {
    const row = this.#rows[this.#at];
    if (!row) return null;
    const dots = this.#names.map((name, index) => isNumber(row[name]) && svg("circle", { cx: x(row.step), cy: y(row[name]), r: 4.5, class: `line-${index % 6}` }));
    return svg("g", { class: "pointer" }, svg("line", { x1: x(row.step), x2: x(row.step), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }), dots);
  }

  /** Each line with its value at the row that the user points at, else with its last one. */
  #drawLegend() {
    const row = this.#rows[this.#at];
    const last = (name) => this.#rows.findLast((each) => isNumber(each[name]))?.[name];
    this.name.textContent = this.title;
    this.where.textContent = row ? `${this.xTitle} ${row.step}` : "last values";
    show(this.legend, this.#names.map((name, index) => h("span", {},
        svg("svg", { viewBox: "0 0 22 8", class: `swatch line-${index % 6}`, "aria-hidden": "true" }, svg("polyline", { points: "1,4 21,4" })),
        `${name} `, h("b", {}, number(row ? row[name] ?? "–" : last(name))))));
  }

  #label() {
    const first = this.#rows[0].step;
    const last = this.#rows.at(-1).step;
    return `${this.title}, ${this.#rows.length} points from ${this.xTitle} ${first} to ${last}${this.#mark ? `; ${this.#mark.text}` : ""}`;
  }

  #pointAtNearest(event) {
    const { x } = this.#scales();
    const at = event.clientX - this.drawing.getBoundingClientRect().left;
    const far = this.#rows.map((row) => Math.abs(x(row.step) - at));
    this.#pointAt(far.indexOf(Math.min(...far)));
  }

  #key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.#pointAt(null);
    if (!move) return;
    event.preventDefault();
    this.#pointAt(Math.min(this.#rows.length - 1, Math.max(0, (this.#at ?? this.#rows.length) + move)));
  }

  #pointAt(at) {
    if (at === this.#at) return;
    this.#at = at;
    this.#draw();
  }
}
