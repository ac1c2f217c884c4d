// The columns of the runs table, and the order of its rows.  No page, no server: numbers and texts only.

import type { Columns, Value } from "./api";

export type Kind = "fact" | "metrics" | "params" | "tags";

export interface Column {
  /** As in queries: `metrics.loss`, `start_time`. */
  id: string;
  kind: Kind;
  title: string;
  values: Value[];
  /** Shown to the right, and best read as numbers. */
  numeric: boolean;
}

/** Runs that were read in pieces, as one. */
export function joined(pieces: Columns[]): Columns {
  const [first, ...rest] = pieces;
  if (!first) throw new Error("nothing to join");
  if (rest.length === 0) return first;
  const table = (kind: "metrics" | "params" | "tags"): Record<string, Value[]> => {
    const keys = [...new Set(pieces.flatMap((piece) => Object.keys(piece[kind])))];
    return Object.fromEntries(
      keys.map((key) => [
        key,
        pieces.flatMap((piece) => piece[kind][key] ?? new Array<Value>(piece.runs.run_id.length).fill(null)),
      ]),
    );
  };
  const names = Object.keys(first.runs) as (keyof Columns["runs"])[];
  const runs = Object.fromEntries(names.map((name) => [name, pieces.flatMap((piece) => piece.runs[name] as Value[])]));
  return {
    total: first.total,
    runs: runs as unknown as Columns["runs"],
    metrics: table("metrics"),
    params: table("params"),
    tags: table("tags"),
    keys: first.keys,
  };
}

function isNumber(value: Value): boolean {
  return typeof value === "number" || (typeof value === "string" && value !== "" && Number.isFinite(Number(value)));
}

/** True if not all of the runs have the same. */
export function differs(values: Value[]): boolean {
  return values.some((value) => value !== values[0]);
}

/** Every column there is: facts, then metrics, params and tags; what MLflow and gittrack keep in tags is left out. */
export function all(found: Columns): Column[] {
  const { runs } = found;
  const columns: Column[] = [
    { id: "start_time", kind: "fact", title: "Started", values: runs.start_time, numeric: false },
    {
      id: "duration",
      kind: "fact",
      title: "Duration",
      values: runs.end_time.map((end, at) => (end === null ? null : end - (runs.start_time[at] ?? end))),
      numeric: true,
    },
    { id: "user_id", kind: "fact", title: "User", values: runs.user_id, numeric: false },
    { id: "code_commit", kind: "fact", title: "Code", values: runs.code_commit, numeric: false },
  ];
  for (const kind of ["metrics", "params", "tags"] as const) {
    for (const [key, values] of Object.entries(found[kind])) {
      if (kind === "tags" && /^(mlflow|gittrack)\./.test(key)) continue;
      const there = values.filter((value) => value !== null);
      columns.push({ id: `${kind}.${key}`, kind, title: key, values, numeric: kind === "metrics" || there.every(isNumber) });
    }
  }
  return columns;
}

/** The rows in the order of a column; what has no value comes last, whichever way. */
export function order(values: Value[], descending: boolean): number[] {
  const rows = values.map((_, at) => at);
  const numbers = values.map((value) => (value === null ? null : Number(value)));
  const numeric = values.every((value) => value === null || isNumber(value) || value === "NaN");
  const sign = descending ? -1 : 1;
  return rows.sort((one, other) => {
    const a = numeric ? (numbers[one] ?? null) : (values[one] ?? null);
    const b = numeric ? (numbers[other] ?? null) : (values[other] ?? null);
    const lastA = a === null || Number.isNaN(a);
    const lastB = b === null || Number.isNaN(b);
    if (lastA || lastB) return Number(lastA) - Number(lastB) || one - other;
    return sign * (a < b ? -1 : a > b ? 1 : 0) || one - other;
  });
}

/** What the server sorts by, for a column that it knows. */
export function orderBy(id: string, descending: boolean): string[] {
  const [kind, ...rest] = id.split(".");
  const quoted = rest.length ? `${kind}.\`${rest.join(".")}\`` : id;
  return [`${quoted} ${descending ? "DESC" : "ASC"}`];
}

/** A text as CSV has it (RFC 4180); what a spreadsheet would take for a formula is marked as text. */
export function csv(columns: { title: string; values: Value[] }[], rows: number[]): string {
  const cell = (value: Value): string => {
    const text = value === null ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !isNumber(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = [columns.map((column) => cell(column.title)), ...rows.map((row) => columns.map((c) => cell(c.values[row] ?? null)))];
  return lines.map((line) => line.join(",")).join("\r\n");
}
