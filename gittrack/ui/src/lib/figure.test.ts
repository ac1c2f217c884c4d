import { expect, test } from "vitest";

import type { Chart } from "./curves";
import { figure, shown, type Shown, type View } from "./figure";
import { svg } from "./scene";

const PLAIN: View = { logX: false, logY: false, clip: false, range: null, zoom: null };

function chart(axis: number[], ...curves: number[][]): Chart {
  return {
    exact: true,
    low: axis[0] ?? null,
    high: axis.at(-1) ?? null,
    axis: Float64Array.from(axis),
    curves: curves.map((values, at) => ({ id: `r${at}`, points: values.length, runs: 1, values: Float32Array.from(values) })),
  };
}

function drawn(found: Chart, view: Partial<View> = {}): Shown {
  const it = shown(found, { ...PLAIN, ...view });
  if (typeof it === "string") throw new Error(it);
  return it;
}

test("what cannot be drawn is said calmly", () => {
  expect(shown(chart([]), PLAIN)).toBe("No points yet.");
  expect(shown(chart([], []), PLAIN)).toBe("No points in this part.");
  expect(shown(chart([0, 1], [NaN, Infinity]), PLAIN)).toMatch(/No finite value/);
  expect(shown(chart([0, 1], [-1, 0]), { ...PLAIN, logY: true })).toMatch(/No value is above zero/);
  expect(shown(chart([-1, 0], [1, 2]), { ...PLAIN, logX: true })).toMatch(/no place on a logarithmic axis/);
});

test("logarithmic axes leave out what has no place on them, and say so", () => {
  const it = drawn(chart([0, 1, 2, 3], [5, -1, 10, Infinity]), { logX: true, logY: true });
  expect(it.axis).toEqual([1, 2, 3]);
  expect(it.curves[0]?.values).toEqual([null, 10, null]);
  expect(it.note).toContain("values of zero and less");
  expect(it.note).toContain("infinite values");
  expect(it.note).toContain("zero and before it");
  expect(it.x).toEqual([1, 3]);
});

test("axes are never of no length", () => {
  for (const it of [drawn(chart([7], [3])), drawn(chart([7], [0])), drawn(chart([7], [3]), { logX: true, logY: true })]) {
    expect(it.x[0]).toBeLessThan(it.x[1]);
    expect(it.y[0]).toBeLessThan(it.y[1]);
  }
});

test("an outlier is within the axes unless it is clipped, and the reader has the last word", () => {
  const values = Array.from({ length: 200 }, (_, at) => at % 10);
  values[77] = 1e6;
  const found = chart(values.map((_, at) => at), values);
  expect(drawn(found).y[1]).toBeGreaterThan(1e6);
  expect(drawn(found, { clip: true }).y[1]).toBeLessThan(11);
  expect(drawn(found, { range: { low: -1, high: 5 } }).y).toEqual([-1, 5]);
  expect(drawn(found, { range: { low: -1, high: 5 }, logY: true }).y[0]).toBeGreaterThan(0);
  expect(drawn(found, { zoom: { low: 10, high: 20 } }).x).toEqual([10, 20]);
});

test("a picture has every curve, its legend and its band", () => {
  const found = chart([0, 1, 2], [1, 2, 3], [3, NaN, 1]);
  const [first] = found.curves;
  if (first) first.band = { least: Float32Array.of(0, 1, 2), greatest: Float32Array.of(2, 3, 4) };
  const styles = new Map([
    ["r0", { name: "one", colour: "#c04030", dash: [] }],
    ["r1", { name: "<two>", colour: "#308020", dash: [7, 3] }],
  ]);
  const text = svg(figure("train/loss", "step", drawn(found), styles, PLAIN, "black"), "white");
  expect(text).toContain(">train/loss<");
  expect(text).toContain(">&lt;two&gt;<");
  expect(text).toContain("stroke-dasharray");
  expect(text).toMatch(/<path d="M[^"]*Z"/);
  expect(text).not.toContain("NaN");
});
