// Asks for what is newest: one question at a time, and an older answer never replaces a newer one.

import { ApiError, isAborted } from "./api.js";

const PAUSE_MS = 120; // between two questions while a drawing grows
const RETRY_S = 2;
const LONGEST_S = 30;

/** ask(signal): asks for the state of this moment, and returns the answer. show(answer), fail(error, wait_s): what came of the newest
 * question; wait_s: in how many seconds it is asked again, null: not at all. busy(whether): a question is under way. */
export class Latest {
  #number = 0;
  #under = null; // the AbortController of the question that is under way
  #wanted = false; // another one is to follow
  #timer = 0;
  #began_ms = -Infinity;
  #failures = 0;

  constructor({ ask, show, fail, busy }) {
    Object.assign(this, { ask, show, fail, busy });
    window.addEventListener("online", () => this.#failures && this.now());
  }

  /** Asks when the question under way is answered, and not too often: for a drawing that still grows. */
  soon() {
    this.#wanted = true;
    if (this.#under || this.#timer) return;
    const wait_ms = Math.max(0, this.#began_ms + PAUSE_MS - performance.now());
    this.#timer = setTimeout(() => this.now(), wait_ms);
  }

  /** Asks at once. The question under way is given up. */
  now() {
    this.stop();
    this.#go();
  }

  /** Gives up the question under way, and those that were to follow. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#wanted = false;
    this.#number += 1;
    this.#under?.abort();
    this.#under = null;
    this.busy(false);
  }

  async #go() {
    const [number, under] = [this.#number, new AbortController()];
    this.#under = under;
    this.#began_ms = performance.now();
    this.busy(true);
    let [answer, error] = [null, null];
    try {
      answer = await this.ask(under.signal);
    } catch (failure) {
      if (!(failure instanceof ApiError) && !isAborted(failure)) throw failure;
      error = failure;
    }
    if (number !== this.#number) return; // a newer question was asked since
    this.#under = null;
    if (error) this.#failed(error);
    else this.#answered(answer);
  }

  #answered(answer) {
    this.#failures = 0;
    this.busy(false);
    this.show(answer);
    if (this.#wanted) this.soon();
  }

  #failed(error) {
    const again = [0, 429, 502, 503, 504].includes(error.status);
    this.#failures += 1;
    const wait_s = again ? Math.max(1, Math.min(LONGEST_S, error.wait_s ?? RETRY_S * 2 ** (this.#failures - 1))) : null;
    this.busy(false);
    this.fail(error, wait_s);
    if (again) this.#timer = setTimeout(() => this.now(), 1000 * wait_s);
  }
}
