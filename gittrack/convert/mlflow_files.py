"""MLflow's file store (``mlruns/``), read without MLflow.

    <experiment>/meta.yaml  tags/<key>  datasets/<id>/meta.yaml
    <experiment>/<run>/meta.yaml  params/<key>  tags/<key>  metrics/<key>  inputs/<id>/meta.yaml  outputs/<id>/meta.yaml
    <experiment>/models/<model>/meta.yaml  params/  tags/  metrics/
    models/<name>/meta.yaml  tags/  aliases/<alias>  version-<N>/meta.yaml  version-<N>/tags/
    .trash/<experiment>

A line of a metric is ``timestamp value [step [dataset name, dataset digest]]``, of a logged model's metric
``timestamp value step run [dataset name, dataset digest]``.  Source: ``mlflow/store/tracking/file_store.py`` and
``mlflow/store/model_registry/file_store.py`` of MLflow 3.17.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from gittrack.convert import mlflow
from gittrack.convert.folders import Roots, names_below, read_text, read_yaml, subfolders
from gittrack.convert.source import SourceExperiment, SourceModel, SourceRegistered, SourceRun, SourceVersion
from gittrack.errors import GittrackError, NotFoundError
from gittrack.types import DatasetInput, LifecycleStage, Metric, ModelVersionStages, RunStatus

META: Final = "meta.yaml"
_TRASH: Final = ".trash"
_MODELS: Final = "models"
_TRACES: Final = "traces"
#: Folders of an experiment that are no runs.
_NO_RUNS: Final = ("tags", "datasets", _MODELS, _TRACES)
_VERSION: Final = re.compile(r"version-([1-9][0-9]{0,9})")
#: Bytes of the file of one metric.
_MAX_METRIC: Final = 2 << 30


class FileStore:
    """A folder such as ``mlruns``.

    Args:
        folder: The folder.
        roots: Folders that artifacts may be read from, besides the folder itself and `mlartifacts` beside it.

    Raises:
        NotFoundError: It is no store of MLflow's.
    """

    kind = "mlflow"

    def __init__(self, folder: Path, roots: Sequence[Path] = ()) -> None:
        self.problems: list[str] = []
        self.passed: Counter[str] = Counter()
        self._top = folder
        if not any((folder / name / META).is_file() for name in (*subfolders(folder), f"{_TRASH}/.")):
            raise NotFoundError(f"`{folder}` has no experiments of MLflow", hint="name its store, such as `mlruns`")
        self._roots = Roots(folder.absolute().parent, [folder, *roots])
        self._names = mlflow.Names()

    def close(self) -> None:
        """Nothing is open."""

    def _meta(self, folder: Path, what: str) -> dict[str, Any] | None:
        """A folder's ``meta.yaml``; None, and a problem, if it cannot be read."""
        try:
            return read_yaml(folder / META)
        except NotFoundError:
            return None  # another kind of folder, or one that is being made
        except GittrackError as error:
            self.problems.append(f"{what}: {error.message}")
        return None

    def _texts(self, folder: Path, what: str) -> dict[str, str]:
        """What the files below a folder say, by their paths."""
        found = {}
        for name in names_below(folder):
            try:
                found[name] = read_text(folder / name)
            except GittrackError as error:
                self.problems.append(f"{what}: {error.message}")
        return found

    # -- tracking ----------------------------------------------------------------------------------------------------

    def experiments(self) -> Iterable[SourceExperiment]:
        """Every experiment, by the names of their folders."""
        for below in ("", _TRASH):
            for name in subfolders(self._top / below):
                folder = self._top / below / name
                if name in (_TRASH, _MODELS):
                    continue
                meta = self._meta(folder, f"experiment `{name:.80}`")
                if meta is not None:
                    yield SourceExperiment(
                        key=str(folder.relative_to(self._top)),
                        name=mlflow.text(meta.get("name")),
                        lifecycle_stage=LifecycleStage.DELETED if below else LifecycleStage.ACTIVE,
                        tags=self._texts(folder / "tags", f"experiment `{name:.80}`"),
                        creation_time=mlflow.number(meta.get("creation_time")) or None,
                    )

    def count(self, experiment: SourceExperiment) -> int:
        """How many runs it may have."""
        return sum(name not in _NO_RUNS for name in subfolders(self._top / experiment.key))

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Its runs, oldest first."""
        top = self._top / experiment.key
        self.passed["traces"] += len(subfolders(top / _TRACES))
        models: dict[str, list[SourceModel]] = {}
        for model in self._logged_models(experiment):
            if model.run_key is not None:
                models.setdefault(model.run_key, []).append(model)
        found = []
        for name in subfolders(top):
            if name in _NO_RUNS:
                continue
            meta = self._meta(top / name, f"run `{name:.80}`")
            if meta is not None:
                found.append((mlflow.number(meta.get("start_time")), name, meta))
        self._names.learn((name, self._noted(top / name)) for _, name, _ in found)
        for _, name, meta in sorted(found, key=lambda one: one[:2]):
            yield self._run(top / name, meta, models.get(name, []))

    def _noted(self, folder: Path) -> str:
        """The id that a run had before it was exported from here; empty if it was not."""
        try:
            return read_text(folder / "tags" / mlflow.RUN_TAG)
        except GittrackError:
            return ""

    def _run(self, folder: Path, meta: dict[str, Any], models: list[SourceModel]) -> SourceRun:
        key = folder.name
        what = f"run `{key:.80}`"
        datasets, model_inputs, steps = self._uses(folder, what)
        status = meta.get("status")
        known = status in RunStatus.all_status()
        uri = mlflow.text(meta.get("artifact_uri"))
        return self._names.run(
            key=key,
            tags=self._texts(folder / "tags", what),
            name=mlflow.text(meta.get("run_name")) or None,
            user_id=mlflow.text(meta.get("user_id")),
            status=RunStatus.to_string(mlflow.number(status)) if known else "FAILED",
            start_time=mlflow.number(meta.get("start_time")),
            end_time=meta.get("end_time"),
            lifecycle_stage=meta.get("lifecycle_stage"),
            params=self._texts(folder / "params", what),
            datasets=datasets,
            model_inputs=model_inputs,
            models=models,
            steps=steps,
            metrics=lambda: self._metrics(folder, models),
            files=lambda: mlflow.folder_files(self, self._roots, what, uri),
            location=uri,
        )

    def _uses(self, folder: Path, what: str) -> tuple[list[DatasetInput], list[str], dict[str, int]]:
        """The datasets and models that a run read, and the steps of those that it made."""
        datasets, models, steps = [], [], {}
        for name in subfolders(folder / "inputs"):
            meta = self._meta(folder / "inputs" / name, what) or {}
            source = mlflow.text(meta.get("source_id"))
            if meta.get("source_type") != "DATASET":
                models.append(mlflow.text(meta.get("destination_id")))
                continue
            about = self._meta(folder.parent / "datasets" / source, what) if re.fullmatch(r"\w{1,64}", source) else None
            if about is None:
                self.problems.append(f"{what}: its dataset `{source:.80}` is missing")
                continue
            tags = meta.get("tags")
            said = {str(key): mlflow.text(value) for key, value in tags.items()} if isinstance(tags, dict) else {}
            datasets.append(mlflow.dataset(about, said))
        for name in subfolders(folder / "outputs"):
            meta = self._meta(folder / "outputs" / name, what) or {}
            steps[mlflow.text(meta.get("destination_id"))] = mlflow.number(meta.get("step"))
        return datasets, models, steps

    def _metrics(self, folder: Path, models: Iterable[SourceModel]) -> Iterator[Metric]:
        links = self._links(folder)
        for name in names_below(folder / "metrics"):
            for number, line in enumerate(read_text(folder / "metrics" / name, _MAX_METRIC).splitlines()):
                words = line.split()
                if not words:
                    continue
                try:
                    timestamp, value = int(words[0]), mlflow.value_of(words[1])
                    step = int(words[2]) if len(words) > 2 else 0
                except (ValueError, IndexError):
                    self.problems.append(f"run `{folder.name}`: line {number + 1} of metric `{name:.80}` is no point")
                    continue
                about = tuple(words[3:5]) if len(words) == 5 else (None, None)
                for model_id in links.get((name, timestamp, step), [None]):
                    yield Metric(name, value, timestamp, step, model_id, *about)

    def _links(self, folder: Path) -> dict[tuple[str, int, int], list[str | None]]:
        """Which logged models a run's points were measured of."""
        found: dict[tuple[str, int, int], list[str | None]] = {}
        models = folder.parent / _MODELS
        for model_id in subfolders(models):
            for name in names_below(models / model_id / "metrics"):
                for line in read_text(models / model_id / "metrics" / name, _MAX_METRIC).splitlines():
                    words = line.split()
                    if len(words) >= 4 and words[3] == folder.name:
                        place = (name, mlflow.number(words[0]), mlflow.number(words[2]))
                        found.setdefault(place, []).append(model_id)
        return found

    def _logged_models(self, experiment: SourceExperiment) -> Iterator[SourceModel]:
        top = self._top / experiment.key / _MODELS
        for model_id in subfolders(top):
            what = f"model `{model_id:.80}`"
            meta = self._meta(top / model_id, what)
            if meta is None or meta.get("lifecycle_stage") == LifecycleStage.DELETED:
                continue
            uri = mlflow.text(meta.get("artifact_location"))
            yield mlflow.logged_model(
                model_id=model_id,
                name=mlflow.text(meta.get("name")),
                run_key=mlflow.text(meta.get("source_run_id")),
                created=mlflow.number(meta.get("creation_timestamp")),
                updated=mlflow.number(meta.get("last_updated_timestamp")),
                status=mlflow.MODEL_STATUS.get(mlflow.number(meta.get("status")), "READY"),
                model_type=meta.get("model_type"),
                params=self._texts(top / model_id / "params", what),
                tags=self._texts(top / model_id / "tags", what),
                files=partial(mlflow.folder_files, self, self._roots, what, uri),
            )

    def loose_models(self, experiment: SourceExperiment) -> Iterable[SourceModel]:
        """Its logged models that no run made, or one that is no longer there."""
        runs = set(subfolders(self._top / experiment.key))
        return (model for model in self._logged_models(experiment) if model.run_key not in runs)

    # -- the registry ------------------------------------------------------------------------------------------------

    def registered(self) -> Iterable[SourceRegistered]:
        """Every registered model; prompts are some, too."""
        for name in subfolders(self._top / _MODELS):
            folder = self._top / _MODELS / name
            what = f"model `{name:.80}`"
            meta = self._meta(folder, what)
            if meta is None:
                continue
            tags = self._texts(folder / "tags", what)
            aliases = self._texts(folder / "aliases", what)
            yield SourceRegistered(
                name=mlflow.text(meta.get("name")),
                description=None if meta.get("description") is None else str(meta["description"]),
                tags=tags,
                aliases={alias: mlflow.number(version) for alias, version in aliases.items()},
                created=mlflow.number(meta.get("creation_timestamp")),
                updated=mlflow.number(meta.get("last_updated_timestamp")),
                versions=list(self._versions(folder, what)),
            )

    def _versions(self, folder: Path, what: str) -> Iterator[SourceVersion]:
        found = [(int(match[1]), name) for name in subfolders(folder) if (match := _VERSION.fullmatch(name))]
        for number, name in sorted(found):
            meta = self._meta(folder / name, what)
            if meta is None or meta.get("current_stage") == "Deleted_Internal":
                continue
            yield mlflow.version(
                number=number,
                source=mlflow.text(meta.get("source")),
                location=mlflow.text(meta.get("storage_location")) or None,
                run_key=meta.get("run_id"),
                description=None if meta.get("description") is None else str(meta["description"]),
                stage=meta.get("current_stage") or ModelVersionStages.NONE,
                tags=self._texts(folder / name / "tags", what),
                run_link=mlflow.text(meta.get("run_link")) or None,
                created=mlflow.number(meta.get("creation_timestamp")),
                updated=mlflow.number(meta.get("last_updated_timestamp")),
                roots=self._roots,
            )
