// The group of each run whose curves are drawn as one.

import type { Columns, Value } from "./api";
import { all } from "./table";

const NONE = "(none)";

function valuesOf(found: Columns, id: string): Value[] | undefined {
  if (id === "status") return found.runs.status;
  if (id === "code_branch") return found.runs.code_branch;
  return all(found).find((column) => column.id === id && column.kind !== "metrics")?.values;
}

/** By a column, as the table is grouped; null if there is no such column. */
export function groupsBy(found: Columns, id: string, runs: { id: string }[]): string[] | null {
  const values = valuesOf(found, id);
  if (!values) return null;
  const rows = new Map(found.runs.run_id.map((runId, row) => [runId, row]));
  return runs.map((run) => String(values[rows.get(run.id) ?? -1] ?? NONE));
}
