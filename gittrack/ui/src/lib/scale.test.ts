import { expect, test } from "vitest";

import { extent, finite, names, numeric, roomy, rounds, scaleOf, withoutOutliers } from "./scale";

test("what is a number on an axis", () => {
  expect(["1e3", 0, -2, "x", "", null, "NaN", Infinity, Number.MAX_VALUE, undefined].map(finite)).toEqual([
    1000, 0, -2, null, null, null, null, null, null, null,
  ]);
});

test("ends", () => {
  expect(extent([3, null, NaN, -1, Infinity])).toEqual([-1, 3]);
  expect(extent([null, NaN])).toBe(null);
  expect(roomy([5, 5], false)).toEqual([4.5, 5.5]);
  expect(roomy([0, 0], false)).toEqual([-1, 1]);
  expect(roomy([3, 3], true)).toEqual([1.5, 6]);
  const values = [...Array.from({ length: 100 }, (_, at) => at), 1e9, NaN];
  expect(withoutOutliers(values)).toEqual([2, 98]);
  expect(withoutOutliers([1, 1, 1, 1])).toEqual([1, 1]);
  expect(withoutOutliers([NaN])).toBe(null);
});

test("round ticks", () => {
  expect(rounds(0, 10, 5)).toEqual([0, 2, 4, 6, 8, 10]);
  expect(rounds(-0.13, 0.31, 5)).toEqual([-0.1, 0, 0.1, 0.2, 0.3]);
  expect(rounds(1e15, 1e15 + 0.5, 5).length).toBeLessThan(40);
  expect(rounds(1, 1, 5)).toEqual([1]);
  expect(numeric(1e-5, 1e-1, true).ticks.map((tick) => tick.label)).toEqual(["1e-5", "0.0001", "0.001", "0.01", "0.1"]);
  expect(numeric(3, 4, true).ticks.length).toBeGreaterThan(2);
});

test("places and back", () => {
  const log = numeric(1, 100, true);
  expect([log.at(10), log.at("10"), log.at(0), log.at(-1), log.at("x")]).toEqual([0.5, 0.5, null, null, null]);
  expect(log.value(0.5)).toBeCloseTo(10);
  const named = names(["b", "a10", "a9", null, "b"]);
  expect(named.names).toEqual(["a9", "a10", "b"]);
  expect([named.at("a10"), named.at(null), named.at("c"), named.value(0.99)]).toEqual([0.5, null, null, 2]);
  expect(names(Array.from({ length: 1000 }, (_, at) => `n${at}`)).ticks.length).toBeLessThanOrEqual(24);
});

test("no axis for what has nothing on it", () => {
  expect(scaleOf(["NaN", null], true, false)).toBe(null);
  expect(scaleOf([0, -1], true, true)).toBe(null);
  expect(scaleOf([null], false, false)).toBe(null);
  expect(scaleOf([7, 7], true, false)?.at(7)).toBeCloseTo(0.5);
});
