"""Which tracking addresses name a server; asked by every program, so nothing else is loaded for it."""

from __future__ import annotations

from typing import TypeGuard
from urllib.parse import SplitResult, urlsplit

from gittrack.errors import InvalidValueError


def is_server(uri: str | None) -> TypeGuard[str]:
    """Whether a tracking address names a server."""
    return uri is not None and uri[:8].lower().startswith(("http://", "https://"))


def parts_of(address: str) -> SplitResult:
    """The parts of a server's address.  Raises InvalidValueError, which tells no password."""
    parts = urlsplit(address)
    try:
        wrong = parts.port == 0
    except ValueError:
        wrong = True
    if wrong or not is_server(address) or not parts.hostname or parts.query or parts.fragment:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise InvalidValueError(f"`{shown:.200}` is no address of a server", hint="http://HOST:PORT")
    return parts
