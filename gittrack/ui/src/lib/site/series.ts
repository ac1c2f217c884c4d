// Curves for a screen, as `gittrack/track/series.py` makes them on a server: the two are tested with the same numbers
// (`vectors.json`).  See there what a bucket is and why no spike is lost.

export interface History {
  steps: Float64Array;
  times: Float64Array;
  values: Float64Array;
}

export interface Window {
  axis: string;
  buckets: number;
  low?: number;
  high?: number;
  smoothing?: number;
}

export interface Drawn {
  axis: number[];
  exact: boolean;
  low: number;
  high: number;
}

export interface Line {
  points: number;
  values: number[];
  smoothed: number[];
}

export interface Band {
  curves: number;
  points: number;
  mean: number[];
  least: number[];
  greatest: number[];
}

/** The points of a curve, by place, and which of them are in the window. */
interface Points {
  places: ArrayLike<number>;
  values: ArrayLike<number>;
  smoothed: number[] | null;
  first: number;
  end: number;
}

/** Each with the time its run started at, in milliseconds. */
export type Started = readonly [History, number];

export function chart(histories: Started[], window: Window): Drawn & { curves: Line[] } {
  const { curves, low, high } = cut(histories, window);
  const grid = gridOf(curves, 2 * window.buckets);
  if (grid) return { axis: grid, curves: curves.map((points) => aligned(points, grid)), exact: true, low, high };
  const { width, bounds } = boundsOf(low, high, window.buckets);
  const axis: number[] = [];
  for (let index = 0; index <= bounds.length; index += 1) axis.push(low + width * (index + 0.25), low + width * (index + 0.75));
  return { axis, curves: curves.map((points) => bucketed(points, bounds)), exact: false, low, high };
}

export function bands(histories: Started[], groups: string[], window: Window): Drawn & { bands: Band[] } {
  const { curves, low, high } = cut(histories, window);
  const grid = gridOf(curves, 2 * window.buckets);
  const { width, bounds } = boundsOf(low, high, window.buckets);
  const axis = grid ?? Array.from({ length: bounds.length + 1 }, (_, index) => low + width * (index + 0.5));
  const members = new Map<string, Points[]>();
  groups.forEach((group, at) => {
    const points = curves[at];
    if (!points) return;
    const finite = Array.from(points.values, (value) => (Number.isFinite(value) ? value : NaN));
    members.set(group, [...(members.get(group) ?? []), { ...points, values: finite }]);
  });
  const found = [...members.values()].map((ofGroup): Band => {
    const means: number[][] = [];
    const least: number[][] = [];
    const greatest: number[][] = [];
    for (const points of ofGroup) {
      let columns: [number[], number[], number[]];
      if (grid) {
        const whole = aligned(points, grid);
        columns = [points.smoothed ? whole.smoothed : whole.values, whole.values, whole.values];
      } else {
        const line = bucketed({ ...points, smoothed: points.smoothed ?? Array.from(points.values) }, bounds);
        const pairs = axis.map((_, at) => [line.values[2 * at] ?? NaN, line.values[2 * at + 1] ?? NaN]);
        columns = [axis.map((_, at) => line.smoothed[2 * at] ?? NaN), pairs.map((pair) => Math.min(...pair)), pairs.map((pair) => Math.max(...pair))];
      }
      means.push(bridged(columns[0], axis));
      least.push(bridged(columns[1], axis));
      greatest.push(bridged(columns[2], axis));
    }
    return {
      curves: ofGroup.length,
      points: ofGroup.reduce((sum, points) => sum + points.end - points.first, 0),
      mean: across(means, (values) => values.reduce((sum, value) => sum + value, 0) / values.length),
      least: across(least, (values) => Math.min(...values)),
      greatest: across(greatest, (values) => Math.max(...values)),
    };
  });
  return { axis, bands: found, exact: grid !== null, low, high };
}

/** The points of a metric at the steps where another has one, with that one's values in place of the steps. */
export function along(history: History, other: History): History {
  const where = new Map<number, number>();
  other.steps.forEach((step, at) => {
    const value = other.values[at] ?? NaN;
    if (Number.isFinite(value)) where.set(step, value);
  });
  const rows = Array.from(history.steps.keys()).filter((at) => where.has(history.steps[at] ?? NaN));
  const column = (of: (at: number) => number | undefined): Float64Array => Float64Array.from(rows, (at) => of(at) ?? NaN);
  return {
    steps: column((at) => where.get(history.steps[at] ?? NaN)),
    times: column((at) => history.times[at]),
    values: column((at) => history.values[at]),
  };
}

function cut(histories: Started[], window: Window): { curves: Points[]; low: number; high: number } {
  const placed = histories.map(([history, start]) => placedBy(history, start, window.axis));
  let { low = NaN, high = NaN } = window;
  for (const { places } of placed) {
    const [first, last] = [places[0], places[places.length - 1]];
    if (first === undefined || last === undefined) continue;
    if (window.low === undefined && !(low <= first)) low = first;
    if (window.high === undefined && !(high >= last)) high = last;
  }
  const curves = placed.map(({ places, values }) => ({
    places,
    values,
    smoothed: window.smoothing ? smooth(values, window.smoothing) : null,
    first: bisect(places, (place) => place < low, 0, places.length),
    end: bisect(places, (place) => place <= high, 0, places.length),
  }));
  return { curves, low, high };
}

/** Where the first is of which something is not true any more. */
function bisect(places: ArrayLike<number>, before: (place: number) => boolean, from: number, to: number): number {
  let [low, high] = [from, to];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (before(places[middle] ?? NaN)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function boundsOf(low: number, high: number, buckets: number): { width: number; bounds: number[] } {
  const width = (high - low) / buckets;
  return { width, bounds: width > 0 ? Array.from({ length: buckets - 1 }, (_, index) => low + width * (index + 1)) : [] };
}

function placedBy(history: History, start: number, axis: string): { places: ArrayLike<number>; values: ArrayLike<number> } {
  const { steps, times, values } = history;
  if (axis === "relative") return { places: times.map((time) => (time - start) / 1000), values };
  if (axis === "time") return { places: times, values };
  if (ascends(steps, 0, steps.length, false)) return { places: steps, values };
  const order = [...steps.keys()].sort((one, other) => (steps[one] ?? NaN) - (steps[other] ?? NaN));
  return { places: order.map((at) => steps[at] ?? NaN), values: order.map((at) => values[at] ?? NaN) };
}

function ascends(places: ArrayLike<number>, first: number, end: number, strictly: boolean): boolean {
  for (let at = first + 1; at < end; at += 1) {
    const [before, now] = [places[at - 1] ?? NaN, places[at] ?? NaN];
    if (strictly ? !(before < now) : !(before <= now)) return false;
  }
  return true;
}

function smooth(values: ArrayLike<number>, weight: number): number[] {
  let [average, pull] = [0, 1];
  return Array.from(values, (value) => {
    if (!Number.isFinite(value)) return value;
    average = average * weight + value * (1 - weight);
    pull *= weight;
    return average / (1 - pull);
  });
}

/** Every place where a curve has a point, if they are few and no curve has two at one. */
function gridOf(curves: Points[], most: number): number[] | null {
  const found = new Set<number>();
  for (const { places, first, end } of curves) {
    if (end - first > most || !ascends(places, first, end, true)) return null;
    for (let at = first; at < end; at += 1) found.add(places[at] ?? NaN);
    if (found.size > most) return null;
  }
  return [...found].sort((one, other) => one - other);
}

function aligned(points: Points, grid: number[]): Line {
  const where = new Map<number, number>();
  for (let at = points.first; at < points.end; at += 1) where.set(points.places[at] ?? NaN, at);
  const column = (of: ArrayLike<number> | null): number[] =>
    of === null
      ? []
      : grid.map((place) => {
          const at = where.get(place);
          return at === undefined ? NaN : (of[at] ?? NaN);
        });
  return { points: points.end - points.first, values: column(points.values), smoothed: column(points.smoothed) };
}

function bucketed(points: Points, bounds: number[]): Line {
  const line: Line = { points: points.end - points.first, values: [], smoothed: [] };
  let start = points.first;
  for (const bound of [...bounds, null]) {
    const end = bound === null ? points.end : bisect(points.places, (place) => place < bound, points.first, points.end);
    line.values.push(...extremes(points.values, start, end));
    if (points.smoothed) {
      const finite = points.smoothed.slice(start, end).filter(Number.isFinite);
      const mean = finite.length ? finite.reduce((sum, value) => sum + value, 0) / finite.length : NaN;
      line.smoothed.push(mean, mean);
    }
    start = end;
  }
  return line;
}

/** The least and the greatest value, the one that came first first; NaN is no value. */
function extremes(values: ArrayLike<number>, start: number, end: number): [number, number] {
  let [least, greatest] = [-1, -1];
  for (let at = start; at < end; at += 1) {
    const value = values[at] ?? NaN;
    if (Number.isNaN(value)) continue;
    if (least < 0 || value < (values[least] ?? NaN)) least = at;
    if (greatest < 0 || value > (values[greatest] ?? NaN)) greatest = at;
  }
  if (least < 0) return [NaN, NaN];
  const both: [number, number] = [values[Math.min(least, greatest)] ?? NaN, values[Math.max(least, greatest)] ?? NaN];
  return both;
}

/** The finite values, and between two of them what a straight line has. */
function bridged(values: number[], axis: number[]): number[] {
  const filled = [...values];
  let last = -1;
  values.forEach((value, at) => {
    if (!Number.isFinite(value)) {
      filled[at] = NaN;
      return;
    }
    if (last >= 0 && at - last > 1) {
      const [start, from] = [values[last] ?? NaN, axis[last] ?? NaN];
      const rise = (value - start) / ((axis[at] ?? NaN) - from);
      for (let between = last + 1; between < at; between += 1) filled[between] = start + rise * ((axis[between] ?? NaN) - from);
    }
    last = at;
  });
  return filled;
}

/** What a function makes of the values at each place. */
function across(columns: number[][], of: (values: number[]) => number): number[] {
  return (columns[0] ?? []).map((_, at) => {
    const there = columns.map((column) => column[at] ?? NaN).filter((value) => !Number.isNaN(value));
    return there.length ? of(there) : NaN;
  });
}
