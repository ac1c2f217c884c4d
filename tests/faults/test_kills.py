"""``kill -9`` and errors at every mutating system call of every operation, until the operation succeeds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import FULL, Project, sample
from tests.faults.tracer import Outcome, Syscall
from tests.faults.zygote import COUNT, Fault, Zygote

pytestmark = pytest.mark.fault

#: Operation, points of it that a quick run tries.
OPERATIONS = {
    "start": 3, "log": 3, "artifact": 4, "end": 6, "amend": 4, "experiment": 3, "collect": 2, "purge": 3, "register": 4,
    "promote": 4,
}  # fmt: skip
#: Those that a training loop makes: trouble with the disk must not stop it.
TRAINING = ("start", "log", "artifact", "end")


class Sweep:
    """One operation on fresh copies of one project, with a fault at one point after the other."""

    def __init__(self, zygote: Zygote, template: Project, folder: Path, operation: str) -> None:
        self._zygote = zygote
        self._template = template
        self._folder = folder
        self._operation = operation
        self._failures: list[str] = []

    def count(self) -> list[Syscall]:
        """The mutating system calls of the operation when nothing goes wrong."""
        calls = self._start(COUNT, 0).calls
        shutil.rmtree(self._folder / "project")
        assert calls, "nothing was traced"
        return calls

    def run(self, fault: Fault, *, status: int | None = None, trust: bool = True) -> Outcome:
        """The operation with ``fault`` in it, then every invariant; a broken one is noted for ``report``."""
        outcome = self._start(fault, status, trust)
        shutil.rmtree(self._folder / "project")
        return outcome

    def _start(self, fault: Fault, status: int | None, trust: bool = True) -> Outcome:
        project = self._template.copy(self._folder / "project")
        about_runs = self._operation in ("amend", "purge", "register", "promote")
        arguments: dict[str, Any] = {"runs": project.runs()} if about_runs else {}
        if self._operation == "purge":
            project.forget(project.runs()[2])
        outcome = self._zygote.run(self._operation, fault=fault, folder=str(project.folder), **arguments)
        try:
            project.learn(outcome, status, trust=trust)
            if fault != COUNT:
                project.verify(f"{fault.action} in `{self._operation}` at {outcome.hit}")
        except AssertionError as error:
            self._failures.append(str(error))
        return outcome

    def report(self) -> None:
        """Fail with everything that was noted."""
        assert not self._failures, f"{len(self._failures)} points of `{self._operation}`:\n" + "\n".join(self._failures)


@pytest.fixture
def sweep(tracing: Zygote, template: Project, tmp_path: Path, request: pytest.FixtureRequest) -> Sweep:
    """A sweep over the operation that is the test's parameter."""
    return Sweep(tracing, template, tmp_path, request.getfixturevalue("operation"))


@pytest.mark.timeout(7200 if FULL else 120)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_kill_at_every_call(sweep: Sweep, operation: str) -> None:
    calls = sweep.count()
    for at in sample(len(calls), OPERATIONS[operation]):
        sweep.run(Fault(at))
    # Helper threads make the number of calls vary: go on until one run gets through.
    at = len(calls) + 1
    while FULL and sweep.run(Fault(at)).hit is not None:
        at += 1
    sweep.report()


@pytest.mark.timeout(7200 if FULL else 120)
@pytest.mark.parametrize("operation", TRAINING if FULL else ("start",))
def test_a_helper_program_killed_does_not_stop_the_training(sweep: Sweep, operation: str) -> None:
    children = [call.number for call in sweep.count() if not call.main]
    for index in sample(len(children), 2):
        sweep.run(Fault(children[index - 1], "kill-one"), status=0)
    sweep.report()


def _one_each(calls: list[Syscall]) -> list[int]:
    """The first of the calls in each folder of the project, counted from 1."""
    places: dict[str, int] = {}
    for number, call in enumerate(calls, 1):
        places.setdefault(re.sub("/[0-9a-f]{2,}(?=/|$)", "/*", str(Path(call.path).parent)), number)
    return list(places.values())


WRITES = (
    "write",
    "pwrite64",
    "writev",
    "openat",
    "mkdir",
    "ftruncate",
    "copy_file_range",
    "sendfile",
    "link",
    "rename",
)
SYNCS = ("fsync", "fdatasync")


@pytest.mark.timeout(7200 if FULL else 120)
@pytest.mark.parametrize("operation", TRAINING if FULL else ("artifact", "end"))
@pytest.mark.parametrize(
    ("action", "calls", "repeat"),
    [("ENOSPC", WRITES, False), ("ENOSPC", WRITES, True), ("EIO", WRITES, False), ("EIO", SYNCS, False)],
    ids=["full-once", "full-for-good", "write-error", "sync-error"],
)
def test_an_error_does_not_stop_the_training(
    sweep: Sweep, operation: str, action: str, calls: tuple[str, ...], repeat: bool
) -> None:
    seen = [call for call in sweep.count() if call.name in calls]
    for at in sample(len(seen), 2) if FULL or calls != SYNCS else _one_each(seen):
        # A run that is ended writes again what failed once; everything else may be lost once it was warned of.
        trust = operation == "end" and not repeat
        outcome = sweep.run(Fault(at, action, calls, repeat=repeat), status=0, trust=trust)
        warnings = [line for line in outcome.stderr.splitlines() if line.startswith("warning: ")]
        assert len(warnings) <= 1, f"{action} at {outcome.hit}: {outcome.stderr}"
    sweep.report()
