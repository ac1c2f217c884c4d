import { expect, test } from "vitest";

import type { Columns } from "./api";
import { grouped, isGroup, nested, stats, type Entry } from "./groups";

/** Names of groups and rows, by depth. */
function shape(entries: Entry[]): string[] {
  return entries.map((entry) => (isGroup(entry) ? `${entry.value} (${entry.rows.length})` : `${"-".repeat(entry.level)}${entry.row}`));
}

test("numbers of a group", () => {
  const found = stats([1, 2, "NaN", 4, null, 100], [0, 1, 2, 3, 4]);
  expect(found).toMatchObject({ count: 3, min: 1, max: 4 });
  expect(found?.mean).toBeCloseTo(7 / 3);
  expect(found?.std).toBeCloseTo(1.5275252);
  expect(stats([5], [0])).toMatchObject({ mean: 5, std: null });
  expect(stats([null, "x"], [0, 1])).toBe(null);
  expect(stats([1e9 + 1, 1e9 + 2, 1e9 + 3], [0, 1, 2])?.std).toBe(1);
});

test("groups in the order of their first rows, or of what is said of them", () => {
  const values = ["a", "b", null, "a", "b"];
  expect(shape(grouped([4, 0, 1, 2, 3], values, new Set(["string:a"])))).toEqual(["b (2)", "a (2)", "--0", "--3", "null (1)"]);
  const by = { values: [1, 9, null, 2, 0], descending: true, aggregate: "mean" as const };
  expect(shape(grouped([0, 1, 2, 3, 4], values, new Set(), by))).toEqual(["b (2)", "a (2)", "null (1)"]);
  expect(shape(grouped([0, 1, 2, 3, 4], values, new Set(), { ...by, aggregate: "min" }))[0]).toBe("a (2)");
});

function family(parents: (string | null)[]): Columns {
  return { runs: { run_id: parents.map((_, at) => `r${at}`) }, tags: { "mlflow.parentRunId": parents } } as unknown as Columns;
}

test("runs below those that started them", () => {
  const found = family([null, "r0", "r1", null, "elsewhere"]);
  const rows = [4, 3, 2, 1, 0];
  expect(shape(nested(found, rows, new Set()))).toEqual(["-4", "-3", "-0"]);
  expect(shape(nested(found, rows, new Set(["r0", "r1"])))).toEqual(["-4", "-3", "-0", "--1", "---2"]);
  expect(nested(found, rows, new Set())[2]).toMatchObject({ opens: "r0", open: false, below: 1 });
  expect(shape(nested({ ...found, tags: {} }, rows, new Set()))).toHaveLength(5);
});

test("runs that say they started each other are all there, once", () => {
  const found = family(["r0", "r2", "r1", "r1", null]);
  expect(shape(nested(found, [0, 1, 2, 3, 4], new Set(["r0", "r1", "r2"]))).sort()).toEqual(["--2", "--3", "-0", "-1", "-4"]);
});

test("a long line of runs takes no long time", () => {
  const count = 20_000;
  const found = family(Array.from({ length: count }, (_, at) => (at ? `r${at - 1}` : null)));
  const open = new Set(found.runs.run_id);
  expect(nested(found, Array.from({ length: count }, (_, at) => at), open).at(-1)).toMatchObject({ level: count });
});
