// Elements from data. Text only ever becomes text nodes and attributes: whatever a user wrote, nothing of it is run.

const SVG = "http://www.w3.org/2000/svg";

/** An element: h("p", {class: "quiet", onclick: f}, "text", child). Attributes that are null or false are left out. */
export const h = (name, attributes = {}, ...children) => made(document.createElement(name), attributes, children);

/** The same for what is drawn. */
export const svg = (name, attributes = {}, ...children) => made(document.createElementNS(SVG, name), attributes, children);

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return node;
}

/** Make the children of `old` be these, and touch only what differs: focus, selection and scrolling stay where they are. */
export function show(old, ...children) {
  sameChildren(old, made(document.createElement("div"), {}, children));
}

function same(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name); // what a reader has unfolded stays unfolded
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  sameChildren(old, fresh);
}

function sameChildren(old, fresh) {
  const keyed = new Map([...old.children].filter(keyOf).map((child) => [keyOf(child), child]));
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const found = keyOf(wanted) ? keyed.get(keyOf(wanted)) : at && !keyOf(at) ? at : null;
    if (!found || found.nodeName !== wanted.nodeName) {
      old.insertBefore(wanted, at);
      continue;
    }
    if (found === at) at = at.nextSibling;
    else old.insertBefore(found, at);
    same(found, wanted);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

const keyOf = (node) => node.dataset?.key;

const SHAPES = {
  queued: [["circle", { cx: 8, cy: 8, r: 5 }]],
  starting: [["circle", { cx: 8, cy: 8, r: 5 }], ["path", { d: "M8 3a5 5 0 0 1 0 10z", class: "full" }]],
  running: [["path", { d: "M5 3l8 5-8 5z", class: "full" }]],
  succeeded: [["path", { d: "M3 8.5l3.5 3.5L13 4.5" }]],
  failed: [["path", { d: "M4 4l8 8M12 4l-8 8" }]],
  cancelled: [["circle", { cx: 8, cy: 8, r: 5 }], ["path", { d: "M4.5 11.5l7-7" }]],
  timed_out: [["circle", { cx: 8, cy: 8, r: 5 }], ["path", { d: "M8 5v3.2l2 1.3" }]],
};
const ALSO = { waiting: "queued", done: "succeeded" };

export const WORDS = { queued: "waiting", timed_out: "timed out" };

/** A state as a word and a shape: not by its colour alone. */
export function stateOf(state) {
  const shapes = (SHAPES[ALSO[state] ?? state] ?? SHAPES.queued).map(([name, attributes]) => svg(name, attributes));
  const icon = svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, shapes);
  return h("span", { class: `state ${ALSO[state] ?? state}` }, icon, WORDS[state] ?? state);
}

/** A table that is a list of cards on a phone. heads: texts, or nodes that only a screen reader says; rows: [key, cells]. */
export function table(caption, heads, rows) {
  const head = heads.map((text) => h("th", { role: "columnheader", scope: "col" }, text));
  const said = (text) => (typeof text === "string" ? text : null);
  const body = rows.map(([key, cells]) =>
    h("tr", { role: "row", "data-key": key },
      cells.map((cell, place) => h("td", { role: "cell", "data-head": said(heads[place]) }, cell))));
  return h("table", { role: "table" },
    h("caption", { class: "hidden" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
    h("tbody", { role: "rowgroup" }, body));
}

/** A bar, with what it says for those who do not see it. frac: 0..1, or null where nobody knows. */
export function bar(frac, label) {
  const value = frac === null || frac === undefined ? null : Math.min(1, Math.max(0, frac)).toFixed(4);
  return h("progress", { max: 1, value, "aria-label": label });
}

/** A text to take along. */
export const copied = (text, name) =>
  h("span", { class: "copied" },
    h("code", {}, text),
    h("button", { type: "button", class: "plain", "data-act": "copy", "aria-label": `Copy ${name}` }, "copy"));
