"""The server as a git-lfs server: the batch API and basic transfers, over the objects of a project.

An object is stored under the sha256 of its bytes, which is found out while they come: nothing that was sent can take
the place of something else.  Whoever may read something in a project gets every object whose sha256 he knows, and he
knows those that the commits he may fetch name.  Who may not see everything is not told what is here already.

Source: https://github.com/git-lfs/git-lfs/tree/main/docs/api
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import orjson
from starlette.responses import Response

from gittrack.errors import (
    CorruptError,
    GittrackError,
    InvalidValueError,
    MediaTypeError,
    NotFoundError,
    TooLargeError,
    UnsupportedError,
)
from gittrack.server.hub.git import ROOT, Handler, asking, find
from gittrack.server.hub.projects import Project, Projects
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route
from gittrack.server.hub.streams import PIECE, Body, Timely, address, asked_range, no_cache, threaded
from gittrack.types import Digest

KIND: Final = "application/vnd.git-lfs+json"
_MAX_REQUEST: Final = 4 << 20
_OID: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Bounds:
    """What a client may take.

    Attributes:
        object: Bytes of one object; None for any number.
        batch: Objects of one request.
        silence: Seconds in which a client may neither send nor take a byte.
        threads: Transfers that wait for the disk at a time.
    """

    object: int | None = None
    batch: int = 1000
    silence: float = 60.0
    threads: int = 16


class LfsServer:
    """Answers clients of git-lfs.

    Args:
        projects: The repositories.
        public: How clients reach this server, as ``https://host``; None: as they say themselves.
        bounds: What a request may take.
    """

    def __init__(self, projects: Projects, *, public: str | None = None, bounds: Bounds | None = None) -> None:
        self.projects = projects
        self.public = public
        self.bounds = bounds or Bounds()
        self._threads = anyio.CapacityLimiter(self.bounds.threads)

    def routes(self) -> tuple[Route, ...]:
        """The routes."""
        top, anybody = f"{ROOT}/info/lfs", Permission(Role.READER)
        routes: list[tuple[str, str, Handler]] = [
            ("POST", "objects/batch", self._batch),
            ("GET", "objects/{oid}", self._download),
            ("PUT", "objects/{oid}", self._upload),
            ("POST", "verify", self._verify),
            ("GET", "locks", self._locks),
            ("POST", "locks", self._locks),
            ("POST", "locks/verify", self._locks),
            ("POST", "locks/{id}/unlock", self._locks),
        ]
        return tuple(Route(method, f"{top}/{path}", anybody, _answering(handler)) for method, path, handler in routes)

    async def _batch(self, call: Call) -> Response:
        said = await self._json(call)
        operation = said.get("operation")
        if operation not in ("upload", "download"):
            raise InvalidValueError("`operation` is `upload` or `download`")
        if "basic" not in said.get("transfers", ["basic"]):
            raise UnsupportedError("only basic transfers are offered", hint="ask for `basic`, too")
        if said.get("hash_algo", "sha256") != "sha256":
            raise MediaTypeError("objects are named by sha256 only")
        asked = said.get("objects")
        if not isinstance(asked, list):
            raise InvalidValueError("`objects` is a list")
        if len(asked) > self.bounds.batch:
            raise TooLargeError(f"more than {self.bounds.batch} objects at once", hint="ask for fewer at a time")
        role = Role.WRITER if operation == "upload" else Role.READER
        project = await self._find(call, role)
        top = f"{address(call.request, self.public)}/git/{project.name}/info/lfs"
        reveal = call.caller.may(Role.READER)

        def look() -> list[dict[str, Any]]:
            return [self._object(project, operation, one, top, reveal=reveal) for one in asked]

        objects = await self._in_thread(look)
        return _json({"transfer": "basic", "objects": objects, "hash_algo": "sha256"})

    def _object(self, project: Project, operation: str, asked: Any, top: str, *, reveal: bool) -> dict[str, Any]:
        """One object of a batch: what is to be done with it, or what is wrong."""
        oid, size = (asked.get("oid"), asked.get("size")) if isinstance(asked, dict) else (None, None)
        if not isinstance(oid, str) or not _OID.fullmatch(oid) or type(size) is not int or not 0 <= size < 1 << 63:
            return {"oid": str(oid)[:64], "size": 0, **_wrong(422, "an object has a sha256 and a size")}
        known: dict[str, Any] = {"oid": oid, "size": size}
        if operation == "download":
            if not project.repo.objects.has(Digest(oid)):
                return {**known, **_wrong(404, "this object is not here")}
            if not project.repo.objects.has(Digest(oid), size):
                return {**known, **_wrong(422, "this object has another size")}
            return {**known, "actions": {"download": {"href": f"{top}/objects/{oid}"}}}
        if self.bounds.object is not None and size > self.bounds.object:
            return {**known, **_wrong(422, f"objects have at most {self.bounds.object:,} bytes here")}
        if reveal and project.repo.objects.has(Digest(oid), size):
            return known
        return {
            **known,
            "actions": {"upload": {"href": f"{top}/objects/{oid}"}, "verify": {"href": f"{top}/verify"}},
        }

    async def _upload(self, call: Call) -> Response:
        project = await self._find(call, Role.WRITER)
        digest = _digest(call)
        project.repo.require_writable()
        announced = call.request.headers.get("content-length", "")
        most = self.bounds.object
        if most is not None and announced.isdigit() and int(announced) > most:
            raise TooLargeError(f"objects have at most {most:,} bytes here")
        body = Body(call.request, limit=most, silence=self.bounds.silence)
        stack = contextlib.ExitStack()
        incoming = await self._in_thread(stack.enter_context, project.repo.objects.incoming())
        try:
            async for piece in body.pieces():
                await self._in_thread(incoming.write, piece)
            await self._in_thread(incoming.finish, digest)
        except BaseException as error:
            stack.__exit__(type(error), error, error.__traceback__)  # nothing of it stays; no disk is waited for
            raise
        await self._in_thread(stack.close)
        return Response(b"", headers=no_cache())

    async def _download(self, call: Call) -> Response:
        project = await self._find(call, Role.READER)
        digest = _digest(call)
        try:
            size: int = await self._in_thread(project.repo.objects.size, digest)
        except NotFoundError:
            raise NotFoundError("this object is not here") from None
        headers = {
            "etag": f'"{digest}"',
            "accept-ranges": "bytes",
            "content-disposition": "attachment",
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox; default-src 'none'",
            "cache-control": "private, immutable, max-age=31536000",
        }
        start, stop, status = 0, size, 200
        asked = asked_range(call.request, size, headers["etag"])
        if asked is not None:
            start, stop = asked
            if start >= stop:
                return Response(b"", 416, {**headers, "content-range": f"bytes */{size}"})
            status, headers["content-range"] = 206, f"bytes {start}-{stop - 1}/{size}"
        headers["content-length"] = str(stop - start)
        objects = project.repo.objects
        if status == 200:  # its last bytes are sent only if all of them are right
            source = await self._in_thread(objects.open, digest)
        else:
            source = await self._in_thread(objects.open_from, digest, start)
        pieces = self._pieces(source.read, stop - start)
        kind = "application/octet-stream"
        return Timely(pieces, silence=self.bounds.silence, ended=source.close, status_code=status, media_type=kind,
                      headers=headers)  # fmt: skip

    async def _pieces(self, read: Callable[[int], bytes], size: int) -> AsyncIterator[bytes]:
        """The bytes of an object, which end too early if they turn out to be wrong."""
        while size > 0 and (piece := await self._in_thread(read, min(size, PIECE))):
            size -= len(piece)
            yield piece

    async def _verify(self, call: Call) -> Response:
        project = await self._find(call, Role.WRITER)
        said = await self._json(call)
        oid, size = said.get("oid"), said.get("size")
        if not isinstance(oid, str) or not _OID.fullmatch(oid) or type(size) is not int:
            raise InvalidValueError("an object has a sha256 and a size")
        if not await self._in_thread(project.repo.objects.has, Digest(oid)):
            raise NotFoundError("this object is not here")
        if not await self._in_thread(project.repo.objects.has, Digest(oid), size):
            raise CorruptError("this object has another size")
        return _json({})

    async def _locks(self, call: Call) -> Response:
        await self._find(call, Role.READER)
        raise UnsupportedError("files are not locked here", hint="git config lfs.locksverify false")

    # ----------------------------------------------------------------------------------------------------------------

    async def _find(self, call: Call, role: Role) -> Project:
        found: Project = await self._in_thread(find, self.projects, call.caller, call.values["project"], role)
        return found

    async def _json(self, call: Call) -> Mapping[str, Any]:
        kind = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (KIND, "application/json"):
            raise MediaTypeError(f"the body is no `{KIND}`")
        body = Body(call.request, limit=_MAX_REQUEST, silence=self.bounds.silence)
        data = b"".join([piece async for piece in body.pieces()])
        try:
            said = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise InvalidValueError(f"the body is no JSON: {error}") from None
        if not isinstance(said, dict):
            raise InvalidValueError("the body is no JSON object")
        return said

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await threaded(work, *arguments, limiter=self._threads)


def _digest(call: Call) -> Digest:
    oid = call.values["oid"]
    if not _OID.fullmatch(oid):
        raise NotFoundError("this object is not here")
    return Digest(oid)


def _wrong(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _json(found: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(found), status, {**no_cache(), **(headers or {})}, media_type=KIND)


def _answering(handler: Handler) -> Handler:
    """``handler``, with errors in the shape that git-lfs reads."""

    async def answer(call: Call) -> Response:
        try:
            return await handler(call)
        except GittrackError as error:
            headers = asking(error)
            if "www-authenticate" in headers:
                headers = {**headers, "lfs-authenticate": headers["www-authenticate"]}
            status = 422 if isinstance(error, CorruptError) else error.http_status
            return _json({"message": str(error)}, status, headers)

    return answer
