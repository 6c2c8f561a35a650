// One shell for all pages: who is there, which page the address names, and what to say when the service does not answer.

import { get, Poll, Refused, token } from "./api.js";
import { h, show } from "./dom.js";
import { formPage } from "./form.js";
import { duration } from "./format.js";
import { jobPage } from "./job.js";
import { queuePage } from "./queue.js";

const main = document.getElementById("main");
const banner = document.getElementById("banner");

function say(text) {
  banner.textContent = text;
  banner.hidden = !text;
}

/** How the last request went: null, or an error and when the next one is. */
function told(error, wait_s) {
  if (!error) say("");
  else if (error.status === 401) signIn(token.get() ? "This token is unknown here, or was revoked." : "");
  else if (error.status && error.status < 500) say(sentence(error.message));
  else say(`${sentence(error.message)} Trying again in ${duration(wait_s)}.`);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/[.\s]*$/, ".");

let polling = null;

/** Pages ask through this, so that a page that is left asks no more. */
function poll(work, every_s) {
  polling?.stop();
  polling = new Poll(work, told, every_s);
  polling.now();
  return polling;
}

function signIn(problem) {
  polling?.stop();
  say("");
  document.title = "Sign in";
  const field = h("input", { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: "false", placeholder: "zsbir_…" });
  const enter = (event) => {
    event.preventDefault();
    token.set(field.value.trim());
    start();
  };
  main.replaceChildren(
    h("form", { class: "panel sign-in", onsubmit: enter },
      h("h1", {}, "Sign in"),
      h("p", { class: "quiet" }, "This service wants a token. It is kept until this tab is closed, and nowhere else."),
      problem && h("p", { class: "problem", role: "alert" }, problem),
      h("label", { for: "token" }, "Token"), field,
      h("button", { class: "main" }, "Sign in"),
      h("p", { class: "quiet" }, "An operator makes one: ", h("code", {}, "python -m services.jobs tokens make NAME --role submitter"))));
  field.focus();
}

function known(me) {
  document.getElementById("to-submit").hidden = me.role === "viewer";
  document.getElementById("who").textContent = me.auth === "off" ? "" : `${me.name}, ${me.role}`;
  const out = document.getElementById("log-out");
  out.hidden = !token.get();
  out.onclick = () => {
    token.forget();
    location.assign("/");
  };
}

function pageOf(path) {
  const job = path.match(/^\/jobs\/(\d+)\/?$/);
  if (job) return (world) => jobPage(world, Number(job[1]));
  return path.startsWith("/submit") ? formPage : queuePage;
}

function open(me) {
  known(me);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
  }
  const page = h("div"); // a new one each time: what listened to an old one is gone with it
  main.replaceChildren(page);
  pageOf(location.pathname)({ main: page, me, poll, say: (text) => say(text && sentence(text)) });
}

/** Who am I: asked until it is answered, and then the page opens. */
function start() {
  show(main, h("p", { class: "quiet" }, "Asking the service …"));
  const asking = poll(async () => {
    const me = await get("/me");
    asking.stop();
    setTimeout(() => open(me)); // after this poll has said that all is well
  });
}

window.addEventListener("unhandledrejection", (event) => {
  if (!(event.reason instanceof Refused)) return;
  event.preventDefault();
  say(sentence(event.reason.message));
});
start();
