"""Protocol buffers' wire format, read strictly: the fields of a message, one level at a time.

Source: https://protobuf.dev/programming-guides/encoding/.  Groups, which nothing read here uses, are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gittrack.errors import FormatError

Value = int | bytes


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(number, value) of each field, in order: a varint or fixed value as an int, all others as their bytes.

    Raises:
        FormatError: It is no message.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise FormatError("a message has field 0")
        value: Value
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        else:
            raise FormatError(f"a message has a field of wire type {kind}")
        if at > end:
            raise FormatError("a message is cut off")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(at, min(at + 10, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + 1
        shift += 7
    raise FormatError("a message is cut off")


class Message:
    """The fields of one message, by number; asked for by the type that they are to have.

    Raises:
        FormatError: Always, where a field has another type.
    """

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[Value]] = {}
        for number, value in fields(data):
            self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def last(self, number: int) -> Value:
        """The last value of a field that there is, whatever its type."""
        return self._fields[number][-1]

    def all_bytes(self, number: int) -> list[bytes]:
        """Every value of a field of bytes, text or messages."""
        values = self._fields.get(number, [])
        if not all(isinstance(value, bytes) for value in values):
            raise FormatError(f"field {number} of a message has the wrong type")
        return values  # type: ignore[return-value]  # looked at

    def bytes(self, number: int) -> bytes:
        """The last one; empty if there is none."""
        found = self.all_bytes(number)
        return found[-1] if found else b""

    def text(self, number: int) -> str:
        """The last value of a text field."""
        return self.bytes(number).decode("utf-8", "backslashreplace")

    def texts(self, number: int) -> list[str]:
        """Every value of a text field."""
        return [value.decode("utf-8", "backslashreplace") for value in self.all_bytes(number)]

    def message(self, number: int) -> Message:
        """The last value of a message field; an empty one if there is none."""
        return Message(self.bytes(number))

    def messages(self, number: int) -> list[Message]:
        """Every value of a message field."""
        return [Message(value) for value in self.all_bytes(number)]

    def _number(self, number: int) -> int:
        value = self._fields.get(number, [0])[-1]
        if not isinstance(value, int):
            raise FormatError(f"field {number} of a message has the wrong type")
        return value

    def int64(self, number: int) -> int:
        """A signed integer; 0 if there is none."""
        value = self._number(number)
        return value - (1 << 64) if value >= 1 << 63 else value

    def double(self, number: int) -> float:
        """A double; 0 if there is none."""
        return float(struct.unpack("<d", self._number(number).to_bytes(8, "little"))[0])

    def float(self, number: int) -> float:
        """A float; 0 if there is none."""
        return float(struct.unpack("<f", (self._number(number) & 0xFFFF_FFFF).to_bytes(4, "little"))[0])
