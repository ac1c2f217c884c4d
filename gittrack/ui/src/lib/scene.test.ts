import { expect, test } from "vitest";

import { nearest, svg, type Scene } from "./scene";

const scene: Scene = {
  width: 100,
  height: 50,
  marks: [
    { kind: "line", points: [0, 0, 10, 10, NaN, NaN, 50, 10, 90, 10], width: 2, dash: [3, 1], colour: "#00ff00", row: 1 },
    { kind: "dot", x: 50, y: 40, radius: 3, colour: "rgb(1, 2, 3)", row: 2 },
    { kind: "box", x: 0, y: 30, width: 10, height: 10, colour: "#123456", alpha: 0.5, tip: "cell" },
    { kind: "text", x: 1, y: 2, text: '<script>"&\u0001\ud800 ü', colour: "black", align: "right", turned: true },
  ],
};

test("a picture as SVG: vectors, and nothing but text in the text", () => {
  const text = svg(scene, "white");
  expect(text).toContain('<path d="M0,0 10,10M50,10 90,10" fill="none" stroke="#00ff00" stroke-width="2" stroke-dasharray="3 1"/>');
  expect(text).toContain('<circle cx="50" cy="40" r="3" fill="rgb(1, 2, 3)"/>');
  expect(text).toContain('opacity="0.5"');
  expect(text).toContain('transform="rotate(-90 1 2)">&lt;script&gt;&quot;&amp; ü</text>');
  expect(text).not.toContain("<script");
});

test("what is under the mouse", () => {
  expect(nearest(scene, 70, 14)?.row).toBe(1);
  expect(nearest(scene, 30, 10)).toBe(null); // between the two strokes
  expect(nearest(scene, 52, 44)?.row).toBe(2);
  expect(nearest(scene, 5, 35)?.kind).toBe("box");
  expect(nearest(scene, 99, 49)).toBe(null);
});
