"""Tracking URIs: which store is written and read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import gittrack
from gittrack.errors import InvalidValueError, UnsupportedError
from tests.api.conftest import git, make_project

Python = Callable[..., "subprocess.CompletedProcess[str]"]


def record() -> str:
    with gittrack.start_run() as run:
        gittrack.log_metric("m", 1)
    return run.info.run_id


def test_without_an_address_it_is_the_current_folders_repository(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert gittrack.get_tracking_uri() == project.as_uri()
    assert not gittrack.is_tracking_uri_set()
    assert not (project / ".gittrack").exists()  # asking makes nothing
    run_id = record()
    assert (project / ".gittrack").is_dir()
    monkeypatch.chdir("/")
    assert gittrack.get_run(run_id).data.metrics == {"m": 1.0}  # it stays for the life of the process
    assert gittrack.get_tracking_uri() == project.as_uri()


def test_an_address_chooses_another_repository(project: Path, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other")
    here = record()
    for address in (other, str(other), other.as_uri(), f"gittrack://{other}", str(other / "sub"), "../other"):
        gittrack.set_tracking_uri(address)
        assert gittrack.is_tracking_uri_set()
        assert gittrack.get_run(record()).data.metrics == {"m": 1.0}
        assert here not in {run.info.run_id for run in gittrack.search_runs(output_format="list")}
    assert len(gittrack.search_runs(output_format="list")) == 6
    gittrack.set_tracking_uri("")
    assert [run.info.run_id for run in gittrack.search_runs(output_format="list")] == [here]
    gittrack.flush_async_logging()
    assert git(other, "status", "--porcelain") == git(project, "status", "--porcelain") == ""


def test_an_active_run_stays_where_it_was_started(project: Path, tmp_path: Path) -> None:
    with gittrack.start_run() as run:
        gittrack.set_tracking_uri(tmp_path / "other")
        gittrack.log_metric("m", 2)
    gittrack.set_tracking_uri("")
    assert gittrack.get_run(run.info.run_id).data.metrics == {"m": 2.0}
    assert gittrack.get_run(run.info.run_id).info.status == "FINISHED"


def test_child_processes_inherit_the_address(project: Path, tmp_path: Path, python: Python) -> None:
    gittrack.set_tracking_uri(tmp_path / "other")
    python("import gittrack\nwith gittrack.start_run(run_name='child'): pass")
    assert [run.info.run_name for run in gittrack.search_runs(output_format="list")] == ["child"]


@pytest.mark.parametrize("name", ["GITTRACK_TRACKING_URI", "MLFLOW_TRACKING_URI"])
def test_the_environment_gives_the_address(project: Path, tmp_path: Path, python: Python, name: str) -> None:
    where = (tmp_path / "by env").as_uri()
    done = python("import gittrack\ngittrack.log_metric('m', 1)\nprint(gittrack.get_tracking_uri())", **{name: where})
    assert done.stdout.strip() == where
    assert (tmp_path / "by env" / ".gittrack").is_dir()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("http://ana:secret@host:port", InvalidValueError),
        ("https://", InvalidValueError),
        ("sqlite:///mlflow.db", UnsupportedError),
        ("postgresql://u:secret@h/db", UnsupportedError),
        ("databricks", UnsupportedError),
        ("databricks://profile", UnsupportedError),
        ("file://./etc", InvalidValueError),
        ("file://host/etc", InvalidValueError),
        ("file:///tmp/x?a=b", InvalidValueError),
        ("gittrack:///#/../etc", InvalidValueError),
        ("a\0b", InvalidValueError),
    ],
)
def test_addresses_that_name_no_folder_are_refused_at_once(project: Path, address: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        gittrack.set_tracking_uri(address)
    assert "secret" not in str(caught.value)
    assert "hint" in str(caught.value) or isinstance(caught.value, InvalidValueError)
    assert not gittrack.is_tracking_uri_set()
    with pytest.raises(error):
        gittrack.Client(address).search_runs(["0"])
