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
  const together = (parts: Value[][]): Value[] => ([] as Value[]).concat(...parts); // a tenth of what `flatMap` takes
  const table = (kind: "metrics" | "params" | "tags"): Record<string, Value[]> => {
    const keys = [...new Set(pieces.flatMap((piece) => Object.keys(piece[kind])))].sort();
    const column = (key: string): Value[][] =>
      pieces.map((piece) => piece[kind][key] ?? new Array<Value>(piece.runs.run_id.length).fill(null));
    return Object.fromEntries(keys.map((key) => [key, together(column(key))]));
  };
  const names = Object.keys(first.runs) as (keyof Columns["runs"])[];
  const runs = Object.fromEntries(names.map((name) => [name, together(pieces.map((piece) => piece.runs[name] as Value[]))]));
  return {
    total: first.total,
    runs: runs as unknown as Columns["runs"],
    metrics: table("metrics"),
    params: table("params"),
    tags: table("tags"),
    keys: first.keys,
  };
}

/** All columns of some runs, with no run in them. */
export function emptied(found: Columns): Columns {
  const none = (table: object): Record<string, Value[]> => Object.fromEntries(Object.keys(table).map((key) => [key, []]));
  return {
    ...found,
    runs: none(found.runs) as unknown as Columns["runs"],
    metrics: none(found.metrics),
    params: none(found.params),
    tags: none(found.tags),
  };
}

/** What a run has in a column that the server knows. */
export function cell(found: Columns, id: string, row: number): Value {
  const dot = id.indexOf(".");
  const table = (dot < 0 ? found.runs : found[id.slice(0, dot) as "metrics" | "params" | "tags"]) as Record<string, Value[]> | undefined;
  return table?.[id.slice(dot + 1)]?.[row] ?? null;
}

function isNumber(value: Value): boolean {
  return typeof value === "number" || (typeof value === "string" && value !== "" && Number.isFinite(Number(value)));
}

/** True if not all of the runs have the same. */
export function differs(values: Value[]): boolean {
  return values.some((value) => value !== values[0]);
}

/**
 * Every column there is: facts, then metrics, params and tags; what MLflow and gittrack keep in tags is left out.
 * That of the experiments, whose names are given by id, is there if there are several.
 */
export function all(found: Columns, experiments = new Map<string, string>()): Column[] {
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
  ];
  // Not everything is known of every run: what of none takes no room.
  if (runs.user_id.some(Boolean)) columns.push({ id: "user_id", kind: "fact", title: "User", values: runs.user_id, numeric: false });
  if (runs.code_commit.some(Boolean)) columns.push({ id: "code_commit", kind: "fact", title: "Code", values: runs.code_commit, numeric: false });
  if (differs(runs.experiment_id)) {
    const names = runs.experiment_id.map((id) => experiments.get(id) ?? id);
    columns.unshift({ id: "experiment", kind: "fact", title: "Experiment", values: names, numeric: false });
  }
  for (const kind of ["metrics", "params", "tags"] as const) {
    for (const [key, values] of Object.entries(found[kind])) {
      if (kind === "tags" && /^(mlflow|gittrack)\./.test(key)) continue;
      const numeric = kind === "metrics" || values.every((value) => value === null || isNumber(value));
      columns.push({ id: `${kind}.${key}`, kind, title: key, values, numeric });
    }
  }
  return columns;
}

/** So many metrics come before the first parameters. */
const BEFORE = 3;

/** Whether the values of a column tell rows apart, and half of the rows have one. */
export function tells({ values }: Column): boolean {
  const known = values.filter((value) => value !== null);
  return 2 * known.length >= values.length && differs(known);
}

/** What is worth being seen without a move: what tells runs apart, metrics and parameters by turns; then the others. */
export function usefulFirst(columns: Column[]): Column[] {
  const [telling, others] = [columns.filter(tells), columns.filter((column) => !tells(column))];
  const of = (kind: Column["kind"]): Column[] => telling.filter((column) => column.kind === kind);
  const [metrics, params] = [of("metrics"), of("params")];
  const when = others.filter((column) => column.kind === "fact" && (column.id === "start_time" || column.id === "duration"));
  return [
    ...columns.filter((column) => column.kind === "fact" && (telling.includes(column) || when.includes(column))),
    ...metrics.slice(0, BEFORE),
    ...params.slice(0, BEFORE),
    ...metrics.slice(BEFORE),
    ...params.slice(BEFORE),
    ...of("tags"),
    ...others.filter((column) => !when.includes(column)),
  ];
}

// --- what is shown of the columns, and where

/** A list in an address: names of columns may have commas in them. */
export function listed(text: string | undefined): string[] {
  return (text ?? "").split(",").filter(Boolean).map((one) => one.replaceAll("%2C", ",").replaceAll("%25", "%"));
}

export function list(names: Iterable<string>): string {
  return [...names].map((one) => one.replaceAll("%", "%25").replaceAll(",", "%2C")).join(",");
}

/** How the columns are laid out: settings of the address. */
export interface Layout {
  hide: string[];
  pin: string[];
  /** These first, in this order; the others after them as they come. */
  order: string[];
  width: Map<string, number>;
  /** Of what has more keys than come unasked. */
  also: string[];
}

export const LAYOUT = ["hide", "pin", "order", "width", "also"] as const;
export const NARROWEST = 60;
const WIDEST = 1200;

export function layout(settings: Record<string, string>): Layout {
  const widths = listed(settings.width).map((one): [string, number] => {
    const at = one.lastIndexOf(":");
    return [one.slice(0, at), Math.min(WIDEST, Math.max(NARROWEST, Number(one.slice(at + 1))))];
  });
  return {
    hide: listed(settings.hide),
    pin: listed(settings.pin),
    order: listed(settings.order),
    width: new Map(widths.filter(([, size]) => Number.isFinite(size))),
    also: listed(settings.also),
  };
}

export function written({ hide, pin, order, width, also }: Layout): Record<(typeof LAYOUT)[number], string> {
  const widths = list([...width].map(([id, size]) => `${id}:${Math.round(size)}`));
  return { hide: list(hide), pin: list(pin), order: list(order), width: widths, also: list(also) };
}

/** The columns as they are laid out: first those that stay at the left, and how many these are. */
export function arranged(columns: Column[], { hide, pin, order }: Pick<Layout, "hide" | "pin" | "order">): { columns: Column[]; pinned: number } {
  const place = new Map(order.map((id, at) => [id, at]));
  const pins = new Set(pin);
  const hidden = new Set(hide);
  const last = order.length;
  const shown = columns
    .filter((column) => !hidden.has(column.id))
    .map((column, at) => ({ column, at, place: place.get(column.id) ?? last }))
    .sort((one, other) => one.place - other.place || one.at - other.at)
    .map(({ column }) => column);
  const first = shown.filter((column) => pins.has(column.id));
  return { columns: [...first, ...shown.filter((column) => !pins.has(column.id))], pinned: first.length };
}

/** The order of the columns after one was put before another, or at the end. */
export function moved(columns: Column[], id: string, before: string | null): string[] {
  const ids = columns.map((column) => column.id).filter((one) => one !== id);
  ids.splice(before === null ? ids.length : Math.max(0, ids.indexOf(before)), 0, id);
  return ids;
}

// --- the order of the rows

export interface Sort {
  id: string;
  descending: boolean;
}

export function sorts(text: string | undefined): Sort[] {
  const found = listed(text || "start_time:desc").map((one) => {
    const [id = "", way] = one.split(/:(?=asc$|desc$)/);
    return { id, descending: way !== "asc" };
  });
  return found.filter((one, at) => found.findIndex((other) => other.id === one.id) === at);
}

/** The address's text after a click on a column: it alone, or besides the others. */
export function resorted(now: Sort[], id: string, descendsFirst: boolean, besides: boolean): string {
  const old = now.find((one) => one.id === id);
  const next = { id, descending: old ? !old.descending : descendsFirst };
  const all = !besides ? [next] : old ? now.map((one) => (one.id === id ? next : one)) : [...now, next];
  return list(all.map((one) => `${one.id}:${one.descending ? "desc" : "asc"}`));
}

/** The rows in the order of columns; what has no value comes last, whichever way. */
export function order(count: number, by: { values: Value[]; descending: boolean }[]): number[] {
  const keys = by.map(({ values, descending }) => {
    const numeric = values.every((value) => value === null || isNumber(value) || value === "NaN");
    const sorted = numeric ? values.map((value) => (value === null ? null : Number(value))) : values;
    return { sorted, sign: descending ? -1 : 1 };
  });
  return Array.from({ length: count }, (_, at) => at).sort((one, other) => {
    for (const { sorted, sign } of keys) {
      const a = sorted[one] ?? null;
      const b = sorted[other] ?? null;
      const lastA = a === null || Number.isNaN(a);
      const lastB = b === null || Number.isNaN(b);
      const found = lastA || lastB ? Number(lastA) - Number(lastB) : sign * (a < b ? -1 : a > b ? 1 : 0);
      if (found) return found;
    }
    return one - other;
  });
}

const SERVED = new Map([["start_time", "start_time"], ["user_id", "user_id"], ["run_name", "run_name"], ["code_commit", "commit"]]);

/** What the server sorts by, for those of the columns that it can sort by. */
export function orderBy(by: Sort[]): string[] {
  return by.flatMap(({ id, descending }) => {
    const key = served(id);
    return key === null ? [] : [`${key} ${descending ? "DESC" : "ASC"}`];
  });
}

/** Whether the server's order by a column is the one here: what is no metric is text to it. */
export function servedAlike(id: string, column: Column | undefined): boolean {
  return served(id) !== null && !(column?.numeric && column.kind !== "metrics");
}

/** A column as the query language has it; null if it has no name for it. */
export function served(id: string): string | null {
  const dot = id.indexOf(".");
  if (dot < 0) return SERVED.get(id) ?? null;
  const key = id.slice(dot + 1);
  const mark = ["`", '"'].find((one) => !key.includes(one));
  return mark === undefined ? null : `${id.slice(0, dot)}.${mark}${key}${mark}`;
}

// --- height

/** No browser takes an element higher than this: Firefox ends at 17.9 million. */
export const HIGHEST = 15_000_000;

/** How many rows' pixels there are for each pixel that is scrolled: 1 unless there are very many. */
export function stretch(wanted: number, view: number): number {
  return wanted <= HIGHEST ? 1 : (wanted - view) / (HIGHEST - view);
}

/** A text as CSV has it (RFC 4180); what a spreadsheet would take for a formula is marked as text. */
export function csv(columns: { title: string; values: Value[] }[], rows: number[], head = true): string {
  const cell = (value: Value): string => {
    const text = value === null ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !isNumber(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = rows.map((row) => columns.map((c) => cell(c.values[row] ?? null)));
  if (head) lines.unshift(columns.map((column) => cell(column.title)));
  return lines.map((line) => line.join(",")).join("\r\n");
}
