// A form's first values: those of a job that was submitted before.

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** The configuration of a job as its user would give it.
 *
 * A pipeline is stored with all of its steps and with the recipe in those that train. What the recipe brings by itself is left out, so
 * that the form shows the recipe, and as values only what was changed of it.
 */
export function givenBy({ kind, config }, { starts }) {
  if (kind !== "pipeline") return config;
  const recipe = config.train?.recipe ?? "custom";
  const start = starts[recipe] ?? {};
  const steps = Object.entries(config).map(([step, values]) => [step, withoutThose(values, { ...start[step], ...(isTraining(step) ? { recipe } : {}) })]);
  return { recipe, ...Object.fromEntries(steps) };
}

/** What a job says of itself beside its configuration, without what belonged to that one submission: its name, and when it was to start. */
export const termsOf = ({ project, priority, cpus, gpus, time_limit_s, notify }) => ({ project, priority, cpus, gpus, time_limit_s, notify });

const isTraining = (step) => ["train", "sweep"].includes(step);

const withoutThose = (values, known) => Object.fromEntries(Object.entries(values).filter(([name, value]) => !(name in known && same(value, known[name]))));
