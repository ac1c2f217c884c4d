// Rows of the runs table that are brought up to date alone.

import type { Columns, Value } from "./api";
import type { News } from "./live.svelte";

/** The runs of the table that may be different now, and those that may have come. */
export function changed(found: Columns, news: News): string[] {
  const going = news.first ? found.runs.run_id.filter((_, row) => found.runs.status[row] === "RUNNING") : [];
  return [...new Set([...news.runs, ...going])];
}

/** The table with what is now known of the runs `ids`: those that are not in `news` do not belong into it any more. */
export function renewed(found: Columns, news: Columns, ids: string[]): Columns {
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
  rows.unshift(...[...now.values()].map((row) => ({ of: news, row })));
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
