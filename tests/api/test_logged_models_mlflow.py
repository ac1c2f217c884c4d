"""Logged models beside the real MLflow: the same calls of both clients give the same answers and the same errors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack.errors import GittrackError

pytestmark = pytest.mark.peer

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
pytest.importorskip("mlflow", reason="the real MLflow is not installed: pip install '.[peers]'")

TEXTS = ("a", "A", "b", "abc", "ABC", "a_c", "a%c", "10", "9", "0.1")


class Side:
    """One of the two, and what has been made in it by number."""

    def __init__(self, client: Any, entities: Any, error: type[Exception]) -> None:
        self.client = client
        self.entities = entities
        self.error = error
        self.experiments: list[str] = []
        self.runs: list[str] = []
        self.models: list[str] = []

    def fill(self) -> None:
        """Two experiments with models of every kind, measured by two runs on two datasets."""
        client, entities = self.client, self.entities
        self.experiments = ["0", client.create_experiment("two")]
        self.runs = [client.create_run(one).info.run_id for one in self.experiments]
        for n in range(24):
            place = n % 2
            model = client.create_logged_model(
                self.experiments[place],
                f"model-{n % 4}",
                self.runs[place] if n % 3 else None,
                {"stage": TEXTS[n % len(TEXTS)], **({"odd": "yes"} if n % 2 else {})} if n % 4 else None,
                {"lr": TEXTS[n * 3 % len(TEXTS)]} if n % 6 else None,
                ("agent", "Tree", None)[n % 3],
            )
            self.models.append(model.model_id)
            time.sleep(0.002)  # they are ordered by when they were made
        for n, model_id in enumerate(self.models):
            if n % 4 == 3:
                client.finalize_logged_model(model_id, "FAILED" if n % 8 == 3 else "READY")
            if n % 7 == 6:
                client.delete_logged_model(model_id)
            points = [
                entities.Metric(key, value, timestamp, step, model_id, *on)
                for key, value, timestamp, step, on in (
                    ("acc", n / 24, 1000, 0, (None, None)),
                    ("acc", 1 - n / 24, 1000, 1, ("test", "d1")),
                    ("acc", n % 5 / 5, 900, 7, ("test", "d2")),
                    ("loss.min", float(n % 3), 1000 + n, 0, ("train", "d1")),
                )
                if (n + step) % 3
            ]
            for point in points:  # through the client as the fluent API does it
                client.log_metric(
                    self.runs[n % 2], point.key, point.value, timestamp=point.timestamp, step=point.step,
                    dataset_name=point.dataset_name, dataset_digest=point.dataset_digest, model_id=model_id,
                )  # fmt: skip

    def found(self, *args: Any, **more: Any) -> list[int]:
        """Numbers of the models on one page."""
        return [self.models.index(one.model_id) for one in self.client.search_logged_models(*args, **more)]

    def told(self, number: int) -> dict[str, Any]:
        """What is told of a model, without what no two stores have in common."""
        model = self.client.get_logged_model(self.models[number])
        facts = dict(model)
        for name in ("artifact_location", "creation_timestamp", "last_updated_timestamp", "model_id", "model_uri"):
            del facts[name]
        facts["experiment_id"] = self.experiments.index(facts["experiment_id"])
        facts["source_run_id"] = facts["source_run_id"] and self.runs.index(facts["source_run_id"])
        facts["metrics"] = sorted(
            (
                m.key,
                m.value,
                m.timestamp,
                m.step,
                m.dataset_name or "",
                m.dataset_digest or "",
                self.runs.index(m.run_id),
            )
            for m in facts["metrics"] or ()
        )
        facts["status"] = str(facts["status"])
        return facts

    def answer(self, call: Callable[[Side], Any]) -> Any:
        """What a call gives; of an error its code."""
        try:
            return call(self)
        except self.error as error:
            return error.error_code  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    """Ours and MLflow's, filled with the same."""
    import mlflow
    from mlflow import entities
    from mlflow.exceptions import MlflowException

    root: Path = tmp_path_factory.mktemp("both")
    (root / "ours").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        theirs = Side(mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db"), entities, MlflowException)
        ours = Side(gittrack.Client(str(root / "ours")), gittrack.entities, GittrackError)
        for side in (ours, theirs):
            side.fill()
        yield ours, theirs
        ours.client._tracker.close()


def test_all_facts(sides: tuple[Side, Side]) -> None:
    ours, theirs = sides
    for number in range(24):
        call = lambda side: side.told(number)  # noqa: B023, E731 - called at once
        assert ours.answer(call) == theirs.answer(call), number


FILTERS = [
    "",
    "name = 'model-1'",
    "name='model-1' AND status != 'x'",
    "attributes.name LIKE 'model%'",
    "name ILIKE 'MODEL-%' and model_type = 'agent'",
    "model_type IN ('agent', 'none')",
    "model_type NOT IN ('agent')",
    "name IN ('model-1')",
    "model_type != 'agent'",
    "params.lr = '10'",
    "params.lr != '10'",
    "params.`lr` LIKE 'a%'",
    "params.lr IN ('a', 'b', '9')",
    "tags.stage = 'a'",
    "tags.stage ILIKE 'a_c'",
    "tags.stage NOT IN ('a', 'A') AND tags.odd = 'yes'",
    "tags.missing != 'x'",
    "metrics.acc > 0.5",
    "metrics.acc <= 0.25 AND metrics.`acc` != 0",
    "metrics.acc = 0.2",
    "metrics.loss.min >= 1",
    "metrics.nothing > 0",
    "creation_time > 0 AND creation_timestamp > 100",
    "creation_timestamp < 100",
    "last_updated_timestamp >= 0",
    "artifact_location != 'x'",
]
DATASETS: list[list[dict[str, Any]] | None] = [
    None,
    [{"dataset_name": "test"}],
    [{"dataset_name": "test", "dataset_digest": "d2"}],
    [{"dataset_name": "train"}, {"dataset_name": "test", "dataset_digest": "d1"}],
    [{"dataset_name": "nowhere"}],
]


@pytest.mark.parametrize("text", FILTERS)
def test_filters(text: str, sides: tuple[Side, Side]) -> None:
    ours, theirs = sides
    for datasets in DATASETS:
        call = lambda side: side.found(side.experiments, text, datasets)  # noqa: B023, E731 - called at once
        assert ours.answer(call) == theirs.answer(call), datasets


ORDERS: list[list[dict[str, Any]]] = [
    [{"field_name": "creation_time"}],
    [{"field_name": "creation_timestamp", "ascending": False}],
    [{"field_name": "name"}, {"field_name": "creation_timestamp", "ascending": True}],
    [{"field_name": "model_type", "ascending": False}, {"field_name": "name", "ascending": False}],
    [{"field_name": "metrics.acc"}],
    [{"field_name": "metrics.acc", "ascending": False}],
    [{"field_name": "metrics.acc", "ascending": False, "dataset_name": "test"}],
    [{"field_name": "metrics.acc", "dataset_name": "test", "dataset_digest": "d2"}],
    [{"field_name": "metrics.acc", "dataset_digest": "d1"}],
    [{"field_name": "metrics.loss.min"}, {"field_name": "metrics.acc", "dataset_name": None, "dataset_digest": None}],
    [{"field_name": "metrics.nothing"}],
    [{"field_name": "creation_time"}, {"field_name": "creation_time", "ascending": False}],
]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_orders(order: list[dict[str, Any]], sides: tuple[Side, Side]) -> None:
    ours, theirs = sides
    for text in ("", "metrics.acc > 0.2", "name LIKE 'model%'"):
        call = lambda side: side.found(side.experiments, text, None, None, order)  # noqa: B023, E731 - called at once
        assert ours.answer(call) == theirs.answer(call), text


def test_pages(sides: tuple[Side, Side]) -> None:
    def pages(side: Side) -> list[list[int]]:
        found, token = [], None
        for _ in range(20):
            page = side.client.search_logged_models(side.experiments, None, None, 7, None, token)
            found.append([side.models.index(one.model_id) for one in page])
            token = page.token
            if not token:
                break
        return found

    ours, theirs = sides
    assert pages(ours) == pages(theirs)
    assert len(pages(ours)) == 3

    def other(side: Side, **more: Any) -> Any:
        first = side.client.search_logged_models(side.experiments, "name LIKE 'm%'", None, 2)
        asked = {"experiment_ids": side.experiments, "filter_string": "name LIKE 'm%'", "max_results": 2, **more}
        return side.answer(lambda at: at.found(**asked, page_token=first.token))

    for more in (
        {},
        {"filter_string": "name LIKE 'x%'"},
        {"order_by": [{"field_name": "name"}]},
        {"experiment_ids": ["0"]},
    ):
        assert other(ours, **more) == other(theirs, **more), more
    assert other(ours, experiment_ids=["0"]) == "INVALID_PARAMETER_VALUE"


CALLS: dict[str, Callable[[Side], Any]] = {
    "nobody": lambda side: side.client.get_logged_model("m-" + "0" * 32),
    "deleted": lambda side: side.client.get_logged_model(side.models[6]),
    "deleted twice": lambda side: side.client.delete_logged_model(side.models[6]),
    "finish nobody": lambda side: side.client.finalize_logged_model("m-1", "READY"),
    "tag of nobody": lambda side: side.client.delete_logged_model_tag("m-1", "a"),
    "no such tag": lambda side: side.client.delete_logged_model_tag(side.models[1], "nothing"),
    "no such experiment": lambda side: side.client.create_logged_model("123456"),
    "bad name": lambda side: side.client.create_logged_model("0", "a/b"),
    "empty name": lambda side: side.client.create_logged_model("0", ""),
    "quote": lambda side: side.client.create_logged_model("0", "a'b"),
    "nowhere": lambda side: side.found([]),
    "no such place": lambda side: side.found(["99999"]),
    "one text": lambda side: side.found("0"),
    "not a filter": lambda side: side.found(["0"], "name"),
    "unknown prefix": lambda side: side.found(["0"], "metric.acc > 1"),
    "attribute": lambda side: side.found(["0"], "attribute.name = 'a'"),
    "operator": lambda side: side.found(["0"], "metrics.acc LIKE 'a'"),
    "text operator": lambda side: side.found(["0"], "params.lr > 'a'"),
    "order": lambda side: side.found(["0"], None, None, None, [{"field_name": "nothing"}]),
    "order by param": lambda side: side.found(["0"], None, None, None, [{"field_name": "params.lr"}]),
    "no dataset name": lambda side: side.found(["0"], None, [{"dataset_digest": "d1"}]),
    "none at most": lambda side: len(side.found(["0"], None, None, 0)),
}


@pytest.mark.parametrize("name", CALLS)
def test_errors_and_edges(name: str, sides: tuple[Side, Side]) -> None:
    ours, theirs = sides
    assert ours.answer(CALLS[name]) == theirs.answer(CALLS[name])


def test_edits(sides: tuple[Side, Side]) -> None:
    def edit(side: Side) -> list[Any]:
        client, model_id = side.client, side.models[1]
        client.set_logged_model_tags(model_id, {"new": 1, "stage": "z"})
        client.delete_logged_model_tag(model_id, "odd")
        client.log_model_params(model_id, {"depth": 3})
        told = [side.told(1), client.finalize_logged_model(model_id, "READY").status]
        return [*told, side.found(["0", side.experiments[1]], "tags.new = '1' AND params.depth = '3'")]

    ours, theirs = sides
    assert edit(ours) == edit(theirs)
