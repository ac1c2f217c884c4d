"""Input examples: kept with a model as JSON, in MLflow's form and in the form that a server takes."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gittrack.data.schema import NUMPY_TYPES, Schema, TensorSpec
from gittrack.errors import FormatError, InvalidValueError
from gittrack.models.trust import inside

INPUT_EXAMPLE: Final = "input_example.json"
SERVING_EXAMPLE: Final = "serving_input_example.json"
#: Keys of the dict that an example with parameters is kept as.
_DATA, _PARAMS = "inputs", "params"
#: A request with one of these is a chat: the server hands it to the model as it is.
_CHAT_KEYS: Final = ("messages", "prompt", "input")


@dataclass(frozen=True)
class Example:
    """An input example.

    Attributes:
        data: What the model takes.
        params: Parameters of the prediction; None if there are none.
        info: What MLmodel says about it.
        input_json: As it is kept.
        serving_json: As a request to a server.
    """

    data: Any
    params: dict[str, Any] | None
    info: dict[str, Any]
    input_json: str
    serving_json: str

    @classmethod
    def of(cls, input_example: Any) -> Example:
        """An example from what ``log_model`` is given: data, or a pair of data and a dict of parameters.

        Raises:
            InvalidValueError: JSON has no form for it.
        """
        params = None
        data = copy.deepcopy(input_example)
        if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], dict):
            data, params = data
        form, serving = _form(data)
        info = {"artifact_path": INPUT_EXAMPLE, "serving_input_path": SERVING_EXAMPLE, "type": form}
        kept = next(iter(serving.values())) if form != "json_object" else data
        if form == "dataframe":
            info["pandas_orient"] = "split" if "columns" in kept else "values"
        if form.startswith("sparse_matrix"):
            kept = {name: getattr(data, name).tolist() for name in ("data", "indices", "indptr")}
            kept["shape"] = list(data.shape)
        if params is not None:
            info["params"] = "true"
            kept = {_DATA: kept, _PARAMS: params}
            serving = {**serving, **params} if _is_chat(data) else {**serving, "params": params}
        return cls(data, params, info, _dumped(kept), _dumped(serving, indent=2))

    def save(self, folder: Path) -> None:
        """Write both files into ``folder``."""
        (folder / INPUT_EXAMPLE).write_text(self.input_json, encoding="utf-8")
        (folder / SERVING_EXAMPLE).write_text(self.serving_json, encoding="utf-8")


def _is_chat(data: Any) -> bool:
    return isinstance(data, dict) and any(key in data for key in _CHAT_KEYS)


def _form(data: Any) -> tuple[str, dict[str, Any]]:
    """Name of the form that MLflow keeps ``data`` in, and the request that says it."""
    if hasattr(data, "model_dump"):
        data = data.model_dump()  # pydantic's
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        split = {"columns": list(data.columns), "data": data.to_numpy(dtype=object).tolist()}
        if split["columns"] == list(range(len(split["columns"]))):
            del split["columns"]
        return "dataframe", {"dataframe_split": split}
    if hasattr(data, "indptr") and getattr(data, "format", "") in ("csr", "csc"):
        return f"sparse_matrix_{data.format}", {"inputs": data.toarray().tolist()}
    if hasattr(data, "tolist") and hasattr(data, "ndim") and data.ndim:
        return "ndarray", {"inputs": data.tolist()}
    if isinstance(data, dict):
        arrays = [hasattr(value, "tolist") and hasattr(value, "shape") for value in data.values()]
        if any(arrays):
            if not all(arrays):
                raise InvalidValueError("an input example is a dict of arrays, or of other things, not of both")
            return "ndarray", {"inputs": {key: value.tolist() for key, value in data.items()}}
        return "json_object", dict(data) if _is_chat(data) else {"inputs": data}
    if isinstance(data, (list, str, bytes, bool, int, float, dt.date)) or hasattr(data, "item"):
        return "json_object", {"inputs": data}
    raise InvalidValueError(
        f"an input example cannot be of the type {type(data).__name__}",
        hint="a DataFrame, an array or a dict of arrays, a sparse matrix, a dict, a list or one value",
    )


def _dumped(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(_without_nan(value), default=_jsonable, indent=indent, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"an input example must be possible to write as JSON: {error}") from error


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: what is missing is null."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, dict):
        return {str(key) if not isinstance(key, str) else key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _jsonable(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return base64.encodebytes(value).decode()  # with line ends, as MLflow has it
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"no JSON for {type(value).__name__}")


def convert_input_example_to_serving_input(input_example: Any) -> str | None:
    """The request to a server that says the same as an input example; None for None.  Raises InvalidValueError."""
    return None if input_example is None else Example.of(input_example).serving_json


# --- reading


def read(folder: Path, info: Mapping[str, Any], inputs: Schema | None) -> tuple[Any, dict[str, Any] | None]:
    """Data and parameters of the example that was kept with a model.

    Args:
        folder: The model's.
        info: ``saved_input_example_info`` of MLmodel.
        inputs: Schema of the input, for the types that JSON does not tell.

    Raises:
        FormatError: The example is not what MLmodel says.
        NotFoundError: Its file is not there.
    """
    import numpy as np

    path = inside(folder, info.get("artifact_path"))
    try:
        raw = json.loads(path.read_bytes())
        params = None
        if info.get("params"):
            raw, params = raw[_DATA], raw[_PARAMS]
        form = info.get("type")
        if form == "dataframe":
            return _frame(raw, inputs), params
        if form == "ndarray":
            specs = [spec.type for spec in inputs.inputs if isinstance(spec, TensorSpec)] if inputs else []
            if isinstance(raw, dict):
                types = dict(zip(raw, specs, strict=False))
                return {key: np.array(value, dtype=types.get(key)) for key, value in raw.items()}, params
            return np.array(raw, dtype=specs[0] if specs else None), params
        if form in ("sparse_matrix_csr", "sparse_matrix_csc"):
            from scipy import sparse

            made = getattr(sparse, f"{form[-3:]}_matrix")
            matrix = made((raw["data"], raw["indices"], raw["indptr"]), shape=tuple(raw["shape"]))
            matrix.check_format(full_check=True)
            return matrix, params
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"the input example `{path.name}` cannot be read: {error!s:.200}") from error
    if form != "json_object":
        raise FormatError(f"the input example is of the unknown type `{form!s:.80}`")
    return raw, params


def _frame(raw: Mapping[str, Any], inputs: Schema | None) -> Any:
    import pandas as pd

    frame = pd.DataFrame(raw["data"], columns=raw.get("columns"))
    for name, spec in (inputs.input_dict() if inputs and not inputs.is_tensor_spec() else {}).items():
        if name not in frame or not isinstance(spec.type, str):
            continue
        if spec.type == "binary":
            frame[name] = [None if value is None else base64.b64decode(value) for value in frame[name]]
        elif spec.type in NUMPY_TYPES and spec.type != "string" and not frame[name].isna().any():
            frame[name] = frame[name].astype(NUMPY_TYPES[spec.type])
    return frame
