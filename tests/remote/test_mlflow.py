"""Journals told to a MLflow server; gittrack's own speaks the same API, so it is told the same."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack import Client, errors
from gittrack.remote.http import Connection
from gittrack.remote.mlflow import RUN_TAG, Teller
from gittrack.store.repo import Repo
from gittrack.track.active import ActiveRun
from gittrack.track.runs import Tracker
from gittrack.types import Dataset, DatasetInput, InputTag, Metric, ModelOutput
from tests.remote.conftest import Place


class Here:
    """A store that records, and tells a server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.tracker = Tracker(Repo.find(folder, create=True), strict=True)
        self.connection = Connection(url)
        self.teller = Teller(self.connection, self.tracker.repo, self.tracker.repo.root / "ids")
        self.client = Client(url)
        self._told: dict[str, int] = {}

    def news(self, run: ActiveRun) -> list[bytes]:
        """The frames that were not told yet."""
        found = []
        for one in self.tracker.repo.journals(run.run_id):
            for end, payload in list(one.frames(self._told.get(one.name, 0))):
                found.append(payload)
                self._told[one.name] = end
        return found

    def there(self, run: ActiveRun) -> str:
        found = self.teller.there(run.run_id)
        assert found is not None
        return found


@pytest.fixture
def here(server: Place, project: Path) -> Iterator[Here]:
    made = Here(project, server.url)
    yield made
    made.tracker.close()
    made.connection.close()


def test_a_run_is_told_piece_by_piece_and_twice_is_once(here: Here, tmp_path: Path) -> None:
    parent = here.tracker.create_run(name="above")
    run = here.tracker.create_run(name="told", start_time=1234, tags={"first": "1"}, parent_run_id=parent.run_id)
    for one in (parent, run):
        here.teller.tell(one.run_id, here.news(one))
    run.log_params({f"p{number}": number for number in range(130)})
    run.log_metrics([Metric("m", float(step), 1000 + step, step) for step in range(2300)])
    run.log_metric("odd", math.nan, 3, 77)
    run.log_metrics([Metric("acc", 0.5, 9, 1, None, "toy", "d1")])
    run.log_metrics([Metric("of", 0.5, 9, 1, "m-" + "0" * 32)])  # of a model that is only here
    run.log_outputs([ModelOutput("m-" + "0" * 32)])
    run.set_tags({"later": "ü", "gone": "x"})
    run.delete_tag("gone")
    run.set_name("renamed")
    data = os.urandom(1 << 20)
    (tmp_path / "file").write_bytes(data)
    run.log_artifact(tmp_path / "file", "deep")
    run.log_bytes(b"away", "away.txt")
    run.log_inputs([DatasetInput(Dataset("toy", "d1", "local", "{}"), [InputTag("mlflow.data.context", "train")])])
    pieces = here.news(run)
    for _ in range(2):
        here.teller.tell(run.run_id, pieces)
    run.remove_artifacts(["away.txt"])
    run.set_status("FAILED", 9999)
    here.tracker.writer(run.run_id).sync()
    pieces = here.news(run)
    for _ in range(2):
        here.teller.tell(run.run_id, pieces)

    found = here.client.get_run(here.there(run))
    assert (found.info.run_name, found.info.status, found.info.start_time) == ("renamed", "FAILED", 1234)
    assert found.info.end_time == 9999
    assert len(found.data.params) == 130
    assert {key: found.data.tags.get(key) for key in ("first", "later", "gone", RUN_TAG, "mlflow.parentRunId")} == {
        "first": "1", "later": "ü", "gone": None, RUN_TAG: run.run_id, "mlflow.parentRunId": here.there(parent),
    }  # fmt: skip
    history = here.client.get_metric_history(here.there(run), "m")
    assert [(one.step, one.timestamp, one.value) for one in history] == [
        (step, 1000 + step, float(step)) for step in range(2300)
    ]
    assert len(here.client.get_metric_history(here.there(run), "odd")) == 1
    assert math.isnan(found.data.metrics["odd"])
    assert (found.data.metrics["of"], found.outputs.model_outputs) == (0.5, [])
    assert [one.dataset.name for one in found.inputs.dataset_inputs] == ["toy"]
    assert [one.path for one in here.client.list_artifacts(here.there(run))] == ["deep"]
    place = here.client.download_artifacts(here.there(run), "deep/file")
    assert Path(place).read_bytes() == data


def test_a_run_whose_making_was_not_answered_is_made_once(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    run = here.tracker.create_run(name="lost answer")
    pieces, post = here.news(run), here.connection.post

    def lose(path: str, *words: Any, **more: Any) -> Any:
        found = post(path, *words, **more)
        if path == "runs/create":
            raise errors.NetworkError("the connection broke")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(here.connection, "post", lose)
        with pytest.raises(errors.NetworkError):
            here.teller.tell(run.run_id, pieces)
    here.teller.tell(run.run_id, pieces)
    found = here.client.search_runs(["0"], f"tags.`{RUN_TAG}` = '{run.run_id}'")
    assert [one.info.run_id for one in found] == [here.there(run)]


def test_what_has_no_beginning_is_not_told(here: Here) -> None:
    run = here.tracker.create_run()
    here.news(run)
    run.log_metric("m", 1.0)
    with pytest.raises(errors.NotFoundError, match="is not on the server"):
        here.teller.tell(run.run_id, here.news(run))


def test_what_was_measured_of_a_model_is_told_of_it_even_if_the_point_was_told_before(here: Here) -> None:
    run = here.tracker.create_run()
    here.teller.tell(run.run_id, here.news(run))
    model = here.client.create_logged_model("0", "mine", source_run_id=here.there(run))
    run.log_metric("m", 0.25, 3, 77)
    here.teller.tell(run.run_id, here.news(run))
    run.log_metrics([Metric("m", 0.25, 77, 3, model.model_id)])
    run.log_outputs([ModelOutput(model.model_id, 3)])
    pieces = here.news(run)
    for _ in range(2):
        here.teller.tell(run.run_id, pieces)
    found = here.client.get_logged_model(model.model_id)
    assert [(one.key, one.value, one.step) for one in found.metrics] == [("m", 0.25, 3)]
    assert [one.model_id for one in here.client.get_run(here.there(run)).outputs.model_outputs] == [model.model_id]
