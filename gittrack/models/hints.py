"""Type hints of ``predict``: the signature that they say, and inputs brought into the form that they ask for.

A hint ``list[T]`` says that ``predict`` gets a list of rows, each a ``T``: one of ``str int float bool bytes``, a
``datetime``, ``dict[str, T]``, ``list[T]``, ``Optional[T]``, ``Any``, or a pydantic model.
"""

from __future__ import annotations

import datetime as dt
import types
import typing
from typing import TYPE_CHECKING, Any, Final

from gittrack.data.schema import ANY, Array, ColSpec, Kind, Map, Object, Property, Schema
from gittrack.errors import InvalidValueError, SchemaError
from gittrack.models.signature import ModelSignature, infer_signature

if TYPE_CHECKING:
    from gittrack.models.examples import Example

_SCALARS: Final[dict[Any, str]] = {
    str: "string", int: "long", float: "double", bool: "boolean", bytes: "binary", dt.datetime: "datetime",
    dt.date: "datetime",
}  # fmt: skip


def row_type(hint: Any) -> Any | None:
    """``T`` of the hint ``list[T]``; None for another hint."""
    arguments = typing.get_args(hint)
    return arguments[0] if typing.get_origin(hint) is list and len(arguments) == 1 else None


def signature(hint: Any, output: Any, example: Example | None) -> ModelSignature | None:
    """The signature that the hints of ``predict`` say; None if they say nothing about rows.

    Args:
        hint: Of the input.
        output: Of the output.
        example: For the parameters.
    """
    row = row_type(hint)
    if row is None:
        return None
    try:
        inputs = Schema([_column(row)])
    except InvalidValueError:
        return None
    result = row_type(output)
    try:
        outputs = Schema([_column(result)]) if result is not None else Schema([ColSpec(ANY)])
    except InvalidValueError:
        outputs = Schema([ColSpec(ANY)])
    params = None
    if example is not None and example.params:
        params = infer_signature(params=example.params).params
    return ModelSignature(inputs, outputs, params, from_type_hints=True)


def _column(row: Any) -> ColSpec:
    kind, _ = kind_of(row)
    return ColSpec(kind)


def kind_of(hint: Any) -> tuple[Kind, bool]:
    """The type that a hint means, and whether a value must be there.

    Raises:
        InvalidValueError: It means none.
    """
    if hint in _SCALARS:
        return _SCALARS[hint], True
    if hint is Any:
        return ANY, False
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list and len(arguments) == 1:
        return Array(kind_of(arguments[0])[0]), True
    if origin is dict and len(arguments) == 2 and arguments[0] is str:
        return Map(kind_of(arguments[1])[0]), True
    if origin in (typing.Union, types.UnionType):
        others = [one for one in arguments if one is not type(None)]
        if len(others) == 1:
            return kind_of(others[0])[0], False
        return ANY, len(others) == len(arguments)
    fields = getattr(hint, "model_fields", None)  # pydantic's
    if isinstance(fields, dict):
        properties = []
        for name, field in fields.items():
            kind, required = kind_of(field.annotation)
            properties.append(Property(name, kind, required and field.is_required()))
        return Object(properties), True
    raise InvalidValueError(f"the type hint `{hint}` says nothing about a model's input")


def convert(data: Any, hint: Any) -> Any:
    """``data`` as the list of rows that a hint ``list[T]`` asks for; as it is for other hints.

    A DataFrame becomes a list: of values if it has one column and ``T`` is a single value, else of dicts.

    Raises:
        SchemaError: A row is not of the type.
    """
    row = row_type(hint)
    if row is None:
        return data
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        whole = not isinstance(_kind_or_any(row), str)
        data = data.to_dict("records") if whole or len(data.columns) != 1 else data.iloc[:, 0].tolist()
    elif hasattr(data, "tolist"):
        data = data.tolist()
    if not isinstance(data, list):
        raise SchemaError(f"the model takes a list, got {type(data).__name__}", hint=f"its type hint is {hint}")
    return [_row(value, row, position) for position, value in enumerate(data)]


def _kind_or_any(hint: Any) -> Kind:
    try:
        return kind_of(hint)[0]
    except InvalidValueError:
        return ANY


def _row(value: Any, hint: Any, position: int) -> Any:
    """``value`` if it is of the type that ``hint`` says; a dict becomes the pydantic model."""
    if hint is Any:
        return value
    if hasattr(hint, "model_validate"):
        try:
            return value if isinstance(value, hint) else hint.model_validate(value)
        except ValueError as error:  # pydantic's ValidationError is one
            raise SchemaError(f"row {position} of the input is no {hint.__name__}: {error}") from error
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if not any(_fits(value, one) for one in arguments):
            raise SchemaError(f"row {position} of the input is {type(value).__name__}, not {hint}")
        return value
    if origin is list and isinstance(value, list):
        return [_row(item, arguments[0], position) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _row(item, arguments[1], position) for key, item in value.items()}
    if hint in _SCALARS and not _fits(value, hint):
        raise SchemaError(f"row {position} of the input is {type(value).__name__}, not {hint.__name__}")
    if origin is not None:
        raise SchemaError(f"row {position} of the input is {type(value).__name__}, not {hint}")
    return value


def _fits(value: Any, hint: Any) -> bool:
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    plain = typing.get_origin(hint) or hint
    return not isinstance(plain, type) or isinstance(value, plain)
