// Small curves for the cells of a table: asked for once it rests, all of a screen in one call, and kept.

import { get } from "./api";

type Line = (number | null)[];

/** Curves that the server draws in one call. */
const CALL = 1000;
const KEPT = 5000;
const REST = 150;
const WIDE = 48;
const HIGH = 20;
const EDGE = 2;

/** A line as SVG draws it; what is missing is bridged. */
export function path(line: Line): string {
  const there = line.flatMap((value, at) => (value === null ? [] : [{ value, at }]));
  const values = there.map((one) => one.value);
  const least = Math.min(...values);
  const most = Math.max(...values);
  const y = (value: number): number => HIGH - EDGE - ((value - least) / (most - least || 1)) * (HIGH - 2 * EDGE);
  const points = there.map(({ value, at }) => `${((at / (line.length - 1)) * WIDE).toFixed(1)} ${y(value).toFixed(1)}`);
  return points.length > 1 ? `M${points.join("L")}` : "";
}

export class Sparks {
  #version = $state(0);
  /** By run and metric: the path, and the answer that it belongs to if the run goes on. */
  #paths = new Map<string, { path: string; of: number | null }>();
  #timer = 0;
  #stop = new AbortController();

  path(runId: string, metric: string): string | undefined {
    void this.#version;
    return this.#paths.get(`${runId} ${metric}`)?.path;
  }

  /** Runs and metrics that are in view.  Those of a run that goes on are asked for again when `version` is another. */
  look(runs: { id: string; ended: boolean }[], metrics: string[], version: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#ask(runs, metrics, version), REST);
  }

  async #ask(runs: { id: string; ended: boolean }[], metrics: string[], version: number): Promise<void> {
    const missing = runs.filter(({ id, ended }) =>
      metrics.some((metric) => {
        const known = this.#paths.get(`${id} ${metric}`);
        return !known || (known.of !== null && (ended || known.of !== version));
      }),
    );
    const asked = missing.slice(0, Math.floor(CALL / Math.max(1, metrics.length)));
    if (asked.length === 0 || metrics.length === 0) return;
    this.#stop.abort();
    this.#stop = new AbortController();
    try {
      const said = { run_ids: asked.map((run) => run.id), metric_keys: metrics };
      const { lines } = await get<{ lines: Record<string, Record<string, Line>> }>("gittrack/metrics/sparklines", said, this.#stop.signal);
      for (const { id, ended } of asked) {
        const its = new Map(Object.entries(lines[id] ?? {})); // a metric may be called `__proto__`
        for (const metric of metrics) {
          const key = `${id} ${metric}`;
          this.#paths.delete(key);
          this.#paths.set(key, { path: path(its.get(metric) ?? []), of: ended ? null : version });
        }
      }
      for (const key of [...this.#paths.keys()].slice(0, -KEPT)) this.#paths.delete(key);
      this.#version += 1;
    } catch {
      // The numbers are in the cells; a curve that could not be had is asked for when the rows are looked at again.
    }
  }
}
