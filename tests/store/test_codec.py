"""gittrack.store.codec: what goes in comes out, and nothing that comes in can do harm."""

from __future__ import annotations

import math
import re
import struct
import tracemalloc
from array import array
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given, settings, strategies as st

from gittrack.errors import FormatError, InvalidValueError
from gittrack.store import codec

INT64 = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6), max_leaves=30
)


def same(one: Any, other: Any) -> bool:
    """Equal, where NaN equals NaN and 0.0 is not -0.0 and True is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


# ---------------------------------------------------------------- documents


@given(VALUES)
@example([1, "loss", float("nan"), 2**64 - 1, -(2**63)])
@example({"a": [{}, [], b"", ""]})
def test_what_is_packed_is_unpacked(value: Any) -> None:
    data = codec.pack(value)
    assert same(codec.unpack(data), value)
    assert codec.pack(value) == data
    assert same(codec.unpack(memoryview(data)), value)
    assert same(codec.unpack(bytearray(data)), value)


@given(st.lists(SCALARS, max_size=10))
def test_the_fast_packer_writes_the_same_bytes(value: list[Any]) -> None:
    assert codec.packer()(value) == codec.packer()(tuple(value)) == codec.pack(value) == codec.pack(tuple(value))


def test_dicts_keep_the_order_they_are_given_in() -> None:
    assert list(codec.unpack(codec.pack({"b": 1, "a": 2}))) == ["b", "a"]


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        [1, 2**64],
        {1: "a"},
        {b"a": 1},
        {"a": [{"b": {None: 1}}]},
        {("a",): 1},
        "\ud800",
        {"\ud800": 1},
        object(),
        {1, 2},
        1j,
        [object()],
        msgpack.ExtType(1, b""),
        [msgpack.Timestamp(1, 1)],
        {"a": msgpack.ExtType(1, b"")},
    ],
    ids=lambda value: re.sub(r" at 0x[0-9a-f]+", "", repr(value)),  # the same in every worker
)
def test_what_cannot_be_read_back_is_not_packed(value: Any) -> None:
    with pytest.raises(InvalidValueError, match="cannot be stored"):
        codec.pack(value)


def nested(depth: int, kind: str = "list") -> Any:
    value: Any = [] if kind == "list" else {}
    for _ in range(depth - 1):
        value = [value] if kind == "list" else {"a": value}
    return value


@pytest.mark.parametrize("kind", ["list", "map"])
def test_both_sides_keep_the_same_depth(kind: str) -> None:
    deepest = nested(codec.MAX_DEPTH, kind)
    assert codec.unpack(codec.pack(deepest)) == deepest
    too_deep = nested(codec.MAX_DEPTH + 1, kind)
    with pytest.raises(InvalidValueError, match="deep"):
        codec.pack(too_deep)
    with pytest.raises(FormatError, match="deep"):
        codec.unpack(msgpack.packb(too_deep))
    with pytest.raises(FormatError, match="deep"):
        codec.unpack(msgpack.packb([too_deep, "x" * 5000]))
    with pytest.raises(FormatError, match="deep"):
        codec.unpack(msgpack.packb(nested(3, kind)), max_depth=2)


def test_both_sides_keep_the_same_number_of_entries() -> None:
    most = [0] * codec.MAX_ENTRIES
    assert codec.unpack(codec.pack(most)) == most
    for value in ([0] * (codec.MAX_ENTRIES + 1), [[0] * 999_999, 0], {str(n): n for n in range(500_001)}):
        with pytest.raises(InvalidValueError, match="more than"):
            codec.pack(value)
        with pytest.raises(FormatError, match="more than"):
            codec.unpack(msgpack.packb(value))


def test_both_sides_keep_the_same_size() -> None:
    most = bytes(codec.MAX_SIZE - 5)
    assert codec.unpack(codec.pack(most)) == most
    with pytest.raises(InvalidValueError, match="bytes"):
        codec.pack(most + b"x")
    with pytest.raises(FormatError, match="too large"):
        codec.unpack(msgpack.packb(most + b"x"))
    with pytest.raises(FormatError, match="too large"):
        codec.unpack(b"\xc4\x05hello", max_size=6)


#: Attacks M1-M9 of the threat matrix, and their kin.
HOSTILE = {
    "nothing": b"",
    "depth 600": b"\x91" * 600 + b"\xc0",
    "depth 100,000": b"\x91" * 100_000 + b"\xc0",
    "depth 100,000 of maps": b"\x81\xa1a" * 100_000 + b"\xc0",
    "array of 2**32": b"\xdd\xff\xff\xff\xff",
    "map of 2**32": b"\xdf\xff\xff\xff\xff",
    "bytes of 2**32": b"\xc6\xff\xff\xff\xff",
    "text of 2**32": b"\xdb\xff\xff\xff\xff",
    "arrays of 2**32, 32 deep": b"\xdd\xff\xff\xff\xff" * 32 + b"\xc0",
    "arrays that fit, 32 deep": (b"\xdd\x00\x0f\x00\x00" * 31) + bytes(983_040),
    "10 MB of empty maps": b"\xdd\x00\x98\x96\x80" + b"\x80" * 10_000_000,
    "10 MB of empty arrays": b"\xdd\x00\x98\x96\x80" + b"\x90" * 10_000_000,
    "64 MB of small integers": b"\xdd\x03\xff\xff\xf0" + bytes(67_108_848),
    "arrays of arrays of empty maps": b"\xdd\x00\x00\x40\x00" + (b"\xdc\x01\x00" + b"\x80" * 256) * 16384,
    "the same key twice": b"\x82\xa1a\x01\xa1a\x02",
    "the same key twice, inside": b"\x91\x82\xa1a\x01\xa1a\x01",
    "a number as key": b"\x81\x01\x01",
    "bytes as key": b"\x81\xc4\x01a\x01",
    "nothing as key": b"\x81\xc0\x01",
    "an array as key": b"\x81\x90\x01",
    "extension": b"\xd4\x05\x00",
    "empty extension": b"\xc7\x00\x05",
    "extension of 2**32": b"\xc9\xff\xff\xff\xff\x05",
    "timestamp": b"\xd6\xff\x00\x00\x00\x01",
    "long timestamp": b"\xc7\x0c\xff" + bytes(12),
    "extension inside": b"\x81\xa1a\xd8\x00" + bytes(16),
    "the byte that is never used": b"\xc1",
    "bad UTF-8": b"\xa1\xff",
    "a lone surrogate": b"\xa3\xed\xa0\x80",
    "bad UTF-8 as key": b"\x81\xa1\xff\x01",
    "trailing byte": b"\xc0\x00",
    "two documents": b"\x80\x80",
    "cut in a text": b"\xa5hel",
    "cut in a number": b"\xcb\x00\x00",
    "cut in a length": b"\xdc\x00",
    "cut in an array": b"\x92\x01",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_refused_cheaply(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = HOSTILE[name]
    monkeypatch.setattr(codec, "MAX_ENTRIES", 100_000)  # tracing memory is slow; the real limit is tested above
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            codec.unpack(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_the_most_expensive_document_within_the_limits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_ENTRIES", 100_000)
    data = msgpack.packb([{}] * (codec.MAX_ENTRIES - 1))
    tracemalloc.start()
    try:
        assert len(codec.unpack(data)) == codec.MAX_ENTRIES - 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 128 * codec.MAX_ENTRIES


@given(st.binary(max_size=200))
def test_only_format_errors_come_out_of_random_bytes(data: bytes) -> None:
    with suppress(FormatError):
        codec.unpack(data)


@settings(max_examples=300)
@given(VALUES, st.data())
def test_only_format_errors_come_out_of_damaged_documents(value: Any, draw: st.DataObject) -> None:
    data = bytearray(codec.pack(value))
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    for limit in (codec.MAX_DEPTH, 0):  # 0: measured even if short
        with suppress(FormatError):
            codec.unpack(data, max_depth=limit)


@settings(max_examples=300)
@given(st.binary(max_size=60) | VALUES.map(lambda value: bytes(msgpack.packb(value, default=str))))
def test_measuring_and_building_agree_about_what_is_well_formed(data: bytes) -> None:
    """The measure that runs first on large input refuses no document that msgpack reads within the limits."""
    try:
        msgpack.unpackb(data, strict_map_key=False, ext_hook=codec._refuse, max_ext_len=0, object_pairs_hook=list)
    except (ValueError, TypeError, msgpack.UnpackException):
        return  # msgpack refuses it itself; so does `unpack`
    codec._measure(data, codec.MAX_DEPTH)


# ---------------------------------------------------------------- frames


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8))
def test_frames_round_trip(payloads: list[bytes]) -> None:
    data = b"".join(map(codec.frame, payloads))
    found = list(codec.read_frames(data))
    assert [payload for _, payload in found] == payloads
    assert [end for end, _ in found][-1:] == ([len(data)] if payloads else [])
    assert list(codec.read_frames(memoryview(data))) == found
    for end, _ in found[:1]:
        assert list(codec.read_frames(data, end)) == found[1:]


def test_the_layout_of_a_frame_is_fixed() -> None:
    assert codec.frame(b"abc") == b"\x03\0\0\0" + crc32(b"abc").to_bytes(4, "little") + b"abc"


def test_every_truncation_gives_the_longest_valid_prefix() -> None:
    payloads = [b"one", b"x" * 300, bytes(5), b"four"]
    data = b"".join(map(codec.frame, payloads))
    ends = [0]
    for payload in payloads:
        ends.append(ends[-1] + 8 + len(payload))
    for cut in range(len(data) + 1):
        whole = sum(end <= cut for end in ends) - 1
        assert list(codec.read_frames(data[:cut])) == list(zip(ends[1:], payloads, strict=True))[:whole]


def test_every_flipped_bit_ends_the_reading_at_its_frame() -> None:
    payloads = [b"one", b"twotwo", b"three"]
    frames = [codec.frame(payload) for payload in payloads]
    data = b"".join(frames)
    starts = [0, len(frames[0]), len(frames[0]) + len(frames[1])]
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        before = sum(start <= bit // 8 for start in starts) - 1
        assert [payload for _, payload in codec.read_frames(damaged)] == payloads[:before]


@pytest.mark.parametrize("tail", [bytes(4096), b"\xff" * 4096, b"\xff\xff\xff\xff", struct.pack("<II", 1 << 31, 0)])
def test_what_a_power_cut_leaves_at_the_end_is_no_frame(tail: bytes) -> None:
    assert [payload for _, payload in codec.read_frames(codec.frame(b"a") + tail)] == [b"a"]


@given(st.binary(max_size=100), st.integers(0, 120))
def test_reading_frames_never_raises(data: bytes, offset: int) -> None:
    for end, payload in codec.read_frames(data, offset):
        assert codec.frame(payload) == data[end - 8 - len(payload) : end]


def test_a_frame_has_limits() -> None:
    for payload in (b"", bytes(codec.MAX_FRAME + 1)):
        with pytest.raises(InvalidValueError):
            codec.frame(payload)
    assert len(codec.frame(bytes(codec.MAX_FRAME))) == codec.MAX_FRAME + 8


# ---------------------------------------------------------------- metric columns


def columns(points: list[tuple[int, int, float]]) -> codec.Columns:
    return array("q", [p[0] for p in points]), array("q", [p[1] for p in points]), array("d", [p[2] for p in points])


def raw(history: dict[str, codec.Columns]) -> dict[str, list[bytes]]:
    return {key: [column.tobytes() for column in found] for key, found in history.items()}


HISTORIES = st.dictionaries(st.text(max_size=8), st.lists(st.tuples(INT64, INT64, st.floats()), max_size=6), max_size=5)


@given(HISTORIES)
def test_points_round_trip(points: dict[str, list[tuple[int, int, float]]]) -> None:
    history = {key: columns(some) for key, some in points.items()}
    data = codec.pack_points(history)
    assert raw(codec.unpack_points(data)) == raw(history)
    assert codec.pack_points(dict(reversed(history.items()))) == data
    for key in points:
        assert raw(codec.unpack_points(data, [key])) == raw({key: history[key]})
    assert codec.unpack_points(data, ["no such key, and too long"]) == {}


def test_points_are_little_endian_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    history = {"loss": columns([(1, 2, 0.5)])}
    little = codec.pack_points(history)
    assert codec.unpack(little) == {"loss": [struct.pack("<q", 1), struct.pack("<q", 2), struct.pack("<d", 0.5)]}
    monkeypatch.setattr(codec, "sys", SimpleNamespace(byteorder="big"))  # the arrays are little-endian all the same,
    swapped = codec.pack_points(history)  # so what such a host does shows as swapped bytes
    assert codec.unpack(swapped) == {"loss": [struct.pack(">q", 1), struct.pack(">q", 2), struct.pack(">d", 0.5)]}
    assert raw(codec.unpack_points(swapped)) == raw(history)


@pytest.mark.parametrize(
    "history",
    [
        {"a": (array("q", [1]), array("q", []), array("d", [1]))},
        {"a": (array("q", [1]), array("d", [1]), array("d", [1]))},
        {"a": (array("q"), array("q"))},
        {"\ud800": columns([])},
        {1: columns([])},
    ],
    ids=repr,
)
def test_columns_that_do_not_fit_together_are_not_packed(history: Any) -> None:
    with pytest.raises(InvalidValueError):
        codec.pack_points(history)


@pytest.mark.parametrize(
    "document",
    [
        [],
        None,
        {"a": b""},
        {"a": [b"", b""]},
        {"a": [b"", b"", b"", b""]},
        {"a": [b"", b"", "text"]},
        {"a": [bytes(8), bytes(8), bytes(16)]},
        {"a": [bytes(7), bytes(7), bytes(7)]},
        {"a": [1, 2, 3]},
    ],
    ids=repr,
)
def test_a_malformed_segment_is_a_format_error(document: Any) -> None:
    with pytest.raises(FormatError):
        codec.unpack_points(msgpack.packb(document))


@given(HISTORIES, st.data())
def test_only_format_errors_come_out_of_a_damaged_segment(points: dict[str, Any], draw: st.DataObject) -> None:
    data = bytearray(codec.pack_points({key: columns(some) for key, some in points.items()}))
    data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(FormatError):
        codec.unpack_points(bytes(data[: draw.draw(st.integers(0, len(data)))]))
