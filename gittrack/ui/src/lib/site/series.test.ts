import { expect, test } from "vitest";

import { along, bands, chart, type Started } from "./series";
import vectors from "./series.vectors.json";

// `tests/ui/test_vectors.py` writes them, with what the server makes of the same numbers.
const plain = (column: (number | string)[]): number[] => column.map((value) => (typeof value === "number" ? value : { nan: NaN, inf: Infinity }[value] ?? -Infinity));
/** But for the last digits: sums are exact over there. */
function same(found: ArrayLike<number>, expected: (number | string)[]): void {
  expect(Array.from(found, Number.isFinite)).toEqual(plain(expected).map(Number.isFinite));
  plain(expected).forEach((value, at) => {
    if (!Number.isFinite(value)) expect(found[at]).toBe(value);
    else expect(Math.abs((found[at] ?? NaN) - value)).toBeLessThanOrEqual(1e-12 * Math.max(1, Math.abs(value)));
  });
}

test.each(vectors.map((one, at) => [at, one] as const))("curves as the server makes them: %i", (_, one) => {
  const histories = (one.histories as [number[], number[], (number | string)[], number][]).map(
    ([steps, times, values, start]): Started => [
      { steps: Float64Array.from(steps), times: Float64Array.from(times), values: Float64Array.from(plain(values)) },
      start,
    ],
  );
  const made = chart(histories, one.window);
  same(made.axis, one.axis);
  same([made.low, made.high], [one.low, one.high]);
  expect(made.exact).toBe(one.exact);
  expect(made.curves.length).toBe(one.curves.length);
  (one.curves as [number, (number | string)[], (number | string)[]][]).forEach(([points, values, smoothed], at) => {
    expect(made.curves[at]?.points).toBe(points);
    same(made.curves[at]?.values ?? [], values);
    same(made.curves[at]?.smoothed ?? [], smoothed);
  });
  const grouped = bands(histories, one.groups, one.window);
  same(grouped.axis, one.band_axis);
  (one.bands as [number, number, ...(number | string)[][]][]).forEach(([count, points, ...columns], at) => {
    const band = grouped.bands[at];
    expect([band?.curves, band?.points]).toEqual([count, points]);
    [band?.mean, band?.least, band?.greatest].forEach((column, of) => same(column ?? [], columns[of] ?? ["nothing"]));
  });
  const [first, second] = histories;
  const by = along(first?.[0] as Started[0], second?.[0] as Started[0]);
  [by.steps, by.times, by.values].forEach((column, at) => same(column, one.along[at] ?? ["nothing"]));
});
