// What changed on the server, told to the pages that show it.  Of the tabs of a browser one, the leader, listens to the
// server, and tells the others; where that cannot be, each asks every now and then.  Only tabs that are looked at do.

import { API, SITE } from "./api";
import { paced } from "./pace";

/** What a page has to look at again. */
export interface News {
  /** False: all of it. */
  complete: boolean;
  runs: Set<string>;
  experiments: Set<string>;
  /** Nothing is known of the time before: what goes on may have gone on. */
  first: boolean;
}

interface Told {
  mark: string;
  complete: boolean;
  run_ids: string[];
  experiment_ids: string[];
}

/** How the server is: nothing to say; away since then; or it does not know us any more. */
export type Health = { state: "well" } | { state: "away"; since: number } | { state: "out" };
/** Between tabs: what the leader was told, or how the server is. */
type Message = { told: Told } | { health: Health };

const PATH = `${API}/gittrack/changes`;
const NAME = "gittrack changes";
/** Milliseconds between questions where there are no streams; … */
const POLL = 2000;
/** … until an attempt after so many that failed; … */
const RETRY = [1000, 2000, 4000, 8000, 15_000];
/** … for a stream to begin, and of its silence, which the server breaks every 15 s; … */
const BEGIN = 5000;
const SILENCE = 40_000;
/** … and for which no stream is tried after one that did not begin. */
const WITHOUT = 60_000;

export const live: { health: Health } = $state({ health: { state: "well" } });

type Listener = (news: News) => void;
const listeners = new Set<Listener>();
let mark: string | undefined;
let running: AbortController | undefined;
let channel: BroadcastChannel | undefined;

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}

function told(found: Told): void {
  const first = mark === undefined;
  mark = found.mark;
  if (live.health.state !== "well") live.health = { state: "well" };
  if (!first && found.complete && !found.run_ids.length && !found.experiment_ids.length) return;
  for (const listener of listeners) {
    listener({ complete: found.complete, runs: new Set(found.run_ids), experiments: new Set(found.experiment_ids), first });
  }
}

function unwell(health: Health): void {
  if (live.health.state !== health.state) live.health = health;
}

function receive(message: Message): void {
  if ("told" in message) told(message.told);
  else unwell(message.health);
}

/** Know it here, and tell the other tabs. */
function announce(message: Message): void {
  receive(message);
  channel?.postMessage(message);
}

/** Ask once; whether the server answered. */
async function ask(signal: AbortSignal, say: (message: Message) => void): Promise<boolean> {
  try {
    const answer = await fetch(mark ? `${PATH}?since=${mark}` : PATH, { signal });
    if (answer.status === 401) {
      say({ health: { state: "out" } });
      return false;
    }
    if (!answer.ok) throw new Error();
    say({ told: (await answer.json()) as Told });
    return true;
  } catch {
    if (!signal.aborted) say({ health: { state: "away", since: Date.now() } });
    return false;
  }
}

/** Listen until the stream ends; whether that was worth it. */
function stream(signal: AbortSignal): Promise<boolean> {
  return new Promise((done) => {
    const source = new EventSource(mark ? `${PATH}?since=${mark}` : PATH);
    const opened = performance.now();
    let begun = false;
    const end = (): void => {
      clearTimeout(timer);
      source.close();
      done(begun && performance.now() - opened > BEGIN);
    };
    let timer = setTimeout(end, BEGIN);
    source.onmessage = (event) => {
      begun = true;
      clearTimeout(timer);
      timer = setTimeout(end, SILENCE);
      announce({ told: JSON.parse(event.data as string) as Told });
    };
    source.onerror = end;
    signal.addEventListener("abort", end, { once: true });
  });
}

/** Stay informed until told to stop: by a stream where there may be one, else by asking. */
async function follow(signal: AbortSignal, streams: boolean, say: (message: Message) => void): Promise<void> {
  let without = streams ? 0 : Infinity;
  while (!signal.aborted) {
    if (Date.now() < without) await sleep(POLL, signal);
    else if (!(await stream(signal))) without = Date.now() + WITHOUT;
    // Why it ended, and what happened meanwhile.
    for (let failures = 0; !signal.aborted && !(await ask(signal, say)); failures += 1) {
      await sleep(RETRY[Math.min(failures, RETRY.length - 1)] ?? POLL, signal);
    }
  }
}

async function start(signal: AbortSignal): Promise<void> {
  if (!("locks" in navigator)) {
    // In plain HTTP from another machine.
    await ask(signal, receive);
    return follow(signal, false, receive);
  }
  const tabs = new BroadcastChannel(NAME);
  tabs.onmessage = (event) => receive(event.data as Message);
  channel = tabs;
  signal.addEventListener("abort", () => tabs.close(), { once: true });
  await ask(signal, receive); // what the leader told before is not told again
  await navigator.locks.request(NAME, { signal }, () => follow(signal, true, announce)).catch(() => undefined);
}

function update(): void {
  const wanted = !SITE && listeners.size > 0 && document.visibilityState === "visible";
  if (wanted && !running) {
    running = new AbortController();
    void start(running.signal);
  } else if (!wanted && running) {
    running.abort();
    running = undefined;
  }
}
document.addEventListener("visibilitychange", update);

/**
 * Be told what changed, one piece of news after the other; what comes while the last is being looked at comes together.
 * Returns how to end it.
 */
export function listen(look: (news: News) => Promise<void>): () => void {
  let waiting: News | undefined;
  const work = paced(async () => {
    const news = waiting;
    waiting = undefined;
    if (news) await look(news);
  });
  const listener: Listener = (news) => {
    waiting = waiting
      ? {
          complete: waiting.complete && news.complete,
          runs: new Set([...waiting.runs, ...news.runs]),
          experiments: new Set([...waiting.experiments, ...news.experiments]),
          first: waiting.first || news.first,
        }
      : news;
    work();
  };
  listeners.add(listener);
  update();
  return () => {
    waiting = undefined;
    listeners.delete(listener);
    update();
  };
}
