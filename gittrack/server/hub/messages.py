"""What a request says: JSON or a query, read by MLflow's rules into plain values.

MLflow's messages are protocol buffers that travel as JSON.  So: names in snake case, unknown names passed over,
``null`` as if it were not there, 64-bit integers as numbers or as text, doubles also as ``"NaN"`` and ``"Infinity"``,
a value of an enum that nobody knows as if it were not there, a body that is JSON inside a JSON text.  What is wrong is
said in MLflow's words, since its clients look for them.

Source: https://protobuf.dev/programming-guides/json/ and MLflow 3's ``mlflow/server/handlers.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import orjson

from gittrack.errors import InvalidValueError

_SHOWN: Final = 200  #: characters of a value that an error shows
INT64: Final = range(-(1 << 63), 1 << 63)
_INT32: Final = range(-(1 << 31), 1 << 31)
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DOUBLES: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SEE: Final = "See the API docs for more information about request parameters."

Values = dict[str, Any]


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _integer(value: Any) -> int:
    if type(value) is int:
        number = value
    elif type(value) is str and _WHOLE.fullmatch(value):
        number = int(value)
    elif type(value) is str and len(value) <= 20 and _DECIMAL.fullmatch(value):  # R writes `1e+05`
        exact = Decimal(value)
        if exact.adjusted() >= 20 or exact != int(exact):
            raise TypeError
        number = int(exact)
    elif type(value) is float and value.is_integer() and value > INT64[0]:
        number = int(value)
    else:
        raise TypeError
    if number not in INT64:
        raise TypeError
    return number


def _double(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise TypeError from None
    if type(value) is str and value in _DOUBLES:
        return _DOUBLES[value]
    if type(value) is str and len(value) <= 400 and _DECIMAL.fullmatch(value):
        return float(value)
    raise TypeError


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    if type(value) is str and value.lower() in ("true", "false"):  # in a query; R writes `TRUE`
        return value.lower() == "true"
    raise TypeError


def _object(value: Any) -> Values:
    if type(value) is not dict:
        raise TypeError
    return value


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        read: Takes a JSON value; raises TypeError if it has the wrong type.
        required: It must be there, and not be an empty text.
        many: A list of such values.
        most: The greatest number that is allowed.
        of: The fields of the message that it is.
        alias: An old name of it.
        type: What JSON calls it.
        longest: The most characters of a text: said in the description; who stores it refuses more.
        names: The names of an enum's values.
        nullable: An answer has it as null where there is none, and does not leave it out.
    """

    read: Callable[[Any], Any]
    required: bool = False
    many: bool = False
    most: int | None = None
    of: Message | None = None
    alias: str | None = None
    type: str = "string"
    longest: int | None = None
    names: tuple[str, ...] = ()
    nullable: bool = False


def text(*, required: bool = False, alias: str | None = None, longest: int | None = None) -> Field:
    """A text."""
    return Field(_text, required, alias=alias, longest=longest)


def texts(*, required: bool = False, nullable: bool = False) -> Field:
    """A list of texts."""
    return Field(_text, required, many=True, nullable=nullable)


def integer(*, required: bool = False, most: int | None = None) -> Field:
    """A signed 64-bit integer."""
    return Field(_integer, required, most=most, type="integer")


def double(*, required: bool = False) -> Field:
    """A 64-bit float."""
    return Field(_double, required, type="number")


def boolean(*, required: bool = False) -> Field:
    """True or false."""
    return Field(_boolean, required, type="boolean")


def one_of(numbers: Mapping[str, int]) -> Field:
    """A value of an enum, by name or by number; absent if nobody knows it."""

    def read(value: Any) -> int | None:
        if type(value) is str:
            return numbers.get(value)
        if type(value) is int:
            return value if value in numbers.values() else None
        raise TypeError

    return Field(read, names=tuple(numbers))


def anything(*, nullable: bool = False) -> Field:
    """A JSON object, whatever is in it."""
    return Field(_object, type="object", nullable=nullable)


def message(of: Message, *, required: bool = False) -> Field:
    """A message in the message."""
    return Field(of.read, required, of=of, type="object")


def messages(of: Message, *, required: bool = False) -> Field:
    """A list of messages."""
    return Field(of.read, required, many=True, of=of, type="object")


class Message:
    """The fields of a request's message.

    Args:
        fields: By name.
    """

    def __init__(self, **fields: Field) -> None:
        self.fields: Mapping[str, Field] = fields

    def read(self, found: Any) -> Values:
        """A message inside of another.  Raises InvalidValueError."""
        return self.values(_object(found))

    def values(self, found: Mapping[str, Any], path: str = "") -> Values:
        """The values of the fields that are there, in a dict.

        Raises:
            InvalidValueError: One is missing or of the wrong type.
        """
        values: Values = {}
        for name, field in self.fields.items():
            value = found.get(name)
            if value is None and field.alias is not None:
                value = found.get(field.alias)
            if value is None or (field.required and value == ""):
                if field.required:
                    raise InvalidValueError(f"Missing value for required parameter '{path}{name}'. {_SEE}")
                continue
            try:
                read: Any = self._many(value, field, f"{path}{name}") if field.many else field.read(value)
            except TypeError:
                raise _invalid(f"{path}{name}", value) from None
            if field.most is not None and read > field.most:
                raise _invalid(f"{path}{name}", value)
            if read is not None:
                values[name] = read
        return values

    def _many(self, value: Any, field: Field, path: str) -> list[Any]:
        if type(value) is not list:
            raise TypeError
        if field.of is None:
            return [field.read(one) for one in value]
        if any(type(one) is not dict for one in value):
            raise TypeError
        return [field.of.values(one, f"{path}[{index}].") for index, one in enumerate(value)]


def _invalid(name: str, value: Any) -> InvalidValueError:
    try:
        shown = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except (TypeError, ValueError):
        shown = str(type(value).__name__)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}…"
    kind = type(value).__name__
    return InvalidValueError(
        f"Invalid value {shown} for parameter '{name}' supplied: Hint: Value was of type '{kind}'. {_SEE}"
    )


def of_body(body: bytes) -> Mapping[str, Any]:
    """The JSON object of a request's body; empty for no body.  Raises InvalidValueError."""
    if not body:
        return {}
    try:
        found = orjson.loads(body)
        if type(found) is str:  # old clients write their JSON into a JSON text
            found = orjson.loads(found)
    except orjson.JSONDecodeError as error:
        raise InvalidValueError(f"the body is no JSON: {error}") from None
    if found is None:
        return {}
    if type(found) is not dict:
        raise InvalidValueError("the body is no JSON object")
    return found


def of_query(pairs: Sequence[tuple[str, str]], schema: Message) -> Mapping[str, Any]:
    """The values of a query, those of lists as lists.  Raises InvalidValueError."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        field = schema.fields.get(name)
        if field is not None and field.many:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found


def number(value: float) -> float | str:
    """A double as JSON can say it: NaN by name, what is infinite as the largest number, as MLflow does."""
    if value != value:
        return "NaN"
    if value in (math.inf, -math.inf):
        return math.copysign(1.7976931348623157e308, value)
    return value
