// Elements from data. Text only ever becomes text nodes and attributes, so nothing that a user wrote is ever run as code.

const SVG = "http://www.w3.org/2000/svg";

/** An element: h("p", {class: "quiet", onclick: f}, "text", child). Attributes that are null or false are left out. */
export const h = (name, attributes = {}, ...children) => made(document.createElement(name), attributes, children);

/** An SVG element, in the same way. */
export const svg = (name, attributes = {}, ...children) => made(document.createElementNS(SVG, name), attributes, children);

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return node;
}

/** Replace the children of `old`, but touch only what differs: focus, selection and scrolling stay where they are. */
export function show(old, ...children) {
  sameChildren(old, made(document.createElement("div"), {}, children));
}

function same(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name); // what a user has unfolded stays unfolded
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

/** A table that becomes a list of cards on a phone. heads: texts, or nodes that only a screen reader reads out; rows: [key, cells], or
 * [key, [cell], "inside"] for a row of one cell that belongs to the row before it. */
export function table(caption, heads, rows) {
  const head = heads.map((text) => h("th", { role: "columnheader", scope: "col" }, text));
  const textOf = (head) => (typeof head === "string" ? head : null);
  const body = rows.map(([key, cells, name]) =>
    h("tr", { role: "row", "data-key": key, class: name },
      cells.map((cell, column) => h("td", { role: "cell", ...(name ? { colspan: heads.length } : { "data-head": textOf(heads[column]) }) }, cell))));
  return h("table", { role: "table" },
    h("caption", { class: "hidden" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
    h("tbody", { role: "rowgroup" }, body));
}

/** A progress bar with a label for screen readers. frac: 0..1, or null where it is unknown. */
export function bar(frac, label) {
  const value = frac === null || frac === undefined ? null : Math.min(1, Math.max(0, frac)).toFixed(4);
  return h("progress", { max: 1, value, "aria-label": label });
}

/** A text with a button that copies it. */
export const copied = (text, name) =>
  h("span", { class: "copied" },
    h("code", {}, text),
    h("button", { type: "button", class: "plain", "data-act": "copy", "aria-label": `Copy ${name}` }, "copy"));
