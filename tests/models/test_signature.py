"""Signatures: inferred, written, read, and held against inputs."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gittrack.data.schema import (
    AnyType,
    Array,
    ColSpec,
    DataType,
    Map,
    Object,
    Property,
    Schema,
    TensorSpec,
    infer_schema,
)
from gittrack.errors import FormatError, InvalidValueError, SchemaError
from gittrack.models.enforcement import enforce_params, enforce_schema
from gittrack.models.signature import ModelSignature, ParamSchema, ParamSpec, infer_signature
from tests.models import cases


@pytest.mark.parametrize("name", cases.DATA)
def test_a_schema_survives_its_json(name: str) -> None:
    schema = infer_schema(cases.DATA[name])
    assert Schema.from_json(schema.to_json()) == schema


@pytest.mark.parametrize("name", cases.NO_SCHEMA)
def test_what_has_no_schema_is_anything_in_a_signature(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidValueError):
        infer_schema(cases.NO_SCHEMA[name])
    with caplog.at_level(logging.WARNING, "gittrack"):
        assert infer_signature(cases.NO_SCHEMA[name]).inputs == Schema([ColSpec("any")])
    assert "the schema of the model's input is `any`" in caplog.text


def test_a_signature_survives_its_dict() -> None:
    signature = infer_signature(cases.DATA["frame"], cases.DATA["vector"], {"n": 3, "names": ["a"], "t": 0.5})
    assert ModelSignature.from_dict(signature.to_dict()) == signature
    assert signature.params is not None
    assert [(spec.name, spec.dtype, spec.default, spec.shape) for spec in signature.params] == [
        ("n", "long", 3, None),
        ("names", "string", ["a"], (-1,)),
        ("t", "double", 0.5, None),
    ]


def test_types_by_mlflows_names() -> None:
    spec = ColSpec(DataType.double, "x")
    assert spec.type == DataType.double == "double"
    nested = ColSpec(Array(Object([Property("b", DataType.long), Property("a", AnyType(), required=False)])))
    assert nested.to_dict()["items"] == {
        "type": "object",
        "properties": {"a": {"type": "any", "required": False}, "b": {"type": "long", "required": True}},
    }
    assert ColSpec(Map("string")).type == {"type": "map", "values": {"type": "string"}}
    assert TensorSpec(np.dtype("<U8"), (-1, 2)).type == "str"  # type: ignore[arg-type]  # as MLflow takes it
    assert repr(Schema([ColSpec("long", "a", required=False)])) == "['a': long (optional)]"


@pytest.mark.parametrize(
    "inputs",
    [
        [ColSpec("long", "a"), ColSpec("long")],
        [ColSpec("long", "a"), TensorSpec("float64", (-1,), "b")],
        [TensorSpec("float64", (-1,)), TensorSpec("float64", (-1,))],
        [ColSpec("long", required=False)],
    ],
)
def test_schemas_that_mean_nothing(inputs: list[Any]) -> None:
    with pytest.raises(InvalidValueError):
        Schema(inputs)


@pytest.mark.parametrize(
    "text",
    ["", "1", "{}", "[1]", '[{"name": "a"}]', '[{"type": "complex"}]', '[{"type": "tensor"}]', '[{"type": "array"}]',
     '[{"type": "array", "items": ' + '{"type": "array", "items": ' * 100 + "1" + "}" * 101 + "]", "[" * 100_000],
)  # fmt: skip
def test_broken_json_is_a_format_error(text: str) -> None:
    with pytest.raises(FormatError):
        Schema.from_json(text)
    with pytest.raises(FormatError):
        ParamSchema.from_json(text)


# --- enforcement

SCHEMA = Schema([ColSpec("double", "a"), ColSpec("long", "b"), ColSpec("string", "c", required=False)])


def test_columns_are_put_into_order_and_extra_ones_left_out(caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"z": [0], "b": np.array([1], "int32"), "a": np.array([2], "float32")}, index=[7])
    with caplog.at_level(logging.WARNING, "gittrack"):
        found = enforce_schema(frame, SCHEMA)
    assert list(found.columns) == ["a", "b"]
    assert list(found.index) == [7]
    assert [str(dtype) for dtype in found.dtypes] == ["float64", "int64"]
    assert "['z']" in caplog.text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pd.DataFrame({"a": [1.0]}), r"misses \['b'\]"),
        (pd.DataFrame({"a": [1.0], "x": [1]}), r"misses \['b'\], and has \['x'\]"),
        (pd.DataFrame({"a": [1.0], "b": [1.5]}), "column `b` is float64, which cannot become long"),
        (pd.DataFrame({"a": ["x"], "b": [1]}), "column `a` is .*, which cannot become double"),
        (pd.DataFrame({"a": [1.0], "b": [None]}), "cannot become long"),
        (object(), "the model takes a table, got object"),
        ({"a": [1.0, 2.0], "b": [1, 2, 3]}, "cannot be made a table"),
    ],
)
def test_what_does_not_fit_is_said(data: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        enforce_schema(data, SCHEMA)
    assert caught.value.http_status == 400


def test_missing_values_in_whole_numbers_are_explained() -> None:
    with pytest.raises(SchemaError) as caught:
        enforce_schema(pd.DataFrame({"a": [1.0], "b": [float("nan")]}), SCHEMA)
    assert "missing values" in str(caught.value.hint)


def test_dicts_lists_and_arrays_become_tables() -> None:
    assert enforce_schema({"a": 1.0, "b": 2}, SCHEMA).shape == (1, 2)
    assert enforce_schema({"a": [1.0, 2.0], "b": [1, 2]}, SCHEMA).shape == (2, 2)
    assert enforce_schema([{"a": 1.0, "b": 2}], SCHEMA).shape == (1, 2)
    unnamed = Schema([ColSpec("double"), ColSpec("double")])
    assert enforce_schema(np.zeros((3, 5)), unnamed).shape == (3, 2)
    with pytest.raises(SchemaError, match="takes 2 columns, the input has 1"):
        enforce_schema([1.0], unnamed)
    assert enforce_schema("hello", Schema([ColSpec("string")])).iloc[0, 0] == "hello"


def test_values_within_columns() -> None:
    schema = Schema([ColSpec(Object([Property("x", Array("double")), Property("y", "long", required=False)]), "o")])
    found = enforce_schema([{"o": {"x": [1.0, 2.0]}}], schema)
    assert found["o"][0] == {"x": [1.0, 2.0]}
    for wrong, message in (
        ({"y": 1}, r"misses \['x'\]"),
        ({"x": [], "z": 1}, r"has \['z'\]"),
        ({"x": "no"}, "values of `o.x` are lists"),
        ({"x": ["no"]}, "cannot become double"),
        ("no", "values of `o` are dicts"),
    ):
        with pytest.raises(SchemaError, match=message):
            enforce_schema([{"o": wrong}], schema)


def test_tensors() -> None:
    schema = Schema([TensorSpec("float32", (-1, 2))])
    data = np.zeros((3, 2), "float32")
    assert enforce_schema(data, schema) is data
    frame = pd.DataFrame(data)
    assert enforce_schema(frame, schema).shape == (3, 2)
    for wrong, message in (
        (np.zeros((3, 3), "float32"), r"shape \(-1, 2\), got \(3, 3\)"),
        (np.zeros((3, 2)), "an array of float32, got float64"),
        ([[1.0, 2.0]], "takes an array, got list"),
        (pd.DataFrame({"a": [1]}), "single values"),
    ):
        with pytest.raises(SchemaError, match=message):
            enforce_schema(wrong, schema)


def test_named_tensors() -> None:
    schema = Schema([TensorSpec("int64", (-1,), "a"), TensorSpec("float64", (-1, 2), "b")])
    found = enforce_schema({"b": np.zeros((1, 2)), "a": np.zeros(1, "int64"), "c": np.zeros(1)}, schema)
    assert list(found) == ["a", "b"]
    found = enforce_schema(pd.DataFrame({"a": [1, 2], "b": [[1, 2], [3, 4]]}), schema)
    assert found["b"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(SchemaError, match="misses"):
        enforce_schema({"a": np.zeros(1, "int64")}, schema)
    with pytest.raises(SchemaError, match="must be an array"):
        enforce_schema({"a": [1], "b": np.zeros((1, 2))}, schema)


def test_params(caplog: pytest.LogCaptureFixture) -> None:
    schema = ParamSchema(
        [ParamSpec("n", "long", 3), ParamSpec("t", "double", 0.5), ParamSpec("s", "string", [], (-1,))]
    )
    with caplog.at_level(logging.WARNING, "gittrack"):
        assert enforce_params({"t": 1, "q": 2}, schema) == {"n": 3, "t": 1.0, "s": []}
    assert "unknown params ['q']" in caplog.text
    for wrong in ({"n": 1.5}, {"n": True}, {"s": "x"}, {"s": [1]}, {"t": "1"}, "x"):
        with pytest.raises(SchemaError):
            enforce_params(wrong, schema)
    assert enforce_params({"n": 1}, None) == {}
    assert enforce_params(None, None) is None


@pytest.mark.parametrize(
    ("name", "dtype", "default", "shape"),
    [("a", "binary", b"", None), ("a", "long", "x", None), ("a", "long", 1, (2,)), ("a", "array", [], None)],
)
def test_params_that_cannot_be(name: str, dtype: str, default: Any, shape: Any) -> None:
    with pytest.raises(InvalidValueError):
        ParamSpec(name, dtype, default, shape)
