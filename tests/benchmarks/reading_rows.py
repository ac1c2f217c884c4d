"""Starting up, listing 10,000 runs, searching among 100,000."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import gittrack
from tests.benchmarks import peer
from tests.benchmarks.measure import Figures, Row, Settings, process, timed, turn_about
from tests.benchmarks.populations import EXPERIMENT, FILTER, ORDER, populated, small_run

_MAIN = "import sys; from gittrack.cli.main import main; sys.exit(main())"


def start_up(settings: Settings) -> list[Row]:
    """``import gittrack``, and the shortest commands in a repository of 10,000 runs."""
    runs = settings.size(10_000, 500)
    folder = populated(settings, runs)
    python = sys.executable
    rounds = max(settings.rounds, settings.size(11, 3))
    works = {
        "bare": process(settings, [python, "-c", "pass"]),
        "load": process(settings, [python, "-c", "import gittrack"]),
        "use": process(settings, [python, "-c", "import gittrack; gittrack.start_run"]),
        "help": process(settings, [python, "-c", _MAIN, "--help"], folder=folder),
        "log": process(settings, [python, "-c", _MAIN, "log", "--oneline", "-n", "20"], folder=folder),
    }
    took = {name: Figures(tuple(values), "ms") for name, values in turn_about(rounds, **works).items()}
    theirs: dict[str, Figures | None] = dict.fromkeys(("load", "help", "log"))
    if settings.peer is not None:
        at = settings.folder("mlflow-list")
        made = peer.ask(settings, "many_runs", folder=at, runs=runs)
        command = [str(settings.peer), "-m", "mlflow"]
        environment = {"PYTHONPATH": "", "MLFLOW_TRACKING_URI": f"sqlite:///{at}/mlflow.db"}
        experiment = str(int(made["experiment"][0])) if made else "0"
        listing = [*command, "runs", "list", "--experiment-id", experiment]
        for name, arguments in {
            "load": [str(settings.peer), "-c", "import mlflow"],
            "help": [*command, "--help"],
            "log": listing,
        }.items():
            one = process(settings, arguments, env=environment)
            theirs[name] = Figures(tuple(turn_about(3, one=one)["one"]), "ms")
    bound = took["bare"]
    nothing = "`python -c pass`"
    return [
        Row("`import gittrack`", took["load"], bound, nothing, "+30 ms", theirs["load"]),
        Row("`import gittrack; gittrack.start_run` (names are loaded on use)", took["use"], bound, nothing, ""),
        Row("`gittrack --help`", took["help"], bound, nothing, "", theirs["help"]),
        Row(
            f"`gittrack log` among {runs:,} runs",
            took["log"],
            bound,
            nothing,
            "≤ 150 ms",
            theirs["log"],
            "20 runs; MLflow's `runs list` prints all of them",
        ),
    ]


def search(settings: Settings) -> list[Row]:
    """Top 50 by a metric, with a metric and a param in the filter, in a warm process."""
    runs = settings.size(100_000, 2_000)
    os.chdir(populated(settings, runs))
    client = gittrack.Client()
    start = time.perf_counter()
    found = client.search_runs([EXPERIMENT], FILTER, max_results=50, order_by=ORDER)
    cold = time.perf_counter() - start
    bare = _bare_table(settings.folder("bare") / "table.db", runs)

    def ours() -> None:
        assert len(client.search_runs([EXPERIMENT], FILTER, max_results=50, order_by=ORDER)) == len(found)

    def newest() -> None:
        assert len(client.search_runs([EXPERIMENT], max_results=50)) == min(50, runs)

    def bound() -> None:
        top = bare.execute(
            "SELECT m.run FROM metrics m WHERE m.key = 'acc' AND m.value > 0.5 AND EXISTS (SELECT 1 FROM params p"
            " WHERE p.run = m.run AND p.key = 'optimizer' AND p.value = 'adam-3') ORDER BY m.value DESC LIMIT 50"
        ).fetchall()
        for (run,) in top:
            bare.execute("SELECT key, value FROM metrics WHERE run = ?", (run,)).fetchall()
            bare.execute("SELECT key, value FROM params WHERE run = ?", (run,)).fetchall()

    assert [run.data.metrics["acc"] for run in found] == _expected(runs), "the search is wrong"
    took = turn_about(max(settings.rounds, 15), ours=timed(ours), newest=timed(newest), bound=timed(bound))
    bare.close()
    theirs = peer.ask(settings, "search", runs=runs, filter_string=FILTER, order_by=ORDER, rounds=settings.size(5, 1))
    return [
        Row(
            f"search among {runs:,} runs, top 50, warm",
            Figures(tuple(took["ours"]), "ms"),
            Figures(tuple(took["bound"]), "ms"),
            "hand-written SQL on two bare indexed tables",
            "≤ 20 ms",
            peer.figures(theirs, "search", "ms"),
            f"`{FILTER}` order by `{ORDER[0]}`; first call of the process {cold * 1e3:.0f} ms",
        ),
        Row(f"newest 50 of {runs:,} runs, warm", Figures(tuple(took["newest"]), "ms"), None, "", "≤ 20 ms"),
    ]


def _expected(runs: int) -> list[float]:
    values = []
    for number in range(runs):
        params, metrics, _ = small_run(number)
        if params["optimizer"] == "adam-3" and metrics["acc"] > 0.5:  # as in FILTER
            values.append(metrics["acc"])
    return sorted(values, reverse=True)[:50]


def _bare_table(path: Path, runs: int) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE metrics (run INTEGER, key TEXT, value REAL);"
        "CREATE TABLE params (run INTEGER, key TEXT, value TEXT);"
    )
    metrics: list[tuple[Any, ...]] = []
    params: list[tuple[Any, ...]] = []
    for number in range(runs):
        run_params, run_metrics, _ = small_run(number)
        metrics += [(number, key, value) for key, value in run_metrics.items()]
        params += [(number, key, value) for key, value in run_params.items()]
    database.executemany("INSERT INTO metrics VALUES (?, ?, ?)", metrics)
    database.executemany("INSERT INTO params VALUES (?, ?, ?)", params)
    database.executescript(
        "CREATE INDEX by_value ON metrics (key, value); CREATE INDEX by_run ON metrics (run);"
        "CREATE INDEX by_param ON params (run, key);"
    )
    return database
