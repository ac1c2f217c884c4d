"""Power cuts, played for real on an ext4 file system that forgets what was not synced."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.faults.harness import FULL, Project, sample
from tests.faults.power import Disk
from tests.faults.zygote import COUNT, Fault, Zygote

pytestmark = [pytest.mark.fault, pytest.mark.timeout(7200 if FULL else 120)]

#: Seconds that a metric may be lost after it was logged: `gittrack.sync` (1 s), and as much again for a busy machine.
AT_RISK = 2.0


@pytest.fixture
def on_disk(template: Project, disk: Disk) -> Project:
    """A project on the disk, all of it synced."""
    project = template.copy(disk.mount / "project")
    subprocess.run(["sync", "-f", str(disk.mount)], check=True)
    return project


@pytest.mark.parametrize(
    ("operation", "wait"),
    [
        ("end_at_once", 0.0),
        ("end", 0.0),
        ("experiment", 0.0),
        ("artifact", AT_RISK),
        ("register", 0.0),
        ("promote", 0.0),
    ],
)
def test_cut_after_a_promise(on_disk: Project, disk: Disk, zygote: Zygote, operation: str, wait: float) -> None:
    where: dict[str, Any] = {"mount": str(disk.mount), "folder": str(on_disk.folder)}
    if operation in ("register", "promote"):
        where["runs"] = on_disk.runs()
    on_disk.learn(zygote.run("cut_after", operation=operation, wait=wait, **where))
    disk.restore()
    on_disk.verify(f"a power cut {wait:g} s after `{operation}`")


def test_cut_right_after_log_artifact_damages_nothing(on_disk: Project, disk: Disk, zygote: Zygote) -> None:
    """Its name is in the journal, which is synced every second: the run may lose it, never half of it."""
    zygote.run("cut_after", operation="artifact", wait=0.0, mount=str(disk.mount), folder=str(on_disk.folder))
    disk.restore()
    on_disk.verify("a power cut right after `log_artifact`")


def test_cut_in_mid_run(on_disk: Project, disk: Disk, zygote: Zygote) -> None:
    outcome = zygote.run("log_for", seconds=AT_RISK + 1.5, mount=str(disk.mount), folder=str(on_disk.folder))
    disk.restore()
    *points, (_, cut_at) = map(json.loads, outcome.acks)
    old = [said for said, at in points if at < cut_at - AT_RISK]
    assert len(old) > 10
    outcome.acks = [json.dumps(said) for said in old]
    on_disk.learn(outcome)
    on_disk.verify("a power cut in mid-run")


@pytest.mark.parametrize("operation", ["end", "artifact", "collect"] if FULL else ["end"])
def test_cut_at_any_call(template: Project, tracing: Zygote, disk: Disk, operation: str) -> None:
    # What was logged before the first call that is cut has been synced: only then is it promised.
    arguments: dict[str, Any] = {} if operation == "collect" else {"rest": AT_RISK}
    counted = template.copy(disk.mount / "counted")
    total = len(tracing.run(operation, fault=COUNT, folder=str(counted.folder), **arguments).calls)
    failures = []
    for at in sample(total, 3, most=50):
        project = template.copy(disk.mount / f"project-{at}")
        subprocess.run(["sync", "-f", str(disk.mount)], check=True)
        fault = Fault(at, "power", mount=str(disk.mount))
        outcome = tracing.run(operation, fault=fault, folder=str(project.folder), **arguments)
        if outcome.hit is None:
            disk.cut()
        disk.restore()
        try:
            if operation == "artifact":
                del outcome.acks[1:]  # younger than AT_RISK
            project.learn(outcome)
            project.verify(f"a power cut in `{operation}` at {outcome.hit}")
        except AssertionError as error:
            failures.append(str(error))
        subprocess.run(["rm", "-rf", str(project.folder)], check=True)
    assert not failures, "\n".join(failures)
