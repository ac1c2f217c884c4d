"""Small runs from start to commit, one at a time and many at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import gittrack
from gittrack.store import layout
from gittrack.store.repo import Repo
from gittrack.store.seal import seal
from tests.benchmarks import peer
from tests.benchmarks.logging_rows import wait_sealed
from tests.benchmarks.measure import Figures, Row, Settings, turn_about
from tests.benchmarks.populations import repository, run_git, small_run, write_journal


def small_runs(settings: Settings) -> list[Row]:
    """10 params, 10 metrics, 3 tags; through the public functions."""
    count = settings.size(200, 20)
    folder = repository(settings, "small-runs")
    os.chdir(folder)
    files = settings.folder("bare")
    (files / "pack").mkdir()
    (files / "refs").mkdir()

    def one(number: int) -> str:
        params, metrics, tags = small_run(number)
        with gittrack.start_run() as run:
            gittrack.log_params(params)
            gittrack.log_metrics(metrics)
            gittrack.set_tags(tags)
        return str(run.info.run_id)

    def alone() -> float:
        start = time.perf_counter()
        run_id = one(1)
        took = time.perf_counter() - start  # ended: on disk, and this is what a training script waits for
        ended.append(took)
        wait_sealed(folder, run_id)
        return time.perf_counter() - start

    def bound() -> float:
        start = time.perf_counter()
        _durable(files / "pack", b"x" * 3000)
        _durable(files / "refs", b"x" * 41)
        return time.perf_counter() - start

    def in_a_row() -> float:
        start = time.perf_counter()
        ids = [one(number) for number in range(count)]
        wait_sealed(folder, *ids)
        return count / (time.perf_counter() - start)

    ended: list[float] = []
    alone()  # the first run of a process also imports what sealing needs
    rounds = max(settings.rounds, settings.size(15, 3))
    took = turn_about(rounds, ours=alone, bound=bound)
    waited = Figures(tuple(ended[-rounds:]), "ms")
    rate = turn_about(settings.rounds, ours=in_a_row)
    theirs = peer.ask(settings, "small_runs", runs=[small_run(number) for number in range(settings.size(60, 6))])
    runs = peer.figures(theirs, "run", "ms")
    return [
        Row(
            "a small run, `start_run` to sealed commit",
            Figures(tuple(took["ours"]), "ms"),
            Figures(tuple(took["bound"]), "ms"),
            "two small files, durable (2 fsyncs each of file and folder)",
            "10× MLflow",
            runs,
        ),
        Row("a small run, until `end_run` returns (on disk)", waited, None, "", "10× MLflow", runs),
        Row(
            f"{count} small runs in a row, to the last sealed commit",
            Figures(tuple(rate["ours"]), "runs"),
            None,
            "",
            "10× MLflow",
            peer.figures(theirs, "run", "runs"),
        ),
    ]


def _durable(folder: Path, data: bytes) -> None:
    """The least: a file that is there after a power cut."""
    temporary = folder / "temporary"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    temporary.rename(folder / "final")
    above = os.open(folder, os.O_RDONLY)
    os.fsync(above)
    os.close(above)


def batches(settings: Settings) -> list[Row]:
    """Many finished journals sealed at once, against ``git fast-import`` of the very same objects."""
    count = settings.size(1000, 100)
    first = repository(settings, "sealed")
    made = Repo.find(first)
    for number in range(count):
        write_journal(made, number)
    seal(made)
    stream = _stream(settings, first)

    def ours() -> float:
        repo = Repo.find(repository(settings, "seal"))
        for number in range(count):
            write_journal(repo, number)
        start = time.perf_counter()
        assert len(seal(repo)) == count
        took = time.perf_counter() - start
        repo.close()
        return count / took

    def bound() -> float:
        target = settings.folder("fast-import")
        run_git(settings, target, "init", "-q", "--bare")
        start = time.perf_counter()
        run_git(settings, target, "-c", "core.fsync=all", "fast-import", "--quiet", stdin=stream)
        return count / (time.perf_counter() - start)

    took = turn_about(settings.rounds, ours=ours, bound=bound)
    return [
        Row(
            f"{count:,} finished runs sealed at once",
            Figures(tuple(took["ours"]), "runs"),
            Figures(tuple(took["bound"]), "runs"),
            "`git fast-import` of the same commits, all synced",
            "near `git fast-import`",
            None,
            "ours reads the journals, makes the objects, publishes the ledger and brings the index up to date",
        )
    ]


def _stream(settings: Settings, folder: Path) -> bytes:
    """Everything that sealing made in the repository, for ``git fast-import``."""
    repo = Repo.find(folder)
    runs = [commit for ledger in repo.ledgers().values() for _, commit in repo.git.ledger_read(ledger)]
    listed = b"".join(b"create refs/export/%d %s\n" % (at, commit.encode()) for at, commit in enumerate(runs))
    run_git(settings, folder, "update-ref", "--stdin", stdin=listed)
    names = [f"refs/export/{at}" for at in range(len(runs))]
    names += [ref for ref in repo.ledgers() if layout.parse_ledger_ref(ref)]
    repo.close()
    wanted = "\n".join(names).encode()
    return run_git(settings, folder, "fast-export", "--full-tree", "--stdin", stdin=wanted)
