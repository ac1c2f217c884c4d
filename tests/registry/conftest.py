"""A repository with a finished run that logged a model, and its registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gittrack.registry.registry import Registry
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from tests.conftest import MakeRepo, Sandbox

_opened: list[Tracker] = []
FILES = {"MLmodel": b"flavors: {}\n", "weights/w.bin": b"\x00\x01"}


@dataclass
class Desk:
    """Somebody's clone with its registry.

    Attributes:
        sandbox: The clone.
        registry: Its registry, opened.
    """

    sandbox: Sandbox
    registry: Registry

    @classmethod
    def at(cls, sandbox: Sandbox) -> Desk:
        """The registry of a sandbox, as a new process opens it; closed after the test."""
        tracker = Tracker(Repo.find(sandbox.path, create=True), strict=True)
        _opened.append(tracker)
        return cls(sandbox, Registry(tracker))

    def reopened(self) -> Desk:
        """The same clone in another process: nothing is remembered but what is on disk."""
        self.registry.tracker.close()
        return Desk.at(self.sandbox)

    def run(self, acc: float = 0.9, **files: bytes) -> str:
        """A finished run with a model; its id."""
        run = self.registry.tracker.create_run(name="trained", capture=False)
        run.log_metric("acc", acc, 0, 1_000)
        for path, data in {**FILES, **files}.items():
            run.log_bytes(data, f"model/{path}")
        run.end()
        self.registry.tracker.flush()
        return run.run_id

    def tags(self) -> list[str]:
        """The tags of the registry."""
        return self.sandbox.git("tag", "--list", "models/*").splitlines()


@pytest.fixture(autouse=True)
def closed_registries() -> Iterator[None]:
    """What a test opened is closed after it."""
    yield
    while _opened:
        _opened.pop().close()


@pytest.fixture
def desk(make_repo: MakeRepo) -> Desk:
    """A clone without registered models."""
    return Desk.at(make_repo("ordinary"))


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `copied` keeps what it has made."""
    return tmp_path_factory.mktemp("registries")


def copied(desk: Desk, template: Path, fill: Callable[[Desk], None]) -> Desk:
    """A clone that has what ``fill`` does in it, which is done once and then copied: most tests start from the same."""
    desk.registry.tracker.close()
    if not template.exists():
        shutil.copytree(desk.sandbox.path, template.with_suffix(".new"), symlinks=True)
        first = Desk.at(Sandbox(template.with_suffix(".new"), desk.sandbox.kind))
        fill(first)
        first.registry.tracker.close()
        template.with_suffix(".new").rename(template)
    shutil.rmtree(desk.sandbox.path)
    shutil.copytree(template, desk.sandbox.path, symlinks=True)
    return Desk.at(desk.sandbox)


@pytest.fixture
def iris(desk: Desk, templates: Path) -> Desk:
    """A clone with versions 1 to 3 of `iris`, each of a run of its own."""

    def fill(desk: Desk) -> None:
        for acc in (0.8, 0.9, 0.95):
            desk.registry.register("iris", desk.run(acc, extra=str(acc).encode()), "model")

    return copied(desk, templates / "iris", fill)


def clone_of(desk: Desk, folder: Path) -> Desk:
    """A colleague's clone of a desk, with its models, runs and documents."""
    desk.sandbox.git("clone", "--quiet", ".", str(folder))
    other = Sandbox(folder, "ordinary")
    other.git("fetch", "--quiet", "origin", "refs/tags/models/*:refs/tags/models/*", "refs/runs/*:refs/runs/*",
              "refs/gittrack/registry/*:refs/gittrack/registry/*")  # fmt: skip
    other.git("config", "user.name", "Bo")
    return Desk.at(other)
