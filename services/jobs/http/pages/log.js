// The end of a log: it follows new lines while the user looks at the end, and loads earlier lines on request.

import { read, request } from "./api.js";
import { h } from "./dom.js";

const MOST_LINES = 2000;
const STEP = 64 * 1024;
const bytesOf = (text) => new TextEncoder().encode(text);
const textOf = (bytes) => new TextDecoder().decode(bytes);

/** A piece of a log. next: the offset behind its last byte; ended: there will be no more. */
async function piece(id, offset, attempt) {
  const reply = await request(`/jobs/${id}/log?offset=${offset}${attempt ? `&attempt=${attempt}` : ""}`);
  const bytes = new Uint8Array(await read(reply, (each) => each.arrayBuffer()));
  return { bytes, next: Number(reply.headers.get("X-Next-Offset")), ended: reply.headers.get("X-Log-End") === "true" };
}

export class Log {
  #text = "";
  #next = null; // the offset behind the shown bytes; null: nothing was read yet
  #behind = false; // earlier lines are shown, and the end is not
  #attempt = 0;

  constructor(job) {
    this.job = job;
    this.ended = false;
    this.pre = h("pre", { class: "log", tabindex: 0, role: "log", "aria-live": "off", "aria-label": "Log" });
    this.earlier = h("button", { type: "button", class: "plain", hidden: true, onclick: () => this.#back() }, "Load earlier lines");
    this.toEnd = h("button", { type: "button", class: "plain", hidden: true, onclick: () => this.follow() }, "Follow the end");
    this.pre.addEventListener("scroll", () => this.#buttons());
    this.node = h("div", {}, h("div", { class: "row" }, this.earlier, h("span", { class: "end" }, this.toEnd)), this.pre);
  }

  /** Shows another attempt's log. */
  async choose(attempt) {
    if (attempt === this.#attempt) return;
    this.#attempt = attempt;
    await this.follow();
  }

  /** Shows the end, whatever is shown now. */
  async follow() {
    Object.assign(this, { ended: false });
    [this.#text, this.#next, this.#behind] = ["", null, false];
    await this.more();
    this.pre.scrollTop = this.pre.scrollHeight;
  }

  /** Shows the lines that were added since. */
  async more() {
    if (this.ended || this.#behind) return;
    const [attempt, at] = [this.#attempt, this.#next];
    const { bytes, next, ended } = await piece(this.job, at ?? -STEP, attempt);
    if (attempt !== this.#attempt || at !== this.#next) return; // meanwhile another attempt was chosen, or this piece was shown
    const first = at === null;
    this.#next = next;
    this.ended = ended;
    const lines = (this.#text + textOf(bytes)).split("\n");
    if (first && next > bytes.length && lines.length > 1) lines.shift(); // the first one was cut
    const follows = this.#atEnd();
    this.#put(lines.slice(-MOST_LINES).join("\n"), textOf(bytes), !first && lines.length <= MOST_LINES);
    if (follows) this.pre.scrollTop = this.pre.scrollHeight;
    this.#buttons();
    if (!ended && bytes.length >= STEP) await this.more();
  }

  /** Loads earlier lines above those being read, which keep their position, and drops surplus lines at the end. */
  async #back() {
    const [attempt, from] = [this.#attempt, this.#from()];
    const start = Math.max(0, from - STEP);
    const { bytes } = await piece(this.job, start, attempt);
    if (attempt !== this.#attempt || from !== this.#from()) return; // meanwhile another attempt was chosen, or this piece was shown
    const earlier = textOf(bytes.slice(0, from - start)).split("\n");
    if (start > 0 && earlier.length > 1) earlier.shift();
    const lines = (earlier.slice(-MOST_LINES / 2).join("\n") + this.#text).split("\n");
    const cut = lines.slice(MOST_LINES);
    this.#behind ||= cut.length > 0;
    if (cut.length) this.#next -= bytesOf(cut.join("\n")).length + 1;
    const below = this.pre.scrollHeight - this.pre.scrollTop;
    this.#put(lines.join("\n"));
    this.pre.scrollTop = this.pre.scrollHeight - below;
    if (cut.length) this.#put(lines.slice(0, MOST_LINES).join("\n"));
    this.#buttons();
  }

  /** The offset of the first byte shown. */
  #from() {
    return Math.max(0, (this.#next ?? 0) - bytesOf(this.#text).length);
  }

  #put(text, added = "", onlyAdded = false) {
    const hadText = this.#text !== "";
    this.#text = text;
    if (onlyAdded && hadText) this.pre.append(added); // so that a selection stays
    else this.pre.textContent = text || (this.ended ? "The log is empty." : "Nothing yet.");
  }

  #atEnd() {
    return this.pre.scrollHeight - this.pre.scrollTop - this.pre.clientHeight < 24;
  }

  #buttons() {
    this.earlier.hidden = this.#next === null || this.#from() === 0;
    this.toEnd.hidden = this.#atEnd() && !this.#behind;
  }
}
