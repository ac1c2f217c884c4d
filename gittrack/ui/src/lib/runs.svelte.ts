// The runs that a question finds: all of them as long as they are not too many, else those near what is looked at.

import { columns, type Columns, type Search } from "./api";
import type { News } from "./live.svelte";
import { changed, renewed } from "./renew";
import { emptied, joined } from "./table";

/** So many come at first, and at a time of those that are looked at. */
export const WINDOW = 1000;
/** So many come at a time if all come. */
const PIECE = 10_000;
/** So many are held, and sorted, here; of more the server sorts and sends what is looked at. */
export const MOST = 20_000;
/** So many windows are kept: whoever goes back a little finds them here. */
const KEPT = 8;
/** Milliseconds that a view rests before it is asked for: nobody reads what flies by. */
const REST = 60;

export class Runs {
  /** What is held of them, in the server's order; null before there is an answer. */
  columns = $state.raw<Columns | null>(null);
  trouble = $state.raw<Error | null>(null);
  loading = $state(true);
  /** Changes with every answer. */
  version = $state(0);

  #asked = "";
  question: Search = { experiment_ids: [] };
  #windows = new Map<number, Columns>();
  /** Where in `columns` each window begins. */
  #starts = $state.raw(new Map<number, number>([[0, 0]]));
  /** Every column that there ever was: none comes and goes as one scrolls. */
  #blank: Columns | null = null;
  #view = { first: 0, last: 0 };
  #stop = new AbortController();
  #timer = 0;
  /** The windows that are asked for, or will be. */
  #filling = "";
  #loaded = Promise.resolve();

  get total(): number {
    return this.columns?.total ?? 0;
  }

  /** More than are held here. */
  get many(): boolean {
    return this.total > MOST;
  }

  /** Every one of them is held here. */
  get whole(): boolean {
    return this.columns !== null && this.columns.runs.run_id.length >= this.total;
  }

  /** Where in `columns` the run at a place of the server's order is; undefined if it is not held. */
  at(place: number): number | undefined {
    const start = this.#starts.get(this.many ? Math.floor(place / WINDOW) : 0);
    const row = start === undefined ? -1 : start + (this.many ? place % WINDOW : place);
    return row >= 0 && row < (this.columns?.runs.run_id.length ?? 0) ? row : undefined;
  }

  /** Ask something else; the same again is not asked. */
  ask(question: Search): void {
    const asked = JSON.stringify(question);
    if (asked === this.#asked || question.experiment_ids.length === 0) return;
    this.#asked = asked;
    this.question = question;
    this.#windows.clear();
    this.#blank = null;
    this.#view = { first: 0, last: 0 };
    clearTimeout(this.#timer);
    this.#filling = "";
    this.loading = true;
    this.#loaded = this.#load(true);
  }

  /** Look again: what is shown stays until the answer is here. */
  refresh(): Promise<void> {
    this.#loaded = this.#load(false);
    return this.#loaded;
  }

  /** Look again at what changed, and at no more if that will do; the runs that were looked at alone. */
  async renew(news: News): Promise<string[]> {
    await this.#loaded;
    const found = this.columns;
    if (!found || !news.complete || !this.whole) {
      await this.refresh();
      return [];
    }
    const ids = changed(found, news);
    if (ids.length === 0) return [];
    const these = `attributes.run_id IN (${ids.map((id) => `'${id}'`).join(", ")})`;
    const { filter } = this.question;
    const search = { ...this.question, filter: filter ? `(${filter}) AND ${these}` : these, max_results: ids.length };
    try {
      const now = await columns(search);
      if (this.columns === found) this.columns = renewed(found, now, ids); // else it is newer already
      return ids;
    } catch (error) {
      this.trouble = error as Error;
      return [];
    }
  }

  /** These are looked at now. */
  look(first: number, last: number): void {
    this.#view = { first, last };
    if (this.loading) return; // something else is asked: it comes with what is looked at then
    const missing = this.many ? this.#missing().join() : "";
    if (missing === this.#filling) return; // nothing, or it is on its way
    clearTimeout(this.#timer);
    this.#filling = missing;
    if (!missing) return;
    this.#timer = setTimeout(() => {
      void this.#during((signal) => this.#fill(signal)).then(() => {
        if (this.#filling === missing) this.#filling = "";
      });
    }, REST);
  }

  #inView(): number[] {
    const first = Math.floor(this.#view.first / WINDOW);
    const last = Math.floor(Math.max(this.#view.first, Math.min(this.#view.last, this.total - 1)) / WINDOW);
    return Array.from({ length: last - first + 1 }, (_, at) => first + at);
  }

  #missing(): number[] {
    return this.#inView().filter((window) => !this.#windows.has(window));
  }

  /** One thing at a time is asked for: what was being asked is not wanted any more. */
  async #during(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    this.#stop.abort();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    try {
      await work(signal);
      this.trouble = null;
    } catch (error) {
      if (signal.aborted) return;
      this.trouble = error as Error;
      if ("column" in this.trouble && this.trouble.column) this.columns = null;
    }
    this.loading = false;
  }

  #load(fresh: boolean): Promise<void> {
    return this.#during(async (signal) => {
      const first = await this.#piece(0, WINDOW, signal);
      if (first.total > MOST) {
        this.#windows = new Map([[0, first]]);
        if (fresh || this.#missing().length === 0) this.#show();
        return this.#fill(signal);
      }
      const pieces = [first];
      if (fresh) this.#hold(first);
      for (let at = WINDOW; at < first.total; at += PIECE) {
        pieces.push(await this.#piece(at, Math.min(PIECE, first.total - at), signal));
      }
      if (!fresh || pieces.length > 1) this.#hold(joined(pieces));
    });
  }

  async #fill(signal: AbortSignal): Promise<void> {
    for (let [window] = this.#missing(); window !== undefined; [window] = this.#missing()) {
      this.#windows.set(window, await this.#piece(window * WINDOW, WINDOW, signal));
      this.#show();
    }
  }

  #piece(offset: number, count: number, signal: AbortSignal): Promise<Columns> {
    return columns({ ...this.question, max_results: count, offset: offset || undefined }, signal);
  }

  #hold(all: Columns): void {
    this.#starts = new Map([[0, 0]]);
    this.columns = all;
    this.version += 1;
  }

  /** Put the windows together; those that were looked at longest ago go. */
  #show(): void {
    for (const window of this.#inView()) {
      const kept = this.#windows.get(window);
      if (!kept) continue;
      this.#windows.delete(window);
      this.#windows.set(window, kept);
    }
    for (const window of [...this.#windows.keys()].slice(0, -KEPT)) this.#windows.delete(window);
    const pieces = [...this.#windows.values()];
    const latest = pieces.at(-1);
    if (!latest) return;
    this.#blank = emptied(joined([...(this.#blank ? [this.#blank] : []), ...pieces]));
    const starts = new Map<number, number>();
    let start = 0;
    for (const [window, piece] of this.#windows) {
      starts.set(window, start);
      start += piece.runs.run_id.length;
    }
    this.#starts = starts;
    this.columns = { ...joined([...pieces, this.#blank]), total: latest.total, keys: latest.keys };
    this.version += 1;
  }
}
