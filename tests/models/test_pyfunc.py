"""Models that are Python code: kept by anybody, loaded by who trusts them."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gittrack
from gittrack import pyfunc
from gittrack.errors import (
    InvalidValueError,
    MissingDependencyError,
    NotFoundError,
    SchemaError,
    UnsupportedError,
    UntrustedModelError,
)
from gittrack.models import hints, infer_signature
from gittrack.models.model import Model
from gittrack.pyfunc import PythonModel, PythonModelContext


class Adder(PythonModel):
    """Adds what its artifact says."""

    def load_context(self, context: PythonModelContext) -> None:
        self.amount = int(Path(context.artifacts["amount"]).read_text(encoding="utf-8"))

    def predict(self, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        return model_input["x"] * (params or {}).get("times", 1) + self.amount

    def predict_stream(self, context: PythonModelContext, model_input: Any) -> Iterator[Any]:
        yield from model_input["x"] + self.amount


class Configured(PythonModel):
    """Says how it is configured."""

    def predict(self, context: PythonModelContext, model_input: Any) -> Any:  # type: ignore[override]
        return [context.model_config]


class Doubler(PythonModel):
    """Says what it takes by a type hint, and wants no context."""

    def predict(self, model_input: list[int]) -> list[int]:  # type: ignore[override]
        return [2 * value for value in model_input]


def doubled(model_input: Any) -> Any:
    return model_input * 2


def typed(model_input: list[str]) -> list[str]:
    return [text.upper() for text in model_input]


@pytest.fixture
def amount(tmp_path: Path) -> Path:
    """An artifact."""
    (tmp_path / "amount.txt").write_text("5", encoding="utf-8")
    return tmp_path / "amount.txt"


def test_a_class_with_artifacts_params_and_a_signature(project: Path, amount: Path) -> None:
    rows = pd.DataFrame({"x": [1, 2]})
    with gittrack.start_run():
        info = pyfunc.log_model(
            name="model", python_model=Adder(), artifacts={"amount": str(amount)}, input_example=(rows, {"times": 3})
        )
    amount.unlink()
    with pytest.raises(UntrustedModelError, match="a pickled Python object"):
        pyfunc.load_model(info.model_uri)
    loaded = pyfunc.load_model(info.model_uri, trust=True)
    assert loaded.predict(rows).tolist() == [8, 11]  # params have defaults from the example
    assert loaded.predict(rows, params={"times": 1}).tolist() == [6, 7]
    assert list(loaded.predict_stream(rows)) == [6, 7]
    assert isinstance(loaded.unwrap_python_model(), Adder)
    with pytest.raises(UnsupportedError):
        loaded.get_raw_model()
    with pytest.raises(SchemaError, match=r"misses \['x'\]"):
        loaded.predict(pd.DataFrame({"y": [1]}))
    conf = loaded.metadata.flavors["python_function"]
    assert conf["artifacts"] == {"amount": {"path": "artifacts/amount.txt", "uri": "amount.txt"}}
    assert conf["streamable"] is True
    assert loaded.metadata.gittrack["runs_code"] is True


def test_a_function(project: Path, tmp_path: Path) -> None:
    pyfunc.save_model(tmp_path / "m", python_model=doubled, input_example=np.array([1.0, 2.0]))
    loaded = pyfunc.load_model(tmp_path / "m", trust=True)
    assert loaded.predict(np.array([3.0])).tolist() == [6.0]
    with pytest.raises(SchemaError):
        loaded.predict(np.array(["a"]))


def test_a_configuration(tmp_path: Path) -> None:
    pyfunc.save_model(tmp_path / "m", python_model=Configured(), model_config={"a": 1, "b": 2})
    assert pyfunc.load_model(tmp_path / "m", trust=True).predict([0]) == [{"a": 1, "b": 2}]
    loaded = pyfunc.load_model(tmp_path / "m", trust=True, model_config={"b": 3})
    assert loaded.predict([0]) == [{"a": 1, "b": 3}]
    assert loaded.model_config == {"a": 1, "b": 2}
    (tmp_path / "config.yaml").write_text("c: 4", encoding="utf-8")
    assert (
        pyfunc.load_model(tmp_path / "m", trust=True, model_config=tmp_path / "config.yaml").predict([0])[0]["c"] == 4
    )
    with pytest.raises(InvalidValueError):
        pyfunc.load_model(tmp_path / "m", trust=True, model_config=tmp_path / "missing.yaml")


CODE = """
import gittrack
from gittrack.models import ModelConfig, set_model
from helper import factor

config = ModelConfig(development_config={"plus": 0})


class FromCode(gittrack.pyfunc.PythonModel):
    def predict(self, context, model_input):
        return [value * factor + config.get("plus") for value in model_input["x"]]


set_model(FromCode())
"""


def test_a_file_of_code_with_code_paths(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "helper.py").write_text("factor = 10\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with gittrack.start_run():
        info = pyfunc.log_model(
            name="model",
            python_model=str(tmp_path / "model.py"),
            code_paths=[tmp_path / "helper.py"],
            model_config={"plus": 1},
            input_example=pd.DataFrame({"x": [1]}),
        )
    monkeypatch.undo()
    sys.modules.pop("helper")
    for name in ("model.py", "helper.py"):
        (tmp_path / name).unlink()
    monkeypatch.chdir(project)
    with pytest.raises(UntrustedModelError, match=r"Python code, `model.py`"):
        pyfunc.load_model(info.model_uri)
    assert "helper" not in sys.modules
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert pyfunc.load_model(info.model_uri, trust=True).predict(pd.DataFrame({"x": [1, 2]})) == [11, 21]
    sys.modules.pop("helper")
    about = Model.load(pyfunc.load_model(info.model_uri, trust=True).local.folder)
    assert about.flavors["python_function"]["model_code_path"] == "model.py"  # and nobody's home folder


def test_code_that_chooses_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(InvalidValueError, match="does not say which object"):
        pyfunc.save_model(tmp_path / "m", python_model=str(tmp_path / "model.py"))
    with pytest.raises(NotFoundError):
        pyfunc.save_model(tmp_path / "n", python_model=str(tmp_path / "missing.py"))


def test_a_loader_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_loader.py").write_text(
        "import pathlib\nclass Model:\n    def __init__(self, path): self.text = pathlib.Path(path).read_text()\n"
        "    def predict(self, data, params=None): return [self.text] * len(data)\n"
        "def _load_pyfunc(path): return Model(path)\n",
        encoding="utf-8",
    )
    (tmp_path / "data.txt").write_text("hello", encoding="utf-8")
    pyfunc.save_model(
        tmp_path / "m",
        loader_module="own_loader",
        data_path=tmp_path / "data.txt",
        code_paths=[tmp_path / "own_loader.py"],
    )
    with pytest.raises(UntrustedModelError, match="a loader of its own"):
        pyfunc.load_model(tmp_path / "m")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert pyfunc.load_model(tmp_path / "m", trust=True).predict([1, 2]) == ["hello", "hello"]
    sys.modules.pop("own_loader")
    pyfunc.save_model(tmp_path / "n", loader_module="not_there")
    with pytest.raises(MissingDependencyError):
        pyfunc.load_model(tmp_path / "n", trust=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"python_model": Doubler(), "loader_module": "x"},
        {"loader_module": "x", "artifacts": {"a": "b"}},
        {"python_model": Doubler(), "data_path": "x"},
        {"python_model": Doubler},
        {"python_model": 1},
        {"python_model": Doubler(), "model_config": 1},
        {"python_model": Doubler(), "artifacts": {"a": "runs:/x/y"}},
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError):
        pyfunc.save_model(tmp_path / "m", **arguments)


# --- type hints


def test_type_hints_are_the_signature_and_are_checked(tmp_path: Path) -> None:
    pyfunc.save_model(tmp_path / "m", python_model=Doubler())
    loaded = pyfunc.load_model(tmp_path / "m", trust=True)
    signature = loaded.metadata.signature
    assert signature is not None
    assert signature.from_type_hints
    assert signature.inputs == signature.outputs == infer_signature([1]).inputs
    assert loaded.predict([1, 2]) == [2, 4]
    assert loaded.predict(pd.DataFrame({"any": [1, 2]})) == [2, 4]
    assert loaded.predict(np.array([3])) == [6]
    for wrong in (["a"], [1.5], "x", [True]):
        with pytest.raises(SchemaError):
            loaded.predict(wrong)
    pyfunc.save_model(tmp_path / "f", python_model=typed)
    assert pyfunc.load_model(tmp_path / "f", trust=True).predict(["a"]) == ["A"]


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (list[dict[str, float]], [{"a": 1.0}, {"b": 2}], [{"a": "x"}]),
        (list[list[str]], [["a"], []], [[1]]),
        (list[int | None], [1, None], ["x"]),
        (list[dt.datetime], [dt.datetime(2020, 1, 1)], [1]),
        (list[Any], [1, "x", None], 5),
        (list[bytes], [b"x"], ["x"]),
    ],
)
def test_rows_of_every_hint(hint: Any, good: list[Any], bad: Any) -> None:
    assert hints.convert(good, hint) == good
    with pytest.raises(SchemaError):
        hints.convert(bad, hint)
    assert hints.signature(hint, None, None) is not None


def test_hints_that_say_nothing_leave_the_input_alone() -> None:
    frame = pd.DataFrame({"a": [1]})
    for hint in (None, pd.DataFrame, str, dict[str, int]):
        assert hints.signature(hint, None, None) is None
        assert hints.convert(frame, hint) is frame
    assert hints.convert(pd.DataFrame({"a": [1], "b": [2]}), list[dict[str, int]]) == [{"a": 1, "b": 2}]


# --- input that does not fit


def test_a_model_without_a_signature_takes_anything(tmp_path: Path) -> None:
    pyfunc.save_model(tmp_path / "m", python_model=doubled)
    assert pyfunc.load_model(tmp_path / "m", trust=True).predict("ab") == "abab"


def test_a_signature_of_ones_own(tmp_path: Path) -> None:
    pyfunc.save_model(tmp_path / "m", python_model=doubled, signature=infer_signature(pd.DataFrame({"a": [1.0]})))
    loaded = pyfunc.load_model(tmp_path / "m", trust=True)
    assert loaded.predict({"a": [1], "b": [2]}).equals(pd.DataFrame({"a": [2.0]}))
