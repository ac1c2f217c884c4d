"""A bundle that was written, and one that was taken over, are there after a power cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gittrack.store.check import fsck
from tests.conftest import MakeRepo, Sandbox
from tests.faults.power import Disk
from tests.sync.conftest import Desk, assert_clean

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

CALL = "import sys, gittrack; gittrack.set_tracking_uri(sys.argv[1]); getattr(gittrack, sys.argv[2])(sys.argv[3])"


def call(folder: Path, verb: str, file: Path) -> None:
    """``gittrack.bundle`` or ``gittrack.unbundle`` in a process of its own, which has let go of the disk afterwards."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", CALL, str(folder), verb, str(file)], check=True, env=env)


def test_cut_right_after_it_returned(make_repo: MakeRepo, disk: Disk, tmp_path: Path) -> None:
    ana = Desk(make_repo("ordinary"))
    for number in range(3):
        ana.run(f"run {number}", experiment=f"of {number}", files={"big": os.urandom(3 << 20), "small": b"small"})
    ana.model()
    ana.close()
    shutil.copytree(make_repo("ordinary").path, disk.mount / "bo")
    subprocess.run(["sync", "-f", str(disk.mount)], check=True)
    call(ana.sandbox.path, "bundle", disk.mount / "x.bundle")
    disk.cut()
    disk.restore()
    shutil.copy(disk.mount / "x.bundle", tmp_path / "x.bundle")
    call(disk.mount / "bo", "unbundle", tmp_path / "x.bundle")
    disk.cut()
    disk.restore()
    bo = Desk(Sandbox(disk.mount / "bo", "ordinary"))
    assert_clean(bo.sandbox.path)
    assert fsck(bo.repo, full=True) == []
    assert bo.log() == ana.log()
    assert bo.stages() == ana.stages()
    bo.close()
    ana.close()
