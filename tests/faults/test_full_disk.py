"""A disk that is really full: the training goes on, says so once, and what can be kept is kept."""

from __future__ import annotations

import subprocess

import pytest

from tests.faults.harness import FULL, Project
from tests.faults.power import Disk
from tests.faults.zygote import Zygote

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600 if FULL else 120)]

_KIB = 1024
#: KiB left on the disk when the training starts: enough for nothing, for the run, for half of it, for all but its end.
ROOM = (0, 4, 16, 40, 80, 120, 160, 240, 320, 480, 640, 960)
CASES = [(room, freed) for room in ROOM for freed in (False, True)] if FULL else [(0, False), (160, False), (160, True)]


@pytest.mark.parametrize(("room", "freed"), CASES)
def test_training_on_a_full_disk(template: Project, disk: Disk, zygote: Zygote, room: int, freed: bool) -> None:
    project = template.copy(disk.mount / "project")
    ballast = disk.mount / "ballast"
    subprocess.run(["sync", "-f", str(disk.mount)], check=True)
    zygote.run("fill", path=str(ballast), room=room * _KIB)
    outcome = zygote.run("train", folder=str(project.folder), free=str(ballast) if freed else "")
    warnings = [line for line in outcome.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) <= 1 + freed, outcome.stderr  # a second one may say what was lost
    # Freed in time, everything but artifacts (which are not kept in memory) is written after all.
    project.learn(outcome, 0, trust=False)
    ballast.unlink(missing_ok=True)
    project.verify(f"training with {room} KiB left")
