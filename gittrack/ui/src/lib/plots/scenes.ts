// Plots of runs by their parameters and metrics, as scenes.  Nothing is asked, nothing is drawn here.

import type { Value } from "../api";
import { colour, spread } from "../colour";
import { number } from "../format";
import { extent, finite, names, numeric, roomy, scaleOf, short, type Scale } from "../scale";
import type { Mark, Scene } from "../scene";
import type { Column } from "../table";
import { isoline, surface, type Point } from "./contour";

export interface Size {
  width: number;
  height: number;
}

/** Colours from low to high that can be told apart in both themes and without red and green. */
const RAMP = [
  [61, 90, 190],
  [32, 144, 178],
  [60, 170, 120],
  [178, 170, 50],
  [235, 140, 45],
];

export function ramp(at: number): string {
  const place = Math.min(0.9999, Math.max(0, at)) * (RAMP.length - 1);
  const [low, high] = [RAMP[Math.floor(place)] ?? [], RAMP[Math.floor(place) + 1] ?? []];
  const mixed = low.map((value, part) => Math.round(value + (place % 1) * ((high[part] ?? 0) - value)));
  return `rgb(${mixed.join(", ")})`;
}

/** What each row is coloured by, and what the colours mean. */
export interface Paint {
  of: (row: number) => string;
  legend: { label: string; colour: string }[];
}

export function paintOf(column: Column | undefined, runIds: string[], log: boolean): Paint {
  if (!column) return { of: (row) => colour(runIds[row] ?? ""), legend: [] };
  const scale = scaleOf(column.values, column.numeric, log);
  if (!scale) return { of: () => "gray", legend: [] };
  const own = scale.names;
  if (own) {
    const index = new Map(own.map((name, at) => [name, at]));
    return {
      of: (row) => (column.values[row] === null ? "gray" : spread(index.get(String(column.values[row])) ?? 0)),
      legend: own.slice(0, 20).map((name, at) => ({ label: short(name), colour: spread(at) })),
    };
  }
  return {
    of: (row) => {
      const at = scale.at(column.values[row] ?? null);
      return at === null ? "gray" : ramp(at);
    },
    legend: [0, 0.25, 0.5, 0.75, 1].map((at) => ({ label: number(scale.value(at)), colour: ramp(at) })),
  };
}

// --- parallel coordinates

export interface Dimension {
  column: Column;
  log: boolean;
  /** The part that is wanted: numbers, or of names where they lie. */
  brush: { low: number; high: number } | null;
}

/** Rows that lie in every brush. */
export function brushed(rows: number[], dimensions: Dimension[]): number[] {
  const limits = dimensions.flatMap(({ column, log, brush }) => {
    const scale = brush && scaleOf(column.values, column.numeric, log);
    return scale ? [{ column, scale, brush }] : [];
  });
  return rows.filter((row) =>
    limits.every(({ column, scale, brush }) => {
      const value = column.values[row] ?? null;
      const place = scale.names ? scale.at(value) : scale.at(value) === null ? null : finite(value);
      return place !== null && place >= brush.low && place <= brush.high;
    }),
  );
}

export interface Axis {
  x: number;
  scale: Scale | null;
}

/** Axes are at least `apart`: of more than fit beside each other the plot is wider than what is seen of it. */
export const PARALLEL = { top: 44, bottom: 26, side: 70, apart: 72 };
/** Pixels of a character of a title, and of a tick. */
const [TITLE, TICK] = [7, 6.2];

export function parallelWidth(axes: number, width: number): number {
  return Math.max(width, 2 * PARALLEL.side + Math.max(0, axes - 1) * PARALLEL.apart);
}

export function axesOf(dimensions: Dimension[], { width }: Size): Axis[] {
  const room = width - 2 * PARALLEL.side;
  return dimensions.map(({ column, log }, at) => ({
    x: PARALLEL.side + (dimensions.length === 1 ? room / 2 : (at * room) / (dimensions.length - 1)),
    scale: scaleOf(column.values, column.numeric, log, 6),
  }));
}

export function parallel(dimensions: Dimension[], rows: number[], paint: Paint, ink: string, size: Size): Scene {
  const axes = axesOf(dimensions, size);
  const tall = size.height - PARALLEL.top - PARALLEL.bottom;
  const y = (at: number): number => PARALLEL.top + (1 - at) * tall;
  const wanted = new Set(brushed(rows, dimensions));
  const line = (row: number): number[] =>
    dimensions.flatMap(({ column }, at) => {
      const place = axes[at]?.scale?.at(column.values[row] ?? null) ?? null;
      return place === null ? [Number.NaN, Number.NaN] : [axes[at]?.x ?? 0, y(place)];
    });
  const alpha = Math.max(0.12, Math.min(0.85, 60 / Math.max(1, wanted.size)));
  const marks: Mark[] = [];
  if (wanted.size < rows.length) {
    for (const row of rows) if (!wanted.has(row)) marks.push({ kind: "line", points: line(row), width: 1, colour: "gray", alpha: 0.12 });
  }
  for (const row of wanted) marks.push({ kind: "line", points: line(row), width: 1.5, colour: paint.of(row), alpha, row });
  const gap = (size.width - 2 * PARALLEL.side) / Math.max(1, dimensions.length - 1);
  const each = Math.floor(gap / TITLE);
  const staggered = each < 18;
  const longest = staggered ? 2 * each - 2 : each;
  const outer = Math.min(longest, Math.floor((2 * PARALLEL.side) / TITLE)); // there is no more room beside it
  dimensions.forEach(({ column, brush }, at) => {
    const { x, scale } = axes[at] ?? { x: 0, scale: null };
    const last = at > 0 && at === dimensions.length - 1;
    marks.push({ kind: "line", points: [x, PARALLEL.top, x, PARALLEL.top + tall], width: 1, colour: ink, alpha: 0.6 });
    marks.push({ kind: "text", x, y: at % 2 && staggered ? 12 : 28, text: short(column.title, at === 0 || last ? outer : longest), align: "center", bold: true, colour: ink });
    if (!scale) marks.push({ kind: "text", x, y: PARALLEL.top + tall + 14, text: "no values", align: "center", size: 11, colour: ink });
    const room = at === 0 || last ? PARALLEL.side : gap;
    for (const tick of scale?.ticks ?? []) {
      marks.push({ kind: "text", x: last ? x + 7 : x - 7, y: y(tick.at), text: short(tick.label, Math.min(14, Math.floor((room - 14) / TICK))), align: last ? "left" : "right", size: 11, colour: ink });
    }
    if (brush && scale) {
      const place = (value: number): number => (scale.names ? value : (scale.at(value) ?? 0));
      const [low, high] = [Math.max(0, place(brush.low)), Math.min(1, place(brush.high))];
      marks.push({ kind: "box", x: x - 6, y: y(high), width: 12, height: Math.max(2, y(low) - y(high)), colour: ink, alpha: 0.3 });
    }
  });
  return { ...size, marks };
}

// --- two axes

const ROOM = { left: 76, right: 16, top: 16, bottom: 46 };

interface Frame {
  marks: Mark[];
  px: (at: number) => number;
  py: (at: number) => number;
  inner: Size;
}

function frame(x: Scale, y: Scale, titles: [string, string], ink: string, size: Size): Frame {
  const inner = { width: size.width - ROOM.left - ROOM.right, height: size.height - ROOM.top - ROOM.bottom };
  const px = (at: number): number => ROOM.left + at * inner.width;
  const py = (at: number): number => ROOM.top + (1 - at) * inner.height;
  const marks: Mark[] = [];
  const wide = Math.max(4, Math.floor(inner.width / Math.max(1, x.ticks.length) / 6.5));
  for (const tick of x.ticks) {
    marks.push({ kind: "line", points: [px(tick.at), ROOM.top, px(tick.at), ROOM.top + inner.height], width: 1, colour: ink, alpha: 0.1 });
    marks.push({ kind: "text", x: px(tick.at), y: ROOM.top + inner.height + 12, text: short(tick.label, wide), align: "center", size: 11, colour: ink });
  }
  for (const tick of y.ticks) {
    marks.push({ kind: "line", points: [ROOM.left, py(tick.at), ROOM.left + inner.width, py(tick.at)], width: 1, colour: ink, alpha: 0.1 });
    marks.push({ kind: "text", x: ROOM.left - 6, y: py(tick.at), text: short(tick.label, 8), align: "right", size: 11, colour: ink });
  }
  marks.push({ kind: "text", x: ROOM.left + inner.width / 2, y: size.height - 12, text: short(titles[0], 60), align: "center", bold: true, colour: ink });
  marks.push({ kind: "text", x: 12, y: ROOM.top + inner.height / 2, text: short(titles[1], 40), align: "center", turned: true, bold: true, colour: ink });
  return { marks, px, py, inner };
}

export interface Two {
  x: Column;
  y: Column;
  logX: boolean;
  logY: boolean;
}

export function scatter({ x, y, logX, logY }: Two, rows: number[], paint: Paint, ink: string, size: Size): Scene | string {
  const [across, up] = [scaleOf(x.values, x.numeric, logX, 6), scaleOf(y.values, y.numeric, logY, 6)];
  if (!across || !up) return nothing(across ? y : x, across ? logY : logX);
  const { marks, px, py } = frame(across, up, [x.title, y.title], ink, size);
  const alpha = rows.length > 2000 ? 0.4 : 0.8;
  for (const row of rows) {
    const [left, height] = [across.at(x.values[row] ?? null), up.at(y.values[row] ?? null)];
    if (left === null || height === null) continue;
    marks.push({ kind: "dot", x: px(left), y: py(height), radius: 4, colour: paint.of(row), alpha, row });
  }
  return { ...size, marks };
}

function nothing(column: Column, log: boolean): string {
  return log && column.numeric ? `No value of ${column.title} is above zero, as a logarithmic axis needs.` : `No run here has a value of ${column.title} that can be drawn.`;
}

// --- groups: bars and boxes

export interface Group {
  name: string;
  values: number[];
  row: number | undefined;
}

/** More than these are not told apart. */
export const GROUPS = 40;

/** The finite values of a metric by group, each in ascending order; without a column each run is a group. */
export function groupsOf(metric: Column, by: Column | undefined, rows: number[], runNames: string[]): Group[] {
  const found = new Map<string | number, Group>();
  for (const row of rows) {
    const value = finite(metric.values[row]);
    if (value === null) continue;
    const name = by ? String(by.values[row] ?? "(none)") : (runNames[row] ?? "");
    const key = by ? name : row;
    const group = found.get(key) ?? { name, values: [], row: by ? undefined : row };
    group.values.push(value);
    found.set(key, group);
  }
  const order = by ? new Map(names([...found.values()].map((group) => group.name)).names?.map((name, at) => [name, at])) : null;
  const groups = [...found.values()];
  for (const group of groups) group.values.sort((one, other) => one - other);
  return groups.sort((one, other) => (order ? (order.get(one.name) ?? 0) - (order.get(other.name) ?? 0) : (other.values[0] ?? 0) - (one.values[0] ?? 0)));
}

/** The value below which a part of some ascending values lies, between two of them on a straight line (Hyndman and Fan's seventh). */
export function quantile(values: number[], part: number): number {
  const place = part * (values.length - 1);
  const [low, high] = [values[Math.floor(place)] ?? Number.NaN, values[Math.ceil(place)] ?? Number.NaN];
  return low + (place % 1) * (high - low);
}

export interface Summary {
  name: string;
  count: number;
  mean: number;
  least: number;
  lower: number;
  median: number;
  upper: number;
  greatest: number;
}

export function summary({ name, values }: Group): Summary {
  return {
    name,
    count: values.length,
    mean: values.reduce((sum, value) => sum + value, 0) / values.length,
    least: values[0] ?? Number.NaN,
    lower: quantile(values, 0.25),
    median: quantile(values, 0.5),
    upper: quantile(values, 0.75),
    greatest: values.at(-1) ?? Number.NaN,
  };
}

/** Bars of means from zero, with lines from the least to the greatest; or boxes of quartiles. */
export function bars(groups: Group[], boxes: boolean, log: boolean, titles: [string, string], runIds: string[], ink: string, size: Size): Scene | string {
  const shown = groups.slice(0, GROUPS);
  const summaries = shown.map(summary);
  const ends = extent(summaries.flatMap(({ least, greatest }) => (log ? [least, greatest].filter((value) => value > 0) : [least, greatest])));
  if (!ends) return log && summaries.length ? "No value is above zero, as a logarithmic axis needs." : "No run here has a value that can be drawn.";
  const [low, high] = roomy(ends, log);
  const up = boxes || log ? numeric(low, high, log, 6) : numeric(Math.min(0, low), Math.max(0, high), false, 6);
  const across: Scale = {
    ...names([]),
    ticks: shown.map((group, at) => ({ at: (at + 0.5) / shown.length, label: group.name })),
  };
  const { marks, px, py, inner } = frame(across, up, titles, ink, size);
  const width = Math.min(60, (inner.width / shown.length) * 0.7);
  const y = (value: number): number => py(Math.max(0, up.at(value) ?? 0));
  summaries.forEach((one, at) => {
    const group = shown[at];
    const [middle, paint] = [px((at + 0.5) / shown.length), group?.row === undefined ? spread(at) : colour(runIds[group.row] ?? "")];
    const tip = `${one.name}: mean ${number(one.mean)}, ${number(one.least)} – ${number(one.greatest)}, median ${number(one.median)}, ${one.count} ${one.count === 1 ? "run" : "runs"}`;
    const box = (from: number, to: number, alpha: number): Mark => {
      const [top, bottom] = [Math.min(y(from), y(to)), Math.max(y(from), y(to))];
      return { kind: "box", x: middle - width / 2, y: top, width, height: Math.max(2, bottom - top), colour: paint, alpha, tip, row: group?.row };
    };
    marks.push(boxes ? box(one.lower, one.upper, 0.45) : box(log ? low : 0, one.mean, 0.75));
    if (one.count > 1) marks.push({ kind: "line", points: [middle, y(one.least), middle, y(one.greatest)], width: 1.5, colour: ink });
    if (boxes) marks.push({ kind: "line", points: [middle - width / 2, y(one.median), middle + width / 2, y(one.median)], width: 2.5, colour: ink });
  });
  return { ...size, marks };
}

// --- heat map

export interface Cell {
  x: string;
  y: string;
  mean: number;
  count: number;
}

const CELLS = 12;

/** Where the values of a column fall: its names or its few numbers, or ranges of equal length on its axis. */
export function bins(column: Column, rows: number[], log: boolean): { of: (value: Value) => number | null; labels: string[] } | null {
  const values = rows.map((row) => column.values[row] ?? null);
  const distinct = new Set(values.filter((value) => value !== null && (!column.numeric || finite(value) !== null)).map((value) => (column.numeric ? Number(value) : String(value))));
  if (!column.numeric || distinct.size <= CELLS) {
    const sorted = column.numeric ? [...distinct].sort((one, other) => Number(one) - Number(other)) : (names([...distinct].map(String)).names ?? []);
    const places = new Map(sorted.slice(0, 2 * CELLS).map((value, at) => [value, at]));
    const of = (value: Value): number | null => (value === null ? null : (places.get(column.numeric ? Number(value) : String(value)) ?? null));
    return distinct.size ? { of, labels: [...places.keys()].map((value) => (typeof value === "number" ? number(value) : value)) } : null;
  }
  const scale = scaleOf(values, true, log);
  if (!scale) return null;
  const of = (value: Value): number | null => {
    const at = scale.at(value);
    return at === null ? null : Math.min(CELLS - 1, Math.max(0, Math.floor(at * CELLS)));
  };
  const labels = Array.from({ length: CELLS }, (_, at) => `${number(scale.value(at / CELLS))} – ${number(scale.value((at + 1) / CELLS))}`);
  return { of, labels };
}

/** A metric over two columns: the mean of the runs in each cell. */
export function heat({ x, y, logX, logY }: Two, metric: Column, rows: number[], ink: string, size: Size): { scene: Scene; cells: Cell[] } | string {
  const there = rows.filter((row) => finite(metric.values[row]) !== null);
  const [across, up] = [bins(x, there, logX), bins(y, there, logY)];
  if (!across || !up) return nothing(across ? y : x, across ? logY : logX);
  const sums = new Map<string, { x: number; y: number; sum: number; count: number }>();
  for (const row of there) {
    const [column, line] = [across.of(x.values[row] ?? null), up.of(y.values[row] ?? null)];
    if (column === null || line === null) continue;
    const cell = sums.get(`${column}:${line}`) ?? { x: column, y: line, sum: 0, count: 0 };
    cell.sum += finite(metric.values[row]) ?? 0;
    cell.count += 1;
    sums.set(`${column}:${line}`, cell);
  }
  const means = [...sums.values()].map((cell) => ({ ...cell, mean: cell.sum / cell.count }));
  const ends = extent(means.map((cell) => cell.mean));
  if (!ends) return `No run here has a finite ${metric.title} and both parameters.`;
  const axis = (labels: string[]): Scale => ({
    ...names([]),
    ticks: labels.map((label, at) => ({ at: (at + 0.5) / labels.length, label: label.split(" – ")[0] ?? label })),
  });
  const { marks, px, py, inner } = frame(axis(across.labels), axis(up.labels), [x.title, y.title], ink, size);
  const [width, height] = [inner.width / across.labels.length, inner.height / up.labels.length];
  const shade = numeric(...(ends[0] === ends[1] ? roomy(ends, false) : ends));
  const cells = means.map((cell): Cell => ({ x: across.labels[cell.x] ?? "", y: up.labels[cell.y] ?? "", mean: cell.mean, count: cell.count }));
  means.forEach((cell, at) => {
    const named = cells[at];
    const shaded = shade.at(cell.mean) ?? 0;
    const tip = `${x.title} ${named?.x}, ${y.title} ${named?.y}: ${number(cell.mean)}, ${cell.count} ${cell.count === 1 ? "run" : "runs"}`;
    marks.push({ kind: "box", x: px(cell.x / across.labels.length) + 1, y: py((cell.y + 1) / up.labels.length) + 1, width: width - 2, height: height - 2, colour: ramp(shaded), tip });
    if (width > 44 && height > 18) {
      marks.push({ kind: "text", x: px((cell.x + 0.5) / across.labels.length), y: py((cell.y + 0.5) / up.labels.length), text: number(cell.mean), align: "center", size: 11, bold: true, colour: shaded < 0.2 ? "white" : "black" });
    }
  });
  return { scene: { ...size, marks }, cells };
}

// --- contours

const GRID = { across: 44, up: 32 };
const HEIGHTS = 7;

/** A metric over two numbers as lines of one height, over a surface that goes through the runs. */
export function contour({ x, y, logX, logY }: Two, metric: Column, rows: number[], ink: string, size: Size): { scene: Scene; rows: number[] } | string {
  const flat = [x, y].find((one) => !one.numeric);
  if (flat) return `Contours are over two numbers, which ${flat.title} is not: a heat map shows it.`;
  const [across, up] = [scaleOf(x.values, true, logX, 6), scaleOf(y.values, true, logY, 6)];
  if (!across || !up) return nothing(across ? y : x, across ? logY : logX);
  const points = rows.flatMap((row): (Point & { row: number })[] => {
    const [left, height, value] = [across.at(x.values[row] ?? null), up.at(y.values[row] ?? null), finite(metric.values[row])];
    return left === null || height === null || value === null ? [] : [{ x: left, y: height, value, row }];
  });
  const ends = extent(points.map((one) => one.value));
  if (!ends || ends[0] === ends[1]) return `Contours need runs with values of ${metric.title} that differ, and both numbers.`;
  const { marks, px, py, inner } = frame(across, up, [x.title, y.title], ink, size);
  const shade = numeric(...ends);
  const grid = surface(points, GRID.across, GRID.up);
  const [wide, high] = [inner.width / (GRID.across - 1), inner.height / (GRID.up - 1)];
  grid.values.forEach((value, at) => {
    const [column, line] = [at % GRID.across, Math.floor(at / GRID.across)];
    // Those at the ends of an axis are cut in half.
    const [left, right] = [Math.max(0, column - 0.5) * wide, Math.min(GRID.across - 1, column + 0.5) * wide];
    const [low, top] = [Math.max(0, line - 0.5) * high, Math.min(GRID.up - 1, line + 0.5) * high];
    marks.push({ kind: "box", x: px(0) + left, y: py(0) - top, width: right - left, height: top - low, colour: ramp(shade.at(value) ?? 0), alpha: 0.4 });
  });
  for (let step = 1; step <= HEIGHTS; step += 1) {
    const height = shade.value(step / (HEIGHTS + 1));
    const line = isoline(grid, height).map((place, at) => (at % 2 ? py(place) : px(place)));
    marks.push({ kind: "line", points: line, width: 1.5, colour: ink, alpha: 0.7 });
    const named = line.findIndex((place) => place > ROOM.left + 30);
    if (named >= 0) marks.push({ kind: "text", x: line[named - (named % 2)] ?? 0, y: (line[named - (named % 2) + 1] ?? 0) - 7, text: number(Number(height.toPrecision(3))), align: "center", size: 10, colour: ink });
  }
  for (const one of points) marks.push({ kind: "dot", x: px(one.x), y: py(one.y), radius: 4, colour: ramp(shade.at(one.value) ?? 0), row: one.row });
  return { scene: { ...size, marks }, rows: points.map((one) => one.row) };
}

// --- importance

export function shares(found: { name: string; share: number; rho: number | null }[], ink: string, width: number): Scene {
  const [line, left, right] = [26, Math.min(200, width * 0.3), 110];
  const room = width - left - right;
  const marks = found.flatMap(({ name, share, rho }, at): Mark[] => {
    const y = 14 + at * line;
    const said = rho === null ? "" : `  ρ ${rho >= 0 ? "+" : "−"}${Math.abs(rho).toFixed(2)}`;
    return [
      { kind: "text", x: left - 8, y, text: short(name, Math.floor(left / 7)), align: "right", colour: ink },
      { kind: "box", x: left, y: y - 8, width: Math.max(1, share * room), height: 16, colour: rho !== null && rho < 0 ? "rgb(235, 140, 45)" : "rgb(32, 144, 178)", tip: `${name}: ${(100 * share).toFixed(1)} %${said}` },
      { kind: "text", x: left + share * room + 6, y, text: `${(100 * share).toFixed(0)} %${said}`, size: 11, colour: ink },
    ];
  });
  return { width, height: 28 + found.length * line, marks };
}
