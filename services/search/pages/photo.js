// One photo, larger, and the photos near it. Each of these leads on to its own.

import { ApiError, get, query } from "./api.js";
import { h, show } from "./dom.js";
import { keyOf, likeness, likenessOf, nameOf, judge, photos } from "./results.js";

const NEAR = 12;

export class Photo {
  #way = []; // {answer, hit, near}: the photos that led here, the last one is shown

  /** pictures: a Pictures; judged(answer): as for `photos`, or null; options(answer): the switches of a search by the answer's model. */
  constructor({ pictures, judged, onJudge, options }) {
    this.dialog = document.getElementById("photo");
    Object.assign(this, { pictures, judged, options });
    this.dialog.onclick = (event) => this.#click(event, onJudge);
    this.dialog.onclose = () => (this.#way = []);
  }

  open(answer, hit) {
    this.#way = [];
    this.#go(answer, hit);
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
  }

  /** Shows again what may have changed. */
  refresh() {
    if (this.dialog.open) this.#draw();
  }

  async #go(answer, hit) {
    const here = { answer, hit, near: null, problem: "" };
    this.#way.push(here);
    this.#draw();
    try {
      here.near = await get(`/neighbours/${answer.index}/${hit.id}${query({ k: NEAR, options: JSON.stringify(this.options(answer)) })}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      here.problem = error.message;
    }
    if (this.#way.at(-1) === here && this.dialog.open) this.#draw();
  }

  #draw() {
    const { answer, hit, near, problem } = this.#way.at(-1);
    const [name, key] = [nameOf(hit), keyOf(answer, hit)];
    const judged = this.judged(answer);
    const large = hit.original ?? hit.thumbnail;
    show(this.dialog,
      h("div", { class: "photo-bar" },
        this.#way.length > 1 && h("button", { type: "button", class: "plain", "data-key": "back", "data-act": "back" }, "← Back"),
        h("h2", { "data-key": "title" }, name),
        h("button", { type: "button", class: "plain end", "data-key": "close", "data-act": "close" }, "Close")),
      h("div", { class: "large", "data-key": key },
        h("img", { src: this.pictures.source(large) ?? this.pictures.source(hit.thumbnail), alt: name, class: hit.original ? null : "small" })),
      h("div", { class: "about", "data-key": "about" },
        this.#way.length === 1 ? likenessOf(hit) : h("p", { class: "quiet" }, likeness(hit).words),
        h("p", { class: "quiet path" }, hit.path), judged && this.#way.length === 1 && judge(key, name, judged.mark(answer, hit))),
      h("section", { "data-key": "near", "aria-label": "Photos near this one", "aria-busy": String(!near && !problem) },
        h("h3", {}, "Photos near this one"),
        problem && h("p", { class: "problem" }, problem),
        near && (near.hits.length ? photos(near, { source: (address) => this.pictures.source(address), label: "Photos near this one" }) : h("p", { class: "quiet" }, "There is no other photo."))));
  }

  #click(event, onJudge) {
    const { target } = event;
    const act = target.closest("[data-act]")?.dataset.act;
    const next = target.closest("[data-open]")?.dataset.open;
    const verdict = target.closest("[data-judge]");
    const { near } = this.#way.at(-1);
    if (act === "close" || target === this.dialog) this.dialog.close();
    if (act === "back") this.#way.pop();
    if (act === "back") this.#draw();
    if (verdict) onJudge(verdict);
    if (!next) return;
    this.#go(near, near.hits.find((hit) => keyOf(near, hit) === next));
    this.dialog.scrollTop = 0;
    this.dialog.querySelector("[data-act=back]").focus();
  }
}
