import { expect, test } from "vitest";

import { copiedFrom, may, person, snippets, versionUrl } from "./registry";

test("roles", () => {
  expect(["reader", "writer", "maintainer", "admin"].map((role) => may(role, "maintainer"))).toEqual([false, false, true, true]);
});

test("addresses and people", () => {
  expect(versionUrl("a b/ü?", 3)).toBe("/models/a%20b%2F%C3%BC%3F/versions/3");
  expect([person("Ana <ana@lab>"), person("ana"), person("<x> <y@z>")]).toEqual(["Ana", "ana", "<x>"]);
});

test("what a version is a copy of", () => {
  expect(copiedFrom("models:/a b/3")).toEqual({ name: "a b", version: "3" });
  expect([undefined, "", "runs:/a/3", "models:/a/b/3", "models:/m-1"].map((source) => copiedFrom(source))).toEqual([null, null, null, null, null]);
});

test("how to use a model", () => {
  const [python, shell, curl, docker] = snippets("iris/3", "", ["petal", "it's"]).map((one) => one.text);
  expect(python).toContain('load_model("models:/iris/3")');
  expect(python).not.toContain("set_tracking_uri");
  expect(shell).toContain("gittrack models pull iris/3 model");
  expect(curl).toContain(`'{"dataframe_split":{"columns":["petal","it'\\''s"],"data":[[0,0]]}}'`);
  expect(docker).toContain("docker run -p 8080:8080 iris-3");
  expect(snippets("iris/3", "https://hub.example.org")[0]?.text).toContain('set_tracking_uri("https://hub.example.org")');
});

test("a name that is an attack stays one word and one text", () => {
  const [python, shell, , docker] = snippets(`x'; rm -rf ~ "$(id)"\u2028\u0085`, "").map((one) => one.text);
  expect(python).toContain(String.raw`load_model("models:/x'; rm -rf ~ \"$(id)\"\u2028\u0085")`);
  expect(shell).toContain(`-m 'models:/x'\\''; rm -rf ~ "$(id)"`);
  expect(docker).toContain("docker build -t x-rm-rf-id image");
});
