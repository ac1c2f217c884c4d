"""One warm process and one template project for all fault tests of a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    collect_ignore_glob = ["test_*.py"]  # there is no fork, no kill -9 and no strace to play these faults with
else:
    from tests.faults import harness, power
    from tests.faults.zygote import Zygote


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """The process that forks the programs."""
    with Zygote(harness.environment(tmp_path_factory.mktemp("home"))) as running:
        yield running


@pytest.fixture(scope="session")
def tracing(zygote: Zygote) -> Zygote:
    """``zygote``, on a machine where a program can be stopped at a system call."""
    reason = zygote.why_no_faults()
    if reason:
        pytest.skip(reason)
    return zygote


@pytest.fixture(scope="session")
def template(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> harness.Project:
    """A project with three runs; copy it."""
    return harness.Project.make(tmp_path_factory.mktemp("template") / "project", zygote)


@pytest.fixture
def project(template: harness.Project, tmp_path: Path) -> harness.Project:
    """A project with three runs, to harm."""
    return template.copy(tmp_path / "project")


@pytest.fixture
def disk() -> Iterator[power.Disk]:
    """A disk of 96 MB that can lose its power."""
    reason = power.unavailable()
    if reason:
        pytest.skip(reason)
    with power.disk(96) as plugged:
        yield plugged
