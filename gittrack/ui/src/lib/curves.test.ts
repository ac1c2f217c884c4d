import { afterEach, expect, test, vi } from "vitest";

import { charts, curves, pointsUrl } from "./curves";

/** A chart as the server writes it. */
function answer(head: object, axis: number[], ...columns: number[][]): Uint8Array {
  const text = JSON.stringify({ exact: true, low: 0, high: 1, smoothed: false, places: axis.length, ...head });
  const said = new TextEncoder().encode(text + " ".repeat((8 - ((text.length + 4) % 8)) % 8));
  const floats = new Uint8Array(Float32Array.from(columns.flat()).buffer);
  const parts = [new Uint8Array(Uint32Array.of(said.length).buffer), said, new Uint8Array(Float64Array.from(axis).buffer), floats];
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const found = new Uint8Array(Math.ceil(size / 8) * 8);
  let at = 0;
  for (const part of parts) {
    found.set(part, at);
    at += part.length;
  }
  return found;
}

function joined(...parts: Uint8Array[]): ArrayBuffer {
  return Uint8Array.from(parts.flatMap((part) => [...part])).buffer;
}

const ONE = answer({ curves: [{ run_id: "a", points: 3 }] }, [0, 1, 2], [1, 2, 3]);

afterEach(() => vi.unstubAllGlobals());

test("charts one after another, smoothed or by group", () => {
  const smoothed = answer({ smoothed: true, curves: [{ run_id: "a", points: 1 }] }, [5], [1], [0.5]);
  const bands = answer({ curves: [{ group: "g", runs: 2, points: 4 }] }, [5, 6], [1, 2], [0, 1], [3, 4]);
  const [one, two, three, four] = charts(joined(ONE, smoothed, bands, answer({ curves: [] }, [])));
  expect([...(one?.axis ?? [])]).toEqual([0, 1, 2]);
  expect([...(one?.curves[0]?.values ?? [])]).toEqual([1, 2, 3]);
  expect([two?.curves[0]?.raw?.[0], two?.curves[0]?.values[0]]).toEqual([1, 0.5]);
  expect(three?.curves[0]).toMatchObject({ id: "g", runs: 2, points: 4, values: Float32Array.of(1, 2) });
  expect([...(three?.curves[0]?.band?.greatest ?? [])]).toEqual([3, 4]);
  expect(four?.curves).toEqual([]);
});

test("what is asked for at once is one request, and what nobody waits for none", async () => {
  const asked: URLSearchParams[] = [];
  vi.stubGlobal("fetch", (url: string) => {
    const said = new URL(url, "http://x").searchParams;
    asked.push(said);
    return Promise.resolve(new Response(joined(...said.getAll("metric_keys").map(() => ONE))));
  });
  const common = { run_ids: ["a"], axis: "step", buckets: 100 };
  const stop = new AbortController();
  const gone = curves("gone", common, stop.signal).catch((error: Error) => error.name);
  stop.abort();
  const found = await Promise.all([...Array(9).keys()].map((at) => curves(`m${at}`, common, new AbortController().signal)));
  await curves("other", { ...common, buckets: 200 }, new AbortController().signal);
  expect(await gone).toBe("AbortError");
  expect(asked.map((said) => said.getAll("metric_keys").length)).toEqual([8, 1, 1]);
  expect(asked.flatMap((said) => said.getAll("metric_keys"))).not.toContain("gone");
  expect(found.every((chart) => chart.curves[0]?.points === 3)).toBe(true);
});

test("a request ends when nobody waits for it any more, and its failure reaches everybody", async () => {
  let ended = false;
  vi.stubGlobal("fetch", (_: string, init: RequestInit) => {
    return new Promise((_done, failed) => {
      init.signal?.addEventListener("abort", () => {
        ended = true;
        failed(new DOMException("", "AbortError"));
      });
    });
  });
  const common = { run_ids: ["a"], axis: "step", buckets: 100 };
  const stops = [new AbortController(), new AbortController()];
  const waiting = stops.map((stop, at) => curves(`m${at}`, common, stop.signal).catch((error: Error) => error.name));
  await new Promise((done) => setTimeout(done, 60));
  stops[0]?.abort();
  expect(ended).toBe(false);
  stops[1]?.abort();
  expect(ended).toBe(true);
  expect(await Promise.all(waiting)).toEqual(["AbortError", "AbortError"]);
  vi.stubGlobal("fetch", () => Promise.resolve(new Response('{"message":"no"}', { status: 400 })));
  const failed = [0, 1].map((at) => curves(`m${at}`, common, new AbortController().signal).catch((error: Error) => error.message));
  expect(await Promise.all(failed)).toEqual(["no", "no"]);
});

test("where the points are", () => {
  expect(pointsUrl("a/b&c", ["x", "y"])).toBe("/ajax-api/2.0/gittrack/metrics/points?run_ids=x&run_ids=y&metric_keys=a%2Fb%26c");
});
