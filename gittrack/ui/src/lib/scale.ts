// Where values lie on an axis, as a fraction of its length, and where its ticks are.

import type { Value } from "./api";
import { number } from "./format";

export interface Tick {
  at: number;
  label: string;
}

export interface Scale {
  /** 0 at the beginning, 1 at the end; null for what is not on it. */
  at(value: Value): number | null;
  /** The number at a place; the index of the nearest name. */
  value(at: number): number;
  ticks: Tick[];
  /** Of an axis of names. */
  names: string[] | null;
}

/** Where the server's JSON has an infinite number, it has the largest one, as MLflow's has. */
const LARGEST = Number.MAX_VALUE;

/** The number that a value is; null for none, and for what no axis has. */
export function finite(value: Value | undefined): number | null {
  if (value === null || value === undefined || value === "") return null;
  const found = Number(value);
  return Number.isFinite(found) && Math.abs(found) < LARGEST ? found : null;
}

/** The ends of some numbers, NaN and infinite ones left out; null if there are none. */
export function extent(values: readonly (number | null)[]): [number, number] | null {
  let low = Infinity;
  let high = -Infinity;
  for (let at = 0; at < values.length; at += 1) {
    const value = values[at] ?? Number.NaN;
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

/** What part of the numbers is at most this, and this part at least; of few numbers, all. */
export function withoutOutliers(values: number[], part = 0.02): [number, number] | null {
  const sorted = values.filter(Number.isFinite).sort((one, other) => one - other);
  const place = (fraction: number): number => sorted[Math.round(fraction * (sorted.length - 1))] ?? 0;
  if (sorted.length === 0) return null;
  const [low, high] = [place(part), place(1 - part)];
  return low < high ? [low, high] : [place(0), place(1)];
}

/** Ends with some room, and never the same. */
export function roomy([low, high]: [number, number], log: boolean, part = 0.04): [number, number] {
  if (log) {
    const factor = low === high ? 2 : (high / low) ** part;
    return [low / factor, high * factor];
  }
  const room = low === high ? Math.abs(low) / 10 || 1 : (high - low) * part;
  return [low - room, high + room];
}

/** Round numbers between two, about so many. */
export function rounds(low: number, high: number, about: number): number[] {
  const rough = (high - low) / Math.max(1, about);
  if (!(rough > 0) || !Number.isFinite(rough)) return [low];
  const power = Number(`1e${Math.floor(Math.log10(rough))}`);
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const found: number[] = [];
  for (let count = Math.ceil(low / step - 1e-9); count * step <= high + step * 1e-9; count += 1) {
    found.push(Number((count * step).toPrecision(12)));
    if (found.length > 4 * about + 10) break; // where doubles cannot tell ticks apart
  }
  return found;
}

function roundPowers(low: number, high: number, about: number): number[] {
  const found: number[] = [];
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const each = Math.max(1, Math.ceil((last - first) / about));
  const factors = last - first <= 2 ? [1, 2, 5] : [1];
  for (let power = first; power <= last; power += each) {
    found.push(...factors.map((factor) => Number(`${factor}e${power}`)).filter((value) => value >= low && value <= high));
  }
  return found.length >= 2 ? found : rounds(low, high, about);
}

/** An axis of numbers. */
export function numeric(low: number, high: number, log = false, about = 5, label: (value: number) => string = number): Scale {
  const to = log ? Math.log : (value: number): number => value;
  const from = log ? Math.exp : (value: number): number => value;
  const [start, end] = [to(low), to(high)];
  const at = (value: Value): number | null => {
    const found = finite(value);
    return found === null || (log && found <= 0) ? null : (to(found) - start) / (end - start);
  };
  const ticks = (log ? roundPowers : rounds)(low, high, about).map((value) => ({ at: at(value) ?? 0, label: label(value) }));
  return { at, value: (place) => from(start + place * (end - start)), ticks, names: null };
}

/** An axis of names, in their order; of very many, some are ticks. */
export function names(values: Value[], most = 24): Scale {
  const found = [...new Set(values.filter((value) => value !== null).map(String))].sort(new Intl.Collator("en", { numeric: true }).compare);
  const places = new Map(found.map((name, index) => [name, (index + 0.5) / found.length]));
  const each = Math.ceil(found.length / most);
  const ticks = found.flatMap((name, index) => (index % each === 0 ? [{ at: places.get(name) ?? 0, label: short(name) }] : []));
  return {
    at: (value) => (value === null ? null : (places.get(String(value)) ?? null)),
    value: (at) => Math.min(found.length - 1, Math.max(0, Math.floor(at * found.length))),
    ticks,
    names: found,
  };
}

/** The axis of a column; null if nothing of it can be on it. */
export function scaleOf(values: Value[], isNumeric: boolean, log: boolean, about = 5): Scale | null {
  if (!isNumeric) return values.some((value) => value !== null) ? names(values) : null;
  const numbers = values.map(finite).filter((value) => value !== null && (!log || value > 0));
  const ends = extent(numbers);
  return ends && numeric(...roomy(ends, log, 0.02), log, about);
}

/** A name at the length that an axis has room for. */
export function short(name: string, most = 22): string {
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}
