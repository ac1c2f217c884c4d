// Which of several values of a metric is the best: by its name less or more is better, as a gate takes it if nobody says.

import type { Value } from "./api";

export const lessIsBetter = (metric: string): boolean =>
  /loss|error|\berr\b|mae|mse|rmse|perplexity|wer\b|latency/.test(metric.toLowerCase());

/** The places of the best values; none if there are no two that differ. */
export function best(metric: string, values: Value[]): Set<number> {
  const numbers = values.map((value) => (typeof value === "number" ? value : NaN));
  const known = numbers.filter((value) => !Number.isNaN(value));
  if (new Set(known).size < 2) return new Set();
  const wanted = lessIsBetter(metric) ? Math.min(...known) : Math.max(...known);
  return new Set(numbers.flatMap((value, at) => (value === wanted ? [at] : [])));
}
