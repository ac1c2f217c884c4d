// A unified diff, line by line, and what of a line that was changed is another.

export interface Line {
  /** Gone, come, both sides, or where a part begins. */
  kind: "-" | "+" | " " | "@" | "\\";
  old: number | null;
  now: number | null;
  text: string;
  /** Of a line that was changed: its text in pieces, and whether each is only here. */
  pieces?: [text: string, changed: boolean][];
}

/** Longer lines, in words, are not compared; … */
const LONGEST = 400;
/** … and of lines that have less of their letters in common than this, nothing is marked. */
const LEAST = 0.3;

/** The lines of a file's diff from the first `@@`; what is before, and what is no text, is a heading. */
export function parse(diff: string): { head: string[]; lines: Line[] } {
  const head: string[] = [];
  const lines: Line[] = [];
  let old = 0;
  let now = 0;
  let left = 0;
  let right = 0;
  const all = diff.split("\n");
  if (all.at(-1) === "") all.pop();
  for (const text of all) {
    const start = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)$/.exec(text);
    if (left <= 0 && right <= 0 && start) {
      [old, left, now, right] = [Number(start[1]), Number(start[2] ?? 1), Number(start[3]), Number(start[4] ?? 1)];
      lines.push({ kind: "@", old: null, now: null, text: (start[5] ?? "").trim() });
    } else if (text.startsWith("\\") && lines.length) {
      lines.push({ kind: "\\", old: null, now: null, text: text.slice(2) });
    } else if (left <= 0 && right <= 0) {
      head.push(text);
    } else if (text.startsWith("-")) {
      lines.push({ kind: "-", old: old++, now: null, text: text.slice(1) });
      left -= 1;
    } else if (text.startsWith("+")) {
      lines.push({ kind: "+", old: null, now: now++, text: text.slice(1) });
      right -= 1;
    } else {
      lines.push({ kind: " ", old: old++, now: now++, text: text.slice(1) });
      left -= 1;
      right -= 1;
    }
  }
  compareWords(lines);
  return { head, lines };
}

/** Lines that are gone, and as many that came in their place, belong together. */
function compareWords(lines: Line[]): void {
  for (let at = 0; at < lines.length; ) {
    const start = at;
    while (lines[at]?.kind === "-") at += 1;
    const middle = at;
    while (lines[at]?.kind === "+") at += 1;
    const pairs = middle - start === at - middle ? middle - start : 0;
    for (let pair = 0; pair < pairs; pair += 1) {
      const [old, now] = [lines[start + pair], lines[middle + pair]];
      if (!old || !now) continue;
      const found = changed(old.text, now.text);
      if (found) [old.pieces, now.pieces] = found;
    }
    if (at === start) at += 1;
  }
}

type Pieces = [text: string, changed: boolean][];

/** What of two lines is only in one of them, by words; null if there is nothing to tell. */
export function changed(old: string, now: string): [Pieces, Pieces] | null {
  const words = (text: string): string[] => text.match(/\w+|\s+|[^\w\s]/gu) ?? [];
  const [left, right] = [words(old), words(now)];
  if (left.length > LONGEST || right.length > LONGEST) return null;
  // How many letters the rest of both have in common at most, from each place on.
  const wide = right.length + 1;
  const common = new Uint32Array((left.length + 1) * wide);
  const at = (row: number, column: number): number => common[row * wide + column] ?? 0;
  const same = (row: number, column: number): boolean => left[row] === right[column];
  const letters = (word: string | undefined): number => (word ?? "").trim().length;
  for (let row = left.length - 1; row >= 0; row -= 1) {
    for (let column = right.length - 1; column >= 0; column -= 1) {
      const taken = same(row, column) ? at(row + 1, column + 1) + letters(left[row]) : 0;
      common[row * wide + column] = Math.max(taken, at(row + 1, column), at(row, column + 1));
    }
  }
  const all = Math.max(letters(left.join("").replace(/\s/g, "")), letters(right.join("").replace(/\s/g, "")));
  if (all === 0 || at(0, 0) < LEAST * all) return null;
  const found: [Pieces, Pieces] = [[], []];
  const add = (side: 0 | 1, word: string | undefined, isNew: boolean): void => {
    const last = found[side].at(-1);
    if (last?.[1] === isNew) last[0] += word ?? "";
    else found[side].push([word ?? "", isNew]);
  };
  let [row, column] = [0, 0];
  while (row < left.length || column < right.length) {
    const both = row < left.length && column < right.length && same(row, column);
    if (both && at(row, column) === at(row + 1, column + 1) + letters(left[row])) {
      add(0, left[row++], false);
      add(1, right[column++], false);
    } else if (column === right.length || (row < left.length && at(row + 1, column) >= at(row, column + 1))) {
      add(0, left[row++], true);
    } else {
      add(1, right[column++], true);
    }
  }
  return found;
}
