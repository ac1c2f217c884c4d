"""The tools of these tests find what they are for: a careless writer is caught, a careful one passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import power
from tests.faults.zygote import COUNT, Fault, Zygote


def _count(zygote: Zygote, program: str, folder: Path) -> int:
    return len(zygote.run(program, folder=str(folder), fault=COUNT).calls)


def test_calls_of_threads_and_of_other_programs_count(tracing: Zygote, tmp_path: Path) -> None:
    outcome = tracing.run("write_with_help", folder=str(tmp_path), fault=COUNT)
    names = [Path(call.path).name for call in outcome.calls]
    assert names == ["thread", "thread", "program", "program", "here", "here"]
    assert [call.main for call in outcome.calls] == [True, True, False, False, True, True]


def test_kill_one_leaves_the_others_alone(tracing: Zygote, tmp_path: Path) -> None:
    outcome = tracing.run("write_with_help", folder=str(tmp_path), fault=Fault(3, "kill-one"))
    assert outcome.status == 0
    assert (tmp_path / "here").exists()
    assert not (tmp_path / "program").exists()


def test_an_error_is_what_the_program_sees(tracing: Zygote, tmp_path: Path) -> None:
    outcome = tracing.run("write_carefully", folder=str(tmp_path), fault=Fault(1, "ENOSPC", calls=("write",)))
    assert outcome.status == 70
    assert "No space left on device" in outcome.stderr


@pytest.mark.parametrize(("program", "torn"), [("write_carelessly", True), ("write_carefully", False)])
def test_kills_tear_only_careless_writing(tracing: Zygote, tmp_path: Path, program: str, torn: bool) -> None:
    seen = set()
    for at in range(1, _count(tracing, program, tmp_path) + 1):
        (tmp_path / "data").write_bytes(b"old" * 1000)
        outcome = tracing.run(program, folder=str(tmp_path), fault=Fault(at))
        assert outcome.status == -9
        seen.add((tmp_path / "data").read_bytes() not in (b"old" * 1000, b"new" * 1000))
    assert seen >= {torn}
    assert torn or True not in seen


@pytest.mark.parametrize(("program", "kept"), [("write_carelessly", False), ("write_carefully", True)])
def test_power_cuts_lose_what_was_not_synced(zygote: Zygote, disk: power.Disk, program: str, kept: bool) -> None:
    outcome = zygote.run(program, folder=str(disk.mount))
    assert outcome.acks == ["written"]
    disk.cut()
    disk.restore()
    data = disk.mount / "data"
    assert (data.exists() and data.read_bytes() == b"new" * 1000) is kept
