"""Clones of one project and the bare repository that they share through."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gittrack.registry.registry import Registry
from gittrack.store.git import GitStore
from gittrack.store.pack import Batch
from gittrack.store.refs import RefUpdate
from gittrack.store.repo import Repo
from gittrack.sync import pull as pulling, push as pushing, remotes
from gittrack.sync.pull import PullReport
from gittrack.sync.push import PushReport
from gittrack.track.runs import Tracker
from tests.conftest import MakeRepo, Sandbox, run_git

_opened: list[Desk] = []
MODEL = {"MLmodel": b"flavors: {}\n", "weights/w.bin": b"\x00\x01"}


@dataclass
class Desk:
    """Somebody's clone, opened as a process has it.

    Attributes:
        sandbox: The clone.
        prefix: The ``gittrack.refPrefix`` setting.
    """

    sandbox: Sandbox
    prefix: str = ""
    _registry: Registry | None = field(default=None, repr=False)

    @property
    def registry(self) -> Registry:
        """Its registry, opened on first use."""
        if self._registry is None:
            self._registry = Registry(Tracker(Repo.find(self.sandbox.path, create=True), strict=True))
            _opened.append(self)
        return self._registry

    @property
    def tracker(self) -> Tracker:
        """Its runs."""
        return self.registry.tracker

    @property
    def repo(self) -> Repo:
        """Its store."""
        return self.registry.repo

    def close(self) -> None:
        """End the process, as it were: what is used next is opened anew."""
        if self._registry is not None:
            self._registry.tracker.close()
            self._registry = None

    def run(
        self,
        name: str = "trained",
        acc: float = 0.9,
        experiment: str = "Default",
        files: Mapping[str, bytes] | None = None,
    ) -> str:
        """A finished, committed run; its id."""
        found = self.tracker.get_experiment_by_name(experiment)
        at = found.experiment_id if found else self.tracker.create_experiment(experiment)
        run = self.tracker.create_run(at, name=name, capture=False)
        run.log_params({"lr": "0.1"})
        run.log_metric("acc", acc, 0, 1_000)
        for path, data in (files or {}).items():
            run.log_bytes(data, path)
        run.end()
        self.tracker.flush()
        return run.run_id

    def model(self, name: str = "iris", acc: float = 0.9, extra: bytes = b"") -> str:
        """A run with a model, registered under ``name``; the version."""
        run = self.tracker.create_run(name="trained", capture=False)
        run.log_metric("acc", acc, 0, 1_000)
        for path, data in {**MODEL, "extra": extra}.items():
            run.log_bytes(data, f"model/{path}")
        run.end()
        self.tracker.flush()
        return self.registry.register(name, run.run_id, "model").version

    def push(self, remote: str | None = None, **options: object) -> PushReport:
        """``gittrack push``."""
        return pushing.push(self.registry, self.remote(remote), **options)  # type: ignore[arg-type]

    def pull(self, remote: str | None = None, **options: object) -> PullReport:
        """``gittrack pull``."""
        return pulling.pull(self.registry, self.remote(remote), **options)  # type: ignore[arg-type]

    def remote(self, name: str | None = None) -> remotes.Remote:
        """A remote of this clone."""
        return remotes.choose(self.repo, name, self.prefix)

    def names(self) -> dict[str, str]:
        """Names of the runs by id, deleted ones apart."""
        return {run.info.run_id: run.info.run_name for run in self.tracker.search_runs()}

    def log(self) -> list[str]:
        """The runs as a list that can be compared with another clone's."""
        return [repr(run) for run in sorted(self.tracker.search_runs(), key=lambda run: run.info.run_id)]

    def stages(self, name: str = "iris") -> dict[str, tuple[str, str, list[str]]]:
        """Stage, run and aliases of each version of a model."""
        return {one.version: (one.current_stage, str(one.run_id), one.aliases) for one in self.registry.versions(name)}

    def refs(self, prefix: str = "refs/") -> dict[str, str]:
        """Refs as git lists them."""
        return listed(self.sandbox.path, prefix)


def listed(folder: Path, prefix: str = "refs/") -> dict[str, str]:
    """The refs of a repository as git lists them."""
    lines = run_git(folder, "for-each-ref", "--format=%(refname) %(objectname)", prefix).splitlines()
    return dict(line.split(" ") for line in lines)


def state_of(folder: Path) -> tuple[str, ...]:
    """What a push or a pull must leave alone: HEAD, index, config, branches, files, stash."""
    files = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if ".git" not in path.parts and ".gittrack" not in path.parts and path.is_file():
            files.update(f"{path} ".encode() + path.read_bytes())
    git = folder / ".git"
    kept = [
        (git / name).read_bytes().hex() if (git / name).exists() else ""
        for name in ("index", "config", "HEAD", "FETCH_HEAD")
    ]
    return (files.hexdigest(), *kept, run_git(folder, "for-each-ref", "refs/heads", "refs/remotes", "refs/stash"))


@pytest.fixture(autouse=True)
def closed_desks() -> Iterator[None]:
    """What a test opened is closed after it."""
    yield
    while _opened:
        _opened.pop().close()


@pytest.fixture
def hub(make_repo: MakeRepo) -> Sandbox:
    """The bare repository that everybody shares through, with the project's code."""
    return make_repo("bare")


Join = Callable[..., Desk]


@pytest.fixture
def join(hub: Sandbox, tmp_path: Path) -> Join:
    """``join("bo")`` makes a clone of the hub for somebody; further words go to `git clone`."""

    def make(name: str, *options: str, url: str | None = None) -> Desk:
        folder = tmp_path / name
        run_git(tmp_path, "clone", "--quiet", *options, url or f"file://{hub.path}", str(folder))
        sandbox = Sandbox(folder, "ordinary")
        sandbox.git("config", "user.name", name.capitalize())
        return Desk(sandbox)

    return make


@pytest.fixture
def ana(join: Join) -> Desk:
    """Ana's clone."""
    return join("ana")


@pytest.fixture
def bo(join: Join) -> Desk:
    """Bo's clone."""
    return join("bo")


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def dying(last: int) -> Iterator[None]:
    """The process dies when it wants to move refs of its clone once more than so often."""
    publish, left = GitStore.publish, [last]

    def called(self: GitStore, batch: Batch, updates: Iterable[RefUpdate]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        publish(self, batch, updates)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(GitStore, "publish", called)
        yield


def assert_clean(folder: Path) -> None:
    """``git fsck --strict`` finds nothing."""
    done = subprocess.run(
        ["git", "fsck", "--strict", "--no-dangling", "--no-progress"], cwd=folder, capture_output=True, check=False
    )
    assert (
        done.returncode,
        done.stdout,
        [line for line in done.stderr.splitlines() if not line.startswith(b"notice: ")],
    ) == (0, b"", [])
