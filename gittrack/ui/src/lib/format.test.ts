import { expect, test } from "vitest";

import { ago, bytes, duration, number, spread } from "./format";

test("numbers", () => {
  const shown = [0, 0.1 + 0.2, 123456, 1e-7, 12345678.9, 1e12, -0.5, Infinity, "NaN", null].map(number);
  expect(shown).toEqual(["0", "0.3", "123456", "1e-7", "1.235e+7", "1e+12", "-0.5", "Infinity", "NaN", ""]);
});

test("numbers that differ", () => {
  expect([spread(0.58046, 0.21234), spread(123456, 5), spread(0.5, null)]).toEqual(["0.58 ± 0.212", "123000 ± 5", "0.5"]);
});

test("durations", () => {
  expect([5, 1500, 61_000, 3_660_000, 200_000_000, -4].map(duration)).toEqual([
    "5 ms", "1.5 s", "1 min 1 s", "1 h 1 min", "2 d 7 h", "0 ms",
  ]);
});

test("how long ago", () => {
  const now = 1_700_000_000_000;
  expect([1, 30, 120, 7200, 200_000, 40 * 86_400].map((seconds) => ago(now - seconds * 1000, now))).toEqual([
    "just now", "30 s ago", "2 min ago", "2 h ago", "2 d ago", "2023-10-05",
  ]);
});

test("sizes", () => {
  expect([0, 1023, 1024, 1 << 20, 5 * 2 ** 30].map(bytes)).toEqual(["0 B", "1023 B", "1.00 KiB", "1.00 MiB", "5.00 GiB"]);
});
