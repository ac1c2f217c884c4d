import { expect, test } from "vitest";

import type { Columns } from "./api";
import { all, csv, differs, joined, order, orderBy } from "./table";

function columns(count: number, first = 0): Columns {
  const rows = Array.from({ length: count }, (_, at) => first + at);
  return {
    total: 10,
    runs: {
      run_id: rows.map((row) => `r${row}`),
      experiment_id: rows.map(() => "0"),
      run_name: rows.map((row) => `name ${row}`),
      status: rows.map(() => "FINISHED"),
      user_id: rows.map(() => "ana"),
      start_time: rows,
      end_time: rows.map((row) => (row === 0 ? null : row + 5)),
      lifecycle_stage: rows.map(() => "active"),
      code_commit: rows.map(() => null),
      code_branch: rows.map(() => null),
      code_dirty: rows.map(() => null),
    },
    metrics: first === 0 ? { acc: rows } : { loss: rows },
    params: { lr: rows.map(String), model: rows.map(() => "cnn") },
    tags: { "mlflow.user": rows.map(() => "ana"), team: rows.map(() => "blue") },
    keys: { metrics: [], params: [], tags: [] },
  };
}

test("pieces are joined; what one of them has not is empty there", () => {
  const whole = joined([columns(2), columns(3, 2)]);
  expect(whole.runs.run_id).toEqual(["r0", "r1", "r2", "r3", "r4"]);
  expect(whole.metrics).toEqual({ acc: [0, 1, null, null, null], loss: [null, null, 2, 3, 4] });
  expect(() => joined([])).toThrow();
});

test("every column but those of tags that are kept for programs", () => {
  const found = all(columns(2));
  expect(found.map((one) => one.id)).toEqual([
    "start_time", "duration", "user_id", "code_commit", "metrics.acc", "params.lr", "params.model", "tags.team",
  ]);
  expect(found.find((one) => one.id === "duration")?.values).toEqual([null, 5]);
  expect(found.find((one) => one.id === "params.lr")?.numeric).toBe(true);
  expect(found.find((one) => one.id === "params.model")?.numeric).toBe(false);
});

test("what has no value comes last, whichever way", () => {
  expect(order([2, null, "NaN", 1], false)).toEqual([3, 0, 1, 2]);
  expect(order([2, null, "NaN", 1], true)).toEqual([0, 3, 1, 2]);
  expect(order(["10", "9", "x"], false)).toEqual([0, 1, 2]);
  expect(order(["10", "9"], false)).toEqual([1, 0]);
  expect(order([1, 1, 1], true)).toEqual([0, 1, 2]);
});

test("what the server is asked to sort by", () => {
  expect(orderBy("metrics.val/loss.x", true)).toEqual(["metrics.`val/loss.x` DESC"]);
  expect(orderBy("start_time", false)).toEqual(["start_time ASC"]);
});

test("columns that tell runs apart", () => {
  expect(differs(["a", "a"])).toBe(false);
  expect(differs(["a", null])).toBe(true);
});

test("CSV as RFC 4180 has it, and no formula for a spreadsheet", () => {
  const text = csv([{ title: "a,b", values: ['say "hi"', "=1+1", "-3", null, 0.5] }], [0, 1, 2, 3, 4]);
  expect(text.split("\r\n")).toEqual(['"a,b"', '"say ""hi"""', "'=1+1", "-3", "", "0.5"]);
});
