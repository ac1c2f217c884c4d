import { expect, test } from "vitest";

import type { Columns, Value } from "./api";
import {
  all, arranged, csv, differs, emptied, HIGHEST, joined, layout, list, listed, moved, order, orderBy, resorted, sorts, stretch, usefulFirst, written,
  type Column,
} from "./table";

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
    "start_time", "duration", "user_id", "metrics.acc", "params.lr", "params.model", "tags.team",
  ]);
  expect(found.find((one) => one.id === "duration")?.values).toEqual([null, 5]);
  expect(found.find((one) => one.id === "params.lr")?.numeric).toBe(true);
  expect(found.find((one) => one.id === "params.model")?.numeric).toBe(false);
});

test("a column of the experiments if there are several", () => {
  const found = joined([columns(1), { ...columns(1, 1), runs: { ...columns(1, 1).runs, experiment_id: ["7"] } }]);
  expect(all(found, new Map([["7", "vision"]]))[0]).toMatchObject({ id: "experiment", values: ["0", "vision"] });
});

test("columns stay when their runs go", () => {
  const kept = joined([columns(2, 2), emptied(columns(2))]);
  expect(kept.runs.run_id).toEqual(["r2", "r3"]);
  expect(kept.metrics).toEqual({ acc: [null, null], loss: [2, 3] });
});

function sorted(values: (number | string | null)[], descending: boolean): number[] {
  return order(values.length, [{ values, descending }]);
}

test("what has no value comes last, whichever way", () => {
  expect(sorted([2, null, "NaN", 1], false)).toEqual([3, 0, 1, 2]);
  expect(sorted([2, null, "NaN", 1], true)).toEqual([0, 3, 1, 2]);
  expect(sorted(["10", "9", "x"], false)).toEqual([0, 1, 2]);
  expect(sorted(["10", "9"], false)).toEqual([1, 0]);
  expect(sorted([1, 1, 1], true)).toEqual([0, 1, 2]);
});

test("by several columns", () => {
  const by = [{ values: ["b", "a", "b", "a"], descending: false }, { values: [1, 2, 3, null], descending: true }];
  expect(order(4, by)).toEqual([1, 3, 2, 0]);
  expect(order(3, [])).toEqual([0, 1, 2]);
  expect(sorts(undefined)).toEqual([{ id: "start_time", descending: true }]);
  expect(sorts("metrics.a%2Cb:x:desc,params.lr:asc,params.lr:desc")).toEqual([
    { id: "metrics.a,b:x", descending: true },
    { id: "params.lr", descending: false },
  ]);
  expect(resorted(sorts("a:desc,b:asc"), "b", true, true)).toBe("a:desc,b:desc");
  expect(resorted(sorts("a:desc"), "c,d", true, true)).toBe("a:desc,c%2Cd:desc");
  expect(resorted(sorts("a:desc,b:asc"), "a", true, false)).toBe("a:asc");
});

test("what the server is asked to sort by", () => {
  expect(orderBy(sorts("metrics.val/loss.x:desc,start_time:asc"))).toEqual(["metrics.`val/loss.x` DESC", "start_time ASC"]);
  expect(orderBy(sorts("duration:asc,params.a`b:asc,params.`\":asc,code_commit:desc"))).toEqual(['params."a`b" ASC', "commit DESC"]);
});

test("columns are laid out as the address says", () => {
  const settings = { hide: "user_id", pin: "params.lr", order: "params.model,start_time", width: "params.lr:77.4,x%2Cy:5,z:no", also: "params.a%2Cb,tags.c" };
  const found = layout(settings);
  expect(arranged(all(columns(2)), found)).toMatchObject({
    pinned: 1,
    columns: ["params.lr", "params.model", "start_time", "duration", "metrics.acc", "tags.team"].map((id) => ({ id })),
  });
  expect(written(found)).toEqual({ ...settings, width: "params.lr:77,x%2Cy:60" });
  expect(moved(all(columns(2)).slice(0, 3), "user_id", "start_time")).toEqual(["user_id", "start_time", "duration"]);
  expect(moved(all(columns(2)).slice(0, 3), "start_time", null)).toEqual(["duration", "user_id", "start_time"]);
  expect(listed(list(["a,b", "50%2C", "c"]))).toEqual(["a,b", "50%2C", "c"]);
});

test("ten million rows are as high as a browser takes, and the last one can be reached", () => {
  expect(stretch(3_000_000, 600)).toBe(1);
  const wanted = 300_000_000;
  expect((HIGHEST - 600) * stretch(wanted, 600)).toBeCloseTo(wanted - 600);
});

test("columns that tell runs apart", () => {
  expect(differs(["a", "a"])).toBe(false);
  expect(differs(["a", null])).toBe(true);
});

test("CSV as RFC 4180 has it, and no formula for a spreadsheet", () => {
  const text = csv([{ title: "a,b", values: ['say "hi"', "=1+1", "-3", null, 0.5] }], [0, 1, 2, 3, 4]);
  expect(text.split("\r\n")).toEqual(['"a,b"', '"say ""hi"""', "'=1+1", "-3", "", "0.5"]);
  expect(csv([{ title: "a", values: [1, 2] }], [1], false)).toBe("2");
});

test("what tells runs apart is seen first, parameters beside metrics", () => {
  const column = (id: string, values: Value[]): Column => {
    const [kind, title] = id.includes(".") ? (id.split(".") as [Column["kind"], string]) : (["fact", id] as const);
    return { id, kind, title, values, numeric: true };
  };
  const [apart, same, rare] = [[1, 2, 3], [1, 1, 1], [null, null, 3]];
  const ids: [string, Value[]][] = [
    ["start_time", same], ["user_id", same], ["code_commit", apart],
    ["metrics.a", apart], ["metrics.b", rare], ["metrics.c", apart], ["metrics.d", apart], ["metrics.e", apart],
    ["params.lr", apart], ["params.seed", same], ["tags.team", apart],
  ];
  expect(usefulFirst(ids.map(([id, values]) => column(id, values))).map((one) => one.id)).toEqual([
    "start_time", "code_commit", "metrics.a", "metrics.c", "metrics.d", "params.lr", "metrics.e", "tags.team",
    "user_id", "metrics.b", "params.seed",
  ]);
});
