// Lists of names in the address: readable, and whole whatever is in a name.

/** A name in which `,` and `:` mean nothing. */
export function escaped(name: string): string {
  return name.replaceAll("~", "~0").replaceAll(",", "~1").replaceAll(":", "~2");
}

export function plain(name: string): string {
  return name.replaceAll("~2", ":").replaceAll("~1", ",").replaceAll("~0", "~");
}

export function pack(names: Iterable<string>): string {
  return [...names].map(escaped).join(",");
}

export function unpack(text: string | undefined): string[] {
  return (text ?? "").split(",").filter(Boolean).map(plain);
}

/** With the name if it was not there, else without. */
export function toggled(text: string | undefined, name: string): string {
  const names = new Set(unpack(text));
  if (!names.delete(name)) names.add(name);
  return pack(names);
}

/** Two numbers, the smaller one first. */
export function range(text: string | undefined): { low: number; high: number } | null {
  const [low, high] = (text ?? "").split(":").map((one) => (one === "" ? Number.NaN : Number(one)));
  return low !== undefined && high !== undefined && low < high ? { low, high } : null;
}

/**
 * Whether a name has what is looked for: a regular expression, or else a text; capitals do not count.  An expression
 * that may take forever (something repeated that repeats) is a text: links come from anywhere.
 */
export function matcher(wanted: string): (name: string) => boolean {
  const text = wanted.toLowerCase();
  const contains = (name: string): boolean => name.toLowerCase().includes(text);
  if (!/[\\^$.*+?()[\]{}|]/.test(wanted)) return contains;
  if (wanted.length > 200 || /\)[*+?{]/.test(wanted) || (wanted.match(/[*+{]/g) ?? []).length > 3) return contains;
  try {
    const expression = new RegExp(wanted, "i");
    return (name) => expression.test(name);
  } catch {
    return contains;
  }
}
