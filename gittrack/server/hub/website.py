"""The web page: one document for every address that it shows, and the files it is made of.

They are built with the package (`gittrack/ui`) and read once.  The names of the files say what is in them, so browsers
keep them for good; the document is asked for each time.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from gittrack.errors import NotFoundError
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route

_BUILT: Final = Path(__file__).parent / "page" / "built"
_DOCUMENT: Final = "index.html"
#: Where the document says that its parts are.
AT: Final = "/page/"
#: What is worth being compressed.
_TEXT: Final = frozenset(("text/html", "text/css", "text/javascript", "image/svg+xml"))


class _File(NamedTuple):
    kind: str
    data: bytes
    compressed: bytes | None
    tag: str


@lru_cache(maxsize=1)
def _files() -> dict[str, _File]:
    """Every file of the page, by its path below `/page`; none if the package was built without it."""
    found: dict[str, _File] = {}
    for path in sorted(_BUILT.rglob("*")) if _BUILT.is_dir() else ():
        if path.is_file():
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            data = path.read_bytes()
            compressed = gzip.compress(data, 9, mtime=0) if kind in _TEXT else None
            tag = f'"{hashlib.blake2b(data, digest_size=16).hexdigest()}"'
            found[path.relative_to(_BUILT).as_posix()] = _File(kind, data, compressed, tag)
    return found


def is_built() -> bool:
    """Whether this installation has the page."""
    return _DOCUMENT in _files()


def contents() -> dict[str, bytes]:
    """The page's files by name, the document among them.  Raises NotFoundError if it was not built."""
    if not is_built():
        raise _not_built()
    return {name: file.data for name, file in _files().items()}


def _not_built() -> NotFoundError:
    return NotFoundError(
        "this installation of gittrack has no web page", hint="`pip install gittrack` builds it; `gittrack help ui`"
    )


def wants_page(scope: Mapping[str, Any], head: Mapping[bytes, bytes]) -> bool:
    """Whether somebody has led a browser there, who is shown a page rather than what programs read."""
    return (
        scope["method"] == "GET"
        and b"authorization" not in head
        and b"text/html" in head.get(b"accept", b"")
        and head.get(b"sec-fetch-mode") in (None, b"navigate")
        and not scope["path"].startswith(("/api/", "/ajax-api/", "/git/"))
    )


def nothing() -> Response:
    """The page, which says itself that it has nothing at the address.  Raises NotFoundError if it was not built."""
    return Response(contents()[_DOCUMENT], 404, {"cache-control": "no-store"}, media_type="text/html")


def _document(call: Call) -> Response:
    return _sent(call, _DOCUMENT, "no-cache")


def _part(call: Call) -> Response:
    return _sent(call, call.values["name"], "private, max-age=31536000, immutable")


def _sent(call: Call, name: str, cached: str) -> Response:
    file = _files().get(name)
    if file is None and name == _DOCUMENT:
        raise _not_built()
    if file is None:
        raise NotFoundError("there is nothing at this address")
    headers = {"cache-control": cached, "etag": file.tag, "vary": "Accept-Encoding"}
    if call.request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if file.compressed is not None and "gzip" in call.request.headers.get("accept-encoding", ""):
        return Response(file.compressed, media_type=file.kind, headers={**headers, "content-encoding": "gzip"})
    return Response(file.data, media_type=file.kind, headers=headers)


_READ: Final = Permission(Role.READER)

ROUTES: Final = (
    *(
        Route("GET", path, _READ, _document, answer="text/html")
        for path in ("/", "/compare", "/models", "/models/{name:path}", "/runs/{run_id}", "/settings")
    ),
    Route("GET", f"{AT}{{name:path}}", _READ, _part, answer="*/*"),
)
