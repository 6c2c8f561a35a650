// The page: a canvas, and the photos that are like what is drawn on it.

import { ApiError, json, post, query, read, request } from "./api.js";
import { Controls } from "./controls.js";
import { h, show } from "./dom.js";
import { Drawing, SIDE } from "./drawing.js";
import { Examples } from "./examples.js";
import { Feedback } from "./feedback.js";
import { duration } from "./format.js";
import { Latest } from "./latest.js";
import { packed, unpacked } from "./link.js";
import { Paper } from "./paper.js";
import { Pen } from "./pen.js";
import { Photo } from "./photo.js";
import { opened, Pictures, receive } from "./pictures.js";
import { keyOf, likeness, nameOf, nothingLikeThat, origin, photos } from "./results.js";
import { Settings } from "./settings.js";
import { Sheet } from "./sheet.js";

const MODELS_S = 5; // between two looks at which models are served

class Search {
  constructor({ main, poll, say }) {
    Object.assign(this, { main, say, answers: [], models: null, problem: "" });
    this.settings = new Settings();
    this.drawing = new Drawing(() => this.#drawn());
    this.pictures = new Pictures(() => this.#show());
    this.feedback = new Feedback({ query: (key) => this.#keptOf(key), changed: () => this.#show() });
    this.examples = new Examples(this.pictures, (example) => this.drawing.show(example));
    this.controls = new Controls({ settings: this.settings, feedback: this.feedback, changed: () => this.#ask() });
    this.sheet = new Sheet(this.drawing, { take: (file) => this.#take(file), link: () => location.href });
    this.photo = new Photo({ pictures: this.pictures, judged: (answer) => this.#judged(this.answers.find((side) => side.answer === answer)), onJudge: (button) => this.#judge(button), options: (answer) => this.#optionsOf(answer) });
    this.latest = new Latest({
      ask: (signal) => this.#search(signal),
      show: (answers) => this.#answered(answers),
      fail: (error, wait_s) => this.#failed(error, wait_s),
      busy: (whether) => this.found?.setAttribute("aria-busy", String(whether)),
    });
    this.#build();
    this.polling = poll(() => this.#askModels(), MODELS_S);
  }

  #build() {
    this.said = h("p", { class: "hidden", role: "status" });
    this.notice = h("div");
    this.sides = h("div", { class: "sides" });
    this.found = h("section", { class: "found", "aria-label": "Photos", "aria-busy": "false" }, this.controls.node, this.notice, this.sides);
    this.main.append(h("h1", { class: "hidden" }, "Draw and search"), h("div", { class: "search" }, this.sheet.node, this.found), this.said);
    this.found.addEventListener("click", ({ target }) => this.#click(target));
    this.found.addEventListener("keydown", (event) => walk(event));
    this.paper = new Paper(this.sheet.canvas, this.drawing);
    this.pen = new Pen(this.sheet.canvas, this.drawing);
    receive({ chooser: this.sheet.chooser, take: (file) => this.#take(file), over: (whether) => this.sheet.over(whether) });
    document.addEventListener("keydown", (event) => this.sheet.key(event));
    window.addEventListener("hashchange", () => this.#readAddress());
    this.#readAddress();
  }

  /** Which models are served; what they are, is asked for now and then, since another one may become champion. */
  async #askModels() {
    const reply = await request("/models", { headers: this.tag ? { "If-None-Match": this.tag } : {} });
    if (reply.status === 304) return;
    const { models } = await read(reply, json);
    this.tag = reply.headers.get("ETag");
    const before = this.models && JSON.stringify(this.models.map(identity));
    if (before === JSON.stringify(models.map(identity))) return;
    this.models = models;
    this.controls.offer(models);
    this.examples.offer(this.controls.chosen[0]).then(() => this.#show());
    if (!this.drawing.isEmpty) this.#ask();
    this.#show();
  }

  // --- asking

  #drawn() {
    this.paper?.redraw();
    this.sheet?.refresh();
    if (this.drawing.isGrowing) {
      if (this.models) this.latest.soon();
      return;
    }
    this.#writeAddress();
    this.#ask();
  }

  #ask() {
    this.#writeAddress();
    this.problem = "";
    if (!this.drawing.isEmpty) {
      if (this.models) this.latest.now(); // else as soon as it is known which there are
      return;
    }
    this.latest.stop();
    this.answers = [];
    this.#show();
  }

  /** Asks one model, or two on the same drawing: [{model, answer, error}]. ApiError where none of them answers. */
  async #search(signal) {
    const drawing = { picture: this.drawing.picture, strokes: this.drawing.strokes.map(([xs, ys]) => [[...xs], [...ys]]) }; // they may grow
    const { picture, strokes } = drawing;
    const sides = await Promise.all(this.controls.chosen.map(async (model) => {
      const asked = this.settings.body(model);
      const said = Object.entries(asked).map(([name, value]) => [name, typeof value === "object" && value ? JSON.stringify(value) : value]);
      try {
        const answer = picture
          ? await post(`/search/image${query(Object.fromEntries(said))}`, picture.blob, {}, signal)
          : await post("/search", { ...asked, strokes, canvas: { width: SIDE, height: SIDE } }, {}, signal);
        return { model, answer, kept: keptOf(drawing, answer) };
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        return { model, error };
      }
    }));
    if (sides.every(({ error }) => error)) throw sides[0]?.error ?? new ApiError(503, "no model is served yet");
    return sides;
  }

  /** What can be kept with a verdict on a photo: what it was found with, whatever is drawn by now; null for nothing. */
  #keptOf(key) {
    return this.answers.find(({ answer }) => answer?.hits.some((hit) => keyOf(answer, hit) === key))?.kept ?? null;
  }

  #optionsOf({ alias }) {
    const model = this.models.find((each) => each.alias === alias);
    return model ? this.settings.optionsOf(model) : {};
  }

  async #take(file) {
    const picture = await opened(file);
    if (picture) this.drawing.show(picture);
    else this.say(`${file.name} is no picture that this browser can read`);
  }

  // --- showing

  #answered(answers) {
    if (queryOf(answers) !== queryOf(this.answers)) this.feedback.forget();
    Object.assign(this, { answers, problem: "" });
    this.#show();
    if (!this.drawing.isGrowing) this.said.textContent = spoken(answers);
  }

  #failed(error, wait_s) {
    if (error.status === 401) this.polling.now();
    this.problem = `${error.message}${wait_s === null ? "" : `: trying again in ${duration(wait_s)}`}`;
    this.#show();
  }

  /** Whether the photos of a side can be judged, and how they were. */
  #judged(side) {
    return this.feedback.on && side?.kept ? { mark: (answer, hit) => this.feedback.mark(keyOf(answer, hit)) } : null;
  }

  #show() {
    if (!this.found) return;
    const source = (address) => this.pictures.source(address);
    const waiting = !this.answers.length;
    const notes = [...new Set((this.models ?? []).map(({ note }) => note).filter(Boolean))];
    show(this.notice, notes.map((note) => h("p", { class: "quiet", "data-key": note }, sentence(note))), this.problem && h("p", { class: "problem", role: "alert" }, sentence(this.problem)),
      !waiting && this.feedback.on && !this.answers.some(({ kept }) => kept) && h("p", { class: "quiet" }, "A picture of your own is not kept, so what is found with it cannot be judged."));
    show(this.sides, waiting ? this.examples.invitation(this.models, this.drawing.isEmpty) : this.answers.map((side) => this.#side(side, source)));
    this.sides.classList.toggle("two", this.answers.length > 1);
    this.found.classList.toggle("stale", Boolean(this.problem));
    this.photo.refresh();
  }

  #side(side, source) {
    const { model, answer, error } = side;
    const title = this.answers.length > 1 && h("h2", {}, model.alias);
    if (error) return h("section", { "data-key": model.alias, "aria-label": model.alias }, title, h("p", { class: "problem" }, error.message));
    return h("section", { "data-key": model.alias, "aria-label": `Photos found by ${model.alias}`, class: answer.no_match ? "unlike" : null },
      title,
      answer.no_match && nothingLikeThat(answer.options === model.options_text ? model.no_match : null),
      answer.hits.length ? photos(answer, { source, judged: this.#judged(side), label: "Photos, the most alike first" }) : h("p", { class: "empty" }, "No photo is left by the filter or the least score."),
      h("p", { class: "quiet origin", "data-key": "origin" }, origin(answer, model)));
  }

  #click(target) {
    const key = target.closest("[data-open]")?.dataset.open;
    const verdict = target.closest("[data-judge]");
    const example = target.closest("[data-example]")?.dataset.example;
    if (verdict) this.#judge(verdict);
    if (example) this.examples.choose(example);
    if (!key) return;
    for (const { answer } of this.answers) {
      const hit = answer?.hits.find((each) => keyOf(answer, each) === key);
      if (hit) this.photo.open(answer, hit);
      if (hit) return;
    }
  }

  async #judge({ dataset }) {
    await this.feedback.judge(dataset.judge, dataset.right === "true");
  }

  // --- the address

  #writeAddress() {
    const said = [...this.settings.said, ...(this.drawing.strokes.length ? [["drawing", packed(this.drawing.strokes)]] : [])];
    const address = said.length ? `#${new URLSearchParams(said)}` : "";
    if (address === this.address) return;
    try {
      history.replaceState(null, "", location.pathname + location.search + address);
      this.address = address;
    } catch {
      // browsers refuse this after a hundred times in half a minute; the next change is written
    }
  }

  #readAddress() {
    if (location.hash === this.address || location.hash.startsWith("#login=")) return;
    const said = new URLSearchParams(location.hash.slice(1));
    this.settings.read(said);
    this.controls.refresh();
    const strokes = unpacked(said.get("drawing"));
    if (strokes) this.drawing.open(strokes);
    else if (this.drawing.isEmpty) this.#ask();
    else this.drawing.clear();
  }
}

/** What of a drawing can be kept with a verdict on an answer's photos: strokes, or the number of an example of the same index; null for
 * pictures that people brought along. */
function keptOf({ picture, strokes }, { index }) {
  if (!picture) return { strokes };
  return picture.example?.index === index ? { example: picture.example.id } : null;
}

const queryOf = (answers) => JSON.stringify(answers.map(({ kept }) => kept ?? null));

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

const identity = ({ alias, model, note, index, options }) => [alias, model, note, index.digest, options];

/** What a screen reader says of an answer. */
const spoken = (answers) =>
  answers.filter(({ answer }) => answer).map(({ model, answer: { hits, no_match: nothing } }) =>
    `${answers.length > 1 ? `${model.alias}: ` : ""}${nothing ? "Nothing like that seems to be here. " : ""}${hits.length} photos` +
    `${hits.length ? `, the first is ${nameOf(hits[0])}, ${likeness(hits[0]).words}` : ""}.`).join(" ");

/** Arrow keys lead from photo to photo. */
function walk(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || !event.target.matches("[data-open]")) return;
  const all = [...event.currentTarget.querySelectorAll("[data-open]")];
  all[all.indexOf(event.target) + step]?.focus();
}

export function searchPage(context) {
  document.title = "Draw and search";
  new Search(context);
}
