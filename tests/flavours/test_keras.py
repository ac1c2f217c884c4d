"""Keras 3: its own archives, looked into before they are read."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack
from gittrack import pyfunc
from gittrack.errors import FormatError, InvalidValueError, UntrustedModelError
from gittrack.models.model import Model
from tests.flavours.conftest import Mlflow, matrix

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("torch", reason="what Keras computes with here")
keras = pytest.importorskip("keras", reason="models of Keras")
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


def network() -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    return keras.Sequential(layers)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> Path:
    """A folder with a network."""
    folder = tmp_path_factory.mktemp("keras") / "model"
    gittrack.keras.save_model(network(), folder, input_example=rows[:2])
    return folder


def test_kept_and_loaded_without_trust(kept: Path, rows: Any, mlflow_predicts: Mlflow) -> None:
    assert Model.load(kept).gittrack == {"formats": ["keras"], "runs_code": False}
    expected = network().predict(rows, verbose=0)
    assert np.allclose(gittrack.keras.load_model(kept).predict(rows, verbose=0), expected, atol=1e-6)
    found = matrix(pyfunc.load_model(kept).predict(rows))
    assert np.allclose(found, expected, atol=1e-6)
    assert np.allclose(found, mlflow_predicts(kept, rows, table=False), atol=1e-5)


@pytest.mark.peer
def test_what_mlflow_logged_is_loaded(tmp_path: Path, rows: Any) -> None:
    mlflow = pytest.importorskip("mlflow", reason="compares with the real MLflow")
    mlflow.keras.save_model(network(), str(tmp_path / "model"), pip_requirements=["numpy"])
    found = matrix(pyfunc.load_model(tmp_path / "model").predict(rows))
    assert np.allclose(found, network().predict(rows, verbose=0), atol=1e-6)


def test_a_lambda_needs_trust(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    gittrack.keras.save_model(model, tmp_path / "model")
    assert Model.load(tmp_path / "model").gittrack["runs_code"] is True
    for load in (gittrack.keras.load_model, pyfunc.load_model):
        with pytest.raises(UntrustedModelError, match="Lambda"):
            load(tmp_path / "model")
    loaded = gittrack.keras.load_model(tmp_path / "model", trust=True)
    assert np.allclose(loaded.predict(np.ones((1, 4)), verbose=0), 2)


Change = Callable[[dict[str, bytes]], None]


def _edit(change: Callable[[Any], None]) -> Change:
    def edit(members: dict[str, bytes]) -> None:
        document = json.loads(members["config.json"])
        change(document["config"]["layers"][1])
        members["config.json"] = json.dumps(document).encode()

    return edit


def _external_weights(members: dict[str, bytes]) -> None:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/passwd", "/")
    members["model.weights.h5"] = buffer.getvalue()


ATTACKS: dict[str, Change] = {
    "os": _edit(lambda layer: layer.update(module="os", class_name="system")),
    "keras.utils": _edit(lambda layer: layer.update(module="keras.utils", class_name="get_file")),
    "a pickle": _edit(lambda layer: layer.update(class_name="TorchModuleWrapper")),
    "TensorFlow": _edit(lambda layer: layer.update(class_name="TFSMLayer")),
    "a class without a module": _edit(lambda layer: layer.update(module=None, class_name="Popen")),
    "weights from elsewhere": _external_weights,
    "a pickle beside it": lambda members: members.update({"model.pkl": b"\x80\x04."}),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_crafted_archive_is_refused(name: str, tmp_path: Path, kept: Path) -> None:
    shutil.copytree(kept, tmp_path / "model")
    file = tmp_path / "model" / "data" / "model.keras"
    with zipfile.ZipFile(file) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    ATTACKS[name](members)
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    for load in (gittrack.keras.load_model, pyfunc.load_model):
        with pytest.raises(UntrustedModelError, match="could run code"):
            load(tmp_path / "model")


def test_no_model_and_garbage(tmp_path: Path, kept: Path) -> None:
    with pytest.raises(InvalidValueError, match="no model of Keras"):
        gittrack.keras.save_model(object(), tmp_path / "other")
    shutil.copytree(kept, tmp_path / "model")
    (tmp_path / "model" / "data" / "model.keras").write_bytes(b"garbage")
    with pytest.raises((FormatError, UntrustedModelError)):
        gittrack.keras.load_model(tmp_path / "model")
