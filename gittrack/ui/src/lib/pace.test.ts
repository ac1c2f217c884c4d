import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { paced } from "./pace";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

test("at once, then once for all who asked meanwhile, after a pause as long as the work is worth", async () => {
  const done: number[] = [];
  const ask = paced(async () => {
    await new Promise((end) => setTimeout(end, 100));
    done.push(Date.now());
  });
  const start = Date.now();
  for (let times = 0; times < 5; times += 1) ask();
  await vi.advanceTimersByTimeAsync(100);
  expect(done).toEqual([start + 100]);
  ask();
  await vi.advanceTimersByTimeAsync(899);
  ask();
  expect(done).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(done).toEqual([start + 100, start + 1100]);
  ask();
  await vi.advanceTimersByTimeAsync(100);
  expect(done).toHaveLength(3);
});
