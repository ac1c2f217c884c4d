// What the server is asked about one model, its versions and who did what with them; see `registry_views.py` there.

import { API, ask, get, type Model, type Version } from "./api";

export interface Verification {
  tag: string;
  state: "good" | "unsigned" | "bad";
  signer: string | null;
  key: string | null;
  method: string | null;
  reason: string;
}

export interface Tag {
  key: string;
  value: string;
}

export interface Held extends Version {
  user_id?: string;
  last_updated_timestamp?: number;
  source?: string;
  tags?: Tag[];
  published: boolean;
  signed: Verification;
  conflict: boolean;
  refused: string[];
}

export interface Event {
  who: string;
  time: number;
  reason: string;
  tag: string;
  version: number | null;
  stage?: string;
  alias?: string;
  here?: boolean;
}

export interface Conflict {
  about: string[];
  events: Event[];
}

export interface Rule {
  place: string;
  signatures: number;
  signers: string[];
  require: string | null;
  reason: boolean;
}

/** What the caller may do with a model; the rules if he may put it somewhere. */
export interface Standing {
  role: string;
  rules: Rule[];
  rules_trouble: string;
}

export interface State extends Standing {
  model: Model & { tags?: Tag[] };
  remote: string | null;
  total: number;
  versions: Held[];
  conflicts: Conflict[];
  problems: string[];
}

export interface Change {
  time: number;
  who: string;
  what: string;
  version: number | null;
  old: string | null;
  new: string | null;
  reason: string;
  tag: string;
  signed: boolean;
  replaces: string[];
}

export interface Column {
  name?: string;
  type: unknown;
  required?: boolean;
  default?: unknown;
  "tensor-spec"?: { dtype: string; shape: number[] };
}

export type Signature = Record<"inputs" | "outputs" | "params", Column[] | null>;

export interface Requirements {
  recorded: string[] | null;
  lines: string[];
  changed: boolean;
  history: { time: number; who: string; value: string | null; reason: string }[];
  trouble: string;
}

export interface Lineage {
  run: {
    run_id: string;
    run_name: string;
    experiment_id: string;
    experiment: string;
    status: string;
    start_time: number;
    code: { commit: string | null; branch: string | null; dirty: unknown };
    metrics: Record<string, number | string>;
    params: Record<string, string>;
  } | null;
  datasets: { tags: Tag[]; dataset: { name: string; digest: string; source_type: string; source: string } }[];
  models: string[];
}

export interface Overview extends Standing {
  version: Held;
  tags: Verification[];
  trouble: string;
  manifest: string;
  commit: string;
  path: string;
  files: { path: string; size: number; sha256: string }[];
  uses: Event[];
  lineage: Lineage;
  requirements: Requirements;
  signature: Signature | null;
  flavors: string[];
  runs_code: boolean;
  schema_trouble?: string;
}

export interface Pair<T> {
  a: T | null;
  b: T | null;
}

export interface Difference {
  versions: Version[];
  runs_seen: boolean;
  params?: Record<string, Pair<string>>;
  metrics?: Record<string, Pair<number | string>>;
  environment?: Record<string, Pair<string>>;
  artifacts: Record<string, Pair<{ sha256: string; size: number }>>;
  same: Record<string, number>;
  requirements: [string[], string[]];
  signatures: [Signature | null, Signature | null];
}

export const STAGES = ["None", "Staging", "Production", "Archived"];
/** Those of which the server can archive the other versions at the same time. */
export const ACTIVE = ["Staging", "Production"];
const ROLES = ["reader", "writer", "maintainer", "admin"];

/** True if somebody with a role may do what takes another one. */
export function may(role: string, needed: string): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(needed);
}

export async function send<T = void>(method: string, path: string, said: unknown): Promise<T> {
  const init = { method, body: JSON.stringify(said), headers: { "content-type": "application/json" } };
  return (await (await ask(`${API}/${path}`, init)).json()) as T;
}

export function state(name: string, offset = 0): Promise<State> {
  return get("gittrack/registered-models/state", { name, offset });
}

export function history(name: string, version?: string, offset = 0): Promise<{ total: number; changes: Change[] }> {
  return get("gittrack/registered-models/history", { name, version, offset });
}

export function overview(name: string, version: string): Promise<Overview> {
  return get("gittrack/model-versions/overview", { name, version });
}

export function diff(name: string, version: string, other: string): Promise<Difference> {
  return get("gittrack/model-versions/diff", { name, version, other });
}

export function promote(name: string, version: string, stage: string, archive: boolean, reason: string): Promise<void> {
  const said = { name, version, stage, archive_existing_versions: archive, reason };
  return send("POST", "mlflow/model-versions/transition-stage", said);
}

export function setAlias(name: string, alias: string, version: string, reason: string): Promise<void> {
  return send("POST", "mlflow/registered-models/alias", { name, alias, version, reason });
}

export function removeAlias(name: string, alias: string, reason: string): Promise<void> {
  return send("DELETE", "mlflow/registered-models/alias", { name, alias, reason });
}

export function settle(name: string, about: string, version: string | undefined, reason: string): Promise<void> {
  return send("POST", "gittrack/registered-models/settle", { name, about, version, reason });
}

/** None: back to those that were recorded. */
export function setRequirements(name: string, version: string, lines: string[] | null, reason: string): Promise<void> {
  const said = { name, version, reason };
  return lines === null
    ? send("DELETE", "gittrack/model-versions/requirements", said)
    : send("POST", "gittrack/model-versions/requirements", { ...said, requirements: lines });
}

/** Of the model, or of a version of it. */
export function describe(name: string, version: string | undefined, description: string): Promise<void> {
  const kind = version === undefined ? "registered-models" : "model-versions";
  return send("PATCH", `mlflow/${kind}/update`, { name, version, description });
}

export function setTag(name: string, version: string | undefined, key: string, value: string): Promise<void> {
  const kind = version === undefined ? "registered-models" : "model-versions";
  return send("POST", `mlflow/${kind}/set-tag`, { name, version, key, value });
}

export function removeTag(name: string, version: string | undefined, key: string): Promise<void> {
  const kind = version === undefined ? "registered-models" : "model-versions";
  return send("DELETE", `mlflow/${kind}/delete-tag`, { name, version, key });
}

/** The version that a source says another one is a copy of; null if it says where files are. */
export function copiedFrom(source = ""): { name: string; version: string } | null {
  const [, name, version] = /^models:\/([^/]+)\/(\d+)$/.exec(source) ?? [];
  return name !== undefined && version !== undefined ? { name, version } : null;
}

export function versionUrl(name: string, version: string | number): string {
  return `/models/${encodeURIComponent(name)}/versions/${version}`;
}

/** A person's name out of `Name <mail>`. */
export function person(who: string): string {
  return who.replace(/ <[^<>]*>$/, "");
}

// --- how to use a model, as text to copy

function shell(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Text in Python, on one line whatever is in it. */
function python(text: string): string {
  return JSON.stringify(text).replace(/[\u007f-\u009f\u2028\u2029]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * Ways to use what an address such as `iris/Production` stands for.
 * @param server Where clients find this server; empty if the models are those of the repository they work in.
 * @param columns The names of what the model takes, if they are known.
 */
export function snippets(address: string, server: string, columns: string[] = []): { title: string; text: string }[] {
  const rows = columns.length ? { dataframe_split: { columns, data: [columns.map(() => 0)] } } : { inputs: [[0]] };
  const uri = `models:/${address}`;
  const tracking = server ? `gittrack.set_tracking_uri(${python(server)})\n` : "";
  const environment = server ? `export MLFLOW_TRACKING_URI=${shell(server)}\n` : "";
  const serving = `${environment}gittrack models serve -m ${shell(uri)} --port 8080`;
  const image = address.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "model";
  return [
    { title: "Python", text: `import gittrack\n\n${tracking}model = gittrack.pyfunc.load_model(${python(uri)})\nmodel.predict(data)` },
    { title: "Command line", text: `${serving}\n${server ? "" : `gittrack models pull ${shell(address)} model\n`}`.trim() },
    {
      title: "curl",
      text: `${serving}\n\ncurl http://127.0.0.1:8080/invocations -H 'Content-Type: application/json' \\\n  -d ${shell(JSON.stringify(rows))}`,
    },
    {
      title: "Docker",
      text: `${environment}gittrack models dockerfile -m ${shell(uri)} -o image\ndocker build -t ${image} image\ndocker run -p 8080:8080 ${image}`,
    },
  ];
}
