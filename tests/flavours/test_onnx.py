"""ONNX: run by onnxruntime; weights in other files only from beside the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack
from gittrack import pyfunc
from gittrack.errors import FormatError, InvalidValueError, NotFoundError
from gittrack.models.model import Model
from tests.flavours.conftest import Mlflow, matrix

onnx = pytest.importorskip("onnx", reason="models in ONNX")
pytest.importorskip("onnxruntime", reason="runs models in ONNX")


def linear() -> Any:
    """y = x·W with four inputs and three outputs."""
    weights = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "W")
    node = onnx.helper.make_node("MatMul", ["x", "W"], ["y"])
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "linear",
        [onnx.helper.make_tensor_value_info("x", kind, ["n", 4])],
        [onnx.helper.make_tensor_value_info("y", kind, ["n", 3])],
        [weights],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def test_kept_and_loaded_without_trust(tmp_path: Path, rows: Any, mlflow_predicts: Mlflow) -> None:
    gittrack.onnx.save_model(linear(), tmp_path / "model", input_example=rows[:2])
    assert Model.load(tmp_path / "model").gittrack == {"formats": ["onnx"], "runs_code": False}
    loaded = gittrack.onnx.load_model(tmp_path / "model")
    assert loaded.graph.name == "linear"
    found = matrix(pyfunc.load_model(tmp_path / "model").predict(rows))
    assert np.allclose(found, rows @ np.arange(12, dtype=np.float32).reshape(4, 3))
    assert np.allclose(found, mlflow_predicts(tmp_path / "model", rows, table=False))


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_what_mlflow_logged_is_loaded(tmp_path: Path, rows: Any) -> None:
    mlflow = pytest.importorskip("mlflow", reason="compares with the real MLflow")
    mlflow.onnx.save_model(linear(), tmp_path / "model", pip_requirements=["numpy"])
    expected = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(rows)
    assert np.allclose(matrix(pyfunc.load_model(tmp_path / "model").predict(rows)), matrix(expected))


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "a/../../outside.bin", "missing.bin"])
def test_weights_from_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside.bin").write_bytes(b"\0" * 48)
    model = linear()
    gittrack.onnx.save_model(model, tmp_path / "model")
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    (tmp_path / "model" / "model.onnx").write_bytes(model.SerializeToString())
    for load in (gittrack.onnx.load_model, pyfunc.load_model):
        with pytest.raises((FormatError, NotFoundError)):
            load(tmp_path / "model")


def test_garbage_is_a_typed_error(tmp_path: Path) -> None:
    gittrack.onnx.save_model(linear(), tmp_path / "model")
    for data in (b"garbage", b"\xff" * 100, b""):
        (tmp_path / "model" / "model.onnx").write_bytes(data)
        with pytest.raises(FormatError, match="cannot be read"):
            gittrack.onnx.load_model(tmp_path / "model")
    with pytest.raises(InvalidValueError, match="no ONNX model"):
        gittrack.onnx.save_model(object(), tmp_path / "other")
