"""msgpack in and out, strictly; frames; metric columns.

Whatever ``pack`` returns, ``unpack`` reads: both keep the same limits.  ``unpack`` is made for bytes from anywhere: it
measures them before it builds anything, so that no input costs much more memory than the limits allow, and the only
error that leaves it is FormatError.

A frame is ``u32 length, u32 crc32(payload), payload``, little-endian.  No frame is empty: the zeros that a power cut
can leave at the end of a file would otherwise read as valid empty frames.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from struct import Struct
from typing import Any, Final
from zlib import crc32

import msgpack  # type: ignore[import-untyped]  # it ships no types

from gittrack.errors import FormatError, InvalidValueError

MAX_SIZE: Final = 64 << 20  #: bytes of one document
MAX_DEPTH: Final = 32  #: arrays and maps inside each other
MAX_ENTRIES: Final = 1_000_000  #: values inside one document, keys and containers included
MAX_FRAME: Final = 64 << 20  #: bytes of a frame's payload
MAX_SEGMENT: Final = 1 << 30  #: bytes of one ``pack_points``

Columns = tuple["array[int]", "array[int]", "array[float]"]  #: steps, timestamps (ms), values

HEADER: Final = Struct("<II")
_SCALARS: Final = frozenset({int, float, str, bool, bytes, type(None)})
_CONTAINERS: Final = frozenset({list, dict})
_NESTING: Final = (list, dict, tuple, msgpack.ExtType, msgpack.Timestamp)
_SMALL: Final = 4096  # bytes that cannot cost much memory, whatever they say
_pack_flat: Final[Callable[[Any], bytes]] = msgpack.Packer(use_bin_type=True, buf_size=_SMALL).pack


# ---------------------------------------------------------------- documents


def packer() -> Callable[[Any], bytes]:
    """``pack`` without its checks, for arrays of scalars: the fastest way to a journal's payload.

    Threads may share what it returns only for arrays of scalars (no dicts, no arrays inside): packing those neither
    lets another thread in nor runs any Python code.

    Raises (when called):
        OverflowError, TypeError, ValueError: As msgpack does.
    """
    pack_one: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True, buf_size=_SMALL).pack
    return pack_one


def pack(value: Any) -> bytes:
    """``value`` as msgpack: None, bool, int, float, str, bytes, and lists, tuples and dicts of them.

    The same value gives the same bytes; dicts are written in their own order, so the caller sorts them.

    Raises:
        InvalidValueError: A type, an integer outside -2**63 … 2**64-1, a key that is no text, text with lone
            surrogates, or a size, depth or number of entries beyond the limits of this module.
    """
    if type(value) is list and _flat(value):
        return _packed(value, _pack_flat, MAX_SIZE)
    _check(value)
    return _packed(value, packer(), MAX_SIZE)


def _flat(value: list[Any]) -> bool:
    for item in value:  # a loop: twice as fast as any() or a set for the few values of an event
        if type(item) not in _SCALARS:
            return False
    return len(value) <= MAX_ENTRIES


def _packed(value: Any, pack_one: Callable[[Any], bytes], max_size: int) -> bytes:
    try:
        data = pack_one(value)
    except (OverflowError, TypeError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"cannot be stored: {error}") from error
    if len(data) > max_size:
        raise InvalidValueError(f"cannot be stored: {len(data)} bytes are more than {max_size}")
    return data


def _check(value: Any) -> None:
    """Refuses what ``unpack`` would refuse; types that msgpack does not know are left to msgpack."""
    entries = 0
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                for key in item:
                    if not isinstance(key, str):
                        raise InvalidValueError(f"cannot be stored: key `{key!r:.80}` is not text")
                entries += 2 * len(item)
                inner.extend(inside for inside in item.values() if isinstance(inside, _NESTING))
            elif isinstance(item, (msgpack.ExtType, msgpack.Timestamp)):
                raise InvalidValueError("cannot be stored: it holds a msgpack extension type")
            elif isinstance(item, (list, tuple)):
                entries += len(item)
                inner.extend(inside for inside in item if isinstance(inside, _NESTING))
        if entries > MAX_ENTRIES:
            raise InvalidValueError(f"cannot be stored: it holds more than {MAX_ENTRIES} values")
        if not inner:
            return
        level = inner
    raise InvalidValueError(f"cannot be stored: nested more than {MAX_DEPTH} deep")


def unpack(data: bytes | bytearray | memoryview, *, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> Any:
    """The value that ``data`` holds; arrays come back as lists.

    Args:
        data: One whole msgpack document.
        max_size: Bytes that ``data`` may have.
        max_depth: How far arrays and maps may be nested.

    Raises:
        FormatError: Not exactly one document of this format within its limits.
    """
    size = len(data)
    if size > max_size:
        raise FormatError(f"too large: {size} bytes, at most {max_size}")
    if not isinstance(data, bytes):
        data = bytes(data)
    # Few bytes that could open a container cannot nest deeply, and few bytes in all cannot build much.
    plain = size <= _SMALL and (size <= max_depth or size - len(data.translate(None, _OPENERS)) <= max_depth)
    if size > MAX_ENTRIES:
        _measure(data, max_depth)
    try:
        if not plain:
            _skip(data)
        found = msgpack.unpackb(data, object_pairs_hook=_unique, ext_hook=_refuse, max_ext_len=0)
    except FormatError:
        raise
    except (ValueError, msgpack.UnpackException) as error:  # ValueError: also bad UTF-8, trailing bytes, bad lengths
        raise FormatError(f"not valid msgpack: {error!s:.120}") from error
    if not plain:
        _check_depth(found, max_depth)
    return found


def _unique(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FormatError("a map has the same key twice")
    for key in found:
        if type(key) is not str:
            raise FormatError("a map has a key that is not text")
    return found


def _skip(data: bytes) -> None:
    """Raises what msgpack raises if a container has less in it than it says; builds nothing.

    After that, building makes at most one value of each byte, and as many levels as msgpack can keep, 1,024.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()


def _check_depth(value: Any, max_depth: int) -> None:
    level = [value] if type(value) in _CONTAINERS else []
    depth = 0
    while level:
        depth += 1
        if depth > max_depth:
            raise FormatError(f"nested more than {max_depth} deep")
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _CONTAINERS
        ]


def _refuse(code: int, _data: bytes) -> Any:
    raise FormatError(f"msgpack extension type {code} is not allowed")


_OPENERS: Final = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])

# For each first byte: (bytes that follow it, width of a length field, kind of what the length counts).
_ARRAY, _MAP, _BYTES, _NOTHING, _BAD = range(5)


def _leads() -> list[tuple[int, int, int]]:
    table = [(0, 0, _NOTHING)] * 256
    for lead in range(0x80, 0x90):
        table[lead] = (lead & 0x0F, 0, _MAP)
    for lead in range(0x90, 0xA0):
        table[lead] = (lead & 0x0F, 0, _ARRAY)
    for lead in range(0xA0, 0xC0):
        table[lead] = (lead & 0x1F, 0, _BYTES)
    for lead in (0xC1, 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)):
        table[lead] = (0, 0, _BAD)
    for lead, width in ((0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4)):
        table[lead] = (0, width, _BYTES)
    for lead, size in ((0xCA, 4), (0xCB, 8), (0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        table[lead] = (size, 0, _BYTES)
    for lead, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        table[lead] = (size, 0, _BYTES)
    for lead, width, kind in ((0xDC, 2, _ARRAY), (0xDD, 4, _ARRAY), (0xDE, 2, _MAP), (0xDF, 4, _MAP)):
        table[lead] = (0, width, kind)
    return table


_LEADS: Final = _leads()


def _measure(data: bytes, max_depth: int) -> None:
    """Raises FormatError if building ``data`` would break a limit; builds nothing itself."""
    size = len(data)
    at = 0
    entries = 0
    open_: list[int] = []  # values still to come, for each container that is open
    left = 1  # values still to come in the innermost one
    while True:
        while not left:
            if not open_:
                return  # trailing bytes are msgpack's to find
            left = open_.pop()
        if at >= size:
            raise FormatError("not valid msgpack: it ends too early")
        left -= 1
        count, width, kind = _LEADS[data[at]]
        at += 1
        if kind == _NOTHING:
            continue
        if width:
            count = int.from_bytes(data[at : at + width], "big")
            at += width
        if kind == _BYTES:
            at += count
        elif kind == _BAD:
            raise FormatError("msgpack extension types are not allowed")
        else:
            if kind == _MAP:
                count *= 2
            entries += count
            if entries > MAX_ENTRIES:
                raise FormatError(f"more than {MAX_ENTRIES} entries")
            open_.append(left)
            if len(open_) > max_depth:
                raise FormatError(f"nested more than {max_depth} deep")
            left = count


# ---------------------------------------------------------------- frames


def frame(payload: bytes) -> bytes:
    """``payload`` with its length and checksum in front.

    Raises:
        InvalidValueError: It is empty or longer than MAX_FRAME.
    """
    if not 0 < len(payload) <= MAX_FRAME:
        raise InvalidValueError(f"a frame holds 1 to {MAX_FRAME} bytes, not {len(payload)}")
    return HEADER.pack(len(payload), crc32(payload)) + payload


def read_frames(buffer: bytes | bytearray | memoryview, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The frames of ``buffer`` from ``offset`` on, as (offset behind the frame, payload).

    Ends at the first frame that is cut off or does not match its checksum, and never raises for one.
    """
    size = len(buffer)
    header = HEADER.unpack_from
    while offset + 8 <= size:
        length, checksum = header(buffer, offset)
        end = offset + 8 + length
        if not 0 < length <= MAX_FRAME or end > size:
            return
        payload = bytes(buffer[offset + 8 : end])
        if crc32(payload) != checksum:
            return
        offset = end
        yield end, payload


# ---------------------------------------------------------------- metric columns


def pack_points(history: Mapping[str, Columns]) -> bytes:
    """Metric histories as one segment: ``{key: [steps, timestamps, values]}``, 64-bit little-endian arrays.

    Args:
        history: For each metric key its steps (array ``q``), timestamps (ms, array ``q``) and values (array ``d``).

    Raises:
        InvalidValueError: Columns of unequal length or other types, or more than MAX_SEGMENT bytes.
    """
    document: dict[str, list[bytes]] = {}
    for key in sorted(history):
        columns = history[key]
        if [column.typecode for column in columns] != ["q", "q", "d"] or len({len(c) for c in columns}) != 1:
            raise InvalidValueError(f"the columns of metric `{key!s:.80}` do not fit together")
        document[key] = [_little(column).tobytes() for column in columns]
    _check(document)
    return _packed(document, packer(), MAX_SEGMENT)


def unpack_points(data: bytes | bytearray | memoryview, keys: Collection[str] | None = None) -> dict[str, Columns]:
    """The histories that ``pack_points`` packed; only those of ``keys`` if given (a key without points is left out).

    Raises:
        FormatError: Not a segment.
    """
    document = unpack(data, max_size=MAX_SEGMENT)
    if not isinstance(document, dict):
        raise FormatError("a segment of metrics must be a map")
    found: dict[str, Columns] = {}
    for key, columns in document.items():
        if keys is not None and key not in keys:
            continue
        if not isinstance(columns, list) or [type(column) for column in columns] != [bytes, bytes, bytes]:
            raise FormatError(f"metric `{key:.80}` is not three columns")
        if len({len(column) for column in columns}) != 1 or len(columns[0]) % 8:
            raise FormatError(f"the columns of metric `{key:.80}` have different lengths")
        found[key] = (_array("q", columns[0]), _array("q", columns[1]), _array("d", columns[2]))
    return found


def _array(typecode: str, data: bytes) -> array[Any]:
    column: array[Any] = array(typecode)
    column.frombytes(data)
    return _little(column)


def _little(column: array[Any]) -> array[Any]:
    """The same bits in little-endian order (or back); a copy on hosts that are not little-endian."""
    if sys.byteorder == "little":
        return column
    column = column[:]
    column.byteswap()
    return column
