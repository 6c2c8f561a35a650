// The canvas with its buttons.

import { h, svg } from "./dom.js";

const ICONS = {
  undo: "M6 3L2.5 6.5 6 10M3 6.5h6.5a4 4 0 010 8H7",
  redo: "M10 3l3.5 3.5L10 10M13 6.5H6.5a4 4 0 000 8H9",
  clear: "M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.7 9h5.6l.7-9",
  upload: "M8 11V2.5M4.5 6L8 2.5 11.5 6M2.5 10.5v3h11v-3",
  link: "M6.5 9.5a3 3 0 004.2 0l2-2a3 3 0 00-4.2-4.2l-.8.8M9.5 6.5a3 3 0 00-4.2 0l-2 2a3 3 0 004.2 4.2l.8-.8",
};
const icon = (name) => svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));

export class Sheet {
  /** drawing: what the buttons change; take(file): a picture was chosen; link(): the address that opens the drawing. */
  constructor(drawing, { take, link }) {
    Object.assign(this, { drawing, take, link });
    this.canvas = h("canvas", { class: "canvas", role: "img", "aria-label": "Drawing area. Without a pointer, upload a picture or take an example." });
    this.chooser = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp,image/gif,image/bmp", hidden: true });
    this.hint = h("p", { class: "hint", "aria-hidden": "true" }, "Draw here");
    const button = (name, text, act, keys) =>
      h("button", { type: "button", class: "tool", onclick: act, "aria-keyshortcuts": keys, title: keys ? `${text} (${keys.replaceAll("Control", "Ctrl")})` : null }, icon(name), h("span", {}, text));
    this.undo = button("undo", "Undo", () => drawing.undo(), "Control+Z");
    this.redo = button("redo", "Redo", () => drawing.redo(), "Control+Y");
    this.clear = button("clear", "Clear", () => drawing.clear());
    this.upload = button("upload", "Picture", () => this.chooser.click());
    this.copy = button("link", "Link", () => this.#copy());
    this.node = h("section", { class: "sheet", "aria-label": "Your drawing" },
      h("div", { class: "paper" }, this.canvas, this.hint),
      h("div", { class: "tools", role: "group", "aria-label": "Drawing tools" }, this.undo, this.redo, this.clear, this.upload, this.copy), this.chooser);
    this.refresh();
  }

  refresh() {
    const { drawing } = this;
    this.hint.hidden = !drawing.isEmpty;
    const settled = !drawing.isGrowing;
    const set = (button, usable) => {
      if (!usable && document.activeElement === button) this.upload.focus(); // a disabled button would lose the focus
      button.disabled = !usable;
    };
    if (!settled) return;
    set(this.undo, drawing.canUndo);
    set(this.redo, drawing.canRedo);
    set(this.clear, !drawing.isEmpty);
    set(this.copy, drawing.strokes.length > 0);
  }

  /** Shows that a picture can be dropped. */
  over(whether) {
    this.node.classList.toggle("over", whether);
  }

  /** Ctrl+Z and Ctrl+Y, outside of fields. */
  key(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.target.matches("input:not([type=checkbox], [type=range]), textarea")) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) this.drawing.redo();
    else this.drawing.undo();
  }

  /** Copies the link. Where the browser offers no clipboard (plain http), the address of the page is that link. */
  async #copy() {
    const text = this.copy.querySelector("span");
    try {
      await navigator.clipboard.writeText(this.link());
      text.textContent = "Copied";
    } catch {
      text.textContent = "See address";
    }
    setTimeout(() => (text.textContent = "Link"), 1800);
  }
}
