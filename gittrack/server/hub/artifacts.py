"""The files of runs and of logged models: listed, sent and received in pieces, never held in memory as a whole.

MLflow's clients see one tree: ``<experiment>/<run>/artifacts/<path>`` and, for logged models,
``<experiment>/models/<model>/artifacts/<path>``.  What is elsewhere in it is of no run: the free tree, for whoever may
read, or write, everything.  The folders of experiments have nothing but their runs in them.
"""

from __future__ import annotations

import contextlib
import mimetypes
import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import anyio.to_thread
from starlette.responses import Response, StreamingResponse

from gittrack.errors import InvalidValueError, NotFoundError, TooLargeError
from gittrack.server.hub import logged_models, records
from gittrack.server.hub.app import Hub, no_file
from gittrack.server.hub.messages import Message, Values, boolean, messages, text
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.server.hub.runs import run_scope
from gittrack.server.hub.streams import asked_range, is_known
from gittrack.store import layout
from gittrack.sync import artifacts
from gittrack.track import limits
from gittrack.track.active import ActiveRun
from gittrack.track.logged_models import FOLDER as MODELS
from gittrack.track.tree import RUN_ID
from gittrack.types import Artifact, FileInfo

_PIECE: Final = 1 << 20
_SMALL: Final = 256 << 10  #: files up to this size are read at once
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$&+.^_`|~-]+")
_QUOTABLE: Final = re.compile(r"[ !#$&-\[\]-~]+")  #: no `"`, no `\` and no `%`, which browsers decode
#: What files are whose name alone tells it.
_KINDS: Final = {"mlmodel": "text/plain", "mlproject": "text/plain"}
#: What a browser may know for what it is; all else is bytes to it.
_SHOWN: Final = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp", "text/plain", "application/pdf"))
#: What a page may take for a picture, or a sound, wherever it comes from.
_PICTURES: Final = ("image/", "audio/", "video/")
#: What the page shows in a frame that is a world of its own, and what such a document may: be seen, all by itself.
_DOCUMENTS: Final = (".html", ".htm")
_ALONE: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_SCRIPTS: Final = "; script-src 'unsafe-inline' 'unsafe-eval'"


class Place(NamedTuple):
    """A file or folder of a run, or of the free tree, which a run keeps, too."""

    run_id: str
    path: str

    @property
    def free(self) -> bool:
        """Whether it is of no run."""
        return self.run_id == RUN_ID


#: The top of the free tree.
TOP: Final = Place(RUN_ID, "")


def place_of(hub: Hub, path: str) -> Place:
    """What a path of the tree means.

    Raises:
        InvalidValueError: It is no plain path.
        NotFoundError: It is below an experiment, and there is no such run.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        raise InvalidValueError("Invalid path")
    if not layout.is_derived_id(parts[0]):
        return _of_location(hub, parts) or Place(RUN_ID, checked(path))
    if parts[1:2] == ["models"] and parts[3:4] == ["artifacts"]:
        try:
            model = hub.logged_model(parts[2])
        except NotFoundError:
            raise no_file() from None  # as of one that the caller may not see
        if model.experiment_id != parts[0]:
            raise no_file()
        return Place(model.run_id, "/".join((model.path, *parts[4:])))
    if len(parts) < 3 or parts[2] != "artifacts":
        raise NotFoundError("there are no artifacts at this path", hint="<experiment>/<run>/artifacts/<path>")
    experiment_id, run_id, rest = parts[0], parts[1], "/".join(parts[3:])
    try:
        found = hub.run_experiment(run_id)
    except NotFoundError:
        raise no_file() from None  # likewise
    if found != experiment_id:
        raise no_file()
    return Place(run_id, rest)


def _of_location(hub: Hub, parts: list[str]) -> Place | None:
    """The place of a run, or of a logged model, whose experiment has a location of its own; None if it is none."""
    for at in (at for at, part in enumerate(parts) if part == "artifacts" and at > 0):
        root, name, rest = f"{records.ARTIFACTS}{'/'.join(parts[: at + 1])}", parts[at - 1], parts[at + 1 :]
        with contextlib.suppress(NotFoundError, InvalidValueError):
            if parts[at - 2 : at - 1] == ["models"] and (model := hub.logged_model(name)).artifact_location == root:
                return Place(model.run_id, "/".join((model.path, *rest)))
        with contextlib.suppress(NotFoundError, InvalidValueError):
            if hub.run(name).info.artifact_uri == root:
                return Place(name, "/".join(rest))
    return None


def writer_of(hub: Hub, place: Place) -> ActiveRun:
    """The handle to write to a place; ``settle`` is to follow.

    Raises:
        NotFoundError, StateError: No such run, or it is deleted; the free tree was purged.
    """
    return hub.tree.writer() if place.free else hub.writer(place.run_id)


def settle(hub: Hub, writer: ActiveRun) -> None:
    """Put on disk what was written to a place, if nobody else does: nothing ends the free tree's run."""
    if writer.run_id == RUN_ID:
        hub.tracker.settle(writer)


def files_below(hub: Hub, place: Place) -> list[Artifact]:
    """The file at a place, or those in the folder.  Raises NotFoundError."""
    return hub.tree.below(place.path) if place.free else hub.tracker.artifacts(place.run_id, place.path)


def _scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.place_scope(place_of(hub, values["path"]).run_id)]


def checked(path: str) -> str:
    """A path below a run's artifacts.  Raises InvalidValueError, in MLflow's words."""
    try:
        return limits.check_artifact_path(path)
    except InvalidValueError as error:
        raise InvalidValueError("Invalid path") from error


# --- lists


def listed(hub: Hub, place: Place) -> list[FileInfo]:
    """What is in a folder, of a run without its logged models, which have a tree of their own."""
    run_id, path = place
    if place.free:
        return hub.tree.entries(path)
    found: list[FileInfo] = hub.client.list_artifacts(run_id, path)
    if path == "":
        return [one for one in found if one.path != MODELS or listed(hub, Place(run_id, MODELS))]
    return [one for one in found if not _of_model(hub, one.path)] if path == MODELS else found


def _of_model(hub: Hub, path: str) -> bool:
    try:
        return hub.logged_model(path.removeprefix(f"{MODELS}/"), deleted=True).path == path
    except (NotFoundError, InvalidValueError):
        return False


def _list(call: Call) -> Any:
    values = call.values
    path = checked(values["path"]) if values.get("path") else ""
    found = listed(call.hub, Place(values["run_id"], path))
    root = records.artifact_root(call.hub.run(values["run_id"]).info)
    files = [records.file_info(one) for one in found]
    return {"root_uri": root} | ({"files": files} if files else {})


def _list_tree(call: Call) -> Any:
    """Names, not paths: that is what clients of the tree expect."""
    place = _listed_place(call.hub, call.values)
    found = listed(call.hub, place)
    files = [records.file_info(one, one.path.rpartition("/")[2]) for one in found]
    return {"files": files} if files else {}


def _listed_place(hub: Hub, values: Values) -> Place:
    """The folder that a list is asked of; without a path it is the top of the free tree."""
    path = values.get("path", "").rstrip("/")
    return place_of(hub, path) if path else TOP


# --- downloads


async def _download(call: Call) -> Response:
    place = await _threaded(place_of, call.hub, call.values["path"])
    return await _send(call, place)


async def _download_of_run(call: Call) -> Response:
    return await _send(call, Place(call.values["run_id"], checked(call.values["path"])))


async def _show_of_run(call: Call) -> Response:
    """A document of a run for a frame of the page, and for nothing else: alone it would look like a page of ours.

    It has no origin, so no session; it loads nothing, sends nothing and leads nowhere.
    """
    if call.request.headers.get("sec-fetch-dest") != "iframe":
        raise InvalidValueError("a document is shown inside of the page only", hint="`/get-artifact` sends the file")
    path = checked(call.values["path"])
    if not path.lower().endswith(_DOCUMENTS):
        raise InvalidValueError("this file is no document that can be shown")
    scripts = call.values.get("scripts", False)
    policy = f"sandbox{' allow-scripts' if scripts else ''}; {_ALONE}{_SCRIPTS if scripts else ''}"
    shown = {"content-security-policy": policy, "x-frame-options": "SAMEORIGIN", "content-disposition": "inline"}
    return await _send(call, Place(call.values["run_id"], path), "text/html; charset=utf-8", shown)


async def _download_of_version(call: Call) -> Response:
    path = checked(call.values["path"])
    version = await _threaded(call.hub.client.get_model_version, call.values["name"], call.values["version"])
    if not version.elsewhere:
        return await _send(call, Place(version.run_id, f"{version.path}/{path}" if version.path else path))
    top = urlsplit(version.source).path.strip("/")
    if not records.is_here(version.source):
        raise NotFoundError(f"the files of this version are at {version.source}, which this server does not open")
    place = await _threaded(place_of, call.hub, f"{top}/{path}" if top else path)
    if not (await _threaded(call.hub.place_scope, place.run_id)).open_to(call.caller, Role.READER):
        raise no_file()
    return await _send(call, place)


async def _download_of_model(call: Call) -> Response:
    path = checked(call.values["artifact_file_path"])
    model = await _threaded(call.hub.logged_model, call.values["model_id"])
    return await _send(call, Place(model.run_id, f"{model.path}/{path}"))


async def _send(
    call: Call, place: Place, shown_as: str | None = None, more: Mapping[str, str] | None = None
) -> Response:
    """A file; as a download, unless ``more`` headers make it harmless to be ``shown_as`` something."""
    hub = call.hub
    found = await _threaded(find_file, hub, place)
    name = found.path.rpartition("/")[2]
    kind = shown_as or mimetypes.guess_type(name)[0] or _KINDS.get(name.lower(), "")
    if shown_as is None and kind not in _SHOWN and not kind.startswith(_PICTURES):
        # no page takes it for a script, a style or a document
        kind = "application/octet-stream"
    headers = {
        "content-type": kind,  # of text nobody said how it is encoded
        "content-disposition": f"attachment; {_named(name)}",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "etag": f'"{found.digest}"',
        "accept-ranges": "bytes",
        **(more or {}),
    }
    if is_known(call.request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    asked = asked_range(call.request, found.size, headers["etag"])
    if asked is not None:
        start, stop = asked
        if start >= stop:
            return Response(status_code=416, headers=headers | {"content-range": f"bytes */{found.size}"})
        headers["content-range"] = f"bytes {start}-{stop - 1}/{found.size}"
        headers["content-length"] = str(stop - start)
        return StreamingResponse(_range(hub, found, start, stop), 206, headers=headers)
    if found.size <= _SMALL:
        data = await _threaded(hub.tracker.repo.objects.read, found.digest)
        return Response(data, headers=headers)
    headers["content-length"] = str(found.size)
    return StreamingResponse(_pieces(hub, found), headers=headers)


def _named(name: str) -> str:
    """The name of a file as a parameter of Content-Disposition; most programs read only the plain form."""
    if _TOKEN.fullmatch(name):
        return f"filename={name}"
    return f'filename="{name}"' if _QUOTABLE.fullmatch(name) else f"filename*=UTF-8''{quote(name, safe='')}"


def find_file(hub: Hub, place: Place) -> Artifact:
    """A file, with its bytes here.  Raises NotFoundError."""
    if not place.path:
        raise NotFoundError("this is a folder")
    if place.free:
        found = hub.tree.file(place.path)
    else:
        try:
            found = hub.tracker.artifact(place.run_id, place.path)
        except NotFoundError:
            root = records.artifact_root(hub.run(place.run_id).info)
            if not records.is_elsewhere(root):
                raise
            raise NotFoundError(f"the files of this run are at {root}, which this server does not open") from None
    artifacts.bring(hub.tracker, [found])
    return found


async def _pieces(hub: Hub, found: Artifact) -> AsyncIterator[bytes]:
    """The bytes of a file, which end too early if they turn out to be wrong."""
    source = await _threaded(hub.tracker.repo.objects.open, found.digest)
    try:
        while piece := await _threaded(source.read, _PIECE):
            yield piece
    finally:
        await _threaded(source.close)


async def _range(hub: Hub, found: Artifact, start: int, stop: int) -> AsyncIterator[bytes]:
    """Some bytes of a file; they are not checked, since its hash is that of all of them."""
    with contextlib.ExitStack() as held:
        fd = await _threaded(held.enter_context, hub.tracker.repo.objects.descriptor(found.digest))
        os.lseek(fd, start, os.SEEK_SET)
        while start < stop and (piece := await _threaded(os.read, fd, min(_PIECE, stop - start))):
            start += len(piece)
            yield piece


async def _threaded(work: Any, *arguments: Any) -> Any:
    return await anyio.to_thread.run_sync(work, *arguments)


# --- uploads, deletions


async def _upload(call: Call) -> Any:
    return await _receive(call, await _threaded(place_of, call.hub, call.values["path"]))


async def _upload_of_page(call: Call) -> Any:
    """What MLflow's own page sends: a small file of a run."""
    for name in ("run_uuid", "path"):
        if not call.values.get(name):
            raise InvalidValueError(f"Request must specify {name}.")
    place = Place(call.values["run_uuid"], checked(call.values["path"]))
    if call.request.headers.get("content-length", "0") == "0":
        raise InvalidValueError("Request must specify data.")
    return await _receive(call, place)


async def _receive(call: Call, place: Place) -> Any:
    hub = call.hub
    path = checked(place.path)
    writer = await _threaded(writer_of, hub, place)
    most = hub.options.max_artifact
    announced = int(call.request.headers.get("content-length", "0"))
    if most is not None and announced > most:
        raise TooLargeError(f"the file has more than {most} bytes")
    if announced and announced <= _SMALL:
        await _threaded(writer.log_bytes, await call.request.body(), path)
        await _threaded(settle, hub, writer)
        return {}
    stack = contextlib.ExitStack()
    incoming = await _threaded(stack.enter_context, hub.tracker.repo.objects.incoming())
    try:
        async for piece in call.request.stream():
            if most is not None and incoming.size + len(piece) > most:
                raise TooLargeError(f"the file has more than {most} bytes")
            if piece:
                await _threaded(incoming.write, piece)
        stored = await _threaded(incoming.finish)
    except BaseException as error:
        stack.__exit__(type(error), error, error.__traceback__)  # nothing of it stays; no disk is waited for
        raise
    await _threaded(stack.close)
    await _threaded(writer.log_stored, path, *stored)
    await _threaded(settle, hub, writer)
    return {}


def _delete(call: Call) -> Any:
    place = place_of(call.hub, call.values["path"])
    found = files_below(call.hub, place)
    writer = writer_of(call.hub, place)
    writer.remove_artifacts([one.path for one in found])
    settle(call.hub, writer)
    return {}


_FILES: Final = "{api}/mlflow-artifacts/artifacts"
_FILE: Final = Message(path=text(required=True))
_RUN_FILE: Final = Message(run_id=text(required=True, alias="run_uuid"), path=text(required=True))


def _model_scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.model_scope(values["name"])]


def _page_scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.run_scope(values["run_uuid"])] if values.get("run_uuid") else []


def _tree_scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.place_scope(_listed_place(hub, values).run_id)]


ROUTES: Final = (
    Route(
        "GET",
        "{api}/mlflow/artifacts/list",
        Permission(Role.READER, run_scope),
        _list,
        Message(run_id=text(required=True, alias="run_uuid"), path=text(), page_token=text()),
        answer=records.FILES,
    ),
    Route(
        "GET",
        _FILES,
        Permission(Role.READER, _tree_scope),
        _list_tree,
        Message(path=text()),
        answer=Message(files=messages(records.FILE)),
    ),
    Route("GET", f"{_FILES}/{{path:path}}", Permission(Role.READER, _scope), _download, answer="*/*"),
    Route("PUT", f"{_FILES}/{{path:path}}", Permission(Role.WRITER, _scope), _upload, answer=records.DONE),
    Route("DELETE", f"{_FILES}/{{path:path}}", Permission(Role.MAINTAINER, _scope), _delete, answer=records.DONE),
    Route(
        "POST",
        "/ajax-api/2.0/mlflow/upload-artifact",
        Permission(Role.WRITER, _page_scope),
        _upload_of_page,
        Message(run_uuid=text(), path=text()),
        answer=records.DONE,
        streams=True,
    ),
    Route("GET", "/get-artifact", Permission(Role.READER, run_scope), _download_of_run, _RUN_FILE, answer="*/*"),
    Route(
        "GET",
        "/show-artifact",
        Permission(Role.READER, run_scope),
        _show_of_run,
        Message(run_id=text(required=True), path=text(required=True), scripts=boolean()),
        answer="*/*",
    ),
    Route(
        "GET",
        "/model-versions/get-artifact",
        Permission(Role.READER, _model_scope),
        _download_of_version,
        Message(name=text(required=True), version=text(required=True), path=text(required=True)),
        answer="*/*",
    ),
    Route(
        "GET",
        "{api}/mlflow/logged-models/{model_id}/artifacts/files",
        Permission(Role.READER, logged_models.scope),
        _download_of_model,
        Message(model_id=text(required=True), artifact_file_path=text(required=True)),
        answer="*/*",
    ),
)
