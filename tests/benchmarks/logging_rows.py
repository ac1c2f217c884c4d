"""One ``log_metric``, many at once, many processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

import gittrack
from gittrack import stores
from gittrack.types import Metric
from tests.benchmarks import peer
from tests.benchmarks.measure import Figures, Row, Settings, timed, turn_about
from tests.benchmarks.populations import repository

_NOW: Final = 1_750_000_000_000


def log_metric(settings: Settings) -> list[Row]:
    """One call at a time, in a training loop."""
    calls = settings.size(50_000, 5_000)
    folder = repository(settings, "log-metric")
    os.chdir(folder)
    bare = os.open(settings.folder("bare") / "frames", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pack = msgpack.Packer().pack

    def ours() -> float:
        start = time.perf_counter()
        for step in range(calls):
            gittrack.log_metric("loss", step / 3, step=step)
        return (time.perf_counter() - start) / calls

    def bound() -> float:
        start = time.perf_counter()
        for step in range(calls):
            os.write(bare, pack((1, "loss", step / 3, _NOW + step, step)))
        return (time.perf_counter() - start) / calls

    with gittrack.start_run():
        took = turn_about(settings.rounds, ours=ours, bound=bound)
        single = []
        for step in range(calls):
            start = time.perf_counter()
            gittrack.log_metric("loss", step / 3, step=step)
            single.append(time.perf_counter() - start)
    single.sort()
    os.close(bare)
    theirs = peer.ask(settings, "log_metric", calls=settings.size(300, 30), rounds=3)
    note = (
        f"single calls: p50 {single[len(single) // 2] * 1e6:.1f} µs, p99 {single[len(single) * 99 // 100] * 1e6:.1f} µs"
    )
    return [
        Row(
            "`log_metric`, one call",
            Figures(tuple(took["ours"]), "us"),
            Figures(tuple(took["bound"]), "us"),
            "msgpack record + one write",
            "≤ 2× the bound; 1,000× MLflow",
            peer.figures(theirs, "call", "us"),
            note,
        )
    ]


def points(settings: Settings) -> list[Row]:
    """A million points by the batch call; one history of 100,000 read back."""
    count, chunk, back = settings.size(1_000_000, 50_000), 1000, settings.size(100_000, 10_000)
    folder = repository(settings, "points")
    os.chdir(folder)
    client = gittrack.Client()
    run_id = client.create_run("0").info.run_id
    metrics = [Metric("many", step / 3, _NOW + step, step) for step in range(count)]
    history = client.create_run("0").info.run_id
    client.log_batch(history, [Metric("loss", step / 3, _NOW + step, step) for step in range(back)])
    client.set_terminated(history)
    wait_sealed(folder, history)

    def write() -> float:
        start = time.perf_counter()
        for first in range(0, count, chunk):
            client.log_batch(run_id, metrics[first : first + chunk])
        return (time.perf_counter() - start) / count

    bare = os.open(settings.folder("bare") / "frames", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pack = msgpack.Packer().pack

    def write_bound() -> float:
        start = time.perf_counter()
        for first in range(0, count, chunk):
            rows = [(m.key, m.value, m.timestamp, m.step) for m in metrics[first : first + chunk]]
            os.write(bare, pack(rows))
        return (time.perf_counter() - start) / count

    rows = msgpack.packb([(step, _NOW + step, step / 3) for step in range(back)])
    tracker = stores.tracker()

    def columns() -> None:
        assert len(tracker.metric_history(history, "loss")) == back

    def entities() -> None:
        assert len(client.get_metric_history(history, "loss")) == back

    def plain() -> None:
        assert len(msgpack.unpackb(rows)) == back

    def make() -> None:
        plain()
        assert len([Metric("loss", v, t, s) for s, t, v in msgpack.unpackb(rows)]) == back

    rounds = max(settings.rounds, 3)
    wrote = turn_about(rounds, ours=write, bound=write_bound)
    read = turn_about(rounds, columns=timed(columns), entities=timed(entities), plain=timed(plain), make=timed(make))
    os.close(bare)
    theirs = peer.ask(
        settings, "points", count=settings.size(20_000, 2_000), chunk=chunk, back=back, rounds=settings.size(3, 1)
    )
    rate = {name: Figures(tuple(1 / value for value in values), "points") for name, values in wrote.items()}
    return [
        Row(
            f"{count:,} points, `log_batch` of {chunk:,}",
            rate["ours"],
            rate["bound"],
            "msgpack rows + one write a batch",
            "≥ 0.5 M/s",
            peer.figures(theirs, "point", "points"),
        ),
        Row(
            f"read back {back:,} points, columns",
            Figures(tuple(read["columns"]), "ms"),
            Figures(tuple(read["plain"]), "ms"),
            "msgpack unpacking rows",
            "≤ 30 ms",
            None,
            "`Tracker.metric_history`, what the command line and plots use; of a sealed run",
        ),
        Row(
            f"read back {back:,} points, MLflow's entities",
            Figures(tuple(read["entities"]), "ms"),
            Figures(tuple(read["make"]), "ms"),
            "unpacking and making a list of `Metric`",
            "",
            peer.figures(theirs, "history", "ms"),
            "`Client.get_metric_history`; MLflow's figure is of 20,000 points, scaled",
        ),
    ]


def wait_sealed(folder: Path, *run_ids: str) -> None:
    """Until these runs are commits."""
    live = folder / ".gittrack" / "live"
    while any((live / run_id).exists() for run_id in run_ids):
        time.sleep(0.0005)


_MEMBER = """
import os, sys, time
kind, calls, folder, bare = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
if kind == "ours":
    import gittrack
    os.chdir(folder)
    gittrack.start_run()
    gittrack.log_metric("loss", 0.0)
    time.sleep(0.5)  # the capture of code and environment is not what is measured
    def one(step): gittrack.log_metric("loss", step / 3, step=step)
else:
    import msgpack  # type: ignore[import-untyped]  # it ships no types
    fd = os.open(f"{bare}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pack = msgpack.Packer().pack
    def one(step): os.write(fd, pack((1, "loss", step / 3, 1750000000000 + step, step)))
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
for step in range(calls): one(step)
print(time.perf_counter() - start, flush=True)
os._exit(0)
"""


def crowd(settings: Settings) -> list[Row]:
    """Eight processes log into one store."""
    processes, calls = 8, settings.size(1000, 100)
    folder, bare = repository(settings, "crowd"), settings.folder("bare")

    def members(kind: str) -> float:
        command = [sys.executable, "-c", _MEMBER, kind, str(calls), str(folder), str(bare)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        running = [
            subprocess.Popen(command, env=settings.environment(), **pipes)  # type: ignore[call-overload]
            for _ in range(processes)
        ]
        for member in running:
            assert member.stdout.readline() == "ready\n"
        start = time.perf_counter()
        for member in running:
            member.stdin.write("go\n")
            member.stdin.flush()
        for member in running:
            assert float(member.stdout.readline()) > 0
        took = time.perf_counter() - start
        for member in running:
            member.communicate()
        return processes * calls / took

    took = turn_about(settings.rounds, ours=lambda: members("ours"), bound=lambda: members("bound"))
    theirs = peer.ask(settings, "crowd", processes=processes, calls=settings.size(50, 5), rounds=settings.size(3, 1))
    return [
        Row(
            f"{processes} processes × {calls:,} `log_metric`, one store",
            Figures(tuple(took["ours"]), "calls"),
            Figures(tuple(took["bound"]), "calls"),
            "the same processes packing and writing",
            "",
            peer.figures(theirs, "call", "calls"),
        )
    ]
