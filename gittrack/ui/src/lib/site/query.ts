// Filters of runs, as `gittrack/track/query` reads and answers them on a server: the two are tested with the same texts
// (`query.vectors.json`).  Of what is wrong it says where, and in fewer words why.

import { Trouble } from "../api";

/** What a filter asks of a run; null: it has no such thing. */
export interface Row {
  metric: (key: string, of: Summary) => number | null;
  param: (key: string) => string | null;
  tag: (key: string) => string | null;
  fact: (name: string) => string | number | null;
}

export type Summary = "last" | "min" | "max";
type Test = (row: Row) => boolean;
type Value = string | number | string[] | null;

interface Field {
  kind: "metric" | "param" | "tag" | "fact";
  key: string;
  of: Summary;
}

const WORD = /[\p{L}_][\p{L}\p{N}_]*/uy;
const BARE = /[\p{L}\p{N}_./:@-]+/uy;
const SIGNS = /[<>=!~&|*%^]+/uy;
const NUMBER = /[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?/uy;
const NUMERIC = /^\s*[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?)\s*$/i;
const ORDERED = ["=", "!=", "<", "<=", ">", ">="];
const TEXTUAL = ["=", "!=", "LIKE", "ILIKE", "IN", "NOT IN"];
const KEYWORDS = ["AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE"];
const SUMMARIES: readonly string[] = ["last", "min", "max"] satisfies Summary[];
const DEEPEST = 50;

const KINDS = new Map<string, Field["kind"]>([
  ...["metrics", "metric"].map((one) => [one, "metric"] as const),
  ...["params", "param", "parameters", "parameter"].map((one) => [one, "param"] as const),
  ...["tags", "tag"].map((one) => [one, "tag"] as const),
  ...["attributes", "attribute", "attr", "run"].map((one) => [one, "fact"] as const),
]);
/** What there is of a run besides: whether it is a number, and whether it can be missing. */
const FACTS = new Map([
  ...["run_id", "run_name", "status", "user_id"].map((one) => [one, { number: false, missing: false }] as const),
  ["start_time", { number: true, missing: false }],
  ["end_time", { number: true, missing: true }],
  ...["commit", "branch", "dirty"].map((one) => [one, { number: false, missing: true }] as const),
]);
const ALIASES = new Map([["created", "start_time"], ["Created", "start_time"], ["run name", "run_name"], ["Run name", "run_name"], ["Run Name", "run_name"]]);
/** What a server could be asked for besides. */
const ELSEWHERE = ["artifact_uri", "tree"];

export interface Filter {
  meets: Test;
  /** Whether it asks for the least or the greatest value of a metric. */
  extremes: boolean;
}

/** @param hasMetric Decides what `metrics.loss.min` means. */
export function parse(text: string, hasMetric: (key: string) => boolean): Filter {
  return new Parser(text, hasMetric).whole();
}

class Parser {
  #at = 0;
  #extremes = false;

  constructor(
    readonly text: string,
    readonly hasMetric: (key: string) => boolean,
  ) {
    const bad = /\0|\p{Cs}/u.exec(text);
    if (bad) throw this.#error("not a character", bad.index);
  }

  whole(): Filter {
    if (!this.#peek()) return { meets: () => true, extremes: false };
    const meets = this.#any(0);
    if (this.#peek()) throw this.#error(`expected AND, OR or the end, found ${this.#found()}`);
    return { meets, extremes: this.#extremes };
  }

  // --- characters

  #error(message: string, at = this.#at): Trouble {
    const column = [...this.text.slice(0, at)].length + 1;
    return new Trouble(`cannot read \`${this.text.slice(0, 200)}\` at column ${column}: ${message}`, 400, column);
  }

  #here(): string {
    return String.fromCodePoint(...(this.#at < this.text.length ? [this.text.codePointAt(this.#at) ?? 0] : []));
  }

  #peek(): string {
    while (/^\s$/u.test(this.#here())) this.#at += 1;
    return this.#here();
  }

  #match(pattern: RegExp): string {
    this.#peek();
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.text)?.[0] ?? "";
    this.#at += found.length;
    return found;
  }

  #keyword(...words: string[]): boolean {
    const start = this.#at;
    if (words.every((word) => this.#match(WORD).toUpperCase() === word)) return true;
    this.#at = start;
    return false;
  }

  #quoted(marks: string): string | null {
    const mark = this.#peek();
    if (!mark || !marks.includes(mark)) return null;
    const end = this.text.indexOf(mark, this.#at + 1);
    if (end < 0) throw this.#error(`no closing ${mark}`);
    const inside = this.text.slice(this.#at + 1, end);
    this.#at = end + 1;
    const after = this.#here();
    if (after === mark || (inside.endsWith("\\") && /^[\p{L}\p{N}_]/u.test(after))) {
      throw this.#error("more text right after a closing quote; there are no escapes: quote with the other of ' and \"");
    }
    return inside;
  }

  #found(): string {
    const start = this.#at;
    const word = this.#match(BARE) || this.#match(SIGNS) || this.#here();
    this.#at = start;
    this.#peek();
    return word ? `\`${word.slice(0, 40)}\`` : "the end";
  }

  // --- conditions

  #any(depth: number): Test {
    const parts = [this.#all(depth)];
    while (this.#keyword("OR")) parts.push(this.#all(depth));
    return (row) => parts.some((part) => part(row));
  }

  #all(depth: number): Test {
    const parts = [this.#one(depth)];
    while (this.#keyword("AND")) {
      if (!this.#peek() && depth === 0) break; // MLflow takes a trailing AND
      parts.push(this.#one(depth));
    }
    return (row) => parts.every((part) => part(row));
  }

  #one(depth: number): Test {
    this.#peek();
    if (depth > DEEPEST) throw this.#error(`nested more than ${DEEPEST} deep`);
    if (this.#keyword("NOT")) {
      const part = this.#one(depth + 1);
      return (row) => !part(row);
    }
    if (this.#peek() !== "(") return this.#comparison();
    const opened = this.#at;
    this.#at += 1;
    const inside = this.#any(depth + 1);
    if (this.#peek() !== ")") {
      if (this.#peek()) throw this.#error(`expected AND, OR or \`)\`, found ${this.#found()}`);
      throw this.#error("this parenthesis is never closed", opened);
    }
    this.#at += 1;
    return inside;
  }

  #comparison(): Test {
    const field = this.#field();
    if (field.of !== "last") this.#extremes = true;
    this.#peek();
    const place = this.#at;
    const sign = this.#operator(field);
    if (sign === "IS NULL" || sign === "IS NOT NULL") {
      if (field.kind === "fact" && !FACTS.get(field.key)?.missing) throw this.#error(`${sign} is for what can be missing`, place);
      return tested(field, sign, null);
    }
    if (sign === "IN" || sign === "NOT IN") {
      this.#fits(field, sign, "", place);
      return tested(field, sign, this.#list(field));
    }
    this.#peek();
    const start = this.#at;
    const value = this.#value();
    this.#fits(field, sign, value, place);
    this.#typed(field, value, start);
    return tested(field, sign, value);
  }

  #field(): Field {
    this.#peek();
    const start = this.#at;
    let prefix = this.#quoted('`"');
    if (prefix === null) {
      if (this.#peek() === "'") throw this.#error("a text where a key should be");
      prefix = this.#match(WORD);
    }
    if (!prefix) {
      if (this.#match(NUMBER)) throw this.#error("a number where a key should be: write the key first");
      throw this.#error(`expected a condition, found ${this.#found()}`);
    }
    if (KEYWORDS.includes(prefix.toUpperCase()) && !/[`".]/.test(this.text[start] ?? "")) throw this.#error(`expected a condition, found \`${prefix}\``, start);
    if (this.#here() !== ".") return this.#fact(prefix, start);
    if (["datasets", "dataset"].includes(prefix)) throw this.#error("a copy of runs cannot be filtered by their datasets", start);
    const kind = KINDS.get(prefix);
    if (!kind) throw this.#error(`unknown prefix \`${prefix.slice(0, 40)}\`: metrics, params, tags or attributes`, start);
    this.#at += 1;
    return this.#key(kind);
  }

  #key(kind: Field["kind"]): Field {
    const start = this.#at;
    if (/^\s/u.test(this.#here())) throw this.#error("a space after the dot");
    const exact = this.#quoted('`"');
    const key = exact ?? this.#match(BARE);
    if (!key) throw this.#error("a name is missing after the dot", start);
    if (kind === "fact") return this.#fact(key, start);
    if (kind !== "metric") return { kind, key, of: "last" };
    if (exact === null) {
      const dot = key.lastIndexOf(".");
      const [base, suffix] = [key.slice(0, Math.max(0, dot)), key.slice(dot + 1)];
      return base && SUMMARIES.includes(suffix) && !this.hasMetric(key) ? { kind, key: base, of: suffix as Summary } : { kind, key, of: "last" };
    }
    if (this.#here() !== ".") return { kind, key, of: "last" };
    this.#at += 1;
    const after = this.#at;
    const suffix = this.#match(WORD);
    if (!SUMMARIES.includes(suffix)) throw this.#error("a metric has `min`, `max` and `last`", after);
    return { kind, key, of: suffix as Summary };
  }

  #fact(name: string, start: number): Field {
    const key = ALIASES.get(name) ?? name;
    if (FACTS.has(key)) return { kind: "fact", key, of: "last" };
    if (ELSEWHERE.includes(key)) throw this.#error(`a copy of runs cannot be filtered by \`${key}\``, start);
    throw this.#error(`a run has no attribute \`${name.slice(0, 40)}\`: write metrics.${name.slice(0, 40)}, or one of ${[...FACTS.keys()].join(", ")}`, start);
  }

  #operator(field: Field): string {
    const start = this.#at;
    const signs = this.#match(SIGNS);
    if (signs) {
      if (!ORDERED.includes(signs)) throw this.#error(`unknown operator \`${signs.slice(0, 20)}\`: one of ${allowed(field, null).join(", ")}`, start);
      return signs;
    }
    for (const words of ["IS NOT NULL", "IS NULL", "NOT IN", "IN", "LIKE", "ILIKE"]) if (this.#keyword(...words.split(" "))) return words;
    if (this.#keyword("NOT", "LIKE") || this.#keyword("NOT", "ILIKE")) throw this.#error("NOT goes before the key", start);
    throw this.#error(`expected an operator, found ${this.#found()}: one of ${allowed(field, null).join(", ")}`);
  }

  #value(): string | number {
    const text = this.#quoted("'\"");
    if (text !== null) return text;
    const start = this.#at;
    const number = this.#match(NUMBER);
    if (number && !/^[\p{L}\p{N}_.]/u.test(this.#here())) return Number(number);
    this.#at = start;
    this.#peek();
    throw this.#error(`expected a number or quoted text, found ${this.#found()}`);
  }

  #list(field: Field): string[] {
    if (this.#peek() !== "(") throw this.#error("expected a list, for example IN ('a', 'b')");
    const opened = this.#at;
    this.#at += 1;
    const values: string[] = [];
    while (this.#peek() !== ")" || !values.length) {
      const start = this.#at;
      const value = this.#quoted("'\"");
      if (value === null) throw this.#error(`expected quoted text, found ${this.#found()}`);
      this.#typed(field, value, start);
      values.push(value);
      if (this.#peek() === ",") this.#at += 1;
      else if (!this.#peek()) throw this.#error("this list is never closed", opened);
      else if (this.#peek() !== ")") throw this.#error(`expected \`,\` or \`)\`, found ${this.#found()}`);
    }
    this.#at += 1;
    return values;
  }

  /** Whether an operator goes with a field. */
  #fits(field: Field, sign: string, value: string | number, at: number): void {
    const those = allowed(field, value);
    if (!those.includes(sign)) throw this.#error(`\`${sign}\` does not go with this: one of ${those.join(", ")}`, at);
  }

  #typed(field: Field, value: string | number, at: number): void {
    const number = field.kind === "metric" || (field.kind === "fact" && FACTS.get(field.key)?.number);
    if (typeof value === "string" && number) throw this.#error("this is a number, not text: write it without quotes", at);
    if (typeof value === "number" && !number && field.kind !== "param") throw this.#error("this is text: quote it", at);
  }
}

/** The operators that go with a field; without a value all that could. */
function allowed(field: Field, value: string | number | null): string[] {
  if (field.kind === "metric") return ORDERED;
  if (field.kind === "fact") return FACTS.get(field.key)?.number ? ORDERED : TEXTUAL;
  if (field.kind === "param") return value === null ? [...new Set([...ORDERED, ...TEXTUAL])] : typeof value === "number" ? ORDERED : TEXTUAL;
  return TEXTUAL;
}

/** The number that a parameter's text is; null if it is none. */
function numberOf(text: string): number | null {
  if (!NUMERIC.test(text)) return null;
  const number = Number(text);
  return Number.isNaN(number) ? (/^\s*-/.test(text) ? -Infinity : Infinity) : number;
}

function tested(field: Field, sign: string, value: Value): Test {
  const compare = comparing(sign, value);
  return (row) => {
    const has = field.kind === "metric" ? row.metric(field.key, field.of) : row[field.kind](field.key);
    if (value === null) return (has === null) === (sign === "IS NULL");
    if (has === null) return false;
    if (field.kind !== "param" || typeof value !== "number") return compare(has);
    const number = numberOf(String(has));
    return number === null ? sign === "!=" : compare(number);
  };
}

function comparing(sign: string, value: Value): (has: string | number) => boolean {
  switch (sign) {
    case "=":
      return (has) => has === value;
    case "!=":
      return (has) => has !== value;
    case "<":
      return (has) => Number(has) < Number(value);
    case "<=":
      return (has) => Number(has) <= Number(value);
    case ">":
      return (has) => Number(has) > Number(value);
    case ">=":
      return (has) => Number(has) >= Number(value);
    case "IN":
    case "NOT IN": {
      const values = new Set(value as string[]);
      return (has) => values.has(String(has)) === (sign === "IN");
    }
    case "LIKE":
      return like(String(value));
    case "ILIKE": {
      const fits = like(folded(String(value)));
      return (has) => fits(folded(String(has)));
    }
    default:
      return () => false; // IS NULL and IS NOT NULL compare nothing
  }
}

/** Without regard to capitals: `ß` is `ss`. */
function folded(text: string): string {
  return text.toUpperCase().toLowerCase();
}

/** Whether the whole text fits: `%` is any text, `_` any character, and there are no escapes. */
function like(pattern: string): (has: string | number) => boolean {
  const pieces = pattern.split("%").map((piece) => piece.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&").replaceAll("_", "."));
  const patterns = pieces.map((piece, at) => new RegExp(`${at === 0 ? "^" : ""}${piece}${at === pieces.length - 1 ? "$" : ""}`, "gsu"));
  return (has) => {
    let from = 0;
    for (const one of patterns) {
      one.lastIndex = from; // the leftmost place of each leaves the most for the rest
      if (!one.test(String(has))) return false;
      from = one.lastIndex;
    }
    return true;
  };
}
