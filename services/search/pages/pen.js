// From fingers, pens and mice to strokes. One pointer draws at a time; a pen comes before a hand.

import { SIDE } from "./drawing.js";

const PALM_MS = 1000; // a hand rests on the screen before the pen touches it, and after
const GESTURE_MS = 300; // a second finger within this time makes both of them a gesture

/** Lets people draw on a canvas. drawing: what strokes go to. */
export class Pen {
  #active = null; // {id, type, began_ms} of the pointer that draws
  #touches = new Set(); // all fingers on the canvas
  #penSeen_ms = -Infinity;

  constructor(canvas, drawing) {
    Object.assign(this, { canvas, drawing });
    const on = (type, listener) => canvas.addEventListener(type, listener, { passive: false });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", (event) => this.#cancel(event));
    on("contextmenu", (event) => event.preventDefault()); // a long touch opens one
    for (const type of ["touchstart", "touchmove"]) on(type, (event) => event.preventDefault()); // no magnifier, no handwriting
  }

  #down(event) {
    const { pointerId: id, pointerType: type, timeStamp } = event;
    this.#missed(event);
    if (type === "touch") this.#touches.add(id);
    if (type === "pen") this.#penSeen_ms = timeStamp;
    if (event.button !== 0 || !this.#mayBegin(event)) return;
    event.preventDefault();
    this.#active = { id, type, began_ms: timeStamp };
    try {
      this.canvas.setPointerCapture(id); // the stroke goes on beside the canvas
    } catch {
      // the pointer is gone already
    }
    this.drawing.begin(...this.#place(event));
  }

  /** Browsers lose the end of a pointer now and then. One that comes down again was lifted before, and a first finger is alone. */
  #missed({ pointerId: id, pointerType: type, isPrimary }) {
    if (type === "touch" && isPrimary) this.#touches.clear();
    const active = this.#active;
    if (!active || (active.id !== id && !(active.type === "touch" && type === "touch" && isPrimary))) return;
    this.#active = null;
    this.drawing.end();
  }

  #mayBegin({ pointerType, timeStamp }) {
    const active = this.#active;
    if (pointerType === "touch" && timeStamp - this.#penSeen_ms < PALM_MS) return false;
    if (pointerType === "touch" && this.#touches.size > 1) {
      if (active?.type === "touch" && timeStamp - active.began_ms < GESTURE_MS) this.#drop();
      return false;
    }
    if (active?.type === "touch" && pointerType === "pen") this.#drop(); // it was the palm
    return !this.#active;
  }

  #move(event) {
    if (event.pointerType === "pen") this.#penSeen_ms = event.timeStamp; // a pen is seen before it touches
    if (event.pointerId !== this.#active?.id) return;
    event.preventDefault();
    const passed = event.getCoalescedEvents?.() ?? []; // all that lies between two frames
    for (const each of passed.length ? passed : [event]) this.drawing.extend(...this.#place(each));
  }

  #up(event) {
    this.#touches.delete(event.pointerId);
    if (event.pointerId !== this.#active?.id) return;
    event.preventDefault();
    this.drawing.extend(...this.#place(event));
    this.#active = null;
    this.drawing.end();
  }

  /** The system took the pointer away. A finger's stroke was a swipe or a palm then; what a pen or a mouse has drawn was meant. */
  #cancel(event) {
    this.#touches.delete(event.pointerId);
    if (event.pointerId !== this.#active?.id) return;
    if (this.#active.type === "touch") {
      this.#drop();
      return;
    }
    this.#active = null;
    this.drawing.end();
  }

  #drop() {
    this.#active = null;
    this.drawing.drop();
  }

  /** Where an event lies on the canvas, in whole units of a drawing; what lies beside it is moved to its edge. */
  #place({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const on = (part, whole) => Math.round(SIDE * Math.min(1, Math.max(0, part / whole)));
    return [on(clientX - left, width), on(clientY - top, height)];
  }
}
