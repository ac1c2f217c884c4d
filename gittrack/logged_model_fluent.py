"""The logged-model functions of ``import gittrack``: MLflow's fluent API.

The active model is one of the calling thread, as the active run is: metrics that are logged meanwhile are linked to it.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from gittrack import fluent, session
from gittrack.client import Client, all_pages
from gittrack.errors import InvalidValueError
from gittrack.media import require
from gittrack.track import limits
from gittrack.types import LoggedModel

if TYPE_CHECKING:
    from types import TracebackType

    import pandas as pd

    from gittrack.types import LoggedModelStatus

_log = logging.getLogger("gittrack")

_EXTERNAL_TAG = "mlflow.model.isExternal"


def initialize_logged_model(
    name: str | None = None,
    source_run_id: str | None = None,
    tags: dict[str, str] | None = None,
    params: dict[str, str] | None = None,
    model_type: str | None = None,
    experiment_id: str | None = None,
) -> LoggedModel:
    """Make a logged model that is PENDING: its files, and ``finalize_logged_model``, are to come.

    ``log_model(model_id=…)`` of every flavour gives it both.

    Args:
        name: Its name, which others may have, too; made up if not given.
        source_run_id: The run that makes it; the active run, if there is one.
        tags: First tags; the values become text.
        params: First params; the values become text.
        model_type: What kind of model it is, such as ``agent``.
        experiment_id: Its experiment; that of the run, or else the chosen one (see ``start_run``).

    Raises:
        NotFoundError: No such experiment or run.
        StateError: It is deleted.
        InvalidValueError: A bad name, tag or param.
    """
    client = Client()
    active = fluent.active_run()
    if source_run_id is None and active is not None:
        source_run_id = active.info.run_id
    if experiment_id is None:
        run = None if source_run_id is None else client.get_run(source_run_id)
        experiment_id = fluent.chosen_experiment() if run is None else run.info.experiment_id
    every = {**fluent.context_tags(), **(tags or {})}
    model = client.create_logged_model(experiment_id, name, source_run_id, every, params, model_type)
    session.models.last = model.model_id
    return model


def create_external_model(
    name: str | None = None,
    source_run_id: str | None = None,
    tags: dict[str, str] | None = None,
    params: dict[str, str] | None = None,
    model_type: str | None = None,
    experiment_id: str | None = None,
) -> LoggedModel:
    """Make a logged model that is READY, and whose files are somewhere else.

    Args:
        name: Its name, which others may have, too; made up if not given.
        source_run_id: The run that makes it; the active run, if there is one.
        tags: First tags; the values become text.
        params: First params; the values become text.
        model_type: What kind of model it is, such as ``agent``.
        experiment_id: Its experiment; that of the run, or else the chosen one (see ``start_run``).

    Raises:
        NotFoundError: No such experiment or run.
        StateError: It is deleted.
        InvalidValueError: A bad name, tag or param.
    """
    from gittrack.models.model import MLMODEL, Model

    tags = {**(tags or {}), _EXTERNAL_TAG: "true"}
    model = initialize_logged_model(name, source_run_id, tags, params, model_type, experiment_id)
    about = Model(
        artifact_path=model.path,
        run_id=model.source_run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
        metadata={_EXTERNAL_TAG: True},
    )
    client = Client()
    with tempfile.TemporaryDirectory(prefix="gittrack-") as folder:
        about.save(Path(folder, MLMODEL))
        client.log_model_artifacts(model.model_id, folder)
    return client.finalize_logged_model(model.model_id, "READY")


def finalize_logged_model(model_id: str, status: Literal["READY", "FAILED"] | LoggedModelStatus) -> LoggedModel:
    """Say that a logged model is complete, or never will be.  Raises NotFoundError, InvalidValueError."""
    return Client().finalize_logged_model(model_id, status)


def get_logged_model(model_id: str) -> LoggedModel:
    """A logged model as it is now.  Raises NotFoundError, also if it is deleted."""
    return Client().get_logged_model(model_id)


def last_logged_model() -> LoggedModel | None:
    """The model that this thread logged, or made, last, as it is now; None if there is none."""
    return None if session.models.last is None else get_logged_model(session.models.last)


@overload
def search_logged_models(
    experiment_ids: list[str] | None = None,
    filter_string: str | None = None,
    datasets: list[dict[str, str]] | None = None,
    max_results: int | None = None,
    order_by: list[dict[str, Any]] | None = None,
    output_format: Literal["pandas"] = "pandas",
) -> pd.DataFrame: ...


@overload
def search_logged_models(
    experiment_ids: list[str] | None = None,
    filter_string: str | None = None,
    datasets: list[dict[str, str]] | None = None,
    max_results: int | None = None,
    order_by: list[dict[str, Any]] | None = None,
    *,
    output_format: Literal["list"],
) -> list[LoggedModel]: ...


def search_logged_models(
    experiment_ids: list[str] | None = None,
    filter_string: str | None = None,
    datasets: list[dict[str, str]] | None = None,
    max_results: int | None = None,
    order_by: list[dict[str, Any]] | None = None,
    output_format: Literal["pandas", "list"] = "pandas",
) -> list[LoggedModel] | pd.DataFrame:
    """Every logged model that matches.

    Args:
        experiment_ids: Experiments to search; the chosen one (see ``start_run``) if not given.
        filter_string: As for ``Client.search_logged_models``; everything if empty.
        datasets: Dicts with ``dataset_name`` and perhaps ``dataset_digest``, on one of which the metrics of the filter
            were measured.
        max_results: Most models to return; all if not given.
        order_by: Dicts with ``field_name``, ``ascending`` (True if not given) and, for a metric, ``dataset_name`` and
            ``dataset_digest``; then the newest first.
        output_format: ``pandas`` for a DataFrame, ``list`` for a list of ``LoggedModel``.

    Raises:
        QuerySyntaxError: The filter cannot be read; says at which column.
        InvalidValueError: Another argument is wrong.
        MissingDependencyError: pandas is not installed and a DataFrame is asked for.
    """
    if output_format not in ("pandas", "list"):
        raise InvalidValueError(f"unknown output format `{output_format}`", hint="use 'pandas' or 'list'")
    client = Client()
    ids = experiment_ids or [fluent.chosen_experiment()]
    models: list[LoggedModel] = all_pages(
        lambda size, token: client.search_logged_models(ids, filter_string, datasets, size, order_by, token),
        max_results,
        most=1000,
    )
    if output_format == "list":
        return models
    pd = require("pandas", "search_logged_models(output_format='pandas')")
    rows = [{**model.to_dictionary(), "status": model.status} for model in models]
    return pd.DataFrame(rows)  # type: ignore[no-any-return]


def set_logged_model_tags(model_id: str, tags: dict[str, Any]) -> None:
    """Set tags of a logged model; the values become text.  Raises NotFoundError, InvalidValueError."""
    Client().set_logged_model_tags(model_id, tags)


def delete_logged_model_tag(model_id: str, key: str) -> None:
    """Remove a tag of a logged model.  Raises NotFoundError if it has no such tag."""
    Client().delete_logged_model_tag(model_id, key)


def log_model_params(params: dict[str, str], model_id: str | None = None) -> None:
    """Write params of a logged model, once each.

    Args:
        params: Names and values; the values become text.
        model_id: The model; the active one if not given.

    Raises:
        NotFoundError: No such model.
        InvalidValueError: It has one of them with another value; or there is no active model, and none is given.
    """
    model_id = model_id or get_active_model_id()
    if model_id is None:
        raise InvalidValueError("no model is active, and none is given", hint="log_model_params({…}, model_id='m-…')")
    Client().log_model_params(model_id, params)


# -- the active model ------------------------------------------------------------------------------------------------


class ActiveModel(LoggedModel):
    """A logged model as ``set_active_model`` found or made it, to be used in a ``with`` statement.

    Leaving the block makes the model active again that was so before.
    """

    def __init__(self, model: LoggedModel) -> None:
        super().__init__(**{name: getattr(model, name) for name in LoggedModel.__dataclass_fields__})
        object.__setattr__(self, "_before", session.models.active_id())
        session.models.active = model.model_id

    def __enter__(self) -> ActiveModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session.models.active = self._before  # type: ignore[attr-defined]  # set past the frozen dataclass


def set_active_model(*, name: str | None = None, model_id: str | None = None) -> ActiveModel:
    """Make a logged model the active one of this thread: metrics that are logged from now on are linked to it.

    Args:
        name: The newest model of this name in the chosen experiment; made (``create_external_model``) if there is none.
        model_id: Or its id.

    Returns:
        The model; leaving its ``with`` block makes the one active that was so before.

    Raises:
        NotFoundError: No model has this id.
        InvalidValueError: Neither is given, or the model has another name.
    """
    if model_id is not None:
        model = get_logged_model(model_id)
        if name is not None and model.name != name:
            raise InvalidValueError(f"logged model `{model_id}` is called `{model.name}`, not `{name:.80}`")
        return ActiveModel(model)
    if name is None:
        raise InvalidValueError("set_active_model takes a name or an id", hint="set_active_model(name='my-model')")
    name = limits.check_logged_model_name(name)
    found = Client().search_logged_models([fluent.chosen_experiment()], f"name = '{name}'", max_results=2)
    if len(found) > 1:
        _log.warning("several logged models are called `%s`; the newest is the active one", name)
    return ActiveModel(found[0] if found else create_external_model(name))


def get_active_model_id() -> str | None:
    """Id of the active model of this thread; ``GITTRACK_ACTIVE_MODEL_ID`` says it if the program does not."""
    return session.models.active_id()


def clear_active_model() -> None:
    """No model is active in this thread any more."""
    session.models.active = None
