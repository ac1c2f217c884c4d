"""Models of scikit-learn: kept with defaults, loaded by anybody, and pickles only by who trusts them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import gittrack
import gittrack.sklearn
from gittrack import pyfunc
from gittrack.errors import (
    AlreadyExistsError,
    FormatError,
    InvalidValueError,
    MissingDependencyError,
    NotFoundError,
    UntrustedModelError,
)
from gittrack.frameworks import skops
from gittrack.models.model import Model
from tests.models import estimators
from tests.models.conftest import equal


class OwnClassifier(ClassifierMixin, BaseEstimator):
    """What a user writes: gittrack does not know it."""

    def fit(self, rows: Any, labels: Any) -> OwnClassifier:
        self.classes_ = np.unique(labels)
        return self

    def predict(self, rows: Any) -> Any:
        return np.repeat(self.classes_[0], len(rows))


@pytest.mark.parametrize("name", estimators.NAMES)
def test_every_kind_is_kept_with_defaults_and_loaded_without_trust(name: str, tmp_path: Path) -> None:
    model, rows = estimators.fitted(name)
    gittrack.sklearn.save_model(model, tmp_path / "model")
    assert Model.load(tmp_path / "model").gittrack == {"formats": ["skops"], "runs_code": False}
    loaded = gittrack.sklearn.load_model(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the estimators themselves
        assert equal(loaded.predict(rows), model.predict(rows))
        assert equal(pyfunc.load_model(tmp_path / "model").predict(rows), model.predict(rows))


def test_the_folder_is_mlflows(tmp_path: Path, iris: Any) -> None:
    rows, labels = iris
    model = DecisionTreeClassifier(max_depth=2).fit(rows, labels)
    gittrack.sklearn.save_model(model, tmp_path / "model", input_example=rows[:2], metadata={"team": "a"})
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {
        "MLmodel", "model.skops", "requirements.txt", "python_env.yaml", "conda.yaml", "input_example.json",
        "serving_input_example.json", "requirements.lock.txt",
    }  # fmt: skip
    about = Model.load(tmp_path / "model")
    assert about.flavors["python_function"]["loader_module"] == "mlflow.sklearn"
    assert about.flavors["sklearn"]["skops_trusted_types"] == ["sklearn.tree._tree.Tree"]
    assert about.metadata == {"team": "a"}
    assert about.signature is not None
    assert about.signature.inputs is not None
    assert about.signature.inputs.input_names() == list(rows.columns)
    requirements = (tmp_path / "model" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("scikit-learn==") for line in requirements)
    assert any(line.startswith("skops==") for line in requirements)


@pytest.mark.parametrize("form", ["pickle", "cloudpickle"])
def test_a_pickle_needs_trust(form: str, tmp_path: Path, iris: Any) -> None:
    rows, labels = iris
    model = LogisticRegression(max_iter=300).fit(rows, labels)
    gittrack.sklearn.save_model(model, tmp_path / "model", serialization_format=form)
    assert Model.load(tmp_path / "model").gittrack["runs_code"] is True
    for load in (gittrack.sklearn.load_model, pyfunc.load_model):
        with pytest.raises(UntrustedModelError, match=r"a pickle, `model.pkl`") as caught:
            load(tmp_path / "model")
        assert "trust=True" in str(caught.value.hint)
        assert "--trust" in str(caught.value.hint)
        assert equal(load(tmp_path / "model", trust=True).predict(rows), model.predict(rows))


def test_who_trusts_everything_says_so_himself(tmp_path: Path, iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gittrack.sklearn.save_model(
        LogisticRegression(max_iter=300).fit(*iris), tmp_path / "m", serialization_format="pickle"
    )
    monkeypatch.setenv("GITTRACK_TRUST", "always")
    assert gittrack.sklearn.load_model(tmp_path / "m").n_features_in_ == 4
    monkeypatch.setenv("GITTRACK_TRUST", "never")
    with pytest.raises(UntrustedModelError):
        gittrack.sklearn.load_model(tmp_path / "m")
    assert gittrack.sklearn.load_model(tmp_path / "m", trust=True).n_features_in_ == 4


def test_what_gittrack_does_not_know_is_said_with_the_ways_out(tmp_path: Path, iris: Any) -> None:
    model = OwnClassifier().fit(*iris)
    with pytest.raises(InvalidValueError, match="OwnClassifier") as caught:
        gittrack.sklearn.save_model(model, tmp_path / "a")
    assert "serialization_format='cloudpickle'" in str(caught.value.hint)
    types = ["tests.models.test_sklearn.OwnClassifier"]
    gittrack.sklearn.save_model(model, tmp_path / "b", skops_trusted_types=types)
    assert Model.load(tmp_path / "b").gittrack["runs_code"] is True
    with pytest.raises(UntrustedModelError, match="types that gittrack does not know"):
        gittrack.sklearn.load_model(tmp_path / "b")
    assert equal(gittrack.sklearn.load_model(tmp_path / "b", trust=True).predict(iris[0]), model.predict(iris[0]))


def test_what_cannot_be_kept_as_skops_leaves_nothing(tmp_path: Path) -> None:
    model = LogisticRegression()
    model.helper = lambda: 1
    with pytest.raises(InvalidValueError, match=r"cannot be kept in the skops format|does not know"):
        gittrack.sklearn.save_model(model, tmp_path / "model")
    assert not list((tmp_path / "model").glob("model.*"))


def test_what_cannot_predict_is_kept_all_the_same(tmp_path: Path, iris: Any, caplog: pytest.LogCaptureFixture) -> None:
    gittrack.sklearn.save_model(StandardScaler().fit(iris[0]), tmp_path / "model")
    assert "cannot predict" in caplog.text
    assert gittrack.sklearn.load_model(tmp_path / "model").n_features_in_ == 4
    with pytest.raises(NotFoundError, match="it has no `python_function`"):
        pyfunc.load_model(tmp_path / "model")


def test_another_method_predicts(tmp_path: Path, iris: Any) -> None:
    model = LogisticRegression(max_iter=300).fit(*iris)
    gittrack.sklearn.save_model(model, tmp_path / "model", pyfunc_predict_fn="predict_proba")
    loaded = pyfunc.load_model(tmp_path / "model")
    assert equal(loaded.predict(iris[0]), model.predict_proba(iris[0]))
    assert loaded.get_raw_model().classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        {"serialization_format": "joblib"},
        {"pyfunc_predict_fn": "__class__"},
        {"signature": "x"},
        {"input_example": object()},
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], tmp_path: Path, iris: Any) -> None:
    model = LogisticRegression(max_iter=300).fit(*iris)
    with pytest.raises(InvalidValueError):
        gittrack.sklearn.save_model(model, tmp_path / "model", **arguments)


def test_nothing_is_written_over(tmp_path: Path, iris: Any) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AlreadyExistsError):
        gittrack.sklearn.save_model(LogisticRegression(max_iter=300).fit(*iris), tmp_path)


def test_without_skops_the_way_out_is_said(tmp_path: Path, iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skops.io", None)
    with pytest.raises(MissingDependencyError, match="skops") as caught:
        gittrack.sklearn.save_model(LogisticRegression(max_iter=300).fit(*iris), tmp_path / "model")
    assert "pip install" in str(caught.value.hint)
    assert "cloudpickle" in str(caught.value.hint)


def test_every_name_of_the_list_exists() -> None:
    """A name that scikit-learn does not have (any more) would be dead weight; those of other versions are known."""
    from importlib import import_module

    missing = []
    for name in skops.ALLOWED:
        module, _, attribute = name.rpartition(".")
        try:
            getattr(import_module(module), attribute)
        except (ImportError, AttributeError):
            missing.append(name)
    bits = ("Distance", "KDTree", "BallTree", "_RemainderColsList")
    assert [name for name in missing if not any(part in name for part in bits)] == []


def test_a_version_that_is_not_sound_is_refused(tmp_path: Path, iris: Any) -> None:
    gittrack.sklearn.save_model(LogisticRegression(max_iter=300).fit(*iris), tmp_path / "model")
    (tmp_path / "model" / "model.skops").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    with pytest.raises(FormatError):
        gittrack.sklearn.load_model(tmp_path / "model")
