// Whether a photo shows what was drawn. The service keeps what people say about it, with the drawing, and only after they have agreed.

import { post, request } from "./api.js";
import { confirmed } from "./confirm.js";

const CONSENT = "zsbir-keep-verdicts";

export class Feedback {
  #marks = new Map(); // of the drawing that is shown, by the photos' keys

  /** query(key): {strokes} or {example}, by which a photo was found; null for what cannot be kept. changed(): called after each change. */
  constructor({ query, changed }) {
    Object.assign(this, { query, changed, agreed: sessionStorage.getItem(CONSENT) === "yes", on: false });
  }

  /** Shows or hides the buttons; the first time it asks whether what they send may be kept. */
  async turn(on) {
    if (on && !this.agreed) this.agreed = await agree();
    if (this.agreed) sessionStorage.setItem(CONSENT, "yes");
    this.on = on && this.agreed;
    this.changed();
  }

  mark(key) {
    return this.#marks.get(key) ?? null;
  }

  /** Forgets what was said, because photos of another drawing are shown. */
  forget() {
    this.#marks.clear();
  }

  async judge(key, right) {
    const query = this.query(key);
    if (!this.agreed || !query) return;
    const cut = key.lastIndexOf("/");
    await post("/feedback", { ...query, index: key.slice(0, cut), id: Number(key.slice(cut + 1)), right, consent: true });
    if (JSON.stringify(this.query(key)) === JSON.stringify(query)) this.#marks.set(key, right);
    this.changed();
  }

  /** Has the service delete all that this person has said. Returns whether that was done. */
  async withdraw() {
    const sure = await confirmed("Delete your verdicts?", "The service deletes every verdict and drawing that it has kept from you.", "Delete them");
    if (!sure) return false;
    await request("/feedback", { method: "DELETE" });
    sessionStorage.removeItem(CONSENT);
    this.#marks.clear();
    Object.assign(this, { agreed: false, on: false });
    this.changed();
    return true;
  }
}

const agree = () =>
  confirmed("Keep your verdicts?", "Each click on ✓ or ✗ then sends your drawing, the photo and your verdict to the people who run this service. " +
    "They measure later models with it. You can delete all of it at any time. Without your consent nothing of this is kept.", "I agree");
