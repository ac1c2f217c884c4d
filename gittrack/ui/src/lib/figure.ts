// What a line chart shows of its curves: which values have a place on its axes, how far these reach, and all of it as a
// picture to keep.

import type { Chart, Curve } from "./curves";
import { moment, number } from "./format";
import { extent, numeric, roomy, short, withoutOutliers, type Scale } from "./scale";
import type { Mark, Scene } from "./scene";

/** How a curve looks. */
export interface Style {
  name: string;
  colour: string;
  dash: number[];
}

export interface View {
  logX: boolean;
  logY: boolean;
  /** The axes are not made for what is far from everything else. */
  clip: boolean;
  /** Where the vertical axis begins and ends, if the reader says so. */
  range: { low: number; high: number } | null;
  /** Likewise the horizontal one. */
  zoom: { low: number; high: number } | null;
}

type Column = (number | null)[];

export interface Shown {
  axis: number[];
  curves: { curve: Curve; values: Column; raw?: Column; band?: { least: Column; greatest: Column } }[];
  x: [number, number];
  y: [number, number];
  /** What is not drawn, and why; empty if all of it is. */
  note: string;
}

/** What can be drawn; a sentence that says why nothing can. */
export function shown(found: Chart, view: View): Shown | string {
  if (found.curves.length === 0) return "No points yet.";
  if (found.axis.length === 0) return "No points in this part.";
  const first = view.logX ? found.axis.findIndex((place) => place > 0) : 0;
  if (first < 0) return "All of it is at zero or before, which has no place on a logarithmic axis.";
  const notes = new Set<string>();
  if (first > 0) notes.add("zero and before it");
  // A plain loop: there are many values, and the first chart of a page is made before its code is compiled well.
  const column = (values: Float32Array): Column => {
    const drawn = new Array<number | null>(values.length - first);
    for (let at = first; at < values.length; at += 1) {
      const value = values[at] ?? Number.NaN;
      const there = Number.isFinite(value) && (!view.logY || value > 0);
      if (!there && !Number.isNaN(value)) notes.add(Number.isFinite(value) ? "values of zero and less" : "infinite values");
      drawn[at - first] = there ? value : null;
    }
    return drawn;
  };
  const curves = found.curves.map((curve) => ({
    curve,
    values: column(curve.values),
    ...(curve.raw && { raw: column(curve.raw) }),
    ...(curve.band && { band: { least: column(curve.band.least), greatest: column(curve.band.greatest) } }),
  }));
  const all = curves.flatMap(({ values, raw, band }) => [values, raw ?? [], band?.least ?? [], band?.greatest ?? []]);
  let ends: [number, number] | null = null;
  if (view.clip) ends = withoutOutliers(all.flatMap((values) => values.filter((value) => value !== null)));
  else ends = extent(all.map(extent).flatMap((two) => two ?? []));
  if (!ends) {
    const none = notes.has("values of zero and less") ? "No value is above zero, as a logarithmic axis needs." : "No finite value: all are NaN or infinite.";
    return none;
  }
  const axis = Array.from(found.axis.subarray(first));
  const low = view.zoom?.low ?? axis[0] ?? 0;
  const high = view.zoom?.high ?? axis.at(-1) ?? 1;
  const range: [number, number] | null = view.range && (!view.logY || view.range.low > 0) ? [view.range.low, view.range.high] : null;
  return {
    axis,
    curves,
    x: low < high ? [view.logX && low <= 0 ? (axis[0] ?? 1) : low, high] : roomy([low, high], view.logX),
    y: range ?? roomy(ends, view.logY),
    note: notes.size ? `Not drawn: ${[...notes].join(", ")}.` : "",
  };
}

const [LEFT, RIGHT, TOP, BOTTOM] = [64, 14, 34, 40];
const LEGEND = 18;

/** A chart as a picture, with its name, its axes and its legend. */
export function figure(
  title: string,
  axisName: string,
  drawn: Shown,
  styles: Map<string, Style>,
  view: View,
  ink: string,
  [width, height]: [number, number] = [900, 480],
): Scene {
  const styled = drawn.curves.map((one) => ({ ...one, style: styles.get(one.curve.id) }));
  const columns = Math.max(1, Math.floor((width - LEFT) / 200));
  const legend = Math.ceil(styled.length / columns) * LEGEND;
  const inner = { width: width - LEFT - RIGHT, height: height - TOP - BOTTOM };
  const time = axisName === "time";
  const x = numeric(...drawn.x, view.logX, time ? 4 : 8, time ? moment : number);
  const y = numeric(...drawn.y, view.logY, 6);
  const px = (value: number): number => LEFT + (x.at(value) ?? Number.NaN) * inner.width;
  const py = (value: number | null): number => TOP + (1 - Math.min(1.5, Math.max(-0.5, y.at(value) ?? Number.NaN))) * inner.height;
  const marks: Mark[] = [{ kind: "text", x: LEFT, y: 16, text: short(title, 100), colour: ink, size: 14, bold: true }];
  for (const { at, label } of inside(x)) {
    const place = LEFT + at * inner.width;
    marks.push({ kind: "line", points: [place, TOP, place, TOP + inner.height], width: 1, colour: ink, alpha: 0.12 });
    marks.push({ kind: "text", x: place, y: TOP + inner.height + 12, text: label, align: "center", size: 11, colour: ink });
  }
  for (const { at, label } of inside(y)) {
    const place = TOP + (1 - at) * inner.height;
    marks.push({ kind: "line", points: [LEFT, place, LEFT + inner.width, place], width: 1, colour: ink, alpha: 0.12 });
    marks.push({ kind: "text", x: LEFT - 6, y: place, text: label, align: "right", size: 11, colour: ink });
  }
  marks.push({ kind: "text", x: LEFT + inner.width / 2, y: TOP + inner.height + 28, text: axisName, align: "center", size: 11, colour: ink });
  const line = (values: Column): number[] =>
    values.flatMap((value, at) => (value === null ? [] : clipped(px(drawn.axis[at] ?? 0), py(value))));
  for (const { band, style } of styled) {
    if (band) marks.push({ kind: "area", points: [...line(band.greatest), ...reversed(line(band.least))], colour: style?.colour ?? ink, alpha: 0.15 });
  }
  for (const { raw, style } of styled) {
    if (raw) marks.push({ kind: "line", points: line(raw), width: 1, colour: style?.colour ?? ink, alpha: 0.25 });
  }
  styled.forEach(({ values, style }, index) => {
    const colour = style?.colour ?? ink;
    const points = line(values);
    marks.push({ kind: "line", points, width: 1.5, dash: style?.dash ?? [], colour });
    if (points.length === 2) marks.push({ kind: "dot", x: points[0] ?? 0, y: points[1] ?? 0, radius: 3, colour });
    const [left, top] = [LEFT + (index % columns) * 200, height + Math.floor(index / columns) * LEGEND];
    marks.push({ kind: "line", points: [left, top, left + 22, top], width: 2, dash: style?.dash ?? [], colour });
    marks.push({ kind: "text", x: left + 28, y: top, text: short(style?.name ?? "", 26), size: 11, colour: ink });
  });
  return { width, height: height + legend, marks };

  function clipped(left: number, top: number): number[] {
    return Number.isNaN(left) || Number.isNaN(top) ? [] : [left, Math.min(TOP + inner.height, Math.max(TOP, top))];
  }
}

function inside(scale: Scale): Scale["ticks"] {
  return scale.ticks.filter(({ at }) => at >= -1e-9 && at <= 1 + 1e-9);
}

function reversed(points: number[]): number[] {
  const found: number[] = [];
  for (let at = points.length - 2; at >= 0; at -= 2) found.push(points[at] ?? 0, points[at + 1] ?? 0);
  return found;
}
