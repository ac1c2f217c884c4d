"""Disks that are really full, on either side: nothing is broken, and as soon as there is room the next call goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from gittrack.errors import GittrackError, PushRefusedError, StorageError
from gittrack.store.check import fsck
from gittrack.sync import artifacts
from tests.conftest import Sandbox
from tests.faults.power import Disk, disk as new_disk, full, unavailable
from tests.sync.conftest import Desk, assert_clean, listed, state_of

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
#: KiB that are left: for nothing, for a part, for almost all of it.
ROOM = (0, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512) if FULL else (0, 16, 128)
#: Of the files of runs: more than there ever is room for.
SIZE = 3 << 20

pytestmark = pytest.mark.timeout(900 if FULL else 300)


@pytest.fixture(scope="module")
def volume() -> Iterator[Disk]:
    """A small disk of its own."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    with new_disk(24) as made:
        yield made


def on_disk(desk: Desk, disk: Disk) -> Desk:
    """The clone, moved to that disk."""
    desk.close()
    target = disk.mount / desk.sandbox.path.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(desk.sandbox.path, target, symlinks=True)
    return Desk(Sandbox(target, "ordinary"))


def worked(desk: Desk) -> None:
    """Runs with incompressible records, files and a model."""
    for number in range(6):
        desk.run(f"run {os.urandom(3900).hex()}", experiment=f"of {number % 2}", files={"a.bin": os.urandom(SIZE // 6)})
    desk.model()


def whole(desk: Desk) -> None:
    """The clone is in order."""
    assert_clean(desk.sandbox.path)
    assert not [problem for problem in fsck(desk.repo) if problem.kind != "artifact"]
    assert not [ref for ref in desk.refs() if "incoming" in ref]


def fails(call: Callable[[], object], *, theirs: bool = False) -> bool:
    """True if a call fails for want of room, and says on whose side."""
    try:
        call()
    except GittrackError as error:
        room = f"{error.message} {error.hint}".lower()
        assert re.search("no space left|disk may be full|out of diskspace|disk is full", room), error  # noqa: PT017
        assert isinstance(error, PushRefusedError if theirs else StorageError), repr(error)  # noqa: PT017
        assert re.search("goes on|make room|free some space", room)
        return True
    return False


def test_pushing_to_a_full_remote(ana: Desk, bo: Desk, hub: Sandbox, volume: Disk) -> None:
    place = volume.mount / "hub.git"
    worked(ana)
    failed = 0
    for kib in ROOM:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(hub.path, place)
        ana.sandbox.git("remote", "set-url", "origin", f"file://{place}")
        before, there = state_of(ana.sandbox.path), listed(place)
        with full(volume, kib):
            if fails(lambda: ana.push(files=False), theirs=True):
                failed += 1
                assert listed(place) == there, "all of it or nothing"
        assert ana.push(files=False).skipped == {}
        assert state_of(ana.sandbox.path) == before
        assert_clean(place)
        bo.sandbox.git("remote", "set-url", "origin", f"file://{place}")
        bo.pull()
        assert bo.log() == ana.log()
        ana.sandbox.git("update-ref", "--stdin", input=forget(ana))
        ana.close()
    assert failed


def forget(desk: Desk) -> bytes:
    """Commands that make a clone forget what it has seen on the remote."""
    return "".join(f"delete {ref}\n" for ref in desk.refs("refs/gittrack/remotes")).encode()


def test_files_for_a_full_remote(ana: Desk, hub: Sandbox, volume: Disk) -> None:
    place = volume.mount / "hub.git"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(hub.path, place)
    worked(ana)
    ana.sandbox.git("remote", "set-url", "origin", f"file://{place}")
    with full(volume, 1200):
        with pytest.raises(GittrackError, match="No space left") as caught:
            ana.push()
        assert set(listed(place)) == {"refs/heads/main"}, "files first: no run arrives without them"
        assert "--no-artifacts" in str(caught.value.hint)
    kept = [path for path in (place / "lfs" / "objects").rglob("*") if path.is_file() and len(path.name) == 64]
    report = ana.push()
    assert report.files == 9 - len(kept), "what had arrived is not sent again"
    assert not [path for path in (place / "lfs").rglob("*") if path.is_file() and len(path.name) != 64]
    assert_clean(place)


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_full_disk_here(ana: Desk, bo: Desk, hub: Sandbox, volume: Disk, verb: str) -> None:
    worked(ana)
    if verb == "pull":
        ana.push(files=False)

    def call(desk: Desk) -> Callable[[], object]:
        return (lambda: desk.push(files=False)) if verb == "push" else desk.pull

    failed = 0
    for kib in ROOM:
        desk = on_disk(ana if verb == "push" else bo, volume)
        before = state_of(desk.sandbox.path)
        with full(volume, kib):
            failed += fails(call(desk))
            desk.close()
        assert state_of(desk.sandbox.path) == before
        call(desk)()
        assert desk.log() == ana.log()
        assert_clean(hub.path)
        whole(desk)
        desk.close()
        if verb == "push":
            for ref in listed(hub.path):
                if not ref.startswith("refs/heads/"):
                    hub.git("update-ref", "-d", ref)
    assert failed


def test_files_for_a_full_disk_here(ana: Desk, bo: Desk, volume: Disk) -> None:
    worked(ana)
    ana.push()
    bo.pull()
    desk = on_disk(bo, volume)
    wanted = [one for run in desk.names() for one in desk.tracker.artifacts(run)]
    with full(volume, 1200):
        assert fails(lambda: artifacts.bring(desk.tracker, wanted))
    here = sum(desk.repo.objects.has(one.digest, one.size) for one in wanted)
    moved = artifacts.ensure(desk.tracker, artifacts.Item.of(wanted))
    assert moved.count == len(wanted) - here, "what had arrived is not fetched again"
    assert not list(fsck(desk.repo, full=True))
    assert not list((desk.repo.root / "objects" / "tmp").glob("*"))


def test_a_remote_that_cannot_be_written(ana: Desk, hub: Sandbox, volume: Disk) -> None:
    """It can be pulled from; a push says that nothing went, with files and without."""
    place = volume.mount / "hub.git"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(hub.path, place)
    ana.run(files={"a.txt": b"a"})
    ana.sandbox.git("remote", "set-url", "origin", f"file://{place}")
    subprocess.run(["mount", "-o", "remount,ro", str(volume.mount)], check=True)
    try:
        assert ana.pull().wanted == []
        with pytest.raises(GittrackError, match=r"Read-only file system.*; nothing was pushed") as caught:
            ana.push()
        assert "--no-artifacts" in str(caught.value.hint)
        with pytest.raises(PushRefusedError, match=r"unable to create temporary.*; nothing was pushed") as refused:
            ana.push(files=False)
        assert "cannot be written" in str(refused.value.hint)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(volume.mount)], check=True)
    assert ana.push().runs == 1
