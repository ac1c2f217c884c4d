// The colour of a run: the same everywhere and always, far from that of the next.

/** A number between 0 and 1 that the text decides. */
function fraction(text: string): number {
  let hash = 2166136261;
  for (let at = 0; at < text.length; at += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 16777619);
  }
  return ((hash >>> 0) * 0.618033988749895) % 1;
}

/** A hue of its own at a lightness that shows on both themes. */
export function colour(runId: string): string {
  return `hsl(${Math.round(fraction(runId) * 360)} 65% 50%)`;
}

/** The colour of one of a few that stand beside each other. */
export function spread(index: number): string {
  return `hsl(${Math.round((index * 137.508 + 210) % 360)} 65% 50%)`;
}

/** The same colour, see-through. */
export function faint(of: string, alpha: number): string {
  return of.replace(")", ` / ${alpha})`);
}
