"""Artifacts between clones and a remote on the same machine, and what of it holds for every depot."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from gittrack.errors import CorruptError, NotFoundError
from gittrack.sync import artifacts
from gittrack.sync.artifacts import Item, Moved
from gittrack.types import Digest
from tests.conftest import run_git
from tests.transfer.conftest import LARGE, Clone

SMALL = b"weights"


def absent(data: bytes) -> Item:
    return Item(Digest(hashlib.sha256(data).hexdigest()), len(data))


def test_objects_go_through_the_remotes_lfs_folder(ana: Clone, ben: Clone, remote: Path) -> None:
    items = ana.put(LARGE, SMALL, b"")
    total = len(LARGE) + len(SMALL)
    heard: list[tuple[int, int | None]] = []
    assert artifacts.upload(ana.tracker, None, items, progress=lambda *told: heard.append(told)) == Moved(3, total, 0)
    assert heard[-1] == (total, total)
    assert artifacts.upload(ana.tracker, "origin", items) == Moved(0, 0, 3)
    for item in items:
        path = remote / "lfs" / "objects" / item.digest[:2] / item.digest[2:4] / item.digest
        assert hashlib.sha256(path.read_bytes()).hexdigest() == item.digest
    assert list((remote / "lfs" / "tmp").iterdir()) == []

    assert artifacts.ensure(ben.tracker, items[:1]) == Moved(1, len(LARGE), 0)
    assert artifacts.ensure(ben.tracker, items) == Moved(2, len(SMALL), 1)
    assert artifacts.ensure(ben.tracker, items) == Moved(0, 0, 3)
    assert [ben.tracker.repo.objects.read(item.digest) for item in items] == [LARGE, SMALL, b""]
    assert ben.temporaries() == []


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")
def test_stock_git_lfs_reads_what_was_uploaded_and_its_objects_are_used(ana: Clone, ben: Clone) -> None:
    run = ana.tracker.create_run()
    run.log_bytes(LARGE, "model.bin")
    run.end()
    ana.tracker.close()
    found = ana.tracker.repo.artifacts(run.run_id)
    artifacts.upload(ana.tracker, None, Item.of(found.values()))
    ana.git("push", "-q", "origin", "refs/runs/*:refs/runs/*")

    ben.git("fetch", "-q", "origin", "refs/runs/*:refs/runs/*")
    commit = ben.tracker.get_run(run.run_id).commit
    assert commit is not None
    ben.git("lfs", "fetch", "origin", commit)
    ben.git("remote", "remove", "origin")
    assert artifacts.ensure(ben.tracker, Item.of(found.values())).count == 1
    assert ben.tracker.read_artifact(run.run_id, "model.bin") == LARGE


@pytest.mark.parametrize("form", ["path", "file", "relative", "insteadof"])
def test_a_local_remote_in_every_spelling(ana: Clone, ben: Clone, remote: Path, form: str) -> None:
    items = ana.put(SMALL)
    artifacts.upload(ana.tracker, None, items)
    url = {"path": str(remote), "file": remote.as_uri(), "relative": "../remote.git", "insteadof": "lab:remote.git"}[
        form
    ]
    ben.git("remote", "set-url", "origin", url)
    ben.git("config", f"url.{remote.parent}/.insteadOf", "lab:")
    artifacts.ensure(ben.tracker, items)
    assert ben.has(items) == [True]
    assert artifacts.upload(ben.tracker, url, items) == Moved(0, 0, 1)


def test_the_store_of_a_colleagues_clone_is_read(ana: Clone, ben: Clone) -> None:
    items = ana.put(LARGE)
    artifacts.ensure(ben.tracker, items, remote=str(ana.path))
    assert ben.has(items) == [True]
    assert artifacts.upload(ben.tracker, str(ana.path), items).count == 1  # for stock git-lfs, which looks only there


def test_what_nobody_has_is_named_and_the_rest_comes(ana: Clone, ben: Clone) -> None:
    items = ana.put(SMALL, LARGE)
    artifacts.upload(ana.tracker, None, items)
    gone = absent(b"gone")
    with pytest.raises(
        NotFoundError, match=rf"`{gone.digest[:12]}` is neither in this clone nor at .*remote.git"
    ) as failed:
        artifacts.ensure(ben.tracker, [gone, *items])
    assert "gittrack push" in str(failed.value.hint)
    assert ben.has(items) == [True, True]
    with pytest.raises(NotFoundError, match=r"2 artifact objects: .* are neither in this clone nor at"):
        artifacts.upload(ben.tracker, None, [*items, gone, absent(b"x")])


def test_without_a_remote_the_error_says_so(ana: Clone) -> None:
    ana.git("remote", "remove", "origin")
    with pytest.raises(NotFoundError, match="is not in this clone, and there is no remote") as failed:
        artifacts.ensure(ana.tracker, [absent(b"gone")])
    assert "git remote add" in str(failed.value.hint)
    with pytest.raises(NotFoundError, match="there is no remote"):
        artifacts.upload(ana.tracker, None, ana.put(SMALL))
    with pytest.raises(NotFoundError, match="no remote `backup`"):
        artifacts.upload(ana.tracker, "backup", ana.put(SMALL))


def test_a_dry_run_moves_nothing(ana: Clone, remote: Path) -> None:
    assert artifacts.upload(ana.tracker, None, ana.put(SMALL), dry_run=True) == Moved(1, len(SMALL), 0)
    assert not (remote / "lfs").exists()


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_wrong_bytes_do_not_count(ana: Clone, ben: Clone, remote: Path, content: bytes) -> None:
    (item,) = ana.put(content)
    artifacts.upload(ana.tracker, None, [item])
    path = remote / "lfs" / "objects" / item.digest[:2] / item.digest[2:4] / item.digest
    path.chmod(0o644)
    path.write_bytes(b"x" + content[1:])
    with pytest.raises(CorruptError, match=item.digest):
        artifacts.ensure(ben.tracker, [item])
    assert ben.has([item]) == [False]
    path.write_bytes(content[:-1])  # its size alone says that it is not there
    with pytest.raises(NotFoundError):
        artifacts.ensure(ben.tracker, [item])
    artifacts.upload(ana.tracker, None, [item])  # so it is put there again
    artifacts.ensure(ben.tracker, [item])
    assert ben.tracker.repo.objects.read(item.digest) == content


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_a_damaged_object_of_this_clone_is_not_sent(ana: Clone, remote: Path, content: bytes) -> None:
    (item,) = ana.put(content)
    path = ana.tracker.repo.objects.path(item.digest)
    path.chmod(0o644)
    path.write_bytes(b"x" + content[1:])
    with pytest.raises(CorruptError, match=item.digest):
        artifacts.upload(ana.tracker, None, [item])
    assert not (remote / "lfs" / "objects" / item.digest[:2]).exists()


@pytest.mark.parametrize("have", [LARGE[:70_000], b"z" * 70_000, LARGE, LARGE + b"more"])
def test_a_part_that_is_here_is_gone_on_with_or_replaced(ana: Clone, ben: Clone, have: bytes) -> None:
    (item,) = ana.put(LARGE)
    artifacts.upload(ana.tracker, None, [item])
    part = ben.tracker.repo.objects.root / "tmp" / f".tmp-{item.digest}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(have)
    if have.startswith(b"z"):
        with pytest.raises(CorruptError):
            artifacts.ensure(ben.tracker, [item])
        assert part.stat().st_size == 0
    artifacts.ensure(ben.tracker, [item])
    assert ben.tracker.repo.objects.read(item.digest) == LARGE
    assert ben.tracker.repo.objects.path(item.digest).stat().st_mode & 0o222 == 0
    assert ben.temporaries() == []


def test_many_small_objects(ana: Clone, ben: Clone) -> None:
    items = ana.put(*(os.urandom(100) for _ in range(300)))
    assert artifacts.upload(ana.tracker, None, items).count == 300
    assert artifacts.ensure(ben.tracker, items).count == 300
    for item in items:
        ben.tracker.repo.objects.verify(item.digest)


def test_a_folder_that_is_no_repository_is_no_remote(ana: Clone, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(NotFoundError, match="no git repository"):
        artifacts.ensure(ana.tracker, [absent(b"x")], remote=str(tmp_path / "plain"))
    with pytest.raises(NotFoundError, match="no git repository"):  # not the one around it
        artifacts.ensure(ana.tracker, [absent(b"x")], remote=str(ana.path / "lib"))
    assert run_git(ana.path, "status", "--short") == ""
