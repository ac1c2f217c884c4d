"""Offline runs of Weights & Biases: those that the real package writes, and small ones made here."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gittrack.convert.report import Report
from gittrack.convert.wandb import OfflineRuns
from gittrack.errors import NotFoundError
from gittrack.track.runs import Tracker
from gittrack.types import Run
from tests.convert.conftest import Cli, files_of, history
from tests.convert.stores import items, message, wandb_log

Take = Callable[..., Report]
SECONDS = 1_700_000_000


def about(**config: object) -> bytes:
    """The record that begins a run."""
    run_id, name = "abc", "first"
    run = message((1, run_id), (2, "team"), (3, "proj"), (6, "group"), (8, name), (9, "a note"), (10, "x"), (10, "y"))
    return message((17, run + message((17, message((1, SECONDS), (2, 500_000_000)))) + message((4, items(config)))))


def row(step: int, **values: object) -> bytes:
    """A row of the history."""
    return message((2, items({"_step": step, "_timestamp": SECONDS + step, "_runtime": step, **values})))


def end(code: int) -> bytes:
    """The record that ends a run."""
    return message((18, message((1, code))))


def write(top: Path, *records: bytes, name: str = "offline-run-20231114_221320-abc") -> Path:
    """A run's folder; the one that ``wandb`` is in is returned."""
    folder = top / "wandb" / name
    (folder / "files").mkdir(parents=True, exist_ok=True)
    (folder / f"run-{name.rpartition('-')[2]}.wandb").write_bytes(wandb_log(records))
    return top


def only(tracker: Tracker) -> Run:
    """The run."""
    (run,) = tracker.search_runs()
    return run


def test_everything_is_kept(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    config = {"lr": 0.1, "net": {"depth": 3, "act": "relu"}, "layers": [1, 2], "_wandb": {"x": 1}}
    statistics = message((7, message((2, message((1, SECONDS + 1)))) + items({"cpu": 12.5}, 3)))
    git = message((26, message((6, "train.py"), (13, "ana"), (9, message((1, "git@x:y"), (2, "f" * 40))))))
    write(
        tmp_path,
        about(**config),
        git,
        row(0, loss=1.0, deep={"a": 1, "b": {"c": 2}}),
        row(1, loss="NaN", text="hello", picture={"_type": "image-file", "path": "media/a.png"}),
        row(
            2, **{"t._type": "table-file", "t.path": "media/t.json", "t.nrows": 7, "lost._type": "x", "lost.path": "y"}
        ),
        row(3, **{"h._type": "histogram", "h.bins": [1, 2], "deep.i._type": "image-file", "deep.i.width": 3}),
        row(5, loss="Infinity"),
        statistics,
        message((3, items({"best": 0.9, "loss": 7, "_runtime": 3}))),
        message((5, items({"late": True}))),
        end(0),
    )
    files = tmp_path / "wandb" / "offline-run-20231114_221320-abc" / "files"
    (files / "media").mkdir()
    for name in ("output.log", "media/a.png", "media/t.json"):
        (files / name).write_text("hi")
    (files / "link").symlink_to("/etc/passwd")
    (tmp_path / "wandb" / "latest-run").symlink_to("offline-run-20231114_221320-abc")
    report = take(OfflineRuns(tmp_path), problems=True)
    assert report.problems == [
        "run `abc`: `text` has values that are no numbers", "run `abc`: its file `y` is not there",
    ]  # fmt: skip
    assert report.passed == {"values of type `histogram`": 1, "values of type `image-file`": 1}
    run = only(tracker)
    experiment = tracker.get_experiment_by_name("proj")
    assert experiment is not None
    assert run.info.experiment_id == experiment.experiment_id
    assert (run.info.run_name, run.info.status, run.info.user_id) == ("first", "FINISHED", "ana")
    assert (run.info.start_time, run.info.end_time) == (SECONDS * 1000 + 500, SECONDS * 1000 + 5000)
    assert run.data.params == {"lr": "0.1", "net.depth": "3", "net.act": "relu", "layers": "[1, 2]", "late": "true"}
    assert history(tracker, run.info.run_id, "loss") == [
        (0, SECONDS * 1000, "1.0"), (1, SECONDS * 1000 + 1000, "nan"), (5, SECONDS * 1000 + 5000, "inf"),
    ]  # fmt: skip
    assert set(run.data.metrics) == {"loss", "deep.a", "deep.b.c", "best", "system/cpu"}
    assert run.data.tags.items() >= {
        "wandb.group": "group", "wandb.tags": "x,y", "mlflow.note.content": "a note", "mlflow.source.name": "train.py",
        "mlflow.source.git.commit": "f" * 40,
    }.items()  # fmt: skip
    assert files_of(tracker, run.info.run_id) == dict.fromkeys(("output.log", "media/a.png", "media/t.json"), b"hi")
    assert take(OfflineRuns(tmp_path), problems=True).runs == 0


def test_records_that_cross_blocks(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    rows = [row(step, value=step, **{f"m{n}": n for n in range(40)}) for step in range(300)]
    big = message((5, items({"big": "x" * 5000, "bigger": "y" * 100_000})))
    write(tmp_path, about(), *rows[:150], big, *rows[150:], end(1))
    report = take(OfflineRuns(tmp_path))
    run = only(tracker)
    assert report.points == 300 * 41
    assert (run.info.status, len(run.data.params["big"]), len(run.data.params["bigger"])) == ("FAILED", 5000, 6000)


def test_a_resumed_run_is_one_run_and_goes_on(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    write(tmp_path, about(), row(0, loss=1.0))
    take(OfflineRuns(tmp_path))
    assert only(tracker).info.status == "KILLED"  # it does not say how it ended
    write(tmp_path, about(), row(1, loss=0.5), end(0), name="offline-run-20231115_221320-abc")
    report = take(OfflineRuns(tmp_path))
    assert (report.runs, report.points) == (1, 1)
    run = only(tracker)
    assert run.info.status == "FINISHED"
    assert [step for step, _, _ in history(tracker, run.info.run_id, "loss")] == [0, 1]


@pytest.mark.parametrize("where", ["", "wandb", "wandb/offline-run-20231114_221320-abc"])
def test_any_of_the_folders_can_be_named(where: str, tmp_path: Path, take: Take) -> None:
    write(tmp_path, about(), row(0, a=1), end(0))
    assert take(OfflineRuns(tmp_path / where)).points == 1


@pytest.mark.parametrize("at", range(7, 200, 13))
def test_damage_ends_a_file_and_is_said(at: int, tmp_path: Path, take: Take) -> None:
    folder = write(tmp_path, about(), row(0, a=1), row(1, a=2), row(2, a=3), end(0))
    (path,) = folder.glob("wandb/*/*.wandb")
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)
    report = take(OfflineRuns(tmp_path), problems=True)
    assert report.points < 3
    if not report.problems:  # a length that grew: as of a file that is being written
        assert report.runs <= 1


def test_what_is_no_run_is_said(tmp_path: Path, take: Take) -> None:
    with pytest.raises(NotFoundError, match="no runs of wandb"):
        OfflineRuns(tmp_path)
    write(tmp_path, row(0, a=1))
    folder = tmp_path / "wandb" / "offline-run-20231114_000000-xyz"
    folder.mkdir()
    (folder / "run-xyz.wandb").write_bytes(b":W&B\xe1\xbe\x09" + b"future")
    report = take(OfflineRuns(tmp_path), problems=True)
    assert report.runs == 0
    assert len(report.problems) == 2 + 1
    assert any("a version that is not known here" in problem for problem in report.problems)


def test_the_verb(tmp_path: Path, cli: Cli) -> None:
    write(tmp_path, about(), row(0, a=1), end(0))
    told = cli("import", "wandb", tmp_path, "-e", "other")
    assert (told.status, told.err) == (0, "imported 1 experiment, 1 run, 1 metric points\n")
    assert cli("log", "--json").json[0]["data"]["metrics"] == {"a": 1.0}


@pytest.mark.peer
def test_what_the_real_package_writes(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    pytest.importorskip("wandb", reason="reads what wandb writes")
    program = """
import wandb
config = {"lr": 0.1, "n": {"x": 1}}
run = wandb.init(project="proj", name="first", group="g", tags=["a", "b"], notes="a note", config=config)
for step in range(300):
    run.log({"loss": 1 / (step + 1), "nan": float("nan"), "inf": float("inf"), "deep": {"a": step}})
table = wandb.Table(columns=["a"], data=[[1]])
run.log({"deep": {"t": table}, "h": wandb.Histogram([1, 2]), "w": wandb.Html("<b>x</b>")})
run.summary["best"] = 0.9
run.finish()
wandb.init(project="proj", name="second").finish(exit_code=3)
"""
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = take(OfflineRuns(tmp_path))
    assert (report.runs, report.passed) == (2, {"values of type `histogram`": 1})
    runs = {run.info.run_name: run for run in tracker.search_runs()}
    first = runs["first"]
    assert (first.info.status, runs["second"].info.status) == ("FINISHED", "FAILED")
    assert first.data.params == {"lr": "0.1", "n.x": "1"}
    loss = list(tracker.metric_history(first.info.run_id, "loss"))
    assert [(one.step, one.value) for one in loss] == [(step, 1 / (step + 1)) for step in range(300)]
    assert repr(first.data.metrics["nan"]) == "nan"
    assert first.data.metrics["inf"] == float("inf")
    assert (first.data.metrics["deep.a"], first.data.metrics["best"]) == (299.0, 0.9)
    assert (first.data.tags["wandb.tags"], first.data.tags["mlflow.note.content"]) == ("a,b", "a note")
    logged = {key for key in first.data.metrics if not key.startswith("system/")}
    assert logged == {"loss", "nan", "inf", "deep.a", "best"}  # nothing of tables and pictures
    files = files_of(tracker, first.info.run_id)
    assert "requirements.txt" in files
    assert {name.split("/")[1] for name in files if name.startswith("media/")} == {"table", "html"}
    assert json.loads(json.dumps(take(OfflineRuns(tmp_path)).here)) == 2
