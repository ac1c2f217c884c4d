// The first rows of a Parquet file, read away from the page: whatever such a file makes its reader do, the page goes on,
// and ends it.  This module is loaded by the page and, once more, as the worker, so it may import nothing of the page; the
// worker fetches nothing itself, but is given the bytes that it asks for, and little time.

import { read, type Sheet } from "./read";

/** What a question is answered under, and which bytes it wants; at last what became of it. */
type Said = { number: number; asks: [number, number] } | { sheet: Sheet } | { trouble: string };
/** First the size of the file, then what was asked for. */
type Told = { size: number } | { number: number; bytes: ArrayBuffer };

/** Milliseconds that a worker may think about what it was given. */
const PATIENCE = 4000;

interface Policies {
  createPolicy(name: string, rules: { createScriptURL: () => string }): { createScriptURL(text: string): string };
}
const address = import.meta.url;
/** Our Content-Security-Policy lets no plain text name a script: this names one, which is a part of the page. */
const policy = (globalThis as { trustedTypes?: Policies }).trustedTypes?.createPolicy("gittrack-worker", { createScriptURL: () => address });

/** Its promise fails with words for people; `stop` ends it, and then it says nothing more. */
export function open(bytesOf: (start: number, end: number) => Promise<ArrayBuffer>, size: number): { sheet: Promise<Sheet>; stop: () => void } {
  const worker = new Worker(policy?.createScriptURL("") ?? address, { type: "module" });
  const stop = (): void => worker.terminate();
  const sheet = new Promise<Sheet>((resolve, reject) => {
    let timer = 0;
    let coming = 0;
    const fail = (message: string): void => {
      clearTimeout(timer);
      stop();
      reject(new Error(message));
    };
    const tell = (told: Told, transfer: Transferable[] = []): void => {
      if (coming === 0) timer = window.setTimeout(() => fail("This file takes too long to be read here."), PATIENCE);
      worker.postMessage(told, transfer);
    };
    worker.onerror = (event): void => {
      event.preventDefault();
      fail("This file cannot be read here.");
    };
    worker.onmessage = async ({ data }: MessageEvent<Said>): Promise<void> => {
      clearTimeout(timer);
      if ("sheet" in data) {
        stop();
        resolve(data.sheet);
      } else if ("trouble" in data) fail(data.trouble);
      else {
        coming += 1;
        try {
          const bytes = await bytesOf(...data.asks);
          coming -= 1;
          tell({ number: data.number, bytes }, [bytes]);
        } catch (error) {
          fail((error as Error).message);
        }
      }
    };
    tell({ size });
  });
  return { sheet, stop };
}

function work(): void {
  const waiting: ((bytes: ArrayBuffer) => void)[] = [];
  const say = (said: Said): void => self.postMessage(said);
  self.onmessage = ({ data }: MessageEvent<Told>): void => {
    if ("bytes" in data) {
      waiting[data.number]?.(data.bytes);
      return;
    }
    const slice = (start: number, end = data.size): Promise<ArrayBuffer> =>
      new Promise((resolve) => say({ number: waiting.push(resolve) - 1, asks: [start, end] }));
    read({ byteLength: data.size, slice }).then(
      (sheet) => say({ sheet }),
      (error: Error) => say({ trouble: error.message }),
    );
  };
}

if (!("document" in globalThis)) work();
