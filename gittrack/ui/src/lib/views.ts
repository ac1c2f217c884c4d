// Views of the runs with a name: settings of the address, kept as a tag of the experiment, so that a team has the same
// and they go where the experiments go.  What others wrote there is hostile: only settings of this page are taken.

import { post, type Experiment } from "./api";

const PREFIX = "gittrack.view.";
/** The longest name that fits a tag's. */
export const LONGEST = 250 - PREFIX.length;
const SETTINGS = ["view", "filter", "sort", "deleted", "diff", "hide", "pin", "order", "width", "also", "group", "aggregate", "tree", "spark", "axis", "smoothing", "log", "metric"];

export interface View {
  name: string;
  experiment: Experiment;
  /** With the experiment's. */
  settings: Record<string, string>;
}

function kept(settings: Iterable<[string, string]>): [string, string][] {
  return [...settings].filter(([name, value]) => SETTINGS.includes(name) && value !== "");
}

/** The views of some experiments, by name. */
export function views(experiments: Experiment[]): View[] {
  const found = experiments.flatMap((experiment) =>
    (experiment.tags ?? [])
      .filter(({ key }) => key.startsWith(PREFIX) && key.length > PREFIX.length)
      .map(({ key, value }) => {
        const settings = Object.fromEntries(kept(new URLSearchParams(value)));
        return { name: key.slice(PREFIX.length), experiment, settings: { experiment: experiment.experiment_id, ...settings } };
      }),
  );
  return found.sort((one, other) => one.name.localeCompare(other.name));
}

export function save(experimentId: string, name: string, settings: Record<string, string>): Promise<unknown> {
  const value = new URLSearchParams(kept(Object.entries(settings))).toString();
  return post("mlflow/experiments/set-experiment-tag", { experiment_id: experimentId, key: PREFIX + name, value });
}

export function remove(view: View): Promise<unknown> {
  const said = { experiment_id: view.experiment.experiment_id, key: PREFIX + view.name };
  return post("mlflow/experiments/delete-experiment-tag", said);
}
