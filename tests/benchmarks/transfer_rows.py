"""One big artifact to another place and back: a folder on this machine, and an LFS server on loopback."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from gittrack.store.repo import Repo
from gittrack.sync import artifacts
from gittrack.sync.artifacts import Item
from gittrack.track.runs import Tracker
from tests.benchmarks.measure import Figures, Row, Settings, turn_about
from tests.benchmarks.populations import repository
from tests.transfer import servers


def transfer(settings: Settings) -> list[Row]:
    """Upload and download of one object, against ``cp`` and, over HTTP, against stock git-lfs."""
    megabytes = settings.size(1024, 64)
    source = settings.folder("big") / "model.bin"
    block = os.urandom(1 << 20)
    with source.open("wb") as out:
        for number in range(megabytes):
            out.write(number.to_bytes(8, "little") + block[8:])
    ours = Tracker(Repo.find(repository(settings, "sender"), create=True), strict=True)
    theirs = Tracker(Repo.find(repository(settings, "receiver"), create=True), strict=True)
    item = Item(*ours.repo.objects.put_file(source))
    rows = _folder(settings, ours, theirs, item, source, megabytes)
    if importlib.util.find_spec("giftless") is None:
        settings.log.append("no figures of an LFS server: pip install -e '.[sharing]'")
        return rows
    storage = settings.folder("giftless")
    with servers.giftless(storage) as url:
        there = storage / "org" / "project" / item.digest
        return rows + _server(settings, ours, theirs, item, source, there, f"{url}/org/project.git")


def _folder(settings: Settings, ours: Tracker, theirs: Tracker, item: Item, source: Path, megabytes: int) -> list[Row]:
    shelf, copy = settings.folder("shelf"), source.with_name("copy.bin")
    for tracker in (ours, theirs):
        _configure(tracker, "gittrack.artifacts", str(shelf))

    def upload() -> float:
        shutil.rmtree(shelf, ignore_errors=True)
        return _timed(lambda: artifacts.upload(ours, None, [item]))

    def download() -> float:
        theirs.repo.objects.delete(item.digest)
        return _timed(lambda: artifacts.ensure(theirs, [item]))

    def cp() -> float:
        copy.unlink(missing_ok=True)
        return _timed(lambda: subprocess.run(["cp", "--reflink=never", str(source), str(copy)], check=True))

    def cp_synced() -> float:
        copy.unlink(missing_ok=True)
        start = time.perf_counter()
        subprocess.run(["cp", "--reflink=never", str(source), str(copy)], check=True)
        subprocess.run(["sync", str(copy)], check=True)
        return time.perf_counter() - start

    took = turn_about(settings.rounds, upload=upload, download=download, cp=cp, cp_synced=cp_synced)
    for tracker in (ours, theirs):
        _configure(tracker, "gittrack.artifacts", None)
    note = f"cp without sync {_rate(took['cp'], megabytes).median:,.0f} MiB/s; ours is hashed and synced"
    return [
        Row(f"{verb} a folder, {megabytes:,} MiB", _rate(took[name], megabytes), _rate(took["cp_synced"], megabytes),
            "cp and sync", "", None, note)
        for verb, name in (("artifact to", "upload"), ("artifact from", "download"))
    ]  # fmt: skip


def _server(
    settings: Settings, ours: Tracker, theirs: Tracker, item: Item, source: Path, there: Path, url: str
) -> list[Row]:
    """``there`` is where the server keeps the object."""
    megabytes = item.size >> 20
    for tracker in (ours, theirs):
        _configure(tracker, "remote.origin.url", url)
    stock = settings.folder("stock")
    subprocess.run(["git", "init", "-q", str(stock)], check=True)
    subprocess.run(["git", "-C", str(stock), "config", "remote.origin.url", url], check=True)
    kept = stock / ".git" / "lfs" / "objects" / item.digest[:2] / item.digest[2:4] / item.digest
    kept.parent.mkdir(parents=True)
    shutil.copy(source, kept)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{item.digest}\nsize {item.size}\n"
    (stock / "model.bin").write_text(pointer)
    (stock / ".gitattributes").write_text("*.bin filter=lfs\n")
    plain = [
        "git",
        "-C",
        str(stock),
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.org",
        "-c",
        "filter.lfs.clean=cat",
    ]
    subprocess.run([*plain, "add", "."], check=True)
    subprocess.run([*plain, "commit", "-q", "-m", "pointer"], check=True)

    def upload() -> float:
        there.unlink(missing_ok=True)
        return _timed(lambda: artifacts.upload(ours, None, [item]))

    def download() -> float:
        theirs.repo.objects.delete(item.digest)
        return _timed(lambda: artifacts.ensure(theirs, [item]))

    def lfs(*words: str) -> None:
        subprocess.run(["git", "-C", str(stock), "lfs", *words], check=True, capture_output=True)

    def lfs_push() -> float:
        there.unlink(missing_ok=True)
        return _timed(lambda: lfs("push", "origin", "--object-id", item.digest))

    def lfs_fetch() -> float:
        kept.unlink(missing_ok=True)
        return _timed(lambda: lfs("fetch", "origin", "HEAD"))

    def cp() -> float:
        copy = source.with_name("copy.bin")
        copy.unlink(missing_ok=True)
        return _timed(lambda: subprocess.run(["cp", "--reflink=never", str(source), str(copy)], check=True))

    ways: dict[str, Callable[[], float]] = {"upload": upload, "lfs_push": lfs_push, "download": download, "cp": cp}
    took = turn_about(settings.rounds, **ways, lfs_fetch=lfs_fetch)
    note = f"cp {_rate(took['cp'], megabytes).median:,.0f} MiB/s; the server is giftless, on the same cores"
    return [
        Row(f"{verb} an LFS server, {megabytes:,} MiB", _rate(took[name], megabytes), _rate(took[bound], megabytes),
            f"stock git-lfs {bound.removeprefix('lfs_')}", "", None, note)
        for verb, name, bound in (("artifact to", "upload", "lfs_push"), ("artifact from", "download", "lfs_fetch"))
    ]  # fmt: skip


def _configure(tracker: Tracker, key: str, value: str | None) -> None:
    words = ["--unset", key] if value is None else [key, value]
    subprocess.run(["git", "-C", str(tracker.repo.paths.main_root), "config", *words], check=True)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _rate(seconds: list[float], megabytes: int) -> Figures:
    return Figures(tuple(megabytes / value for value in seconds), "MiB")
