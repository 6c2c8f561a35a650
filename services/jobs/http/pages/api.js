// The service's HTTP API: a token that lives as long as the tab, errors as the service words them, and asking again and again.

const TOKEN = "zsbir-token";
const LONGEST_S = 30;

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (text) => sessionStorage.setItem(TOKEN, text),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** What the service refused. status 0: it could not be asked. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token.get() ? { Authorization: `Bearer ${token.get()}` } : {}) };
  let reply;
  try {
    reply = await fetch(`/api${path}`, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Refused(0, "the service cannot be reached");
  }
  if (reply.ok) return reply;
  const said = await reply.json().catch(() => ({}));
  throw new Refused(reply.status, said?.error ?? `the service answered ${reply.status}`);
}

/** What an answer holds. Half an answer, or somebody else's, is none. */
async function read(reply, how) {
  try {
    return await how(reply);
  } catch {
    throw new Refused(0, "the service's answer cannot be read");
  }
}

const json = (reply) => reply.json();

export const get = async (path) => read(await ask(path), json);

/** A picture as a data: URL: an img element could not send the token. */
export async function picture(path) {
  const reader = new FileReader();
  reader.readAsDataURL(await read(await ask(path), (reply) => reply.blob()));
  await new Promise((resolve) => reader.addEventListener("loadend", resolve, { once: true }));
  return reader.result;
}

export const post = async (path, body, headers = {}) =>
  read(await ask(path, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) }), json);

/** A piece of a log. from: the byte it begins with; next: the byte after it. */
export async function log(id, offset, attempt) {
  const reply = await ask(`/jobs/${id}/log?offset=${offset}${attempt ? `&attempt=${attempt}` : ""}`);
  const bytes = new Uint8Array(await read(reply, (each) => each.arrayBuffer()));
  const next = Number(reply.headers.get("X-Next-Offset"));
  return { bytes, next, from: Math.max(0, next - bytes.length), ended: reply.headers.get("X-Log-End") === "true" };
}

/** Query parameters from values; lists repeat, empty ones are left out. */
export function query(values) {
  const parts = Object.entries(values).flatMap(([name, value]) => [value].flat().filter(Boolean).map((each) => [name, each]));
  return parts.length ? `?${new URLSearchParams(parts)}` : "";
}

/** Asks now and then again: while the tab is seen, less often when it fails, and at once when somebody acts. */
export class Poll {
  #timer = 0;
  #failures = 0;
  #busy = false;
  #again = false;

  /** work: asks and shows; may return the seconds until the next time. told: hears of each error, and null when all is well. */
  constructor(work, told, every_s = 2) {
    this.work = work;
    this.told = told;
    this.every_s = every_s;
    document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(this.#timer) : this.now()));
    window.addEventListener("online", () => this.now());
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.#timer);
  }

  async now() {
    clearTimeout(this.#timer);
    this.#again = this.#busy;
    if (this.#busy || this.stopped) return;
    this.#busy = true;
    let wait_s = this.every_s;
    try {
      wait_s = await this.#once();
    } finally {
      this.#busy = false;
      if (!this.stopped && !document.hidden) this.#timer = setTimeout(() => this.now(), this.#again ? 0 : 1000 * wait_s);
      this.#again = false;
    }
  }

  async #once() {
    try {
      const wait_s = await this.work();
      this.#failures = 0;
      this.told(null);
      return wait_s ?? this.every_s;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#failures += 1;
      const wait_s = Math.min(LONGEST_S, this.every_s * 2 ** (this.#failures - 1));
      this.told(error, wait_s);
      return wait_s;
    }
  }
}
