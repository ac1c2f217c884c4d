"""The logged-model part of ``Client``: MLflow's names and argument order.

A call here is a call of ``gittrack.track.logged_models``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gittrack import stores
from gittrack.errors import InvalidValueError
from gittrack.track import limits
from gittrack.track.active import files_in, files_of
from gittrack.types import FileInfo, PagedList

if TYPE_CHECKING:
    from gittrack.track.logged_models import LoggedModels
    from gittrack.track.runs import Tracker
    from gittrack.types import LoggedModel, LoggedModelStatus


class LoggedModelClient:
    """What ``Client`` can do with logged models."""

    @property
    def _tracker(self) -> Tracker:
        raise NotImplementedError

    @property
    def _logged_models(self) -> LoggedModels:
        return stores.logged_models(self._tracker)

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Make a logged model; it is PENDING until ``finalize_logged_model``.

        Args:
            experiment_id: The experiment it belongs to.
            name: Its name, which others may have, too; made up if not given.
            source_run_id: The run that makes it, if any.
            tags: First tags; the values become text.
            params: First params; the values become text.
            model_type: What kind of model it is, such as ``agent``.

        Raises:
            NotFoundError: No such experiment or run.
            StateError: It is deleted.
            InvalidValueError: A bad name, tag or param.
        """
        return self._logged_models.create(
            experiment_id, name, source_run_id=source_run_id, tags=tags, params=params, model_type=model_type
        )

    def get_logged_model(self, model_id: str) -> LoggedModel:
        """A logged model as it is now.  Raises NotFoundError, also if it is deleted."""
        return self._logged_models.get(model_id)

    def search_logged_models(
        self,
        experiment_ids: list[str],
        filter_string: str | None = None,
        datasets: list[dict[str, Any]] | None = None,
        max_results: int | None = None,
        order_by: list[dict[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        """One page of the logged models that match.

        Args:
            experiment_ids: Experiments to search.
            filter_string: Over ``name``, ``model_id``, ``model_type``, ``source_run_id``, ``status``,
                ``creation_timestamp``, ``last_updated_timestamp``, ``metrics.<name>``, ``params.<name>`` and
                ``tags.<key>``; everything if empty.
            datasets: Dicts with ``dataset_name`` and perhaps ``dataset_digest``, on one of which the metrics of the
                filter were measured.
            max_results: Most models on the page; 100 if not given.
            order_by: Dicts with ``field_name``, ``ascending`` (True if not given) and, for a metric, ``dataset_name``
                and ``dataset_digest``; then the newest first.
            page_token: ``token`` of the page before, of the same search.

        Raises:
            QuerySyntaxError: The filter cannot be read; says at which column.
            InvalidValueError: Another argument is wrong.
        """
        if isinstance(experiment_ids, str) or not isinstance(experiment_ids, Iterable):
            raise InvalidValueError(f"experiment ids are a list of texts, got {type(experiment_ids).__name__}")
        return self._logged_models.search(
            list(experiment_ids),
            filter_string,
            datasets=datasets,
            max_results=max_results,
            order_by=order_by,
            page_token=page_token,
        )

    def finalize_logged_model(
        self, model_id: str, status: Literal["READY", "FAILED"] | LoggedModelStatus
    ) -> LoggedModel:
        """Say that a logged model is complete, or never will be.  Raises NotFoundError, InvalidValueError."""
        return self._logged_models.finalize(model_id, status)

    def delete_logged_model(self, model_id: str) -> None:
        """Delete a logged model, if it is not deleted yet.  Raises NotFoundError."""
        self._logged_models.delete(model_id)

    def set_logged_model_tags(self, model_id: str, tags: dict[str, Any]) -> None:
        """Set tags of a logged model; the values become text.  Raises NotFoundError, InvalidValueError."""
        self._logged_models.set_tags(model_id, tags)

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Remove a tag of a logged model.  Raises NotFoundError if it has no such tag."""
        self._logged_models.delete_tag(model_id, key)

    def log_model_params(self, model_id: str, params: dict[str, str]) -> None:
        """Write params of a logged model, once each.

        Raises:
            NotFoundError: No such model.
            InvalidValueError: It has one of them with another value.
        """
        self._logged_models.log_params(model_id, params)

    def log_model_artifact(self, model_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Keep a file, or a folder with all that is in it, among the files of a logged model.

        Args:
            model_id: The model.
            local_path: The file or folder.
            artifact_path: Folder below the model's to put it in.
        """
        self._keep(model_id, files_of(local_path, artifact_path))

    def log_model_artifacts(self, model_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        """Keep everything in a folder among the files of a logged model, below ``artifact_path`` of its folder."""
        self._keep(model_id, files_in(local_dir, artifact_path))

    def _keep(self, model_id: str, found: Mapping[str, Path]) -> None:
        server = stores.server_of(self._tracker)
        if server is not None:
            server.models.folder(model_id).send_all(found)
            return
        run_id, folder = self._logged_models.files(model_id)
        self._tracker.writer(run_id).log_files(
            {f"{folder}/{limits.check_artifact_path(path)}": file for path, file in found.items()}
        )

    def list_logged_model_artifacts(self, model_id: str, path: str | None = None) -> list[FileInfo]:
        """Files and folders directly below ``path`` of a logged model's folder; the paths are below that folder."""
        server = stores.server_of(self._tracker)
        if server is not None:
            return server.models.folder(model_id).listing(limits.check_artifact_path(path) if path else "")
        run_id, folder = self._logged_models.files(model_id)
        found = self._tracker.list_artifacts(run_id, _below(folder, path))
        return [FileInfo(one.path[len(folder) + 1 :], one.is_dir, one.file_size, one.digest) for one in found]


def _below(folder: str, path: str | Path | None) -> str:
    return f"{folder}/{limits.check_artifact_path(path)}" if path else folder
