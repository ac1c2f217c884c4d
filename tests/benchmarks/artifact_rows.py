"""Big files and many small ones."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import gittrack
from tests.benchmarks import peer
from tests.benchmarks.measure import Figures, Row, Settings, timed, turn_about
from tests.benchmarks.populations import repository


def one_file(settings: Settings) -> list[Row]:
    """``log_artifact`` of one big file, and of the same file again."""
    megabytes = settings.size(1024, 64)
    source = settings.folder("source") / "model.bin"
    block = os.urandom(1 << 20)
    with source.open("wb") as out:
        for number in range(megabytes):
            out.write(number.to_bytes(8, "little") + block[8:])
    folder = repository(settings, "artifact")
    objects = folder / ".gittrack" / "objects"
    os.chdir(folder)
    copy = source.with_name("copy.bin")

    def digest() -> None:
        sha256, buffer = hashlib.sha256(), bytearray(1 << 20)
        with source.open("rb", buffering=0) as file:
            while size := file.readinto(buffer):
                sha256.update(memoryview(buffer)[:size])

    def cp() -> None:
        subprocess.run(["cp", "--reflink=never", str(source), str(copy)], check=True)

    def cp_synced() -> None:
        cp()
        subprocess.run(["sync", str(copy)], check=True)

    def copied(work: Callable[[], object]) -> float:
        took = timed(work)()
        copy.unlink()
        return took

    def log() -> None:
        gittrack.log_artifact(str(source))

    def first() -> float:
        took = timed(log)()
        for path in objects.iterdir():
            if re.fullmatch("[0-9a-f]{2}", path.name):
                shutil.rmtree(path)
        return took

    with gittrack.start_run():
        gittrack.log_metric("loss", 0.0)
        took = turn_about(
            settings.rounds,
            sha256=timed(digest),
            cp=lambda: copied(cp),
            cp_synced=lambda: copied(cp_synced),
            ours=first,
        )
        log()
        before = _used(objects)
        repeated = turn_about(settings.rounds, again=timed(log), sha256=timed(digest))
        grown = _used(objects) - before
    theirs = peer.ask(settings, "artifact", path=str(source), rounds=settings.size(3, 1))
    rates = {name: _rate(values, megabytes) for name, values in {**took, "again": repeated["again"]}.items()}
    name = min(("sha256", "cp"), key=lambda one: rates[one].median)
    return [
        Row(
            f"`log_artifact`, {megabytes:,} MiB",
            rates["ours"],
            rates[name],
            f"the slower of sha256 and cp: {name}",
            "≥ 70 % of it",
            _rate_or_none(theirs, "first", megabytes),
            f"sha256 {rates['sha256'].median:,.0f}, cp {rates['cp'].median:,.0f}, cp and sync"
            f" {rates['cp_synced'].median:,.0f} MiB/s; ours is synced; MLflow's is a copy without hash or sync",
        ),
        Row(
            "the same file again",
            rates["again"],
            _rate(repeated["sha256"], megabytes),
            "sha256",
            "no space",
            _rate_or_none(theirs, "again", megabytes),
            f"the store grew by {grown:,} bytes",
        ),
    ]


def folder_of_files(settings: Settings) -> list[Row]:
    """``log_artifacts`` of 10,000 files of 10 KiB."""
    count = settings.size(10_000, 300)
    source = settings.folder("many")
    for number in range(count):
        path = source / f"{number % 100:02d}" / f"{number}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(10_240))

    def ours() -> float:
        os.chdir(repository(settings, "many-artifacts"))
        with gittrack.start_run():
            return timed(lambda: gittrack.log_artifacts(str(source)))()

    def bound() -> float:
        target = settings.folder("copied")
        start = time.perf_counter()
        subprocess.run(["cp", "-r", "--reflink=never", f"{source}/.", str(target)], check=True)
        subprocess.run(["sync", "-f", str(target)], check=True)
        took = time.perf_counter() - start
        shutil.rmtree(target)
        return took

    took = turn_about(settings.rounds, ours=ours, bound=bound)
    return [
        Row(
            f"`log_artifacts`, {count:,} files of 10 KiB",
            Figures(tuple(took["ours"]), "s"),
            Figures(tuple(took["bound"]), "s"),
            "cp -r and one sync of the disk",
            "",
        )
    ]


def _used(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _rate(seconds: list[float], megabytes: int) -> Figures:
    return Figures(tuple(megabytes / value for value in seconds), "MiB")


def _rate_or_none(theirs: dict[str, list[float]] | None, name: str, megabytes: int) -> Figures | None:
    return None if theirs is None else _rate(theirs[name], megabytes)
