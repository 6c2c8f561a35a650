// What the canvas holds: a drawing's strokes, or a picture instead of them. All of it can be undone, clearing as well.

/** The side of the canvas in the units of strokes, whatever its size on the screen is. */
export const SIDE = 1000;

/** A person's strokes as the service takes them, [[x...], [y...]] each, in units of SIDE, or {image, example}: a picture instead. */
const EMPTY = { strokes: [], picture: null };
const MOST_STATES = 200;

export class Drawing {
  #now = EMPTY;
  #past = [];
  #future = [];
  #live = null;

  /** changed(): called after every change, also while a stroke grows. */
  constructor(changed) {
    this.changed = changed;
  }

  /** The strokes, with the one that is being drawn. */
  get strokes() {
    return this.#live ? [...this.#base, this.#live] : this.#now.strokes;
  }

  get picture() {
    return this.#live ? null : this.#now.picture;
  }

  get isEmpty() {
    return !this.picture && !this.strokes.length;
  }

  get isGrowing() {
    return this.#live !== null;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  get #base() {
    return this.#now.picture ? [] : this.#now.strokes; // drawing on a picture begins a new drawing
  }

  begin(x, y) {
    this.#live = [[x], [y]];
    this.changed();
  }

  /** Continues the stroke; a point nearer than three units to the last one is left out. */
  extend(x, y) {
    const [xs, ys] = this.#live;
    if (Math.hypot(x - xs.at(-1), y - ys.at(-1)) < 3) return;
    xs.push(x);
    ys.push(y);
    this.changed();
  }

  end() {
    const stroke = this.#live;
    this.#live = null;
    this.#go({ strokes: [...this.#base, stroke], picture: null });
  }

  /** Forgets the stroke that is being drawn. */
  drop() {
    this.#live = null;
    this.changed();
  }

  clear() {
    if (!this.isEmpty) this.#go(EMPTY);
  }

  open(strokes) {
    this.#go({ strokes, picture: null });
  }

  /** Shows a picture instead of a drawing. image: what a canvas can draw; blob: the file to search with; example: {id, index}, or null. */
  show({ image, blob, example = null }) {
    this.#go({ strokes: [], picture: { image, blob, example } });
  }

  undo() {
    if (!this.canUndo || this.isGrowing) return;
    this.#future.push(this.#now);
    this.#now = this.#past.pop();
    this.changed();
  }

  redo() {
    if (!this.canRedo || this.isGrowing) return;
    this.#past.push(this.#now);
    this.#now = this.#future.pop();
    this.changed();
  }

  #go(state) {
    if (this.isGrowing) return; // the pen is down
    this.#past = [...this.#past, this.#now].slice(-MOST_STATES);
    this.#now = state;
    this.#future = [];
    this.changed();
  }
}
