"""What a model's address means on a tracking server: which files, of which version.

Since MLflow 3 the files of a model that a run logged belong to a logged model, and not to the run: ``runs:/RUN/NAME``
is the run's newest logged model of that name, if the run itself has nothing there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gittrack.errors import FormatError, NotFoundError
from gittrack.remote.folders import Folder
from gittrack.remote.models import RemoteModels
from gittrack.remote.registry import RemoteRegistry
from gittrack.track import limits
from gittrack.types import LoggedModel, ModelVersion, check_run_id

if TYPE_CHECKING:
    from gittrack.remote.tracking import RemoteTracker

_MODEL_ID: Final = re.compile(r"models:/+(m-[A-Za-z0-9_-]{1,253})")
_RUN: Final = re.compile(r"runs:/+([^/]+)(?:/(.*))?", re.DOTALL)
_DEPTH: Final = 8  #: of versions that are made of other versions


@dataclass(frozen=True)
class Found:
    """The files of a model.

    Attributes:
        folder: Where they are.
        uri: The same, as the server knows it.
        run_id: The run that made it, if one did.
        model_id: The logged model that it is, if it is one.
        version: The registered version, if the address names one.
    """

    folder: Folder
    uri: str
    run_id: str | None = None
    model_id: str | None = None
    version: ModelVersion | None = None


def locate(tracker: RemoteTracker, address: str) -> Found:
    """Where the files of a model are.

    Args:
        tracker: The server.
        address: ``models:/m-…``, ``models:/NAME/…``, ``NAME@…`` or ``runs:/RUN/PATH``.

    Raises:
        NotFoundError: No such model, version, stage, alias, run or path.
        UnsupportedError: The server does not hand the files out.
        InvalidValueError: Not an address of a model.
    """
    tracker.ship()
    return _locate(tracker, address, _DEPTH)


def _locate(tracker: RemoteTracker, address: str, depth: int) -> Found:
    if not depth:
        raise FormatError(f"`{address:.200}` leads in a circle on the server")
    if match := _MODEL_ID.fullmatch(address):
        return _of_model(tracker, RemoteModels(tracker).get(match[1]))
    if match := _RUN.fullmatch(address):
        return _of_run(tracker, check_run_id(match[1]), (match[2] or "").rstrip("/"))
    registry = RemoteRegistry(tracker)
    version = registry.resolve(address)
    uri = registry.files_uri(version)
    if re.match(r"(models|runs):/", uri):
        found = _locate(tracker, uri, depth - 1)
        return Found(found.folder, found.uri, version.run_id, version.model_id or found.model_id, version)
    return Found(Folder(tracker.connection, uri), uri, version.run_id, version.model_id, version)


def _of_model(tracker: RemoteTracker, model: LoggedModel) -> Found:
    folder = Folder(tracker.connection, model.artifact_location)
    return Found(folder, f"models:/{model.model_id}", model.source_run_id, model.model_id)


def _of_run(tracker: RemoteTracker, run_id: str, path: str) -> Found:
    path = limits.check_artifact_path(path) if path else ""
    run = tracker.get_run(run_id)
    folder = tracker.folder(run_id).below(path)
    if folder.listing():
        return Found(folder, f"{run.info.artifact_uri.rstrip('/')}/{path}".rstrip("/"), run_id)
    models = RemoteModels(tracker)
    made = [models.get(one.model_id) for one in run.outputs.model_outputs]
    named = [one for one in made if one.name == path]
    if not named:
        known = ", ".join(sorted({one.name for one in made})) or "no models"
        raise NotFoundError(f"run `{run_id}` has no model `{path}`", hint=f"it has {known}")
    return _of_model(tracker, max(named, key=lambda one: (one.creation_timestamp, one.model_id)))
