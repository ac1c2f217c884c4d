// A unified diff, line by line.

export interface Line {
  /** Gone, come, both sides, or where a part begins. */
  kind: "-" | "+" | " " | "@" | "\\";
  old: number | null;
  now: number | null;
  text: string;
}

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
  return { head, lines };
}
