"""Journals told to a MLflow server; gittrack's own speaks the same API, so it is told the same."""

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack import Client, errors, stores
from gittrack.remote.folders import Folder
from gittrack.remote.http import Connection
from gittrack.remote.mlflow import RUN_TAG, Teller
from gittrack.remote.runs import RemoteRun
from gittrack.remote.tracking import RemoteTracker
from gittrack.store.repo import Repo
from gittrack.track.active import ActiveRun
from gittrack.track.runs import Tracker
from gittrack.types import Dataset, DatasetInput, InputTag, Metric, ModelOutput
from tests.api.conftest import make_project
from tests.remote.conftest import Place, mlflow_server
from tests.remote.test_shipping import wait_for
from tests.server.process import Process


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


class Away:
    """A server that can be away; gittrack's own is taken for one of MLflow's."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._process = Process(make_project(folder))
        self.url = f"http://127.0.0.1:{self._process.port}"
        self._real = mlflow_server(folder, self._process.port) if kind == "mlflow" else None
        self._folder = folder
        self._up = contextlib.ExitStack()

    def start(self) -> None:
        if self._real is None:
            self._process.start()
            self._up.callback(self._process.kill)
        else:
            self._up.enter_context(mlflow_server(self._folder, self._process.port))

    def stop(self) -> None:
        self._up.close()


@pytest.fixture(params=["gittrack", pytest.param("mlflow", marks=pytest.mark.peer)])
def away(
    request: pytest.FixtureRequest, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Away]:
    call = Connection.call

    def unknown(self: Connection, method: str, target: str, *words: Any, **more: Any) -> Any:
        if target.endswith("/gittrack/server-info"):
            self.get("experiments/get", experiment_id="0")  # it has to be there to say so
            raise errors.NoEndpointError("there is nothing at this address")
        return call(self, method, target, *words, **more)

    if request.param == "mlflow":
        pytest.importorskip("mlflow", reason="the server is the real one")
    else:
        monkeypatch.setattr(Connection, "call", unknown)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    found = Away(request.param, tmp_path / "served")
    found.start()
    gittrack.set_tracking_uri(found.url)
    yield found
    found.stop()


def remote() -> RemoteTracker:
    found = stores.tracker()
    assert isinstance(found, RemoteTracker)
    return found


def test_a_run_that_is_made_there_is_recorded_here_and_told_whatever_becomes_of_the_server(
    away: Away, project: Path
) -> None:
    experiment_id = gittrack.set_experiment("live").experiment_id
    there = Client(away.url)

    def told() -> Any:
        found = remote().connection.get("runs/get", run_id=run.info.run_id)["run"]["data"]
        return found.get("params") and found.get("metrics")

    with gittrack.start_run(run_name="live", tags={"a": "b"}) as run:
        gittrack.log_param("lr", 0.1)
        for step in range(200):
            gittrack.log_metric("loss", 1.0, step=step)
        wait_for(told)  # while it goes on
        away.stop()
        began = time.thread_time()
        for step in range(200, 3000):
            gittrack.log_metric("loss", 1.0, step=step)
        assert time.thread_time() - began < 2.0
        gittrack.log_text("hello", "notes/a.txt")
        gittrack.set_tag("late", "yes")
        assert gittrack.get_run(run.info.run_id).data.metrics == {"loss": 1.0}  # as it is here
        away.start()
    remote().ship(60)
    found = there.get_run(run.info.run_id)
    assert (found.info.status, found.info.run_name, found.info.experiment_id) == ("FINISHED", "live", experiment_id)
    assert found.info.artifact_uri.startswith("mlflow-artifacts:")
    assert (found.data.params, found.data.tags["late"], found.data.tags["a"]) == ({"lr": "0.1"}, "yes", "b")
    assert [one.step for one in there.get_metric_history(run.info.run_id, "loss")] == list(range(3000))
    assert remote().read_artifact(run.info.run_id, "notes/a.txt") == b"hello"
    assert [one.info.run_id for one in there.search_runs([experiment_id])] == [run.info.run_id]
    assert gittrack.get_run(run.info.run_id) == found  # not as it is here any more
    assert not (project / ".gittrack").exists()  # where experiments have other ids
    with gittrack.start_run(run_id=run.info.run_id):
        gittrack.log_metric("after", 1.0)
    assert there.get_run(run.info.run_id).data.metrics["after"] == 1.0


def test_a_run_that_begins_while_the_server_is_away_is_told_later(away: Away) -> None:
    experiment_id = gittrack.set_experiment("away").experiment_id
    with gittrack.start_run():
        gittrack.log_metric("first", 1.0)
    remote().ship(60)
    away.stop()
    with gittrack.start_run(run_name="second", experiment_id=experiment_id) as run:
        gittrack.log_metric("second", 1.0)
    assert gittrack.get_run(run.info.run_id).info.status == "FINISHED"
    away.start()
    remote().ship(60)
    (found,) = Client(away.url).search_runs([experiment_id], "attributes.run_name = 'second'")
    assert (found.data.metrics, found.data.tags[RUN_TAG]) == ({"second": 1.0}, run.info.run_id)
    assert gittrack.get_run(run.info.run_id).data.metrics == {"second": 1.0}  # by the id that it has here


def test_a_server_that_takes_no_files_is_written_to_by_calls(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = remote()
    monkeypatch.setattr(tracker, "_ours", False)
    monkeypatch.setattr(Folder, "takes_files", staticmethod(lambda uri: False))
    run = tracker.create_run(name="elsewhere")
    assert type(run) is RemoteRun
    run.log_metric("m", 1.0)
    assert tracker.connection.get("runs/get", run_id=run.run_id)["run"]["data"]["metrics"][0]["value"] == 1.0


@pytest.mark.peer
def test_what_a_killed_program_left_for_it_is_synced(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="the server is the real one")
    away = Away("mlflow", tmp_path / "served")
    away.start()
    program = (
        "import gittrack, os, sys\nwith gittrack.start_run() as run:\n"
        " print(run.info.run_id, flush=True); input()\n"
        " for step in range(50): gittrack.log_metric('loss', 1.0, step=step)\n"
        " os.kill(os.getpid(), 9)"
    )
    environ = os.environ | {
        "GITTRACK_TRACKING_URI": away.url, "XDG_DATA_HOME": str(tmp_path / "data"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    words = [sys.executable, "-m", "gittrack"]
    try:
        with subprocess.Popen([sys.executable, "-c", program], env=environ, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as other:  # fmt: skip
            assert other.stdout is not None
            run_id = other.stdout.readline().strip()
            away.stop()
            other.communicate("\n", timeout=60)
        said = subprocess.run([*words, "status"], env=environ, capture_output=True, text=True, check=True).stdout
        assert f"for {away.url}" in said
        away.start()
        subprocess.run([*words, "sync"], env=environ, capture_output=True, text=True, check=True)
        there = Client(away.url)
        assert [one.step for one in there.get_metric_history(run_id, "loss")] == list(range(50))
        assert there.get_run(run_id).info.status == "KILLED"
    finally:
        away.stop()
