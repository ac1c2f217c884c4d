"""Artifacts through an LFS server that this project did not write, and stock git-lfs on the other side."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gittrack.errors import NotFoundError
from gittrack.store.repo import Repo
from gittrack.sync import artifacts
from gittrack.sync.artifacts import Item, Moved
from gittrack.track.runs import Tracker
from gittrack.types import Digest
from tests.conftest import run_git
from tests.transfer import servers
from tests.transfer.conftest import LARGE, Clone

servers.needs("giftless", "figcan", "flask_classful", "webargs")

needs_git_lfs = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.giftless(tmp_path_factory.mktemp("giftless")) as url:
        yield url


@pytest.fixture
def remote_url(server: str, tmp_path: Path) -> str:
    """A repository of its own on the server."""
    return f"{server}/org/{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}.git"


@pytest.mark.parametrize("key", ["remote.origin.url", "lfs.url", "remote.origin.lfsurl"])
def test_objects_go_and_come(ana: Clone, ben: Clone, remote_url: str, key: str) -> None:
    for clone in (ana, ben):
        clone.git("config", key, remote_url if key == "remote.origin.url" else f"{remote_url}/info/lfs")
    items = ana.put(LARGE, b"weights", b"")
    total = len(LARGE) + len(b"weights")
    heard: list[tuple[int, int | None]] = []
    assert artifacts.upload(ana.tracker, None, items, progress=lambda *told: heard.append(told)) == Moved(3, total, 0)
    assert heard[-1] == (total, total)
    assert artifacts.upload(ana.tracker, None, items) == Moved(0, 0, 3)
    heard.clear()
    assert artifacts.ensure(ben.tracker, items, progress=lambda *told: heard.append(told)) == Moved(3, total, 0)
    assert heard[-1] == (total, total)
    assert [ben.tracker.repo.objects.read(item.digest) for item in items] == [LARGE, b"weights", b""]
    assert ben.temporaries() == []


def test_more_objects_than_are_asked_for_at_once(ana: Clone, ben: Clone, remote_url: str) -> None:
    items = ana.put(*(os.urandom(50) for _ in range(230)))
    for clone in (ana, ben):
        clone.git("remote", "set-url", "origin", remote_url)
    assert artifacts.upload(ana.tracker, None, items[:120]).count == 120
    assert artifacts.upload(ana.tracker, None, items) == Moved(110, 5500, 120)
    assert artifacts.ensure(ben.tracker, items).count == 230
    for item in items:
        ben.tracker.repo.objects.verify(item.digest)


def test_what_the_server_lacks_is_named_and_the_rest_comes(ana: Clone, ben: Clone, remote_url: str) -> None:
    items = ana.put(LARGE, b"x")
    gone = Item(Digest("0" * 64), 5)
    for clone in (ana, ben):
        clone.git("remote", "set-url", "origin", remote_url)
    with pytest.raises(NotFoundError, match=r"`000000000000` is neither in this clone nor at `http://127.*/info/lfs`"):
        artifacts.ensure(ben.tracker, [gone])  # the server has nothing at all, and says that in another way
    artifacts.upload(ana.tracker, None, items)
    with pytest.raises(NotFoundError, match=r"`000000000000` is neither in this clone nor at"):
        artifacts.ensure(ben.tracker, [*items, gone])
    assert ben.has(items) == [True, True]


@needs_git_lfs
def test_stock_git_lfs_fetches_what_was_uploaded(ana: Clone, ben: Clone, remote: Path, remote_url: str) -> None:
    run = ana.tracker.create_run()
    run.log_bytes(LARGE, "model.bin")
    run.end()
    ana.tracker.close()
    for clone in (ana, ben):
        clone.git("config", "lfs.url", f"{remote_url}/info/lfs")
    items = Item.of(ana.tracker.repo.artifacts(run.run_id).values())
    artifacts.upload(ana.tracker, None, items)
    ana.git("push", "-q", "origin", "refs/runs/*:refs/runs/*")
    ben.git("fetch", "-q", "origin", "refs/runs/*:refs/runs/*")
    commit = ben.tracker.get_run(run.run_id).commit
    assert commit is not None
    ben.git("lfs", "fetch", "origin", commit)
    fetched = ben.path / ".git" / "lfs" / "objects" / items[0].digest[:2] / items[0].digest[2:4] / items[0].digest
    assert fetched.read_bytes() == LARGE


@needs_git_lfs
def test_what_stock_git_lfs_pushed_is_fetched(ana: Clone, ben: Clone, remote_url: str, tmp_path: Path) -> None:
    (item,) = ana.put(LARGE)
    run_git(tmp_path, "init", "-q", "stock")
    stock = tmp_path / "stock"
    run_git(stock, "remote", "add", "origin", remote_url)
    path = stock / ".git" / "lfs" / "objects" / item.digest[:2] / item.digest[2:4] / item.digest
    path.parent.mkdir(parents=True)
    path.write_bytes(LARGE)
    run_git(stock, "lfs", "push", "origin", "--object-id", item.digest)
    ben.git("remote", "set-url", "origin", remote_url)
    assert artifacts.ensure(ben.tracker, [item]).count == 1
    assert ben.tracker.repo.objects.read(item.digest) == LARGE


def test_two_clones_fetch_the_same_object_once(ana: Clone, ben: Clone, remote_url: str) -> None:
    import threading

    items = ana.put(LARGE)
    for clone in (ana, ben):
        clone.git("remote", "set-url", "origin", remote_url)
    artifacts.upload(ana.tracker, None, items)
    other = Tracker(Repo.find(ben.path), strict=True)
    done: list[Moved] = []
    crew = [
        threading.Thread(target=lambda tracker=tracker: done.append(artifacts.ensure(tracker, items)))
        for tracker in (ben.tracker, other)
    ]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert len(done) == 2
    assert ben.tracker.repo.objects.read(items[0].digest) == LARGE
    assert ben.temporaries() == []
