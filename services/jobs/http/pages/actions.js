// What a user can do with a job: cancel, retry, copy. Buttons name their action (data-act) and one listener
// hears them all, so that a list may be redrawn at any time.

import { ApiError, post } from "./api.js";
import { confirmed } from "./confirm.js";
import { plural } from "./format.js";

const LIVE = ["queued", "starting", "running"];

/** Whether to offer changes to this job. The service decides; this only hides buttons that it would refuse. */
export const mayChange = (me, job) => me.role === "operator" || (me.role === "submitter" && job.owner === me.name);

export const mayCancel = (me, job) => mayChange(me, job) && LIVE.includes(job.state) && !job.cancelling;

export const mayRetry = (me, job) => mayChange(me, job) && ["failed", "cancelled", "timed_out"].includes(job.state);

async function cancel(ids) {
  const one = ids.length === 1;
  const text = "A running job saves its work first, so that a retry can go on from there; a waiting job leaves the queue.";
  const title = one ? `Cancel job ${ids[0]}?` : `Cancel ${plural(ids.length, "job")}?`;
  if (!(await confirmed(title, text, one ? "Cancel the job" : "Cancel the jobs"))) return "";
  if (one) {
    await post(`/jobs/${ids[0]}/cancel`, {});
    return "";
  }
  return refusals(await post("/cancel", { ids }));
}

async function retry(id) {
  const text = "A new job with the same configuration goes on with the work of this one.";
  if (!(await confirmed(`Retry job ${id}?`, text, "Retry"))) return;
  const job = await post(`/jobs/${id}/retry`, {});
  location.assign(`/jobs/${job.id}`);
}

async function cancelArray(id) {
  const text = "Its running jobs save their work first; those that wait leave the queue.";
  if (!(await confirmed(`Cancel array ${id}?`, text, "Cancel its jobs"))) return "";
  return refusals(await post(`/arrays/${id}/cancel`, {}));
}

async function retryArray(id) {
  const text = "Each of its jobs that did not succeed is submitted again, and goes on with its work.";
  if (await confirmed(`Retry array ${id}?`, text, "Retry")) await post(`/arrays/${id}/retry`, {});
}

const refusals = ({ refused }) => refused.map(({ id, error }) => `job ${id}: ${error}`).join("; ");

/** Copies to the clipboard; where the browser offers none (plain http), it selects the text instead. */
async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "selected";
  }
  setTimeout(() => (button.textContent = "copy"), 1500);
}

/** Listens to all buttons of a page. page: {chosen(): ids, changed(): asks again, say(text): shows an error}. */
export function listen(main, page) {
  const acts = {
    copy: (button) => copy(button),
    cancel: (button) => cancel([Number(button.dataset.id)]),
    retry: (button) => retry(Number(button.dataset.id)),
    "cancel-array": (button) => cancelArray(Number(button.dataset.id)),
    "retry-array": (button) => retryArray(Number(button.dataset.id)),
    "cancel-chosen": () => cancel(page.chosen()),
  };
  main.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-act]");
    if (!button || !acts[button.dataset.act]) return;
    try {
      page.say((await acts[button.dataset.act](button)) ?? "");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      page.say(error.message);
    }
    if (button.dataset.act !== "copy") page.changed();
  });
}
