"""A live MLflow server, read over its REST API."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from gittrack.convert import mlflow
from gittrack.convert.folders import MAX_DEPTH, MAX_FILES
from gittrack.convert.mlflow_server import Server, file_target
from gittrack.convert.source import (
    SourceExperiment,
    SourceFile,
    SourceModel,
    SourceRegistered,
    SourceRun,
    SourceVersion,
)
from gittrack.errors import FormatError, GittrackError, NetworkError, NotFoundError
from gittrack.types import DatasetInput, Metric, ModelVersionStages

_PAGE: Final = 1000
#: Points on a page; MLflow's greatest.
_POINTS: Final = 25_000
_Json = Mapping[str, Any]


class ServerStore:
    """What a server has.

    Args:
        server: The server.
    """

    kind = "mlflow"

    def __init__(self, server: Server) -> None:
        self.problems: list[str] = []
        self.passed: Counter[str] = Counter()
        self._server = server
        self._names = mlflow.Names()
        self._seen: set[str] = set()

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    # -- tracking ----------------------------------------------------------------------------------------------------

    def experiments(self) -> Iterable[SourceExperiment]:
        """Every experiment."""
        body = {"max_results": _PAGE, "view_type": "ALL"}
        for item in list(self._server.pages("experiments/search", "experiments", body)):
            yield SourceExperiment(
                key=mlflow.text(item.get("experiment_id")),
                name=mlflow.text(item.get("name")),
                lifecycle_stage=mlflow.stage_of_life(item.get("lifecycle_stage")),
                tags=_pairs(item),
                creation_time=mlflow.number(item.get("creation_time")) or None,
            )

    def count(self, experiment: SourceExperiment) -> None:
        """A server does not say."""

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Its runs, oldest first."""
        models: dict[str, list[SourceModel]] = {}
        links: dict[str, list[_Json]] = {}
        for model, points in self._logged_models(experiment):
            if model.run_key is not None:
                models.setdefault(model.run_key, []).append(model)
            for point in points:
                links.setdefault(mlflow.text(point.get("run_id")), []).append({**point, "model_id": model.model_id})
        body = {
            "experiment_ids": [experiment.key],
            "run_view_type": "ALL",
            "max_results": _PAGE,
            "order_by": ["attributes.start_time ASC"],
        }
        noted = self._server.pages("runs/search", "runs", {**body, "filter": f"tags.`{mlflow.RUN_TAG}` LIKE '%'"})
        self._names.learn(
            (mlflow.text(_dict(item, "info").get("run_id")), _pairs(_dict(item, "data")).get(mlflow.RUN_TAG, ""))
            for item in noted
        )
        for item in self._server.pages("runs/search", "runs", body):
            key = mlflow.text(_dict(item, "info").get("run_id"))
            self._seen.add(key)
            yield self._run(key, item, models.get(key, []), links.get(key, []))

    def _run(self, key: str, item: _Json, models: list[SourceModel], links: list[_Json]) -> SourceRun:
        info, data = _dict(item, "info"), _dict(item, "data")
        inputs, outputs = _dict(item, "inputs"), _dict(item, "outputs")
        metrics = [mlflow.text(point.get("key")) for point in _items(data, "metrics")]
        return self._names.run(
            key=key,
            tags=_pairs(data),
            name=mlflow.text(info.get("run_name")) or None,
            user_id=mlflow.text(info.get("user_id")),
            status=mlflow.text(info.get("status")),
            start_time=mlflow.number(info.get("start_time")),
            end_time=info.get("end_time"),
            lifecycle_stage=info.get("lifecycle_stage"),
            params=_pairs(data, "params"),
            datasets=[_dataset(one) for one in _items(inputs, "dataset_inputs")],
            model_inputs=[mlflow.text(one.get("model_id")) for one in _items(inputs, "model_inputs")],
            models=models,
            steps={
                mlflow.text(one.get("model_id")): mlflow.number(one.get("step"))
                for one in _items(outputs, "model_outputs")
            },
            metrics=lambda: self._metrics(key, metrics, links),
            files=lambda: self._files(key, info),
            location=mlflow.text(info.get("artifact_uri")) or None,
        )

    def _metrics(self, key: str, names: Iterable[str], links: Iterable[_Json]) -> Iterator[Metric]:
        about: dict[tuple[str, int, int], list[_Json]] = {}
        for link in links:
            place = (
                mlflow.text(link.get("key")),
                mlflow.number(link.get("timestamp")),
                mlflow.number(link.get("step")),
            )
            about.setdefault(place, []).append(link)
        for name in names:
            pages = self._server.pages(
                "metrics/get-history", "metrics", None, run_id=key, metric_key=name, max_results=_POINTS
            )
            for point in pages:
                step, timestamp = mlflow.number(point.get("step")), mlflow.number(point.get("timestamp"))
                value = point.get("value")
                number = math.nan if value == "NaN" else mlflow.value_of(value)
                for link in about.get((name, timestamp, step), [{}]):
                    facts = (link.get("model_id"), link.get("dataset_name"), link.get("dataset_digest"))
                    yield Metric(name, number, timestamp, step, *facts)

    def _logged_models(self, experiment: SourceExperiment) -> Iterator[tuple[SourceModel, list[_Json]]]:
        """Its logged models, oldest first, and the points that were measured of each."""
        body = {"experiment_ids": [experiment.key], "max_results": 50}
        try:
            found = list(self._server.pages("logged-models/search", "models", body))
        except NotFoundError:
            return  # a server before MLflow 3
        for item in sorted(found, key=lambda one: mlflow.number(_dict(one, "info").get("creation_timestamp_ms"))):
            info, data = _dict(item, "info"), _dict(item, "data")
            model_id = mlflow.text(info.get("model_id"))
            model = mlflow.logged_model(
                model_id=model_id,
                name=mlflow.text(info.get("name")),
                run_key=mlflow.text(info.get("source_run_id")),
                created=mlflow.number(info.get("creation_timestamp_ms")),
                updated=mlflow.number(info.get("last_updated_timestamp_ms")),
                status=mlflow.text(info.get("status")).removeprefix("LOGGED_MODEL_"),
                model_type=info.get("model_type"),
                params=_pairs(data, "params"),
                tags=_pairs(info),
                files=partial(self._model_files, model_id),
            )
            yield model, _items(data, "metrics")

    def loose_models(self, experiment: SourceExperiment) -> Iterable[SourceModel]:
        """Its logged models that no run made, or one that is no longer there."""
        return (model for model, _ in self._logged_models(experiment) if model.run_key not in self._seen)

    # -- files -------------------------------------------------------------------------------------------------------

    def _files(self, key: str, info: _Json) -> Iterator[SourceFile]:
        def target(path: str) -> str:
            return file_target("/get-artifact", path=path, run_id=key)

        yield from self._listed(f"run `{key}`", "artifacts/list", {"run_id": key}, "path", target)

    def _model_files(self, model_id: str) -> Iterator[SourceFile]:
        route = f"/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files"

        def target(path: str) -> str:
            return file_target(route, artifact_file_path=path)

        where = f"logged-models/{model_id}/artifacts/directories"
        yield from self._listed(f"model `{model_id}`", where, {}, "artifact_directory_path", target)

    def _listed(
        self, what: str, route: str, about: Mapping[str, str], parameter: str, target: Any
    ) -> Iterator[SourceFile]:
        """Every file below a place that the server lists folder by folder."""
        todo: list[tuple[str, int]] = [("", 0)]
        count = 0
        while todo:
            folder, depth = todo.pop()
            given = {**about, parameter: folder} if folder else dict(about)
            try:
                found = list(self._server.pages(route, "files", None, **given))
            except NetworkError:
                raise
            except GittrackError as error:
                self.problems.append(f"{what}: {error.message}")
                return
            for item in found:
                path = mlflow.text(item.get("path"))
                count += 1
                if count > MAX_FILES or depth > MAX_DEPTH:
                    raise FormatError(f"{what} has too many files, or too deep")
                if not path.startswith(f"{folder}/" if folder else "") or path == folder:
                    self.problems.append(f"{what}: the server lists `{path:.80}` in `{folder:.80}`")
                elif item.get("is_dir"):
                    todo.append((path, depth + 1))
                else:
                    size = mlflow.number(item["file_size"]) if "file_size" in item else None
                    yield SourceFile(path, partial(self._server.download, target(path), size=size))

    # -- the registry ------------------------------------------------------------------------------------------------

    def registered(self) -> Iterable[SourceRegistered]:
        """Every registered model; prompts are some, too, which a server lists apart."""
        pages = partial(self._server.pages, "registered-models/search", "registered_models", None, max_results=100)
        try:
            found = [*pages(), *pages(filter=mlflow.PROMPTS)]
        except NotFoundError:
            return  # a server that only tracks
        for name, item in {mlflow.text(one.get("name")): one for one in found}.items():
            aliases = {
                mlflow.text(one.get("alias")): mlflow.number(one.get("version")) for one in _items(item, "aliases")
            }
            yield SourceRegistered(
                name=name,
                description=item.get("description"),
                tags=_pairs(item),
                aliases=aliases,
                created=mlflow.number(item.get("creation_timestamp")),
                updated=mlflow.number(item.get("last_updated_timestamp")),
                versions=list(self._versions(name, prompt=mlflow.is_prompt(_pairs(item)))),
            )

    def _versions(self, name: str, *, prompt: bool) -> Iterator[SourceVersion]:
        only = mlflow.versions_of(name, prompt=prompt)
        found = self._server.pages("model-versions/search", "model_versions", None, filter=only, max_results=10_000)
        for item in sorted(found, key=lambda one: mlflow.number(one.get("version"))):
            yield mlflow.version(
                number=mlflow.number(item.get("version")),
                source=mlflow.text(item.get("source")),
                location=None,
                run_key=item.get("run_id"),
                description=item.get("description"),
                stage=item.get("current_stage") or ModelVersionStages.NONE,
                tags=_pairs(item),
                run_link=item.get("run_link"),
                created=mlflow.number(item.get("creation_timestamp")),
                updated=mlflow.number(item.get("last_updated_timestamp")),
                roots=None,
            )


def _dict(item: _Json, key: str) -> _Json:
    found = item.get(key, {})
    return found if isinstance(found, dict) else {}


def _items(item: _Json, key: str) -> list[_Json]:
    found = item.get(key, [])
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _pairs(item: _Json, key: str = "tags") -> dict[str, str]:
    return {mlflow.text(one.get("key")): mlflow.text(one.get("value")) for one in _items(item, key)}


def _dataset(item: _Json) -> DatasetInput:
    return mlflow.dataset(_dict(item, "dataset"), _pairs(item))
