import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

/** The first number or date that a browser's process writes in a language takes it 30 ms and more.  uPlot prepares both
 *  while it is loaded, for axes and legends that the page does not have: here they are made when they are asked for. */
const LAZY = [
  [
    "const numFormatter = new Intl.NumberFormat(domEnv ? nav.language : 'en-US');\nconst fmtNum = val => numFormatter.format(val);",
    "const fmtNum = val => new Intl.NumberFormat(domEnv ? nav.language : 'en-US').format(val);",
  ],
  ["const localTz = new Intl.DateTimeFormat().resolvedOptions().timeZone;", ""],
  ["tz == localTz", "tz == new Intl.DateTimeFormat().resolvedOptions().timeZone"],
] as const;

const lazyLanguages: Plugin = {
  name: "lazy-languages",
  transform(code, id) {
    if (!id.endsWith("/uPlot.esm.js")) return null;
    for (const [eager, lazy] of LAZY) {
      if (code.split(eager).length !== 2) throw new Error(`uPlot does not say once: ${eager}`);
      code = code.replace(eager, lazy);
    }
    return { code, map: null };
  },
};

// The server hands out what is built here; while working on the page, `npm run dev` asks a server on port 5000.
export default defineConfig({
  plugins: [svelte(), lazyLanguages],
  base: "/page/",
  // The document's own addresses are whole, since it is shown at many; those of its parts go from part to part, so that a
  // site which is exported works below any address.
  experimental: { renderBuiltUrl: (name, { hostType }) => (hostType === "html" ? `/page/${name}` : { relative: true }) },
  build: {
    outDir: "../server/hub/page/built",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    license: { fileName: "licenses.md" },
  },
  server: { proxy: { "/ajax-api": "http://127.0.0.1:5000", "/get-artifact": "http://127.0.0.1:5000" } },
});
