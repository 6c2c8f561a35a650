// A submission as the command line that does the same.

import { quoted } from "./words.js";

/** The steps that a pipeline has whether or not anybody asks for them. Any other one needs to be named. */
const ALWAYS = ["ingest", "teacher", "train", "evaluate", "index"];

/** CPUs and GPUs to ask for again; nothing for one CPU alone, which is the default. */
export const held = ({ cpus, gpus }) => (cpus === 1 && gpus === 0 ? {} : { cpus, gpus });

/** The command line of a submission, in the words of the API. A step without any field has no flag, so it is given in a file. */
export function commandLine({ kind, config, ...terms }) {
  const { words = [], ...fields } = kind === "command" ? { cwd: "", ...config } : config;
  const bare = kind === "pipeline" ? Object.keys(config).filter((step) => !ALWAYS.includes(step) && isEmpty(config[step])) : [];
  const file = bare.length ? ` <<'YAML'\n${bare.map((step) => `${step}: {}`).join("\n")}\nYAML` : "";
  const own = words.length ? [`-- ${words.map(quoted).join(" ")}`] : [];
  const parts = [`python -m services.jobs submit ${kind}`, ...(bare.length ? ["--config=/dev/stdin"] : []), ...flags(fields), ...options(terms), ...own];
  return parts.join(" \\\n  ") + file;
}

const isEmpty = (values) => isMapping(values) && !Object.keys(values).length;
const isMapping = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** --lr=0.003, and --train.lr=0.003 for a field of a pipeline's step. */
const flags = (config, step = "") => Object.entries(config).flatMap(([name, value]) =>
  isMapping(value) ? flags(value, `${name}.`) : flag(`${step}${name}`.replaceAll("_", "-"), value));

/** The options of the job itself: --job-name, --priority and so on; nothing for those that are as they would be anyway. */
function options({ name, each, after, notify, project, priority, cpus, gpus, time_limit_s, start_by_s }) {
  const needed = (on) => (after ?? []).filter((one) => one.on === on).map((one) => one.job).join(",");
  const given = {
    "job-name": name, after: needed("success"), "after-any": needed("end"),
    notify: (notify ?? []).map(({ to }) => to).join(","), "notify-on": notify?.some(({ on }) => on === "failure") ? "failure" : "",
    project: project === "default" ? "" : project, priority: priority || "", ...held({ cpus, gpus }),
    "time-limit": time_limit_s ? `${time_limit_s}s` : "", "start-by": start_by_s ? new Date(start_by_s * 1000).toISOString() : "",
  };
  const several = Object.entries(each ?? {}).map(([path, values]) =>
    /^(train\.)?seed$/.test(path) ? flag("seeds", values) : flag("each", `${path}=${values.map(valueText).join(",")}`));
  const isGiven = ([, value]) => value !== "" && value !== undefined && value !== null;
  return [...several, ...Object.entries(given).filter(isGiven).map(([option, value]) => flag(option, value))];
}

function flag(name, value) {
  if (typeof value === "boolean") return value ? `--${name}` : `--no-${name}`;
  return `--${name}=${quoted(Array.isArray(value) ? value.map(valueText).join(",") : valueText(value))}`;
}

const valueText = (value) => (value === null ? "none" : String(value));
