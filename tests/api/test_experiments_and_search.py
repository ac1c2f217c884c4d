"""Experiments and searches of the fluent API."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pandas as pd
import pytest

import gittrack
from gittrack.entities import ViewType
from gittrack.errors import InvalidValueError, NotFoundError, QuerySyntaxError, StateError, UnsupportedError


def test_an_experiment_is_made_and_chosen(project: Path) -> None:
    experiment = gittrack.set_experiment("churn")
    assert experiment.name == "churn"
    assert gittrack.set_experiment("churn") == experiment
    with gittrack.start_run() as run:
        pass
    assert run.info.experiment_id == experiment.experiment_id
    gittrack.set_experiment(experiment_id="0")
    with gittrack.start_run() as run:
        pass
    assert run.info.experiment_id == "0"
    with gittrack.start_run(experiment_id=experiment.experiment_id) as run:
        pass
    assert run.info.experiment_id == experiment.experiment_id


def test_the_same_name_is_the_same_experiment_in_every_clone(project: Path, tmp_path: Path) -> None:
    here = gittrack.create_experiment("churn")
    gittrack.set_tracking_uri(tmp_path / "other")
    assert gittrack.create_experiment("churn") == here


def test_what_cannot_be_chosen(project: Path) -> None:
    with pytest.raises(InvalidValueError, match="either"):
        gittrack.set_experiment()
    with pytest.raises(InvalidValueError, match="either"):
        gittrack.set_experiment("a", "0")
    with pytest.raises(NotFoundError):
        gittrack.set_experiment(experiment_id="12345")
    with pytest.raises(InvalidValueError, match="experiment name"):
        gittrack.set_experiment("")
    with pytest.raises(UnsupportedError):
        gittrack.set_experiment("a", trace_location=object())
    experiment_id = gittrack.create_experiment("gone")
    gittrack.delete_experiment(experiment_id)
    with pytest.raises(StateError, match="deleted"):
        gittrack.set_experiment("gone")
    with pytest.raises(StateError, match="deleted"):
        gittrack.set_experiment(experiment_id=experiment_id)
    gittrack.restore_experiment(experiment_id)
    assert gittrack.set_experiment("gone").experiment_id == experiment_id


def test_tags_of_the_chosen_experiment(project: Path) -> None:
    experiment = gittrack.set_experiment("e")
    gittrack.set_experiment_tag("a", 1)
    gittrack.set_experiment_tags({"b": 2, "c": 3})
    gittrack.delete_experiment_tag("b")
    assert gittrack.get_experiment(experiment.experiment_id).tags == {"a": "1", "c": "3"}
    with pytest.raises(InvalidValueError, match="20001 characters"):
        gittrack.set_experiment_tags({"good": 1, "long": "x" * 20001})
    assert "good" not in gittrack.get_experiment(experiment.experiment_id).tags


def test_searching_experiments(project: Path) -> None:
    for name, tags in (("a", None), ("b", None), ("ab", {"k": "v"}), ("bb", {"k": "V"})):
        gittrack.create_experiment(name, tags=tags)
    found = gittrack.search_experiments(filter_string="tags.k ILIKE '%v'", order_by=["name"])
    assert [e.name for e in found] == ["ab", "bb"]
    assert len(gittrack.search_experiments()) == 5
    assert len(gittrack.search_experiments(max_results=2)) == 2
    gittrack.delete_experiment(found[0].experiment_id)
    assert [e.name for e in gittrack.search_experiments(ViewType.DELETED_ONLY)] == ["ab"]
    with pytest.raises(QuerySyntaxError):
        gittrack.search_experiments(filter_string="name ==")


@pytest.fixture
def three(project: Path) -> list[str]:
    """Three runs in Default, newest last, and one elsewhere."""
    ids = []
    for index in range(3):
        with gittrack.start_run(run_name=f"r{index}") as run:
            gittrack.log_param("index", index)
            gittrack.log_metric("m", index)
            if index == 1:
                gittrack.log_metric("only", math.nan)
                gittrack.set_tag("t", "x")
        ids.append(run.info.run_id)
    with gittrack.start_run(experiment_id=gittrack.create_experiment("other"), run_name="elsewhere"):
        pass
    return ids


def test_a_frame_of_runs(three: list[str]) -> None:
    frame = gittrack.search_runs(order_by=["params.index DESC"])
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns[:6]) == ["run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time"]
    assert frame["run_id"].tolist() == three[::-1]
    assert frame["metrics.m"].tolist() == [2.0, 1.0, 0.0]
    assert frame["params.index"].tolist() == ["2", "1", "0"]
    assert frame["metrics.only"].isna().all()
    assert frame["metrics.only"].dtype == float
    assert frame["tags.t"].isna().tolist() == [True, False, True]
    assert str(frame["start_time"].dt.tz) == "UTC"
    assert (frame["end_time"] >= frame["start_time"]).all()
    assert frame["start_time"][0].year >= 2024
    kinds = [name.split(".")[0] for name in frame.columns[6:]]
    assert kinds == sorted(kinds)


def test_a_frame_with_a_running_run_and_an_empty_one(three: list[str]) -> None:
    with gittrack.start_run():
        frame = gittrack.search_runs(filter_string="status = 'RUNNING'")
        assert frame["end_time"].isna().tolist() == [True]
    empty = gittrack.search_runs(filter_string="params.index = 'no'")
    assert (len(empty), list(empty.columns)) == (0, list(frame.columns[:6]))


def test_where_runs_are_searched(three: list[str], caplog: pytest.LogCaptureFixture) -> None:
    def names(**arguments: object) -> set[str]:
        found = gittrack.search_runs(output_format="list", **arguments)  # type: ignore[call-overload]
        return {run.info.run_name for run in found}

    other = gittrack.get_experiment_by_name("other")
    assert other is not None
    assert names() == {"r0", "r1", "r2"}
    assert names(search_all_experiments=True) == {"r0", "r1", "r2", "elsewhere"}
    assert names(experiment_ids=[other.experiment_id]) == {"elsewhere"}
    with caplog.at_level(logging.WARNING, "gittrack"):
        assert names(experiment_names=["other", "unknown", None]) == {"elsewhere"}
    assert "`unknown`" in caplog.text
    assert names(experiment_names=["unknown"]) == set()
    with pytest.raises(InvalidValueError, match="only one"):
        names(experiment_ids=["0"], experiment_names=["other"])
    gittrack.set_experiment("other")
    assert names() == {"elsewhere"}


def test_how_many_runs_are_found(three: list[str]) -> None:
    assert len(gittrack.search_runs(max_results=2, output_format="list")) == 2
    assert len(gittrack.search_runs(max_results=2)) == 2
    gittrack.delete_run(three[0])
    deleted = gittrack.search_runs(run_view_type=ViewType.DELETED_ONLY, output_format="list")
    assert [run.info.run_id for run in deleted] == [three[0]]


def test_a_filter_with_an_error_says_where(three: list[str]) -> None:
    with pytest.raises(QuerySyntaxError, match="column") as caught:
        gittrack.search_runs(filter_string="metrics.m >> 1")
    assert caught.value.column >= 11
    with pytest.raises(InvalidValueError, match="output format"):
        gittrack.search_runs(output_format="csv")  # type: ignore[call-overload]


def test_the_filter_grammar_reaches_the_api(three: list[str]) -> None:
    found = gittrack.search_runs(filter_string="metrics.m > 0 AND tags.t = 'x'", output_format="list")
    assert [run.info.run_id for run in found] == [three[1]]
    found = gittrack.search_runs(filter_string="params.index > 0.5 OR metrics.m < 0.5", output_format="list")
    assert len(found) == 3
