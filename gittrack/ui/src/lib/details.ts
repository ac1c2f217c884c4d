// What the server says of one run, or of several beside each other, and what can be changed in one.

import { ask, fileUrl, get, post, query, type File, type Value } from "./api";

export interface About {
  run_id: string;
  run_name: string;
  experiment_id: string;
  experiment_name?: string;
  user_id: string;
  status: string;
  start_time: number;
  end_time: number | null;
  lifecycle_stage: string;
}

interface Several {
  runs: About[];
  /** Asked for, and not there: never were, were purged, or are hidden. */
  absent: string[];
}

export interface Metric {
  last: Value[];
  min: Value[];
  max: Value[];
  step: (number | null)[];
  count: (number | null)[];
}

export interface Values extends Several {
  metrics: Record<string, Metric>;
  params: Record<string, (string | null)[]>;
  tags: Record<string, (string | null)[]>;
}

export interface Code {
  has_code: boolean;
  run_commit: string | null;
  mode?: string;
  commit?: string;
  branch?: string;
  dirty?: boolean;
  detached?: boolean;
  remote_url?: string;
  shallow?: boolean;
  untracked_taken: string[];
  left_out: [string, string][];
  submodules: [string, string][];
}

export interface Surroundings extends Several {
  environment: Record<string, (string | null)[]>;
  code: Code[];
}

export interface Kept extends Several {
  total: number;
  files: Record<string, ({ size: number; digest: string } | null)[]>;
}

export interface Change {
  path: string;
  status: string;
  old_path?: string;
  added?: number;
  deleted?: number;
}

export interface Entry {
  name: string;
  kind: "folder" | "file" | "link" | "submodule";
  size?: number;
}

export type Reference = Pick<About, "run_id" | "run_name" | "experiment_id" | "status" | "start_time">;

export interface LoggedModel {
  model_id: string;
  name: string;
  run_id: string | null;
  path: string;
}

export interface Lineage {
  parent?: Reference;
  repeats?: Reference;
  children: Reference[];
  repeated_by: Reference[];
  revisions: { commit: string; time: number }[];
  commits: { commit: string; why: string }[];
  datasets: { name: string; digest: string; source_type: string; source: string; context: string }[];
  models_read: LoggedModel[];
  models: LoggedModel[];
  versions: { name: string; version: string; stage: string; aliases: string[]; path: string }[];
}

const AT = "gittrack/runs";

export const values = (run_ids: string[], signal?: AbortSignal): Promise<Values> => get(`${AT}/compare`, { run_ids }, signal);
export const surroundings = (run_ids: string[]): Promise<Surroundings> => get(`${AT}/environment`, { run_ids });
export const kept = (run_ids: string[]): Promise<Kept> => get(`${AT}/files`, { run_ids });
export const lineage = (run_id: string): Promise<Lineage> => get(`${AT}/lineage`, { run_id });

/** What of a run's code was not committed; with a base, how it differs from that run's. */
export const changes = (run_id: string, base_run_id?: string): Promise<{ total: number; files: Change[] }> =>
  get(`${AT}/code/changes`, { run_id, base_run_id });

export async function patch(run_id: string, change: Change, base_run_id?: string): Promise<string> {
  const said = { run_id, base_run_id, path: change.path, old_path: change.old_path };
  return (await get<{ diff: string }>(`${AT}/code/diff`, said)).diff;
}

export const codeFiles = (run_id: string, path: string): Promise<{ total: number; files: Entry[] }> =>
  get(`${AT}/code/files`, { run_id, path: path || undefined });

export const codeFile = (run_id: string, path: string): Promise<{ kind: string; size: number; text?: string }> =>
  get(`${AT}/code/file`, { run_id, path });

// --- changes

const RUNS = "mlflow/runs";
export const setTag = (run_id: string, key: string, value: string): Promise<unknown> => post(`${RUNS}/set-tag`, { run_id, key, value });
export const deleteTag = (run_id: string, key: string): Promise<unknown> => post(`${RUNS}/delete-tag`, { run_id, key });
export const rename = (run_id: string, run_name: string): Promise<unknown> => post(`${RUNS}/update`, { run_id, run_name });
export const remove = (run_id: string): Promise<unknown> => post(`${RUNS}/delete`, { run_id });
export const restore = (run_id: string): Promise<unknown> => post(`${RUNS}/restore`, { run_id });

// --- files

/** The first bytes of a file, or, if `from` is negative, the last. */
export async function part(runId: string, path: string, from: number, most: number, known = ""): Promise<{ text: string; tag: string } | null> {
  const range = from < 0 ? `bytes=-${most}` : `bytes=${from}-${from + most - 1}`;
  const headers = { range, ...(known ? { "if-none-match": known } : {}) };
  const answer = await ask(fileUrl(runId, path), { headers, cache: "no-store" }, [304, 416]);
  if (answer.status === 304) return null;
  return { text: answer.status === 416 ? "" : await answer.text(), tag: answer.headers.get("etag") ?? "" };
}

/** Some bytes of a file, or those of them that it has. */
export async function bytesOf(runId: string, path: string, from: number, to: number): Promise<ArrayBuffer> {
  return (await ask(fileUrl(runId, path), { headers: { range: `bytes=${from}-${to - 1}` } })).arrayBuffer();
}

/** A document in a frame that is a world of its own. */
export function frameUrl(runId: string, path: string, scripts: boolean): string {
  return `/show-artifact?${query({ run_id: runId, path, scripts: scripts || undefined })}`;
}

/** Whether the files of a run are where clients put them without the server: what it says of the place is no place of its own. */
export function isElsewhere(root: string): boolean {
  return root !== "" && !root.startsWith("mlflow-artifacts:");
}

export const nameOf = (file: File): string => file.path.slice(file.path.lastIndexOf("/") + 1);
