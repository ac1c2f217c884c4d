"""Protocol buffers read by hand: what is written comes back, and no bytes do more than to be refused."""

import contextlib
import io
import struct
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gittrack.convert.tensorboard import Events, Place, masked_crc
from gittrack.convert.wandb import Log
from gittrack.convert.wire import Message, fields
from gittrack.errors import FormatError
from tests.convert.stores import message, varint

PLACE = Place(Path("events"), 0, 0)
_numbers = st.integers(1, 30)
_values = st.one_of(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=20), st.floats(allow_nan=False))
#: Messages in messages, such as no writer would write.
_nested = st.recursive(
    st.lists(st.tuples(_numbers, _values), max_size=4).map(lambda found: message(*found)),
    lambda inner: st.lists(st.tuples(_numbers, inner), max_size=4).map(lambda found: message(*found)),
    max_leaves=12,
)


@given(st.lists(st.tuples(_numbers, _values), max_size=10))
def test_what_is_written_comes_back(given: list[tuple[int, object]]) -> None:
    found = Message(message(*given))
    for number, value in dict(given).items():
        if isinstance(value, int):
            assert found.int64(number) == value or len({type(v) for n, v in given if n == number}) > 1
        elif isinstance(value, float):
            assert found.double(number) == value or len({type(v) for n, v in given if n == number}) > 1
        else:
            assert any(read == value for n, read in fields(message(*given)) if n == number)


@given(st.one_of(st.binary(max_size=60), _nested))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for reader in (partial(Events(Counter()).read, place=PLACE), Log().read):
        with contextlib.suppress(FormatError):
            reader(Message(data))


@given(_nested, _nested)
def test_events_of_any_shape(value: bytes, tensor: bytes) -> None:
    """As deep as the reader goes: an event, its summary, a value, its tensor and its plug-in's data."""
    events = Events(Counter())
    inner = message((1, "tag"), (8, tensor), (9, message((1, message((1, "hparams"), (2, value))))))
    for name in ("tag", "_hparams_/session_start_info"):
        with contextlib.suppress(FormatError):
            events.read(
                Message(message((1, 1.7e9), (2, 3), (5, message((1, message((1, name)) + inner + value))))), PLACE
            )
    list(events.series)
    assert all(isinstance(text, str) for text in events.params.values())


@given(st.sampled_from([2, 3, 5, 7, 17, 18, 26]), _nested)
def test_records_of_any_shape(kind: int, data: bytes) -> None:
    log = Log()
    with contextlib.suppress(FormatError):
        log.read(Message(message((kind, data))))
    run = log.to_run("a" * 32)
    list(run.metrics())
    assert all(isinstance(text, str) for text in run.params.values())


@given(st.binary(max_size=200), st.binary(max_size=80))
def test_files_of_any_bytes(data: bytes, more: bytes) -> None:
    from gittrack.convert.wandb import HEADER, records

    with contextlib.suppress(FormatError):
        list(records(io.BytesIO(HEADER + data)))
    with contextlib.suppress(FormatError):
        list(records(io.BytesIO(more)))


@given(data=st.binary(max_size=200))
def test_event_files_of_any_bytes(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    from gittrack.convert.tensorboard import records

    path: Path = tmp_path_factory.getbasetemp() / "events"
    head = struct.pack("<Q", len(data))
    path.write_bytes(head + struct.pack("<I", masked_crc(head)) + data + data)
    with contextlib.suppress(FormatError), path.open("rb") as file:
        list(records(file))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (1, 5, varint(5 << 3 | 5) + struct.pack("<f", 0.5)),  # unpacked, as proto2 has it
        (1, 5, varint(5 << 3 | 2) + varint(4) + struct.pack("<f", 0.5)),
        (2, 6, varint(6 << 3 | 1) + struct.pack("<d", 0.5)),
        (1, 4, varint(4 << 3 | 2) + varint(4) + struct.pack("<f", 0.5)),
        (19, 13, varint(13 << 3 | 2) + varint(2) + varint(0x3800)),  # half of a half
        (19, 13, varint(13 << 3) + varint(0x3800)),
    ],
)
def test_every_way_to_write_a_scalar(kind: int, field: int, value: bytes) -> None:
    events = Events(Counter())
    tensor = message((1, kind)) + value
    events.read(Message(message((1, 1.7e9), (5, message((1, message((1, "t"), (8, tensor))))))), PLACE)
    assert [one.value for one in events.series] == [0.5]
