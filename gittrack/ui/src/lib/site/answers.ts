// What a server would answer, out of the files of an exported site; see `gittrack/server/hub/site.py`, which writes them.
// Of each run there is what the server says of it alone: of several it is put together here.

import { API, type Columns, copies, type Keys, Trouble, type Value } from "../api";
import type { Change, Kept, Lineage, Surroundings, Values } from "../details";
import { parse } from "./query";
import { along, bands, chart, type History, type Started, type Window } from "./series";

interface Index {
  experiments: object[];
  columns: Columns;
  /** The names of the two files of a run. */
  runs: Record<string, { values: string; rest: string }>;
}

/** What the table, comparisons and curves need of a run. */
interface Facts {
  values: Values;
  blocks: string[];
  /** Of each metric its block, its place there in numbers of 64 bits, and how many points there are. */
  where: Record<string, [number, number, number]>;
}

interface Rest {
  environment: Surroundings;
  files: Kept & { files: Record<string, ({ size: number; digest: string; at?: string } | null)[]> };
  lineage: Lineage;
  code: { trouble: string } | { changes: { total: number; files: Change[] }; diffs: Record<string, { diff: string } | { trouble: string }> };
}

const FACTS: Record<string, keyof Columns["runs"]> = { commit: "code_commit", branch: "code_branch", dirty: "code_dirty" };
const KINDS = ["metrics", "params", "tags"] as const;
/** Of a kind: as many as a server sends unasked. */
const MOST_COLUMNS = 100;
const SPARK_BUCKETS = 24;
const BUCKETS = 750;
const loaded = new Map<string, Promise<unknown>>();

async function fetched(path: string, init: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Trouble("The web server of this site cannot be reached.", 0);
  }
  if (!answer.ok && answer.status !== 416) {
    throw new Trouble(`A part of this site is missing (${path}, status ${answer.status}). If it was exported anew, load the page again.`, answer.status);
  }
  return answer;
}

/** A file of the data, read once; one that could not be read is asked for again the next time. */
function read<T>(name: string, of: (answer: Response) => Promise<T>, init: RequestInit = {}): Promise<T> {
  const known = loaded.get(name) as Promise<T> | undefined;
  if (known) return known;
  const found = fetched(`data/${name}`, init).then(of);
  loaded.set(name, found);
  found.catch(() => loaded.delete(name));
  return found;
}

const json = <T>(name: string, init?: RequestInit): Promise<T> => read(name, (answer) => answer.json() as Promise<T>, init);
const index = (): Promise<Index> => json("index.json", { cache: "no-cache" });

async function facts(runId: string): Promise<Facts | null> {
  const { runs } = await index();
  return Object.hasOwn(runs, runId) ? json<Facts>(runs[runId]?.values ?? "") : null;
}

async function rest(runId: string): Promise<Rest | null> {
  const { runs } = await index();
  if (!Object.hasOwn(runs, runId)) return null;
  const found = await json<Rest>(runs[runId]?.rest ?? "");
  for (const [path, [file]] of Object.entries(found.files.files)) if (file?.at) copies.set(`${runId} ${path}`, file.at);
  return found;
}

/** Of one run; who asks for one that is not here is told so. */
async function one<T>(found: Promise<T | null>, runId: string): Promise<T> {
  const of = await found;
  if (of === null) throw new Trouble(`Run ${runId} is not in this copy.`, 404);
  return of;
}

// --- several runs beside each other

type Several = Pick<Values, "runs" | "absent">;

/** Each of some runs, once, in the order asked for, and which are not here. */
async function each<T>(said: URLSearchParams, of: (runId: string) => Promise<T | null>): Promise<{ found: T[]; absent: string[] }> {
  const ids = [...new Set(said.getAll("run_ids"))];
  const all = await Promise.all(ids.map(of));
  return { found: all.filter((run) => run !== null), absent: ids.filter((_, at) => all[at] === null) };
}

/** Tables of one column as one table of several: null where a run has no such key. */
function beside<T>(tables: Record<string, T[]>[]): Record<string, (T | null)[]> {
  const keys = [...new Set(tables.flatMap((table) => Object.keys(table)))].sort();
  return Object.fromEntries(keys.map((key) => [key, tables.map((table) => (Object.hasOwn(table, key) ? (table[key]?.[0] ?? null) : null))]));
}

function together(found: Several[], absent: string[]): Several {
  return { runs: found.flatMap((run) => run.runs), absent };
}

async function compare(said: URLSearchParams): Promise<Values> {
  const { found, absent } = await each(said, facts);
  const values = found.map((run) => run.values);
  const names = ["last", "min", "max", "step", "count"] as const;
  const metrics = names.map((name) => beside<Value>(values.map((run) => Object.fromEntries(Object.entries(run.metrics).map(([key, metric]) => [key, metric[name]])))));
  const keys = Object.keys(metrics[0] ?? {});
  return {
    ...together(values, absent),
    metrics: Object.fromEntries(keys.map((key) => [key, Object.fromEntries(names.map((name, at) => [name, metrics[at]?.[key]]))])) as unknown as Values["metrics"],
    params: beside(values.map((run) => run.params)),
    tags: beside(values.map((run) => run.tags)),
  };
}

async function surroundings(said: URLSearchParams): Promise<Surroundings> {
  const { found, absent } = await each(said, rest);
  const all = found.map((run) => run.environment);
  return { ...together(all, absent), environment: beside(all.map((run) => run.environment)), code: all.flatMap((run) => run.code) };
}

async function kept(said: URLSearchParams): Promise<Kept> {
  const { found, absent } = await each(said, rest);
  const all = found.map((run) => run.files);
  const files = beside(all.map((run) => run.files));
  return { ...together(all, absent), files, total: Math.max(Object.keys(files).length, ...all.map((run) => run.total)) };
}

/** The places of the runs of some experiments. */
function rowsOf(all: Columns, said: URLSearchParams): number[] {
  const experiments = new Set(said.getAll("experiment_ids"));
  const every = said.get("run_view_type") === "ALL";
  return all.runs.run_id.flatMap((_, row) =>
    experiments.has(all.runs.experiment_id[row] ?? "") && (every || all.runs.lifecycle_stage[row] === "active") ? [row] : [],
  );
}

/** Of each kind the first keys with a text in them, and how many there are. */
async function someKeys(said: URLSearchParams): Promise<Keys> {
  const { columns: all } = await index();
  const rows = rowsOf(all, said);
  const wanted = (said.get("contains") ?? "").toLowerCase();
  const found = KINDS.map((kind) => {
    const fitting = Object.keys(all[kind]).filter((key) => key.toLowerCase().includes(wanted) && !(kind === "tags" && /^(mlflow|gittrack)\./.test(key)));
    const keys = fitting.filter((key) => rows.some((row) => (all[kind][key]?.[row] ?? null) !== null)).sort();
    return [kind, { keys: keys.slice(0, MOST_COLUMNS), total: keys.length }];
  });
  return Object.fromEntries(found) as Keys;
}

/** Those of some runs that meet a question, as columns: the first of those that any of them has something in. */
async function columns(said: URLSearchParams): Promise<Columns> {
  const { columns: all } = await index();
  const rows = await filtered(all, rowsOf(all, said), said.get("filter") ?? "");
  const offset = Number(said.get("offset") ?? 0);
  const page = rows.slice(offset, offset + Number(said.get("max_results") ?? 1000));
  const of = <T>(column: T[]): T[] => page.map((row) => column[row] as T);
  const also = new Set(said.getAll("also"));
  const tables = KINDS.map((kind) => {
    const used = Object.entries(all[kind]).map(([key, column]) => [key, of(column)] as const).filter(([, column]) => column.some((value) => value !== null));
    return [kind, Object.fromEntries(used.filter(([key], at) => at < MOST_COLUMNS || also.has(`${kind}.${key}`)))];
  });
  return {
    total: rows.length,
    runs: Object.fromEntries(Object.entries(all.runs).map(([name, column]) => [name, of<Value>(column)])) as unknown as Columns["runs"],
    ...(Object.fromEntries(tables) as Pick<Columns, (typeof KINDS)[number]>),
    keys: all.keys,
  };
}

async function filtered(all: Columns, rows: number[], filter: string): Promise<number[]> {
  const known = (kind: "metrics" | "params" | "tags", key: string): Value[] | undefined => (Object.hasOwn(all[kind], key) ? all[kind][key] : undefined);
  const { meets, extremes } = parse(filter, (key) => known("metrics", key) !== undefined);
  const runs = new Map(await Promise.all((extremes ? rows : []).map(async (row) => [row, await facts(all.runs.run_id[row] ?? "")] as const)));
  const value = (said: Value | undefined): number | null => {
    const number = said === null || said === undefined ? null : Number(said);
    return number !== null && Math.abs(number) === Number.MAX_VALUE ? number * 2 : number; // what is infinite, JSON cannot say
  };
  const text = (said: Value | undefined): string | null => (typeof said === "string" ? said : null);
  return rows.filter((row) =>
    meets({
      metric(key, of) {
        const metrics = of === "last" ? undefined : runs.get(row)?.values.metrics;
        return value(of === "last" ? known("metrics", key)?.[row] : metrics && Object.hasOwn(metrics, key) ? metrics[key]?.[of][0] : null);
      },
      param: (key) => text(known("params", key)?.[row]),
      tag: (key) => text(known("tags", key)?.[row]),
      fact: (name) => all.runs[FACTS[name] ?? (name as keyof Columns["runs"])][row] ?? null,
    }),
  );
}

// --- curves

async function block(name: string): Promise<Float64Array> {
  return read(name, async (answer) => {
    const plain = answer.body?.pipeThrough(new DecompressionStream("gzip"));
    return new Float64Array(await new Response(plain).arrayBuffer());
  });
}

/** What was rises from number to number, as it is. */
function summed(column: Float64Array): Float64Array {
  let sum = 0;
  return column.map((rise) => (sum += rise));
}

/** All points of a metric; null if the run has no such metric. */
async function history(run: Facts, key: string): Promise<History | null> {
  const [at, start, count] = Object.hasOwn(run.where, key) ? (run.where[key] ?? []) : [];
  if (at === undefined || start === undefined || !count) return null;
  const found = await block(run.blocks[at] ?? "");
  const column = (place: number): Float64Array => found.subarray(start + place * count, start + (place + 1) * count);
  return { steps: summed(column(0)), times: summed(column(1)), values: column(2) };
}

function number(said: URLSearchParams, name: string): number | undefined {
  return said.has(name) ? Number(said.get(name)) : undefined;
}

async function curves(said: URLSearchParams): Promise<ArrayBuffer> {
  const ids = said.getAll("run_ids");
  const runs = await Promise.all(ids.map((id) => one(facts(id), id)));
  const groups = said.has("groups") ? said.getAll("groups") : null;
  const axis = said.get("axis") ?? "step";
  const other = axis.startsWith("metrics.") ? axis.slice(8) : null;
  const window: Window = {
    axis: other === null ? axis : "step",
    buckets: number(said, "buckets") ?? BUCKETS,
    low: number(said, "low"),
    high: number(said, "high"),
    smoothing: number(said, "smoothing"),
  };
  const charts = said.getAll("metric_keys").map(async (key) => {
    const found = await Promise.all(
      runs.map(async (run, at) => {
        const plain = await history(run, key);
        const against = other === null || !plain ? null : await history(run, other);
        const points = other === null || !plain ? plain : against && along(plain, against);
        return points?.values.length ? { id: ids[at] ?? "", group: groups?.[at] ?? "", started: [points, run.values.runs[0]?.start_time ?? 0] as Started } : null;
      }),
    );
    return drawn(found.filter((curve) => curve !== null), groups !== null, window);
  });
  return new Blob(await Promise.all(charts)).arrayBuffer();
}

/** One chart as the server sends it; see `views.py` there. */
function drawn(found: { id: string; group: string; started: Started }[], grouped: boolean, window: Window): ArrayBuffer {
  const histories = found.map((curve) => curve.started);
  const names = found.map((curve) => curve.group);
  const made = grouped ? bands(histories, names, window) : chart(histories, window);
  const curves =
    "bands" in made
      ? made.bands.map((band, at) => ({ group: [...new Set(names)][at], runs: band.curves, points: band.points }))
      : made.curves.map((curve, at) => ({ run_id: found[at]?.id, points: curve.points }));
  const blocks = "bands" in made ? made.bands.flatMap((band) => [band.mean, band.least, band.greatest]) : made.curves.flatMap((curve) => (window.smoothing ? [curve.values, curve.smoothed] : [curve.values]));
  const finite = (value: number): number | null => (Number.isNaN(value) ? null : value);
  const said = { exact: made.exact, places: made.axis.length, low: finite(made.low), high: finite(made.high), smoothed: !grouped && Boolean(window.smoothing), curves };
  const text = JSON.stringify(said);
  const bytes = new TextEncoder().encode(text).length;
  const head = new TextEncoder().encode(text + " ".repeat((8 - ((bytes + 4) % 8)) % 8));
  const places = made.axis.length;
  const body = new ArrayBuffer(Math.ceil((4 + head.length + 8 * places + 4 * places * blocks.length) / 8) * 8);
  new DataView(body).setUint32(0, head.length, true);
  new Uint8Array(body, 4, head.length).set(head);
  new Float64Array(body, 4 + head.length, places).set(made.axis);
  blocks.forEach((values, at) => new Float32Array(body, 4 + head.length + 8 * places + 4 * places * at, places).set(values));
  return body;
}

async function sparklines(said: URLSearchParams): Promise<{ lines: Record<string, Record<string, (number | null)[]>> }> {
  const lines: [string, Record<string, (number | null)[]>][] = [];
  for (const id of said.getAll("run_ids")) {
    const run = await one(facts(id), id);
    const its: [string, (number | null)[]][] = [];
    for (const key of said.getAll("metric_keys")) {
      const points = await history(run, key);
      if (!points || points.values.length < 2) continue;
      const values = chart([[points, 0]], { axis: "step", buckets: SPARK_BUCKETS }).curves[0]?.values ?? [];
      its.push([key, values.map((value) => (Number.isFinite(value) ? value : null))]);
    }
    lines.push([id, Object.fromEntries(its)]);
  }
  return { lines: Object.fromEntries(lines) };
}

async function keys(said: URLSearchParams): Promise<{ metric_keys: string[] }> {
  const { found } = await each(said, facts);
  return { metric_keys: [...new Set(found.flatMap((run) => Object.keys(run.where)))].sort() };
}

// --- files and code

/** The files and folders in a folder. */
async function listed(runId: string, folder: string): Promise<{ files: { path: string; is_dir: boolean; file_size?: number }[] }> {
  const { files } = await one(rest(runId), runId);
  const start = folder ? `${folder}/` : "";
  const found = new Map<string, { path: string; is_dir: boolean; file_size?: number }>();
  for (const [path, [file]] of Object.entries(files.files)) {
    if (!path.startsWith(start)) continue;
    const end = path.indexOf("/", start.length);
    const name = end < 0 ? path : path.slice(0, end);
    found.set(name, end < 0 ? { path, is_dir: false, file_size: file?.size } : { path: name, is_dir: true });
  }
  return { files: [...found.values()] };
}

async function changes(runId: string): Promise<{ total: number; files: Change[] }> {
  const { code } = await one(rest(runId), runId);
  if ("trouble" in code) throw new Trouble(code.trouble, 404);
  return code.changes;
}

async function diff(runId: string, path: string): Promise<{ diff: string }> {
  const { code } = await one(rest(runId), runId);
  const found = "trouble" in code ? code : Object.hasOwn(code.diffs, path) ? code.diffs[path] : null;
  if (!found || "trouble" in found) throw new Trouble(found?.trouble ?? `Nothing of ${path} is in this copy.`, 404);
  return found;
}

/** A part of a file, also from those who send all of it: few web servers cannot do better. */
async function copied(path: string, init: RequestInit): Promise<Response> {
  const answer = await fetched(path, init);
  const range = /^bytes=(\d*)-(\d*)$/.exec(new Headers(init.headers).get("range") ?? "");
  if (!range || answer.status !== 200) return answer;
  const [, first = "", last = ""] = range;
  const all = await answer.blob();
  return new Response(first ? all.slice(Number(first), last ? Number(last) + 1 : undefined) : all.slice(Math.max(0, all.size - Number(last))));
}

/** The answer to a request.  Raises Trouble where there is none here. */
export async function answer(path: string, init: RequestInit): Promise<Response> {
  const url = new URL(path, document.baseURI);
  if (!url.pathname.startsWith(`${API}/`)) return copied(path, init);
  const said = url.searchParams;
  const runId = said.get("run_id") ?? "";
  switch (url.pathname.slice(API.length + 1)) {
    case "mlflow/experiments/search":
      return Response.json({ experiments: (await index()).experiments });
    case "gittrack/runs/columns":
      return Response.json(await columns(said));
    case "gittrack/runs/keys":
      return Response.json(await someKeys(said));
    case "gittrack/runs/compare":
      return Response.json(await compare(said));
    case "gittrack/runs/environment":
      return Response.json(await surroundings(said));
    case "gittrack/runs/files":
      return Response.json(await kept(said));
    case "gittrack/runs/lineage":
      return Response.json((await one(rest(runId), runId)).lineage);
    case "gittrack/runs/code/changes":
      return Response.json(await changes(runId));
    case "gittrack/runs/code/diff":
      return Response.json(await diff(runId, said.get("path") ?? ""));
    case "gittrack/metrics/curves":
      return new Response(await curves(said));
    case "gittrack/metrics/sparklines":
      return Response.json(await sparklines(said));
    case "gittrack/metrics/keys":
      return Response.json(await keys(said));
    case "mlflow/artifacts/list":
      return Response.json(await listed(runId, said.get("path") ?? ""));
    default:
      throw new Trouble("This is a copy of some runs: what a server is needed for is not in it.", 404);
  }
}
