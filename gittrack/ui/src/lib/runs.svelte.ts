// The runs that a question finds: all of them as long as they are not too much, else those near what is looked at, until
// something takes all of them.

import { columns, SITE, type Columns, type Search } from "./api";
import type { News } from "./live.svelte";
import { changed, renewed, stay } from "./renew";
import { emptied, joined, orderBy, type Sort } from "./table";

/** So many come at first, and at a time of those that are looked at. */
export const WINDOW = 300;
/** So many come at a time if all come. */
const PIECE = 10_000;
/** Of so many runs all can be here, and sorted, for what takes all of them; of more there is only what is looked at. */
const MOST = 20_000;
/** All are here from the start if they have no more values than these, which are a megabyte at most. */
const VALUES = 100_000;
/** So many windows are kept: whoever goes back a little finds them here. */
const KEPT = 16;
/** So many rows above and below are here before they are in view: nobody who scrolls along sees them come. */
const NEAR = 100;
/** Milliseconds that a view rests before it is asked for: nobody reads what flies by. */
const REST = 60;

export class Runs {
  /** What is held of them, in the server's order; null before there is an answer. */
  columns = $state.raw<Columns | null>(null);
  trouble = $state.raw<Error | null>(null);
  loading = $state(true);
  /** Changes when what is known of a run may have. */
  version = $state(0);
  /** Only what is looked at is held, or asked for: the server sorts. */
  apart = $state(false);
  /** What `columns` answer, whatever their order. */
  subject = $state("");

  question: Search = { experiment_ids: [] };
  #sort: Sort[] = [];
  #asked = "";
  #about = "";
  /** All are wanted, as far as they are not too many. */
  #all = false;
  #windows = new Map<number, Columns>();
  /** What was read of them before is not to be shown beside what is read now. */
  #stale = false;
  /** Where in `columns` each window begins; null if they are all of them, or the first. */
  #starts = $state.raw<ReadonlyMap<number, number> | null>(null);
  /** Every column that there ever was: none comes and goes as one scrolls. */
  #blank: Columns | null = null;
  /** Where changed runs stand in the order that are not held. */
  #elsewhere = new Map<string, string>();
  #view = { first: 0, last: 0 };
  #stop = new AbortController();
  #timer = 0;
  /** The windows that are asked for, or will be. */
  #filling = "";
  #loaded = Promise.resolve();

  get total(): number {
    return this.columns?.total ?? 0;
  }

  /** There are too many for what takes all of them. */
  get many(): boolean {
    return this.total > MOST;
  }

  /** Every one of them is held here. */
  get whole(): boolean {
    return this.columns !== null && this.columns.runs.run_id.length >= this.total;
  }

  /** Where in `columns` the run at a place of the server's order is; undefined if it is not held. */
  at(place: number): number | undefined {
    const row = this.#starts ? (this.#starts.get(Math.floor(place / WINDOW)) ?? NaN) + (place % WINDOW) : place;
    return row >= 0 && row < (this.columns?.runs.run_id.length ?? 0) ? row : undefined;
  }

  /** Ask something else, and whether for `all` at once; the same again is not asked. */
  ask(subject: Search, sort: Sort[], all: boolean): void {
    const question = { ...subject, order_by: orderBy(sort) };
    const asked = JSON.stringify(question);
    if (asked === this.#asked || question.experiment_ids.length === 0) return;
    const about = JSON.stringify(subject);
    if (about !== this.#about) this.#blank = null;
    [this.#asked, this.#about, this.#sort, this.#all] = [asked, about, sort, all];
    this.question = question;
    this.#elsewhere.clear();
    this.#view = { first: 0, last: 0 };
    clearTimeout(this.#timer);
    this.#filling = "";
    this.loading = true;
    this.#loaded = this.#load(true);
  }

  /** Have all of them here if they are not too many; whether they are. */
  async all(): Promise<boolean> {
    this.#all = true;
    if (this.apart && !this.many && !this.loading) this.#loaded = this.#load(false);
    await this.#loaded;
    return this.whole;
  }

  /** Look again: what is shown stays until the answer is here. */
  refresh(): Promise<void> {
    this.#stale = this.apart;
    this.#loaded = this.apart ? this.#come() : this.#load(false);
    return this.#loaded;
  }

  /** Look again at what changed, and at no more if that will do; the runs that were looked at alone. */
  async renew(news: News): Promise<string[]> {
    await this.#loaded;
    const { columns: found, question } = this;
    if (!found || !news.complete || !(this.whole || this.apart)) {
      await this.refresh();
      return [];
    }
    const ids = changed(found, news);
    if (ids.length === 0) return [];
    const these = `attributes.run_id IN (${ids.map((id) => `'${id}'`).join(", ")})`;
    const { filter } = question;
    const search = { ...question, filter: filter ? `(${filter}) AND ${these}` : these, max_results: ids.length };
    try {
      const now = await columns(search);
      if (this.question !== question) return []; // it is newer already
      if (!this.apart) {
        if (this.columns === found) this.columns = renewed(found, now, ids); // else likewise
      } else if (this.columns && stay(this.columns, now, ids, this.#sort, this.#elsewhere)) {
        for (const [window, piece] of this.#windows) this.#windows.set(window, renewed(piece, now, ids, false));
        this.#show();
      } else await this.refresh();
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
    const missing = this.apart ? this.#missing().join() : "";
    if (missing === this.#filling) return; // nothing, or it is on its way
    clearTimeout(this.#timer);
    this.#filling = missing;
    if (!missing) return;
    this.#timer = setTimeout(() => void this.#come(), REST);
  }

  /** What is near and not here comes. */
  async #come(): Promise<void> {
    const missing = (this.#filling = this.#missing().join());
    await this.#during((signal) => this.#fill(signal));
    if (this.#filling === missing) this.#filling = "";
  }

  #near(): number[] {
    const first = Math.floor(Math.max(0, this.#view.first - NEAR) / WINDOW);
    const last = Math.floor(Math.max(0, Math.min(this.#view.last + NEAR, this.total) - 1) / WINDOW);
    return Array.from({ length: Math.max(1, last - first + 1) }, (_, at) => first + at);
  }

  #missing(): number[] {
    return this.#near().filter((window) => this.#stale || !this.#windows.has(window));
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

  /** Whether all of them are to be here, as far as the first tell. */
  #fits({ total, metrics, params, tags }: Columns): boolean {
    const across = [metrics, params, tags].reduce((sum, table) => sum + Object.keys(table).length, 0);
    return SITE || (total <= MOST && (this.#all || total * across <= VALUES));
  }

  #load(fresh: boolean): Promise<void> {
    return this.#during(async (signal) => {
      const first = await this.#piece(0, WINDOW, signal);
      this.apart = !this.#fits(first);
      if (this.apart) {
        [this.#windows, this.#stale] = [new Map([[0, first]]), false];
        this.#show();
        await this.#fill(signal);
        this.version += 1;
        this.apart = !this.#fits(first);
        if (this.apart) return;
      } else if (fresh && !this.#all) this.#hold(first);
      const pieces = [first];
      for (let at = WINDOW; at < first.total; at += PIECE) {
        pieces.push(await this.#piece(at, Math.min(PIECE, first.total - at), signal));
      }
      this.#hold(joined(pieces));
    });
  }

  async #fill(signal: AbortSignal): Promise<void> {
    const missing = this.#missing();
    if (missing.length === 0) return;
    const pieces = await Promise.all(missing.map(async (window) => [window, await this.#piece(window * WINDOW, WINDOW, signal)] as const));
    if (this.#stale) {
      this.#windows.clear();
      this.version += 1;
    }
    this.#stale = false;
    for (const [window, piece] of pieces) this.#windows.set(window, piece);
    this.#show();
  }

  #piece(offset: number, count: number, signal: AbortSignal): Promise<Columns> {
    return columns({ ...this.question, max_results: count, offset: offset || undefined }, signal);
  }

  #hold(all: Columns): void {
    this.#windows.clear();
    this.#starts = null;
    this.columns = all;
    this.subject = this.#about;
    this.version += 1;
  }

  /** Put the windows together; those that were looked at longest ago go. */
  #show(): void {
    for (const window of this.#near()) {
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
    this.subject = this.#about;
  }
}
