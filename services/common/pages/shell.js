// The frame of a service's pages: who is signed in, what to say when the service does not answer, and signing in.
// index.html has elements with the ids main, banner, who and log-out.

import { ApiError, endSession, get, Poll, token, useLoginLink } from "./api.js";
import { h, show } from "./dom.js";
import { duration } from "./format.js";

const main = document.getElementById("main");
const banner = document.getElementById("banner");

function say(text) {
  banner.textContent = text;
  banner.hidden = !text;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/[.\s]*$/, ".");

/** Opens the page as soon as the service says who the user is.
 *
 * openPage({main, me, poll, say}): fills a page for that user. tokenHelp: how to get a token, texts as rows of parts, the second part of
 * a row being a command line. elsewhere(me): [text, address] of pages of other services, for the head of the page.
 */
export function start({ openPage, tokenHelp, elsewhere = () => [] }) {
  let polling = null;

  /** Pages poll through this, so that a page that is left asks no more. */
  function poll(work, every_s) {
    polling?.stop();
    polling = new Poll(work, onResult, every_s);
    polling.now();
    return polling;
  }

  function onResult(error, wait_s) {
    if (!error) say("");
    else if (error.status === 401) signIn(token.get() ? "This token is unknown here, or was revoked." : "");
    else if (error.status && error.status < 500) say(sentence(error.message));
    else say(`${sentence(error.message)} Trying again in ${duration(wait_s)}.`);
  }

  function signIn(problem) {
    polling?.stop();
    say("");
    document.title = "Sign in";
    const field = h("input", { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: "false", placeholder: "zsbir_…" });
    const enter = (event) => {
      event.preventDefault();
      token.set(field.value.trim());
      askWho();
    };
    main.replaceChildren(
      h("form", { class: "panel sign-in", onsubmit: enter },
        h("h1", {}, "Sign in"),
        h("p", { class: "quiet" }, "This service needs a token. It is kept until this tab is closed, and nowhere else."),
        problem && h("p", { class: "problem", role: "alert" }, problem),
        h("label", { for: "token" }, "Token"), field,
        h("button", { class: "main" }, "Sign in"),
        tokenHelp.map(([before, command, after]) => h("p", { class: "quiet" }, before, command && h("code", {}, command), after))));
    field.focus();
  }

  function open(me) {
    document.getElementById("who").textContent = me.auth === "off" ? "" : `${me.name}, ${me.role}`;
    const logOut = document.getElementById("log-out");
    logOut.hidden = !token.get() && !me.session;
    logOut.onclick = async () => {
      token.forget();
      if (me.session) await endSession();
      location.assign("/");
    };
    const others = elsewhere(me).filter(([, address]) => /^https?:\/\//.test(address ?? ""));
    for (const link of document.querySelectorAll("nav .elsewhere")) link.remove();
    document.querySelector("nav").append(...others.map(([text, href]) => h("a", { href, class: "elsewhere" }, text)));
    for (const link of document.querySelectorAll("nav a:not(.elsewhere)")) {
      if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
    }
    const page = h("div"); // a new one each time, so that the listeners of an old one go with it
    main.replaceChildren(page);
    openPage({ main: page, me, poll, say: (text) => say(text && sentence(text)) });
  }

  function askWho() {
    show(main, h("p", { class: "quiet" }, "Asking the service …"));
    const asking = poll(async () => {
      const me = await get("/me");
      asking.stop();
      setTimeout(() => open(me)); // after this poll has reported its success
    });
  }

  window.addEventListener("unhandledrejection", (event) => {
    if (!(event.reason instanceof ApiError)) return;
    event.preventDefault();
    say(sentence(event.reason.message));
  });
  // A link that is opened in a tab of this page changes nothing but what stands behind the #.
  window.addEventListener("hashchange", () => location.hash.startsWith("#login=") && location.reload());
  useLoginLink().then(askWho, (error) => {
    if (!(error instanceof ApiError)) throw error;
    signIn(sentence(error.message));
  });
}
