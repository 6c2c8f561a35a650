// A drawing on the screen. It is drawn anew from its strokes whenever it, the size of the canvas or the colours change.

import { SIDE } from "./drawing.js";

const WIDTH = 11; // of a line, in units of a drawing

export class Paper {
  #asked = false;

  constructor(canvas, drawing) {
    Object.assign(this, { canvas, drawing });
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  /** Draws before the next frame, however often it is asked. */
  redraw() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      this.#draw();
    });
  }

  #fit() {
    const side = Math.round(this.canvas.clientWidth * (window.devicePixelRatio || 1));
    if (!side || this.canvas.width === side) return;
    this.canvas.width = this.canvas.height = side;
    this.#draw(); // at once: setting the size has emptied the canvas
  }

  #draw() {
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.scale(this.canvas.width / SIDE, this.canvas.height / SIDE);
    this.canvas.classList.toggle("pictured", Boolean(this.drawing.picture));
    if (this.drawing.picture) this.#drawPicture(pen, this.drawing.picture.image);
    Object.assign(pen, { lineWidth: WIDTH, lineCap: "round", lineJoin: "round", strokeStyle: getComputedStyle(this.canvas).color });
    for (const stroke of this.drawing.strokes) drawStroke(pen, stroke);
  }

  #drawPicture(pen, image) {
    const [width, height] = [image.naturalWidth || image.width, image.naturalHeight || image.height];
    const scale = SIDE / Math.max(width, height);
    pen.drawImage(image, (SIDE - scale * width) / 2, (SIDE - scale * height) / 2, scale * width, scale * height);
  }
}

function drawStroke(pen, [xs, ys]) {
  pen.beginPath();
  pen.moveTo(xs[0], ys[0]);
  if (xs.length === 1) pen.lineTo(xs[0] + 0.1, ys[0]); // a dot
  for (let at = 1; at < xs.length; at += 1) pen.lineTo(xs[at], ys[at]);
  pen.stroke();
}
