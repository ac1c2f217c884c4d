"""gittrack.store.files: what is on disk when a call returns, what is left when it fails, locks and processes."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gittrack.errors import (
    FormatError,
    GittrackError,
    InvalidValueError,
    LockedError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
)
from gittrack.store import files
from tests.store.syscalls import sweep, temporaries, watch

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)


# ---------------------------------------------------------------- writing


def test_write_atomic_replaces_the_content(tmp_path: Path) -> None:
    target = tmp_path / "a"
    files.write_atomic(target, b"one")
    files.write_atomic(target, b"two" * 1_000_000)
    assert target.read_bytes() == b"two" * 1_000_000
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("umask", "mode", "expected"), [(0o077, 0o644, 0o600), (0, 0o644, 0o644), (0, 0o444, 0o444)])
def test_the_umask_cuts_the_mode(tmp_path: Path, umask: int, mode: int, expected: int) -> None:
    before = os.umask(umask)
    try:
        files.write_atomic(tmp_path / "a", b"x", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == expected


def test_write_atomic_does_not_follow_a_symlink(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(canary)
    files.write_atomic(tmp_path / "link", b"new")
    assert canary.read_bytes() == b"mine"
    assert not (tmp_path / "link").is_symlink()


def test_write_atomic_syncs_the_bytes_then_names_them_then_syncs_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(monkeypatch, tmp_path)
    files.write_atomic(tmp_path / "a", b"x")
    assert [event[0] for event in seen.events] == ["open", "write", "fsync", "replace", "open", "fsync"]
    seen.assert_durable()


@pytest.mark.parametrize("old", [None, b"old"])
def test_any_failing_call_leaves_the_old_content_or_the_new_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes | None
) -> None:
    target = tmp_path / "a"
    seen = watch(monkeypatch, tmp_path)

    def work() -> None:
        if old is not None:
            target.write_bytes(old)
        else:
            target.unlink(missing_ok=True)
        seen.forget()
        files.write_atomic(target, b"new")

    for number, raised in sweep(seen, work, ERRORS):
        assert temporaries(tmp_path) == []
        content = target.read_bytes() if target.exists() else None
        assert content == b"new" if not raised else content in (old, b"new")
        if raised and number <= 4:  # up to the rename
            assert content == old


def test_make_dirs_syncs_each_new_folder_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, tmp_path)
    files.make_dirs(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    seen.assert_durable()
    assert len([event for event in seen.events if event[0] == "fsync"]) == 3
    seen.forget()
    files.make_dirs(tmp_path / "a" / "b" / "c")
    assert seen.events == []


def test_make_dirs_without_durability_syncs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, tmp_path)
    files.make_dirs(tmp_path / "a" / "b", durable=False)
    assert {event[0] for event in seen.events} == {"mkdir"}


def test_make_dirs_over_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(StorageError):
            files.make_dirs(path)


def test_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"")
    seen = watch(monkeypatch, tmp_path)
    files.remove(tmp_path / "a")
    assert ("fsync", str(tmp_path)) in seen.events
    files.remove(tmp_path / "a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(GittrackError):
        files.remove(tmp_path / "folder")


def test_only_old_temporary_files_are_swept(tmp_path: Path) -> None:
    for age in (0, 100):
        fd, path = files.create_temp(tmp_path)
        os.close(fd)
        os.utime(path, (time.time() - age, time.time() - age))
    (tmp_path / "mine").write_bytes(b"")
    os.utime(tmp_path / "mine", (0, 0))
    assert files.sweep_temps(tmp_path, 50) == 1
    assert len(list(tmp_path.iterdir())) == 2
    assert files.sweep_temps(tmp_path / "missing", 0) == 0


@pytest.mark.parametrize(
    ("number", "verb", "kind", "hint"),
    [
        (errno.ENOSPC, "write", StorageError, "free some space, then run `gittrack fsck`"),
        (errno.EIO, "write", StorageError, "disk reports errors"),
        (errno.EROFS, "write", ReadOnlyError, "read-only"),
        (errno.EACCES, "write", ReadOnlyError, "permissions"),
        (errno.EACCES, "read", StorageError, "permissions"),
        (errno.ENOENT, "read", NotFoundError, None),
        (errno.EMFILE, "read", StorageError, "ulimit"),
    ],
)
def test_what_the_system_refuses_is_said_in_words(
    number: int, verb: str, kind: type[GittrackError], hint: str | None
) -> None:
    error = files.failure(OSError(number, os.strerror(number)), "/store/x", verb)
    assert type(error) is kind
    assert error.message == f"cannot {verb} `/store/x`: {os.strerror(number)}"
    assert error.hint is None if hint is None else hint in (error.hint or "")
    if isinstance(error, OSError):
        assert error.errno == number


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ReadOnlyError):
            files.write_atomic(tmp_path / "a", b"")
    finally:
        tmp_path.chmod(0o755)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError) as caught:
        files.write_atomic(tmp_path / "file" / "a", b"")
    assert f"`{tmp_path / 'file' / 'a'}`" in caught.value.message, "and no temporary name"


# ---------------------------------------------------------------- reading what users hand in


def test_a_source_is_a_regular_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        monkeypatch.chdir(tmp_path)  # socket names are short
        unix.bind("socket")
    os.close(files.open_source(tmp_path / "file"))
    for name, word in {
        "link": "symbolic link",
        "pipe": "pipe",
        "socket": "socket",
        ".": "folder",
        "/dev/zero": "device",
    }.items():
        with pytest.raises(InvalidValueError, match=word):
            files.open_source(tmp_path / name)
    with pytest.raises(NotFoundError):
        files.open_source(tmp_path / "missing")
    with pytest.raises(NotFoundError):
        files.open_source(tmp_path / "missing" / "file")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 20_000_001])
def test_copy_hashing_writes_what_it_hashes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    source = files.open_source(tmp_path / "a")
    fd, temp = files.create_temp(tmp_path)
    try:
        assert files.copy_hashing(source, fd) == (hashlib.sha256(data).hexdigest(), size, None)
        os.lseek(source, 0, os.SEEK_SET)
        assert files.copy_hashing(source, None) == (hashlib.sha256(data).hexdigest(), size, None)
    finally:
        os.close(fd)
        os.close(source)
    assert temp.read_bytes() == data


@pytest.mark.parametrize("size", [1000, 20_000_000])
def test_copy_hashing_reads_on_when_the_target_is_full(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    source = files.open_source(tmp_path / "a")
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        digest, count, failed = files.copy_hashing(source, full)
    finally:
        os.close(full)
        os.close(source)
    assert (digest, count) == (hashlib.sha256(data).hexdigest(), size)
    assert failed is not None
    assert failed.errno == errno.ENOSPC


def test_a_source_that_cannot_be_read_ends_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(20_000_000))
    source = files.open_source(tmp_path / "a")
    fd, _ = files.create_temp(tmp_path)
    seen = watch(monkeypatch, tmp_path)
    threads = threading.active_count()
    seen.arm(11, errno.EIO)  # reads and writes take turns
    with pytest.raises(OSError, match=r".*") as caught:
        files.copy_hashing(source, fd)
    assert caught.value.errno == errno.EIO
    assert threading.active_count() == threads
    os.close(fd)
    os.close(source)


def test_open_below_makes_folders_and_follows_no_symlink(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    with files.open_below(root, ("a", "b")) as folder:
        assert os.path.samestat(os.fstat(folder or -1), (root / "a" / "b").stat())
    (root / "link").symlink_to(outside)
    (root / "file").write_bytes(b"")
    for parts in (("link",), ("link", "x"), ("file",), ("file", "x")):
        with pytest.raises(InvalidValueError), files.open_below(root, parts):
            pass
    assert list(outside.iterdir()) == []


# ---------------------------------------------------------------- locks


def test_a_lock_keeps_others_out_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.FileLock(path, timeout=1):
        start = time.monotonic()
        with pytest.raises(LockedError, match=rf"process {os.getpid()} on "), files.FileLock(path, timeout=0.2):
            pass
        assert 0.15 < time.monotonic() - start < 5
        with pytest.raises(LockedError), files.FileLock(path, timeout=0):
            pass
    with files.FileLock(path, timeout=0):
        pass
    assert path.exists()


def test_one_lock_object_is_not_entered_twice(tmp_path: Path) -> None:
    lock = files.FileLock(tmp_path / "lock", timeout=0.05)
    with lock, pytest.raises(LockedError), lock:
        pass
    with lock:
        pass


@pytest.mark.parametrize("shared", [True, False])
def test_threads_exclude_each_other(tmp_path: Path, shared: bool) -> None:
    inside = []
    worst = []
    one = files.FileLock(tmp_path / "lock", timeout=30)

    def work() -> None:
        for _ in range(20):
            with one if shared else files.FileLock(tmp_path / "lock", timeout=30):
                inside.append(1)
                worst.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == [1] * 80


_HOLD = """
import sys, time
from gittrack.store.files import FileLock
with FileLock(sys.argv[1], timeout=5):
    print(1, flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LockedError, match=rf"process {holder.pid} on "), files.FileLock(path, timeout=0.1):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with files.FileLock(path, timeout=0.5):
        pass


def test_a_forked_child_neither_keeps_nor_frees_the_lock_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.FileLock(path, timeout=1) as lock:
        ready, wake = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            lock.__exit__(None, None, None)  # as leaving the `with` in the child would
            os.write(ready[1], b"x")
            os.read(wake[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        with pytest.raises(LockedError), files.FileLock(path, timeout=0):
            pass
    with files.FileLock(path, timeout=0):  # although the child still lives
        os.write(wake[1], b"x")
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_that_was_forked_behind_pythons_back_does_not_keep_the_lock(tmp_path: Path) -> None:
    libc = ctypes.PyDLL(None)
    with files.FileLock(tmp_path / "lock", timeout=1):
        child = libc.fork()
        if not child:
            libc.pause()
            os._exit(0)
    try:
        with files.FileLock(tmp_path / "lock", timeout=0):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError), files.FileLock(tmp_path / "missing" / "lock", timeout=0):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError), files.FileLock(tmp_path / "link", timeout=0):
        pass
    assert not (tmp_path / "elsewhere").exists()


# ---------------------------------------------------------------- processes


def test_this_process_is_alive() -> None:
    identity = files.process_identity()
    assert identity.pid == os.getpid()
    assert identity == files.process_identity()
    assert files.ProcessId.from_list(identity.to_list()) == identity
    assert files.is_alive(identity) is True


def test_a_process_that_ended_is_dead_also_as_a_zombie_and_after_its_id_was_reused() -> None:
    code = "from gittrack.store.files import *\nprint(process_identity().to_list())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        identity = files.ProcessId.from_list(eval(child.stdout.readline()))
        deadline = time.monotonic() + 30
        while files.is_alive(identity):  # nobody has waited for it yet: it becomes a zombie
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert files.is_alive(identity) is False
    mine = files.process_identity()
    assert files.is_alive(files.ProcessId(mine.host, mine.boot_id, mine.pid, "1")) is False


def test_where_a_process_runs_decides_what_is_known() -> None:
    mine = files.process_identity()
    uuid, _, namespace = mine.boot_id.partition(":")
    assert files.is_alive(files.ProcessId(mine.host, "other:" + namespace, mine.pid, mine.started)) is False
    assert files.is_alive(files.ProcessId("elsewhere", "other:1", mine.pid, mine.started)) is None
    assert files.is_alive(files.ProcessId(mine.host, uuid + ":1", mine.pid, mine.started)) is None


@pytest.mark.parametrize(
    "raw", [None, [], ["h", "b", 1], ["h", "b", 0, "s"], ["h", "b", -1, "s"], ["h", "b", "1", "s"], [1, "b", 1, "s"],
            ["h", "b", True, "s"], ["h", "b", 1 << 40, "s"]]
)  # fmt: skip
def test_a_malformed_process_id_is_refused(raw: object) -> None:
    with pytest.raises(FormatError):
        files.ProcessId.from_list(raw)


def test_threads_get_a_lock_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    """Nobody waits for long while others come again and again."""
    waits: list[float] = []
    stop = time.monotonic() + 1.0

    def work() -> None:
        while time.monotonic() < stop:
            came = time.monotonic()
            with files.FileLock(tmp_path / "lock", timeout=30):
                waits.append(time.monotonic() - came)
                time.sleep(0.002)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(waits) < 0.9, max(waits)  # a turn of all of them takes 0.03 s, or more where the machine is busy
    assert len(waits) > 40
