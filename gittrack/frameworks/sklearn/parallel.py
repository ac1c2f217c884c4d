"""Trainings in worker threads and processes are part of the training that made the workers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from gittrack.frameworks.patch import inside, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def around(original: Callable[..., Any], parallel: Any, tasks: Iterable[tuple[Any, ...]]) -> Any:
    """Run ``sklearn.utils.parallel.Parallel.__call__``; from within a training its tasks log nothing of their own.

    What is inside a training is known by thread, so a worker has to be told.
    """
    if inside():
        tasks = ((Part(function), args, kwargs) for function, args, kwargs in tasks)
    return original(parallel, tasks)


class Part:
    """A task that is part of a training.  Pickled to worker processes, so it holds nothing but the task."""

    def __init__(self, task: Callable[..., Any]) -> None:
        functools.update_wrapper(self, task)
        self.task = task

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do the task."""
        with quiet():
            return self.task(*args, **kwargs)

    def with_config(self, *settings: Any) -> Part:
        """Hand scikit-learn's settings to the task, as its ``Parallel`` wants (until 1.7)."""
        self.task = self.task.with_config(*settings)  # type: ignore[attr-defined]
        return self

    def with_config_and_warning_filters(self, *settings: Any) -> Part:
        """Hand scikit-learn's settings to the task, as its ``Parallel`` wants."""
        self.task = self.task.with_config_and_warning_filters(*settings)  # type: ignore[attr-defined]
        return self
