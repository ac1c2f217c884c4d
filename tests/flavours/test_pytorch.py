"""PyTorch: traced and kept without code; an archive that could do anything but compute is refused."""

from __future__ import annotations

import io
import json
import pickle
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

torch = pytest.importorskip("torch", reason="models of PyTorch")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]


def network() -> Any:
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    return torch.nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> Path:
    """A folder with a network, traced."""
    folder = tmp_path_factory.mktemp("torch") / "model"
    gittrack.pytorch.save_model(network(), folder, input_example=rows[:3])
    return folder


def expected(rows: Any) -> Any:
    with torch.no_grad():
        return network()(torch.from_numpy(rows)).numpy()


def test_kept_and_loaded_without_trust(kept: Path, rows: Any, mlflow_predicts: Mlflow) -> None:
    assert Model.load(kept).gittrack == {"formats": ["torch.export"], "runs_code": False}
    with torch.no_grad():
        assert np.allclose(gittrack.pytorch.load_model(kept)(torch.from_numpy(rows)).numpy(), expected(rows), atol=1e-5)
    found = matrix(pyfunc.load_model(kept).predict(rows))
    assert np.allclose(found, expected(rows), atol=1e-5)
    assert np.allclose(found, mlflow_predicts(kept, rows, table=False), atol=1e-5)


def test_a_pickle_needs_trust(tmp_path: Path, rows: Any, mlflow_predicts: Mlflow) -> None:
    gittrack.pytorch.save_model(network(), tmp_path / "model", serialization_format="pickle")
    assert Model.load(tmp_path / "model").gittrack["runs_code"] is True
    for load in (gittrack.pytorch.load_model, pyfunc.load_model):
        with pytest.raises(UntrustedModelError):
            load(tmp_path / "model")
    found = pyfunc.load_model(tmp_path / "model", trust=True).predict(rows)
    assert np.allclose(found, expected(rows), atol=1e-5)
    assert np.allclose(found, mlflow_predicts(tmp_path / "model", rows, table=False), atol=1e-5)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_what_mlflow_logged_is_loaded(tmp_path: Path, rows: Any) -> None:
    mlflow = pytest.importorskip("mlflow", reason="compares with the real MLflow")
    mlflow.pytorch.save_model(network(), tmp_path / "model", input_example=rows[:3], pip_requirements=["numpy"])
    assert np.allclose(matrix(pyfunc.load_model(tmp_path / "model").predict(rows)), expected(rows), atol=1e-5)


def test_without_an_example_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="needs an input example") as caught:
        gittrack.pytorch.save_model(network(), tmp_path / "model")
    assert "serialization_format='pickle'" in str(caught.value.hint)
    with pytest.raises(InvalidValueError, match="no model of PyTorch"):
        gittrack.pytorch.save_model(object(), tmp_path / "other")


# --- crafted archives


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {self.marker}",)


def checkpoint(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


Change = Callable[[dict[str, bytes], Path], None]


def _edit(name: str, change: Callable[[Any], None]) -> Change:
    def edit(members: dict[str, bytes], _: Path) -> None:
        [found] = [one for one in members if one.endswith(name)]
        document = json.loads(members[found])
        change(document)
        members[found] = json.dumps(document).encode()

    return edit


def _pickled_sample(members: dict[str, bytes], marker: Path) -> None:
    members["model/data/sample_inputs/model.pt"] = checkpoint(pickle.dumps(Payload(marker), 2))


def _pickled_sample_of_now(members: dict[str, bytes], marker: Path) -> None:
    members["model/data/sample_inputs/model.pt"] = checkpoint(pickle.dumps(Payload(marker), 4))


def _bare_pickle(members: dict[str, bytes], marker: Path) -> None:
    members["model/data/constants/extra"] = pickle.dumps(Payload(marker))


def _library(members: dict[str, bytes], marker: Path) -> None:
    members["model/data/aotinductor/model/model.so"] = b"\x7fELF"


def _weight_as_pickle(members: dict[str, bytes], marker: Path) -> None:
    def change(document: Any) -> None:
        next(iter(document["config"].values()))["use_pickle"] = True

    _edit("model_weights_config.json", change)(members, marker)
    members["model/data/weights/weight_0"] = checkpoint(pickle.dumps(Payload(marker), 2))


def _operator(target: str) -> Change:
    def change(document: Any) -> None:
        document["graph_module"]["graph"]["nodes"][0]["target"] = target

    return _edit("models/model.json", change)


def _expression(text: str) -> Change:
    def change(document: Any) -> None:
        document["graph_module"]["graph"]["sym_int_values"]["s9"] = {"as_expr": {"expr_str": text, "hint": None}}

    return _edit("models/model.json", change)


ATTACKS: dict[str, Change] = {
    "a pickle among the examples": _pickled_sample,
    "a pickle of protocol 4": _pickled_sample_of_now,
    "a bare pickle": _bare_pickle,
    "a compiled library": _library,
    "a weight that is a pickle": _weight_as_pickle,
    "torch.os.system": _operator("torch.os.system"),
    "torch.ops.load_library": _operator("torch.ops.load_library"),
    "torch.hub": _operator("torch.hub._load_local"),
    "_operator.methodcaller": _operator("_operator.methodcaller"),
    "an expression": _expression("__import__('os').system('true')"),
    "an attribute in an expression": _expression("s0.__class__"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_crafted_archive_is_refused(name: str, tmp_path: Path, kept: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "PWNED"
    import shutil

    shutil.copytree(kept, folder)
    file = folder / "data" / "model.pt2"
    with zipfile.ZipFile(file) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    top = next(iter(members)).partition("/")[0]
    members = {"model" + one.removeprefix(top): data for one, data in members.items()}
    ATTACKS[name](members, marker)
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    for load in (gittrack.pytorch.load_model, pyfunc.load_model):
        with pytest.raises(FormatError, match="it could run code"):
            load(folder)
    assert not marker.exists()


def test_garbage_is_a_typed_error(tmp_path: Path, kept: Path) -> None:
    import shutil

    shutil.copytree(kept, tmp_path / "model")
    for data in (b"", b"garbage", b"PK\x03\x04" + b"\0" * 50):
        (tmp_path / "model" / "data" / "model.pt2").write_bytes(data)
        with pytest.raises(FormatError):
            gittrack.pytorch.load_model(tmp_path / "model")


def test_a_state_dict_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="no model of PyTorch"):
        gittrack.pytorch.save_model(network().state_dict(), tmp_path / "model")
