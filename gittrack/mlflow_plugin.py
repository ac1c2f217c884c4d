"""Stock MLflow on a repository, without a server: ``mlflow.set_tracking_uri("gittrack:///path/to/repo")``.

MLflow finds the three functions by entry points, which it loads while it is being imported itself; so they import it
only when they are called.  What its own client of a REST server would send over a socket is answered in this process,
by the same routes that the tracking server has, and its files go straight into the store.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from gittrack.errors import GittrackError, InvalidValueError

if TYPE_CHECKING:
    from gittrack.server.hub.local import LocalApi

#: Ends the repository in the address of an artifact; what follows is its place in the server's tree of artifacts.
_TREE: Final = "/.gittrack/artifacts/"
#: The fields of answers that say where files are.
_PLACES: Final = ("artifact_uri", "artifact_location", "root_uri")


@lru_cache(maxsize=16)
def _api(folder: str) -> LocalApi:
    from gittrack import session
    from gittrack.server.hub.local import LocalApi

    return LocalApi(session.open_tracker(folder))


def _folder(uri: str) -> str:
    """The folder that a tracking address names, which MLflow may have written with one slash or with three."""
    return str(Path(unquote(urlsplit(uri).path) or ".").absolute())


def _tree(folder: str) -> str:
    return f"gittrack://{quote(folder)}{_TREE}"


def _placed(answer: Any, tree: str) -> Any:
    """An answer whose addresses of files lead into this process."""
    if isinstance(answer, list):
        return [_placed(one, tree) for one in answer]
    if not isinstance(answer, dict):
        return answer
    from gittrack.server.hub.records import ARTIFACTS

    placed = {name: _placed(value, tree) for name, value in answer.items()}
    for name in _PLACES:
        if isinstance(placed.get(name), str):
            placed[name] = placed[name].replace(ARTIFACTS, tree, 1)
    return placed


@contextmanager
def _mlflow_errors() -> Iterator[None]:
    """A block whose failures are MLflow's, as if a server had answered them."""
    from mlflow.exceptions import RestException

    try:
        yield
    except GittrackError as error:
        raise RestException({"error_code": error.code, "message": str(error)}) from error


def _answer(folder: str, method: str, path: str, said: str | None, response: Any) -> Any:
    """What a REST server would have answered, in MLflow's message ``response``.  Raises MLflow's RestException."""
    from mlflow.utils.proto_json_utils import parse_dict

    with _mlflow_errors():
        found = _api(folder).ask(method, path, json.loads(said) if said else {})
    parse_dict(_placed(found, _tree(folder)), response)
    return response


def _host(folder: str) -> Any:
    """What MLflow prints as the address of a run; a request to it, which a server could answer, is refused there."""
    from mlflow.utils.rest_utils import MlflowHostCreds

    return MlflowHostCreds(f"gittrack://{folder}")


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    """MLflow's tracking store of a repository.

    Args:
        store_uri: ``gittrack:///path/to/repo``.
        artifact_uri: Taken for MLflow's sake: files are kept in the repository.
    """
    from mlflow.store.tracking.rest_store import RestStore

    folder = _folder(store_uri)

    class GittrackStore(RestStore):  # type: ignore[misc]  # MLflow has no types
        """MLflow's client of a REST server, answered in this process."""

        def _call_endpoint(
            self,
            api: Any,
            json_body: str | None = None,
            endpoint: str | None = None,
            retry_timeout_seconds: int | None = None,
            response_proto: Any = None,
        ) -> Any:
            known, method = self._METHOD_TO_INFO[api] if api in self._METHOD_TO_INFO else self._V3_METHOD_TO_INFO[api]
            return _answer(folder, method, endpoint or known, json_body, response_proto or api.Response())

    return GittrackStore(lambda: _host(folder))


def model_registry_store(store_uri: str, tracking_uri: str | None = None) -> Any:
    """MLflow's registry store of a repository.

    Args:
        store_uri: ``gittrack:///path/to/repo``.
        tracking_uri: Taken for MLflow's sake: models are registered in the repository that holds their runs.
    """
    from mlflow.store.model_registry.rest_store import RestStore

    folder = _folder(store_uri)

    class GittrackRegistryStore(RestStore):  # type: ignore[misc]  # MLflow has no types
        """MLflow's client of a REST server's registry, answered in this process."""

        def _call_endpoint(
            self, api: Any, json_body: str, call_all_endpoints: bool = False, extra_headers: Any = None
        ) -> Any:
            path, method = self._get_endpoint_from_method(api)
            return _answer(folder, method, path, json_body, self._get_response_from_method(api))

    return GittrackRegistryStore(lambda: _host(folder))


def artifact_repository(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """MLflow's view of the files of a run, of a logged model, or of a folder of theirs.

    Args:
        artifact_uri: As the stores above say it.
        tracking_uri: Taken for MLflow's sake.
        registry_uri: Taken for MLflow's sake.

    Raises:
        InvalidValueError: It is no such address.
    """
    from mlflow.entities import FileInfo
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

    from gittrack.server.hub.artifacts import Place, files_below, find_file, listed, place_of, settle, writer_of

    folder, tree, inside = unquote(urlsplit(artifact_uri).path).partition(_TREE)
    if not tree:
        raise InvalidValueError(f"`{artifact_uri}` is no address of an artifact", hint="a run's artifact_uri is one")
    hub = _api(folder or "/").hub
    tracker = hub.tracker

    def place(path: str | None) -> Place:
        """What a path below the address means; the address itself may be above all artifacts, as MLflow splits it."""
        return place_of(hub, posixpath.join(inside, path or "").rstrip("/"))

    class GittrackArtifacts(ArtifactRepository):  # type: ignore[misc]  # MLflow has no types
        """Files that are kept in the repository by their content."""

        @_mlflow_errors()
        def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
            at = place(artifact_path)
            writer = writer_of(hub, at)
            writer.log_artifact(local_file, at.path or None)
            settle(hub, writer)

        @_mlflow_errors()
        def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
            at = place(artifact_path)
            writer = writer_of(hub, at)
            writer.log_artifacts(local_dir, at.path or None)
            settle(hub, writer)

        @_mlflow_errors()
        def list_artifacts(self, path: str | None = None) -> list[Any]:
            found = listed(hub, place(path))
            names = (posixpath.join(path or "", one.path.rpartition("/")[2]) for one in found)
            return [FileInfo(name, one.is_dir, one.file_size) for name, one in zip(names, found, strict=True)]

        @_mlflow_errors()
        def _download_file(self, remote_file_path: str, local_path: str) -> None:
            found = find_file(hub, place(remote_file_path))
            tracker.repo.objects.copy_out(found.digest, Path(local_path))

        @_mlflow_errors()
        def delete_artifacts(self, artifact_path: str | None = None) -> None:
            at = place(artifact_path)
            writer = writer_of(hub, at)
            writer.remove_artifacts([one.path for one in files_below(hub, at)])
            settle(hub, writer)

    return GittrackArtifacts(artifact_uri, tracking_uri, registry_uri)
