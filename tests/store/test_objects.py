"""gittrack.store.objects: bytes go in once, come out checked, and are on disk before anybody names them."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from gittrack.errors import CorruptError, GittrackError, InvalidValueError, NotFoundError, StorageError
from gittrack.store import files, objects
from gittrack.store.objects import ObjectStore
from gittrack.types import Digest
from tests.store.syscalls import sweep, temporaries, watch

LARGE = objects._SMALL + 12_345
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / ".gittrack" / "objects")


class AnyFileSystem:
    """Contains every name."""

    def __contains__(self, name: str) -> bool:
        return True


@pytest.fixture(params=["each", "whole"])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How many files are synced: each on its own, or the file system as a whole (where this one can)."""
    if request.param == "each":
        monkeypatch.setattr(files, "open_for_whole_sync", lambda _folder: None)
    else:
        monkeypatch.setattr(objects, "_MANY", 2)
        monkeypatch.setattr(files, "_WHOLE", AnyFileSystem())  # no power is cut here
    return str(request.param)


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def contents(store: ObjectStore) -> dict[str, bytes]:
    """What is in the store, without its help."""
    if not store.root.exists():
        return {}
    return {path.name: path.read_bytes() for path in store.root.rglob("*") if path.is_file() and len(path.name) == 64}


def assert_sound(store: ObjectStore) -> None:
    """Every object has the bytes of its name, and no temporary file is left."""
    for name, data in contents(store).items():
        assert digest_of(data) == name
    assert temporaries(store.root) == []


# ---------------------------------------------------------------- in and out


@pytest.mark.parametrize("size", [0, 1, objects._SMALL, objects._SMALL + 1, 9_000_001])
def test_what_is_put_is_read(store: ObjectStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    source = write(tmp_path / "model.bin", data)
    digest, count = store.put_file(source)
    assert (digest, count) == (digest_of(data), size)
    assert store.put_bytes(data) == (digest, count)
    assert store.read(digest) == data
    assert store.path(digest) == store.root / digest[:2] / digest[2:4] / digest
    assert store.path(digest).read_bytes() == data
    assert store.has(digest)
    assert store.has(digest, size)
    assert not store.has(digest, size + 1)
    store.verify(digest)
    with store.open(digest) as stream:
        assert b"".join(iter(lambda: stream.read(100_000), b"")) == data
    store.copy_out(digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    assert source.read_bytes() == data
    assert_sound(store)


def test_objects_are_read_only_and_obey_the_umask(store: ObjectStore) -> None:
    before = os.umask(0o077)
    try:
        digest, _ = store.put_bytes(b"secret")
    finally:
        os.umask(before)
    assert store.path(digest).stat().st_mode & 0o777 == 0o400
    assert store.path(store.put_bytes(b"x")[0]).stat().st_mode & 0o777 == 0o444 & ~before


@pytest.mark.parametrize("size", [100, LARGE])
def test_the_same_bytes_are_stored_once(store: ObjectStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    digest, _ = store.put_file(write(tmp_path / "a", data))
    inode = store.path(digest).stat().st_ino
    os.utime(store.path(digest), (0, 0))
    store.put_file(write(tmp_path / "b", data))
    store.put_many([tmp_path / "a", tmp_path / "b"])
    assert store.path(digest).stat().st_ino == inode
    assert list(contents(store)) == [digest]
    assert time.time() - store.path(digest).stat().st_mtime < 1000  # young again, for a collection under way
    assert_sound(store)


def test_put_many_keeps_the_order(store: ObjectStore, tmp_path: Path, many: str) -> None:
    datas = [os.urandom(LARGE if n == 7 else n % 50) for n in range(300)]
    paths = [write(tmp_path / "src" / str(n), data) for n, data in enumerate(datas)]
    gc.collect()  # what tests before this one left open is not to be closed in the middle
    descriptors = len(os.listdir("/proc/self/fd"))
    assert store.put_many(iter(paths)) == [(digest_of(data), len(data)) for data in datas]
    assert {name: len(data) for name, data in contents(store).items()} == {digest_of(d): len(d) for d in datas}
    assert store.put_many([]) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert_sound(store)


def test_many_files_need_few_descriptors(store: ObjectStore, tmp_path: Path) -> None:
    paths = [write(tmp_path / "src" / str(n), b"%d" % n) for n in range(400)]
    code = (
        "import resource, sys; from pathlib import Path; from gittrack.store import files, objects\n"
        "if sys.argv[3] == 'each': files.open_for_whole_sync = lambda folder: None\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
        "print(len(objects.ObjectStore(Path(sys.argv[1])).put_many(sorted(Path(sys.argv[2]).iterdir()))))"
    )
    for way in ("each", "whole"):
        command = [sys.executable, "-c", code, str(tmp_path / way), str(paths[0].parent), way]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "400\n"


def test_a_file_that_grows_while_it_is_read_is_stored_as_read(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "log", b"x" * objects._SMALL)
    original = objects._read_all

    def growing(fd: int, limit: int) -> bytes:
        with source.open("ab") as file:
            file.write(b"y" * 100)
        return original(fd, limit)

    monkeypatch.setattr(objects, "_read_all", growing)
    digest, size = store.put_file(source)
    assert (digest, size) == (digest_of(source.read_bytes()), objects._SMALL + 100)
    assert_sound(store)


def test_objects_are_listed_and_deleted(store: ObjectStore, tmp_path: Path) -> None:
    assert list(store.iter_digests()) == []
    put = dict(store.put_bytes(b"%d" % n * n) for n in range(50))
    for name in ("ab", "ab/cd/short", "zz/zz/" + "0" * 64, "00/00/" + "f" * 64, "README", "00/x"):
        write(store.root / name / "x", b"")  # what is no object is passed over
    assert list(store.iter_digests()) == sorted(put.items())
    for digest, size in put.items():
        assert store.delete(digest) == size
        assert store.delete(digest) == 0
        assert not store.has(digest)
    assert list(store.iter_digests()) == []


def test_only_old_temporary_files_are_swept(store: ObjectStore, tmp_path: Path) -> None:
    assert store.sweep_tmp(0) == 0
    store.put_bytes(b"x")
    fd, old = files.create_temp(store.root / "tmp")
    os.close(fd)
    os.utime(old, (0, 0))
    fd, young = files.create_temp(store.root / "tmp")
    os.close(fd)
    assert store.sweep_tmp(3600) == 1
    assert temporaries(store.root) == [young]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kind", ["link", "pipe", "socket", "folder", "/dev/zero", "/dev/null"])
def test_only_regular_files_are_put(
    store: ObjectStore, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "canary", b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "canary")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        with pytest.raises(InvalidValueError):
            store.put_file(tmp_path / kind)
        with pytest.raises(InvalidValueError):
            store.put_many([tmp_path / "canary", tmp_path / kind])
    assert_sound(store)


def test_a_missing_file_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.put_file(tmp_path / "missing")


BAD = ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "../" + "a" * 61, "a" * 64 + "\n", "/" + "a" * 63, "é" * 64]


@pytest.mark.parametrize("digest", BAD)
def test_what_is_no_digest_names_no_file(store: ObjectStore, tmp_path: Path, digest: str) -> None:
    calls: list[Callable[[Digest], object]] = [
        store.path, store.has, store.open, store.read, store.verify, store.delete,
        lambda name: store.copy_out(name, tmp_path / "out"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(InvalidValueError):
            call(Digest(digest))


def test_what_is_not_here_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    missing = Digest("0" * 64)
    for call in (store.open, store.read, store.verify, lambda name: store.copy_out(name, tmp_path / "out")):
        with pytest.raises(NotFoundError, match=missing):
            call(missing)
    assert not (tmp_path / "out").exists()


def test_a_sparse_giant_is_refused_at_once(store: ObjectStore, tmp_path: Path) -> None:
    giant = tmp_path / "giant"
    giant.touch()
    try:
        os.truncate(giant, 1 << 43)
    except OSError:
        pytest.skip("the file system has no files of 8 TiB")
    start = time.monotonic()
    with pytest.raises(StorageError, match="No space left"):
        store.put_file(giant)
    assert time.monotonic() - start < 10
    assert_sound(store)


# ---------------------------------------------------------------- damage


def damage(store: ObjectStore, digest: Digest, how: str) -> None:
    path = store.path(digest)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    elif how == "cut":
        del data[-1]
    elif how == "longer":
        data += b"x"
    else:
        data.clear()
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "cut", "longer", "emptied"])
@pytest.mark.parametrize("size", [10, LARGE])
def test_damage_is_found_before_the_last_bytes_are_given_out(
    store: ObjectStore, tmp_path: Path, size: int, how: str
) -> None:
    data = os.urandom(size)
    digest, _ = store.put_bytes(data)
    damage(store, digest, how)
    for call in (store.read, store.verify, lambda name: store.copy_out(name, tmp_path / "out")):
        with pytest.raises(CorruptError, match=digest):
            call(digest)
    assert not (tmp_path / "out").exists()
    assert temporaries(tmp_path) == []
    got = io.BytesIO()
    with pytest.raises(CorruptError), store.open(digest) as stream:  # noqa: PT012 - it may fail at any of these
        while chunk := stream.read(1000):
            got.write(chunk)
    assert len(got.getvalue()) < store.path(digest).stat().st_size or how == "emptied"


@settings(max_examples=30)
@given(st.integers(1, 5000), st.integers(1, 1500))
def test_the_end_is_never_reached_unchecked(tmp_path_factory: pytest.TempPathFactory, size: int, step: int) -> None:
    """Also a reader that asks for exactly as many bytes as there are, and no more, gets the error."""
    store = ObjectStore(tmp_path_factory.mktemp("store"))
    digest, _ = store.put_bytes(bytes(size))
    damage(store, digest, "flipped")
    raw = objects._Verified(store._open(digest), digest)
    total = 0
    with pytest.raises(CorruptError):  # noqa: PT012 - it may fail at any of these
        while total < size:
            total += len(raw.read(min(step, size - total)) or b"")
    assert total < size


@pytest.mark.parametrize("how", ["cut", "longer", "emptied"])
@pytest.mark.parametrize("size", [10, LARGE])
def test_an_object_of_the_wrong_size_is_replaced_when_its_bytes_come_again(
    store: ObjectStore, tmp_path: Path, size: int, how: str
) -> None:
    data = os.urandom(size)
    digest, _ = store.put_bytes(data)
    damage(store, digest, how)
    store.put_file(write(tmp_path / "again", data))
    assert store.read(digest) == data


# ---------------------------------------------------------------- copying out


def test_copy_out_replaces_a_symlink_and_does_not_follow_it(store: ObjectStore, tmp_path: Path) -> None:
    digest, _ = store.put_bytes(b"new")
    canary = write(tmp_path / "canary", b"mine")
    (tmp_path / "out").symlink_to(canary)
    store.copy_out(digest, tmp_path / "out")
    assert canary.read_bytes() == b"mine"
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "out").read_bytes() == b"new"
    assert (tmp_path / "out").stat().st_mode & 0o200


def test_copy_out_makes_folders_below_the_root_and_leaves_it_by_no_way(store: ObjectStore, tmp_path: Path) -> None:
    digest, _ = store.put_bytes(b"new")
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    store.copy_out(digest, root / "a" / "b" / "c", root=root)
    assert (root / "a" / "b" / "c").read_bytes() == b"new"
    (root / "link").symlink_to(outside)
    for target in (root / "link" / "x", root / "link" / "y" / "x", root / ".." / "outside" / "x", outside / "x", root):
        with pytest.raises(InvalidValueError):
            store.copy_out(digest, target, root=root)
    assert list(outside.iterdir()) == []
    with pytest.raises(GittrackError):
        store.copy_out(digest, tmp_path / "missing" / "out")


def test_a_folder_that_is_swapped_for_a_symlink_meanwhile_is_not_followed(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = store.put_bytes(b"new")
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    original = files.copy_hashing

    def swapped(source: int, target: int | None) -> files.Copied:
        (root / "a").rename(tmp_path / "moved")
        (root / "a").symlink_to(outside)
        return original(source, target)

    monkeypatch.setattr(files, "copy_hashing", swapped)
    store.copy_out(digest, root / "a" / "x", root=root)
    assert list(outside.iterdir()) == []
    assert (tmp_path / "moved" / "x").read_bytes() == b"new"


def test_any_failing_call_of_copy_out_leaves_the_target_as_it_was(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = store.put_bytes(b"new" * 1000)
    target = tmp_path / "root" / "out"
    target.parent.mkdir()
    seen = watch(monkeypatch, tmp_path)

    def work() -> None:
        target.write_bytes(b"old")
        seen.forget()
        store.copy_out(digest, target)

    for _, raised in sweep(seen, work, ERRORS):
        assert target.read_bytes() == (b"old" if raised else b"new" * 1000)
        assert temporaries(tmp_path) == []


# ---------------------------------------------------------------- durability and faults


def test_one_file_is_on_disk_with_its_name_and_folders(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(monkeypatch, tmp_path)
    for data in (b"one", b"two", os.urandom(LARGE)):
        source = write(tmp_path / "src", data)
        seen.forget()
        store.put_file(source)
        seen.assert_durable()
        assert "replace" in {event[0] for event in seen.events}
        assert "whole" not in {event[0] for event in seen.events}


def test_many_files_are_on_disk_with_their_names_and_folders(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: str
) -> None:
    paths = [write(tmp_path / "src" / str(n), b"%d" % n) for n in range(300)]
    seen = watch(monkeypatch, tmp_path)
    store.put_many(paths)
    seen.assert_durable(whole=many == "whole")
    calls = [event[0] for event in seen.events]
    assert calls.count("replace") == 300
    assert calls.count("whole") == (2 if many == "whole" else 0)


def test_bytes_that_another_process_may_not_have_synced_are_synced_by_the_next(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = ObjectStore(store.root).put_bytes(b"shared")
    seen = watch(monkeypatch, tmp_path)
    store.put_bytes(b"shared")
    folder = store.path(digest).parent
    synced = {event[1] for event in seen.events if event[0] == "fsync"}
    assert synced == {str(folder), str(folder.parent), str(store.root)}


@pytest.mark.parametrize("work", ["bytes", "small file", "large file", "two files"])
def test_any_failing_call_of_a_put_leaves_whole_objects_and_no_temporary_file(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: str, work: str
) -> None:
    count = 0
    seen = watch(monkeypatch, tmp_path)

    def put() -> None:
        nonlocal count, store
        count += 1
        store = ObjectStore(tmp_path / str(count))
        one, two = b"one %d" % count, b"two %d" % count
        if work == "large file":
            one = os.urandom(LARGE)
        for name, data in (("one", one), ("two", two)):
            (tmp_path / name).write_bytes(data)
        seen.forget()
        if work == "bytes":
            expected = [store.put_bytes(one)]
        elif work == "two files":
            expected = store.put_many([tmp_path / "one", tmp_path / "two"])
        else:
            expected = [store.put_file(tmp_path / "one")]
        assert [digest for digest, _ in expected] == [digest_of(data) for data in (one, two)[: len(expected)]]

    for _, raised in sweep(seen, put, ERRORS):
        assert_sound(store)
        if raised:
            for name in ("one", "two"):  # the same call succeeds once the trouble is over
                digest, _ = store.put_file(tmp_path / name)
                assert store.read(digest) == (tmp_path / name).read_bytes()
        else:
            assert store.has(digest_of((tmp_path / "one").read_bytes()))


def test_a_folder_that_could_not_be_synced_makes_its_objects_be_written_anew(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(b"x")
    with monkeypatch.context() as patch:
        original = files.sync_dir

        def broken(path: str | Path) -> None:
            if len(Path(path).name) == 2:  # a shard
                raise files.failure(OSError(errno.EIO, os.strerror(errno.EIO)), path)
            original(path)

        patch.setattr(files, "sync_dir", broken)
        with pytest.raises(StorageError):
            store.put_bytes(b"x")
        assert store.has(digest)
    inode = store.path(digest).stat().st_ino
    seen = watch(monkeypatch, tmp_path)
    store.put_bytes(b"x")
    assert store.path(digest).stat().st_ino != inode
    seen.assert_durable()


def test_a_known_file_needs_no_space(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = write(tmp_path / "known", os.urandom(LARGE))
    other = write(tmp_path / "other", os.urandom(LARGE))
    digest, size = store.put_file(known)

    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:  # full when it comes to writing
        patch.setattr(os, "write", full)
        assert store.put_file(known) == (digest, size)
        with pytest.raises(StorageError, match="No space left"):
            store.put_file(other)
    with monkeypatch.context() as patch:  # known to be full before
        patch.setattr(files, "fits", lambda _fd, _size: False)
        assert store.put_file(known) == (digest, size)
        with pytest.raises(StorageError, match="No space left"):
            store.put_file(other)
    assert_sound(store)


def test_a_really_full_disk(tmp_path: Path) -> None:
    """`RLIMIT_FSIZE` acts like a full disk: the system cuts a write off in the middle."""
    code = (
        "import resource, sys; from pathlib import Path; from gittrack.store.objects import ObjectStore\n"
        "from gittrack.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))\n"
        "try: ObjectStore(Path(sys.argv[1])).put_file(Path(sys.argv[2]))\n"
        "except StorageError as error: print(error)"
    )
    source = write(tmp_path / "big", os.urandom(3_000_000))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), str(source)], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    assert_sound(ObjectStore(tmp_path / "store"))


# ---------------------------------------------------------------- together


def test_threads_and_processes_put_the_same_files_at_once(store: ObjectStore, tmp_path: Path) -> None:
    paths = [write(tmp_path / "src" / str(n), os.urandom(LARGE if n == 3 else 500)) for n in range(40)]
    code = (
        "import sys; from pathlib import Path; from gittrack.store.objects import ObjectStore\n"
        "store = ObjectStore(Path(sys.argv[1]))\n"
        "for path in sorted(Path(sys.argv[2]).iterdir()): store.put_file(path)"
    )
    command = [sys.executable, "-c", code, str(store.root), str(tmp_path / "src")]
    others = [subprocess.Popen(command) for _ in range(2)]
    threads = [threading.Thread(target=store.put_many, args=(paths,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(60) for other in others] == [0, 0]
    assert set(contents(store)) == {digest_of(path.read_bytes()) for path in paths}
    assert_sound(store)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["put", "many", "delete", "sweep"]), st.integers(0, 5)), max_size=25))
def test_a_store_behaves_like_a_dict(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]) -> None:
    folder = tmp_path_factory.mktemp("model")
    store = ObjectStore(folder / "store")
    model: dict[Digest, bytes] = {}
    for step, number in steps:
        data = b"%d" % number * number
        if step == "put":
            model[store.put_bytes(data)[0]] = data
        elif step == "many":
            paths = [write(folder / str(n), b"%d" % n * n) for n in range(number)]
            stored = [digest for digest, _ in store.put_many(paths)]
            model.update(zip(stored, (path.read_bytes() for path in paths), strict=True))
        elif step == "delete":
            assert store.delete(digest_of(data)) == len(model.pop(digest_of(data), b""))
        else:
            store.sweep_tmp(0)
        assert list(store.iter_digests()) == sorted((digest, len(data)) for digest, data in model.items())
    for digest, data in model.items():
        assert store.read(digest) == data


# ---------------------------------------------------------------- out without a copy


def test_a_link_is_the_object_and_read_only(store: ObjectStore, tmp_path: Path) -> None:
    digest, _ = store.put_bytes(b"weights")
    (tmp_path / "out").mkdir()
    for _ in range(2):  # the second time, the link is replaced
        store.copy_out(digest, tmp_path / "out" / "w", link=True)
    found = (tmp_path / "out" / "w").stat()
    assert found.st_mode & 0o222 == 0
    assert (found.st_ino == store.path(digest).stat().st_ino) or found.st_nlink == 1  # a reflink comes before a link
    assert os.listdir(tmp_path / "out") == ["w"]
    store.copy_out(digest, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_ino != store.path(digest).stat().st_ino
    assert (tmp_path / "copy").stat().st_mode & 0o200


def test_where_no_link_can_be_made_there_is_a_copy(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = store.put_bytes(b"weights")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "out").mkdir()
    store.copy_out(digest, tmp_path / "out" / "w", link=True)
    assert (tmp_path / "out" / "w").read_bytes() == b"weights"
    assert os.listdir(tmp_path / "out") == ["w"]


def test_a_damaged_object_is_not_linked_out(store: ObjectStore, tmp_path: Path) -> None:
    digest, _ = store.put_bytes(b"weights")
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(b"Weights")
    (tmp_path / "out").mkdir()
    with pytest.raises(CorruptError):
        store.copy_out(digest, tmp_path / "out" / "w", link=True)
    assert os.listdir(tmp_path / "out") == []


def test_copies_share_bytes_where_the_file_system_can(tmp_path: Path) -> None:
    program = shutil.which("mkfs.xfs")
    if program is None or os.geteuid() != 0:
        pytest.skip("no mkfs.xfs, or not root: no file system with reflinks can be made")
    image, mount = tmp_path / "image", tmp_path / "mount"
    with image.open("wb") as out:
        out.truncate(512 << 20)
    mount.mkdir()
    subprocess.run([program, "-q", "-m", "reflink=1", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        store = ObjectStore(mount / "objects")
        data = os.urandom(20 << 20)
        digest, _ = store.put_bytes(data)
        before = shutil.disk_usage(mount).used
        for number in range(5):
            store.copy_out(digest, mount / str(number), link=True)
        assert shutil.disk_usage(mount).used - before < 10 << 20
        (mount / "0").write_bytes(b"changed")  # nobody else's bytes change
        assert (mount / "1").read_bytes() == data
        assert store.read(digest) == data
        store.path(digest).chmod(0o644)
        with store.path(digest).open("r+b") as file:
            file.write(b"x" if data[:1] != b"x" else b"y")
        with pytest.raises(CorruptError):  # what was cloned is what was hashed
            store.copy_out(digest, mount / "6")
        assert not (mount / "6").exists()
    finally:
        subprocess.run(["umount", str(mount)], check=True)
