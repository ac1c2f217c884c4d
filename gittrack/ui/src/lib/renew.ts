// Rows of the runs table that are brought up to date alone.

import type { Columns, Value } from "./api";
import type { News } from "./live.svelte";
import { cell, type Sort } from "./table";

/** The runs of the table that may be different now, and those that may have come. */
export function changed(found: Columns, news: News): string[] {
  const going = news.first ? found.runs.run_id.filter((_, row) => found.runs.status[row] === "RUNNING") : [];
  return [...new Set([...news.runs, ...going])];
}

/**
 * Whether the runs `ids`, of which `news` say what is now known, stand in an order where they stood; where those do that
 * are not among the ones that were found is kept in `elsewhere`.
 */
export function stay(found: Columns, news: Columns, ids: string[], sort: Sort[], elsewhere: Map<string, string>): boolean {
  const standing = (of: Columns, row: number): string => JSON.stringify(sort.map(({ id }) => cell(of, id, row)));
  const [rows, now] = [found, news].map((of) => new Map(of.runs.run_id.map((id, row) => [id, row]))) as [Map<string, number>, Map<string, number>];
  let same = true;
  for (const id of ids) {
    const [row, newer] = [rows.get(id), now.get(id)];
    const stood = row === undefined ? elsewhere.get(id) : standing(found, row);
    const stands = newer === undefined ? undefined : standing(news, newer);
    if (stood !== stands) same = false;
    if (stands === undefined) elsewhere.delete(id);
    else elsewhere.set(id, stands);
  }
  return same;
}

/**
 * The table with what is now known of the runs `ids`: those that are not in `news` do not belong into it any more.
 * Those that it did not have come first, if there is a place for them.
 */
export function renewed(found: Columns, news: Columns, ids: string[], place = true): Columns {
  const now = new Map(news.runs.run_id.map((id, row) => [id, row]));
  const asked = new Set(ids);
  /** For each row of the new table, the row of one of the others. */
  const rows: { of: Columns; row: number }[] = [];
  for (const [row, id] of found.runs.run_id.entries()) {
    const newer = now.get(id);
    now.delete(id);
    if (newer !== undefined) rows.push({ of: news, row: newer });
    else if (!asked.has(id)) rows.push({ of: found, row });
  }
  if (place) rows.unshift(...[...now.values()].map((row) => ({ of: news, row })));
  const names = Object.keys(found.runs) as (keyof Columns["runs"])[];
  const runs = Object.fromEntries(names.map((name) => [name, rows.map(({ of, row }) => of.runs[name][row])]));
  const table = (kind: "metrics" | "params" | "tags"): Record<string, Value[]> =>
    Object.fromEntries(
      [...new Set([...Object.keys(found[kind]), ...Object.keys(news[kind])])].map((key) => [
        key,
        rows.map(({ of, row }) => of[kind][key]?.[row] ?? null),
      ]),
    );
  const keys = (kind: "metrics" | "params" | "tags"): string[] => [...new Set([...found.keys[kind], ...news.keys[kind]])];
  return {
    total: found.total + rows.length - found.runs.run_id.length,
    runs: runs as unknown as Columns["runs"],
    metrics: table("metrics"),
    params: table("params"),
    tags: table("tags"),
    keys: { metrics: keys("metrics"), params: keys("params"), tags: keys("tags") },
  };
}
