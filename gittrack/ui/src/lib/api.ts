// What the server is asked, typed.  Every failure is an Error whose message can be shown as it is.

/** Whether this is an exported site: the same page, its answers in files beside it (`site/`), and no server. */
export const SITE = typeof document !== "undefined" && document.querySelector('meta[name="gittrack-site"]') !== null;
/** Where there the files of runs are that the page knows of by now, by run and path. */
export const copies = new Map<string, string>();

export interface Experiment {
  experiment_id: string;
  name: string;
  lifecycle_stage: string;
  last_update_time?: number;
  tags?: { key: string; value: string }[];
}

export type Value = number | string | null;

export interface Columns {
  total: number;
  runs: {
    run_id: string[];
    experiment_id: string[];
    run_name: string[];
    status: string[];
    user_id: string[];
    start_time: number[];
    end_time: (number | null)[];
    lifecycle_stage: string[];
    code_commit: (string | null)[];
    code_branch: (string | null)[];
    code_dirty: (string | null)[];
  };
  metrics: Record<string, Value[]>;
  params: Record<string, Value[]>;
  tags: Record<string, Value[]>;
  keys: { metrics: string[]; params: string[]; tags: string[] };
}

export interface Run {
  info: {
    run_id: string;
    run_name: string;
    experiment_id: string;
    user_id: string;
    status: string;
    start_time: number;
    end_time?: number;
    lifecycle_stage: string;
  };
  data: {
    metrics?: { key: string; value: number | string; step?: number; timestamp: number }[];
    params?: { key: string; value: string }[];
    tags?: { key: string; value: string }[];
  };
}

export interface File {
  path: string;
  is_dir: boolean;
  file_size?: number | string;
}

/** The server said no, or said nothing. */
export class Trouble extends Error {
  constructor(
    message: string,
    readonly status: number,
    /** Where in the filter or order that was sent it is, from 1. */
    readonly column?: number,
  ) {
    super(message);
  }
}

export const API = "/ajax-api/2.0";
export type Said = Record<string, string | number | boolean | string[] | undefined>;

/** An answer; one that is no success only if its status is among those `expected`. */
export async function ask(path: string, init: RequestInit = {}, expected: number[] = []): Promise<Response> {
  if (SITE) return (await import("./site/answers")).answer(path, init);
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Trouble("The server cannot be reached. It is asked again when you come back to this page.", 0);
  }
  if (answer.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw new Trouble("Your login has ended.", 401);
  }
  if (!answer.ok && !expected.includes(answer.status)) {
    const said = (await answer.json().catch(() => ({}))) as { message?: string; column?: number };
    const message = said.message ?? `The server answered with status ${answer.status}.`;
    throw new Trouble(message, answer.status, said.column);
  }
  return answer;
}

export function query(said: Said): string {
  const pairs = Object.entries(said).flatMap(([name, value]) =>
    value === undefined ? [] : Array.isArray(value) ? value.map((one) => [name, one]) : [[name, String(value)]],
  );
  return new URLSearchParams(pairs as string[][]).toString();
}

export async function get<T>(path: string, said: Said, signal?: AbortSignal): Promise<T> {
  return (await (await ask(`${API}/${path}?${query(said)}`, { signal })).json()) as T;
}

export async function post<T>(path: string, said: unknown, signal?: AbortSignal): Promise<T> {
  const init = { method: "POST", body: JSON.stringify(said), headers: { "content-type": "application/json" }, signal };
  return (await (await ask(`${API}/${path}`, init)).json()) as T;
}

export async function experiments(): Promise<Experiment[]> {
  const found: Experiment[] = [];
  let token: string | undefined;
  do {
    const said = { max_results: 1000, page_token: token, view_type: "ACTIVE_ONLY" };
    const page = await post<{ experiments?: Experiment[]; next_page_token?: string }>(
      "mlflow/experiments/search",
      said,
    );
    found.push(...(page.experiments ?? []));
    token = page.next_page_token;
  } while (token);
  return found;
}

export interface Search {
  experiment_ids: string[];
  filter?: string;
  order_by?: string[];
  run_view_type?: string;
  max_results?: number;
  offset?: number;
  /** Only these columns of a kind; all that there are if not given. */
  metrics?: string[];
  params?: string[];
  tags?: string[];
  /** Besides those that come unasked, by kind and key: `params.lr`. */
  also?: string[];
}

/** Of each kind the first keys that fit, and how many do. */
export type Keys = Record<"metrics" | "params" | "tags", { keys: string[]; total: number }>;

export function keysWith(contains: string, { experiment_ids, run_view_type }: Search): Promise<Keys> {
  return get<Keys>("gittrack/runs/keys", { contains, experiment_ids, run_view_type });
}

export function columns(search: Search, signal?: AbortSignal): Promise<Columns> {
  return get<Columns>("gittrack/runs/columns", { ...search }, signal);
}

export async function run(runId: string): Promise<Run> {
  return (await get<{ run: Run }>("mlflow/runs/get", { run_id: runId })).run;
}

/** A folder of a run's files; `root_uri` says where all of them are. */
export function listing(runId: string, path: string): Promise<{ root_uri?: string; files?: File[] }> {
  return get("mlflow/artifacts/list", { run_id: runId, path: path || undefined });
}

export async function files(runId: string, path: string): Promise<File[]> {
  return (await listing(runId, path)).files ?? [];
}

/** Where a file is; empty if it is not in a copy of the runs. */
export function fileUrl(runId: string, path: string): string {
  if (SITE) return copies.get(`${runId} ${path}`) ?? "";
  return `/get-artifact?${query({ run_id: runId, path })}`;
}

export async function text(runId: string, path: string, most: number): Promise<string> {
  const answer = await ask(fileUrl(runId, path));
  const whole = await answer.text();
  return whole.length > most ? `${whole.slice(0, most)}\n…` : whole;
}

export interface Version {
  name: string;
  version: string;
  current_stage?: string;
  run_id?: string;
  creation_timestamp?: number;
  description?: string;
  aliases?: string[];
}

export interface Model {
  name: string;
  description?: string;
  last_updated_timestamp?: number;
  latest_versions?: Version[];
  aliases?: { alias: string; version: string }[];
}

export async function models(): Promise<Model[]> {
  const found: Model[] = [];
  let token: string | undefined;
  do {
    const page = await get<{ registered_models?: Model[]; next_page_token?: string }>(
      "mlflow/registered-models/search",
      { max_results: 100, page_token: token },
    );
    found.push(...(page.registered_models ?? []));
    token = page.next_page_token;
  } while (token);
  return found;
}
