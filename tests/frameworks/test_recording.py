"""Autologging into a real store: what the API reads back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.datasets import load_iris
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

import gittrack
import gittrack.sklearn
from gittrack.frameworks.sklearn import INTEGRATION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gittrack.types import Run

X, y = load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of its own, with autologging on."""
    monkeypatch.chdir(tmp_path)
    gittrack.set_tracking_uri(str(tmp_path))
    gittrack.sklearn.autolog()
    yield tmp_path
    INTEGRATION.disable()
    INTEGRATION.by_user = False
    gittrack.set_tracking_uri("")


def all_runs() -> list[Run]:
    found: Any = gittrack.search_runs(search_all_experiments=True, output_format="list", order_by=["start_time ASC"])
    return list(found)


def test_a_training_is_a_finished_run() -> None:
    model = KNeighborsClassifier(n_neighbors=3).fit(X, y)
    assert gittrack.active_run() is None
    last = gittrack.last_active_run()
    assert last is not None
    assert last.info.status == "FINISHED"
    accuracy = accuracy_score(y, model.predict(X))
    run = gittrack.get_run(last.info.run_id)
    assert run.data.params["n_neighbors"] == "3"
    assert run.data.metrics["training_score"] == run.data.metrics["accuracy_score_X"] == accuracy
    assert run.info.status == "FINISHED"
    client = gittrack.MlflowClient()
    assert {"estimator.html", "metric_info.json"} <= {one.path for one in client.list_artifacts(run.info.run_id)}
    assert [one.tags[0].value for one in run.inputs.dataset_inputs] == ["train", "eval"]


def test_a_failed_training_is_a_failed_run() -> None:
    with pytest.raises(ValueError, match="n_neighbors"):
        KNeighborsClassifier(n_neighbors=-1).fit(X, y)
    assert [run.info.status for run in all_runs()] == ["FAILED"]
    assert gittrack.active_run() is None


def test_the_settings_of_a_search_are_children() -> None:
    GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 9]}, cv=2).fit(X, y)
    runs = all_runs()
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert [child.data.tags["mlflow.parentRunId"] for child in children] == [parent.info.run_id] * 2
    assert {child.info.user_id for child in children} == {parent.info.user_id}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_two_trainings_in_one_run(caplog: pytest.LogCaptureFixture) -> None:
    with gittrack.start_run() as run:
        first = DecisionTreeClassifier(max_depth=1).fit(X, y)
        second = DecisionTreeClassifier(max_depth=3).fit(X, y)
        accuracy_score(y, second.predict(X))
        accuracy_score(y, first.predict(X))
    data = gittrack.get_run(run.info.run_id).data
    assert data.params["max_depth"] == "1"  # a parameter is written once
    assert "cannot log parameters" in caplog.text
    assert data.metrics["training_score"] == second.score(X, y)
    assert {key for key in data.metrics if key.startswith("accuracy")} == {"accuracy_score_X", "accuracy_score-2_X"}


def test_trainings_in_many_threads() -> None:
    def train(depth: int) -> float:
        model = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(X, y)
        return float(accuracy_score(y, model.predict(X)))

    with ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(train, range(1, 13)))
    runs = all_runs()
    found = {int(run.data.params["max_depth"]): run.data.metrics["accuracy_score_X"] for run in runs}
    assert found == dict(enumerate(scores, start=1))
    assert {run.info.status for run in runs} == {"FINISHED"}
