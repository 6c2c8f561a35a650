// A service's HTTP API: a token that is kept until the tab is closed, errors in the service's own words, and polling.

const TOKEN = "zsbir-token";
const LONGEST_S = 30;

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (text) => sessionStorage.setItem(TOKEN, text),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** An error answer of the service. status 0: the service could not be reached. wait_s: after how many seconds it wants to be asked again,
 * null where it says nothing of it. */
export class ApiError extends Error {
  constructor(status, message, wait_s = null) {
    super(message);
    this.status = status;
    this.wait_s = wait_s;
  }
}

/** Whether an error says that this page itself has given up a request, through the signal it was made with. */
export const isAborted = (error) => error?.name === "AbortError";

/** The answer to a request below /api. ApiError for anything but success, and 304 where the caller has asked for it. */
export async function request(path, options = {}) {
  const headers = { ...options.headers, ...(token.get() ? { Authorization: `Bearer ${token.get()}` } : {}) };
  let reply;
  try {
    reply = await fetch(`/api${path}`, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (isAborted(error)) throw error;
    throw new ApiError(0, "the service cannot be reached");
  }
  if (reply.ok || reply.status === 304) return reply;
  const body = await reply.json().catch(() => ({}));
  const wait = reply.headers.get("Retry-After") ?? "";
  throw new ApiError(reply.status, body?.error ?? `the service answered ${reply.status}`, /^\d{1,5}$/.test(wait) ? Number(wait) : null);
}

/** The content of an answer. ApiError where it broke off, or came from something else than the service, such as a proxy. */
export async function read(reply, how) {
  try {
    return await how(reply);
  } catch (error) {
    if (isAborted(error)) throw error;
    throw new ApiError(0, "the service's answer cannot be read");
  }
}

export const json = (reply) => reply.json();

export const get = async (path, options) => read(await request(path, options), json);

/** A picture as a data: URL: an img element could not send the token. */
export async function picture(path) {
  const reader = new FileReader();
  reader.readAsDataURL(await read(await request(path), (reply) => reply.blob()));
  await new Promise((resolve) => reader.addEventListener("loadend", resolve, { once: true }));
  return reader.result;
}

/** body: what becomes JSON, or a Blob that is sent as it is. */
export const post = async (path, body, headers = {}, signal = undefined) => {
  const [type, sent] = body instanceof Blob ? [body.type, body] : ["application/json", JSON.stringify(body)];
  return read(await request(path, { method: "POST", headers: { "Content-Type": type, ...headers }, body: sent, signal }), json);
};

/** Opens a session with the code of a login link, which is taken out of the address at once. Returns whether it succeeded. */
export async function useLoginLink() {
  const code = new URLSearchParams(location.hash.slice(1)).get("login");
  if (code === null) return false;
  history.replaceState(null, "", location.pathname + location.search);
  await post("/session", { code });
  token.forget();
  return true;
}

/** Ends the session of this browser. */
export const endSession = async () => read(await request("/session", { method: "DELETE" }), json);

/** Query parameters from values; lists repeat, empty ones are left out. */
export function query(values) {
  const parts = Object.entries(values).flatMap(([name, value]) => [value].flat().filter(Boolean).map((each) => [name, each]));
  return parts.length ? `?${new URLSearchParams(parts)}` : "";
}

/** Asks at intervals while the tab is visible, less often after failures, and at once when the user acts. */
export class Poll {
  #timer = 0;
  #failures = 0;
  #busy = false;
  #again = false;

  /** work: asks and shows; may return the seconds until the next time. onResult: called with each ApiError, or null for success. */
  constructor(work, onResult, every_s = 2) {
    this.work = work;
    this.onResult = onResult;
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
      this.onResult(null);
      return wait_s ?? this.every_s;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#failures += 1;
      const wait_s = Math.min(LONGEST_S, error.wait_s ?? this.every_s * 2 ** (this.#failures - 1));
      this.onResult(error, wait_s);
      return wait_s;
    }
  }
}
