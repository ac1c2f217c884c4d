"""Does an input fit a model's signature?  Brings it into the model's form, or says what is wrong.

As MLflow does it: columns are put into order, missing ones are an error and extra ones are left out; numbers are made
wider where nothing is lost and never narrower; tensors must have the shape and element type; parameters that are left
out get their defaults, and unknown ones are left out with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from gittrack.data.schema import ANY, NUMPY_TYPES, Kind, Schema, TensorSpec, element_name, is_missing
from gittrack.errors import InvalidValueError, SchemaError

if TYPE_CHECKING:
    import pandas as pd

    from gittrack.models.signature import ParamSchema

_log = logging.getLogger("gittrack")


def enforce_params(params: Any, schema: ParamSchema | None) -> dict[str, Any] | None:
    """The parameters of a prediction, with the defaults of those that are not given.

    Raises:
        SchemaError: A parameter has the wrong type or shape.
    """
    if schema is None:
        if params:
            _log.warning("the model's signature has no params: those that were given are ignored")
            return {}
        return params if isinstance(params, dict) else None
    params = {} if params is None else params
    if not isinstance(params, dict):
        raise SchemaError(f"params must be a dict, got {type(params).__name__}")
    given = {str(key): value for key, value in params.items()}
    known = {spec.name: spec for spec in schema.params}
    unknown = [name for name in given if name not in known]
    if unknown:
        _log.warning("unknown params %s are ignored; the model has %s", unknown, list(known))
    try:
        return {name: spec.validate(given[name]) if name in given else spec.default for name, spec in known.items()}
    except InvalidValueError as error:
        raise SchemaError(error.message) from error


def validate_schema(data: Any, expected_schema: Schema) -> None:
    """Raise SchemaError unless ``data`` fits."""
    enforce_schema(data, expected_schema)


def enforce_schema(data: Any, schema: Schema) -> Any:
    """``data`` in the form that a model with this input schema takes.

    Returns:
        A DataFrame for a schema of columns; for tensors an array, or a dict of arrays if they have names.

    Raises:
        SchemaError: It does not fit; says what is wrong and what the model has.
    """
    if hasattr(data, "iloc") and not hasattr(data, "columns"):  # a Series
        data = data.to_frame()
    if schema.is_tensor_spec():
        return _enforce_tensors(data, schema)
    frame = _to_frame(data, schema)
    names = schema.input_names()
    if not schema.has_input_names():
        if len(frame.columns) < len(names):
            raise SchemaError(
                f"the model takes {len(names)} columns, the input has {len(frame.columns)}",
                hint="the columns of this model have no names: they go by position",
            )
        return _columns(frame, schema, list(frame.columns[: len(names)]))
    _check_names(list(frame.columns), schema)
    return _columns(frame, schema, names)


def _check_names(given: list[Any], schema: Schema) -> None:
    known = schema.input_names()
    missing = [name for name in schema.required_input_names() if name not in given]
    extra = [name for name in given if name not in known]
    if missing:
        also = f", and has {extra} that the model does not know" if extra else ""
        raise SchemaError(
            f"the input misses {missing}{also}", hint="the model takes " + ", ".join(map(str, known[:50]))
        )
    if extra:
        _log.warning("the input has %s, which the model's signature does not: ignored", extra)


def _to_frame(data: Any, schema: Schema) -> pd.DataFrame:
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data
    try:
        frame = _table(data, schema)
    except (ValueError, TypeError) as error:
        raise SchemaError(f"the input cannot be made a table: {error}") from error
    if frame is None:
        raise SchemaError(f"the model takes a table, got {type(data).__name__}", hint="pass a pandas DataFrame")
    return frame


def _table(data: Any, schema: Schema) -> pd.DataFrame | None:
    """Rows or columns as a table; None if ``data`` is neither."""
    import numpy as np
    import pandas as pd

    frame: pd.DataFrame | None = None
    if np.isscalar(data) or (isinstance(data, dict) and _is_one_row(data, schema)):
        frame = pd.DataFrame([data])
    elif isinstance(data, dict):
        frame = pd.DataFrame(_without_matrices(data))
    elif isinstance(data, np.ndarray) and schema.has_input_names() and len(schema.required_input_names()) == 1:
        frame = pd.DataFrame({schema.required_input_names()[0]: list(data) if data.ndim > 1 else data})
    elif isinstance(data, (list, np.ndarray)):
        frame = pd.DataFrame(data)
    return frame


def _is_one_row(data: Mapping[str, Any], schema: Schema) -> bool:
    """True for a dict that is one row, and not columns."""
    import numpy as np

    if any(not isinstance(spec.type, str) and spec.type["type"] != "map" for spec in schema.inputs):
        return True

    def single(value: Any) -> bool:
        if isinstance(value, list):
            return all(isinstance(item, str) for item in value)
        return value is None or bool(np.isscalar(value))

    def text(value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.dtype.kind == "U" and value.shape == ()

    return all(map(single, data.values())) or all(map(text, data.values()))


def _without_matrices(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.tolist() if getattr(value, "ndim", 0) > 1 else value for key, value in data.items()}


def _columns(frame: pd.DataFrame, schema: Schema, names: list[Any]) -> pd.DataFrame:
    import pandas as pd

    columns = {}
    for name, spec in zip(names, schema.inputs, strict=True):
        if name not in frame:
            continue  # optional
        column = frame[name]
        if isinstance(spec.type, str) and spec.type != ANY:
            columns[name] = _cast(name, column, spec.type)
        elif spec.type == ANY:
            columns[name] = column
        else:
            values = [_enforce_value(value, spec.type, name, required=spec.required) for value in column]
            columns[name] = pd.Series(values, index=frame.index, name=name, dtype=object)
    result: pd.DataFrame = pd.DataFrame(columns, index=frame.index)
    return result


_NARROWER_UNSIGNED: Final = {"integer": 2, "long": 4}  #: bytes of the widest unsigned type that fits


def _cast(name: Any, column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    """A column as one of ``kind``; only what loses nothing is done."""
    import numpy as np

    if column.dtype.kind == "O" and kind not in ("binary", "string"):
        column = column.infer_objects()
    dtype: Any = column.dtype
    wanted = np.dtype(NUMPY_TYPES[kind])
    if kind in ("string", "binary") and dtype.kind in ("O", wanted.kind):
        return column
    if kind == "datetime":
        return _cast_datetime(name, column)
    if dtype == wanted or (kind == "boolean" and dtype.kind == "O"):
        return column
    size = getattr(dtype, "itemsize", 0)  # texts have none
    if dtype.kind == wanted.kind and size:
        fits = size <= wanted.itemsize and kind not in ("string", "binary")
    elif dtype.kind == "u" and wanted.kind == "i":
        fits = size <= _NARROWER_UNSIGNED[kind]
    elif dtype.kind in "iu" and kind == "double":
        fits = size <= 4
    else:
        fits = False
    if not fits and dtype == np.int64 and wanted.kind == "f":
        fits = bool(column.isin((0, 1)).all())  # a column of flags, seen without the values that are not whole
    if not fits and dtype.kind == "O" and kind == "double" and type(column.iloc[0]).__name__ == "Decimal":
        return _convert(name, column, wanted, kind)
    if not fits:
        raise _mismatch(name, column, kind)
    return _convert(name, column, wanted, kind)


def _convert(name: Any, column: pd.Series[Any], wanted: Any, kind: str) -> pd.Series[Any]:
    try:
        return column.astype(wanted)
    except (ValueError, TypeError) as error:  # missing values in a column of integers
        raise _mismatch(name, column, kind) from error


def _cast_datetime(name: Any, column: pd.Series[Any]) -> pd.Series[Any]:
    if column.dtype.kind != "M" and column.dtype != object:
        raise _mismatch(name, column, "datetime")
    try:
        return column.astype("datetime64[ns]")
    except (ValueError, TypeError) as error:  # no dates, or with a time zone
        raise _mismatch(name, column, "datetime") from error


def _mismatch(name: Any, column: pd.Series[Any], kind: str) -> SchemaError:
    missing_values = kind in ("integer", "long") and column.dtype.kind == "f" and bool(column.isna().any())
    return SchemaError(
        f"column `{name}` is {column.dtype}, which cannot become {kind} without loss",
        hint=(
            "whole numbers with missing values are floats in pandas: infer the signature from data that has missing "
            "values, or make the column double"
            if missing_values
            else f"convert it to {NUMPY_TYPES[kind]}"
        ),
    )


# --- values within columns


def _enforce_value(value: Any, kind: Kind, name: Any, *, required: bool) -> Any:
    if kind == ANY or (not required and is_missing_value(value)):
        return value
    if isinstance(kind, str):
        return _enforce_scalar(value, kind, name)
    form = kind["type"]
    if form in ("array", "sparkml_vector"):
        items = _plain(kind.get("items", {"type": "double"}))
        if items == ANY and value is None:
            return value
        return _enforce_array(value, items, name, required=required)
    if not isinstance(value, dict):
        raise SchemaError(f"values of `{name}` are dicts, got {type(value).__name__}")
    if form == "map":
        return {
            str(key): _enforce_value(item, _plain(kind["values"]), f"{name}.{key}", required=required)
            for key, item in value.items()
        }
    properties = kind["properties"]
    missing = [key for key, one in properties.items() if one.get("required", True) and key not in value]
    unknown = [key for key in value if key not in properties]
    if missing or unknown:
        what = f"misses {missing}" if missing else f"has {unknown}"
        raise SchemaError(f"a value of `{name}` {what}", hint="the model takes " + ", ".join(properties))
    return {
        key: _enforce_value(
            item, _plain(properties[key]), f"{name}.{key}", required=properties[key].get("required", True)
        )
        for key, item in value.items()
    }


def is_missing_value(value: Any) -> bool:
    """True for what stands for a value that is not there; an empty list or dict does, too."""
    return is_missing(value) or (isinstance(value, (list, dict)) and not value)


def _plain(kind: Mapping[str, Any]) -> Kind:
    return str(kind["type"]) if kind["type"] not in ("array", "object", "map", "sparkml_vector") else kind


def _enforce_scalar(value: Any, kind: str, name: Any) -> Any:
    import numpy as np
    import pandas as pd

    if not np.isscalar(value) and not hasattr(value, "isoformat"):
        raise SchemaError(f"values of `{name}` are of type {kind}, got {type(value).__name__}")
    return _cast(name, pd.Series([value]), kind).iloc[0]


def _enforce_array(value: Any, items: Kind, name: Any, *, required: bool) -> Any:
    import numpy as np
    import pandas as pd

    if not isinstance(value, (list, np.ndarray)):
        raise SchemaError(f"values of `{name}` are lists, got {type(value).__name__}")
    if not len(value):
        return value
    if isinstance(items, str) and items != ANY:
        if any(isinstance(item, (list, dict)) for item in value):
            raise SchemaError(f"the items of `{name}` are of type {items}")
        found: Any = _cast(name, pd.Series(value), items).to_numpy(dtype=NUMPY_TYPES[items])
    else:
        found = [_enforce_value(item, items, name, required=required) for item in value]
    if isinstance(value, list):
        return found.tolist() if isinstance(found, np.ndarray) else found
    return np.asarray(found)


# --- tensors


def _enforce_tensors(data: Any, schema: Schema) -> Any:
    specs = [spec for spec in schema.inputs if isinstance(spec, TensorSpec)]
    if not schema.has_input_names():
        return _enforce_one_tensor(data, specs[0])
    names = [str(spec.name) for spec in specs]
    import numpy as np

    if isinstance(data, np.ndarray) and len(names) == 1:
        data = {names[0]: data}
    if isinstance(data, dict) or hasattr(data, "columns"):
        _check_names(list(data.keys()), schema)
    else:
        raise SchemaError(f"the model takes a dict of arrays, got {type(data).__name__}", hint=f"its keys are {names}")
    found = {}
    for name, spec in zip(names, specs, strict=True):
        if hasattr(data, "columns"):
            found[name] = _column_to_tensor(name, data[name], spec)
        elif isinstance(data[name], np.ndarray):
            found[name] = _check_tensor(data[name], spec)
        else:
            raise SchemaError(f"`{name}` must be an array, got {type(data[name]).__name__}")
    return found


def _enforce_one_tensor(data: Any, spec: TensorSpec) -> Any:
    import numpy as np

    if hasattr(data, "columns"):
        if data.empty:
            raise SchemaError("the input is empty")
        if len(data.columns) == 1:
            return _column_to_tensor(data.columns[0], data.iloc[:, 0], spec)
        if spec.shape != (-1, len(data.columns)):
            raise SchemaError(f"the model takes an array of shape {spec.shape}, the table has shape {data.shape}")
        return _check_tensor(data.to_numpy(), spec)
    if isinstance(data, np.ndarray) or (hasattr(data, "indptr") and hasattr(data, "toarray")):
        return _check_tensor(data, spec)
    raise SchemaError(f"the model takes an array, got {type(data).__name__}", hint=f"numpy, {spec!r}")


def _check_tensor(array: Any, spec: TensorSpec) -> Any:
    dtype = array.dtype
    if spec.type == "object" and spec.shape == (-1,):
        return array  # anything
    if len(spec.shape) > 1 and -1 in spec.shape[1:] and array.ndim == 1 and dtype.kind == "O":
        return array  # rows of different lengths
    fits = len(spec.shape) == array.ndim and all(
        wanted in (-1, size) for wanted, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise SchemaError(f"the model takes an array of shape {spec.shape}, got {array.shape}")
    if element_name(dtype) != spec.type:
        raise SchemaError(f"the model takes an array of {spec.type}, got {dtype}", hint=f"use .astype({spec.type!r})")
    return array


def _column_to_tensor(name: Any, column: pd.Series[Any], spec: TensorSpec) -> Any:
    """A column of a table, of numbers or of flat lists, as the tensor that ``spec`` describes."""
    import numpy as np

    if not spec.shape or spec.shape[0] != -1 or -1 in spec.shape[1:]:
        raise SchemaError(f"a table cannot be made a tensor of shape {spec.shape}", hint="pass arrays")
    first = column.iloc[0] if len(column) else 0.0
    try:
        if np.isscalar(first):
            if spec.shape not in ((-1,), (-1, 1)):
                raise SchemaError(f"column `{name}` has single values, the model takes shape {spec.shape}")
            return _check_tensor(np.array(column, dtype=spec.type).reshape(spec.shape), spec)
        array = np.vstack(column.tolist()).reshape(spec.shape)
        if isinstance(first, list):
            array = array.astype(spec.type)  # lists say nothing about their element type
    except (ValueError, TypeError) as error:
        if isinstance(error, SchemaError):
            raise
        raise SchemaError(f"column `{name}` cannot be made a tensor {spec!r}: {error}") from error
    if len(array) != len(column):
        raise SchemaError(f"column `{name}` has the wrong number of values for shape {spec.shape}")
    return _check_tensor(array, spec)
