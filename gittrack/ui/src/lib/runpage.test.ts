import { expect, test } from "vitest";

import { isElsewhere } from "./details";
import { commitUrl } from "./hosts";
import { changed, parse } from "./patch";
import { cells, kindOf, printed, splitTable } from "./preview";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

test("a commit on its host", () => {
  const pages = {
    "https://github.com/team/model.git": `https://github.com/team/model/commit/${COMMIT}`,
    "git@github.com:team/model.git": `https://github.com/team/model/commit/${COMMIT}`,
    "ssh://git@gitlab.example.com:2222/a/b/model.git": `https://gitlab.example.com/a/b/model/-/commit/${COMMIT}`,
    "https://ana:secret@bitbucket.org/team/model": `https://bitbucket.org/team/model/commits/${COMMIT}`,
    "http://gitea.local:3000/team/model/": `http://gitea.local:3000/team/model/commit/${COMMIT}`,
  };
  for (const [remote, page] of Object.entries(pages)) expect(commitUrl(remote, COMMIT)).toBe(page);
});

test("no link where there is none, and none that runs", () => {
  for (const remote of [
    "", undefined, "/srv/git/model", "../model", "C:\\git\\model", "javascript:alert(1)", "javascript://x.com/%0aalert(1)",
    "data:text/html,x", "file:///etc/passwd", "https://", "https://x.com", "http://a b.com/x", "x:y", "https://[::1]/a/b",
    "git@host:x", 'https://x.com"onmouseover="a/b"',
  ]) {
    const found = commitUrl(remote, COMMIT);
    expect(found === "" || /^https?:\/\/[\w.:-]+\/[^"<>\s]*$/.test(found), `${remote} ${found}`).toBe(true);
    if (!remote?.startsWith("https://x.com/")) expect(found).toBe("");
  }
  expect(commitUrl("https://github.com/team/model", "main")).toBe("");
  expect(commitUrl("https://github.com/team/model", `${COMMIT}/../..`)).toBe("");
});

test("a diff, line by line", () => {
  const { head, lines } = parse(
    "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -3,3 +3,4 @@ def f():\n a\n--- b\n+++ B\n+c\n d\n@@ -10 +11 @@\n-x\n\\ No newline at end of file\n+y\n",
  );
  expect(head).toHaveLength(4);
  expect(lines.map((line) => [line.kind, line.old, line.now, line.text])).toEqual([
    ["@", null, null, "def f():"],
    [" ", 3, 3, "a"],
    ["-", 4, null, "-- b"],
    ["+", null, 4, "++ B"],
    ["+", null, 5, "c"],
    [" ", 5, 6, "d"],
    ["@", null, null, ""],
    ["-", 10, null, "x"],
    ["\\", null, null, "No newline at end of file"],
    ["+", null, 11, "y"],
  ]);
  expect(parse("Binary files a/x and b/x differ\n").head).toEqual(["Binary files a/x and b/x differ"]);
  expect(parse("")).toEqual({ head: [], lines: [] });
});

test("tables", () => {
  expect(cells('a,b\r\n"x,""y""\n",2\n,\n', ",", 10)).toEqual([["a", "b"], ['x,"y"\n', "2"], ["", ""]]);
  expect(cells("a\tb\n1\t2", "\t", 10)).toEqual([["a", "b"], ["1", "2"]]);
  expect(cells("1\n2\n3\n", ",", 2)).toEqual([["1"], ["2"]]);
  expect(cells('"never ends', ",", 2)).toEqual([["never ends"]]);
  expect(splitTable({ columns: ["a", "b"], data: [[1, null], ["x", { y: 1 }]] })).toEqual([["a", "b"], ["1", ""], ["x", '{"y":1}']]);
  for (const none of [null, 1, [], {}, { columns: 1, data: [] }, { columns: [], data: [1] }]) expect(splitTable(none)).toBe(null);
});

test("what a terminal shows", () => {
  expect(printed("\u001b[31mred\u001b[0m\r\n10%\r50%\r100%\nbell\u0007\u001b]0;title\u0007\tx")).toBe("red\n100%\nbell\tx");
  expect(printed("half\r")).toBe("half");
});

test("files by their names", () => {
  const names = { "a/plot.PNG": "image", "x.svg": "image", "a.mp4": "video", "m/MLmodel": "text", "requirements-dev.txt": "text", "r.html": "document", "x.pkl": "other", "png": "other", "a.csv": "table" };
  for (const [name, kind] of Object.entries(names)) expect(kindOf(name)).toBe(kind);
});

test("what of a changed line is another", () => {
  expect(changed("lr = 0.1", "lr = 0.25")).toEqual([
    [["lr = 0.", false], ["1", true]],
    [["lr = 0.", false], ["25", true]],
  ]);
  const [old, now] = changed("return model(x)", "  return model(x, mask)") ?? [];
  expect(old?.every(([, gone]) => !gone)).toBe(true);
  expect(now?.filter(([, come]) => come).map(([text]) => text)).toEqual(["  ", ", mask"]);
  expect(changed("import torch", "layers = 3")).toBe(null); // another line, not a changed one
  expect(changed("a ".repeat(300), "b")).toBe(null); // too long to be worth it
});

test("lines are compared where as many came as are gone", () => {
  const marked = (diff: string): number => parse(diff).lines.filter((line) => line.pieces).length;
  expect(marked("@@ -1,2 +1,2 @@\n-lr = 1\n-seed = 1\n+lr = 2\n+seed = 2\n")).toBe(4);
  expect(marked("@@ -1,1 +1,2 @@\n-lr = 1\n+lr = 2\n+seed = 2\n")).toBe(0);
});

test("files that the server does not have", () => {
  expect(["s3://bucket/1/artifacts", "file:///data/1/artifacts", "/data/1/artifacts"].every(isElsewhere)).toBe(true);
  expect(["", "mlflow-artifacts:/0/1/artifacts", "mlflow-artifacts:/team/1/artifacts"].some(isElsewhere)).toBe(false);
});
