"""``log_model`` and ``save_model`` of every flavour: MLflow's arguments, the active run, the store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gittrack import fluent, stores
from gittrack.errors import InvalidValueError
from gittrack.models import logging as writing
from gittrack.models.logging import LogOptions, SaveOptions

if TYPE_CHECKING:
    from gittrack.models.flavours import Flavour
    from gittrack.models.logging import Save
    from gittrack.models.model import Model, ModelInfo

_SAVE = frozenset(one.name for one in fields(SaveOptions))
_LOG = frozenset(one.name for one in fields(LogOptions)) - {"name"}
#: MLflow's, with nothing behind them here: a version is ready when `log_model` returns.
_IGNORED = frozenset({"await_registration_for", "prompts", "resources", "auth_policy"})


def log_model(
    flavour: Flavour,
    model: Any,
    *,
    artifact_path: str | None,
    name: str | None,
    run_id: str | None = None,
    options: Mapping[str, Any],
    **common: Any,
) -> ModelInfo:
    """Keep a model with the active run, which is started if there is none.

    Args:
        flavour: What knows the model's library.
        model: The model.
        artifact_path: MLflow's older name of ``name``.
        name: Folder of the model among the run's artifacts; ``model`` if not given.
        run_id: Another run than the active one.
        options: The arguments that only this flavour has.
        common: The fields of ``SaveOptions`` and of ``LogOptions``.

    Raises:
        InvalidValueError: An argument is wrong, or the model cannot be kept as asked.
        AlreadyExistsError: The run has other artifacts under that name.
        MissingDependencyError: A package that writes the format is not installed.
    """
    save_options, log_options = split(common)

    def save(folder: os.PathLike[str], about: Model) -> Model:
        return writing.save_model(flavour, model, folder, options=options, common=save_options, mlflow_model=about)

    return keep(save, artifact_path=artifact_path, name=name, run_id=run_id, log_options=log_options)


def keep(
    save: Save, *, artifact_path: str | None, name: str | None, run_id: str | None, log_options: Mapping[str, Any]
) -> ModelInfo:
    """Keep what ``save`` writes with a run; the rest as ``log_model``."""
    if name is not None and artifact_path is not None and name != artifact_path:
        raise InvalidValueError("`name` and `artifact_path` are both given", hint="artifact_path is the older word")
    about = LogOptions(name=name or artifact_path or "model", **log_options)
    run = run_id or (fluent.active_run() or fluent.start_run()).info.run_id
    return writing.log_model(stores.tracker(), run, about, save)


def save_model(
    flavour: Flavour,
    model: Any,
    path: str | os.PathLike[str],
    *,
    options: Mapping[str, Any],
    mlflow_model: Model | None = None,
    **common: Any,
) -> None:
    """Write a model's folder; raises as ``log_model``, and AlreadyExistsError if something is there."""
    save_options, rest = split(common)
    if rest:
        raise InvalidValueError(f"save_model takes no `{next(iter(rest))}`")
    writing.save_model(flavour, model, path, options=options, common=save_options, mlflow_model=mlflow_model)


def split(common: Mapping[str, Any]) -> tuple[SaveOptions, dict[str, Any]]:
    """The arguments that all flavours share, as options for saving and for logging.

    Raises:
        InvalidValueError: One that there is not.
    """
    unknown = [name for name in common if name not in _SAVE | _LOG | _IGNORED]
    if unknown:
        raise InvalidValueError(f"log_model has no argument `{unknown[0]}`")
    log = {name: value for name, value in common.items() if name in _LOG and value is not None}
    return SaveOptions(**{name: value for name, value in common.items() if name in _SAVE}), log
