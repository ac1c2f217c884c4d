"""Connections break, processes are killed, disks are full: the next call goes on, and nothing half counts."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gittrack.errors import NetworkError, StorageError
from gittrack.store.objects import ObjectStore
from gittrack.store.repo import Repo
from gittrack.sync import artifacts
from gittrack.sync.artifacts import Item
from gittrack.track.runs import Tracker
from gittrack.types import Digest
from tests.transfer.conftest import LARGE, Clone
from tests.transfer.fake import FakeLfs, Request

#: All cases, as ``tests.faults`` has them.
FULL = os.environ.get("GITTRACK_FAULTS") == "full"
SEEDS = range(40 if FULL else 3)
KILLS = range(40 if FULL else 2)


@pytest.fixture
def ben(ben_at_server: Clone) -> Clone:
    """A clone whose remote is the server."""
    return ben_at_server


def item_of(data: bytes) -> Item:
    return Item(Digest(hashlib.sha256(data).hexdigest()), len(data))


def assert_sound(store: ObjectStore) -> None:
    """Every object has the bytes of its name."""
    for digest, _ in store.iter_digests():
        store.verify(digest)


# --- broken connections


@pytest.mark.parametrize("seed", SEEDS)
def test_downloads_over_a_line_that_breaks(ben: Clone, server: FakeLfs, seed: int) -> None:
    chance = random.Random(seed)
    contents = [LARGE + b"%d" % number for number in range(3)] + [b"small %d" % number for number in range(5)]
    items = [item_of(data) for data in contents]
    server.objects.update({str(item.digest): data for item, data in zip(items, contents, strict=True)})

    def get(request: Request) -> None:
        data, start = server.slice(request)
        cut = chance.randrange(2 * len(data)) if data and chance.random() < 0.7 else len(data)
        total = start + len(data)
        request.head(
            206 if start else 200, Content_Length=str(len(data)), Content_Range=f"bytes {start}-{total - 1}/{total}"
        )
        request.wfile.write(data[:cut])
        server.served += min(cut, len(data))
        if cut < len(data):
            request.cut()

    server.get = get
    for _ in range(20):
        try:
            artifacts.ensure(ben.tracker, items)
        except NetworkError:
            assert_sound(ben.tracker.repo.objects)
        else:
            break
    assert [ben.tracker.repo.objects.read(item.digest) for item in items] == contents
    assert ben.temporaries() == []


def test_what_came_is_not_fetched_again(ben: Clone, server: FakeLfs) -> None:
    item = item_of(LARGE)
    server.objects[item.digest] = LARGE

    def get(request: Request) -> None:
        data, start = server.slice(request)
        total = start + len(data)
        request.head(
            206 if start else 200, Content_Length=str(len(data)), Content_Range=f"bytes {start}-{total - 1}/{total}"
        )
        request.wfile.write(data[:500_000])
        server.served += len(data[:500_000])
        if len(data) > 500_000:
            request.close_connection = True  # all that was sent arrives, unlike after a reset

    server.get = get
    artifacts.ensure(ben.tracker, [item])
    assert server.served == len(LARGE)
    assert [headers.get("Range") for headers in server.requests("GET")] == [
        None, *(f"bytes={at}-" for at in range(500_000, len(LARGE), 500_000))
    ]  # fmt: skip


@pytest.mark.parametrize("status", [200, 416])
def test_a_server_that_cannot_go_on_starts_anew(ben: Clone, server: FakeLfs, status: int) -> None:
    item = item_of(LARGE)
    server.objects[item.digest] = LARGE

    def get(request: Request) -> None:
        _, start = server.slice(request)
        if start and status == 416:
            request.answer(416)
        elif len(server.requests("GET")) == 1:
            request.head(200, Content_Length=str(len(LARGE)))
            request.wfile.write(LARGE[:700_000])
            request.close_connection = True
        else:
            request.answer(200, LARGE)

    server.get = get
    heard: list[int] = []
    artifacts.ensure(ben.tracker, [item], progress=lambda done, _: heard.append(done))
    assert heard[-1] == len(LARGE)
    assert ben.tracker.repo.objects.read(item.digest) == LARGE


@pytest.mark.parametrize("seed", SEEDS)
def test_uploads_over_a_line_that_breaks(ben: Clone, server: FakeLfs, seed: int) -> None:
    chance = random.Random(seed)
    contents = [LARGE + b"%d" % number for number in range(3)] + [b"small %d" % number for number in range(5)]
    items = ben.put(*contents)

    def put(request: Request) -> None:
        way = chance.random()
        if way < 0.3:
            request.rfile.read(chance.randrange(1 + int(request.headers["Content-Length"])))
            request.cut()
        elif way < 0.6:
            request.body()
            request.answer(chance.choice([500, 502, 503]))
        else:
            server.good_put(request)

    server.put = put
    heard: list[int] = []
    for _ in range(20):
        try:
            artifacts.upload(ben.tracker, None, items, progress=lambda done, _: heard.append(done))
        except NetworkError:
            continue
        break
    assert server.objects == {str(item.digest): data for item, data in zip(items, contents, strict=True)}
    assert all(0 <= done <= sum(map(len, contents)) for done in heard)


def test_an_answer_that_is_lost_makes_no_harm(ben: Clone, server: FakeLfs) -> None:
    """The server has it, and could not say so."""
    items = ben.put(LARGE)

    def put(request: Request) -> None:
        server.objects[request.path.rpartition("/")[2]] = request.body()
        request.cut()

    server.put = put
    with pytest.raises(NetworkError):
        artifacts.upload(ben.tracker, None, items)
    assert artifacts.upload(ben.tracker, None, items).skipped == 1


def test_an_upload_of_many_goes_on_with_the_missing_ones(ben: Clone, server: FakeLfs) -> None:
    """What the server has is not sent again; what broke off is sent from its beginning: LFS cannot go on inside."""
    contents = [b"object %d" % number for number in range(20)] + [LARGE]
    items = ben.put(*contents)
    large, stored = str(items[-1].digest), threading.Lock()

    def put(request: Request) -> None:
        if request.path.startswith("/again/"):  # else it is of the first time, however late it comes
            server.good_put(request)
            return
        with stored:
            if len(server.objects) < 5 and not request.path.endswith(large):
                server.good_put(request)
                return
        request.rfile.read(1)
        request.cut()

    server.put = put
    with pytest.raises(NetworkError, match=r"; \d of 21 objects were moved") as broken:
        artifacts.upload(ben.tracker, None, items)
    assert "goes on from there" in str(broken.value.hint)
    kept = set(server.objects)
    assert len(kept) == 5
    server.action = lambda operation, oid, _size: {operation: {"href": f"{server.url}/again/{oid}"}}
    assert artifacts.upload(ben.tracker, None, items).count == 16
    sent = {path.rpartition("/")[2]: headers for _, path, headers in server.seen if path.startswith("/again/")}
    assert sorted(sent) == sorted({str(item.digest) for item in items} - kept)
    headers = sent[large]
    assert int(headers["Content-Length"]) == len(LARGE)
    assert not {"Range", "Content-Range"} & set(headers)


# --- killed


_MOVE = """
import sys
from pathlib import Path
from gittrack.store.repo import Repo
from gittrack.sync import artifacts
from gittrack.sync.artifacts import Item
from gittrack.track.runs import Tracker
tracker = Tracker(Repo.find(Path(sys.argv[1])), strict=True)
items = [Item(word.partition(":")[0], int(word.partition(":")[2])) for word in sys.argv[3:]]
print("ready", flush=True)
if sys.argv[2] == "upload":
    artifacts.upload(tracker, None, items)
else:
    artifacts.ensure(tracker, items)
"""


def move_and_kill(clone: Clone, verb: str, items: list[Item], after: float) -> None:
    words = [f"{item.digest}:{item.size}" for item in items]
    process = subprocess.Popen([sys.executable, "-c", _MOVE, str(clone.path), verb, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("seed", KILLS)
@pytest.mark.parametrize("place", ["server", "folder"])
def test_killed_in_a_download(ana: Clone, ben: Clone, server: FakeLfs, remote: Path, seed: int, place: str) -> None:
    contents = [LARGE + bytes([number]) for number in range(6)] + [b"small %d" % number for number in range(20)]
    items = ana.put(*contents)
    if place == "folder":
        ben.git("remote", "set-url", "origin", str(remote))
        artifacts.upload(ana.tracker, None, items)
    server.objects.update({str(item.digest): data for item, data in zip(items, contents, strict=True)})
    chance = random.Random(seed)
    for _ in range(2):
        move_and_kill(ben, "download", items, chance.uniform(0.08, 0.35))
        assert_sound(ben.tracker.repo.objects)
    artifacts.ensure(ben.tracker, items)
    assert [ben.tracker.repo.objects.read(item.digest) for item in items] == contents
    assert not [path for path in ben.temporaries() if path.name.endswith(".part")]


@pytest.mark.parametrize("seed", KILLS)
@pytest.mark.parametrize("place", ["server", "folder"])
def test_killed_in_an_upload(ben: Clone, server: FakeLfs, remote: Path, seed: int, place: str) -> None:
    contents = [LARGE + bytes([number]) for number in range(6)] + [b"small %d" % number for number in range(20)]
    items = ben.put(*contents)
    if place == "folder":
        ben.git("remote", "set-url", "origin", str(remote))

    def put(request: Request) -> None:
        data = request.body()
        if len(data) == int(request.headers["Content-Length"]):  # as servers do: nothing half is kept
            server.objects[request.path.rpartition("/")[2]] = data
            request.answer(200)

    server.put = put
    chance = random.Random(seed)
    for _ in range(2):
        move_and_kill(ben, "upload", items, chance.uniform(0.08, 0.35))
        if place == "folder":
            assert_sound(ObjectStore(remote / "lfs" / "objects"))
    artifacts.upload(ben.tracker, None, items)
    if place == "folder":
        assert {digest for digest, _ in ObjectStore(remote / "lfs" / "objects").iter_digests()} == {
            i.digest for i in items
        }
        assert_sound(ObjectStore(remote / "lfs" / "objects"))
    else:
        assert server.objects == {str(item.digest): data for item, data in zip(items, contents, strict=True)}


# --- full


@pytest.fixture
def small_disk(ben: Clone) -> Iterator[Path]:
    """Ben's objects are on a disk of 4 MiB."""
    root = ben.tracker.repo.objects.root
    mount = shutil.which("mount")
    words = [str(mount), "-t", "tmpfs", "-o", "size=4m", "none", str(root)]
    if mount is None or os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield root
    subprocess.run(["umount", str(root)], check=True)


@pytest.mark.parametrize("place", ["server", "folder"])
def test_a_full_disk(ana: Clone, ben: Clone, server: FakeLfs, remote: Path, small_disk: Path, place: str) -> None:
    contents = [LARGE + bytes([number]) for number in range(3)] + [b"small"]
    items = ana.put(*contents)
    if place == "folder":
        ben.git("remote", "set-url", "origin", str(remote))
        artifacts.upload(ana.tracker, None, items)
    server.objects.update({str(item.digest): data for item, data in zip(items, contents, strict=True)})
    with pytest.raises(StorageError, match="No space left") as failed:
        artifacts.ensure(ben.tracker, items)
    assert "free some space" in str(failed.value.hint)
    assert_sound(ben.tracker.repo.objects)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    artifacts.ensure(ben.tracker, items)
    assert [ben.tracker.repo.objects.read(item.digest) for item in items] == contents


# --- together


def test_many_processes_fetch_the_same_model_once(ben: Clone, server: FakeLfs) -> None:
    item = item_of(LARGE)
    server.objects[item.digest] = LARGE
    plain = server.get

    def slow(request: Request) -> None:
        time.sleep(0.5)
        plain(request)

    server.get = slow
    word = f"{item.digest}:{item.size}"
    crew = [
        subprocess.Popen([sys.executable, "-c", _MOVE, str(ben.path), "download", word], stdout=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert [process.wait() for process in crew] == [0, 0, 0, 0]
    assert server.served == len(LARGE)
    assert Tracker(Repo.find(ben.path)).repo.objects.read(item.digest) == LARGE
    assert ben.temporaries() == []
