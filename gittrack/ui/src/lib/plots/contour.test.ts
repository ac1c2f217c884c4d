import { expect, test } from "vitest";

import { isoline, surface, type Grid } from "./contour";

function grid(across: number, up: number, of: (x: number, y: number) => number): Grid {
  const values = Float64Array.from({ length: across * up }, (_, at) => of((at % across) / (across - 1), Math.floor(at / across) / (up - 1)));
  return { across, up, values };
}

test("lines are where the surface is so high", () => {
  const slope = isoline(grid(5, 4, (x) => x), 0.6);
  const places = slope.filter((_, at) => at % 6 === 0 || at % 6 === 2);
  expect(places.length).toBe(6); // two ends of a piece in each of three lines
  for (const x of places) expect(x).toBeCloseTo(0.6, 9);
  const circle = isoline(grid(41, 41, (x, y) => Math.hypot(x - 0.5, y - 0.5)), 0.3);
  for (let at = 0; at < circle.length; at += 6) expect(Math.hypot((circle[at] ?? 0) - 0.5, (circle[at + 1] ?? 0) - 0.5)).toBeCloseTo(0.3, 2);
  expect(circle.length / 6).toBeGreaterThan(60);
  expect(isoline(grid(4, 4, () => 1), 2)).toEqual([]);
});

test("a saddle has two pieces that do not cross", () => {
  const pieces = (corner: number): number[] => isoline({ across: 2, up: 2, values: Float64Array.of(corner, 0, 0, corner) }, 0.5);
  for (const found of [pieces(1), pieces(1.5)]) expect(found.length).toBe(12);
});

test("the surface goes through its points, and not beyond them", () => {
  const found = surface([{ x: 0, y: 0, value: 1 }, { x: 1, y: 1, value: 3 }], 3, 3);
  expect(found.values[0]).toBeCloseTo(1, 4);
  expect(found.values[8]).toBeCloseTo(3, 4);
  expect(found.values[4]).toBeCloseTo(2, 9);
  expect(Math.max(...found.values)).toBeLessThanOrEqual(3);
});
