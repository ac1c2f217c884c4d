"""Autologging saves models as `log_model` does, and never makes a training fail."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import gittrack
import gittrack.sklearn
from gittrack import pyfunc, stores
from gittrack.frameworks import imports, sklearn as framework
from gittrack.models.model import Model
from tests.models.conftest import equal


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    """Autologging is off again after each test."""
    yield
    framework.INTEGRATION.disable()
    framework.INTEGRATION.by_user = False
    imports.forget("autolog")


def test_a_training_logs_its_model_with_a_signature(project: Path, iris: Any) -> None:
    gittrack.sklearn.autolog()
    model = LogisticRegression(max_iter=300).fit(*iris)
    run = gittrack.last_active_run()
    assert run is not None
    loaded = pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert equal(loaded.predict(iris[0]), model.predict(iris[0]))
    signature = loaded.metadata.signature
    assert signature is not None
    assert signature.inputs is not None
    assert signature.inputs.input_names() == list(iris[0].columns)
    assert loaded.input_example is None
    assert loaded.metadata.gittrack["runs_code"] is False
    [output] = gittrack.get_run(run.info.run_id).outputs.model_outputs
    assert (output.model_id, output.path) == (loaded.model_id, "model")
    links = stores.tracker().repo.state(run.info.run_id).links
    assert "training_accuracy_score" in str(links)
    assert str(loaded.model_id) in str(links)


def test_examples_and_registered_names(project: Path, iris: Any) -> None:
    gittrack.sklearn.autolog(log_input_examples=True, registered_model_name="iris")
    model = LogisticRegression(max_iter=300).fit(*iris)
    loaded = pyfunc.load_model("models:/iris/1")
    assert equal(loaded.predict(loaded.input_example), model.predict(iris[0][:5]))


def test_no_models_and_no_signatures_if_not_wanted(project: Path, iris: Any) -> None:
    gittrack.sklearn.autolog(log_model_signatures=False)
    with gittrack.start_run() as run:
        LogisticRegression(max_iter=300).fit(*iris)
    assert pyfunc.load_model(f"runs:/{run.info.run_id}/model").metadata.signature is None
    gittrack.sklearn.autolog(log_models=False)
    with gittrack.start_run() as run:
        LogisticRegression(max_iter=300).fit(*iris)
    assert not stores.tracker().repo.artifacts(run.info.run_id, "model")


def test_a_search_logs_itself_and_the_best(project: Path, iris: Any) -> None:
    gittrack.sklearn.autolog()
    with gittrack.start_run() as run:
        search = GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1.0]}, cv=2).fit(*iris)
    for name in ("model", "best_estimator"):
        loaded = gittrack.sklearn.load_model(f"runs:/{run.info.run_id}/{name}")
        assert equal(loaded.predict(iris[0]), search.predict(iris[0]))
    assert len(gittrack.get_run(run.info.run_id).outputs.model_outputs) == 2


def test_two_trainings_in_a_run_keep_both_models(project: Path, iris: Any) -> None:
    gittrack.sklearn.autolog()
    with gittrack.start_run() as run:
        first = LogisticRegression(C=0.001, max_iter=300).fit(*iris)
        second = LogisticRegression(C=10, max_iter=300).fit(*iris)
    one, two = gittrack.get_run(run.info.run_id).outputs.model_outputs
    found = {output.model_id: gittrack.sklearn.load_model(f"models:/{output.model_id}") for output in (one, two)}
    assert sorted(model.C for model in found.values()) == [first.C, second.C]
    assert gittrack.sklearn.load_model(f"runs:/{run.info.run_id}/model").C == second.C


def shifted(rows: Any) -> Any:
    return rows + 1


def test_what_skops_cannot_keep_is_a_pickle_and_a_warning(
    project: Path, iris: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gittrack.sklearn.autolog()
    with caplog.at_level(logging.WARNING, "gittrack"), gittrack.start_run() as run:
        model = make_pipeline(FunctionTransformer(shifted), LogisticRegression(max_iter=300)).fit(*iris)
    assert "the model is kept as a pickle" in caplog.text
    loaded = gittrack.sklearn.load_model(f"runs:/{run.info.run_id}/model", trust=True)
    assert equal(loaded.predict(iris[0]), model.predict(iris[0]))


def test_trouble_with_the_model_is_a_warning(
    project: Path, iris: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Model, "save", full)
    gittrack.sklearn.autolog()
    with gittrack.start_run() as run:
        model = LogisticRegression(max_iter=300).fit(*iris)
    assert model.coef_.shape == (3, 4)
    assert "disk full" in caplog.text
    assert gittrack.get_run(run.info.run_id).data.metrics["training_score"] > 0.9


def test_nothing_of_models_is_imported_for_it(project: Path) -> None:
    program = (
        "import sys, gittrack\ngittrack.autolog()\n"
        "print([name for name in ('yaml', 'skops', 'sklearn', 'gittrack.models.model') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
