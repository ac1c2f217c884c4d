"""Rows from outside as arrays: a numeric signature is compiled once, and then no request needs pandas.

The checks are those of MLflow's signatures, and stricter where MLflow changes values in silence: a number is no text
and no truth value, 1.5 is no whole number, and 2**40 does not fit into 32 bits.  Messages name columns of the signature
and types, never values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from gittrack.data.schema import NUMPY_TYPES, Schema, TensorSpec
from gittrack.errors import SchemaError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Matrix = np.ndarray[Any, Any]

NUMBERS: Final = ("integer", "long", "float", "double")
_LIMITS: Final = {"integer": 2**31, "long": 2**63}
_KNOWN_ORDERS: Final = 64  #: orders of columns that are remembered; clients have one or two
_NAMED: Final = 20  #: names that a message lists


class Columns:
    """The columns of a signature whose types are numbers and truth values.

    Attributes:
        names: Their names as texts; None if they go by position.
        labels: Their names as they are, or their positions.
        types: Their types, names of ``DataType``.
        dtype: Element type of the matrix that holds them all.
        uniform: They all have that type.
    """

    def __init__(self, schema: Schema) -> None:
        import numpy as np

        self.names = [str(name) for name in schema.input_names()] if schema.has_input_names() else None
        self.labels = schema.input_names()
        self.types = [str(kind) for kind in schema.input_types()]
        kinds = {NUMPY_TYPES[kind] for kind in self.types}
        mixed_with_truth = "bool" in kinds and len(kinds) > 1
        self.dtype: np.dtype[Any] = np.dtype("float64") if mixed_with_truth else np.result_type(*sorted(kinds))
        self.uniform = len(kinds) == 1
        self._whole = [at for at, kind in enumerate(self.types) if kind in _LIMITS]
        self._single = [at for at, kind in enumerate(self.types) if kind == "float"] if not self.uniform else []
        self._simple = "boolean" not in self.types
        self._optional = set(map(str, schema.optional_input_names()))
        self._orders: dict[tuple[Any, ...], Any] = {}

    def __len__(self) -> int:
        return len(self.types)

    def order(self, given: Sequence[Any] | None, width: int) -> list[int] | None:
        """Where each of our columns is among the ``given`` ones; None if they are already ours.

        Args:
            given: Names of the columns in the input; None if it has none.
            width: How many columns the input has.

        Raises:
            SchemaError: A column is missing.
            UsageError: A column is there twice.
        """
        if self.names is None:
            if width < len(self):
                raise SchemaError(
                    f"the model takes {len(self)} columns, the input has {width}",
                    hint="the columns of this model have no names: they go by position",
                )
            return None if width == len(self) else list(range(len(self)))
        key = tuple(given) if given is not None else None
        if key in self._orders:
            found: list[int] | None = self._orders[key]
            return found
        found = self._find(self.names, [str(name) for name in (range(width) if given is None else given)])
        if key is not None and len(self._orders) < _KNOWN_ORDERS:
            self._orders[key] = found
        return found

    @staticmethod
    def _find(names: list[str], given: list[str]) -> list[int] | None:
        if given == names:
            return None
        places = {name: at for at, name in enumerate(given)}
        if len(places) != len(given):
            raise UsageError("the input has two columns of the same name")
        missing = [name for name in names if name not in places]
        if missing:
            unknown = len(given) - len(names) + len(missing)
            also = f", and has {unknown} that the model does not know" if unknown > 0 else ""
            raise SchemaError(f"the input misses {listed(missing)}{also}", hint=f"the model takes {listed(names)}")
        return [places[name] for name in names]

    def lacks_optional(self, given: Sequence[Any]) -> bool:
        """True if the only columns of ours that are not ``given`` may be left out, and there are some."""
        if not self._optional:
            return False
        known = set(map(str, given))
        missing = [name for name in self.names or () if name not in known]
        return bool(missing) and self._optional.issuperset(missing)

    def matrix(self, rows: list[list[Any]], order: list[int] | None, *, truths: bool) -> Matrix:
        """Rows of JSON values as one matrix with our columns.

        Args:
            rows: Of equal length.
            order: What ``order`` gave for them.
            truths: There may be ``true`` and ``false`` among the values.

        Raises:
            UsageError: A value has the wrong type; the rows differ in length.
        """
        import numpy as np

        if not rows:
            return np.empty((0, len(self)), self.dtype)
        if self._simple and not truths:
            try:
                raw = np.array(rows)
            except (ValueError, OverflowError):  # the slow way finds out what it is
                return self.joined(self.columns(rows, order))
            if raw.ndim == 2 and raw.dtype.kind in "fiu":
                return self._from_numbers(raw if order is None else raw[:, order])
        return self.joined(self.columns(rows, order))

    def _from_numbers(self, raw: Matrix) -> Matrix:
        import numpy as np

        if self._whole and (raw.dtype.kind != "i" or "integer" in self.types):
            for at in self._whole:
                _check_whole(raw[:, at], self.types[at], self._label(at))
        result = _narrowed(raw, self.dtype, "the input")
        for at in self._single:
            result[:, at] = _narrowed(result[:, at], np.dtype("float32"), self._label(at))
        return result

    def columns(self, rows: list[list[Any]], order: list[int] | None) -> list[Matrix]:
        """The same as ``matrix``, a column at a time; every value is looked at."""
        if not all(isinstance(row, list) for row in rows) or len(set(map(len, rows))) > 1:
            raise UsageError("the rows of the input must be lists of the same length")
        if not rows:
            import numpy as np

            return [np.empty(0, NUMPY_TYPES[kind]) for kind in self.types]
        turned = list(zip(*rows, strict=True))
        places = range(len(self)) if order is None else order
        return [self.column(at, turned[place]) for at, place in enumerate(places)]

    def column(self, at: int, values: Sequence[Any]) -> Matrix:
        """JSON values as our column number ``at``.  Raises UsageError."""
        return numbers(values, self.types[at], self._label(at))

    def joined(self, columns: Sequence[Matrix]) -> Matrix:
        """One matrix of all columns."""
        import numpy as np

        return np.column_stack([column.astype(self.dtype, copy=False) for column in columns])

    def _label(self, at: int) -> str:
        return f"column `{self.names[at]}`" if self.names is not None else f"column {at}"


def numeric_columns(schema: Schema | None) -> Columns | None:
    """The compiled columns of ``schema``; None if it has others than numbers and truth values, or tensors."""
    if schema is None or not len(schema) or schema.is_tensor_spec():
        return None
    if not all(isinstance(kind, str) and kind in (*NUMBERS, "boolean") for kind in schema.input_types()):
        return None
    names = schema.input_names()
    return Columns(schema) if len(set(map(str, names))) == len(names) else None


def numbers(values: Sequence[Any], kind: str, what: str) -> Matrix:
    """JSON values as an array of a numeric type; null is NaN where the type has it.

    Args:
        values: Numbers, truth values and nulls.
        kind: Name of a ``DataType``: a number or ``boolean``.
        what: What they are, for messages.

    Raises:
        UsageError: A value is of another type, or does not fit.
    """
    import numpy as np

    found = set(map(type, values))
    if kind == "boolean":
        if not found <= {bool, int} or any(value not in (0, 1) for value in values):
            raise _wrong(what, kind, found - {bool})
        return np.array(values, dtype=bool)
    allowed = {int, float} if kind in _LIMITS else {int, float, type(None)}
    if not found <= allowed:
        raise _wrong(what, kind, found - allowed)
    if kind in _LIMITS:
        if found == {float} or float in found:
            _check_whole(np.array(values, dtype=np.float64), kind, what)
            values = [int(value) for value in values]
        limit = _LIMITS[kind]
        if any(not -limit <= value < limit for value in values):
            raise UsageError(f"{what} has a number that does not fit into {kind}")
    array = np.array(values, dtype=np.float64 if kind in ("float", "double") else np.int64)
    return _narrowed(array, np.dtype(NUMPY_TYPES[kind]), what)


def _narrowed(found: Matrix, wanted: np.dtype[Any], what: str) -> Matrix:
    """``found`` with another element type.  Raises UsageError if a number is too large for it."""
    import numpy as np

    if wanted.kind != "f" or wanted.itemsize >= found.dtype.itemsize or found.dtype.kind != "f":
        return found.astype(wanted, copy=False)
    with np.errstate(over="ignore"):
        result = found.astype(wanted)
    if bool(np.isinf(result).any()):  # there is no infinity in JSON
        raise UsageError(f"{what} has a number that does not fit into {wanted}")
    return result


def _check_whole(column: Matrix, kind: str, what: str) -> None:
    import numpy as np

    limit = _LIMITS[kind]
    if column.dtype.kind == "f" and not bool(np.all(column == np.floor(column))):
        raise UsageError(f"{what} is of type {kind} and has a number that is not whole, or none at all")
    if not bool(np.all((column >= -limit) & (column < limit))):
        raise UsageError(f"{what} has a number that does not fit into {kind}")


_JSON_NAMES: Final = {bool: "true or false", type(None): "null", str: "a text", list: "a list", dict: "an object"}


def _wrong(what: str, kind: str, found: set[type]) -> UsageError:
    names = sorted(_JSON_NAMES.get(one, "a number") for one in found)
    return UsageError(f"{what} is of type {kind} and has {' and '.join(names) or 'a number that is neither 0 nor 1'}")


def listed(names: Sequence[Any]) -> str:
    """Some names for a message."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"`{name!s:.80}`" for name in names[:_NAMED]) + more


# --- tensors


def tensor(value: Any, spec: TensorSpec, *, flat: Sequence[int] | None = None) -> Matrix:
    """JSON values, nested as the tensor is, as an array of its element type and shape.

    Args:
        value: Lists of lists … of values.
        spec: What the model takes.
        flat: Shape to give to the values, which are then one list.

    Raises:
        UsageError: A value has the wrong type; the lists differ in length.
        SchemaError: The shape is another.
    """
    import numpy as np

    what = f"input `{spec.name}`" if spec.name is not None else "the input"
    kind = np.dtype(spec.type).kind if spec.type not in ("str", "bytes", "object") else spec.type
    try:
        found = np.array(value, dtype=object if kind == "object" else None)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{what} is no array: its lists differ in length") from error
    if kind in ("f", "i", "u", "b"):
        found = _elements(found, value, np.dtype(spec.type), what)
    elif kind == "str" and found.size and found.dtype.kind != "U":
        raise UsageError(f"{what} takes texts")
    elif kind not in ("str", "object"):
        raise UsageError(f"{what} has element type {spec.type}, which JSON cannot carry")
    if flat is not None:
        found = found.reshape(tuple(flat))
    if found.ndim != len(spec.shape) or any(
        wanted not in (-1, size) for wanted, size in zip(spec.shape, found.shape, strict=True)
    ):
        raise SchemaError(f"{what} has shape {list(found.shape)}, the model takes {list(spec.shape)}")
    return found


def _elements(found: Matrix, value: Any, wanted: np.dtype[Any], what: str) -> Matrix:
    """``found`` with the element type ``wanted``, if nothing is lost."""
    import numpy as np

    if found.size == 0:
        return found.astype(wanted)
    if found.dtype.kind in "fiu" and wanted.kind != "b" and _has_truths(value):
        raise UsageError(f"{what} has element type {wanted} and has true or false")
    if found.dtype.kind == "O" and wanted.kind == "f":
        if not set(map(type, found.ravel().tolist())) <= {int, float, type(None)}:
            raise UsageError(f"{what} has element type {wanted}, and values that are no numbers; or its lists differ")
        return _narrowed(found.astype(np.float64), wanted, what)
    if wanted.kind == "b":
        if found.dtype.kind != "b":
            raise UsageError(f"{what} takes true and false")
        return found
    if found.dtype.kind not in "fiu":
        raise UsageError(f"{what} has element type {wanted}, and values that are no numbers")
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        whole = found.dtype.kind != "f" or bool(np.all(found == np.floor(found)))
        if not whole or not bool(np.all((found >= limits.min) & (found <= limits.max))):
            raise UsageError(f"{what} has element type {wanted}, and a number that does not fit")
    return _narrowed(found, wanted, what)


def _has_truths(value: Any) -> bool:
    """True if there is a bool in nested lists; numpy takes it for a number."""
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return any(map(_has_truths, value))
        return bool in set(map(type, value))
    return isinstance(value, bool)


# --- other types, through pandas


def typed_table(names: Sequence[Any] | None, columns: Sequence[Sequence[Any]], schema: Schema) -> pd.DataFrame:
    """Columns of JSON values as a DataFrame with the types of ``schema``, without those that it does not know.

    Args:
        names: Of the columns; None if they have none.
        columns: Their values; of the same length.
        schema: Of columns.

    Raises:
        UsageError: A value has the wrong type.
    """
    import pandas as pd

    given: Sequence[Any] = range(len(columns)) if names is None else names
    if schema.has_input_names():
        known = {name: spec.type for name, spec in schema.input_dict().items()}
    else:
        known = dict(zip(given, schema.input_types(), strict=False))
    found = {
        name: _typed(values, known[name], name) for name, values in zip(given, columns, strict=True) if name in known
    }
    table: pd.DataFrame = pd.DataFrame(found, index=range(len(columns[0])) if columns else None)
    return table


def _typed(values: Sequence[Any], kind: Any, name: Any) -> Any:
    what = f"column `{name!s:.80}`"
    if isinstance(kind, str) and (kind in NUMBERS or kind == "boolean"):
        return numbers(values, kind, what)
    cast = _CASTS.get(kind) if isinstance(kind, str) else None
    return list(values) if cast is None else cast(values, what)


def _texts(values: Sequence[Any], what: str) -> Any:
    found = set(map(type, values)) - {str, type(None)}
    if found:
        raise _wrong(what, "string", found)
    return list(values)


def _bytes(values: Sequence[Any], what: str) -> Any:
    import base64
    import binascii

    try:
        return [None if value is None else base64.b64decode(value, validate=True) for value in values]
    except (binascii.Error, ValueError, TypeError) as error:
        raise UsageError(f"{what} is of type binary and takes texts in base64") from error


def _dates(values: Sequence[Any], what: str) -> Any:
    import pandas as pd

    if not set(map(type, values)) <= {str, type(None)}:
        raise UsageError(f"{what} is of type datetime and takes texts such as 2026-01-31T12:00:00")
    try:
        return pd.to_datetime(pd.Series(values, dtype=object), format="ISO8601").astype("datetime64[ns]").array
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{what} is of type datetime and takes texts such as 2026-01-31T12:00:00") from error


_CASTS: Final[Mapping[str, Callable[[Sequence[Any], str], Any]]] = {
    "string": _texts,
    "binary": _bytes,
    "datetime": _dates,
}
