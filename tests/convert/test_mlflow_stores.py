"""MLflow's stores without MLflow: what is read, and what is not believed."""

import json
import math
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from gittrack.convert.importer import FROM_TAG, MAX_COPIES, STATE_TAG, Importer
from gittrack.convert.mlflow_files import FileStore
from gittrack.convert.mlflow_sqlite import SqliteStore
from gittrack.convert.open import open_mlflow, sqlite_path
from gittrack.convert.report import Report
from gittrack.errors import CorruptError, FormatError, InvalidValueError, NotFoundError, UnsupportedError
from gittrack.registry.registry import Registry
from gittrack.store import check, rewrite
from gittrack.track.logged_models import LoggedModels
from gittrack.track.runs import Tracker
from gittrack.types import ViewType
from tests.conftest import Sandbox
from tests.convert.conftest import Cli, files_of, history
from tests.convert.stores import MODEL, RUN_A, RUN_B, T0, Database

Take = Callable[..., Report]


@pytest.fixture
def full(tmp_path: Path) -> Database:
    """A database with two nested runs, a logged model and a registry; its artifacts are beside it."""
    top = tmp_path / "mlflow"
    artifacts = top / "mlruns" / "1"
    for name, text in {
        f"{RUN_A}/artifacts/notes.txt": "notes",
        f"{RUN_A}/artifacts/plots/roc.png": "png",
        f"models/{MODEL}/artifacts/MLmodel": "flavors: {}\n",
        f"models/{MODEL}/artifacts/model.bin": "weights",
    }.items():
        (artifacts / name).parent.mkdir(parents=True, exist_ok=True)
        (artifacts / name).write_text(text)
    db = Database(top / "mlflow.db").experiment(name="vision").experiment(2, "gone", "deleted")
    db.add("experiment_tags", key="team", value="a", experiment_id=1)
    db.run(RUN_A, artifacts=artifacts / RUN_A / "artifacts").run(RUN_B, status="FAILED", start_time=T0 + 5)
    db.run("c" * 32, experiment_id=2, lifecycle_stage="deleted")
    db.add("params", key="lr", value="0.1", run_uuid=RUN_A).add("tags", key="k", value="v", run_uuid=RUN_A)
    db.add("tags", key="mlflow.parentRunId", value=RUN_A, run_uuid=RUN_B)
    big = 1.7976931348623157e308
    db.metric("loss", [(1.0, 1), (math.nan, 2), (big, 3), (-big, -4)]).metric("acc", [(0.5, 0)], RUN_B)
    db.add(
        "logged_models", model_id=MODEL, experiment_id=1, name="model", creation_timestamp_ms=T0 + 1,
        last_updated_timestamp_ms=T0 + 2, status=2, lifecycle_stage="active", source_run_id=RUN_A, model_type="forest",
        artifact_location=f"file://{artifacts / 'models' / MODEL / 'artifacts'}",
    )  # fmt: skip
    db.add("logged_model_params", model_id=MODEL, param_key="p", param_value="1")
    db.add(
        "inputs",
        source_type="RUN_OUTPUT",
        source_id=RUN_A,
        destination_type="MODEL_OUTPUT",
        destination_id=MODEL,
        step=7,
    )
    db.add("registered_models", name="iris", creation_time=T0 + 10, last_updated_time=T0 + 90, description="flowers")
    for number, stage, source in ((1, "Archived", f"models:/{MODEL}"), (4, "Production", f"runs:/{RUN_A}/plots")):
        db.add(
            "model_versions", name="iris", version=number, creation_time=T0 + 10 * number, last_updated_time=T0 + 80,
            current_stage=stage, source=source, run_id=RUN_A, status="READY", description=f"number {number}",
        )  # fmt: skip
    db.add("model_versions", name="iris", version=2, current_stage="Deleted_Internal", source="x")
    db.add("registered_model_aliases", alias="champion", version=4, name="iris")
    return db


def test_everything_is_kept(full: Database, take: Take, tracker: Tracker) -> None:
    report = take(SqliteStore(full.done()))
    assert (report.experiments, report.runs, report.points, report.files) == (2, 3, 5, 4)
    assert (report.models, report.versions) == (1, 2)
    run = tracker.get_run(RUN_A)
    assert (run.info.run_name, run.info.user_id, run.info.start_time, run.info.end_time) == (
        "run a",
        "ana",
        T0,
        T0 + 1000,
    )
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags.items() >= {"k": "v", FROM_TAG: f"mlflow:{RUN_A}", STATE_TAG: f"FINISHED {T0 + 1000}"}.items()
    assert history(tracker, RUN_A, "loss") == [
        (-4, T0 - 4, "-inf"), (1, T0 + 1, "1.0"), (2, T0 + 2, "nan"), (3, T0 + 3, "inf"),
    ]  # fmt: skip
    child = tracker.get_run(RUN_B)
    assert (child.info.status, child.data.tags["mlflow.parentRunId"]) == ("FAILED", RUN_A)
    assert {path: data for path, data in files_of(tracker, RUN_A).items() if "logged_models" not in path} == {
        "notes.txt": b"notes", "plots/roc.png": b"png",
        "model/MLmodel": b"flavors: {}\n", "model/model.bin": b"weights",
    }  # fmt: skip
    output = run.outputs.model_outputs[0]
    assert (output.model_id, output.step, output.path) == (MODEL, 7, "model")
    logged = LoggedModels(tracker).get(MODEL)
    assert (logged.name, logged.model_type, logged.params, logged.path) == ("model", "forest", {"p": "1"}, "model")
    assert (logged.creation_timestamp, logged.last_updated_timestamp) == (T0 + 1, T0 + 2)
    assert (str(logged.status), logged.source_run_id) == ("READY", RUN_A)
    vision, gone = tracker.get_experiment_by_name("vision"), tracker.get_experiment_by_name("gone")
    assert vision is not None
    assert (vision.tags, vision.creation_time) == ({"team": "a"}, T0)
    assert gone is not None
    assert gone.lifecycle_stage == "deleted"
    assert tracker.get_run("c" * 32).info.lifecycle_stage == "deleted"

    registry = Registry(tracker)
    model = registry.get_model("iris")
    assert (model.description, model.aliases, model.creation_timestamp) == ("flowers", {"champion": "4"}, T0 + 10)
    one, four = registry.versions("iris")
    assert (one.version, one.current_stage, one.path, one.model_id, one.description) == (
        "1",
        "Archived",
        "model",
        MODEL,
        "number 1",
    )
    assert (four.version, four.current_stage, four.source) == ("4", "Production", f"runs:/{RUN_A}/plots")
    assert (four.creation_timestamp, four.last_updated_timestamp) == (T0 + 40, T0 + 80)


def test_twice_adds_nothing(full: Database, take: Take, tracker: Tracker) -> None:
    path = full.done()
    take(SqliteStore(path))
    before = tracker.repo.git.refs("refs/")
    report = take(SqliteStore(path))
    assert (report.runs, report.here, report.versions, report.files) == (0, 3, 0, 0)
    assert tracker.repo.git.refs("refs/") == before


def test_two_clones_that_import_the_same_have_the_same_runs(
    full: Database, tmp_path: Path, take: Take, tracker: Tracker
) -> None:
    from gittrack.store.repo import Repo

    path = full.done()
    take(SqliteStore(path))
    (tmp_path / "clone").mkdir()
    other = Tracker(Repo.find(tmp_path / "clone", create=True), strict=True)
    Importer(other, SqliteStore(path)).run()
    assert {run.info.run_id for run in other.search_runs(view=3)} == {
        run.info.run_id for run in tracker.search_runs(view=3)
    }
    other.close()


@pytest.mark.parametrize("after", range(1, 13))
def test_interrupted_anywhere_it_goes_on(
    after: int, full: Database, take: Take, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import is cut off at its ``after``-th write; the second call makes it whole."""
    from gittrack.track.active import ActiveRun

    path = full.done()
    write, left = ActiveRun.write_event, after

    def cut(self: ActiveRun, event: list[object]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        write(self, event)

    with monkeypatch.context() as patched:
        patched.setattr(ActiveRun, "write_event", cut)
        source = SqliteStore(path)
        with pytest.raises(KeyboardInterrupt):
            Importer(tracker, source).run()
        source.close()
    tracker.close()
    again = Tracker(tracker.repo, strict=True)
    source = SqliteStore(path)
    report = Importer(again, source).run()
    source.close()
    assert report.problems == []
    run = again.get_run(RUN_A)
    assert (run.info.status, run.info.end_time, run.data.params) == ("FINISHED", T0 + 1000, {"lr": "0.1"})
    assert run.data.summaries["loss"].count == len(history(again, RUN_A, "loss")) == 4
    assert len(files_of(again, RUN_A)) == 5
    assert {one.version: one.current_stage for one in Registry(again).versions("iris")} == {
        "1": "Archived",
        "4": "Production",
    }
    again.close()


def test_killed_and_called_again(tmp_path: Path, sandbox: Sandbox, take: Take, tracker: Tracker) -> None:
    """A real process, and a real SIGKILL while it imports."""
    db = Database(tmp_path / "mlflow.db").experiment()
    for number in range(300):
        db.run(f"{number:032x}", start_time=T0 + number).metric(
            "m", [(float(step), step) for step in range(5)], f"{number:032x}"
        )
    path = db.done()
    command = [sys.executable, "-m", "gittrack", "import", "mlflow", str(path)]
    process = subprocess.Popen(command, cwd=sandbox.path, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(tracker.repo.live.glob("*/*.journal"))) < 40:
        time.sleep(0.002)
    process.kill()
    process.wait()
    report = take(SqliteStore(path))
    assert report.runs + report.here == 300
    tracker.flush()
    runs = tracker.search_runs(max_results=1000)
    assert {run.info.run_id for run in runs} == {f"{number:032x}" for number in range(300)}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.summaries["m"].count for run in runs} == {5}
    assert all(len(history(tracker, run.info.run_id, "m")) == 5 for run in runs[::20])


def test_an_old_database_has_less(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    db = Database(tmp_path / "old.db", old=True).experiment().run().metric("m", [(1.0, 0)])
    report = take(SqliteStore(db.done()))
    assert (report.runs, report.points, report.models) == (1, 1, 0)


def test_experiments_are_chosen(full: Database, take: Take, tracker: Tracker) -> None:
    path = full.done()
    report = take(SqliteStore(path), experiments=["gone"])
    assert (report.experiments, report.runs, report.models) == (1, 1, 0)
    with pytest.raises(NotFoundError, match="no experiment `nix`"):
        take(SqliteStore(path), experiments=["nix"])


def test_a_dry_run_writes_nothing(full: Database, take: Take, tracker: Tracker) -> None:
    report = take(SqliteStore(full.done()), dry_run=True)
    assert (report.experiments, report.runs, report.points, report.models, report.versions) == (2, 3, 5, 1, 2)
    assert tracker.repo.git.refs("refs/runs/") == {}
    assert list(tracker.repo.live.iterdir()) == []


def test_a_version_whose_number_is_used_gets_the_next(full: Database, take: Take, tracker: Tracker) -> None:
    run = tracker.create_run(name="mine", capture=False)
    run.log_bytes(b"x", "model/x")
    run.end()
    Registry(tracker).register("iris", run.run_id, "model")
    report = take(SqliteStore(full.done()), problems=True)
    assert report.problems == ["version 1 of model `iris`: the number is used here; it became version 2"]
    assert [one.version for one in Registry(tracker).versions("iris")] == ["1", "2", "4"]


def test_a_run_stands_on_its_code(full: Database, sandbox: Sandbox, take: Take, tracker: Tracker) -> None:
    commit = sandbox.git("rev-parse", "HEAD")
    full.add("tags", key="mlflow.source.git.commit", value=commit, run_uuid=RUN_A)
    full.add("tags", key="mlflow.source.git.commit", value="0" * 40, run_uuid=RUN_B)
    take(SqliteStore(full.done()))
    assert sandbox.git("rev-parse", f"{tracker.get_run(RUN_A).commit}^") == commit
    assert tracker.get_run(RUN_B).code == {}


# -- what is not believed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "{out}",
        "file://{out}",
        "file://{out}/../out",
        "../out",
        "{out}/./",
        "link",
        "mlruns/link",
        "beside",
        "{top}/beside",
        ".",
    ],
)
def test_files_elsewhere_are_not_taken(uri: str, tmp_path: Path, take: Take, tracker: Tracker) -> None:
    out, top = tmp_path / "out", tmp_path / "store"
    out.mkdir()
    top.mkdir()
    (top / "mlruns").mkdir()
    (top / "beside").mkdir()
    for folder in (out, top, top / "beside"):
        (folder / "id_rsa").write_text("secret")
    (top / "link").symlink_to(out)
    (top / "mlruns" / "link").symlink_to(out)
    db = Database(top / "mlflow.db").experiment().run(artifacts=uri.format(out=out, top=top))
    report = take(SqliteStore(db.done()), problems=True)
    assert files_of(tracker, RUN_A) == {}
    assert report.files == 0
    assert len(report.problems) == 1


def test_links_are_not_followed(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "store" / "mlruns" / "artifacts"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "below").symlink_to(tmp_path)
    (folder / "real").write_text("real")
    db = Database(tmp_path / "store" / "mlflow.db").experiment().run(artifacts=folder)
    take(SqliteStore(db.done()))
    assert files_of(tracker, RUN_A) == {"real": b"real"}


def test_a_named_folder_may_be_read(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    folder = tmp_path / "elsewhere" / RUN_A / "artifacts"
    folder.mkdir(parents=True)
    (folder / "a").write_text("a")
    (tmp_path / "store").mkdir()
    db = Database(tmp_path / "store" / "mlflow.db").experiment().run(artifacts=f"s3://bucket/{RUN_A}/artifacts")
    db.run(RUN_B, artifacts=f"/home/who/was/here/1/{RUN_A}/artifacts")
    report = take(SqliteStore(db.done(), [tmp_path / "elsewhere"]), problems=True)
    assert report.problems == [f"run `{RUN_A}`: its files at `s3://bucket/{RUN_A}/artifacts` are not on this machine"]
    assert files_of(tracker, RUN_B) == {"a": b"a"}


def test_bad_names_are_left_out_and_said(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    db = Database(tmp_path / "mlflow.db").experiment(name="exp").experiment(2, "a/../b").run("../../etc", name="x")
    db.run(RUN_A, name="two\nlines\x1b[31m").run(RUN_B, experiment_id=2)
    for key in ("../up", "/abs", "ok", "with\nline", "$(id)"):
        db.add("params", key=key, value="v", run_uuid=RUN_A).add("tags", key=key, value="v", run_uuid=RUN_A)
        db.metric(key, [(1.0, 0), (2.0, 1)])
    db.add("metrics", key="ok", value=1.0, timestamp=-5, run_uuid=RUN_A, step=0, is_nan=0)
    report = take(SqliteStore(db.done()), problems=True)
    run = tracker.get_run(RUN_A)
    assert (set(run.data.params), set(run.data.metrics)) == ({"ok"}, {"ok"})
    assert run.info.run_name == r"two\nlines\x1b[31m"
    assert {key for key in run.data.tags if not key.startswith(("gittrack.", "mlflow."))} == {"ok"}
    assert {one.name for one in tracker.search_experiments()} == {"Default", "exp"}
    said = "\n".join(report.problems)
    assert "invalid run id `../../etc`" in said
    assert "experiment `a/../b`: experiment name" in said
    assert len(report.problems) == 4 * 3 + 1 + 1 + 1 + 1


def test_values_of_another_type_do_no_harm(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    db = Database(tmp_path / "mlflow.db").experiment().run(start_time="soon", end_time=b"\xff", status=7)
    db.add("params", key="p", value=b"\xff\x00", run_uuid=RUN_A).add("params", key=3, value=4.5, run_uuid=RUN_A)
    db.add("metrics", key="m", value="much", timestamp="now", run_uuid=RUN_A, step=2**62, is_nan=None)
    report = take(SqliteStore(db.done()))
    run = tracker.get_run(RUN_A)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FAILED", 0, 0)
    assert run.data.params["3"] == "4.5"
    assert report.points == 1


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(FormatError, match="no SQLite database"):
        SqliteStore(tmp_path / "text.db")
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE x (y)").connection.commit()
    with pytest.raises(FormatError, match="no database of MLflow"):
        SqliteStore(tmp_path / "other.db")
    with pytest.raises(NotFoundError):
        open_mlflow(str(tmp_path / "nix.db"))
    with pytest.raises(NotFoundError, match="no experiments of MLflow"):
        open_mlflow(str(tmp_path))
    with pytest.raises(UnsupportedError):
        open_mlflow("postgresql://host/db")
    for address in ("sqlite://x.db", "sqlite:///", "sqlite:///x.db?mode=rw"):
        with pytest.raises(InvalidValueError):
            sqlite_path(address)
    assert sqlite_path("sqlite:////a/b.db") == Path("/a/b.db")


def test_views_and_damage_are_refused(tmp_path: Path) -> None:
    db = Database(tmp_path / "view.db").execute("DROP TABLE runs")
    endless = "WITH RECURSIVE n(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM n) SELECT x AS run_uuid FROM n"
    with pytest.raises(FormatError):
        SqliteStore(db.execute(f"CREATE VIEW runs AS {endless}").done())
    path = Database(tmp_path / "cut.db").experiment().run().metric("m", [(float(n), n) for n in range(5000)]).done()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises((CorruptError, FormatError)):
        _read(path)


def _read(path: Path) -> None:
    """Read all there is."""
    with closing(SqliteStore(path)) as source:
        for experiment in source.experiments():
            for run in source.runs(experiment):
                list(run.metrics())


def test_the_database_is_not_changed(full: Database, take: Take) -> None:
    path = full.done()
    before = path.read_bytes()
    take(SqliteStore(path))
    assert path.read_bytes() == before
    assert {one.name for one in path.parent.iterdir()} == {"mlflow.db", "mlruns"}


# -- the file store ----------------------------------------------------------------------------------------------------


def _file_store(top: Path) -> Path:
    run = top / "1" / RUN_A

    def write(path: Path, content: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    write(
        top / "1" / "meta.yaml",
        {"name": "files", "experiment_id": "1", "creation_time": T0, "lifecycle_stage": "active"},
    )
    write(top / "1" / "tags" / "team", "a")
    write(top / ".trash" / "2" / "meta.yaml", {"name": "gone", "experiment_id": "2", "creation_time": T0})
    write(
        run / "meta.yaml",
        {
            "run_id": RUN_A, "run_name": "from files", "status": 3, "start_time": T0, "end_time": T0 + 9,
            "user_id": "ana",
            "lifecycle_stage": "active", "artifact_uri": f"file://{run / 'artifacts'}",
        },
    )  # fmt: skip
    write(run / "params" / "a" / "b", "two\nlines")
    write(run / "tags" / "empty", "")
    write(run / "metrics" / "loss", f"{T0} 1.5 0\n{T0 + 1} nan 1\n{T0 + 2} inf 2 ds abc\nrubbish\n{T0 + 3} 7\n")
    write(run / "artifacts" / "x" / "y.txt", "y")
    write(
        run / "inputs" / "i" / "meta.yaml",
        {"source_type": "DATASET", "source_id": "d1", "tags": {"mlflow.data.context": "t"}},
    )
    write(run / "inputs" / MODEL / "meta.yaml", {"source_type": "MODEL", "destination_id": MODEL})
    write(
        top / "1" / "datasets" / "d1" / "meta.yaml",
        {"name": "ds", "digest": "abc", "source_type": "code", "source": "{}"},
    )
    write(run / "outputs" / MODEL / "meta.yaml", {"source_type": "RUN_OUTPUT", "destination_id": MODEL, "step": 3})
    model = top / "1" / "models" / MODEL
    about = {"model_id": MODEL, "name": "clf", "source_run_id": RUN_A, "creation_timestamp": T0, "status": 2}
    write(model / "meta.yaml", {**about, "artifact_location": f"file://{model / 'artifacts'}"})
    write(model / "artifacts" / "MLmodel", "flavors: {}\n")
    write(model / "metrics" / "loss", f"{T0 + 2} inf 2 {RUN_A} ds abc\n")
    registered = top / "models" / "iris"
    write(
        registered / "meta.yaml",
        {"name": "iris", "creation_timestamp": T0, "last_updated_timestamp": T0 + 5, "description": "d"},
    )
    version = {
        "version": 3,
        "source": f"models:/{MODEL}",
        "run_id": RUN_A,
        "creation_timestamp": T0 + 4,
        "current_stage": "Staging",
    }
    write(registered / "version-3" / "meta.yaml", {**version, "last_updated_timestamp": T0 + 5, "description": None})
    write(registered / "version-3" / "tags" / "t", "u")
    write(registered / "aliases" / "best", "3")
    return top


def test_a_logged_model_of_a_run_that_is_gone_keeps_its_id(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    top = _file_store(tmp_path / "mlruns")
    about = {"name": "left", "creation_timestamp": T0, "status": 2, "artifact_location": ""}
    for model_id, maker in (("m-gone", "123"), ("m-odd", "../x"), ("m-none", None)):
        meta = top / "1" / "models" / model_id / "meta.yaml"
        meta.parent.mkdir()
        meta.write_text(json.dumps({**about, "model_id": model_id, "source_run_id": maker}))
    take(FileStore(top), problems=True)
    made = [LoggedModels(tracker).get(model_id) for model_id in ("m-gone", "m-odd", "m-none")]
    assert [(model.source_run_id, model.is_alone) for model in made] == [("123", True), (None, True), (None, True)]


def test_a_file_store_is_kept(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    report = take(FileStore(_file_store(tmp_path / "mlruns")), problems=True)
    assert report.problems == [f"run `{RUN_A}`: line 4 of metric `loss` is no point"]
    run = tracker.get_run(RUN_A)
    assert (run.info.run_name, run.info.status, run.info.end_time) == ("from files", "FINISHED", T0 + 9)
    assert (run.data.params, run.data.tags["empty"]) == ({"a/b": "two\nlines"}, "")
    assert [(step, value) for step, _, value in history(tracker, RUN_A, "loss")] == [
        (0, "1.5"),
        (1, "nan"),
        (2, "inf"),
        (0, "7.0"),
    ]
    assert set(files_of(tracker, RUN_A)) == {"x/y.txt", "clf/MLmodel", f"logged_models/{MODEL}.json"}
    assert run.inputs.dataset_inputs[0].dataset.name == "ds"
    assert [one.model_id for one in run.inputs.model_inputs] == [MODEL]
    assert tracker.repo.state(RUN_A).links == [
        ["loss", 2, T0 + 2, {"model_id": MODEL, "value": "inf", "dataset_name": "ds", "dataset_digest": "abc"}]
    ]
    gone = tracker.get_experiment_by_name("gone")
    assert gone is not None
    assert gone.lifecycle_stage == "deleted"
    version = Registry(tracker).resolve("iris@best")
    assert (version.version, version.current_stage, version.tags["t"]) == ("3", "Staging", "u")
    assert take(FileStore(tmp_path / "mlruns")).runs == 0


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch pwned']\n",
        "a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: &d [*c, *c, *c, *c]\ne: &e [*d, *d, *d, *d]\n"
        + "".join(f"f{n}: [*e, *e, *e, *e]\n" for n in range(500)),
        "[" * 5000,
        "just text",
        "name: a\nname: b\n",
        "\x00",
    ],
)  # fmt: skip
def test_hostile_yaml_is_left_out(
    text: str, tmp_path: Path, take: Take, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    top = _file_store(tmp_path / "mlruns")
    (top / "1" / RUN_A / "meta.yaml").write_text(text)
    report = take(FileStore(top), problems=True)
    assert not (tmp_path / "pwned").exists()
    assert any(RUN_A in problem for problem in report.problems)
    assert RUN_A not in {run.info.run_id for run in tracker.search_runs()}


def test_a_file_store_with_links_and_endless_files(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    top = _file_store(tmp_path / "mlruns")
    (tmp_path / "secret").write_text("secret")
    (top / "1" / RUN_A / "params" / "stolen").symlink_to(tmp_path / "secret")
    (top / "1" / RUN_A / "tags" / "endless").symlink_to("/dev/zero")
    with (top / "1" / RUN_A / "tags" / "huge").open("wb") as file:
        file.truncate(1 << 40)
    report = take(FileStore(top), problems=True)
    run = tracker.get_run(RUN_A)
    assert set(run.data.params) == {"a/b"}
    assert "huge" not in run.data.tags
    assert any("has more than" in problem for problem in report.problems)


def test_prompts_are_registered_models_that_hold_a_text(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    db = Database(tmp_path / "mlflow.db").experiment()
    db.add("registered_models", name="greet", creation_time=T0, last_updated_time=T0)
    db.add("registered_model_tags", name="greet", key="mlflow.prompt.is_prompt", value="true")
    chat = '[{"role": "user", "content": "{{question}}"}]'
    for number, kind, text in ((1, "text", "Hello {{name}}\r\nbye"), (2, "chat", chat)):
        db.add(
            "model_versions", name="greet", version=number, creation_time=T0 + number, last_updated_time=T0 + number,
            current_stage="None", source="prompt-template", status="READY", description=f"number {number}",
        )  # fmt: skip
        for key, value in (("mlflow.prompt.text", text), ("_mlflow_prompt_type", kind)):
            db.add("model_version_tags", name="greet", version=number, key=key, value=value)
    db.add("registered_model_aliases", alias="best", version=2, name="greet")
    path = db.done()
    report = take(SqliteStore(path))
    assert (report.models, report.versions, report.files) == (1, 2, 2)
    registry = Registry(tracker)
    assert registry.get_model("greet").tags["mlflow.prompt.is_prompt"] == "true"
    second = registry.resolve("greet@best")
    assert (second.version, second.description, second.tags["mlflow.prompt.text"]) == ("2", "number 2", chat)
    assert files_of(tracker, str(second.run_id)) == {"model/prompt.json": chat.encode()}
    first = registry.get_version("greet", "1")
    assert files_of(tracker, str(first.run_id)) == {"model/prompt.txt": b"Hello {{name}}\r\nbye"}
    assert take(SqliteStore(path)).versions == 0


def test_what_has_no_place_here_is_counted_and_is_no_trouble(tmp_path: Path, cli: Cli, take: Take) -> None:
    db = Database(tmp_path / "mlflow.db").experiment().run()
    db.execute("CREATE TABLE trace_info (request_id TEXT, experiment_id INTEGER)")
    db.execute("CREATE TABLE evaluation_datasets (dataset_id TEXT)")
    for number in range(1200):
        db.add("trace_info", request_id=f"tr-{number}", experiment_id=1)
    db.add("evaluation_datasets", dataset_id="d")
    path = db.done()
    told = cli("import", "mlflow", path)
    assert (told.status, told.err.splitlines()) == (
        0, ["imported 1 experiment, 1 run", "not taken, for want of a place: 1 evaluation datasets, 1,200 traces"],
    )  # fmt: skip
    assert cli("import", "mlflow", "--json", path).json["passed"] == {"evaluation datasets": 1, "traces": 1200}
    store = _file_store(tmp_path / "mlruns")
    (store / "1" / "traces" / "tr-1").mkdir(parents=True)
    source = FileStore(store)
    assert [source.count(one) for one in source.experiments() if one.key == "1"] == [1]
    assert take(source, dry_run=True, problems=True).passed == {"traces": 1}


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_verb_says_what_it_did(full: Database, cli: Cli) -> None:
    path = full.done()
    told = cli("import", "mlflow", "--dry-run", f"sqlite:///{path}")
    assert (told.status, told.out) == (0, "")
    assert told.err == "would import 2 experiments, 3 runs, 5 metric points, 1 model, 2 versions\n"
    told = cli("import", "mlflow", path)
    assert told.err == "imported 2 experiments, 3 runs, 5 metric points, 4 files (27 B), 1 model, 2 versions\n"
    told = cli("import", "mlflow", path)
    assert told.err == "imported nothing; 3 runs are here already\n"
    assert cli("import", "mlflow", "--json", path).json["here"] == 3
    told = cli("import", "mlflow", "-e", "nix", path)
    assert (told.status, "hint: it has `vision`, `gone`" in told.err) == (1, True)
    assert cli("fsck").status == 0


def test_what_is_left_out_is_named_and_the_status_says_so(tmp_path: Path, cli: Cli) -> None:
    db = Database(tmp_path / "mlflow.db").experiment().run(artifacts="s3://bucket/x")
    told = cli("import", "mlflow", db.done())
    assert told.status == 1
    assert told.err == (
        f"warning: run `{RUN_A}`: its files at `s3://bucket/x` are not on this machine\n"
        "imported 1 experiment, 1 run\nleft out: 1 thing, named above (`gittrack help moving`)\n"
    )


def test_files_that_could_not_be_had_come_later(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    folder = tmp_path / "elsewhere" / RUN_A / "artifacts"
    folder.mkdir(parents=True)
    (folder / "a").write_text("a")
    (tmp_path / "store").mkdir()
    path = Database(tmp_path / "store" / "mlflow.db").experiment().run(artifacts=folder).metric("m", [(1.0, 0)]).done()
    assert len(take(SqliteStore(path), problems=True).problems) == 1
    commit = tracker.get_run(RUN_A).commit
    again = take(SqliteStore(path), problems=True)
    assert (again.runs, again.here, len(again.problems)) == (0, 1, 1)
    assert tracker.get_run(RUN_A).commit == commit
    report = take(SqliteStore(path, [tmp_path / "elsewhere"]))
    assert (report.runs, report.points, report.files) == (1, 0, 1)
    assert files_of(tracker, RUN_A) == {"a": b"a"}
    assert take(SqliteStore(path)).here == 1


def test_what_came_without_files_gets_them_later(full: Database, take: Take, tracker: Tracker) -> None:
    path = full.done()
    report = take(SqliteStore(path), artifacts=False, problems=True)
    assert (report.runs, report.files, report.versions) == (3, 0, 0)
    report = take(SqliteStore(path))
    assert (report.files, report.versions) == (4, 2)
    assert tracker.get_run(RUN_A).outputs.model_outputs[0].path == "model"
    assert {one.version for one in Registry(tracker).versions("iris")} == {"1", "4"}


def test_two_runs_with_one_id_are_said(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    db = Database(tmp_path / "mlflow.db").experiment().run(RUN_A).run(RUN_B)
    for run_id in (RUN_A, RUN_B):
        db.add("tags", key="gittrack.runId", value="f" * 32, run_uuid=run_id)
    report = take(SqliteStore(db.done()), problems=True)
    assert (report.runs, len(report.problems)) == (1, 1)
    assert [run.info.run_id for run in tracker.search_runs()] == ["f" * 32]


def test_a_run_of_ones_own_is_not_touched(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    mine = tracker.create_run(name="mine", capture=False)
    mine.end()
    tracker.flush()
    commit = tracker.get_run(mine.run_id).commit
    db = Database(tmp_path / "mlflow.db").experiment().run(RUN_A).metric("m", [(1.0, 0)])
    db.add("tags", key="gittrack.runId", value=mine.run_id, run_uuid=RUN_A)
    assert take(SqliteStore(db.done())).here == 1
    assert tracker.get_run(mine.run_id).commit == commit


def test_what_was_purged_does_not_come_back(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    source = Database(tmp_path / "mlflow.db").experiment().run(RUN_A).run(RUN_B).done()
    take(SqliteStore(source))
    tracker.delete_run(RUN_A)
    tracker.flush()
    rewrite.purge(tracker.repo, RUN_A)
    report = take(SqliteStore(source), problems=True)
    assert (report.runs, report.here) == (0, 1)
    assert report.problems == [f"run `{RUN_A}`: it was purged here, and stays so"]
    assert [run.info.run_id for run in tracker.search_runs(view=ViewType.ALL)] == [RUN_B]


def test_times_beyond_all_bounds(full: Database, take: Take, tracker: Tracker) -> None:
    full.execute(f"UPDATE runs SET start_time = -5, end_time = {2**63 - 1}")
    full.execute(f"UPDATE model_versions SET creation_time = {2**62}, last_updated_time = -1")
    full.execute("UPDATE registered_models SET creation_time = NULL")
    take(SqliteStore(full.done()))
    run = tracker.get_run(RUN_A)
    assert (run.info.start_time, run.info.end_time) == (0, 253_402_300_799_999)
    assert [one.version for one in Registry(tracker).versions("iris")] == ["1", "4"]
    assert check.fsck(tracker.repo, full=True) == []


def test_a_version_whose_files_no_run_has(full: Database, take: Take, tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / "mlflow" / "mlruns" / "old"
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("key")
    for number, source in ((7, str(folder)), (8, str(tmp_path / "secret")), (9, "s3://x/y")):
        full.add("model_versions", name="iris", version=number, current_stage="None", source=source, creation_time=T0)
    path = full.done()
    report = take(SqliteStore(path), problems=True)
    assert [problem.partition(":")[0] for problem in report.problems] == [
        "version 8 of model `iris`", "version 9 of model `iris`",
    ]  # fmt: skip
    version = Registry(tracker).get_version("iris", 7)
    assert dict(Registry(tracker).manifest(version).files).keys() == {"MLmodel"}
    assert take(SqliteStore(path), problems=True).versions == 0


def test_a_version_that_was_copied_has_the_files_of_the_first(full: Database, take: Take, tracker: Tracker) -> None:
    """Before or behind it, through several models, and from its own folder if the first was deleted."""
    stored = full.path.parent / "mlruns" / "stored"
    stored.mkdir(parents=True)
    (stored / "MLmodel").write_text("flavors: {}\n")
    copies = {
        ("a", 1): "models:/b b/1", ("b b", 1): "models:/iris/1", ("b b", 2): "models:/iris/4",
        ("zoo", 1): "models:/b b/2", ("zoo", 2): "models:/iris/2", ("zoo", 3): "models:/iris/2",
    }  # fmt: skip
    for name in ("a", "b b", "zoo"):
        full.add("registered_models", name=name, creation_time=T0, last_updated_time=T0)
    for (name, number), source in copies.items():
        where = str(stored) if (name, number) == ("zoo", 2) else None
        full.add(
            "model_versions", name=name, version=number, current_stage="None", source=source, creation_time=T0 + number,
            storage_location=where, run_id=None if where else RUN_A,
        )  # fmt: skip
    path = full.done()
    report = take(SqliteStore(path), problems=True)
    assert report.problems == [
        "version 3 of model `zoo`: its files at `models:/iris/2` are not among what was imported"
    ]
    registry = Registry(tracker)
    first, fourth = (registry.get_version("iris", number) for number in (1, 4))
    for name, number, of in (("a", 1, first), ("b b", 1, first), ("b b", 2, fourth), ("zoo", 1, fourth)):
        one = registry.get_version(name, number)
        assert (one.run_id, one.path, one.manifest, one.model_id) == (of.run_id, of.path, of.manifest, of.model_id)
    assert dict(registry.manifest(registry.get_version("zoo", 2)).files).keys() == {"MLmodel"}
    assert take(SqliteStore(path), problems=True).versions == 0


def test_versions_that_were_copied_from_each_other_are_refused(full: Database, take: Take, tracker: Tracker) -> None:
    last = MAX_COPIES + 1
    chain = {("long", n): f"models:/long/{n + 1}" for n in range(1, last + 1)} | {
        ("long", last + 1): f"runs:/{RUN_A}/plots"
    }
    circle = {("round", 1): "models:/round/2", ("round", 2): "models:/round/1", ("round", 3): "models:/round/3"}
    for name in ("long", "round"):
        full.add("registered_models", name=name, creation_time=T0, last_updated_time=T0)
    for (name, number), source in (chain | circle).items():
        full.add(
            "model_versions", name=name, version=number, current_stage="None", source=source, creation_time=T0,
            run_id=RUN_A,
        )  # fmt: skip
    report = take(SqliteStore(full.done()), problems=True)
    assert report.problems == [
        f"version 1 of model `long`: it is a copy of a copy, more than {MAX_COPIES} times over",
        "version 1 of model `round`: what it was copied from leads back to itself: `models:/round/2`",
        "version 2 of model `round`: what it was copied from leads back to itself: `models:/round/1`",
        "version 3 of model `round`: what it was copied from leads back to itself: `models:/round/3`",
    ]
    assert len(Registry(tracker).versions("long")) == last
