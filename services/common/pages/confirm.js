// A question that is answered before anything happens. index.html has a dialog with the ids ask, ask-title, ask-text and ask-yes.

/** Asks in the page's dialog; true for yes. */
export function confirmed(title, text, verb) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-title").textContent = title;
  document.getElementById("ask-text").textContent = text;
  document.getElementById("ask-yes").textContent = verb;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
