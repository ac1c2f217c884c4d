// A picture as a list of marks: drawn on a canvas, written as SVG, and asked what is under the mouse.

export interface Look {
  colour: string;
  alpha?: number;
  /** The row of the table that it stands for. */
  row?: number;
}

export type Mark = Look &
  (
    | { kind: "line"; points: number[]; width: number; dash?: number[] }
    | { kind: "area"; points: number[] }
    | { kind: "dot"; x: number; y: number; radius: number }
    | { kind: "box"; x: number; y: number; width: number; height: number; tip?: string }
    | { kind: "text"; x: number; y: number; text: string; align?: "left" | "center" | "right"; size?: number; turned?: boolean; bold?: boolean }
  );

export interface Scene {
  width: number;
  height: number;
  marks: Mark[];
}

const FONT = "system-ui, sans-serif";

/** Points are x, y, x, y …; NaN is where the pen is lifted. */
function strokes(points: number[]): number[][] {
  const found: number[][] = [[]];
  for (let at = 0; at < points.length; at += 2) {
    const [x, y] = [points[at] ?? Number.NaN, points[at + 1] ?? Number.NaN];
    if (Number.isNaN(x) || Number.isNaN(y)) found.push([]);
    else found.at(-1)?.push(x, y);
  }
  return found.filter((stroke) => stroke.length > 0);
}

export function paint(context: CanvasRenderingContext2D, scene: Scene): void {
  for (const mark of scene.marks) {
    context.globalAlpha = mark.alpha ?? 1;
    context.fillStyle = mark.colour;
    context.strokeStyle = mark.colour;
    if (mark.kind === "line" || mark.kind === "area") {
      context.beginPath();
      for (const stroke of strokes(mark.points)) {
        for (let at = 0; at < stroke.length; at += 2) {
          if (at === 0) context.moveTo(stroke[0] ?? 0, stroke[1] ?? 0);
          else context.lineTo(stroke[at] ?? 0, stroke[at + 1] ?? 0);
        }
      }
      if (mark.kind === "area") {
        context.fill();
      } else {
        context.lineWidth = mark.width;
        context.setLineDash(mark.dash ?? []);
        context.stroke();
      }
    } else if (mark.kind === "dot") {
      context.beginPath();
      context.arc(mark.x, mark.y, mark.radius, 0, 2 * Math.PI);
      context.fill();
    } else if (mark.kind === "box") {
      context.fillRect(mark.x, mark.y, mark.width, mark.height);
    } else {
      context.font = `${mark.bold ? "600 " : ""}${mark.size ?? 12}px ${FONT}`;
      context.textAlign = mark.align ?? "left";
      context.textBaseline = "middle";
      context.save();
      context.translate(mark.x, mark.y);
      if (mark.turned) context.rotate(-Math.PI / 2);
      context.fillText(mark.text, 0, 0);
      context.restore();
    }
  }
  context.globalAlpha = 1;
  context.setLineDash([]);
}

/** As XML has it; what it cannot have at all is left out. */
function xml(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "").replace(/[&<>"]/g, (one) => names[one] ?? one);
}

export function svg(scene: Scene, background: string): string {
  const round = (value: number): string => String(Math.round(value * 100) / 100);
  const path = (points: number[], end: string): string =>
    strokes(points)
      .map((stroke) => `M${stroke.map((value, at) => (at % 2 ? "," : at ? " " : "") + round(value)).join("")}${end}`)
      .join("");
  const marks = scene.marks.map((mark) => {
    const colour = xml(mark.colour);
    const alpha = mark.alpha === undefined || mark.alpha === 1 ? "" : ` opacity="${mark.alpha}"`;
    switch (mark.kind) {
      case "line":
        return `<path d="${path(mark.points, "")}" fill="none" stroke="${colour}" stroke-width="${mark.width}"${mark.dash?.length ? ` stroke-dasharray="${mark.dash.join(" ")}"` : ""}${alpha}/>`;
      case "area":
        return `<path d="${path(mark.points, "Z")}" fill="${colour}"${alpha}/>`;
      case "dot":
        return `<circle cx="${round(mark.x)}" cy="${round(mark.y)}" r="${mark.radius}" fill="${colour}"${alpha}/>`;
      case "box":
        return `<rect x="${round(mark.x)}" y="${round(mark.y)}" width="${round(mark.width)}" height="${round(mark.height)}" fill="${colour}"${alpha}/>`;
      case "text": {
        const anchor = { left: "start", center: "middle", right: "end" }[mark.align ?? "left"];
        const turn = mark.turned ? ` transform="rotate(-90 ${round(mark.x)} ${round(mark.y)})"` : "";
        return `<text x="${round(mark.x)}" y="${round(mark.y)}" dominant-baseline="central" text-anchor="${anchor}" font-size="${mark.size ?? 12}"${mark.bold ? ' font-weight="600"' : ""} fill="${colour}"${turn}${alpha}>${xml(mark.text)}</text>`;
      }
    }
  });
  const size = `width="${scene.width}" height="${scene.height}" viewBox="0 0 ${scene.width} ${scene.height}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="${FONT}">\n<rect width="100%" height="100%" fill="${xml(background)}"/>\n${marks.join("\n")}\n</svg>\n`;
}

/** How far a place is from a line from one point to another. */
function away(x: number, y: number, x0: number, y0: number, x1: number, y1: number): number {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const along = Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - x0 - along * dx, y - y0 - along * dy);
}

function distance(mark: Mark, x: number, y: number): number {
  if (mark.kind === "dot") return Math.max(0, Math.hypot(x - mark.x, y - mark.y) - mark.radius);
  if (mark.kind === "box") {
    const [dx, dy] = [Math.max(mark.x - x, 0, x - mark.x - mark.width), Math.max(mark.y - y, 0, y - mark.y - mark.height)];
    return Math.hypot(dx, dy);
  }
  if (mark.kind !== "line") return Infinity;
  let nearest = Infinity;
  const points = mark.points;
  for (let at = 0; at + 3 < points.length; at += 2) {
    const far = away(x, y, points[at] ?? 0, points[at + 1] ?? 0, points[at + 2] ?? 0, points[at + 3] ?? 0);
    if (far < nearest) nearest = far; // NaN is never less
  }
  return nearest;
}

/** The mark nearest to a place that stands for something, if it is near. */
export function nearest(scene: Scene, x: number, y: number, within = 12): Mark | null {
  let found: Mark | null = null;
  let least = within;
  for (const mark of scene.marks) {
    if (mark.row === undefined && !(mark.kind === "box" && mark.tip)) continue;
    const far = distance(mark, x, y);
    if (far <= least) [found, least] = [mark, far];
  }
  return found;
}
