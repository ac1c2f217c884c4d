"""The real MLflow: a store that it made, taken over, given back, and compared field by field through its own client."""

import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.convert.importer import FROM_TAG, Importer
from gittrack.convert.mlflow_export import Exporter
from gittrack.convert.open import open_hub, open_mlflow
from gittrack.convert.report import Report
from gittrack.registry.registry import Registry
from gittrack.store.repo import Repo
from gittrack.track.logged_models import LoggedModels
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox
from tests.convert.conftest import files_of, tree

mlflow = pytest.importorskip("mlflow", reason="compares with the real MLflow")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("default")]

T0 = 1_700_000_000_000
#: Several of MLflow's own batches; 100,000, which take MLflow half a minute, with ``GITTRACK_FAULTS=full``.
POINTS = 100_000 if os.environ.get("GITTRACK_FAULTS") == "full" else 6000
#: What MLflow gives out by itself, and what an export notes.
OWN = {"run_id", "run_uuid", "experiment_id", "artifact_uri"}


def client(address: str) -> Any:
    """MLflow's own client of a store."""
    mlflow.set_tracking_uri(address)
    mlflow.set_registry_uri(address)
    return mlflow.MlflowClient(address, address)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow has just made, which takes it some seconds."""
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Path:
    """A store with a bit of everything; artifacts are beside it."""
    folder = tmp_path_factory.mktemp("original")
    path = folder / "mlflow.db"
    path.write_bytes(empty.read_bytes())
    _fill(client(f"sqlite:///{path}"), folder, POINTS)
    return path


def _fill(c: Any, folder: Path, points: int) -> None:
    from mlflow.entities import (
        Dataset,
        DatasetInput,
        InputTag,
        LoggedModelInput,
        LoggedModelOutput,
        Metric,
        Param,
        RunTag,
    )

    def experiment(name: str, **tags: str) -> str:
        return str(c.create_experiment(name, artifact_location=str(folder / "mlruns" / name), tags=tags))

    def artifact(run_id: str, name: str, content: bytes, below: str | None = None) -> None:
        file = folder / name
        file.write_bytes(content)
        c.log_artifact(run_id, str(file), below)
        file.unlink()

    vision, gone = experiment("vision", team="a", purpose="ünïcode — text"), experiment("gone", why="old")
    outer = c.create_run(
        vision, start_time=T0, tags={"mlflow.user": "ana", "mlflow.source.type": "LOCAL"}, run_name="outer"
    )
    outer_id = outer.info.run_id
    c.log_batch(
        outer_id,
        params=[Param(f"p/{n}", f"value {n}" * 20) for n in range(90)],
        tags=[RunTag("mlflow.note.content", "# why\n\nbecause")],
    )
    for start in range(0, points, 1000):
        c.log_batch(outer_id, [Metric("loss", 1 / (n + 1), T0 + n, n) for n in range(start, start + 1000)])
    odd = [(math.nan, 1), (math.inf, 2), (-math.inf, 3), (0.0, 4), (-0.0, 5), (1e-320, 6), (3.5, -7)]
    c.log_batch(outer_id, [Metric("odd.values", value, T0 + 10, step) for value, step in odd])
    c.log_batch(outer_id, [Metric("same", n, T0 + n % 3, n // 2) for n in range(20)])
    train = DatasetInput(
        Dataset("train", "abc123", "local", '{"uri": "data.csv"}', schema='{"a": 1}', profile='{"rows": 3}'),
        [InputTag("mlflow.data.context", "training")],
    )
    c.log_inputs(outer_id, [train, DatasetInput(Dataset("test", "def456", "code", "{}"), [])])
    artifact(outer_id, "notes.txt", b"notes")
    artifact(outer_id, "empty.bin", b"")
    artifact(outer_id, "big.bin", bytes(range(256)) * 4096, "data/deep er")
    artifact(outer_id, "ünï.txt", "ünï".encode(), "data")

    inner_ids = []
    for n in range(3):
        run = c.create_run(vision, start_time=T0 + 100 * n, tags={"mlflow.parentRunId": outer_id}, run_name=f"fold {n}")
        inner_ids.append(run.info.run_id)
        c.log_metric(run.info.run_id, "acc", 0.9 + n / 100, T0 + n, step=1)
        c.set_terminated(run.info.run_id, ["FINISHED", "FAILED", "KILLED"][n], T0 + 1000 + n)
    leaf = c.create_run(vision, start_time=T0 + 5, tags={"mlflow.parentRunId": inner_ids[0]}, run_name="leaf")
    c.set_terminated(leaf.info.run_id, "FINISHED", T0 + 6)
    open_run = c.create_run(vision, start_time=T0 + 7, run_name="still open")
    c.log_metric(open_run.info.run_id, "acc", 0.5, T0 + 8, step=0)
    dropped = c.create_run(vision, start_time=T0 + 9, run_name="dropped", tags={"x": "y"})
    c.set_terminated(dropped.info.run_id, "FINISHED", T0 + 10)
    in_gone = c.create_run(gone, start_time=T0 + 11, run_name="in gone")
    artifact(in_gone.info.run_id, "a.txt", b"a")
    c.set_terminated(in_gone.info.run_id, "FINISHED", T0 + 12)

    def model(name: str, run_id: str | None, content: bytes, step: int = 0) -> str:
        made = c.create_logged_model(vision, name, run_id, {"kind": name}, {"depth": "3"}, "forest")
        local = folder / "model"
        (local / "data").mkdir(parents=True)
        (local / "MLmodel").write_text("flavors: {}\n")
        (local / "data" / "weights.bin").write_bytes(content)
        c.log_model_artifacts(made.model_id, str(local))
        for file in (local / "MLmodel", local / "data" / "weights.bin"):
            file.unlink()
        (local / "data").rmdir()
        local.rmdir()
        c.finalize_logged_model(made.model_id, "READY")
        if run_id is not None:
            c.log_outputs(run_id, [LoggedModelOutput(made.model_id, step)])
        return str(made.model_id)

    first, second = model("clf", outer_id, b"one", 10), model("clf", outer_id, b"two", 20)
    other = model("other", outer_id, b"three")
    loose = model("external", None, b"four")
    c.log_inputs(inner_ids[0], models=[LoggedModelInput(second)])
    c.log_batch(
        inner_ids[0], [Metric("eval", 0.75, T0 + 50, 2, model_id=second, dataset_name="test", dataset_digest="def456")]
    )
    c.set_terminated(outer_id, "FINISHED", T0 + 2000)

    c.create_registered_model("iris", {"owner": "ana", "level": "1"}, "flowers — ünï")
    for number, model_id in enumerate([first, second, other, loose], 1):
        run_id = None if model_id == loose else outer_id
        c.create_model_version(
            "iris", f"models:/{model_id}", run_id, {"n": str(number)}, f"http://ci/{number}", f"number {number}",
            await_creation_for=0, model_id=model_id,
        )  # fmt: skip
    c.create_model_version("iris", f"runs:/{outer_id}/data", outer_id, await_creation_for=0)
    c.delete_model_version("iris", "3")
    for number, stage in ((1, "Archived"), (2, "Production"), (4, "Staging"), (5, "Production")):
        c.transition_model_version_stage("iris", str(number), stage)
    c.set_registered_model_alias("iris", "champion", "2")
    c.set_registered_model_alias("iris", "challenger", "4")
    c.create_registered_model("no versions", None, None)
    c.register_prompt("greet", "Hello {{name}}", "why", {"k": "v"})
    c.register_prompt("greet", [{"role": "user", "content": "{{question}}"}])
    c.set_prompt_alias("greet", "best", 1)
    c.delete_run(dropped.info.run_id)
    c.delete_experiment(gone)


# -- reading a store as MLflow shows it --------------------------------------------------------------------------------


class Shown:
    """What MLflow's client shows of a store; ids, which it gives out by itself, are replaced by what they stand for."""

    def __init__(self, address: str, scratch: Path) -> None:
        from mlflow.entities import ViewType

        self._client = c = client(address)
        self._scratch = scratch
        self.experiments = {}
        self.runs: dict[str, Any] = {}
        self.models: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        experiments = c.search_experiments(ViewType.ALL)
        runs = [
            run
            for one in experiments
            for run in c.search_runs([one.experiment_id], run_view_type=ViewType.ALL, max_results=1000)
        ]
        self._names = {run.info.run_id: run.info.run_name for run in runs}
        logged = [model for one in experiments for model in c.search_logged_models([one.experiment_id])]
        for model in logged:
            weights = self._model_files(model.model_id)
            self._names[model.model_id] = f"{model.name} {weights.get('data/weights.bin', b'').decode()}"
            self.models[self._names[model.model_id]] = {
                "params": model.params,
                "tags": _theirs(model.tags),
                "type": model.model_type,
                "status": str(model.status),
                "run": self._names.get(model.source_run_id or ""),
                "metrics": sorted(
                    (m.key, repr(m.value), m.timestamp, m.step, self._names[m.run_id], m.dataset_name, m.dataset_digest)
                    for m in model.metrics or []
                ),
                "files": weights,
            }
        for one in experiments:
            if one.name != "Default":
                self.experiments[one.name] = (one.lifecycle_stage, _theirs(one.tags))
        for run in runs:
            self.runs[run.info.run_name] = self._run(run)
        self.registered = {one.name: self._registered(one) for one in c.search_registered_models()}
        self.prompts = {one.name: self._prompt(one.name) for one in c.search_prompts()}

    def _run(self, run: Any) -> dict[str, Any]:
        tags = {key: self._names.get(value, value) for key, value in _theirs(run.data.tags).items()}
        return {
            "info": {key: value for key, value in dict(run.info).items() if key not in OWN},
            "params": run.data.params,
            "last": {key: repr(value) for key, value in run.data.metrics.items()},
            "tags": tags,
            "history": {
                key: sorted(
                    (m.timestamp, m.step, repr(m.value)) for m in self._client.get_metric_history(run.info.run_id, key)
                )
                for key in run.data.metrics
            },
            "datasets": sorted(json.dumps(one.to_dictionary(), sort_keys=True) for one in run.inputs.dataset_inputs),
            "read": sorted(self._names[one.model_id] for one in run.inputs.model_inputs),
            "made": sorted((self._names[one.model_id], one.step) for one in run.outputs.model_outputs),
            "files": self._run_files(run.info.run_id),
        }

    def _run_files(self, run_id: str) -> dict[str, bytes]:
        target = self._scratch / run_id
        target.mkdir()
        if self._client.list_artifacts(run_id):
            mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(target))
        return tree(target)

    def _model_files(self, model_id: str) -> dict[str, bytes]:
        target = self._scratch / model_id
        target.mkdir()
        mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model_id}", dst_path=str(target))
        return {path: data for path, data in tree(target).items() if not path.endswith("registered_model_meta")}

    def _registered(self, one: Any) -> dict[str, Any]:
        versions = {}
        for version in self._client.search_model_versions(f"name='{one.name}'"):
            source = version.source
            for key, name in self._names.items():
                source = source.replace(key, name)
            versions[int(version.version)] = {
                "source": source.rpartition("/")[2] if "artifacts" in source else source,
                "run": self._names.get(version.run_id or "") if "external" not in source else None,
                "tags": _theirs(version.tags),
                "stage": version.current_stage,
                "description": version.description or None,  # a server answers the empty text for none
                "run_link": version.run_link or None,
                "status": version.status,
                "aliases": sorted(version.aliases),
            }
        return {
            "description": one.description or None,
            "tags": _theirs(one.tags),
            "aliases": {alias: int(number) for alias, number in one.aliases.items()},
            "versions": versions,
        }

    def _prompt(self, name: str) -> dict[int, Any]:
        versions = {}
        for number in (1, 2):
            version = self._client.get_prompt_version(name, str(number))
            versions[number] = (
                version.template,
                version.commit_message or None,
                _theirs(version.tags),
                sorted(version.aliases),
            )
        return versions

    def differences(self, other: "Shown") -> list[str]:
        """What is not the same, in a form that can be read."""
        found: list[str] = []
        for kind in ("experiments", "runs", "models", "registered", "prompts"):
            _compare(kind, getattr(self, kind), getattr(other, kind), found)
        return found


def _theirs(tags: dict[str, str]) -> dict[str, str]:
    return {
        key: value for key, value in tags.items() if not key.startswith("gittrack.") and key != "mlflow.modelVersions"
    }


def _compare(path: str, a: Any, b: Any, found: list[str]) -> None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}, key=str):
            if key not in a or key not in b:
                found.append(f"{path}.{key}: {'only in the second' if key not in a else 'only in the first'}")
            else:
                _compare(f"{path}.{key}", a[key], b[key], found)
    elif a != b:
        found.append(f"{path}: {str(a)[:300]} != {str(b)[:300]}")


# -- the tests ---------------------------------------------------------------------------------------------------------


def _import(tracker: Tracker, address: str, **options: Any) -> Report:
    source = open_mlflow(address)
    try:
        return Importer(tracker, source, **options).run()
    finally:
        source.close()


def _export(tracker: Tracker, address: str, **options: Any) -> Report:
    hub = open_hub(address, {})
    try:
        return Exporter(tracker, hub, **options).run()
    finally:
        hub.close()


def test_what_mlflow_made_comes_and_goes_back_and_mlflow_shows_the_same(
    original: Path, empty: Path, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Shown(f"sqlite:///{original}", _plain(tmp_path / "first"))
    began = time.monotonic()
    report = _import(tracker, f"sqlite:///{original}")
    taken = time.monotonic() - began
    print(f"{report.runs} runs with {report.points} points in {taken:.2f} s")
    assert report.problems == []
    assert report.points == POINTS + 7 + 20 + 3 + 1 + 1
    assert (report.models, report.versions) == (3, 6)

    # The same again adds nothing, whatever it is called.
    before = tracker.repo.git.refs("refs/")
    again = _import(tracker, f"sqlite:///{original}")
    assert (again.runs, again.points, again.files, again.models, again.versions, again.problems) == (0, 0, 0, 0, 0, [])
    assert tracker.repo.git.refs("refs/") == before
    assert "runs checked, no problems" in _fsck(tracker)

    second = tmp_path / "second"
    second.mkdir()
    monkeypatch.chdir(second)
    (second / "mlflow.db").write_bytes(empty.read_bytes())
    address = f"sqlite:///{second / 'mlflow.db'}"
    sent = _export(tracker, address)
    assert sent.problems == []
    assert (sent.points, sent.models, sent.versions) == (report.points, 3, 6)
    assert Shown(address, _plain(tmp_path / "a")).differences(first) == []
    twice = _export(tracker, address)
    assert (twice.runs, twice.points, twice.files, twice.models, twice.versions, twice.problems) == (0, 0, 0, 0, 0, [])

    # What came from there is there already.
    back = _export(tracker, f"sqlite:///{original}")
    assert (back.runs, back.models, back.versions, back.problems) == (0, 0, 0, [])

    # And what was exported, and is imported elsewhere, has the ids that it had.
    other = Tracker(Repo.find(_plain(tmp_path / "third"), create=True), strict=True)
    assert _import(other, address).problems == []
    ids = {
        run.info.run_id
        for run in tracker.search_runs(view=3)
        if not re.search("-(model|prompt)", run.data.tags[FROM_TAG])
    }
    found = {run.info.run_id: run for run in other.search_runs(view=3)}
    assert ids <= found.keys()
    for run in tracker.search_runs():
        parent = run.data.tags.get("mlflow.parentRunId")
        assert run.info.run_id not in ids or found[run.info.run_id].data.tags.get("mlflow.parentRunId") == parent
    other.close()


def test_what_mlflow_copied_has_the_files_of_what_it_was_copied_from(
    empty: Path, tracker: Tracker, tmp_path: Path
) -> None:
    folder = _plain(tmp_path / "there")
    (folder / "mlflow.db").write_bytes(empty.read_bytes())
    address = f"sqlite:///{folder / 'mlflow.db'}"
    c = client(address)
    experiment = c.create_experiment("exp", f"{folder / 'mlruns'}")
    run_id = c.create_run(experiment).info.run_id
    (_plain(folder / "m") / "MLmodel").write_text("flavors: {}\n")
    c.log_artifacts(run_id, str(folder / "m"), "model")
    logged = c.create_logged_model(experiment, "clf", run_id)
    c.log_model_artifacts(logged.model_id, str(folder / "m"))
    c.finalize_logged_model(logged.model_id, "READY")
    c.log_outputs(run_id, [mlflow.entities.LoggedModelOutput(logged.model_id, 0)])
    c.set_terminated(run_id)
    c.create_registered_model("dev")
    for source in (f"runs:/{run_id}/model", f"models:/{logged.model_id}"):
        made = c.create_model_version("dev", source, run_id, await_creation_for=0)
        for name in ("staging", "a last one"):
            made = c.copy_model_version(f"models:/{made.name}/{made.version}", name)
    report = _import(tracker, address)
    assert (report.problems, report.models, report.versions) == ([], 3, 6)
    registry = Registry(tracker)
    for number in (1, 2):
        found = [registry.get_version(name, number) for name in ("dev", "staging", "a last one")]
        assert {(one.run_id, one.path, one.manifest) for one in found} == {
            (found[0].run_id, found[0].path, found[0].manifest)
        }
        assert dict(registry.manifest(found[2]).files).keys() == {"MLmodel"}


def _plain(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _fsck(tracker: Tracker) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gittrack", "fsck"],
        cwd=tracker.repo.paths.main_root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_gittracks_own_view_of_it(original: Path, tracker: Tracker) -> None:
    _import(tracker, f"sqlite:///{original}")
    runs = {run.info.run_name: run for run in tracker.search_runs(view=3)}
    outer = runs["outer"]
    assert len(tracker.metric_history(outer.info.run_id, "loss")) == POINTS
    odd = {one.step: one.value for one in tracker.metric_history(outer.info.run_id, "odd.values")}
    assert math.isnan(odd[1])
    assert (odd[2], odd[3], odd[6], odd[-7]) == (math.inf, -math.inf, 1e-320, 3.5)
    assert runs["leaf"].data.tags["mlflow.parentRunId"] == runs["fold 0"].info.run_id
    assert (outer.info.start_time, outer.info.end_time, outer.info.user_id) == (T0, T0 + 2000, "ana")
    assert runs["still open"].info.status == "RUNNING"
    assert runs["still open"].commit is not None
    assert {name for name, run in runs.items() if run.info.lifecycle_stage == "deleted"} == {"dropped", "in gone"}
    files = files_of(tracker, outer.info.run_id)
    assert files["clf/data/weights.bin"] == b"two"
    assert {data for path, data in files.items() if path.startswith("superseded/") and "weights" in path} == {b"one"}
    assert files["data/deep er/big.bin"] == bytes(range(256)) * 4096


def test_what_went_on_over_there_is_completed(
    empty: Path, tmp_path: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "live.db").write_bytes(empty.read_bytes())
    address = f"sqlite:///{tmp_path / 'live.db'}"
    c = client(address)
    run_id = c.create_run("0", start_time=T0, run_name="going on").info.run_id
    c.log_metric(run_id, "a", 1.0, T0, 1)
    assert _import(tracker, address).points == 1
    c.log_metric(run_id, "a", 2.0, T0 + 1, 2)
    c.log_param(run_id, "late", "yes")
    c.set_terminated(run_id, "FINISHED", T0 + 5)
    report = _import(tracker, address)
    assert (report.runs, report.points) == (1, 1)
    run = tracker.get_run(run_id)
    assert (run.info.status, run.info.end_time, run.data.params) == ("FINISHED", T0 + 5, {"late": "yes"})
    assert [(p.step, p.value) for p in tracker.metric_history(run_id, "a")] == [(1, 1.0), (2, 2.0)]
    assert _import(tracker, address).here == 1


# -- a live server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], str]]:
    """``serve(database)``: the address of a MLflow server on it, which keeps artifacts itself."""
    running: list[subprocess.Popen[bytes]] = []

    def start(database: Path) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = tmp_path_factory.mktemp("server") / "log"
        command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}",
            "--artifacts-destination", str(database.parent / "mlartifacts"),
            "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        ]  # fmt: skip
        # One process less, whose jobs nobody asks for.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with log.open("wb") as out:
            running.append(
                subprocess.Popen(
                    command, stdout=out, stderr=out, cwd=database.parent, env=environment, start_new_session=True
                )
            )
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    return f"http://127.0.0.1:{port}"
            except OSError:
                time.sleep(0.5)
        raise AssertionError(log.read_text())

    yield start
    for process in running:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    import signal

    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_over_rest_it_is_the_same(
    original: Path, empty: Path, serve: Callable[[Path], str], tracker: Tracker, tmp_path: Path
) -> None:
    """From the file to here, from here to a server, from the server to another repository."""
    first = Shown(f"sqlite:///{original}", _plain(tmp_path / "first"))
    _import(tracker, f"sqlite:///{original}")
    target = _plain(tmp_path / "target") / "mlflow.db"
    target.write_bytes(empty.read_bytes())
    address = serve(target)
    sent = _export(tracker, address)
    assert sent.problems == []
    assert Shown(address, _plain(tmp_path / "a")).differences(first) == []
    twice = _export(tracker, address)
    assert (twice.runs, twice.files, twice.models, twice.versions, twice.problems) == (0, 0, 0, 0, [])

    other = Tracker(Repo.find(_plain(tmp_path / "other"), create=True), strict=True)
    report = _import(other, address)
    assert report.problems == []
    assert (report.points, report.models, report.versions) == (sent.points, 3, 6)
    again = _import(other, address)
    assert (again.runs, again.files, again.models, again.versions, again.problems) == (0, 0, 0, 0, [])
    for run in tracker.search_runs():
        if not re.search("-(model|prompt)", run.data.tags[FROM_TAG]):
            same = other.get_run(run.info.run_id)
            assert (same.data.params, same.info.status, same.info.end_time) == (
                run.data.params, run.info.status, run.info.end_time,
            )  # fmt: skip
            assert {repr(value) for value in same.data.metrics.values()} == {
                repr(value) for value in run.data.metrics.values()
            }
            assert len(files_of(other, run.info.run_id)) == len(files_of(tracker, run.info.run_id))
    other.close()

    # What that server keeps in `mlartifacts` is found beside its database.
    third = Tracker(Repo.find(_plain(tmp_path / "third"), create=True), strict=True)
    direct = _import(third, f"sqlite:///{target}")
    assert (direct.problems, direct.files, direct.versions) == ([], report.files, 6)
    third.close()


def test_a_file_store(tmp_path: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"  # the artifacts are in `mlruns` beside it
    address = f"file://{store}"
    _fill(client(address), tmp_path, 1000)
    shown = Shown(address, _plain(tmp_path / "shown"))
    report = _import(tracker, str(store))
    assert report.problems == []
    assert (report.points, report.models, report.versions) == (1000 + 7 + 20 + 3 + 1 + 1, 3, 6)
    assert _import(tracker, str(store)).runs == 0
    runs = {run.info.run_name: run for run in tracker.search_runs(view=3)}
    for name, there in shown.runs.items():
        here = runs[name]
        assert here.data.params == there["params"]
        assert {key: repr(value) for key, value in here.data.metrics.items()}.keys() == there["last"].keys()
        assert (here.info.status, here.info.end_time) == (there["info"]["status"], there["info"]["end_time"])
        files = {path for path in files_of(tracker, here.info.run_id) if "/" in path or path in there["files"]}
        assert there["files"].keys() <= files
    assert len(tracker.repo.state(runs["fold 0"].info.run_id).links) == 1


def test_a_model_that_was_made_here_is_loaded_there(
    empty: Path, sandbox: Sandbox, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numpy = pytest.importorskip("numpy", reason="fits a model")
    linear = pytest.importorskip("sklearn.linear_model", reason="fits a model")
    program = """
import gittrack, numpy
from sklearn.linear_model import LinearRegression
gittrack.set_experiment("native")
with gittrack.start_run(run_name="mine"):
    gittrack.log_param("a", 1)
    gittrack.log_metric("m", 0.5, step=3)
    model = LinearRegression().fit(numpy.eye(3), [1.0, 2.0, 3.0])
    gittrack.sklearn.log_model(model, name="model", registered_model_name="line", model_type="linear", tags={"k": "v"})
gittrack.create_external_model(name="agent", params={"temperature": "0"}, tags={"team": "a"})
client = gittrack.MlflowClient()
client.set_registered_model_alias("line", "champion", "1")
client.transition_model_version_stage("line", "1", "Production")
"""
    subprocess.run([sys.executable, "-c", program], cwd=sandbox.path, check=True, capture_output=True)
    where = tracker.search_runs()[0].info.experiment_id
    LoggedModels(tracker).create(where, "of another", absent_run_id="123")
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "mlflow.db"
    target.write_bytes(empty.read_bytes())
    report = _export(tracker, f"sqlite:///{target}")
    assert report.problems == []
    assert (report.runs, report.models, report.versions) == (3, 1, 1)
    c = client(f"sqlite:///{target}")
    version = c.get_model_version_by_alias("line", "champion")
    assert (version.version, version.current_stage) in {(1, "Production"), ("1", "Production")}
    run = c.get_run(version.run_id)
    assert (run.info.run_name, run.data.params, run.data.metrics) == ("mine", {"a": "1"}, {"m": 0.5})
    assert run.data.tags["mlflow.source.git.commit"] == sandbox.git("rev-parse", "HEAD")
    alone, made, far = c.search_logged_models([run.info.experiment_id], order_by=[{"field_name": "name"}])
    assert (far.name, far.source_run_id) == ("of another", "123")
    assert (alone.name, alone.source_run_id, str(alone.status)) == ("agent", None, "READY")
    assert (alone.params, alone.tags["team"]) == ({"temperature": "0"}, "a")
    assert len(c.search_runs([run.info.experiment_id])) == 1
    assert made.params == {"a": "1"}
    assert [(point.key, point.value) for point in made.metrics or []] == []
    assert (made.name, made.model_type, made.tags["k"]) == ("model", "linear", "v")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    loaded = mlflow.sklearn.load_model("models:/line@champion")
    assert isinstance(loaded, linear.LinearRegression)
    assert loaded.predict(numpy.eye(3)).tolist() == pytest.approx([1.0, 2.0, 3.0])
