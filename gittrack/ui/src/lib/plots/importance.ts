// How much each parameter has to do with a metric, in two ways that answer different questions.
//
// Rank correlation (Spearman's rho): Pearson's correlation of the ranks, ties at their mean rank.  -1 to 1: whether the
// metric rises or falls with the parameter, taken alone.  Numbers only.
// Source: C. Spearman, The proof and measurement of association between two things, 1904.
//
// Importance: a forest of regression trees, each grown on a bootstrap sample, each split the one that takes most from
// the sum of squares; a parameter's importance is what its splits take, as a share of what all take (mean decrease in
// impurity, as scikit-learn's `feature_importances_`).  Names are one column for each, whose shares are added up.  It
// sees what parameters do together; it favours parameters of many values.  How far the forest explains runs that a tree
// has not seen is the R² of the predictions by the trees that were grown without them (out of bag).
// Source: L. Breiman, Random forests, Machine Learning 45, 2001.

import type { Value } from "../api";
import { finite } from "../scale";
import type { Column } from "../table";

/** Ranks from 1; what is equal shares the mean of its ranks. */
export function ranks(values: number[]): number[] {
  const order = values.map((_, at) => at).sort((one, other) => (values[one] ?? 0) - (values[other] ?? 0));
  const found = new Array<number>(values.length).fill(0);
  for (let start = 0; start < order.length; ) {
    let end = start;
    while (end < order.length && values[order[end] ?? 0] === values[order[start] ?? 0]) end += 1;
    for (let at = start; at < end; at += 1) found[order[at] ?? 0] = (start + 1 + end) / 2;
    start = end;
  }
  return found;
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let at = 0; at < values.length; at += 1) sum += values[at] ?? 0;
  return sum / values.length;
}

/** Spearman's rho; null where one of them is always the same. */
export function spearman(one: number[], other: number[]): number | null {
  const [x, y] = [ranks(one), ranks(other)];
  const [mx, my] = [mean(x), mean(y)];
  let [xy, xx, yy] = [0, 0, 0];
  for (let at = 0; at < x.length; at += 1) {
    const [dx, dy] = [(x[at] ?? 0) - mx, (y[at] ?? 0) - my];
    xy += dx * dy;
    xx += dx * dx;
    yy += dy * dy;
  }
  return xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : null;
}

/** Numbers from 0 to 1 that look like chance and are always the same (mulberry32). */
function chances(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

interface Node {
  feature: number;
  threshold: number;
  left: Node | null;
  right: Node | null;
  value: number;
}

/** Grows one tree; adds to `gains` what the splits of each feature take from the sum of squares. */
function grow(features: Float64Array[], target: Float64Array, rows: Uint32Array, gains: Float64Array, depth: number): Node {
  const count = rows.length;
  let sum = 0;
  for (const row of rows) sum += target[row] ?? 0;
  const leaf: Node = { feature: -1, threshold: 0, left: null, right: null, value: sum / count };
  if (count < 2 || depth === 0) return leaf;
  let best = 1e-12;
  for (let feature = 0; feature < features.length; feature += 1) {
    const column = features[feature] ?? new Float64Array();
    const sorted = rows.slice().sort((one, other) => (column[one] ?? 0) - (column[other] ?? 0));
    let before = 0;
    for (let at = 1; at < count; at += 1) {
      const [last, next] = [sorted[at - 1] ?? 0, sorted[at] ?? 0];
      before += target[last] ?? 0;
      const [low, high] = [column[last] ?? 0, column[next] ?? 0];
      if (low === high) continue;
      const gain = (before * before) / at + (sum - before) ** 2 / (count - at) - (sum * sum) / count;
      if (gain > best) {
        best = gain;
        leaf.feature = feature;
        leaf.threshold = (low + high) / 2;
      }
    }
  }
  const column = features[leaf.feature];
  if (!column) return leaf;
  const [left, right] = [rows.filter((row) => (column[row] ?? 0) <= leaf.threshold), rows.filter((row) => (column[row] ?? 0) > leaf.threshold)];
  if (left.length === 0 || right.length === 0) return { ...leaf, feature: -1 }; // two doubles with nothing between them
  gains[leaf.feature] = (gains[leaf.feature] ?? 0) + best;
  leaf.left = grow(features, target, left, gains, depth - 1);
  leaf.right = grow(features, target, right, gains, depth - 1);
  return leaf;
}

function predicted(tree: Node, features: Float64Array[], row: number): number {
  let node = tree;
  while (node.left && node.right) node = (features[node.feature]?.[row] ?? 0) <= node.threshold ? node.left : node.right;
  return node.value;
}

export interface Forest {
  /** The share of each feature; 0 in all if nothing explains anything. */
  shares: number[];
  /** R² on runs that a tree has not seen; null if there are too few. */
  explained: number | null;
}

/** So deep no tree of so few runs gets unless it is a chain. */
const DEEPEST = 24;

/** A forest for some features; between two trees the page may do something else. */
export async function forest(features: Float64Array[], target: Float64Array, trees = 64, pause?: () => Promise<void>): Promise<Forest> {
  const chance = chances(1);
  const count = target.length;
  const shares = new Array<number>(features.length).fill(0);
  const [votes, voters] = [new Float64Array(count), new Float64Array(count)];
  let grown = 0;
  for (let number = 0; number < trees; number += 1) {
    const rows = Uint32Array.from({ length: count }, () => Math.floor(chance() * count));
    const gains = new Float64Array(features.length);
    const tree = grow(features, target, rows, gains, DEEPEST);
    const all = gains.reduce((sum, gain) => sum + gain, 0);
    if (all > 0) {
      grown += 1;
      gains.forEach((gain, at) => (shares[at] = (shares[at] ?? 0) + gain / all));
    }
    const drawn = new Set(rows);
    for (let row = 0; row < count; row += 1) {
      if (drawn.has(row)) continue;
      votes[row] = (votes[row] ?? 0) + predicted(tree, features, row);
      voters[row] = (voters[row] ?? 0) + 1;
    }
    await pause?.();
  }
  const seen = [...target.keys()].filter((row) => (voters[row] ?? 0) > 0);
  const middle = mean(target);
  const spread = seen.reduce((sum, row) => sum + ((target[row] ?? 0) - middle) ** 2, 0);
  const missed = seen.reduce((sum, row) => sum + ((target[row] ?? 0) - (votes[row] ?? 0) / (voters[row] ?? 1)) ** 2, 0);
  return { shares: shares.map((share) => share / Math.max(1, grown)), explained: spread > 0 && seen.length > 1 ? 1 - missed / spread : null };
}

/** Names that are columns of their own; the others have none. */
const NAMES = 20;
/** So many runs and parameters are looked at; of more, some. */
const RUNS = 500;
const PARAMS = 60;
const LEAST = 5;

/** A column as numbers: names are one column each, and what is missing is far below everything. */
export function encoded(values: Value[], numeric: boolean): Float64Array[] {
  if (numeric) {
    const numbers = values.map(finite);
    const there = numbers.filter((value) => value !== null);
    const below = Math.min(0, ...there) - 1;
    return [Float64Array.from(numbers, (value) => value ?? below)];
  }
  const counts = new Map<string, number>();
  for (const value of values) counts.set(String(value), (counts.get(String(value)) ?? 0) + 1);
  const most = [...counts].sort(([, one], [, other]) => other - one).slice(0, NAMES);
  return most.map(([name]) => Float64Array.from(values, (value) => Number(String(value) === name)));
}

export interface Importance {
  column: Column;
  share: number;
  rho: number | null;
}

export interface Answer {
  params: Importance[];
  runs: number;
  explained: number | null;
  /** What was left out; empty if nothing was. */
  note: string;
}

/** The parameters by importance for a metric, greatest first; a sentence where there is nothing to say. */
export async function importance(columns: Column[], metric: Column, rows: number[], pause?: () => Promise<void>): Promise<Answer | string> {
  const usable = rows.filter((row) => finite(metric.values[row]) !== null);
  const each = Math.ceil(usable.length / RUNS);
  const chosen = usable.filter((_, at) => at % each === 0);
  if (chosen.length < LEAST) return `Importance takes at least ${LEAST} runs with a finite ${metric.title}.`;
  const target = Float64Array.from(chosen, (row) => finite(metric.values[row]) ?? 0);
  if (target.every((value) => value === target[0])) return `${metric.title} is the same in all of these runs.`;
  const vary = columns.filter((column) => {
    const values = new Set(chosen.map((row) => column.values[row] ?? null));
    // A name of its own for each run (a path, a date) explains everything and tells nothing.
    return values.size > 1 && (column.numeric || values.size <= Math.max(2, chosen.length / 2));
  });
  const params = vary.slice(0, PARAMS);
  if (params.length === 0) return "No parameter differs between these runs in a way that could matter.";
  const columnsOf = params.map((column) => encoded(chosen.map((row) => column.values[row] ?? null), column.numeric));
  const { shares, explained } = await forest(columnsOf.flat(), target, 64, pause);
  let at = 0;
  const found = params.map((column, index): Importance => {
    const width = columnsOf[index]?.length ?? 0;
    const share = shares.slice(at, at + width).reduce((sum, one) => sum + one, 0);
    at += width;
    const pairs = column.numeric ? chosen.flatMap((row) => pair(column.values[row], metric.values[row])) : [];
    return { column, share, rho: column.numeric ? spearman(pairs.map(([x]) => x), pairs.map(([, y]) => y)) : null };
  });
  const notes = [
    ...(each > 1 ? [`${chosen.length} of ${usable.length} runs were looked at`] : []),
    ...(params.length < vary.length ? [`the first ${params.length} of ${vary.length} parameters that differ`] : []),
  ];
  return { params: found.sort((one, other) => other.share - one.share), runs: chosen.length, explained, note: notes.join("; ") };
}

function pair(x: Value | undefined, y: Value | undefined): [number, number][] {
  const [one, other] = [finite(x), finite(y)];
  return one === null || other === null ? [] : [[one, other]];
}
