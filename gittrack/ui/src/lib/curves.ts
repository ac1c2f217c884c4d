// Curves of metrics from the server.  Charts that come into view together are one request.

import { API, ask, get, query } from "./api";

export interface Asked {
  run_ids: string[];
  /** The group of each run, if they are drawn by group. */
  groups?: string[];
  /** `step`, `relative`, `time`, or `metrics.` and the key of a metric. */
  axis: string;
  buckets: number;
  smoothing?: number;
  low?: number;
  high?: number;
}

export interface Curve {
  /** The id of a run, or a group. */
  id: string;
  points: number;
  runs: number;
  /** What is drawn: as it was logged, smoothed, or the mean of a group. */
  values: Float32Array;
  /** As it was logged, where `values` are smoothed. */
  raw?: Float32Array;
  /** The extremes of a group. */
  band?: { least: Float32Array; greatest: Float32Array };
}

export interface Chart {
  exact: boolean;
  low: number | null;
  high: number | null;
  axis: Float64Array;
  curves: Curve[];
}

interface Head {
  exact: boolean;
  places: number;
  low: number | null;
  high: number | null;
  smoothed: boolean;
  curves: { run_id?: string; group?: string; runs?: number; points: number }[];
}

/** Every chart of an answer; see `views.py` of the server. */
export function charts(body: ArrayBuffer): Chart[] {
  const found: Chart[] = [];
  let at = 0;
  while (at < body.byteLength) {
    const length = new DataView(body).getUint32(at, true);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(body, at + 4, length))) as Head;
    at += 4 + length;
    const axis = new Float64Array(body, at, head.places);
    at += 8 * head.places;
    const block = (): Float32Array => {
      const values = new Float32Array(body, at, head.places);
      at += 4 * head.places;
      return values;
    };
    const curves = head.curves.map(({ run_id, group, runs = 1, points }): Curve => {
      const named = { id: group ?? run_id ?? "", points, runs };
      const first = block();
      if (group !== undefined) return { ...named, values: first, band: { least: block(), greatest: block() } };
      return head.smoothed ? { ...named, raw: first, values: block() } : { ...named, values: first };
    });
    at = Math.ceil(at / 8) * 8;
    found.push({ exact: head.exact, low: head.low, high: head.high, axis, curves });
  }
  return found;
}

interface Waiting {
  metric: string;
  signal: AbortSignal;
  done: (found: Chart) => void;
  failed: (error: unknown) => void;
}

/** The server draws so many curves at once; more charts than this at once would come late for the first of them. */
const CURVES = 1000;
const TOGETHER = 8;
const MOMENT = 20;
const waiting = new Map<string, Waiting[]>();

/** A chart of one metric.  Who asks for the same of another metric at the same moment shares the request. */
export function curves(metric: string, asked: Asked, signal: AbortSignal): Promise<Chart> {
  const same = JSON.stringify(asked);
  return new Promise((done, failed) => {
    signal.addEventListener("abort", () => failed(signal.reason));
    const others = waiting.get(same);
    if (others) {
      others.push({ metric, signal, done, failed });
      return;
    }
    waiting.set(same, [{ metric, signal, done, failed }]);
    setTimeout(() => {
      const wanted = (waiting.get(same) ?? []).filter((one) => !one.signal.aborted);
      waiting.delete(same);
      const each = Math.max(1, Math.min(TOGETHER, Math.floor(CURVES / asked.run_ids.length)));
      for (let at = 0; at < wanted.length; at += each) void send(asked, wanted.slice(at, at + each));
    }, MOMENT);
  });
}

async function send(asked: Asked, wanted: Waiting[]): Promise<void> {
  const stop = new AbortController();
  for (const one of wanted) {
    one.signal.addEventListener("abort", () => {
      if (wanted.every((other) => other.signal.aborted)) stop.abort();
    });
  }
  try {
    const said = { ...asked, metric_keys: wanted.map((one) => one.metric), apart: true };
    const answer = await ask(`${API}/gittrack/metrics/curves?${query(said)}`, { signal: stop.signal });
    const found = charts(await answer.arrayBuffer());
    wanted.forEach((one, at) => {
      const its = found[at];
      if (its) one.done(its);
      else one.failed(new Error("The server's answer is not complete."));
    });
  } catch (error) {
    for (const one of wanted) one.failed(error);
  }
}

/** Every metric that any of the runs has. */
export async function metricKeys(runIds: string[], signal: AbortSignal): Promise<string[]> {
  return (await get<{ metric_keys: string[] }>("gittrack/metrics/keys", { run_ids: runIds }, signal)).metric_keys;
}

/** Where every point is, as a file. */
export function pointsUrl(metric: string, runIds: string[]): string {
  return `${API}/gittrack/metrics/points?${query({ run_ids: runIds, metric_keys: [metric] })}`;
}
