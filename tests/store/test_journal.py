"""gittrack.store.journal: what was appended is there, whatever happens to the process, the disk or the last write."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gittrack.errors import CorruptError, GittrackError, InvalidValueError, ReadOnlyError, StateError, StorageError
from gittrack.store import codec, journal
from gittrack.store.journal import JournalWriter, iter_journal, list_journals, read_journal, repair
from tests.store.syscalls import sweep, temporaries, watch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "live" / "run"
    folder.mkdir(parents=True)
    return folder / "a.journal"


def payloads(path: Path) -> list[bytes]:
    return read_journal(path)[0]


# ---------------------------------------------------------------- writing and reading


def test_what_is_appended_is_read(path: Path) -> None:
    writer = JournalWriter(path, b"opening")
    assert payloads(path) == [b"opening"]
    for number in range(100):
        writer.append(b"%d" % number)
    assert payloads(path) == [b"opening", *(b"%d" % number for number in range(100))]
    assert writer.path == path
    assert writer.size == path.stat().st_size == read_journal(path)[1]
    writer.sync()
    writer.close()
    assert len(payloads(path)) == 101


def test_a_reader_goes_on_where_it_was(path: Path) -> None:
    writer = JournalWriter(path, b"opening")
    found, offset = read_journal(path)
    assert read_journal(path, offset) == ([], offset)
    writer.append(b"one")
    writer.append(b"two")
    assert read_journal(path, limit=2) == ([b"opening", b"one"], offset + 11)
    found, end = read_journal(path, offset)
    assert found == [b"one", b"two"]
    assert end == writer.size
    assert read_journal(path.with_name("missing"), 7) == ([], 7)
    assert read_journal(path, 10_000) == ([], 10_000)


@given(sizes=st.lists(st.integers(1, 300_000), max_size=6), offset=st.integers(0, 6))
def test_frames_of_any_size_are_read_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], offset: int
) -> None:
    path = tmp_path_factory.mktemp("run") / "a.journal"
    written = [b"o", *(bytes([number]) * size for number, size in enumerate(sizes))]
    path.write_bytes(b"".join(map(codec.frame, written)))
    found = list(iter_journal(path))
    assert [payload for _, payload in found] == written
    start = min(offset, len(sizes))
    assert list(iter_journal(path, found[start][0])) == found[start + 1 :]


def test_the_largest_frame_is_read(path: Path) -> None:
    writer = JournalWriter(path, b"o")
    writer.append(b"x" * codec.MAX_FRAME)
    writer.append(b"end")
    assert [len(payload) for payload in payloads(path)] == [1, codec.MAX_FRAME, 3]


@pytest.mark.parametrize("payload", [b"", b"x" * (codec.MAX_FRAME + 1)])
def test_what_no_frame_holds_is_refused(path: Path, payload: bytes) -> None:
    with pytest.raises(InvalidValueError):
        JournalWriter(path, payload)
    assert list(path.parent.iterdir()) == []
    writer = JournalWriter(path, b"o")
    with pytest.raises(InvalidValueError):
        writer.append(payload)
    assert payloads(path) == [b"o"]


def test_a_journal_is_never_taken_over(path: Path) -> None:
    JournalWriter(path, b"first").close()
    with pytest.raises(StorageError):
        JournalWriter(path, b"second")
    assert payloads(path) == [b"first"]
    assert list(path.parent.iterdir()) == [path]


def test_no_journal_is_seen_before_it_says_whose_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, path.parent)
    JournalWriter(path, b"opening")
    names = [event for event in seen.events if str(path) in event[1:]]
    assert names[0] == ("rename", f"{path}{journal.OPENING}", str(path))
    assert ("write", f"{path}{journal.OPENING}") in seen.events


def test_a_closed_journal_is_not_written(path: Path) -> None:
    writer = JournalWriter(path, b"o")
    writer.close()
    writer.close()
    assert not writer.is_open
    with pytest.raises(StateError):
        writer.append(b"x")
    with pytest.raises(StateError):
        writer.sync()
    with pytest.raises(StateError):
        writer.finish(b"x")
    assert payloads(path) == [b"o"]


def test_finish_is_the_last_word(path: Path) -> None:
    writer = JournalWriter(path, b"o")
    writer.append(b"x")
    writer.finish(b"end")
    assert not writer.is_open
    with pytest.raises(StateError):
        writer.append(b"late")
    assert payloads(path) == [b"o", b"x", b"end"]


def test_a_journal_may_be_gone_once_its_last_word_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process commits the run between the last frame and the sync of it."""
    writer = JournalWriter(path, b"o")
    write = JournalWriter._write_whole

    def write_and_be_sealed(self: JournalWriter, data: bytes) -> None:
        write(self, data)
        shutil.rmtree(path.parent)

    monkeypatch.setattr(JournalWriter, "_write_whole", write_and_be_sealed)
    writer.finish(b"end")
    assert not writer.is_open
    assert not path.parent.exists()


def test_a_last_word_that_does_not_fit_closes_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(path, b"o")
    seen = watch(monkeypatch, path.parent)
    writer.sync()  # its name is on disk: the next call is the write
    seen.arm(1, errno.ENOSPC)
    with pytest.raises(StorageError):
        writer.finish(b"end")
    assert not writer.is_open
    assert payloads(path) == [b"o"]


def test_descriptors_are_given_back(path: Path) -> None:
    JournalWriter(path, b"o").close()  # the null device stays open, once
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        writer = JournalWriter(path.with_name(f"{number}.journal"), b"o")
        if number % 2:
            writer.close()
        del writer
    assert len(os.listdir("/proc/self/fd")) == before


# ---------------------------------------------------------------- torn and damaged files


def test_every_truncation_gives_the_longest_valid_prefix_and_is_repaired(path: Path) -> None:
    written = [b"opening", b"x" * 40, bytes(3), b"last"]
    data = b"".join(map(codec.frame, written))
    ends = [0]
    for payload in written:
        ends.append(ends[-1] + len(codec.frame(payload)))
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert read_journal(path) == (written[:whole], ends[whole])
        assert repair(path) == cut - ends[whole]
        assert path.read_bytes() == data[: ends[whole]]
        assert repair(path) == 0


@given(st.binary(max_size=300))
def test_any_bytes_behind_good_frames_are_cut(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    path = tmp_path_factory.mktemp("run") / "a.journal"
    good = codec.frame(b"one") + codec.frame(b"two")
    path.write_bytes(good + tail)
    found, end = read_journal(path)
    assert found[:2] == [b"one", b"two"]
    repair(path)
    assert path.read_bytes() == (good + tail)[:end]
    assert read_journal(path) == (found, end)


def test_repair_is_on_disk_when_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(codec.frame(b"one") + b"torn")
    seen = watch(monkeypatch, path.parent)
    assert repair(path) == 4
    calls = [event[0] for event in seen.events]
    assert calls.index("ftruncate") < calls.index("fsync")


def test_only_regular_files_are_journals(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(InvalidValueError):
        read_journal(path)
    path.unlink()
    (path.parent / "target").write_bytes(codec.frame(b"x") + b"torn")
    path.symlink_to(path.parent / "target")
    with pytest.raises(InvalidValueError):
        read_journal(path)
    with pytest.raises(GittrackError):
        repair(path)
    assert (path.parent / "target").read_bytes().endswith(b"torn")


def test_journals_are_listed_by_run(tmp_path: Path) -> None:
    live = tmp_path / "live"
    assert list_journals(live) == {}
    for name in ("run1/b.journal", "run1/a.journal", "run1/x.tmp", "run2/c.journal", "..odd/a.journal", "empty/x"):
        (live / name).parent.mkdir(parents=True, exist_ok=True)
        (live / name).write_bytes(b"")
    (live / "file.journal").write_bytes(b"")
    (live / "linked").symlink_to(live / "run1")
    (live / "run2" / "link.journal").symlink_to(live / "run1" / "a.journal")
    assert list_journals(live) == {
        "run1": [live / "run1" / "a.journal", live / "run1" / "b.journal"],
        "run2": [live / "run2" / "c.journal"],
    }


# ---------------------------------------------------------------- faults


def test_any_failing_call_of_the_start_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, path.parent)
    made: list[JournalWriter] = []

    def work() -> None:
        made.append(JournalWriter(path, b"opening"))

    for _, raised in sweep(seen, work, (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS)):
        if raised:
            assert list(path.parent.iterdir()) == []
        else:
            assert payloads(path) == [b"opening"]
            made.pop().close()
            path.unlink()


def test_any_failing_call_of_an_append_or_sync_loses_nothing_that_was_acknowledged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(path, b"opening")
    seen = watch(monkeypatch, path.parent.parent)
    acknowledged = [b"opening"]
    count = 0

    def work() -> None:
        nonlocal count
        for _ in range(2):
            count += 1
            payload = b"%d" % count
            writer.append(payload)
            acknowledged.append(payload)
        writer.sync()

    for _, _raised in sweep(seen, work, (errno.ENOSPC, errno.EIO, errno.EROFS)):
        assert payloads(path) == acknowledged
        assert temporaries(path.parent) == []
        writer.sync()
        assert writer.is_open


def test_the_first_sync_also_puts_the_name_on_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, path.parent.parent)
    writer = JournalWriter(path, b"opening")
    assert not {"fsync", "fdatasync"} & {event[0] for event in seen.events}
    writer.sync()
    synced = [event for event in seen.events if event[0] in ("fsync", "fdatasync")]
    assert synced == [("fdatasync", str(path)), ("fsync", str(path.parent)), ("fsync", str(path.parent.parent))]
    seen.forget()
    writer.append(b"x")
    writer.sync()
    assert seen.events == [("write", str(path)), ("fdatasync", str(path))]


@pytest.mark.parametrize("failing", ["the file", "its folder"])
def test_after_a_failed_sync_the_bytes_are_written_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    writer = JournalWriter(path, b"opening")
    writer.append(b"one")
    inode = path.stat().st_ino
    seen = watch(monkeypatch, path.parent.parent)
    seen.arm(1 if failing == "the file" else 3, errno.EIO)  # the first call, or the one behind (sync, open folder)
    writer.sync()
    assert seen.failed
    assert path.stat().st_ino != inode
    rename = next(at for at, event in enumerate(seen.events) if event[0] == "replace")
    old_syncs = [event for event in seen.events[1:rename] if event == ("fdatasync", str(path))]
    assert old_syncs == []
    seen.assert_durable()
    writer.append(b"two")
    writer.sync()
    assert payloads(path) == [b"opening", b"one", b"two"]


def test_a_sync_that_cannot_be_made_good_fails_until_it_can(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(path, b"opening")

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        patch.setattr(os, "fdatasync", broken)
        for _ in range(2):
            with pytest.raises(StorageError, match="Input/output error"):
                writer.sync()
            writer.append(b"x")
        patch.setattr(os, "fdatasync", lambda _fd: None)  # the system says "done" now, though the bytes may be lost
        with pytest.raises(StorageError):
            writer.sync()
    writer.sync()
    assert payloads(path) == [b"opening", b"x", b"x"]
    assert temporaries(path.parent) == []


def test_frames_that_the_disk_lost_are_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(path, b"opening")
    writer.append(b"one")
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    seen = watch(monkeypatch, path.parent)
    seen.arm(1, errno.EIO)
    with pytest.raises(CorruptError, match="lost 11 bytes"):
        writer.sync()
    writer.append(b"two")
    writer.sync()
    assert payloads(path) == [b"opening", b"two"]


@pytest.mark.parametrize("landed", [1, 7, 8, 12])
def test_a_write_that_was_cut_off_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch, landed: int) -> None:
    writer = JournalWriter(path, b"opening")
    room = [landed]

    def short(fd: int, data: bytes) -> int:
        if not room:
            return os.write(fd, data)
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(fd, data[: room[0]])
        room[0] = 0
        return written

    monkeypatch.setattr(journal, "_write", short)
    for _ in range(3):
        with pytest.raises(StorageError, match="No space left") as caught:
            writer.append(b"a longer payload")
        assert caught.value.errno == errno.ENOSPC
        assert payloads(path) == [b"opening"]
        assert path.stat().st_size == writer.size == len(codec.frame(b"opening"))
    room.clear()
    writer.append(b"after")
    assert payloads(path) == [b"opening", b"after"]


def test_a_torn_write_that_cannot_be_taken_back_keeps_later_appends_out_until_it_can(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(path, b"opening")
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_write", lambda fd, data: os.write(fd, data[:5]))

        def broken(_fd: int, _size: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(os, "ftruncate", broken)
        for _ in range(2):
            with pytest.raises(StorageError, match="Input/output error"):
                writer.append(b"lost")
        assert payloads(path) == [b"opening"]
    monkeypatch.setattr(os, "fdatasync", lambda _fd: None)
    writer.append(b"after")
    writer.sync()
    assert payloads(path) == [b"opening", b"after"]
    assert repair(path) == 0


def test_frames_that_other_threads_appended_behind_a_torn_one_are_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(path, b"opening")

    def torn_then_overtaken(fd: int, data: bytes) -> int:
        monkeypatch.setattr(journal, "_write", os.write)
        written = os.write(fd, data[:11])
        writer.append(b"another thread")
        return written

    monkeypatch.setattr(journal, "_write", torn_then_overtaken)
    writer.append(b"first")
    assert payloads(path) == [b"opening", b"another thread", b"first"]


_FILL = """
import os, resource, sys
from pathlib import Path
from gittrack.errors import StorageError
from gittrack.store.journal import JournalWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
writer = JournalWriter(Path(sys.argv[1]), b"opening")
number = 0
try:
    while True:
        writer.append(b"%06d" % number * 5)
        number += 1
except StorageError as error:
    print(number, error.errno, error.hint)
try:
    writer.append(b"still full, and long enough not to fit")
except StorageError:
    print("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append(b"space again")
"""


def test_a_full_disk_costs_only_what_it_refused(path: Path) -> None:
    """The system itself cuts the write off here: the limit of the file size acts like a full disk."""
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(path), "10000"], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    number, error, hint = first.split(" ", 2)
    assert (int(error), second) == (errno.EFBIG, "full")
    assert "ulimit -f" in hint
    expected = [b"%06d" % n * 5 for n in range(int(number))]
    assert payloads(path) == [b"opening", *expected, b"space again"]
    assert repair(path) == 0


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        JournalWriter(tmp_path / "missing" / "a.journal", b"o")


def test_a_read_only_file_system_is_said_to_be_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, path.parent)
    seen.arm(1, errno.EROFS)
    with pytest.raises(ReadOnlyError, match="Read-only file system"):
        JournalWriter(path, b"o")


_KILLED = """
import os, sys
from pathlib import Path
from gittrack.store.journal import JournalWriter
writer = JournalWriter(Path(sys.argv[1]), b"opening")
for number in range(100):
    writer.append(b"%d" % number)
os.kill(os.getpid(), 9)
"""


def test_kill_9_loses_nothing_that_was_appended(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert payloads(path) == [b"opening", *(b"%d" % number for number in range(100))]


# ---------------------------------------------------------------- threads, signals, forks


def test_threads_share_a_journal_while_it_is_read_and_synced(path: Path) -> None:
    writer = JournalWriter(path, b"opening")
    seen: list[bytes] = []
    stop = threading.Event()

    def log(who: int) -> None:
        for number in range(500):
            writer.append(b"%d %d %s" % (who, number, b"x" * (number % 90)))

    def read() -> None:
        offset = 0
        while not stop.is_set():
            found, offset = read_journal(path, offset)
            seen.extend(found)
            writer.sync()
        seen.extend(read_journal(path, offset)[0])

    reader = threading.Thread(target=read)
    loggers = [threading.Thread(target=log, args=(who,)) for who in range(6)]
    reader.start()
    for thread in loggers:
        thread.start()
    for thread in loggers:
        thread.join()
    stop.set()
    reader.join()
    assert seen == payloads(path)
    assert len(seen) == 1 + 6 * 500
    for who in range(6):  # each thread's own order is kept
        mine = [int(p.split()[1]) for p in seen[1:] if p.split()[0] == b"%d" % who]
        assert mine == list(range(500))


def test_closing_while_others_append_writes_into_no_other_file(path: Path) -> None:
    for attempt in range(20):
        target = path.with_name(f"{attempt}.journal")
        writer = JournalWriter(target, b"opening")
        acknowledged: list[bytes] = []
        started = threading.Event()

        def log(writer: JournalWriter, acknowledged: list[bytes], started: threading.Event) -> None:
            try:
                for number in range(1_000_000):
                    writer.append(b"%d" % number)
                    acknowledged.append(b"%d" % number)
                    started.set()
            except StateError:
                pass

        thread = threading.Thread(target=log, args=(writer, acknowledged, started))
        thread.start()
        started.wait()
        writer.close()
        bystanders = [(path.parent / f"{attempt}-{n}").open("wb") for n in range(5)]  # they get the free descriptors
        thread.join()
        for file in bystanders:
            file.close()
            assert Path(file.name).read_bytes() == b""
        assert payloads(target) == [b"opening", *acknowledged]


def test_a_signal_handler_may_log_and_sync(path: Path) -> None:
    writer = JournalWriter(path, b"opening")
    handled = 0

    def handler(_number: int, _frame: object) -> None:
        nonlocal handled
        handled += 1
        writer.append(b"signal")
        writer.sync()

    before = signal.signal(signal.SIGALRM, handler)
    logged = 0
    try:
        for attempt in range(200):
            signal.setitimer(signal.ITIMER_REAL, 0.00001 + attempt % 20 * 0.0001)  # into the appends, or into the sync
            for _ in range(50):
                writer.append(b"loop")
                logged += 1
            writer.sync()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found = payloads(path)
    assert handled > 20
    assert found.count(b"loop") == logged
    assert found.count(b"signal") == handled


def test_a_forked_child_does_not_write_into_its_parents_journal(path: Path) -> None:
    writer = JournalWriter(path, b"opening")
    append = writer.append
    child = os.fork()
    if not child:
        status = 1
        try:
            assert not writer.is_open
            try:
                append(b"child")
            except StateError:
                status = 0
            writer.close()
            JournalWriter(path.with_name("child.journal"), b"child's own")
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    writer.append(b"parent")
    writer.sync()
    assert payloads(path) == [b"opening", b"parent"]
    assert payloads(path.with_name("child.journal")) == [b"child's own"]


def test_a_fork_in_the_middle_of_a_sync_does_not_hang_the_child(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(path, b"opening")
    inside, leave = threading.Event(), threading.Event()

    def slow(_fd: int) -> None:
        inside.set()
        leave.wait(30)

    monkeypatch.setattr(os, "fdatasync", slow)
    thread = threading.Thread(target=writer.sync)
    thread.start()
    inside.wait(30)
    writer.append(b"not held up")
    child = os.fork()
    if not child:
        signal.alarm(20)
        writer.close()
        os._exit(0 if not writer.is_open else 1)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    thread.join()
    assert payloads(path) == [b"opening", b"not held up"]


def test_a_process_out_of_descriptors_says_so(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    JournalWriter(path.with_name("0.journal"), b"o").close()
    most = max(map(int, os.listdir("/dev/fd"))) + 20  # other tests of this process may have some open
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    taken = []
    try:
        for spare in range(4):
            with suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            for fd in taken[:spare]:
                os.close(fd)
            del taken[:spare]
            target = path.with_name(f"with {spare}.journal")
            if spare < 2:  # the journal's own, and the one that never becomes another file's
                with pytest.raises(StorageError, match="Too many open files"):
                    JournalWriter(target, b"o")
                assert not target.exists()
                assert not Path(f"{target}{journal.OPENING}").exists()
            else:
                JournalWriter(target, b"o").append(b"x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
