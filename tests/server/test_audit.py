"""The audit log: what it keeps, and that nothing can be changed in it without being seen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gittrack.errors import CorruptError, GittrackError, InvalidValueError
from gittrack.server.hub import audit as module
from gittrack.server.hub.audit import ACTIVE, HEAD, Audit, Event, Line

pytestmark = pytest.mark.any_backend  # it starts no server


def fill(folder: Path, number: int, full: int = module.FULL) -> Audit:
    log = Audit(folder, full=full)
    for index in range(number):
        log.record(Event("ana", "user", "model.promote", f"iris@v{index}", "10.0.0.1"))
    return log


def test_a_line(tmp_path: Path) -> None:
    log = fill(tmp_path, 2)
    found = list(log.lines())
    assert [one["seq"] for one in found] == [1, 2]
    assert found[0]["prev"] == "0" * 64
    assert {**found[1], "time": "", "prev": ""} == {
        "seq": 2, "time": "", "who": "ana", "how": "user", "what": "model.promote", "object": "iris@v1",
        "address": "10.0.0.1", "outcome": "done", "prev": "",
    }  # fmt: skip
    assert found[0]["time"].endswith("Z")
    assert log.verify().seq == 2


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    assert Audit(tmp_path / "nothing").verify() == Line(0, "0" * 64)
    assert not (tmp_path / "nothing").exists()


@given(st.text(max_size=60))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_of_others_stay_in_their_line(tmp_path: Path, text: str) -> None:
    folder = tmp_path / os.urandom(6).hex()
    log = Audit(folder)
    log.record(Event(text, "user", "x", "\x1b[31m\n\r\x00\x7f\x85\u2028\u202e" + text), sync=False)
    data = (folder / ACTIVE).read_bytes()
    assert data.count(b"\n") == 1
    assert all(32 <= byte < 127 for byte in data[:-1])
    assert next(log.lines())["who"] == text


def test_long_values_are_cut(tmp_path: Path) -> None:
    log = Audit(tmp_path)
    for _ in range(3):
        log.record(Event(*("\U0001f600" * 5000 for _ in range(6))))
    assert log.verify().seq == 3
    assert (tmp_path / ACTIVE).stat().st_size < 3 * module._TAIL


@pytest.mark.parametrize("full", [module.FULL, 700])
def test_every_change_is_found(tmp_path: Path, full: int) -> None:
    """Each line changed, removed, doubled, and put behind the next; with the chain in one file and in several."""
    fill(tmp_path, 12, full)
    whole = {path: path.read_bytes() for path in tmp_path.glob("audit*.jsonl")}
    assert (len(whole) > 3) == (full == 700)
    log = Audit(tmp_path)
    noted = log.verify()
    changes = 0
    for path, data in whole.items():
        lines = data.splitlines(keepends=True)
        for index, line in enumerate(lines):
            found = json.loads(line)
            rest = lines[:index], lines[index + 1 :]
            for now in (
                [*rest[0], *rest[1]],
                [*rest[0], line, *rest[0][-1:], *rest[1]] if index else [line, line, *rest[1]],
                [*rest[0], *rest[1][:1], line, *rest[1][1:]] if rest[1] else [*rest[0], b"", *rest[1]],
                [*rest[0], line.replace(b"ana", b"bob"), *rest[1]],
                [*rest[0], json.dumps({**found, "outcome": "refused"}).encode() + b"\n", *rest[1]],
                [*rest[0], line.replace(b", ", b","), *rest[1]],
                [*rest[0], b"{}\n", *rest[1]],
            ):
                path.write_bytes(b"".join(now))
                with pytest.raises(CorruptError):
                    log.verify()
                changes += 1
        path.write_bytes(data)
        path.rename(path.with_suffix(".away"))
        with pytest.raises(CorruptError):
            log.verify()
        path.with_suffix(".away").rename(path)
    assert changes == 12 * 7
    assert log.verify() == noted


def test_lines_at_the_end_are_missed(tmp_path: Path) -> None:
    log = fill(tmp_path, 4)
    noted = log.verify()
    whole = (tmp_path / ACTIVE).read_bytes()
    (tmp_path / ACTIVE).write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    with pytest.raises(CorruptError, match=r"missing at the end: the last is 2, and there was a line 4"):
        log.verify()
    head = (tmp_path / HEAD).read_bytes()
    (tmp_path / HEAD).unlink()
    with pytest.raises(CorruptError, match="which names the newest line"):
        log.verify()
    (tmp_path / HEAD).write_bytes(b"x")
    with pytest.raises(CorruptError, match="cannot be read"):
        log.verify()
    # Somebody forges both files; a line that was noted elsewhere shows it.
    (tmp_path / ACTIVE).unlink()
    (tmp_path / HEAD).unlink()
    fill(tmp_path, 5)
    assert log.verify().seq == 5
    with pytest.raises(CorruptError):
        log.verify(noted=noted)
    (tmp_path / ACTIVE).write_bytes(whole)
    (tmp_path / HEAD).write_bytes(head)
    assert log.verify(noted=noted) == noted


def test_old_files_may_be_put_away_if_that_is_said(tmp_path: Path) -> None:
    log = fill(tmp_path, 12, 700)
    first = min(tmp_path.glob("audit-*.jsonl"))
    lines = len(first.read_bytes().splitlines())
    noted = Line(1, "a" * 64)
    first.unlink()
    with pytest.raises(CorruptError, match="line 1 is missing"):
        log.verify()
    assert log.verify(since=lines + 1).seq == 12
    with pytest.raises(CorruptError, match="is missing"):
        log.verify(since=lines)
    with pytest.raises(InvalidValueError, match="older"):
        log.verify(since=lines + 1, noted=noted)
    with pytest.raises(CorruptError, match="line 99 is missing"):
        log.verify(since=99)


@pytest.mark.parametrize("keep", [1, 40, -1])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, keep: int) -> None:
    log = fill(tmp_path, 3)
    path = tmp_path / ACTIVE
    line = path.read_bytes().splitlines(keepends=True)[-1]
    with path.open("ab") as target:
        target.write(line.replace(b'"seq": 3', b'"seq": 4')[:keep])
    assert log.verify().seq == 3  # it was never acknowledged
    assert len(list(log.lines())) == 3
    log.record(Event("ana", "user", "login"))
    assert log.verify().seq == 4
    assert path.read_bytes().count(b"\n") == 4


def test_a_torn_first_line(tmp_path: Path) -> None:
    log = fill(tmp_path, 4, 700)
    (tmp_path / ACTIVE).unlink(missing_ok=True)
    before = log.record(Event("ana", "user", "login")).seq if log._files() else 0
    data = (tmp_path / ACTIVE).read_bytes()
    (tmp_path / ACTIVE).write_bytes(data[: len(data) // 2])
    assert log.record(Event("ana", "user", "login")).seq == before
    assert before > 1


def test_what_was_not_synced_may_be_gone(tmp_path: Path) -> None:
    log = fill(tmp_path, 2)
    data = (tmp_path / ACTIVE).read_bytes()
    log.record(Event("ana", "user", "x"), sync=False)
    assert log.verify().seq == 3
    (tmp_path / ACTIVE).write_bytes(data)
    assert log.verify().seq == 2


def test_a_log_that_cannot_be_read_is_not_gone_on_with(tmp_path: Path) -> None:
    log = fill(tmp_path, 2)
    with (tmp_path / ACTIVE).open("ab") as target:
        target.write(b"[1]\n")
    with pytest.raises(GittrackError, match="cannot be read"):
        log.record(Event("ana", "user", "x"))


def test_processes_write_one_chain(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from gittrack.server.hub.audit import Audit, Event\n"
        "log = Audit(Path(sys.argv[1]), full=4000)\n"
        "for n in range(25): log.record(Event(sys.argv[2], 'user', 'x', str(n)))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)]) for n in range(3)]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    log = Audit(tmp_path)
    assert log.verify().seq == 75
    said = [(one["who"], int(one["object"])) for one in log.lines()]
    for who in "012":
        assert [number for name, number in said if name == who] == list(range(25))
