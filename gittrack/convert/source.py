"""What another tracker has to answer to be read: a ``Source`` of experiments, runs and registered models.

The records are what the importer writes, already in gittrack's (and so MLflow's) words; metrics and files, of which
there may be many, are read when they are asked for.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gittrack.types import DatasetInput, LifecycleStage, Metric, ModelVersionStages


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be kept.

    Attributes:
        path: Where it goes among the run's artifacts; not checked yet.
        fetch: Gets a path that nobody uses, returns where the bytes are: there, or where they were all along.
    """

    path: str
    fetch: Callable[[Path], Path]


def _no_metrics() -> Iterable[Metric]:
    return ()


def _no_files() -> Iterable[SourceFile]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceExperiment:
    """An experiment.

    Attributes:
        key: Its id there.
    """

    key: str
    name: str
    lifecycle_stage: str = LifecycleStage.ACTIVE
    tags: Mapping[str, str] = field(default_factory=dict)
    creation_time: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """A logged model: a folder of files, made by a run or by none.

    Attributes:
        model_id: MLflow's, ``m-…``.
        run_key: The run that made it; None if there is none.
        facts: What else is known of it, as JSON can hold it: name, type, status, params, tags, times.
    """

    model_id: str
    name: str
    run_key: str | None
    step: int = 0
    created: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Callable[[], Iterable[SourceFile]] = _no_files


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRun:
    """A run.

    Attributes:
        key: Its id there, for people and for what refers to it.
        run_id: Its id here: the same one where that can be, else one that follows from it.
        state: Changes when there is more of the run than last time.
        models: What it logged, in that order; ``model_inputs`` are ids of those that it read.
        metrics: All points; those that lead to a model or a dataset say so.
        files: All artifacts but those of ``models``.
        location: Where its files are there, to find out what else refers to them.
    """

    key: str
    run_id: str
    state: str
    name: str | None = None
    user_id: str = ""
    status: str = "FINISHED"
    start_time: int = 0
    end_time: int | None = None
    lifecycle_stage: str = LifecycleStage.ACTIVE
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Iterable[DatasetInput] = ()
    model_inputs: Iterable[str] = ()
    models: Iterable[SourceModel] = ()
    metrics: Callable[[], Iterable[Metric]] = _no_metrics
    files: Callable[[], Iterable[SourceFile]] = _no_files
    location: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVersion:
    """A version of a registered model; ``source`` is where its files are there."""

    number: int
    source: str
    run_key: str | None = None
    model_id: str | None = None
    description: str | None = None
    stage: str = ModelVersionStages.NONE
    tags: Mapping[str, str] = field(default_factory=dict)
    run_link: str | None = None
    created: int = 0
    updated: int = 0
    files: Callable[[], Iterable[SourceFile]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRegistered:
    """A registered model, its versions in the order of their numbers."""

    name: str
    description: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    created: int = 0
    updated: int = 0
    versions: Iterable[SourceVersion] = ()


class Source(Protocol):
    """Another tracker's store.

    Attributes:
        kind: Names the format in the tags that remember where a run came from.
        problems: What could not be read and was left out, filled while reading.
        passed: How many things there are of each kind that has no place here, such as ``traces``; likewise.
    """

    kind: str
    problems: list[str]
    passed: Counter[str]

    def experiments(self) -> Iterable[SourceExperiment]:
        """Every experiment, deleted ones too."""

    def count(self, experiment: SourceExperiment) -> int | None:
        """How many runs it has, if that is cheap to know."""

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Its runs, deleted ones too, oldest first."""

    def loose_models(self, experiment: SourceExperiment) -> Iterable[SourceModel]:
        """Its logged models that no run made."""

    def registered(self) -> Iterable[SourceRegistered]:
        """The registry."""

    def close(self) -> None:
        """Let go of what is open."""


class RunsOnly:
    """The part of a ``Source`` that formats without registry share."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.passed: Counter[str] = Counter()

    def loose_models(self, experiment: SourceExperiment) -> Iterable[SourceModel]:
        """None."""
        return ()

    def registered(self) -> Iterable[SourceRegistered]:
        """Nothing."""
        return ()

    def close(self) -> None:
        """Nothing is open."""


def derived_id(kind: str, *parts: object) -> str:
    """A run id that follows from what a run is called elsewhere: the same in every clone that imports it."""
    text = "\0".join([kind, *map(str, parts)])
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]
