import { expect, test } from "vitest";

import { matcher, pack, range, toggled, unpack } from "./lists";

test("names with anything in them come back from the address", () => {
  const names = ["train/loss", "a,b", "a~1b", "x:y", "~", "ü &=%2C"];
  expect(unpack(pack(names))).toEqual(names);
  expect(unpack(undefined)).toEqual([]);
  expect(unpack(toggled(pack(["a,b", "c"]), "a,b"))).toEqual(["c"]);
  expect(unpack(toggled("", "a,b"))).toEqual(["a,b"]);
});

test("two numbers", () => {
  expect(range("-1.5:2e3")).toEqual({ low: -1.5, high: 2000 });
  for (const bad of [undefined, "", "1", "2:1", "1:1", "a:b", ":3", "3:"]) expect(range(bad)).toBe(null);
});

test("charts are found by a text or a regular expression", () => {
  const names = ["train/loss", "val/loss", "val/Acc", "a+b", "x[0]"];
  const found = (wanted: string): string[] => names.filter(matcher(wanted));
  expect(found("")).toEqual(names);
  expect(found("acc")).toEqual(["val/Acc"]);
  expect(found("^val/.*(loss|acc)$")).toEqual(["val/loss", "val/Acc"]);
  expect(found("x[0")).toEqual(["x[0]"]); // no expression: a text
});

test("no expression takes forever", () => {
  const start = performance.now();
  for (const evil of ["(a+)+$", "(a|a)*$", "(.*)*x", ".*.*.*.*.*x", "(a?){50}b"]) matcher(evil)(`${"a".repeat(250)}!`);
  expect(performance.now() - start).toBeLessThan(5000);
});
