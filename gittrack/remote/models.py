"""RemoteModels: the logged models of a tracking server, with the interface of ``LoggedModels``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import InvalidValueError, UnsupportedError
from gittrack.remote import wire
from gittrack.remote.folders import Folder
from gittrack.remote.http import quoted
from gittrack.track import limits
from gittrack.track.logged_models import SEARCH_MAX_RESULTS_DEFAULT, LoggedModels, Place
from gittrack.track.runs import check_page
from gittrack.track.secrets import redact_value
from gittrack.types import LoggedModel, LoggedModelStatus, PagedList, ViewType, check_run_id

if TYPE_CHECKING:
    from gittrack.remote.tracking import RemoteTracker

_MODELS: Final = "logged-models"


class RemoteModels(LoggedModels):
    """The logged models of a server.

    Args:
        tracker: The server.
    """

    def __init__(self, tracker: RemoteTracker) -> None:
        self._tracker = tracker
        self._connection = tracker.connection

    # -- writing -----------------------------------------------------------------------------------------------------

    def create(
        self,
        experiment_id: str,
        name: str | None = None,
        *,
        source_run_id: str | None = None,
        absent_run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        model_type: str | None = None,
        model_id: str | None = None,
        created: int | None = None,
    ) -> LoggedModel:
        """Make a model that is PENDING; its id is the server's.  Raises as ``LoggedModels.create``."""
        if model_id is not None or created is not None:
            raise UnsupportedError("a server chooses ids and times of its logged models", hint="leave them out")
        source = source_run_id if absent_run_id is None else absent_run_id  # it looks by itself which it is
        body = wire.present(
            experiment_id=limits.check_experiment_id(experiment_id),
            name=None if name is None else limits.check_logged_model_name(name),
            source_run_id=None if source is None else check_run_id(source),
            model_type=None if model_type is None else limits.check_model_type(model_type),
            params=self._listed(params or {}),
            tags=wire.pairs(self._checked(tags or {})),
        )
        return _model(self._connection.post(_MODELS, body))

    def _checked(self, tags: Mapping[str, Any]) -> dict[str, str]:
        truncate = self._tracker.truncate
        return dict(limits.check_tag(key, value, truncate=truncate) for key, value in tags.items())

    def _listed(self, params: Mapping[str, Any]) -> list[wire.Json]:
        truncate = self._tracker.truncate
        checked = dict(limits.check_param(key, value, truncate=truncate) for key, value in params.items())
        return wire.pairs({key: redact_value(key, value) for key, value in checked.items()})

    def finalize(self, model_id: str, status: str, message: str | None = None) -> LoggedModel:
        """Say that a model is complete, or never will be.  Raises NotFoundError, InvalidValueError."""
        status = LoggedModelStatus.of(status)
        if not LoggedModelStatus.is_finalized(status):
            raise InvalidValueError(f"a logged model is finished as READY or FAILED, not as {status}")
        body = {"model_id": model_id, "status": wire.STATUSES[status]}
        return _model(self._connection.post(_at(model_id), body, method="PATCH", repeatable=True))

    def delete(self, model_id: str) -> None:
        """Mark a model deleted.  Raises NotFoundError."""
        self._connection.call("DELETE", f"/api/2.0/mlflow/{_at(model_id)}")

    def restore(self, model_id: str) -> None:
        """MLflow's API has no such call.  Raises UnsupportedError."""
        raise UnsupportedError("a deleted logged model of a server cannot be brought back by its clients")

    def set_tags(self, model_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags.  Raises NotFoundError, InvalidValueError."""
        body = {"model_id": model_id, "tags": wire.pairs(self._checked(tags))}
        self._connection.post(f"{_at(model_id)}/tags", body, method="PATCH", repeatable=True)

    def delete_tag(self, model_id: str, key: str) -> None:
        """Remove a tag.  Raises NotFoundError."""
        key = limits.check_key("tag", key)
        self._connection.call("DELETE", f"/api/2.0/mlflow/{_at(model_id)}/tags/{quoted(key)}")

    def log_params(self, model_id: str, params: Mapping[str, Any]) -> None:
        """Write params, once each.  Raises NotFoundError, InvalidValueError."""
        body = {"model_id": model_id, "params": self._listed(params)}
        self._connection.post(f"{_at(model_id)}/params", body, repeatable=True)

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, model_id: str, *, deleted: bool = False) -> LoggedModel:
        """A model as it is now.  Raises NotFoundError."""
        more = {"allow_deleted": "true"} if deleted else {}
        return _model(self._connection.get(_at(model_id), **more))

    def files(self, model_id: str) -> Place:
        """Its files are in no run.  Raises UnsupportedError."""
        raise UnsupportedError(
            f"the files of logged model `{model_id}` are on the server, and in no run", hint="load it by models:/m-…"
        )

    def folder(self, model_id: str) -> Folder:
        """The files of a model.  Raises NotFoundError; UnsupportedError if the server does not hand them out."""
        return Folder(self._connection, self.get(model_id).artifact_location)

    def search(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        *,
        datasets: Sequence[Mapping[str, Any]] | None = None,
        max_results: int | None = None,
        order_by: Sequence[Mapping[str, Any]] | None = None,
        page_token: str | None = None,
        view: int = ViewType.ACTIVE_ONLY,
    ) -> PagedList[LoggedModel]:
        """One page of the models that match, by the server's grammar.  Raises InvalidValueError."""
        size = SEARCH_MAX_RESULTS_DEFAULT if max_results in (None, 0) else max_results
        check_page(size)
        if not experiment_ids:
            return PagedList()
        body = wire.present(
            experiment_ids=[limits.check_experiment_id(one) for one in experiment_ids],
            filter=filter_string or None,
            datasets=list(datasets) if datasets else None,
            max_results=size,
            order_by=list(order_by) if order_by else None,
            page_token=page_token or None,
        )
        return wire.page(self._connection.post(f"{_MODELS}/search", body, repeatable=True), "models", wire.logged_model)


def _at(model_id: str) -> str:
    return f"{_MODELS}/{quoted(limits.check_model_id(model_id))}"


def _model(found: wire.Json) -> LoggedModel:
    return wire.logged_model(wire.part(found, "model"))
