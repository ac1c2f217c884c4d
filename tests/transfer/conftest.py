"""Clones with runs, and the remote between them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gittrack.store.repo import Repo
from gittrack.sync import depots
from gittrack.sync.artifacts import Item
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox, run_git
from tests.transfer.fake import FakeLfs, fake

#: Larger than what is held in memory, so that it arrives in a part file.
LARGE = bytes(range(256)) * 12_000


@dataclass(frozen=True)
class Clone:
    """A clone and its store."""

    path: Path
    tracker: Tracker

    def git(self, *args: str) -> str:
        return run_git(self.path, *args)

    def put(self, *contents: bytes) -> list[Item]:
        """Store bytes as objects."""
        return [Item(*self.tracker.repo.objects.put_bytes(content)) for content in contents]

    def has(self, items: list[Item]) -> list[bool]:
        return [self.tracker.repo.objects.has(item.digest, item.size) for item in items]

    def temporaries(self) -> list[Path]:
        folder = self.tracker.repo.objects.root / "tmp"
        return sorted(folder.iterdir()) if folder.exists() else []


MakeClone = Callable[[str], Clone]


@pytest.fixture
def remote(git_repo: Sandbox, tmp_path: Path) -> Path:
    """A bare repository to share through."""
    path = tmp_path / "remote.git"
    git_repo.git("clone", "--quiet", "--bare", ".", str(path))
    return path


@pytest.fixture
def make_clone(remote: Path, tmp_path: Path) -> MakeClone:
    """``make_clone(name)`` clones the remote."""

    def make(name: str) -> Clone:
        run_git(tmp_path, "clone", "--quiet", str(remote), name)
        tracker = Tracker(Repo.find(tmp_path / name, create=True), strict=True)
        return Clone(tmp_path / name, tracker)

    return make


@pytest.fixture
def ana(make_clone: MakeClone) -> Clone:
    return make_clone("ana")


@pytest.fixture
def ben(make_clone: MakeClone) -> Clone:
    return make_clone("ben")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLfs]:
    """An LFS server that does what a test tells it to."""
    monkeypatch.setattr(depots, "_FIRST_PAUSE_S", 0.01)
    with fake() as running:
        yield running


@pytest.fixture
def ben_at_server(make_clone: MakeClone, server: FakeLfs) -> Clone:
    """A clone whose remote is the server."""
    clone = make_clone("ben")
    clone.git("remote", "set-url", "origin", f"{server.url}/team/project.git")
    return clone
