import { expect, test } from "vitest";

import type { Value } from "../api";
import type { Column } from "../table";
import { encoded, forest, importance, ranks, spearman, type Answer } from "./importance";

const COUNT = 200;
const rows = Array.from({ length: COUNT }, (_, at) => at);
/** Numbers that are spread evenly and look unordered. */
const spreadBy = (prime: number): number[] => rows.map((at) => ((Math.sqrt(prime) % 1) * (at + 1)) % 1);
const [a, b, c, d] = [spreadBy(2), spreadBy(3), spreadBy(5), spreadBy(7)];
const names = d.map((value) => ["sgd", "adam", "lion"][Math.floor(3 * value)] ?? "");
const target = rows.map((at) => 3 * (a[at] ?? 0) + 2 * (2 * (b[at] ?? 0) - 1) ** 2 + Number(names[at] === "adam") + 0.2 * (c[at] ?? 0));

function column(title: string, values: Value[], numeric = true, kind: Column["kind"] = "params"): Column {
  return { id: `${kind}.${title}`, kind, title, values, numeric };
}

async function answered(columns: Column[], metric: Column, of = rows): Promise<Answer> {
  const found = await importance(columns, metric, of);
  if (typeof found === "string") throw new Error(found);
  return found;
}

test("ranks, and what is equal shares one", () => {
  expect(ranks([10, 30, 20, 20])).toEqual([1, 4, 2.5, 2.5]);
});

test("rank correlation is that of scipy.stats.spearmanr (1.17)", () => {
  expect(spearman(a, target)).toBeCloseTo(0.741587, 6);
  expect(spearman(b, target)).toBeCloseTo(-0.030676, 6);
  expect(spearman(a.map((value) => Math.round(5 * value)), target)).toBeCloseTo(0.7355141997, 9); // with ties
  expect(spearman([1, 1, 1], [1, 2, 3])).toBe(null);
  expect(spearman([1, 2, 3], [9, 5, 1])).toBe(-1);
});

test("importance is that of scikit-learn's RandomForestRegressor (1.9, 500 trees)", async () => {
  const columns = [column("a", a), column("b", b.map(String)), column("c", c), column("optimizer", names, false)];
  const found = await answered(columns, column("loss", target, true, "metrics"));
  const shares = Object.fromEntries(found.params.map((one) => [one.column.title, one.share]));
  const theirs = { a: 0.5935, b: 0.252, c: 0.016, optimizer: 0.138 };
  for (const [name, share] of Object.entries(theirs)) expect(Math.abs((shares[name] ?? 0) - share)).toBeLessThan(0.03);
  expect(Math.abs((found.explained ?? 0) - 0.941)).toBeLessThan(0.03);
  expect(found.params.map((one) => one.column.title)).toEqual(["a", "b", "optimizer", "c"]);
  expect(found.params.find((one) => one.column.title === "optimizer")?.rho).toBe(null);
});

test("noise explains nothing, and that is said", async () => {
  const found = await forest([Float64Array.from(c)], Float64Array.from(rows.map((at) => (at * 7919) % 101)));
  expect(found.explained).toBeLessThan(0.2);
  expect(await forest([Float64Array.from(rows, () => 1)], Float64Array.from(a))).toMatchObject({ shares: [0] });
});

test("what cannot be told is said", async () => {
  const metric = column("loss", target, true, "metrics");
  expect(await importance([column("a", a)], metric, [0, 1, 2])).toMatch(/at least 5/);
  expect(await importance([column("a", a)], column("loss", rows.map(() => 1)), rows)).toMatch(/is the same/);
  expect(await importance([column("a", a)], column("loss", rows.map(() => "NaN")), rows)).toMatch(/at least 5/);
  expect(await importance([column("path", rows.map((at) => `run ${at}`), false), column("x", rows.map(() => 1))], metric, rows)).toMatch(/No parameter/);
});

test("of very many runs and parameters some are looked at", async () => {
  const many = Array.from({ length: 1200 }, (_, at) => at);
  const metric = column("m", many.map((at) => at % 17));
  const same = many.map(() => 1);
  const columns = Array.from({ length: 10_000 }, (_, at) => column(`p${at}`, at < 70 ? many.map((row) => (row * (at + 3)) % 101) : same));
  const found = importance(columns, metric, many.slice(0, 60));
  expect(await found).toMatchObject({ note: expect.stringContaining("the first 60 of 70") as string });
  const few = await answered([column("p", many.map((at) => at % 17))], metric, many);
  expect(few.runs).toBe(400);
  expect(few.note).toContain("400 of 1200 runs");
  expect(few.explained).toBeGreaterThan(0.99);
}, 30_000);

test("columns as numbers", () => {
  expect(encoded([3, null, "1"], true)).toEqual([Float64Array.of(3, -1, 1)]);
  expect(encoded(["x", "y", "x"], false)).toEqual([Float64Array.of(1, 0, 1), Float64Array.of(0, 1, 0)]);
  expect(encoded(rows.map(String), false).length).toBe(20);
});
