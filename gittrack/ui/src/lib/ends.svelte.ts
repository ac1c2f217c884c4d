// The least and the greatest value of metrics among all that a question finds, where not all of these runs are here:
// asked for once it rests.

import { get, type Search, type Value } from "./api";

const REST = 150;

export class Ends {
  #ends = $state.raw(new Map<string, Value[]>());
  #about = "";
  #asked = "";
  #timer = 0;
  #stop = new AbortController();

  /** None of a metric of which they are not known. */
  of(metric: string): Value[] {
    return this.#ends.get(metric) ?? [];
  }

  /** Metrics that are in view, and what they are asked of; again if `version` is another. */
  look(metrics: string[], { experiment_ids, filter, run_view_type }: Search, version: number): void {
    const question = { experiment_ids, filter, run_view_type };
    const about = JSON.stringify(question);
    const asked = JSON.stringify([about, metrics, version]);
    if (asked === this.#asked) return;
    if (about !== this.#about) this.#ends = new Map();
    [this.#about, this.#asked] = [about, asked];
    clearTimeout(this.#timer);
    if (metrics.length === 0) return;
    this.#timer = setTimeout(() => void this.#ask({ ...question, metric_keys: metrics }), REST);
  }

  async #ask(question: Search & { metric_keys: string[] }): Promise<void> {
    this.#stop.abort();
    this.#stop = new AbortController();
    try {
      const { ranges } = await get<{ ranges: Record<string, Value[]> }>("gittrack/runs/ranges", { ...question }, this.#stop.signal);
      this.#ends = new Map(Object.entries(ranges)); // a metric may be called `__proto__`
    } catch {
      // The numbers are in the cells; none of them stands out.
    }
  }
}
