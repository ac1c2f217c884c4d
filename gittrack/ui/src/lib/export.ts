// All that a question finds as one CSV file, however much it is: it comes in pieces, and none is kept as objects.

import { columns as ask, type Columns, type Search } from "./api";
import { all, csv, type Column } from "./table";

const PIECE = 20_000; // no more come in one answer
type Shown = { title: string; values: Column["values"] }[];

function shownOf(found: Columns, ids: string[], experiments: Map<string, string>): Shown {
  const there = new Map(all(found, experiments).map((column) => [column.id, column.values]));
  there.set("experiment", found.runs.experiment_id.map((id) => experiments.get(id) ?? id)); // also where it is but one
  const nothing = new Array<null>(found.runs.run_id.length).fill(null);
  const facts = (["run_id", "run_name", "status"] as const).map((title) => ({ title, values: found.runs[title] }));
  return [...facts, ...ids.map((id) => ({ title: id, values: there.get(id) ?? nothing }))];
}

/** Rows that are here. */
export function here(found: Columns, rows: number[], ids: string[], experiments: Map<string, string>): Blob {
  return blob([csv(shownOf(found, ids, experiments), rows)]);
}

/** All that there is, in the server's order. */
export async function everything(question: Search, ids: string[], experiments: Map<string, string>, onpart: (share: number) => void): Promise<Blob> {
  const parts: string[] = [];
  const keys = (kind: string): string[] => {
    const named = ids.filter((id) => id.startsWith(`${kind}.`)).map((id) => id.slice(kind.length + 1));
    return named.length ? named : [""]; // that no column has
  };
  const wanted = { metrics: keys("metrics"), params: keys("params"), tags: keys("tags") };
  let total = 1;
  for (let at = 0; at < total; at += PIECE) {
    const found = await ask({ ...question, ...wanted, max_results: PIECE, offset: at || undefined });
    total = found.total;
    parts.push(csv(shownOf(found, ids, experiments), found.runs.run_id.map((_, row) => row), at === 0));
    onpart(Math.min(1, (at + PIECE) / total));
  }
  return blob(parts);
}

function blob(parts: string[]): Blob {
  return new Blob([parts.join("\r\n")], { type: "text/csv" });
}

export function download(data: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(data);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
