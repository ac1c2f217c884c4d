"""Parameter searches: which settings were tried and how each did."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import dataclass
from importlib import import_module
from numbers import Number
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Setting:
    """One setting that a search tried.

    Attributes:
        params: All parameters of the estimator in it.
        metrics: Means, deviations, times and ranks over the folds.
        best: True if the search chose it.
    """

    params: dict[str, Any]
    metrics: dict[str, float]
    best: bool


def is_search(estimator: Any) -> bool:
    """True for grid, randomized and halving searches."""
    module = sys.modules.get("sklearn.model_selection._search")  # what nobody imported, nobody has
    return module is not None and isinstance(estimator, module.BaseSearchCV)


def best_settings(estimator: Any, most: int | None) -> Iterator[Setting]:
    """The settings that a finished search found best.

    Args:
        estimator: A trained search.
        most: How many, best first by the first scorer's rank; None: all, in the order they were tried.
    """
    results: Mapping[str, Any] = estimator.cv_results_
    names = ["rank_test_score", *(key for key in results if key.startswith("rank_test_"))]
    ranks = next((results[name] for name in names if name in results), None)
    order = list(range(len(results["params"])))
    if most is not None:
        order = (order if ranks is None else sorted(order, key=ranks.__getitem__))[:most]
    seed = estimator.estimator
    base = seed.get_params(deep=not is_search(seed))
    for row in order:
        metrics = {
            key: float(column[row])
            for key, column in results.items()
            if not key.startswith(("param", "split")) and isinstance(column[row], Number)
        }
        yield Setting({**base, **results["params"][row]}, metrics, row == getattr(estimator, "best_index_", None))


def as_csv(results: Mapping[str, Any]) -> str:
    """``cv_results_`` as a table with a line for each setting; parameters a setting does not have are empty."""
    ma = import_module("numpy.ma")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(results)
    for row in zip(*results.values(), strict=True):
        writer.writerow("" if cell is ma.masked else cell for cell in row)
    return text.getvalue()
