// A page's state behind the # of its address: a link opens the same drawing. Browsers do not send this part to any server.

import { SIDE } from "./drawing.js";

const LONGEST = 60_000; // characters
const MOST_POINTS = 20_000;

/** A drawing as text: for each stroke its number of points, then their steps from point to point, seven bits a byte, as base64url. */
export function packed(strokes) {
  const bytes = [];
  const put = (value) => {
    for (; value > 127; value >>>= 7) bytes.push((value & 127) | 128);
    bytes.push(value);
  };
  const putStep = (step) => put(step < 0 ? -2 * step - 1 : 2 * step);
  for (const [xs, ys] of strokes) {
    put(xs.length);
    xs.forEach((x, at) => {
      putStep(x - (at ? xs[at - 1] : 0));
      putStep(ys[at] - (at ? ys[at - 1] : 0));
    });
  }
  const text = bytes.map((byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The strokes of a text that `packed` has made; null for anything else. */
export function unpacked(text) {
  if (!text || text.length > LONGEST) return null;
  try {
    return strokesOf(atob(text.replaceAll("-", "+").replaceAll("_", "/")));
  } catch {
    return null;
  }
}

function strokesOf(bytes) {
  let at = 0;
  let points = 0;
  const take = () => {
    let [value, shift, byte] = [0, 0, 128];
    for (; byte > 127; shift += 7) {
      if (at >= bytes.length || shift > 14) throw new RangeError("not a drawing");
      byte = bytes.charCodeAt(at++);
      value |= (byte & 127) << shift;
    }
    return value;
  };
  const takeStep = () => {
    const value = take();
    return value & 1 ? -(value + 1) / 2 : value / 2;
  };
  const strokes = [];
  while (at < bytes.length) {
    const count = take();
    points += count;
    if (!count || points > MOST_POINTS) throw new RangeError("not a drawing");
    const [xs, ys] = [[], []];
    let [x, y] = [0, 0];
    for (let point = 0; point < count; point += 1) {
      xs.push((x += takeStep()));
      ys.push((y += takeStep()));
      if (Math.min(x, y) < 0 || Math.max(x, y) > SIDE) throw new RangeError("not a drawing");
    }
    strokes.push([xs, ys]);
  }
  return strokes.length ? strokes : null;
}
