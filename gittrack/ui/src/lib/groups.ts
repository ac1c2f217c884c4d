// Runs under headings: those that have a value in common, or those that another run started.

import type { Columns, Value } from "./api";

/** A line of the table: a run, or a group of runs. */
export type Entry = RunEntry | GroupEntry;

export interface RunEntry {
  /** In the columns. */
  row: number;
  /** How deep, from 1. */
  level: number;
  /** Its id if there are lines that it opens; else null. */
  opens: string | null;
  open: boolean;
  /** How many runs there are below it. */
  below: number;
}

export interface GroupEntry {
  value: Value;
  rows: number[];
  opens: string;
  open: boolean;
}

export function isGroup(entry: Entry): entry is GroupEntry {
  return "rows" in entry;
}

export interface Stats {
  count: number;
  mean: number;
  min: number;
  max: number;
  /** Of a sample; null of a single value. */
  std: number | null;
}

export const AGGREGATES = ["mean", "min", "max", "std"] as const;
export type Aggregate = (typeof AGGREGATES)[number];

/** What there is to say of the numbers in some rows of a column; null if there are none. */
export function stats(values: Value[], rows: number[]): Stats | null {
  let count = 0;
  let mean = 0;
  let square = 0;
  let min = Infinity;
  let max = -Infinity;
  for (const row of rows) {
    const value = values[row];
    if (typeof value !== "number") continue;
    count += 1;
    const off = value - mean;
    mean += off / count; // Welford's: no sum that grows out of what a float holds well
    square += off * (value - mean);
    if (value < min) min = value;
    if (value > max) max = value;
  }
  return count === 0 ? null : { count, mean, min, max, std: count > 1 ? Math.sqrt(square / (count - 1)) : null };
}

/**
 * Rows by their value in a column.  The groups are in the order of their first rows, or, if there is a column of
 * numbers, in the order of what is said of these.
 */
export function grouped(
  rows: number[],
  values: Value[],
  open: ReadonlySet<string>,
  by: { values: Value[]; descending: boolean; aggregate: Aggregate } | null = null,
): Entry[] {
  const found = new Map<Value, number[]>();
  for (const row of rows) {
    const value = values[row] ?? null;
    const group = found.get(value);
    if (group) group.push(row);
    else found.set(value, [row]);
  }
  let groups = [...found].map(([value, members]) => ({ value, members, key: by && (stats(by.values, members)?.[by.aggregate] ?? null) }));
  if (by) {
    const sign = by.descending ? -1 : 1;
    groups = groups.sort((one, other) =>
      one.key === null || other.key === null ? Number(one.key === null) - Number(other.key === null) : sign * (one.key - other.key),
    );
  }
  return groups.flatMap(({ value, members }): Entry[] => {
    const opens = `${typeof value}:${value}`;
    const group = { value, rows: members, opens, open: open.has(opens) };
    return group.open ? [group, ...members.map((row) => alone(row, 2))] : [group];
  });
}

export function alone(row: number, level = 1): RunEntry {
  return { row, level, opens: null, open: false, below: 0 };
}

/** Runs below those that started them; a run whose parent is not among them stands by itself. */
export function nested(found: Columns, rows: number[], open: ReadonlySet<string>): Entry[] {
  const ids = found.runs.run_id;
  const parents = found.tags["mlflow.parentRunId"] ?? [];
  const rowOf = new Map(rows.map((row) => [ids[row], row]));
  const parentOf = (row: number): number | undefined => {
    const parent = parents[row];
    return typeof parent === "string" ? rowOf.get(parent) : undefined;
  };
  const children = new Map<number, number[]>();
  const roots: number[] = [];
  for (const row of rows) {
    const parent = parentOf(row);
    const others = parent === undefined ? roots : children.get(parent);
    if (others) others.push(row);
    else if (parent !== undefined) children.set(parent, [row]);
  }
  const reached = new Set<number>();
  const reach = (root: number): void => {
    const left = [root];
    for (let row = left.pop(); row !== undefined; row = left.pop()) {
      if (reached.has(row)) continue;
      reached.add(row);
      for (const child of children.get(row) ?? []) left.push(child);
    }
  };
  roots.forEach(reach);
  for (const row of rows) {
    if (reached.has(row)) continue; // else it says that it is among its own ancestors: it stands by itself
    const parent = parentOf(row) ?? row;
    children.set(parent, (children.get(parent) ?? []).filter((child) => child !== row));
    roots.push(row);
    reach(row);
  }
  const entries: Entry[] = [];
  const walk: { row: number; level: number }[] = roots.map((row) => ({ row, level: 1 })).reverse();
  for (let next = walk.pop(); next; next = walk.pop()) {
    const { row, level } = next;
    const below = children.get(row) ?? [];
    const id = ids[row] ?? "";
    const entry = { row, level, opens: below.length ? id : null, open: open.has(id), below: below.length };
    entries.push(entry);
    if (entry.opens && entry.open) walk.push(...below.map((one) => ({ row: one, level: level + 1 })).reverse());
  }
  return entries;
}
