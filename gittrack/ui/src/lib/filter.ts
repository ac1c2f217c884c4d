// What can be typed next in a filter: a key, an operator, a value, or what joins conditions.  The server reads filters;
// this only knows enough of them to propose, and proposes nothing where it does not.

import type { Columns, Value } from "./api";
import { served } from "./table";

export interface Proposal {
  text: string;
  /** What it is, in a word. */
  about: string;
}

export interface Proposals {
  /** The part of the filter that a proposal replaces. */
  from: number;
  to: number;
  list: Proposal[];
}

export interface Vocabulary {
  keys: Proposal[];
  /** Texts that runs have under a key. */
  values: (key: string) => string[];
}

const MOST = 50;
const TOKEN = /\s+|'[^']*'?|"[^"]*"?|(?:[\w./:@-]|`[^`]*`?)+|[<>=!]+|./gu;
const NUMBERS = ["=", "!=", ">", ">=", "<", "<="];
const TEXTS = ["=", "!=", "LIKE", "ILIKE", "IN", "NOT IN"];
const NULLS = ["IS NULL", "IS NOT NULL"];
const ATTRIBUTES = new Map([
  ["run_name", TEXTS],
  ["status", TEXTS],
  ["user_id", TEXTS],
  ["start_time", NUMBERS],
  ["end_time", [...NUMBERS, ...NULLS]],
  ["commit", [...TEXTS, ...NULLS]],
  ["branch", [...TEXTS, ...NULLS]],
  ["dirty", [...TEXTS, ...NULLS]],
  ["run_id", TEXTS],
]);
const STATUSES = ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"];
const JOINTS = ["AND", "OR"];

/** What the runs that are here offer. */
export function vocabulary(found: Columns | null): Vocabulary {
  const keys: Proposal[] = [];
  for (const kind of ["metrics", "params", "tags"] as const) {
    for (const key of found?.keys[kind] ?? []) {
      const text = /^[\w./:@-]+$/.test(key) ? `${kind}.${key}` : served(`${kind}.${key}`);
      if (text) keys.push({ text, about: kind });
    }
  }
  keys.push(...[...ATTRIBUTES.keys()].map((text) => ({ text, about: "attribute" })));
  const { runs } = found ?? {};
  const columns = new Map<string, Value[] | undefined>([
    ["run_name", runs?.run_name],
    ["user_id", runs?.user_id],
    ["commit", runs?.code_commit],
    ["branch", runs?.code_branch],
    ["dirty", ["true", "false"]],
    ["status", STATUSES],
  ]);
  for (const kind of ["params", "tags"] as const) {
    for (const [name, values] of Object.entries(found?.[kind] ?? {})) columns.set(`${kind}.${name}`, values);
  }
  return {
    keys,
    values(key) {
      const column = columns.get(key.replace(/^(params|tags)\.([`"])(.*)\2$/s, "$1.$3"));
      return [...new Set(column?.filter((value): value is string => typeof value === "string"))];
    },
  };
}

/** A text in the quotes of the language; null if it has both kinds in it. */
function quoted(text: string): string | null {
  const mark = ["'", '"'].find((one) => !text.includes(one));
  return mark === undefined ? null : `${mark}${text}${mark}`;
}

function operators(key: string): string[] {
  if (key.startsWith("metrics.")) return [...NUMBERS, ...NULLS];
  if (/^(params|tags)\./.test(key)) return [...NUMBERS, ...TEXTS.slice(2), ...NULLS];
  return ATTRIBUTES.get(key) ?? [];
}

/** What fits what was typed of it: first what begins like it. */
function fitting(typed: string, list: Proposal[]): Proposal[] {
  const wanted = typed.toLowerCase();
  const rank = ({ text }: Proposal): number => {
    const lower = text.toLowerCase();
    const at = lower.indexOf(wanted);
    return at < 0 ? 9 : at === 0 ? 0 : lower[at - 1] === "." ? 1 : 2;
  };
  const ranked = list.map((one, at) => ({ one, at, rank: rank(one) })).filter((each) => each.rank < 9);
  ranked.sort((a, b) => a.rank - b.rank || a.at - b.at);
  return ranked.slice(0, MOST).map((each) => each.one);
}

/** What can stand where somebody types. */
export function proposals(filter: string, caret: number, { keys, values }: Vocabulary): Proposals {
  let expected: "key" | "operator" | "value" | "joint" | "nothing" = "key";
  let key = "";
  let listing = false;
  let from = caret;
  let typed = "";
  let operator = "";
  for (const match of filter.slice(0, caret).matchAll(TOKEN)) {
    const token = match[0];
    if (/^\s/.test(token)) continue;
    const upper = token.toUpperCase();
    const ends = match.index + token.length;
    // What touches the caret is still being typed, unless it can only be complete.
    if (ends === caret && !/^[()<>=!,]|^(['"]).*\1$/su.test(token)) {
      from = match.index;
      typed = token;
      break;
    }
    if (token === "(" && expected === "value") listing = true;
    else if (token === "(") expected = "key";
    else if (token === ")") {
      listing = false;
      expected = "joint";
    } else if (listing) expected = token === "," ? "value" : "nothing";
    else if (upper === "AND" || upper === "OR") expected = "key";
    else if (expected === "key" && upper !== "NOT") {
      key = token.replace(/^(metric|param|tag)\./, "$1s.");
      expected = "operator";
    } else if (expected === "operator") {
      operator = upper;
      expected = upper === "IS" || upper === "NOT" ? "operator" : upper === "NULL" ? "joint" : "value";
    } else if (expected === "value") expected = "joint";
  }
  const offered = (): Proposal[] => {
    switch (expected) {
      case "key":
        return keys;
      case "operator":
        return operator === "IS" || operator === "NOT" ? [] : operators(key).map((text) => ({ text, about: "operator" }));
      case "joint":
        return JOINTS.map((text) => ({ text, about: "and then" }));
      case "value": {
        const texts = fitting(typed.replace(/^['"]/, ""), values(key).map((text) => ({ text, about: "value" })));
        return texts.flatMap(({ text, about }) => {
          const marked = quoted(text);
          return marked === null ? [] : [{ text: marked, about }];
        });
      }
      default:
        return [];
    }
  };
  const list = offered();
  return { from, to: caret, list: expected === "value" ? list : fitting(typed, list) };
}
