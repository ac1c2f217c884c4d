"""What data looks like: named columns with types, or tensors with element types and shapes; JSON as MLflow's.

A column's type is the name of a :class:`DataType`, ``any``, or the dict of an array, object or map type, just as it is
written in JSON; :func:`Array`, :func:`Object`, :func:`Map` and :func:`AnyType` make them under MLflow's names.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, cast

from gittrack.errors import FormatError, InvalidValueError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_INFERRED_ROWS: Final = 10_000  #: so many values of a column of Python objects are looked at
_MAX_DEPTH: Final = 32  #: of types within types, in what is read


class DataType(str, Enum):
    """The types of single values; each equals its name."""

    boolean = "boolean"
    integer = "integer"  #: 32 bits
    long = "long"  #: 64 bits
    float = "float"  #: 32 bits
    double = "double"  #: 64 bits
    string = "string"
    binary = "binary"
    datetime = "datetime"


#: Name of a type, or the dict of an array, object or map type.
Kind = str | Mapping[str, Any]

ANY: Final = "any"
_SCALAR_NAMES: Final = frozenset(kind.value for kind in DataType)
#: The numpy element type that holds a column of each type.
NUMPY_TYPES: Final = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "str",
    "binary": "bytes",
    "datetime": "datetime64[ns]",
}


def AnyType() -> str:  # noqa: N802 - MLflow's name of a class
    """The type of what may be anything."""
    return ANY


def Array(dtype: Kind) -> dict[str, Any]:  # noqa: N802 - MLflow's name of a class
    """The type of lists of ``dtype``."""
    return {"type": "array", "items": _as_dict(checked(dtype))}


def Map(value_type: Kind) -> dict[str, Any]:  # noqa: N802 - MLflow's name of a class
    """The type of dicts with any text keys and values of ``value_type``."""
    return {"type": "map", "values": _as_dict(checked(value_type))}


@dataclass(frozen=True)
class Property:
    """One key of an :func:`Object`, and what its values are."""

    name: str
    dtype: Kind
    required: bool = True


def Object(properties: Sequence[Property]) -> dict[str, Any]:  # noqa: N802 - MLflow's name of a class
    """The type of dicts with known keys."""
    if not properties:
        raise InvalidValueError("an object type needs at least one property")
    by_name = {one.name: _as_dict(checked(one.dtype)) | {"required": one.required} for one in properties}
    if len(by_name) != len(properties):
        raise InvalidValueError("two properties of an object type have the same name")
    return {"type": "object", "properties": dict(sorted(by_name.items()))}


def checked(kind: Any, depth: int = 0) -> Kind:
    """``kind`` in its plain form.

    Raises:
        InvalidValueError: It is no type.
    """
    if isinstance(kind, DataType):
        return kind.value
    if isinstance(kind, str):
        if kind in _SCALAR_NAMES or kind == ANY:
            return kind
        raise InvalidValueError(
            f"unknown column type `{kind:.80}`", hint="one of " + ", ".join([*(one.value for one in DataType), ANY])
        )
    if not isinstance(kind, Mapping) or depth > _MAX_DEPTH:
        raise InvalidValueError(f"not a column type: {type(kind).__name__}")
    name = kind.get("type")
    if name == "array":
        return {"type": "array", "items": _as_dict(checked(kind.get("items"), depth + 1))}
    if name == "map":
        return {"type": "map", "values": _as_dict(checked(kind.get("values"), depth + 1))}
    if name == "object" and isinstance(kind.get("properties"), Mapping):
        return {
            "type": "object",
            "properties": {
                str(key): _as_dict(checked(value, depth + 1))
                | {"required": bool(value.get("required", True)) if isinstance(value, Mapping) else True}
                for key, value in sorted(kind["properties"].items())
            },
        }
    if name == "sparkml_vector":
        return {"type": "sparkml_vector"}
    return checked(name, depth + 1)


def _as_dict(kind: Kind) -> dict[str, Any]:
    return {"type": kind} if isinstance(kind, str) else dict(kind)


@dataclass(frozen=True, slots=True, repr=False)
class ColSpec:
    """A column.

    Attributes:
        type: Name of a type, or the dict of an array, object or map type.
        name: Name of the column.
        required: No value is missing.

    Raises:
        InvalidValueError: ``type`` is none.
    """

    type: Kind
    name: str | int | None = None
    required: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", checked(self.type))

    def to_dict(self) -> dict[str, Any]:
        """In MLflow's form."""
        return _as_dict(self.type) | ({} if self.name is None else {"name": self.name}) | {"required": self.required}

    def __repr__(self) -> str:
        kind = self.type if isinstance(self.type, str) else json.dumps(self.type)
        shown = kind if self.name is None else f"{self.name!r}: {kind}"
        return f"{shown} ({'required' if self.required else 'optional'})"


@dataclass(frozen=True, slots=True, repr=False)
class TensorSpec:
    """A tensor.

    Attributes:
        type: Name of the element type; a numpy dtype is taken, too.
        shape: Sizes; -1 for one that may be any, usually the first one, which is the number of rows.
        name: Key in a dict of tensors.
    """

    type: str
    shape: tuple[int, ...]
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.type, str):
            object.__setattr__(self, "type", element_name(self.type))
        object.__setattr__(self, "shape", tuple(self.shape))

    @property
    def required(self) -> bool:
        """Tensors always are."""
        return True

    def to_dict(self) -> dict[str, Any]:
        """In MLflow's form."""
        tensor = {"type": "tensor", "tensor-spec": {"dtype": self.type, "shape": list(self.shape)}}
        return tensor if self.name is None else {"name": self.name, **tensor}

    def __repr__(self) -> str:
        shown = f"Tensor({self.type!r}, {self.shape!r})"
        return shown if self.name is None else f"{self.name!r}: {shown}"


@dataclass(frozen=True, slots=True, repr=False)
class Schema:
    """The columns, or the tensors: all of them named or none.

    Raises:
        InvalidValueError: Columns and tensors are mixed, or only some have names, or what has no name is optional.
    """

    inputs: Sequence[ColSpec | TensorSpec] = field(default_factory=list)

    def __post_init__(self) -> None:
        named = [spec.name is not None for spec in self.inputs]
        if any(named) and not all(named):
            raise InvalidValueError("some inputs of a schema have names and some have not")
        if len({isinstance(spec, TensorSpec) for spec in self.inputs}) > 1:
            raise InvalidValueError("a schema has columns or tensors, not both")
        if not any(named) and self.is_tensor_spec() and len(self.inputs) > 1:
            raise InvalidValueError("several tensors of a schema need names")
        if not any(named) and not all(spec.required for spec in self.inputs):
            raise InvalidValueError("an optional input of a schema needs a name")

    def is_tensor_spec(self) -> bool:
        """True if it describes tensors."""
        return bool(self.inputs) and isinstance(self.inputs[0], TensorSpec)

    def has_input_names(self) -> bool:
        """True if the inputs have names."""
        return bool(self.inputs) and self.inputs[0].name is not None

    def input_names(self) -> list[str | int]:
        """The names; positions if there are none."""
        return [position if spec.name is None else spec.name for position, spec in enumerate(self.inputs)]

    def required_input_names(self) -> list[str | int]:
        """Names, or positions, of what must be given."""
        return [name for name, spec in zip(self.input_names(), self.inputs, strict=True) if spec.required]

    def optional_input_names(self) -> list[str | int]:
        """Names of what may be left out."""
        return [name for name, spec in zip(self.input_names(), self.inputs, strict=True) if not spec.required]

    def input_types(self) -> list[Kind]:
        """The type of each input."""
        return [spec.type for spec in self.inputs]

    def input_dict(self) -> dict[str | int, ColSpec | TensorSpec]:
        """The inputs by name, or by position."""
        return dict(zip(self.input_names(), self.inputs, strict=True))

    def numpy_types(self) -> list[np.dtype[Any]]:
        """The element type of each input.  Raises InvalidValueError for arrays, objects and maps."""
        import numpy as np

        if self.is_tensor_spec():
            return [np.dtype(str(spec.type)) for spec in self.inputs]
        unknown = [spec for spec in self.inputs if not isinstance(spec.type, str) or spec.type not in NUMPY_TYPES]
        if unknown:
            raise InvalidValueError(f"numpy has no element type for {unknown[0]!r}")
        return [np.dtype(NUMPY_TYPES[str(spec.type)]) for spec in self.inputs]

    def to_dict(self) -> list[dict[str, Any]]:
        """In MLflow's form: a list, in spite of the name."""
        return [spec.to_dict() for spec in self.inputs]

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, json_str: str) -> Schema:
        """The schema that ``to_json`` wrote, or MLflow's.

        Raises:
            FormatError: It is none.
        """
        try:
            raw = json.loads(json_str)
            if not isinstance(raw, list):
                raise FormatError("a schema is a list")
            return cls([_spec(one) for one in raw])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FormatError(f"cannot read a schema: {error}") from error

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[ColSpec | TensorSpec]:
        return iter(self.inputs)

    def __repr__(self) -> str:
        return repr(list(self.inputs))


def _spec(raw: Mapping[str, Any]) -> ColSpec | TensorSpec:
    name = raw.get("name")
    if raw["type"] != "tensor":
        return ColSpec(checked(raw), name, bool(raw.get("required", True)))
    tensor = raw["tensor-spec"]
    return TensorSpec(str(tensor["dtype"]), tuple(int(size) for size in tensor["shape"]), name)


@dataclass(frozen=True, slots=True)
class TensorDatasetSchema:
    """Features and targets that are tensors."""

    features: Schema
    targets: Schema | None = None

    def to_dict(self) -> dict[str, Any]:
        """In MLflow's form: JSON inside of a dict."""
        targets = None if self.targets is None else self.targets.to_json()
        return {"mlflow_tensorspec": {"features": self.features.to_json(), "targets": targets}}


# --- inference


def infer_schema(data: Any) -> Schema:
    """The schema of a model's input or output, as MLflow infers it.

    Args:
        data: A DataFrame, Series, array, sparse matrix, dict of arrays, dict or list of dicts of plain values, list,
            or one value.

    Raises:
        InvalidValueError: Values of several types where there must be one, or of a type that schemas do not know.
    """
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return column_schema(data)
    if hasattr(data, "iloc"):  # a Series
        return Schema([ColSpec(_column_type(data), data.name, not bool(data.isna().any()))])
    if hasattr(data, "indptr") and hasattr(data, "format"):  # a sparse matrix, rows or columns compressed
        return Schema([TensorSpec(element_name(data.data.dtype), (-1, *data.shape[1:]))])
    if isinstance(data, list):
        return _list_schema(data)
    if isinstance(data, dict):
        if data and all(_is_array(value) for value in data.values()):
            return tensor_schema(data)
        if not all(isinstance(key, str) for key in data):
            raise InvalidValueError("the keys of a dict must be text to be columns")
        return Schema([ColSpec(_known_type(value), key, _is_complete(value)) for key, value in data.items()])
    if _is_array(data):
        if data.ndim == 0:
            raise InvalidValueError("an array without dimensions has no rows")
        return tensor_schema(data)
    return Schema([ColSpec(_known_type(data))])


def _list_schema(data: list[Any]) -> Schema:
    if not data:
        return Schema([ColSpec("string")])  # as MLflow has it, since its early days
    if all(isinstance(row, dict) for row in data):
        columns: dict[str, list[Any]] = {}
        for row in data:
            for key, value in row.items():
                columns.setdefault(key, []).append(value)
        return Schema(
            [
                ColSpec(_items_type(values) or ANY, key, all(row.get(key) is not None for row in data))
                for key, values in columns.items()
            ]
        )
    return Schema([ColSpec(_items_type(data) or ANY)])


def tensor_schema(data: np.ndarray[Any, Any] | Mapping[str, np.ndarray[Any, Any]]) -> Schema:
    """The schema of an array or of a dict of arrays."""
    if isinstance(data, dict):
        return Schema([_tensor(array, name) for name, array in data.items()])
    return Schema([_tensor(cast("np.ndarray[Any, Any]", data))])


def _tensor(array: np.ndarray[Any, Any], name: str | None = None) -> TensorSpec:
    return TensorSpec(element_name(array.dtype), (-1, *array.shape[1:])[: array.ndim], name)


def element_name(dtype: Any) -> str:
    """MLflow's name of a numpy element type: numpy's, but without the length of texts and bytes."""
    return {"U": "str", "S": "bytes"}.get(dtype.kind) or str(dtype.name)


def column_schema(frame: pd.DataFrame) -> Schema:
    """The schema of a table.

    Raises:
        InvalidValueError: A column has values of several types, or of one that MLflow's schemas do not know.
    """
    return Schema(
        [
            ColSpec(
                _column_type(column),
                name if isinstance(name, (str, int)) else str(name),
                not bool(column.isna().any()),
            )
            for name, column in frame.items()
        ]
    )


#: By kind and size of numpy's element type: a type that holds all of its values.
_ELEMENTS: Final = {
    **dict.fromkeys(("i1", "i2", "i4", "u1", "u2"), "integer"),
    **dict.fromkeys(("i8", "u4"), "long"),
    **dict.fromkeys(("f2", "f4"), "float"),
    "f8": "double",
}
_KINDS: Final = {"b": "boolean", "M": "datetime", "U": "string", "S": "binary"}
_SCALARS: Final = (
    (bool, "boolean"),  # before int, which it is a subclass of
    (int, "long"),
    (float, "double"),
    (str, "string"),
    ((bytes, bytearray), "binary"),
    (dt.date, "datetime"),
)


def element_type(dtype: Any) -> str:
    """The type that holds a numpy element type, or a pandas one that has numpy's attributes.

    Raises:
        InvalidValueError: There is none.
    """
    found = _KINDS.get(dtype.kind) or _ELEMENTS.get(f"{dtype.kind}{getattr(dtype, 'itemsize', 0)}")
    if found is None:
        raise InvalidValueError(f"a schema has no type for {dtype}")
    return found


def _column_type(column: pd.Series[Any]) -> Kind:
    if column.dtype.kind == "O":
        column = column.infer_objects()
    if column.dtype.kind == "O":
        return _items_type(column.iloc[:_INFERRED_ROWS].tolist()) or ANY
    return element_type(column.dtype)


def _known_type(value: Any) -> Kind:
    kind = value_type(value)
    if kind is None:
        raise InvalidValueError("an empty array has no type")
    return kind


def value_type(value: Any) -> Kind | None:
    """The type of one value; ``any`` for a missing one or an empty list, None for an empty array.

    Raises:
        InvalidValueError: Values of several types within it, or of a type that schemas do not know.
    """
    if is_missing(value) or (isinstance(value, (list, dict)) and not value):
        return ANY
    if isinstance(value, dict):
        kinds = {str(key): _known_type(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
        return {
            "type": "object",
            "properties": {key: _as_dict(kind) | {"required": kind != ANY} for key, kind in kinds.items()},
        }
    if _is_array(value) and value.dtype.kind != "O":
        kind: Kind = element_type(value.dtype)
        for _ in value.shape:
            kind = {"type": "array", "items": _as_dict(kind)}
        return kind if value.size else None
    if isinstance(value, list) or _is_array(value):
        items = _items_type(list(value))
        return None if items is None else {"type": "array", "items": _as_dict(items)}
    return _scalar_type(value)


def _items_type(values: Sequence[Any]) -> Kind | None:
    """The one type that all values have; None if nothing says which."""
    classes = set(map(type, values))
    if len(classes) == 1 and classes <= {bool, int, str, bytes}:  # most columns; no value of these is missing
        return _scalar_type(values[0])
    found: Kind | None = None
    for value in values:
        kind = value_type(value)
        if kind is not None:
            found = kind if found is None else _merged(found, kind)
    return found


def _merged(a: Kind, b: Kind) -> Kind:
    """The type of what is ``a`` or ``b``: the same, but for keys that are not in both, and values that are missing."""
    if a == b:
        return a
    if ANY in (a, b):
        other = b if a == ANY else a
        if isinstance(other, str) or other["type"] != "object":
            return other
        optional = {key: {**kind, "required": False} for key, kind in other["properties"].items()}
        return {"type": "object", "properties": optional}
    if isinstance(a, str) or isinstance(b, str) or a["type"] != b["type"]:
        raise InvalidValueError(f"values of several types: {_shown(a)}, {_shown(b)}")
    if a["type"] == "array":
        return {"type": "array", "items": _as_dict(_merged(_from_dict(a["items"]), _from_dict(b["items"])))}
    mine, theirs = a["properties"], b["properties"]
    properties = {}
    for key in sorted({*mine, *theirs}):
        if key in mine and key in theirs:
            kind = _as_dict(_merged(_from_dict(mine[key]), _from_dict(theirs[key])))
            properties[key] = kind | {"required": mine[key]["required"] and theirs[key]["required"]}
        else:
            properties[key] = {**(mine.get(key) or theirs[key]), "required": False}
    return {"type": "object", "properties": properties}


def _from_dict(kind: Mapping[str, Any]) -> Kind:
    bare = {key: value for key, value in kind.items() if key != "required"}
    return str(bare["type"]) if set(bare) == {"type"} else bare


def _shown(kind: Kind) -> str:
    return kind if isinstance(kind, str) else str(kind["type"])


def is_missing(value: Any) -> bool:
    """True for None, NaN, and pandas' NA and NaT."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in ("NAType", "NaTType")
    )


def _is_complete(value: Any) -> bool:
    return not any(map(is_missing, value)) if isinstance(value, list) else not is_missing(value)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")  # what nobody imported, nobody has
    return numpy is not None and isinstance(value, numpy.ndarray)


def _scalar_type(value: Any) -> str:
    for kind, name in _SCALARS:
        if isinstance(value, kind):
            return name
    if hasattr(value, "dtype"):  # a numpy scalar
        return element_type(value.dtype)
    raise InvalidValueError(f"a schema has no type for {type(value).__name__}")
