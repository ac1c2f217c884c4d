import { expect, test } from "vitest";

import vectors from "./arrow.vectors.json";
import { read, type Sheet } from "./read";

const bytes = (text: string): ArrayBuffer => Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer;
const sheet = (file: ArrayBuffer): Promise<Sheet> => read({ byteLength: file.byteLength, slice: (start, end) => file.slice(start, end) });

// Three rows as pyarrow 25 writes them (`pyarrow.parquet.write_table`), in several of its ways.
test.each(Object.entries(vectors))("every type, as pyarrow writes it: %s", async (_, file) => {
  const { rows, types, total, left } = await sheet(bytes(file));
  const columns = (rows[0] ?? []).map((name, at) => [name, types[at], ...rows.slice(1).map((row) => row[at])]);
  expect(columns).toEqual([
    ["id", "int64", "1", "2", "1152921504606846976"],
    ["small", "uint8", "1", "", "3"],
    ["name", "string", "a", "", "<b>"],
    ["loss", "double", "0.5", "NaN", ""],
    ["at", "timestamp, UTC", "2024-01-02 03:04:05.678901", "", "1969-12-31 23:59:59.5"],
    ["day", "date", "2024-02-29", "", "1969-12-31"],
    ["tags", "list", '["x","y"]', "[]", ""],
    ["point", "struct", '{"x":1,"y":2.5}', "", '{"x":3,"y":null}'],
    ["raw", "bytes", "2 bytes", "", "0 bytes"],
    ["ok", "bool", "true", "false", ""],
    ["class", "string", "cat", "dog", "cat"],
    ["price", "decimal", "1.25", "", "-3.5"],
  ]);
  expect([total, left]).toEqual([3, []]);
});

test("of a file with a byte that is wrong, or without its end, what can be read is shown, or why nothing can", async () => {
  const file = new Uint8Array(bytes(vectors["dictionaries, snappy"]));
  let shown = 0;
  for (let at = 0; at < file.length; at += 7) {
    const wrong = file.slice();
    wrong[at] = (wrong[at] ?? 0) ^ 0xff;
    for (const one of [wrong, file.slice(0, at)]) {
      const found = await sheet(one.buffer).catch((error: Error) => error);
      if (found instanceof Error) expect(found.message).toMatch(/^(This is no Parquet file|None of its columns can be shown|What this file says)/);
      else shown += 1;
    }
  }
  expect(shown).toBeGreaterThan(50);
});
