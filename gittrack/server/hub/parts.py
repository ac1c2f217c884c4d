"""Files that come in parts: MLflow's multi-part uploads and downloads through the server.

A client says how many parts a file will have, sends them in any order and as often as it likes, and says when all are
there.  Until then they are in a private folder of the store, also when the server is started again; then they are put
together to one object.  An upload is for one file of one run, and goes on for whoever may write to that run.

No address of a part is a key to anything: the client is told to send along what it showed when it asked for them, since
it sends nothing of its own to what it takes for the address of a bucket.  So each part passes the same guard as
everything else, and a token that is revoked meanwhile is of no use.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import orjson
from starlette.responses import Response

from gittrack.errors import (
    InvalidValueError,
    LockedError,
    NotFoundError,
    StorageError,
    TooLargeError,
    TooManyRequestsError,
)
from gittrack.server.hub.app import Hub
from gittrack.server.hub.artifacts import Place, checked, find_file, place_of, settle, writer_of
from gittrack.server.hub.messages import Message, Values, integer, messages, text
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.server.hub.streams import PIECE, Body, address, threaded
from gittrack.store import files
from gittrack.types import Digest

_FOLDER: Final = "server/uploads"  #: below ``.gittrack``
_MOST_PARTS: Final = 10_000
_MOST_OPEN: Final = 100  #: uploads that a caller may have begun
_AGE: Final = 24 * 3600.0  #: seconds after the last part
_SILENCE: Final = 60.0  #: seconds in which a client may not send a byte
_ID: Final = re.compile(r"[0-9a-f]{32}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,4}")
_ABOUT: Final = "about.json"


class Upload(NamedTuple):
    """A file that comes in parts.

    Attributes:
        folder: Where they are.
        run_id: The run that it will belong to.
        path: Its place there.
        by: Who began it.
        parts: How many there will be.
    """

    folder: Path
    run_id: str
    path: str
    by: str
    parts: int

    def part(self, number: int) -> Path:
        """Where a part is, or would be."""
        return self.folder / str(number)

    def size(self) -> int:
        """Bytes of the parts that are here."""
        with contextlib.suppress(FileNotFoundError):
            return sum(one.stat().st_size for one in os.scandir(self.folder) if _NUMBER.fullmatch(one.name))
        return 0

    def pieces(self, etags: Iterable[str]) -> Iterator[bytes]:
        """The bytes of all parts.  Raises InvalidValueError when one is missing, or is not what it was said to be."""
        for number, etag in enumerate(etags, 1):
            digest = hashlib.sha256()
            try:
                with files.reporting(self.part(number), "read"), self.part(number).open("rb") as source:
                    while piece := source.read(PIECE):
                        digest.update(piece)
                        yield piece
            except NotFoundError:
                raise InvalidValueError(f"part {number} was not sent") from None
            if etag.strip('"') != digest.hexdigest():
                raise InvalidValueError(f"part {number} is not what its ETag says", hint="send it again")

    @property
    def is_there(self) -> bool:
        """Whether nobody completed it or gave it up."""
        return (self.folder / _ABOUT).exists()

    def remove(self) -> None:
        """Remove it, whoever still sends parts of it: they find out and remove what is left."""
        with files.reporting(self.folder, "remove"):
            (self.folder / _ABOUT).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _no_upload() -> NotFoundError:
    return NotFoundError("there is no such upload", hint="it is over, was given up, or is too old: begin again")


def _root(hub: Hub) -> Path:
    return hub.tracker.repo.root / _FOLDER


def _open(hub: Hub, upload_id: str) -> Upload:
    """An upload.  Raises NotFoundError."""
    folder = _root(hub) / upload_id
    if _ID.fullmatch(upload_id) is None:
        raise _no_upload()
    try:
        about = orjson.loads((folder / _ABOUT).read_bytes())
    except FileNotFoundError:
        raise _no_upload() from None
    return Upload(folder, *about)


def _of_file(hub: Hub, values: Values) -> Upload:
    """The upload that a message is about.  Raises NotFoundError, also if it is one of another file."""
    found = _open(hub, values["upload_id"])
    if (found.run_id, found.path) != _place(hub, values):
        raise _no_upload()
    return found


def _sweep(root: Path, by: str) -> int:
    """Remove what nobody goes on with; how many uploads a caller has begun."""
    oldest, count = time.time() - _AGE, 0
    for entry in list(os.scandir(root)):
        with contextlib.suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                Upload(Path(entry.path), "", "", "", 0).remove()
            elif orjson.loads(Path(entry.path, _ABOUT).read_bytes())[2] == by:
                count += 1
    return count


def _place(hub: Hub, values: Values) -> Place:
    """The file that a message is about: it names a folder of a run, and where the client has the file."""
    run_id, path = place_of(hub, values["into"])
    name = re.split(r"[/\\]", values["path"])[-1]
    return Place(run_id, checked(f"{path}/{name}" if path else name))


def _scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.place_scope(place_of(hub, values["into"]).run_id)]


def _part_scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.place_scope(_open(hub, values["upload"]).run_id)._replace(absent=_no_upload())]


def _shown(call: Call) -> dict[str, str]:
    """What the client is to send along: what it showed."""
    found = call.request.headers.get("authorization")
    return {} if found is None else {"Authorization": found}


def _answer(found: Any) -> Response:
    return Response(orjson.dumps(found), media_type="application/json", headers={"cache-control": "no-store"})


def _create(call: Call) -> Response:
    hub, parts = call.hub, call.values.get("num_parts", 1)
    place = _place(hub, call.values)
    if not 1 <= parts <= _MOST_PARTS:
        raise InvalidValueError(f"a file has 1 to {_MOST_PARTS:,} parts", hint="make them larger")
    writer_of(hub, place)
    root = _root(hub)
    files.make_dirs(root)
    root.chmod(0o700)
    if _sweep(root, call.caller.name) >= _MOST_OPEN:
        raise TooManyRequestsError(f"{_MOST_OPEN} uploads have begun and are not over", again=60)
    upload_id = secrets.token_hex(16)
    (root / upload_id).mkdir(0o700)
    files.write_atomic(root / upload_id / _ABOUT, orjson.dumps([*place, call.caller.name, parts]), mode=0o600)
    url = f"{address(call.request, hub.options.public)}/api/2.0/mlflow-artifacts/mpu/part/{upload_id}"
    headers = _shown(call)
    credentials = [
        {"url": f"{url}/{number}", "part_number": number, "headers": headers} for number in range(1, parts + 1)
    ]
    return _answer({"upload_id": upload_id, "credentials": credentials})


async def _part(call: Call) -> Response:
    found: Upload = await threaded(_open, call.hub, call.values["upload"])
    if not _NUMBER.fullmatch(call.values["number"]) or int(call.values["number"]) > found.parts:
        raise NotFoundError(f"this file has {found.parts} parts")
    target = found.part(int(call.values["number"]))
    most = call.hub.options.max_artifact
    body = Body(call.request, limit=most, silence=_SILENCE)
    digest = hashlib.sha256()
    with _still_there():
        fd, temp = await threaded(files.create_temp, found.folder)

    def write(piece: bytes) -> None:
        digest.update(piece)
        with files.reporting(temp):
            files.write_all(fd, piece)

    def finish() -> None:
        with _still_there(), files.reporting(target):
            temp.replace(target)
        if not found.is_there:
            found.remove()
            raise _no_upload()
        if most is not None and found.size() > most:
            files.discard(target)
            raise TooLargeError(f"the file has more than {most} bytes")

    try:
        async for piece in body.pieces():
            await threaded(write, piece)
        await threaded(finish)
    finally:
        os.close(fd)
        files.discard(temp)
    return Response(b"", headers={"etag": f'"{digest.hexdigest()}"'})


def _complete(call: Call) -> Any:
    hub, values = call.hub, call.values
    found = _of_file(hub, values)
    if [one["part_number"] for one in values["parts"]] != list(range(1, found.parts + 1)):
        raise InvalidValueError(f"`parts` names the parts 1 to {found.parts}, in this order")
    writer = writer_of(hub, Place(found.run_id, found.path))
    with _alone(found):
        with hub.tracker.repo.objects.incoming() as incoming:
            for piece in found.pieces(one["etag"] for one in values["parts"]):
                incoming.write(piece)
            stored: tuple[Digest, int] = incoming.finish()
        writer.log_stored(found.path, *stored)
        settle(hub, writer)
        found.remove()
    return {}


def _abort(call: Call) -> Any:
    found = _of_file(call.hub, call.values)
    with _alone(found):
        found.remove()
    return {}


@contextlib.contextmanager
def _still_there() -> Iterator[None]:
    """For work in the folder of an upload.  Raises NotFoundError if the upload is gone by now."""
    try:
        yield
    except StorageError as error:
        if error.errno == errno.ENOENT:
            raise _no_upload() from None
        raise


@contextlib.contextmanager
def _alone(upload: Upload) -> Iterator[None]:
    """Nobody else completes it or gives it up.  Raises LockedError, or NotFoundError if somebody just did."""
    with contextlib.ExitStack() as held:
        try:
            with _still_there():
                held.enter_context(files.FileLock(upload.folder / "lock", timeout=0))
        except LockedError:
            raise LockedError("this upload is being put together") from None
        if not upload.is_there:
            raise _no_upload()
        yield


def _presigned(call: Call) -> Response:
    """Where a file can be had in ranges: where it always is."""
    place = place_of(call.hub, call.values["path"])
    found = find_file(call.hub, place)
    top = address(call.request, call.hub.options.public)
    url = f"{top}/api/2.0/mlflow-artifacts/artifacts/{quote(call.values['path'])}"
    return _answer({"url": url, "headers": _shown(call), "file_size": found.size})


_PART: Final = Message(part_number=integer(required=True), etag=text(required=True))
_API: Final = "{api}/mlflow-artifacts"
_WRITER: Final = Permission(Role.WRITER, _scope)


def _path_scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.place_scope(place_of(hub, values["path"]).run_id)]


ROUTES: Final = (
    Route(
        "POST",
        f"{_API}/mpu/create/{{into:path}}",
        _WRITER,
        _create,
        Message(into=text(required=True), path=text(required=True), num_parts=integer()),
    ),
    Route("PUT", f"{_API}/mpu/part/{{upload}}/{{number}}", Permission(Role.WRITER, _part_scope), _part),
    Route(
        "POST",
        f"{_API}/mpu/complete/{{into:path}}",
        _WRITER,
        _complete,
        Message(
            into=text(required=True),
            path=text(required=True),
            upload_id=text(required=True),
            parts=messages(_PART, required=True),
        ),
    ),
    Route(
        "POST",
        f"{_API}/mpu/abort/{{into:path}}",
        _WRITER,
        _abort,
        Message(into=text(required=True), path=text(required=True), upload_id=text(required=True)),
    ),
    Route("GET", f"{_API}/presigned/{{path:path}}", Permission(Role.READER, _path_scope), _presigned),
)
