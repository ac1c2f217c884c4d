// Where we are: a page and its settings, all of it in the address, so that a link shows the same.
// Of an exported site only the first page is at an address of its own: the others are behind its `#`.

import { SITE } from "./api";

export type Settings = Record<string, string>;

interface Place {
  path: string;
  settings: Settings;
}

function at({ pathname, search }: { pathname: string; search: string }): Place {
  return { path: pathname, settings: Object.fromEntries(new URLSearchParams(search)) };
}

function read(): Place {
  return at(SITE ? new URL(location.hash.startsWith("#/") ? location.hash.slice(1) : "/", location.origin) : location);
}

export const place: Place = $state(read());

function show(next: Place): void {
  place.path = next.path;
  place.settings = next.settings;
}

export function address(path: string, settings: Settings): string {
  const kept = Object.entries(settings).filter(([, value]) => value !== "");
  const query = new URLSearchParams(kept).toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
  return query ? `${path}?${query}` : path;
}

/** An address of the page as a link has it. */
export function href(url: string): string {
  return SITE ? `#${url}` : url;
}

/** Go to another page. */
export function go(path: string, settings: Settings = {}): void {
  history.pushState(null, "", href(address(path, settings)));
  show({ path, settings });
  scrollTo(0, 0);
}

/** Change settings of this page; an empty text removes one.  Typing is not a step to go back to. */
export function set(changes: Settings, { step = true } = {}): void {
  const settings = { ...place.settings, ...changes };
  const url = href(address(place.path, settings));
  if (step) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  show(read());
}

/** Links of ours are followed without loading the page again. */
export function follow(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  const link = (event.target as Element | null)?.closest("a");
  if (!link || link.target || link.origin !== location.origin || link.hasAttribute("download")) return;
  if (SITE) {
    if (!link.hash.startsWith("#/") || link.pathname !== location.pathname) return;
    event.preventDefault();
    const { path, settings } = at(new URL(link.hash.slice(1), location.origin));
    go(path, settings);
    return;
  }
  if (!/^\/(?:$|runs|models|compare|experiments|settings)/.test(link.pathname)) return;
  event.preventDefault();
  go(link.pathname, Object.fromEntries(new URLSearchParams(link.search)));
}

addEventListener("popstate", () => show(read()));
