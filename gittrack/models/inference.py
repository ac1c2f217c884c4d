"""The Open Inference Protocol (version 2, JSON) without its sockets: tensors to a model's input, and back.

Source: https://github.com/kserve/open-inference-protocol, ``specification/protocol/inference_rest.md``.  A model with a
table for input takes a tensor per column, or one tensor of shape [rows, columns] with the columns in the signature's
order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from gittrack.data.schema import ColSpec, Schema, TensorSpec
from gittrack.errors import CorruptError, SchemaError, UsageError
from gittrack.models import tables
from gittrack.models.scoring import MAX_CELLS, Request, Scorer, jsonable, parse

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[Any, Any]

#: The protocol's element types, by numpy's.
DATATYPES: Final = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    "str": "BYTES",
    "bytes": "BYTES",
    "object": "BYTES",
}
_ELEMENTS: Final = {datatype: name for name, datatype in DATATYPES.items()} | {"BYTES": "str"}
_COLUMN_DATATYPES: Final = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
}
_INTEGERS: Final = frozenset(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
_FLOATS: Final = frozenset(("FP16", "FP32", "FP64"))
#: What a column of each type may be sent as; whether each value fits is seen later.
_ACCEPTED: Final = {
    "boolean": frozenset(("BOOL",)),
    "integer": _INTEGERS,
    "long": _INTEGERS,
    "float": _INTEGERS | _FLOATS,
    "double": _INTEGERS | _FLOATS,
}
_MAX_RANK: Final = 32


def model_metadata(scorer: Scorer, name: str, versions: Sequence[str]) -> dict[str, Any]:
    """The answer to "what is this model": its tensors, by the names that requests use."""
    metadata = scorer.metadata
    flavours = [flavour for flavour in metadata.flavors if flavour != "python_function"]
    return {
        "name": name,
        "versions": list(versions),
        "platform": f"gittrack_{flavours[0]}" if flavours else "gittrack_pyfunc",
        "inputs": _described(metadata.get_input_schema(), "input"),
        "outputs": _described(metadata.get_output_schema(), "predictions"),
    }


def _described(schema: Schema | None, unnamed: str) -> list[dict[str, Any]]:
    if schema is None:
        return []
    if not schema.has_input_names() and not schema.is_tensor_spec() and len(schema) > 1:
        kinds = {_COLUMN_DATATYPES.get(str(kind), "BYTES") for kind in schema.input_types()}
        return [{"name": unnamed, "datatype": kinds.pop() if len(kinds) == 1 else "FP64", "shape": [-1, len(schema)]}]
    return [_described_one(spec, unnamed) for spec in schema.inputs]


def _described_one(spec: ColSpec | TensorSpec, unnamed: str) -> dict[str, Any]:
    name = unnamed if spec.name is None else str(spec.name)
    if isinstance(spec, TensorSpec):
        return {"name": name, "datatype": DATATYPES.get(spec.type, "BYTES"), "shape": list(spec.shape)}
    return {"name": name, "datatype": _COLUMN_DATATYPES.get(str(spec.type), "BYTES"), "shape": [-1]}


# --- in


class Inference:
    """A request of the protocol.

    Attributes:
        request: What is to be predicted.
        id: Given back in the answer; None if there was none.
        outputs: Names of the tensors that are wanted; None for all.
    """

    def __init__(self, scorer: Scorer, body: bytes) -> None:
        """Read ``body``.

        Raises:
            UsageError: It breaks the protocol, or a value has the wrong type.
            SchemaError: It does not fit the model's signature.
        """
        document = parse(body)
        unknown = document.keys() - {"id", "parameters", "inputs", "outputs"}
        if unknown:
            raise UsageError("a request has `id`, `parameters`, `inputs` and `outputs`, and nothing else")
        self.id: str | None = document.get("id")
        if self.id is not None and not isinstance(self.id, str):
            raise UsageError("`id` must be a text")
        outputs = document.get("outputs")
        if outputs is not None and not (_are_objects(outputs) and all(isinstance(o.get("name"), str) for o in outputs)):
            raise UsageError("`outputs` must be a list of objects with a `name`")
        self.outputs: list[str] | None = [one["name"] for one in outputs] if outputs else None
        inputs = document.get("inputs")
        if not inputs or not _are_objects(inputs):
            raise UsageError("`inputs` must be a list of tensors")
        tensors = {}
        for one in inputs:
            name, datatype, shape, values = _tensor(one)
            if name in tensors:
                raise UsageError("`inputs` has two tensors of the same name")
            tensors[name] = (datatype, shape, values)
        self.request = _request(scorer, tensors, scorer.params(document.get("parameters")))


_Tensor = tuple[str, list[int], list[Any]]  # datatype, shape, values one after the other


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _tensor(one: dict[str, Any]) -> tuple[str, str, list[int], list[Any]]:
    name, shape, datatype, data = (one.get(key) for key in ("name", "shape", "datatype", "data"))
    if not isinstance(name, str) or not isinstance(data, list):
        raise UsageError("a tensor has `name`, `shape`, `datatype` and `data`")
    if not isinstance(datatype, str) or datatype not in _ELEMENTS:
        raise UsageError(f"`datatype` of a tensor must be one of {', '.join(_ELEMENTS)}")
    if not isinstance(shape, list) or len(shape) > _MAX_RANK or not all(type(n) is int and n >= 0 for n in shape):
        raise UsageError("`shape` of a tensor must be a list of whole numbers of 0 or more")
    values, depth = data, 0
    while values and isinstance(values[0], list) and depth < _MAX_RANK:
        if not all(isinstance(row, list) for row in values):
            raise UsageError("`data` of a tensor has lists and values side by side")
        values = [value for row in values for value in row]
        depth += 1
    if len(values) != math.prod(shape):
        raise UsageError(f"a tensor of shape {shape} has {math.prod(shape)} values, and not {len(values)}")
    return name, datatype, shape, values


def _request(scorer: Scorer, tensors: Mapping[str, _Tensor], params: dict[str, Any] | None) -> Request:
    schema = scorer.schema
    if schema is None:
        arrays = {name: _array(name, *one) for name, one in tensors.items()}
        return Request(next(iter(arrays.values())) if len(arrays) == 1 else arrays, params)
    if schema.is_tensor_spec():
        return Request(_tensors(schema, tensors), params)
    names = [str(name) for name in schema.input_names()] if schema.has_input_names() else []
    if len(tensors) == 1 and next(iter(tensors)) not in names:
        return _matrix_request(scorer, schema, next(iter(tensors.values())), params)
    missing = [name for name in map(str, schema.required_input_names()) if name not in tensors]
    if missing or not names:
        raise SchemaError(
            f"the input misses {tables.listed(missing)}" if names else "the model takes one tensor",
            hint=f"the model takes {tables.listed(names)}, or one tensor of shape [-1, {len(schema)}]",
        )
    known = {name: tensors[name] for name in names if name in tensors}
    rows = {one[1][0] if one[1] else 1 for one in known.values()}
    if len(rows) > 1 or any(math.prod(one[1][1:]) != 1 for one in known.values()):
        raise SchemaError("the tensors of columns must have the same number of rows and one value in each")
    for name, spec in zip(names, schema.inputs, strict=True):
        if name in known:
            _check_datatype(f"column `{name}`", known[name][0], spec.type)
    values = [list(row) for row in zip(*(one[2] for one in known.values()), strict=True)]
    return scorer.rows(list(known), values, params)


def _matrix_request(scorer: Scorer, schema: Schema, one: _Tensor, params: dict[str, Any] | None) -> Request:
    datatype, shape, values = one
    width = len(schema)
    if shape not in ([shape[0] if shape else 0, width], [width]) or len(values) % width:
        raise SchemaError(f"the tensor has shape {shape}, the model takes [-1, {width}]")
    for at, kind in enumerate(schema.input_types()):
        _check_datatype(f"column {at}", datatype, kind)
    names = schema.input_names() if schema.has_input_names() else None
    return scorer.rows(names, [values[at : at + width] for at in range(0, len(values), width)], params)


def _check_datatype(what: str, datatype: str, kind: Any) -> None:
    accepted = _ACCEPTED.get(kind, frozenset(("BYTES",))) if isinstance(kind, str) else frozenset()
    if kind != "any" and datatype not in accepted:
        raise SchemaError(f"{what} is of type {kind if isinstance(kind, str) else kind['type']}, sent as {datatype}")


def _tensors(schema: Schema, given: Mapping[str, _Tensor]) -> Any:
    specs = [spec for spec in schema.inputs if isinstance(spec, TensorSpec)]
    if len(specs) == 1 and len(given) == 1:
        found = _fitted(specs[0], next(iter(given.values())))
        return found if specs[0].name is None else {specs[0].name: found}
    missing = [spec.name for spec in specs if spec.name not in given]
    if missing:
        raise SchemaError(
            f"the input misses {tables.listed(missing)}", hint=f"the model takes {tables.listed(schema.input_names())}"
        )
    return {str(spec.name): _fitted(spec, given[str(spec.name)]) for spec in specs}


def _fitted(spec: TensorSpec, one: _Tensor) -> Matrix:
    datatype, shape, values = one
    wanted = DATATYPES.get(spec.type, "BYTES")
    if datatype != wanted and not (wanted in _FLOATS and datatype in _FLOATS | _INTEGERS):
        raise SchemaError(f"the model takes a tensor of {wanted}, sent as {datatype}")
    return tables.tensor(values, spec, flat=shape)


def _array(name: str, datatype: str, shape: list[int], values: list[Any]) -> Matrix:
    return tables.tensor(values, TensorSpec(_ELEMENTS[datatype], (-1,) * len(shape), name), flat=shape)


# --- out


def answer(
    inference: Inference, prediction: Any, schema: Schema | None, name: str, version: str | None
) -> dict[str, Any]:
    """The body of the answer, to be written as JSON.

    Args:
        inference: The request.
        prediction: The model's.
        schema: Of the model's output, for the names of tensors.
        name: Of the model.
        version: Of the model; None if it has none.

    Raises:
        UsageError: A tensor was wanted that the model does not give.
        CorruptError: The prediction is nothing that tensors can hold.
    """
    found = _outputs(prediction, schema)
    wanted = list(found) if inference.outputs is None else inference.outputs
    unknown = [one for one in wanted if one not in found]
    if unknown:
        raise UsageError(
            "an output was asked for that the model does not give", hint=f"it gives {tables.listed(list(found))}"
        )
    body: dict[str, Any] = {"model_name": name}
    if version is not None:
        body["model_version"] = version
    if inference.id is not None:
        body["id"] = inference.id
    return body | {"outputs": [_written(one, found[one]) for one in wanted]}


def _outputs(prediction: Any, schema: Schema | None) -> dict[str, Any]:
    import numpy as np

    if hasattr(prediction, "columns") and hasattr(prediction, "iloc"):
        return {str(name): prediction[name].to_numpy() for name in prediction.columns}
    if isinstance(prediction, dict):
        return {str(name): np.asarray(value) for name, value in prediction.items()}
    if hasattr(prediction, "iloc"):
        prediction = prediction.to_numpy()
    try:
        array = np.asarray(prediction)
    except ValueError as error:
        raise CorruptError("the model's answer is no tensor") from error
    named = schema.inputs[0].name if schema is not None and len(schema) == 1 else None
    return {"predictions" if named is None else str(named): array}


def _written(name: str, array: Matrix) -> dict[str, Any]:
    kind = {"U": "str", "S": "bytes"}.get(array.dtype.kind, array.dtype.name)
    if kind not in DATATYPES or array.size > MAX_CELLS:
        raise CorruptError(f"the model's answer has elements of type {array.dtype}, which tensors cannot hold")
    values = jsonable(array.ravel())
    if kind == "object":
        values = [one if one is None or isinstance(one, (str, bytes)) else str(one) for one in values]
    return {"name": name, "datatype": DATATYPES[kind], "shape": list(array.shape), "data": values}
