// Work that is to be done again and again, as often as it does no harm.

/** Of the time, one part in so many is taken at most. */
const SHARE = 10;
/** Milliseconds between two times, at least. */
const PAUSE = 300;

/**
 * A function that has `work` done: at once, or if that was done just now, after a pause; one at a time, and once for all
 * who ask meanwhile.
 */
export function paced(work: () => Promise<void>): () => void {
  let asked = false;
  let busy = false;
  async function run(): Promise<void> {
    busy = true;
    while (asked) {
      asked = false;
      const begun = performance.now();
      await work();
      await new Promise((done) => setTimeout(done, Math.max(PAUSE, (performance.now() - begun) * (SHARE - 1))));
    }
    busy = false;
  }
  return () => {
    asked = true;
    if (!busy) void run();
  };
}
