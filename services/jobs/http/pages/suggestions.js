// Addresses that a field may take: what the newest jobs have made.

import { ApiError, get } from "./api.js";
import { h } from "./dom.js";
import { titleOf } from "./names.js";

const MADE_BY = { dataset: "ingest", knowledge: "teacher", weights: "pretrain", run: "train", report: "evaluate", index: "index" };
const NEWEST = 20;
const PIPELINES = 5; // each of them is asked for by itself

/** Offers addresses in the fields that take one; the user may type any other. Where the service does not answer there are none. */
export async function suggest(fields, node) {
  const wanted = new Set(fields.map((field) => field.name).filter((name) => name in MADE_BY));
  if (!wanted.size) return;
  const made = await Promise.all([...[...wanted].map((name) => alone(MADE_BY[name])), inPipelines()]).catch((error) => {
    if (!(error instanceof ApiError)) throw error;
    return [];
  });
  for (const name of wanted) {
    const options = made.flat().filter(({ step }) => step === MADE_BY[name]).map(({ address, title }) => h("option", { value: address }, title));
    if (options.length) node.append(h("datalist", { id: `made-${name}` }, options));
    for (const field of fields) if (options.length && field.name === name) field.control.setAttribute("list", `made-${name}`);
  }
}

/** What the newest jobs of a kind have made: {step, address, title}. */
async function alone(kind) {
  const { jobs } = await get(`/jobs?kind=${kind}&state=succeeded&limit=${NEWEST}`);
  return jobs.filter((job) => job.result).map((job) => ({ step: kind, address: job.result, title: `${titleOf(job)}, job ${job.id}` }));
}

/** What the steps of the newest pipelines have made. */
async function inPipelines() {
  const { jobs } = await get(`/jobs?kind=pipeline&state=succeeded&limit=${PIPELINES}`);
  const details = await Promise.all(jobs.map((job) => get(`/jobs/${job.id}`)));
  const made = (job, step) => ({ step: step.name, address: step.made, title: `${titleOf(job)}, job ${job.id}` });
  return details.flatMap((job) => job.steps.filter((step) => step.made).map((step) => made(job, step)));
}
