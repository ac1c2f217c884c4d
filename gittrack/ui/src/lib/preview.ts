// What a file can be shown as, by its name; and the texts of tables and terminals.

export type Kind = "image" | "audio" | "video" | "table" | "parquet" | "json" | "markdown" | "document" | "pdf" | "text" | "other";

const KINDS: [Kind, RegExp][] = [
  ["image", /\.(png|jpe?g|gif|webp|avif|bmp|svg|ico)$/i],
  ["audio", /\.(wav|mp3|ogg|oga|opus|flac|m4a|aac)$/i],
  ["video", /\.(mp4|webm|ogv|m4v|mov)$/i],
  ["table", /\.(csv|tsv)$/i],
  ["parquet", /\.parquet$/i],
  ["json", /\.(json|ipynb|geojson)$/i],
  ["markdown", /\.(md|markdown)$/i],
  ["document", /\.html?$/i],
  ["pdf", /\.pdf$/i],
  ["text", /\.(txt|ya?ml|jsonl|ndjson|log|out|err|py|r|jl|js|ts|c|cc|cpp|h|rs|go|java|sh|bat|toml|cfg|conf|ini|xml|xsl|css|sql|tex|rst|diff|patch|lock|env)$/i],
];
/** Files that are text although nothing in their name tells. */
const TEXTS = /(^|\/)(MLmodel|MLproject|Dockerfile|Makefile|README|LICENSE|requirements[^/]*|\.?[a-z]+ignore)$/;

export function kindOf(path: string): Kind {
  const found = KINDS.find(([, pattern]) => pattern.test(path));
  return found ? found[0] : TEXTS.test(path) ? "text" : "other";
}

/** The rows of a CSV or TSV (RFC 4180, with `\n`, too), `most` of them. */
export function cells(text: string, separator: string, most: number): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let at = 0;
  while (at < text.length && rows.length < most) {
    let cell = "";
    if (text[at] === '"') {
      for (at += 1; at < text.length; at += 1) {
        if (text[at] !== '"') cell += text[at];
        else if (text[at + 1] === '"') cell += text[(at += 1)];
        else break;
      }
      at += 1;
    }
    const start = at;
    while (at < text.length && text[at] !== separator && text[at] !== "\n") at += 1;
    cell += text.slice(start, at);
    const ends = text[at] !== separator;
    row.push(ends ? cell.replace(/\r$/, "") : cell);
    at += 1;
    if (ends) {
      rows.push(row);
      row = [];
    }
  }
  if (row.length) rows.push(row); // it ended behind a separator
  return rows;
}

/** The table in what `log_table` writes: columns and rows, as pandas splits them; null if it is none. */
export function splitTable(value: unknown): string[][] | null {
  const found = value as { columns?: unknown; data?: unknown } | null;
  if (typeof found !== "object" || !found || !Array.isArray(found.columns) || !Array.isArray(found.data)) return null;
  if (!found.data.every(Array.isArray)) return null;
  const shown = (one: unknown): string => (typeof one === "string" ? one : one === null ? "" : JSON.stringify(one));
  return [found.columns, ...(found.data as unknown[][])].map((row) => row.map(shown));
}

/** What a terminal would show: without colours, and of a line that was written over only the last state. */
export function printed(text: string): string {
  return text
    .replace(/\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g, "")
    .replace(/\r+\n/g, "\n")
    .replace(/^[^\n]*\r(?=[^\n])/gm, "")
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, "");
}
