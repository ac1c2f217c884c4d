import { expect, test } from "vitest";

import type { Columns } from "./api";
import { changed, renewed, stay } from "./renew";

function columns(ids: string[], loss: (number | null)[], more: Partial<Columns> = {}): Columns {
  return {
    total: ids.length,
    runs: {
      run_id: ids,
      experiment_id: ids.map(() => "0"),
      run_name: ids,
      status: ids.map((id) => (id === "c" ? "RUNNING" : "FINISHED")),
      user_id: ids,
      start_time: ids.map(() => 1),
      end_time: ids.map(() => null),
      lifecycle_stage: ids,
      code_commit: ids,
      code_branch: ids,
      code_dirty: ids,
    },
    metrics: { loss },
    params: {},
    tags: {},
    keys: { metrics: ["loss"], params: [], tags: [] },
    ...more,
  };
}

test("rows are replaced where they are, new ones come first, others go", () => {
  const found = columns(["a", "b", "c"], [1, 2, 3]);
  const news = columns(["d", "b"], [9, 5], { metrics: { loss: [9, 5], acc: [null, 0.5] } });
  const now = renewed(found, news, ["d", "b", "c"]);
  expect(now.runs.run_id).toEqual(["d", "a", "b"]);
  expect(now.metrics).toEqual({ loss: [9, 1, 5], acc: [null, null, 0.5] });
  expect(now.total).toBe(3);
  expect(found.runs.run_id).toEqual(["a", "b", "c"]);
});

test("what went on before anything was told is looked at again", () => {
  const found = columns(["a", "b", "c"], [1, 2, 3]);
  const news = { complete: true, runs: new Set(["z"]), experiments: new Set<string>(), first: false };
  expect(changed(found, news)).toEqual(["z"]);
  expect(changed(found, { ...news, first: true })).toEqual(["z", "c"]);
});

test("of a part of the table only rows that are there are replaced", () => {
  const part = columns(["a", "b"], [1, 2], { total: 9 });
  const now = renewed(part, columns(["d", "b"], [9, 5]), ["d", "b"], false);
  expect([now.runs.run_id, now.metrics.loss, now.total]).toEqual([["a", "b"], [1, 5], 9]);
});

test("whether changed runs stand where they stood is told by what is sorted by", () => {
  const found = columns(["a", "b"], [1, 2]);
  const elsewhere = new Map<string, string>();
  const stands = (news: Columns, ids: string[], id: string): boolean => stay(found, news, ids, [{ id, descending: true }], elsewhere);
  expect(stands(columns(["a"], [7]), ["a"], "start_time")).toBe(true);
  expect(stands(columns(["a"], [7]), ["a"], "metrics.loss")).toBe(false);
  expect(stands(columns(["a"], [1]), ["a"], "metrics.loss")).toBe(true);
  expect(stands(columns(["z"], [3]), ["z"], "metrics.loss")).toBe(false); // nobody knows where it stood
  expect(stands(columns(["z"], [3]), ["z"], "metrics.loss")).toBe(true);
  expect(stands(columns(["z"], [4]), ["z"], "metrics.loss")).toBe(false);
  expect(stands(columns([], []), ["b"], "start_time")).toBe(false); // it is gone
  expect(stands(columns([], []), ["y"], "start_time")).toBe(true); // it never was here
});
