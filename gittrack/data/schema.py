"""What a dataset looks like: named columns with types, or tensors with element types and shapes; JSON as MLflow's.

Inferred types are MLflow's: ``boolean integer long float double string binary datetime any``, arrays and objects.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd

_INFERRED_ROWS: Final = 10_000  #: so many values of a column of Python objects are looked at


@dataclass(frozen=True, slots=True)
class ColSpec:
    """A column.

    Attributes:
        type: Name of a type, or the dict of an array or object type.
        name: Name of the column.
        required: No value is missing.
    """

    type: str | Mapping[str, Any]
    name: str | int | None = None
    required: bool = True

    def to_dict(self) -> dict[str, Any]:
        """In MLflow's form."""
        kind = {"type": self.type} if isinstance(self.type, str) else dict(self.type)
        return kind | ({} if self.name is None else {"name": self.name}) | {"required": self.required}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor.

    Attributes:
        type: Name of the element type.
        shape: Sizes; -1 for the first one, which is the number of rows.
        name: Key in a dict of tensors.
    """

    type: str
    shape: tuple[int, ...]
    name: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """In MLflow's form."""
        tensor = {"type": "tensor", "tensor-spec": {"dtype": self.type, "shape": list(self.shape)}}
        return tensor if self.name is None else {"name": self.name, **tensor}


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns, or the tensors."""

    inputs: list[ColSpec] | list[TensorSpec] = field(default_factory=list)

    def to_dict(self) -> list[dict[str, Any]]:
        """In MLflow's form: a list, in spite of the name."""
        return [spec.to_dict() for spec in self.inputs]

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict())


@dataclass(frozen=True, slots=True)
class TensorDatasetSchema:
    """Features and targets that are tensors."""

    features: Schema
    targets: Schema | None = None

    def to_dict(self) -> dict[str, Any]:
        """In MLflow's form: JSON inside of a dict."""
        targets = None if self.targets is None else self.targets.to_json()
        return {"mlflow_tensorspec": {"features": self.features.to_json(), "targets": targets}}


def tensor_schema(data: np.ndarray[Any, Any] | Mapping[str, np.ndarray[Any, Any]]) -> Schema:
    """The schema of an array or of a dict of arrays."""
    if isinstance(data, dict):
        return Schema([_tensor(array, name) for name, array in data.items()])
    return Schema([_tensor(data)])  # type: ignore[arg-type]  # a Mapping that is no dict is not an array either


def _tensor(array: np.ndarray[Any, Any], name: str | None = None) -> TensorSpec:
    names = {"U": "str", "S": "bytes"}  # numpy's own name has the length in it
    return TensorSpec(names.get(array.dtype.kind, array.dtype.name), (-1, *array.shape[1:])[: array.ndim], name)


def column_schema(frame: pd.DataFrame) -> Schema:
    """The schema of a table.

    Raises:
        ValueError: A column has values of several types, or of one that MLflow's schemas do not know.
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


def _element_type(dtype: Any) -> str:
    """Type of a numpy dtype, or of a pandas one that has numpy's attributes."""
    found = _KINDS.get(dtype.kind) or _ELEMENTS.get(f"{dtype.kind}{getattr(dtype, 'itemsize', 0)}")
    if found is None:
        raise ValueError(f"a schema has no type for {dtype}")
    return found


def _column_type(column: pd.Series[Any]) -> str | Mapping[str, Any]:
    if column.dtype.kind == "O":
        return _values_type(column.iloc[:_INFERRED_ROWS].dropna().tolist())
    return _element_type(column.dtype)


def _values_type(values: list[Any]) -> str | dict[str, Any]:
    """The one type of Python objects, none of which is missing."""
    if not values:
        return "any"
    if all(isinstance(value, dict) for value in values):
        return _object_type(values)
    if all(isinstance(value, list) or getattr(value, "ndim", 0) for value in values):
        items = [item for value in values for item in value][:_INFERRED_ROWS]
        return {"type": "array", "items": _as_dict(_values_type([item for item in items if not _is_missing(item)]))}
    kinds = {_scalar_type(value) for value in values}
    if kinds == {"long", "double"}:
        return "double"
    if len(kinds) > 1:
        raise ValueError(f"values of several types: {', '.join(sorted(kinds))}")
    return kinds.pop()


def _object_type(values: list[dict[Any, Any]]) -> dict[str, Any]:
    properties = {}
    for key in sorted({str(key) for value in values for key in value}):
        known = [value[key] for value in values if key in value and not _is_missing(value[key])]
        properties[key] = _as_dict(_values_type(known)) | {"required": len(known) == len(values)}
    return {"type": "object", "properties": properties}


def _as_dict(kind: str | dict[str, Any]) -> dict[str, Any]:
    return {"type": kind} if isinstance(kind, str) else kind


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _scalar_type(value: Any) -> str:
    for kind, name in _SCALARS:
        if isinstance(value, kind):
            return name
    if hasattr(value, "dtype"):  # a numpy scalar
        return _element_type(value.dtype)
    raise ValueError(f"a schema has no type for {type(value).__name__}")
