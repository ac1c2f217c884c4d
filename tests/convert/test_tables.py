"""CSV in, and CSV, JSON and Parquet out."""

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gittrack.convert.csv_runs import CsvFiles
from gittrack.convert.report import Report
from gittrack.convert.tables import from_time, guarded, to_time, unguarded
from gittrack.errors import FormatError
from gittrack.track.runs import Tracker
from gittrack.types import Metric
from tests.convert.conftest import Cli, history

Take = Callable[..., Report]
T0 = 1_700_000_000_000


def fill(tracker: Tracker) -> str:
    """Two runs and a deleted one; the first one's id."""
    experiment = tracker.create_experiment("vision")
    first = tracker.create_run(experiment, name="=cmd|' /C calc'!A0", start_time=T0, user_id="ana", capture=False)
    first.log_params({"lr": 0.1, "formula": "=1+1", "quoted": "'=x", "text": 'a,"b"\nc'})
    odd = [(0.5, 0), (math.nan, 1), (math.inf, 2), (-1e-300, -3)]
    first.log_metrics([Metric("loss", value, T0 + step, step) for value, step in odd])
    first.set_tags({"k": "+1"})
    first.end("FINISHED", T0 + 5000)
    second = tracker.create_run(experiment, name="second", start_time=T0 + 1, capture=False)
    second.log_metrics([Metric("acc", 0.25, T0, 0)])
    second.end("FAILED", T0 + 6000)
    third = tracker.create_run(name="third", start_time=T0 + 2, capture=False)
    third.end("FINISHED", T0 + 3)
    tracker.delete_run(third.run_id)
    tracker.flush()
    return first.run_id


# -- out ---------------------------------------------------------------------------------------------------------------


def test_runs_as_csv(tracker: Tracker, cli: Cli) -> None:
    run_id = fill(tracker)
    told = cli("export", "csv", "-")
    assert (told.status, told.err) == (0, "exported 2 runs\n")
    first, second = csv.DictReader(told.out.splitlines(keepends=True))
    assert (first["run_id"], first["experiment"], first["status"], first["user"]) == (
        run_id,
        "vision",
        "FINISHED",
        "ana",
    )
    assert (first["start_time"], first["end_time"]) == (
        "2023-11-14T22:13:20.000+00:00",
        "2023-11-14T22:13:25.000+00:00",
    )
    assert first["name"] == "'=cmd|' /C calc'!A0"
    assert (first["params.formula"], first["params.quoted"], first["tags.k"]) == ("'=1+1", "''=x", "+1")
    assert (first["params.lr"], first["params.text"]) == ("0.1", 'a,"b"\nc')
    assert (first["metrics.loss"], first["metrics.acc"], second["metrics.acc"]) == ("inf", "", "0.25")
    assert len(list(csv.DictReader(cli("export", "csv", "-", "--all").out.splitlines(keepends=True)))) == 3
    assert (
        len(list(csv.DictReader(cli("export", "csv", "-", "-f", "metrics.acc > 0").out.splitlines(keepends=True)))) == 1
    )


def test_points_as_csv(tracker: Tracker, cli: Cli, tmp_path: Path) -> None:
    run_id = fill(tracker)
    told = cli("export", "csv", "--history", tmp_path / "points.csv")
    assert (told.status, told.out, told.err) == (0, "", f"exported 5 points into `{tmp_path / 'points.csv'}`\n")
    rows = list(csv.reader((tmp_path / "points.csv").read_text().splitlines()))
    assert rows[0] == ["run_id", "key", "step", "timestamp", "value"]
    assert rows[1] == [run_id, "loss", "-3", "2023-11-14T22:13:19.997+00:00", "-1e-300"]
    assert [row[4] for row in rows[2:5]] == ["0.5", "nan", "inf"]


def test_json(tracker: Tracker, cli: Cli) -> None:
    run_id = fill(tracker)
    first, second = cli("export", "json", "--history", "-").json
    assert (first["info"]["run_id"], first["data"]["params"]["lr"], first["data"]["metrics"]) == (
        run_id,
        "0.1",
        {"loss": "Infinity"},
    )
    assert first["history"]["loss"][2] == [1, T0 + 1, "NaN"]
    assert "history" not in cli("export", "json", "-").json[0]
    assert cli("export", "json", "-", "-f", "metrics.acc > 1").json == []
    assert second["info"]["status"] == "FAILED"


@pytest.mark.peer
def test_parquet(tracker: Tracker, cli: Cli, tmp_path: Path) -> None:
    run_id = fill(tracker)
    parquet = pytest.importorskip("pyarrow.parquet", reason="writes Parquet")
    assert cli("export", "parquet", tmp_path / "runs.parquet").status == 0
    table = parquet.read_table(tmp_path / "runs.parquet")
    row = table.to_pylist()[0]
    assert (row["run_id"], row["name"], row["params.lr"]) == (run_id, "=cmd|' /C calc'!A0", "0.1")
    assert (row["metrics.loss"], row["metrics.acc"]) == (math.inf, None)
    assert row["start_time"].isoformat() == "2023-11-14T22:13:20+00:00"
    assert cli("export", "parquet", "--history", tmp_path / "points.parquet").status == 0
    assert parquet.read_table(tmp_path / "points.parquet").num_rows == 5


def test_parquet_without_pyarrow_is_said(
    tracker: Tracker, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    fill(tracker)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    told = cli("export", "parquet", tmp_path / "runs.parquet")
    assert (told.status, "pip install pyarrow" in told.err) == (1, True)
    assert list(tmp_path.glob("*parquet*")) == []


def test_a_file_that_exists_is_not_replaced_unasked(tracker: Tracker, cli: Cli, tmp_path: Path) -> None:
    fill(tracker)
    target = tmp_path / "runs.csv"
    target.write_text("mine")
    assert cli("export", "csv", target).status == 1
    assert target.read_text() == "mine"
    assert cli("export", "csv", "--force", target).status == 0
    assert target.read_text().startswith("run_id,")
    assert cli("export", "csv", tmp_path / "no" / "folder.csv").status == 1
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["runs.csv"]


# -- in ----------------------------------------------------------------------------------------------------------------


def test_what_is_exported_comes_back_whole(
    tracker: Tracker, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = fill(tracker)
    for name, words in {"runs.csv": ["--all"], "points.csv": ["--all", "--history"]}.items():
        assert cli("export", "csv", *words, tmp_path / name).status == 0
    assert cli("import", "csv", tmp_path / "runs.csv", tmp_path / "points.csv").err.startswith(
        "imported nothing; 3 runs are"
    )
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    told = cli("import", "csv", tmp_path / "runs.csv", tmp_path / "points.csv")
    assert (told.status, told.err) == (0, "imported 1 experiment, 3 runs, 5 metric points\n")
    one, other = (json.loads(cli("-C", folder, "show", run_id, "--json").out)
                  for folder in (tracker.repo.paths.main_root, tmp_path / "other"))  # fmt: skip
    for run in (one, other):
        run["data"]["tags"] = {k: v for k, v in run["data"]["tags"].items() if not k.startswith("gittrack.")}
    assert other["data"] == one["data"]
    assert {k: v for k, v in other["info"].items() if k != "artifact_uri"} == {
        k: v for k, v in one["info"].items() if k != "artifact_uri"
    }
    assert cli("import", "csv", tmp_path / "runs.csv", tmp_path / "points.csv").err == (
        "imported nothing; 3 runs are here already\n"
    )


def test_a_row_per_run(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text("\ufefflr,layers,acc,metrics.loss,name\n0.1,3;3,0.5,1e-3,a\n0.2,,0.6,nan,b\n0.2,,0.6,nan,b\n")
    os.utime(path, (T0 / 1000, T0 / 1000))
    report = take(CsvFiles([path], "sweep"))
    assert (report.runs, report.points) == (3, 9)  # the same row twice is two runs
    runs = {run.info.run_name: run for run in tracker.search_runs()}
    assert runs["a"].data.params == {"layers": "3;3"}
    assert runs["a"].data.metrics == {"lr": 0.1, "acc": 0.5, "loss": 1e-3}
    assert (runs["a"].info.start_time, runs["a"].info.end_time) == (T0, T0)
    path.write_text(path.read_text() + "0.3,1,0.7,1,c\n")
    assert take(CsvFiles([path], "sweep")).runs == 1


def test_a_row_per_step(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("epoch\tloss\tphase\ttime\n0\t1.5\tfit\t1700000000\n1\t1.0\tfit\t1700000001.5\n2\t\tfit\t\n")
    assert take(CsvFiles([path], "train")).points == 2
    (run,) = tracker.search_runs()
    assert history(tracker, run.info.run_id, "loss") == [(0, T0, "1.5"), (1, T0 + 1500, "1.0")]
    assert (run.info.run_name, run.data.params) == ("train", {"phase": "fit"})
    path.write_text(path.read_text() + "3\t0.5\tfit\t1700000003\n")
    report = take(CsvFiles([path], "train"))
    assert (report.runs, report.points) == (1, 1)


def test_several_runs_by_step(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    path = tmp_path / "log.csv"
    path.write_text("run,step,loss,note\na,0,1,x\nb,0,2,y\na,1,3,z\n")
    report = take(CsvFiles([path], "e"), problems=True)
    assert report.problems == [f"`{path}`: column `note` has values that are no numbers"]
    assert {run.info.run_name: run.data.metrics["loss"] for run in tracker.search_runs()} == {"a": 3.0, "b": 2.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no header"),
        ("\n", "no header"),
        ("a,a\n1,2\n", "column twice"),
        ('a,b\n"1,2\n', "no CSV"),
        ("a\n" + "x" * 200_000 + "\n", "no CSV"),
    ],
)
def test_what_is_no_table_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(FormatError, match=said):
        CsvFiles([tmp_path / "x.csv"], "x")


def test_bad_cells_are_left_out_and_said(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    path = tmp_path / "x.csv"
    path.write_text("run_id,metrics.a,params.../p,status,start_time\n../../etc,1,v,ODD,never\n,two,v,FINISHED,1e99\n")
    report = take(CsvFiles([path], "x"), problems=True)
    assert (report.runs, len(report.problems)) == (2, 4)
    assert all(len(run.info.run_id) == 32 for run in tracker.search_runs())


# -- cells -------------------------------------------------------------------------------------------------------------


@given(st.text(st.sampled_from("'=+-@\t\rab1.\n,\" "), max_size=8))
def test_a_guarded_cell_comes_back_and_is_no_formula(text: str) -> None:
    cell = guarded(text)
    assert unguarded(cell) == text
    assert not cell.startswith(("=", "@", "\t", "\r"))


@given(st.integers(0, 253_402_300_799_999))
def test_times_come_back(milliseconds: int) -> None:
    assert from_time(to_time(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000", T0), ("1700000000000", T0), ("2023-11-14T22:13:20Z", T0),
        ("2023-11-14 22:13:20.5+00:00", T0 + 500),
        ("2023-11-14T23:13:20+01:00", T0), ("", None), ("soon", None), ("nan", None), ("1e400", None),
    ],
)  # fmt: skip
def test_forms_of_times(text: str, expected: int | None) -> None:
    assert from_time(text) == expected
