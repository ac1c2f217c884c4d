"""A journal cut at any byte: what is in front of the cut is kept, and the run is sealed."""

from __future__ import annotations

import math
import shutil

import pytest

from gittrack.store import codec, journal, record
from tests.faults.harness import FULL, Project
from tests.faults.zygote import Zygote

pytestmark = [pytest.mark.fault, pytest.mark.timeout(7200 if FULL else 120)]


def test_every_byte(project: Project, zygote: Zygote) -> None:
    """The journal itself, at every length: the longest prefix of whole frames, and writable again."""
    outcome = zygote.run("log", folder=str(project.folder))
    (path,) = (project.folder / ".gittrack/live").glob("*/*.journal")
    whole = path.read_bytes()
    frames = list(journal.iter_journal(path))
    assert len(frames) > len(outcome.acks)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = [payload for end, payload in frames if end <= length]
        end = max((end for end, _ in frames if end <= length), default=0)
        assert journal.read_journal(path) == (kept, end)
        if FULL or length % 8 == 0:  # it waits for the disk
            assert journal.repair(path) == length - end
            assert path.stat().st_size == end


@pytest.mark.parametrize("damage", ["cut", "zeros", "flipped"])
def test_store_heals(template: Project, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory, damage: str) -> None:
    """The store around it: points in front of the damage are there, the run is over, everything is in order."""
    folder = tmp_path_factory.mktemp("torn")
    model = template.copy(folder / "model")
    zygote.run("log", folder=str(model.folder))
    (path,) = (model.folder / ".gittrack/live").glob("*/*.journal")
    whole, run_id = path.read_bytes(), path.parent.name
    frames = [(end, codec.unpack(payload)) for end, payload in journal.iter_journal(path)]
    created = frames[1][0]
    step = 1 if FULL else math.ceil(len(whole) / 4)
    for at in range(len(whole) - 1, -1, -step):
        project = model.copy(folder / "project")
        torn = project.folder / path.relative_to(model.folder)
        torn.write_bytes(_damaged(whole, at, damage))
        for end, event in frames:
            if end <= at and event[0] == record.METRIC:
                said = ["metric", run_id, event[1], event[4], event[2]]
                project.promises[tuple(said)] = [said]
        project.verify(f"{damage} at byte {at} of {len(whole)}", lost=at < created)
        shutil.rmtree(project.folder)


def _damaged(whole: bytes, at: int, damage: str) -> bytes:
    if damage == "cut":
        return whole[:at]
    if damage == "zeros":  # a file system may give a file its new length before its new bytes
        return whole[:at] + bytes(len(whole) - at)
    return whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
