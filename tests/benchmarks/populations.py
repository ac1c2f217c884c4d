"""Repositories full of runs, made with the engine's own group commit and kept in the cache folder."""

from __future__ import annotations

import random
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from gittrack._version import __version__
from gittrack.store import codec, files, journal, record
from gittrack.store.repo import Repo
from gittrack.store.seal import seal
from tests.benchmarks.measure import Settings

EXPERIMENT: Final = "0"
#: What the search looks for: half of the runs have a greater `acc`, one in ten has this optimiser.
FILTER: Final = "metrics.acc > 0.5 and params.optimizer = 'adam-3'"
ORDER: Final = ["metrics.acc DESC"]
_START: Final = 1_750_000_000_000


def repository(settings: Settings, name: str) -> Path:
    """A git repository with one commit and an empty store."""
    folder = settings.folder(name)
    run_git(settings, folder, "init", "-q", "-b", "main")
    (folder / "train.py").write_text("print('training')\n" * 50)
    run_git(settings, folder, "add", ".")
    run_git(settings, folder, "commit", "-qm", "code")
    Repo.find(folder, create=True).close()
    return folder


def run_git(settings: Settings, folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """What git says; it must succeed."""
    return subprocess.run(
        ["git", *arguments], cwd=folder, input=stdin, env=settings.environment(), check=True, capture_output=True
    ).stdout


def small_run(number: int) -> tuple[dict[str, str], dict[str, float], dict[str, str]]:
    """Params (10), metrics (10) and tags (3) of the ``number``-th run; the same ones in every call."""
    chance = random.Random(number)
    params = {"optimizer": f"adam-{number % 10}", **{f"param_{i}": f"{chance.random():.6f}" for i in range(9)}}
    metrics = {"acc": chance.random(), **{f"metric_{i}": chance.random() for i in range(9)}}
    return params, metrics, {"team": f"t{number % 7}", "stage": "dev", "note": f"run number {number}"}


def populated(settings: Settings, runs: int) -> Path:
    """A repository with that many finished small runs in ledgers and in the index."""
    kept = settings.cache / f"runs-{runs}-{__version__}"
    if not (kept / "complete").exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        folder = repository(settings, f"population-{runs}")
        settings.say(f"made {runs:,} runs: {fill(folder, runs)}")
        shutil.move(folder, kept / "repo")
        (kept / "complete").touch()
    return kept / "repo"


def fill(folder: Path, runs: int) -> str:
    """Write the journals of ``runs`` finished runs, seal them all, index them; says what took how long.

    The journals are not synced one by one, as ending runs would: that is the difference between one process that
    ends 100,000 runs, and 100,000 that each wait for the disk.
    """
    repo = Repo.find(folder)
    begun = time.perf_counter()
    for number in range(runs):
        write_journal(repo, number)
    written = time.perf_counter()
    sealed = len(seal(repo))
    committed = time.perf_counter()
    repo.refresh()
    done = time.perf_counter()
    assert sealed == runs, f"{sealed} of {runs} runs were sealed"
    repo.close()
    return (
        f"journals {written - begun:.1f} s, sealed in {committed - written:.1f} s"
        f" ({runs / (committed - written):,.0f} runs/s), index brought up in {done - committed:.1f} s"
    )


def write_journal(repo: Repo, number: int) -> str:
    """The journal of one finished small run, not synced; its id."""
    params, metrics, tags = small_run(number)
    run_id = secrets.token_hex(16)
    now = _START + number * 1000
    folder = repo.live / run_id
    files.make_dirs(folder, durable=False)
    process = files.process_identity().to_list()
    opening = {"version": record.VERSION, "run_id": run_id, "process": process, "opened": now}
    writer = journal.JournalWriter(folder / "1.journal", codec.pack([record.OPEN, opening]))
    facts = {
        "run_id": run_id,
        "experiment_id": EXPERIMENT,
        "name": f"run-{number}",
        "user_id": "ana",
        "start_time": now,
        "parent_run_id": None,
        "tags": tags,
    }
    for event in (
        [record.CREATE, facts],
        [record.PARAMS, params],
        [record.METRICS, [[key, value, now + 1, 0] for key, value in metrics.items()]],
        [record.STATUS, "FINISHED", now + 900],
        [record.CLOSE],
    ):
        writer.append(codec.pack(event))
    writer.close()
    return run_id
