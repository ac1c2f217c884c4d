// Where we are: a page and its settings, all of it in the address, so that a link shows the same.

export type Settings = Record<string, string>;

interface Place {
  path: string;
  settings: Settings;
}

function read(): Place {
  return { path: location.pathname, settings: Object.fromEntries(new URLSearchParams(location.search)) };
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

/** Go to another page. */
export function go(path: string, settings: Settings = {}): void {
  history.pushState(null, "", address(path, settings));
  show({ path, settings });
  scrollTo(0, 0);
}

/** Change settings of this page; an empty text removes one.  Typing is not a step to go back to. */
export function set(changes: Settings, { step = true } = {}): void {
  const settings = { ...place.settings, ...changes };
  const url = address(place.path, settings);
  if (step) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  show(read());
}

/** Links of ours are followed without loading the page again. */
export function follow(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  const link = (event.target as Element | null)?.closest("a");
  if (!link || link.target || link.origin !== location.origin || link.hasAttribute("download")) return;
  if (!/^\/(?:$|runs|models|compare|experiments|settings)/.test(link.pathname)) return;
  event.preventDefault();
  go(link.pathname, Object.fromEntries(new URLSearchParams(link.search)));
}

addEventListener("popstate", () => show(read()));
