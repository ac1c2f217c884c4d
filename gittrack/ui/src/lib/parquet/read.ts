// The first rows of a Parquet file as texts, out of as few of its bytes as that takes.  What cannot be read is left out,
// and why is said.

import { type AsyncBuffer, type FileMetaData, type ParquetParsers, parquetMetadataAsync, parquetRead, parquetSchema, type SchemaTree } from "hyparquet";

export interface Sheet {
  /** The names of the columns, then their values row by row. */
  rows: string[][];
  /** Of each column. */
  types: string[];
  /** How many rows and columns the file has. */
  total: number;
  wide: number;
  /** Columns that cannot be read, and what each is. */
  left: { name: string; why: string }[];
}

/** Why no table of the file can be shown, in words for people. */
export class Unreadable extends Error {}

/** A file up to this size is fetched at once; its end, where it says what is in it, is fetched in pieces of this size. */
const PIECE = 256 << 10;
/** Bytes of what it says of itself, of the beginning of one column, and of all of them. */
const ABOUT = 4 << 20;
const COLUMN = 2 << 20;
const ALL = 16 << 20;
const ROWS = 1000;
const WIDE = 200;
const LONG = 1000;

/** A time as a text, to the last digit that is there. */
function moment(units: bigint, perSecond: bigint): string {
  let seconds = units / perSecond;
  if (seconds * perSecond > units) seconds -= 1n;
  const date = new Date(Number(seconds) * 1000);
  if (Number.isNaN(date.getTime())) return String(units);
  const rest = units - seconds * perSecond;
  const digits = rest ? `.${String(rest).padStart(String(perSecond).length - 1, "0").replace(/0+$/, "")}` : "";
  return date.toISOString().replace("T", " ").replace(/\.\d+Z$/, digits);
}

const decoder = new TextDecoder();
const decoded = (bytes: Uint8Array): string => bytes && decoder.decode(bytes);
const PARSERS: Partial<ParquetParsers> = {
  timestampFromMilliseconds: (units) => moment(BigInt(units), 1000n),
  timestampFromMicroseconds: (units) => moment(BigInt(units), 1_000_000n),
  timestampFromNanoseconds: (units) => moment(BigInt(units), 1_000_000_000n),
  dateFromDays: (days) => moment(BigInt(days) * 86_400n, 1n).slice(0, -" 00:00:00".length),
  jsonFromBytes: decoded,
};

function text(value: unknown): string {
  if (value === null || value === undefined) return "";
  const inner = (_: string, one: unknown): unknown => (typeof one === "bigint" ? String(one) : one instanceof Uint8Array ? `${one.length} bytes` : one);
  const said = typeof value === "object" && !(value instanceof Uint8Array) ? JSON.stringify(value, inner) : String(inner("", value));
  return said.length > LONG ? `${said.slice(0, LONG)}…` : said;
}

/** The type of a column, as Arrow and pandas name it where they do. */
function typeOf({ element, children }: SchemaTree): string {
  const { type, converted_type: old, logical_type: now } = element;
  if (children.length) return old === "LIST" || old === "MAP" ? old.toLowerCase() : now?.type === "LIST" || now?.type === "MAP" ? now.type.toLowerCase() : "struct";
  if (now?.type === "INTEGER") return `${now.isSigned ? "" : "u"}int${now.bitWidth}`;
  if (now?.type === "TIMESTAMP") return now.isAdjustedToUTC ? "timestamp, UTC" : "timestamp";
  if (old === "UTF8") return "string";
  if (now || old) return (now?.type ?? old ?? "").toLowerCase();
  return { BOOLEAN: "bool", INT96: "timestamp", BYTE_ARRAY: "bytes", FIXED_LEN_BYTE_ARRAY: "bytes" }[type as string] ?? (type ?? "").toLowerCase();
}

/** What a column needs: how it is compressed, and where its bytes are. */
function chunks(metadata: FileMetaData, name: string): { codec: string; start: number; end: number }[] {
  return (metadata.row_groups[0]?.columns ?? []).flatMap(({ meta_data: one }) => {
    if (one?.path_in_schema[0] !== name) return [];
    const start = Number(one.dictionary_page_offset || one.data_page_offset);
    return [{ codec: one.codec, start, end: start + Number(one.total_compressed_size) }];
  });
}

async function about(file: AsyncBuffer): Promise<{ metadata: FileMetaData; columns: SchemaTree[] }> {
  const bounded: AsyncBuffer = {
    byteLength: file.byteLength,
    slice(start, end = file.byteLength) {
      if (end - start > ABOUT) throw new Unreadable("What this file says of its columns is too long to be read here.");
      return file.slice(start, end);
    },
  };
  try {
    const metadata = await parquetMetadataAsync(bounded, { parsers: PARSERS, initialFetchSize: PIECE, geoparquet: false });
    return { metadata, columns: parquetSchema(metadata).children };
  } catch (error) {
    throw error instanceof Unreadable ? error : new Unreadable("This is no Parquet file, or it is damaged.");
  }
}

/** Raises Unreadable.  That bytes do not come is not looked at here: who gives them ends the reading. */
export async function read(source: AsyncBuffer): Promise<Sheet> {
  const whole = source.byteLength <= PIECE ? await source.slice(0, source.byteLength) : null;
  const file: AsyncBuffer = { byteLength: source.byteLength, slice: (start, end) => (whole ?? source).slice(start, end) };
  const { metadata, columns } = await about(file);
  const count = Math.min(ROWS, Math.max(0, Number(metadata.row_groups[0]?.num_rows ?? 0)));
  const left: Sheet["left"] = [];
  const shown: { head: string; type: string; values: string[] }[] = [];
  let budget = ALL;
  for (const column of columns.slice(0, WIDE)) {
    const name = column.element.name;
    const its = chunks(metadata, name);
    const unknown = its.find(({ codec }) => codec !== "UNCOMPRESSED" && codec !== "SNAPPY");
    if (unknown) {
      left.push({ name, why: `compressed with ${unknown.codec}, which this page does not read` });
      continue;
    }
    // Of a column that is longer only the beginning comes: as a rule its first pages have all rows that are wanted.
    const beginning: AsyncBuffer = {
      byteLength: file.byteLength,
      slice(start, end = file.byteLength) {
        const size = Math.min(end - start, COLUMN);
        if (!(start >= 0) || !(size > 0) || size > budget) throw new Unreadable();
        budget -= size;
        return file.slice(start, start + size);
      },
    };
    try {
      let values: unknown[] = [];
      if (count) {
        await parquetRead({
          file: beginning,
          metadata,
          columns: [name],
          rowEnd: count,
          parsers: PARSERS,
          utf8: false,
          geoparquet: false,
          onComplete: (rows) => (values = rows.map(([value]) => value)),
        });
        if (values.length < count) throw new Unreadable(); // not all of them are in the beginning
      }
      shown.push({ head: name, type: typeOf(column), values: values.map(text) });
    } catch {
      left.push({ name, why: its.some(({ start, end }) => end - start > COLUMN) ? "too large" : "damaged, or of a kind that this page does not read" });
    }
  }
  if (columns.length && !shown.length) throw new Unreadable(`None of its columns can be shown: the first is ${left[0]?.why}.`);
  const rows = Array.from({ length: count }, (_, at) => shown.map(({ values }) => values[at] ?? ""));
  return { rows: [shown.map(({ head }) => head), ...rows], types: shown.map(({ type }) => type), total: Number(metadata.num_rows), wide: columns.length, left };
}
