import { expect, test } from "vitest";

import type { Columns } from "./api";
import { proposals, vocabulary, type Vocabulary } from "./filter";

const known: Vocabulary = {
  keys: [
    { text: "metrics.acc", about: "metrics" },
    { text: "metrics.val/acc", about: "metrics" },
    { text: "params.`my lr`", about: "params" },
    { text: "params.optimizer", about: "params" },
    { text: "status", about: "attribute" },
  ],
  values: (key) => (key === "params.optimizer" ? ["adam", "sgd", "it's", `both ' and "`] : key === "status" ? ["FINISHED"] : []),
};

/** What is proposed where the text has a bar, and what the first of it makes of the text. */
function at(marked: string): { texts: string[]; first: string } {
  const caret = marked.indexOf("|");
  const text = marked.replace("|", "");
  const { from, to, list } = proposals(text, caret, known);
  const texts = list.map((one) => one.text);
  return { texts, first: text.slice(0, from) + (texts[0] ?? "") + text.slice(to) };
}

test("keys: what begins like it first, then what has it in it", () => {
  expect(at("|").texts).toHaveLength(5);
  expect(at("ac|").texts).toEqual(["metrics.acc", "metrics.val/acc"]);
  expect(at("metrics.acc > 1 and (opt|").texts).toEqual(["params.optimizer"]);
  expect(at("not sta| and x").first).toBe("not status and x");
  expect(at("params.`my|").texts).toEqual(["params.`my lr`"]);
  expect(at("nothing|").texts).toEqual([]);
});

test("operators, as they go with the key", () => {
  expect(at("metrics.acc |").texts).toContain(">=");
  expect(at("metrics.acc |").texts).not.toContain("LIKE");
  expect(at("status |").texts).not.toContain("<");
  expect(at("params.optimizer li|").first).toBe("params.optimizer LIKE");
  expect(at("metrics.acc is |").texts).toEqual([]);
});

test("values that there are, in quotes that fit", () => {
  expect(at("params.optimizer = |").texts).toEqual(["'adam'", "'sgd'", `"it's"`]);
  expect(at("params.optimizer = 'sg|").first).toBe("params.optimizer = 'sgd'");
  expect(at("param.optimizer in ('adam', |").texts).toContain("'sgd'");
  expect(at("status = fin|").first).toBe("status = 'FINISHED'");
  expect(at("metrics.acc > 0.|").texts).toEqual([]);
});

test("what joins conditions", () => {
  expect(at("metrics.acc > 0.9 |").texts).toEqual(["AND", "OR"]);
  expect(at("params.optimizer = 'adam' a|").first).toBe("params.optimizer = 'adam' AND");
  expect(at("params.optimizer in ('adam') |").texts).toEqual(["AND", "OR"]);
  expect(at("params.optimizer is null |").texts).toEqual(["AND", "OR"]);
  expect(at("metrics.acc > 0.9 and |").texts).toHaveLength(5);
});

test("the words are those of the runs, whatever they are called", () => {
  const found = {
    runs: { run_name: ["a", "b", "a"], user_id: [], code_commit: [null], code_branch: [] },
    metrics: {},
    params: { "my lr": ["1", null, "2"], constructor: ["x"] },
    tags: {},
    keys: { metrics: ["acc"], params: ["my lr", "constructor"], tags: ["a`b"] },
  } as unknown as Columns;
  const { keys, values } = vocabulary(found);
  expect(keys.slice(0, 4).map((one) => one.text)).toEqual(["metrics.acc", "params.`my lr`", "params.constructor", 'tags."a`b"']);
  expect(["params.`my lr`", "params.constructor", "run_name", "commit", "constructor", "params.toString"].map(values)).toEqual([
    ["1", "2"], ["x"], ["a", "b"], [], [], [],
  ]);
  expect(proposals("constructor ", 12, { keys, values }).list).toEqual([]);
});
