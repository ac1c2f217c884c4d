// Pictures that the reader keeps.

import { download } from "./export";
import { paint, svg, type Scene } from "./scene";

/** A name that every file system takes. */
export function fileName(name: string, ending: string): string {
  return `${name.replace(/[^\w.-]+/g, "_").replace(/^[._]+/, "").slice(0, 100) || "chart"}.${ending}`;
}

export function saveSvg(name: string, scene: Scene, background: string): void {
  download(new Blob([svg(scene, background)], { type: "image/svg+xml" }), fileName(name, "svg"));
}

/** Two pixels for each unit, for print. */
export async function savePng(name: string, scene: Scene, background: string): Promise<void> {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [scene.width * 2, scene.height * 2];
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(2, 2);
  context.fillStyle = background;
  context.fillRect(0, 0, scene.width, scene.height);
  paint(context, scene);
  const content = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  if (content) download(content, fileName(name, "png"));
}
