import { expect, test } from "vitest";

import { colour, dashes, faint, luminance, spread } from "./colour";

const BACKS = ["#ffffff", "#15181d"];
const ids = Array.from({ length: 500 }, (_, at) => `${at}f3a9c${at * 7919}`);

function contrast(one: string, other: string): number {
  const [low = 0, high = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

test("a run has one colour, others have others, and all show on both themes", () => {
  expect(colour("a")).toBe(colour("a"));
  expect(new Set(ids.map(colour)).size).toBeGreaterThan(480);
  for (const one of [...ids.map(colour), ...Array.from({ length: 40 }, (_, at) => spread(at))]) {
    for (const back of BACKS) expect(contrast(one, back)).toBeGreaterThanOrEqual(3);
  }
  expect(faint("#102030", 0.5)).toBe("#10203080");
});

test("runs differ by more than hue", () => {
  const grey = (hex: string): number => Math.round(luminance(hex) * 20);
  expect(new Set(ids.slice(0, 12).map((id) => grey(colour(id)))).size).toBeGreaterThanOrEqual(3);
});

test("lines that are alike have different dashes", () => {
  const [red, green, blue] = ["#c02020", "#6f6f00", "#2060e0"];
  expect(dashes([blue, red], true)).toEqual([[], []]);
  const [first, second, third] = dashes([red, red, green], true);
  expect(first).toEqual([]);
  expect(second).not.toEqual(first);
  expect(third).not.toEqual(first); // some eyes see the same red there
  expect(dashes([red, green], false)).toEqual([[], []]);
  expect(new Set(dashes(Array<string>(6).fill(red), true).map(String)).size).toBe(6);
});
