import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The server hands out what is built here; while working on the page, `npm run dev` asks a server on port 5000.
export default defineConfig({
  plugins: [svelte()],
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
