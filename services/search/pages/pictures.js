// Pictures: those of the service, and those that people bring along.

import { picture, request, token } from "./api.js";

const MOST = 400; // pictures kept

/** Addresses that img elements can load. One that needs a token is fetched with it, and kept as a data: URL. */
export class Pictures {
  #kept = new Map();

  /** changed(): called when a picture has arrived that was not there when it was asked for. */
  constructor(changed) {
    this.changed = changed;
  }

  /** The address to load a picture of the service from, null as long as it is not there. */
  source(address) {
    if (!token.get()) return address;
    const kept = this.#kept.get(address);
    if (kept === undefined) this.#fetch(address);
    return kept ?? null;
  }

  async #fetch(address) {
    this.#kept.set(address, null);
    if (this.#kept.size > MOST) this.#kept.delete(this.#kept.keys().next().value);
    try {
      this.#kept.set(address, await picture(pathOf(address)));
      this.changed();
    } catch {
      this.#kept.delete(address); // asked for again when it is next shown
    }
  }
}

/** A picture of the service as a file. */
export const fileOf = async (address) => (await request(pathOf(address))).blob();

const pathOf = (address) => address.replace(/^\/api/, "");

const LARGEST_BYTES = 1_000_000;
const LARGEST_PX = 1024;

/** A file as {image, blob}: what a canvas draws, and what is sent. Large ones are made smaller here. null where it is no picture. */
export async function opened(file) {
  try {
    const image = await createImageBitmap(file);
    const known = ["image/png", "image/jpeg", "image/webp"].includes(file.type);
    const small = file.size <= LARGEST_BYTES && Math.max(image.width, image.height) <= 2 * LARGEST_PX;
    return { image, blob: known && small ? file : await reduced(image) };
  } catch {
    return null;
  }
}

async function reduced(image) {
  const scale = Math.min(1, LARGEST_PX / Math.max(image.width, image.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(scale * image.width)), Math.max(1, Math.round(scale * image.height)));
  const pen = canvas.getContext("2d");
  Object.assign(pen, { fillStyle: "#fff", imageSmoothingQuality: "high" });
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/png" });
}

/** Takes files that are pasted or dropped anywhere on the page, or chosen. take(file); over(whether): a file is being dragged. */
export function receive({ chooser, take, over }) {
  const on = (type, listener) => document.addEventListener(type, listener);
  const fileIn = (data) => [...(data?.files ?? [])].find((file) => file.type.startsWith("image/"));
  chooser.addEventListener("change", () => {
    if (chooser.files[0]) take(chooser.files[0]);
    chooser.value = ""; // the same file may be chosen again
  });
  on("paste", (event) => {
    const file = fileIn(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    take(file);
  });
  on("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    over(true);
  });
  on("dragleave", (event) => !event.relatedTarget && over(false));
  on("drop", (event) => {
    over(false);
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault(); // else the browser leaves the page for the file
    take(fileIn(event.dataTransfer) ?? event.dataTransfer.files[0]);
  });
}
