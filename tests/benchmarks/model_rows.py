"""Models: a forest is logged."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gittrack
from tests.benchmarks import peer
from tests.benchmarks.measure import Figures, Row, Settings, timed, turn_about
from tests.benchmarks.populations import repository

#: Rows and columns of what a forest of a hundred trees is fitted on: like iris, and larger.
SHAPES = ((150, 4), (10_000, 20))


def log_model(settings: Settings) -> list[Row]:
    """``sklearn.log_model`` of a random forest with an input example, in a process that has logged one before."""
    if importlib.util.find_spec("sklearn") is None or importlib.util.find_spec("skops") is None:
        settings.say("no models: scikit-learn and skops are not installed")
        return []
    shapes = SHAPES[: settings.size(len(SHAPES), 1)]
    theirs = peer.ask(settings, "log_model", shapes=shapes, rounds=settings.size(5, 1))
    os.chdir(repository(settings, "log-model"))
    return [_row(settings, *shape, peer.figures(theirs, f"{shape[0]}x{shape[1]}", "s")) for shape in shapes]


def _row(settings: Settings, rows: int, columns: int, theirs: Figures | None) -> Row:
    forest, example = _forest(rows, columns)
    target = settings.folder("dumped") / "model.skops"
    with gittrack.start_run():

        def ours() -> None:
            gittrack.sklearn.log_model(forest, name="model", input_example=example)

        took = turn_about(settings.rounds, ours=timed(ours), bound=timed(_dump(forest, target)))
    return Row(
        f"`sklearn.log_model`, forest of 100 trees, {rows:,} × {columns}",
        Figures(tuple(took["ours"]), "s"),
        Figures(tuple(took["bound"]), "s"),
        "skops.io.dump alone",
        "≤ 1 s",
        theirs,
        f"{target.stat().st_size / (1 << 20):.1f} MiB; requirements inferred and locked; MLflow's is a cloudpickle,"
        " since its skops takes no forest unless told to",
    )


def _forest(rows: int, columns: int) -> tuple[Any, Any]:
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    features, target = make_classification(rows, columns, n_informative=columns // 2, n_redundant=0, random_state=0)
    return RandomForestClassifier(100, random_state=0, n_jobs=2).fit(features, target), features[:5]


def _dump(forest: Any, target: Path) -> Callable[[], None]:
    import skops.io

    return lambda: skops.io.dump(forest, target)
