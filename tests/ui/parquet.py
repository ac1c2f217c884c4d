"""Small Parquet files, written by the format's description: whole ones, and ones that claim what is not so.

Numbers of the format: https://github.com/apache/parquet-format, in `parquet.thrift` and `Encodings.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

PLAIN, RLE = 0, 3
CODECS: Final = {"plain": 0, "snappy": 1, "zstd": 6}
OPTIONAL: Final = 1
UTF8: Final = 0
#: The types of Thrift's compact protocol that are needed.
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
_LITERAL: Final = 61 << 2  #: Snappy's mark of bytes as they are, with a length of two bytes

Value = int | float | str | None


def parquet(
    columns: Mapping[str, Sequence[Value]], *, codec: str = "plain", page: int = 1000, claimed: int | None = None
) -> bytes:
    """A file of one row group.

    Args:
        columns: Columns of the same length, each of whole numbers, of numbers or of texts.
        codec: What it is compressed with; of "zstd" there is only the claim.
        page: Rows of a page.
        claimed: How many values each page says that it has, none of them known, if not as many as it has.
    """
    data = bytearray(b"PAR1")
    schema = [_struct((4, _BINARY, b"schema"), (5, _I32, len(columns)))]
    chunks = []
    for name, values in columns.items():
        kind, converted = _type(values)
        start = len(data)
        for at in range(0, len(values), page):
            data += _page(values[at : at + page], codec, claimed)
        size = len(data) - start
        annotated = [] if converted is None else [(6, _I32, converted)]
        schema.append(_struct((1, _I32, kind), (3, _I32, OPTIONAL), (4, _BINARY, name.encode()), *annotated))
        about = _struct(
            (1, _I32, kind), (2, _LIST, _list(_I32, [_zigzag(PLAIN), _zigzag(RLE)])),
            (3, _LIST, _list(_BINARY, [_binary(name.encode())])), (4, _I32, CODECS[codec]), (5, _I64, len(values)),
            (6, _I64, size), (7, _I64, size), (9, _I64, start),
        )  # fmt: skip
        chunks.append(_struct((2, _I64, start), (3, _STRUCT, about)))
    rows = max(map(len, columns.values()))
    group = _struct((1, _LIST, _list(_STRUCT, chunks)), (2, _I64, len(data)), (3, _I64, rows))
    about = _struct(
        (1, _I32, 1), (2, _LIST, _list(_STRUCT, schema)), (3, _I64, rows), (4, _LIST, _list(_STRUCT, [group]))
    )
    return bytes(data + about + struct.pack("<I", len(about)) + b"PAR1")


def _type(values: Sequence[Value]) -> tuple[int, int | None]:
    """The type of a column, and what it is taken for."""
    (kind,) = {type(value) for value in values if value is not None}
    return {int: (2, None), float: (5, None), str: (6, UTF8)}[kind]


def _page(values: Sequence[Value], codec: str, claimed: int | None) -> bytes:
    runs = [(len(list(run)), known) for known, run in groupby(one is not None for one in values)]
    if claimed is not None:
        runs = [(claimed, False)]
    levels = b"".join(_varint(length << 1) + bytes((known,)) for length, known in runs)
    plain = struct.pack("<I", len(levels)) + levels + b"".join(map(_plain, values))
    packed = _snappy(plain) if codec == "snappy" else plain
    count = len(values) if claimed is None else claimed
    about = _struct((1, _I32, count), (2, _I32, PLAIN), (3, _I32, RLE), (4, _I32, RLE))
    return _struct((1, _I32, 0), (2, _I32, len(plain)), (3, _I32, len(packed)), (5, _STRUCT, about)) + packed


def _plain(value: Value) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        data = value.encode()
        return struct.pack("<I", len(data)) + data
    return struct.pack("<q" if isinstance(value, int) else "<d", value)


def _snappy(data: bytes) -> bytes:
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    return _varint(len(data)) + b"".join(struct.pack("<BH", _LITERAL, len(one) - 1) + one for one in pieces)


# --- Thrift's compact protocol


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes((*found, number))


def _zigzag(number: int) -> bytes:
    return _varint(number << 1 if number >= 0 else (-number << 1) - 1)


def _binary(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _list(kind: int, items: Sequence[bytes]) -> bytes:
    head = bytes((len(items) << 4 | kind,)) if len(items) < 15 else bytes((0xF0 | kind,)) + _varint(len(items))
    return head + b"".join(items)


def _struct(*fields: tuple[int, int, int | bytes]) -> bytes:
    """Fields by number and type, in the order of their numbers; lists and structs as they are packed."""
    found, last = bytearray(), 0
    for number, kind, value in fields:
        found.append(number - last << 4 | kind)
        last = number
        found += _zigzag(value) if isinstance(value, int) else _binary(value) if kind == _BINARY else value
    return bytes((*found, 0))
