"""A repository to import into, and its command line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.cli.main import run
from gittrack.convert.importer import Importer
from gittrack.convert.report import Report
from gittrack.convert.source import Source
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from tests.conftest import MakeRepo, Sandbox

Cli = Callable[..., "Outcome"]


class Outcome:
    """What a command line gave."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        """Its output."""
        return json.loads(self.out)


@pytest.fixture
def sandbox(make_repo: MakeRepo) -> Sandbox:
    """An ordinary repository."""
    return make_repo("ordinary")


@pytest.fixture
def cli(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """``cli("import", "csv", path)``, in the sandbox."""
    monkeypatch.chdir(sandbox.path)

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        status = run([str(word) for word in words])
        told = capsys.readouterr()
        return Outcome(status, told.out, told.err)

    return call


@pytest.fixture
def tracker(sandbox: Sandbox) -> Iterator[Tracker]:
    """The store of the sandbox."""
    opened = Tracker(Repo.find(sandbox.path, create=True), strict=True)
    yield opened
    opened.close()


@pytest.fixture
def take(tracker: Tracker) -> Callable[..., Report]:
    """``take(source)``: import it; what is left out fails the test unless ``problems`` says that some is."""

    def take(source: Source, *, problems: bool = False, **options: Any) -> Report:
        report = Importer(tracker, source, **options).run()
        source.close()
        assert problems or not report.problems
        return report

    return take


def files_of(tracker: Tracker, run_id: str) -> dict[str, bytes]:
    """The artifacts of a run, by path."""
    found = tracker.repo.artifacts(run_id)
    return {path: tracker.repo.objects.read(one.digest) for path, one in found.items()}


def history(tracker: Tracker, run_id: str, key: str) -> list[tuple[int, int, str]]:
    """The points of a metric, with NaN as something that equals itself."""
    return [(one.step, one.timestamp, repr(one.value)) for one in tracker.metric_history(run_id, key)]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
