import { expect, test } from "vitest";

import { Trouble } from "../api";
import { parse, type Row } from "./query";
import vectors from "./query.vectors.json";

// `tests/ui/test_vectors.py` writes them, with what the server answers to the same texts.
interface Given {
  params: Record<string, string>;
  tags: Record<string, string>;
  metrics: Record<string, Record<string, number | string>>;
  facts: Record<string, string | number | null>;
}
const [{ runs }, ...cases] = vectors as unknown as [{ runs: Given[] }, ...{ text: string; meets?: string[]; column?: number }[]];
const own = <T>(table: Record<string, T>, key: string): T | null => (Object.hasOwn(table, key) ? (table[key] ?? null) : null);
const number = (value: number | string | undefined): number | null => (value === undefined ? null : value === "inf" ? Infinity : Number(value));
const rows = runs.map(
  ({ params, tags, metrics, facts }): Row => ({
    metric: (key, of) => number(own(metrics, key)?.[of]),
    param: (key) => own(params, key),
    tag: (key) => own(tags, key),
    fact: (name) => own(facts, name),
  }),
);
const has = (key: string): boolean => runs.some((run) => Object.hasOwn(run.metrics, key));

test.each(cases)("a filter as the server reads it: $text", ({ text, meets, column }) => {
  if (meets) {
    const filter = parse(text, has);
    expect(rows.flatMap((row) => (filter.meets(row) ? [row.fact("run_id")] : []))).toEqual(meets);
    return;
  }
  expect(() => parse(text, has)).toThrow(Trouble);
  try {
    parse(text, has);
  } catch (error) {
    expect((error as Trouble).column).toBe(column);
  }
});

test("what only a server knows is said to be so", () => {
  for (const [text, column] of [["tree = 'x'", 1], ["artifact_uri = 'x'", 1], ["params.a = 'x' AND datasets.name = 'x'", 20]] as const) {
    expect(() => parse(text, has)).toThrow(expect.objectContaining({ column, message: expect.stringContaining("a copy of runs cannot be filtered") as string }));
  }
});
