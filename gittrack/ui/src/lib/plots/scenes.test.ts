import { expect, test } from "vitest";

import type { Value } from "../api";
import { svg, type Scene } from "../scene";
import type { Column } from "../table";
import { bars, bins, brushed, contour, groupsOf, heat, paintOf, parallel, PARALLEL, parallelWidth, quantile, ramp, scatter, shares, summary, type Dimension } from "./scenes";

const SIZE = { width: 800, height: 400 };
function column(title: string, values: Value[], numeric = true): Column {
  return { id: `params.${title}`, kind: "params", title, values, numeric };
}
const lr = column("lr", ["0.1", "0.01", "0.001", null, "0"]);
const model = column("model", ["cnn", "vit", "cnn", "mlp", null], false);
const loss = column("loss", [1, 2, "NaN", 4, 5]);
const rows = [0, 1, 2, 3, 4];
const ids = rows.map((row) => `r${row}`);
const paint = paintOf(undefined, ids, false);
const dimension = (of: Column, brush: Dimension["brush"] = null, log = false): Dimension => ({ column: of, log, brush });

function drawn(scene: Scene | string): Scene {
  if (typeof scene === "string") throw new Error(scene);
  return scene;
}

test("brushes narrow the runs, by number and by name", () => {
  expect(brushed(rows, [dimension(lr)])).toEqual(rows);
  expect(brushed(rows, [dimension(lr, { low: 0.001, high: 0.05 })])).toEqual([1, 2]);
  expect(brushed(rows, [dimension(lr, { low: -1, high: 1 }, true)])).toEqual([0, 1, 2]); // 0 has no place on it
  expect(brushed(rows, [dimension(model, { low: 0, high: 0.34 })])).toEqual([0, 2]);
  expect(brushed(rows, [dimension(model, { low: 0, high: 0.34 }), dimension(lr, { low: 0.05, high: 1 })])).toEqual([0]);
  expect(brushed(rows, [dimension(column("nothing", [null]), { low: 0, high: 1 })])).toEqual(rows);
});

test("parallel coordinates: a line for each run, broken where it has no value", () => {
  const scene = parallel([dimension(lr), dimension(model), dimension(loss, { low: 0, high: 2.5 })], rows, paint, "black", SIZE);
  const lines = scene.marks.filter((mark) => mark.kind === "line" && mark.row !== undefined);
  expect(lines.map((mark) => mark.row)).toEqual([0, 1]); // the others are behind, faint
  expect(scene.marks.filter((mark) => mark.colour === "gray").length).toBe(3);
  expect(svg(scene, "white")).not.toContain("NaN");
  expect(parallel([dimension(column("x", [null]))], rows, paint, "black", SIZE).marks.some((mark) => mark.kind === "text" && mark.text === "no values")).toBe(true);
});

test("axes are apart, and nothing of what is written beside them is cut off, however narrow the screen is", () => {
  const long = Array.from({ length: 7 }, (_, at) => dimension(column(`a.long.name.of.layer.${at}`, rows.map((row) => `a long value ${row}`), false)));
  for (const [seen, count] of [[330, 7], [330, 2], [1200, 7]] as const) {
    const width = parallelWidth(count, seen);
    const { marks } = parallel(long.slice(0, count), rows, paint, "black", { width, height: 300 });
    const axes = marks.flatMap((mark) => (mark.kind === "line" && mark.row === undefined && mark.points.length === 4 && mark.points[0] === mark.points[2] ? [mark.points[0] ?? 0] : []));
    expect(axes.length).toBe(count);
    axes.slice(1).forEach((x, at) => expect(x - (axes[at] ?? 0)).toBeGreaterThanOrEqual(PARALLEL.apart - 1e-9));
    for (const mark of marks) {
      if (mark.kind !== "text") continue;
      const wide = mark.text.length * (mark.bold ? 7 : 6.2);
      const left = mark.x - { left: 0, center: wide / 2, right: wide }[mark.align ?? "left"];
      expect(left).toBeGreaterThanOrEqual(0);
      expect(left + wide).toBeLessThanOrEqual(width);
    }
  }
});

test("ten thousand runs", () => {
  const many = Array.from({ length: 10_000 }, (_, at) => at);
  const scene = parallel(Array.from({ length: 8 }, (_, at) => dimension(column(`p${at}`, many.map((row) => (row * (at + 1)) % 97)))), many, paint, "black", SIZE);
  expect(scene.marks.length).toBeGreaterThan(10_000);
});

test("scatter", () => {
  const scene = drawn(scatter({ x: lr, y: loss, logX: false, logY: false }, rows, paint, "black", SIZE));
  expect(scene.marks.flatMap((mark) => (mark.kind === "dot" ? [mark.row] : []))).toEqual([0, 1, 4]);
  expect(scatter({ x: lr, y: column("m", ["NaN"]), logX: false, logY: false }, rows, paint, "black", SIZE)).toMatch(/No run here has a value of m/);
  expect(scatter({ x: column("n", [-1, 0]), y: loss, logX: true, logY: false }, rows, paint, "black", SIZE)).toMatch(/above zero/);
});

test("quartiles are numpy's", () => {
  expect([0.1, 0.25, 0.5, 0.9].map((part) => quantile([1, 2, 4, 8, 16], part))).toEqual([1.4, 2, 4, expect.closeTo(12.8)]);
  expect(summary({ name: "x", values: [2, 4], row: undefined })).toMatchObject({ mean: 3, least: 2, median: 3, greatest: 4, count: 2 });
});

test("bars and boxes by group, or of each run", () => {
  const groups = groupsOf(loss, model, rows, ids);
  expect(groups.map((group) => [group.name, group.values])).toEqual([["(none)", [5]], ["cnn", [1]], ["mlp", [4]], ["vit", [2]]]);
  expect(groupsOf(loss, undefined, rows, ids).map((group) => group.row)).toEqual([4, 3, 1, 0]);
  for (const boxes of [true, false]) {
    const scene = drawn(bars(groups, boxes, false, ["model", "loss"], ids, "black", SIZE));
    expect(scene.marks.filter((mark) => mark.kind === "box" && mark.tip).length).toBe(4);
  }
  expect(bars([], true, false, ["", ""], ids, "black", SIZE)).toMatch(/No run here/);
  expect(bars(groupsOf(column("n", [-1]), undefined, [0], ids), false, true, ["", ""], ids, "black", SIZE)).toMatch(/above zero/);
  const below = drawn(bars(groupsOf(column("n", [-1, -5]), undefined, [0, 1], ids), false, false, ["", ""], ids, "black", SIZE));
  expect(svg(below, "white")).not.toContain("NaN");
});

test("a heat map has the mean of each cell", () => {
  const found = heat({ x: lr, y: model, logX: false, logY: false }, loss, rows, "black", SIZE);
  if (typeof found === "string") throw new Error(found);
  expect(found.cells).toEqual([
    { x: "0.1", y: "cnn", mean: 1, count: 1 },
    { x: "0.01", y: "vit", mean: 2, count: 1 },
  ]);
  expect(heat({ x: lr, y: column("z", [null]), logX: false, logY: false }, loss, rows, "black", SIZE)).toMatch(/No run here/);
  const many = Array.from({ length: 100 }, (_, at) => at);
  const ranges = bins(column("x", many), many, false);
  expect(ranges?.labels.length).toBe(12);
  expect([ranges?.of(0), ranges?.of(99), ranges?.of(null), ranges?.of("NaN")]).toEqual([0, 11, null, null]);
});

test("colours", () => {
  expect([ramp(-1), ramp(0), ramp(1)]).toEqual(["rgb(61, 90, 190)", "rgb(61, 90, 190)", "rgb(235, 140, 45)"]);
  expect(paintOf(model, ids, false).legend.map((one) => one.label)).toEqual(["cnn", "mlp", "vit"]);
  expect(paintOf(model, ids, false).of(4)).toBe("gray");
  expect(paintOf(loss, ids, false).of(2)).toBe("gray");
  expect(paintOf(column("x", [null]), ids, false).of(0)).toBe("gray");
});

test("shares of importance", () => {
  const scene = shares([{ name: "<b>", share: 0.5, rho: -0.25 }, { name: "c", share: 0, rho: null }], "black", 600);
  expect(svg(scene, "white")).toContain("50 %  ρ −0.25");
  expect(svg(scene, "white")).toContain("&lt;b&gt;");
});

test("contours have lines, their heights, and the runs", () => {
  const [x, y] = [column("x", ["0", "1", "0", "1", null]), column("y", ["0", "0", "1", "1", "1"])];
  const height = column("height", [0, 1, 1, 2, 3]);
  const it = contour({ x, y, logX: false, logY: false }, height, rows, "black", SIZE);
  if (typeof it === "string") throw new Error(it);
  expect(it.rows).toEqual([0, 1, 2, 3]);
  const lines = it.scene.marks.filter((mark) => mark.kind === "line" && mark.points.some(Number.isNaN));
  expect(lines.length).toBe(7);
  expect(it.scene.marks.filter((mark) => mark.kind === "dot").length).toBe(4);
  const text = svg(it.scene, "white");
  expect(text).toContain(">1.25<");
  expect(text).not.toContain("NaN");
  expect(contour({ x: model, y, logX: false, logY: false }, height, rows, "black", SIZE)).toContain("which model is not");
  expect(contour({ x, y, logX: false, logY: false }, column("same", [1, 1, 1, 1, 1]), rows, "black", SIZE)).toContain("that differ");
});
