"""Calls to a tracking server: JSON and files, over connections that are kept, with bounds in time and size.

A call is made again only if it may be: if it changes nothing, if the caller says that making it twice is the same as
once, or if the server cannot have taken it (no connection came about, or it answered that it is busy).  What the server
says no with is raised as the error of ``gittrack.errors`` that has the same code.

Credentials go to the server that the person named, by https or http as he said, and never on to another one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote, urlencode, urlunsplit

from gittrack import config, errors
from gittrack.errors import FormatError, GittrackError, InvalidValueError, NetworkError
from gittrack.remote.address import parts_of
from gittrack.store import files
from gittrack.store.gateway import strip_credentials
from gittrack.sync.http import Answer, Body, Client, Settings

T = TypeVar("T")

#: Where MLflow's REST API is on a server.
API: Final = "/api/2.0/mlflow/"
#: Bytes of a JSON answer.
MAX_ANSWER: Final = 256 << 20
_MAX_REFUSAL: Final = 64 << 10
#: Seconds in which a call with a JSON answer must be over, and after which it is not made again.
_CALL_S: Final = 120.0
_AGAIN_S: Final = 20.0
_PAUSES: Final = (0.1, 0.4, 1.0)
_BUSY: Final = (502, 503, 504)
_REFUSED: Final = (429, 503)  #: not taken, by what the status means
_SAFE: Final = ("GET", "HEAD")
_SAID: Final = 1000  #: characters of what a server says that are shown

_CLASSES: Final[dict[str, type[GittrackError]]] = {"INVALID_STATE": errors.StateError} | {
    one.code: one
    for one in (
        errors.UsageError,
        errors.NotFoundError,
        errors.NoEndpointError,
        errors.UnauthenticatedError,
        errors.PermissionDeniedError,
        errors.TooManyRequestsError,
        errors.AlreadyExistsError,
        errors.ConflictError,
        errors.DeadlineError,
        errors.UnsupportedError,
        errors.InvalidValueError,
        errors.ReproductionError,
    )
}
_BY_STATUS: Final[dict[int, type[GittrackError]]] = {
    400: errors.InvalidValueError,
    401: errors.UnauthenticatedError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    405: errors.NoMethodError,
    409: errors.ConflictError,
    413: errors.TooLargeError,
    415: errors.MediaTypeError,
    421: errors.MisdirectedError,
    429: errors.TooManyRequestsError,
    501: errors.UnsupportedError,
}
_LOG_IN: Final = "set GITTRACK_TOKEN, or MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD"
_NAME_IT: Final = "credentials go to a server that you name yourself: set GITTRACK_TRACKING_URI"


class Connection:
    """One server; threads may share it, and a forked child goes on with it.

    Args:
        address: ``http://host:5000/prefix``; a user and a password in it are sent as such.
        credentials: Send those of the environment, too; not to a server that a file of the project names.

    Attributes:
        url: The address without credentials, and without a slash at its end.

    Raises:
        InvalidValueError: No address of a server, or credentials that cannot be sent.
    """

    def __init__(self, address: str, *, credentials: bool = True) -> None:
        parts = parts_of(address)
        netloc = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme.lower(), netloc, parts.path.rstrip("/"), "", ""))
        settings = config.current()
        self._settings = Settings(
            proxy=config.proxy(self.url),
            verify=not settings.tracking_insecure_tls,
            certificates=settings.tracking_server_cert_path,
            headers=_authorization(unquote(parts.username or ""), unquote(parts.password or ""), ours=credentials),
        )
        self._log_in = _LOG_IN if credentials else _NAME_IT
        self._lock = threading.Lock()
        self._client: Client | None = None
        files.tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._lock = threading.Lock()
        self._client = None

    def close(self) -> None:
        """End all connections; the next call opens another one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # -- JSON --------------------------------------------------------------------------------------------------------

    def get(self, path: str, /, **parameters: object) -> dict[str, Any]:
        """``GET /api/2.0/mlflow/<path>``; parameters that are None are left out.  Raises as ``call``."""
        given = {key: value for key, value in parameters.items() if value is not None}
        return self.call("GET", f"{API}{path}" + (f"?{urlencode(given, doseq=True)}" if given else ""))

    def post(
        self, path: str, body: Mapping[str, Any], *, method: str = "POST", repeatable: bool = False
    ) -> dict[str, Any]:
        """``POST /api/2.0/mlflow/<path>``, or another method, with JSON.  Raises as ``call``."""
        return self.call(method, f"{API}{path}", body, repeatable=repeatable)

    def pages(
        self, path: str, key: str, body: Mapping[str, Any] | None = None, /, **parameters: object
    ) -> Iterator[dict[str, Any]]:
        """The items of all pages of a list; ``body`` is posted, ``parameters`` are for a GET.  Raises as ``call``."""
        token: str | None = None
        while True:
            more = {} if token is None else {"page_token": token}
            found = (
                self.get(path, **{**parameters, **more})
                if body is None
                else self.post(path, {**body, **more}, repeatable=True)
            )
            yield from items(found, key)
            following = found.get("next_page_token")
            if not following or following == token:
                return
            token = str(following)

    def call(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        seconds: float = _CALL_S,
    ) -> dict[str, Any]:
        """A call that is answered with a JSON object.

        Args:
            method: HTTP's.
            target: Path and query, below the server's address.
            body: A JSON object, or bytes as they are.
            headers: More headers.
            repeatable: Making it twice is the same as making it once.
            seconds: In which it must be over.

        Raises:
            NetworkError: The server cannot be reached, is too slow or too busy, or fails.
            GittrackError: It says no: the error with its code.
            FormatError: It answers what is no JSON object, or too much of it.
        """
        sent = {"Accept": "application/json", **(headers or {})}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None and not isinstance(body, bytes):
            sent["Content-Type"] = "application/json"
        content = None if data is None else Body(lambda: io.BytesIO(data), len(data))

        def read(answer: Answer) -> bytes:
            return answer.read(MAX_ANSWER)

        text = self._perform(method, target, read, sent, content, repeatable=repeatable, seconds=seconds)
        try:
            found = json.loads(text or b"{}")
        except (ValueError, RecursionError) as error:
            raise self._strange() from error
        if not isinstance(found, dict):
            raise self._strange()
        return found

    def _strange(self) -> FormatError:
        return FormatError(f"`{self.url}` does not answer as a tracking server does", hint="is the address right?")

    # -- files -------------------------------------------------------------------------------------------------------

    def download(self, target: str, path: Path) -> tuple[str, str]:
        """Write what ``GET <target>`` gives into a file.  Raises as ``call``, and StorageError.

        Returns:
            sha256 of the bytes, and the header ``ETag``.
        """

        def read(answer: Answer) -> tuple[str, str]:
            found = hashlib.sha256()
            with files.reporting(path), path.open("wb") as out:
                for chunk in answer.chunks():
                    found.update(chunk)
                    out.write(chunk)
            said = answer.headers.get("Content-Length", "")
            if said.isdecimal() and int(said) != path.stat().st_size:
                raise NetworkError(f"`{self.url}` broke off in the middle of a file", again=0.0)
            return found.hexdigest(), answer.headers.get("ETag", "")

        return self._perform("GET", target, read, {"Accept": "*/*"})

    def read(self, target: str, most: int = MAX_ANSWER) -> bytes:
        """What ``GET <target>`` gives.  Raises as ``call``; also NetworkError for more than ``most`` bytes."""
        return self._perform("GET", target, lambda answer: answer.read(most), {"Accept": "*/*"})

    def upload(self, target: str, path: Path) -> None:
        """``PUT`` a file.  Raises as ``call``, and StorageError."""
        with files.reporting(path):
            size = path.stat().st_size
        body = Body(lambda: os.fdopen(files.open_source(path), "rb"), size)
        headers = {"Content-Type": "application/octet-stream"}
        self._perform("PUT", target, lambda answer: answer.read(MAX_ANSWER), headers, body, repeatable=True)

    # -- HTTP --------------------------------------------------------------------------------------------------------

    def _perform(
        self,
        method: str,
        target: str,
        read: Callable[[Answer], T],
        headers: Mapping[str, str],
        body: Body | None = None,
        *,
        repeatable: bool = False,
        seconds: float | None = None,
    ) -> T:
        """What ``read`` makes of a good answer."""
        until = time.monotonic() + _AGAIN_S
        for pause in (*_PAUSES, None):
            taken = True  # the server may have done it
            try:
                with self._opened().exchange(method, self.url + target, headers, body=body, seconds=seconds) as answer:
                    if answer.ok:
                        return read(answer)
                    taken = answer.status not in _REFUSED
                    raise self._refusal(answer)
            except (NetworkError, errors.TooManyRequestsError) as error:
                again = repeatable or method in _SAFE or not taken or _unconnected(error)
                wait = max(pause or 0.0, error.again or 0.0)
                if pause is None or error.again is None or not again or time.monotonic() + wait > until:
                    error.hint = error.hint if error.__cause__ is None else _hint(error.__cause__)
                    raise
            time.sleep(wait)
        raise AssertionError  # the last attempt returned or raised

    def _opened(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = Client(self.url, self._settings)
            return self._client

    def _refusal(self, answer: Answer) -> GittrackError:
        """The error that an answer without success is."""
        status = answer.status
        try:
            told = json.loads(answer.read(_MAX_REFUSAL))
            code, said = str(told.get("error_code", "")), " ".join(str(told.get("message", "")).split())[:_SAID]
        except (ValueError, AttributeError, RecursionError, NetworkError):
            code = said = ""
        said = strip_credentials(said)
        if 300 <= status < 400:
            return NetworkError(f"`{self.url}` sends us elsewhere", hint="name the address that it sends to")
        if status in _BUSY:
            return NetworkError(
                f"`{self.url}` is busy or away ({status}){': ' if said else ''}{said}",
                hint="try again later",
                again=answer.pause() or 0.0,
            )
        kind = _CLASSES.get(code) or _BY_STATUS.get(status)
        if kind is None:
            return NetworkError(f"`{self.url}` fails ({status}): {said or code or 'it does not say why'}")
        if kind is errors.UnauthenticatedError:
            return kind(
                f"`{self.url}` does not know who asks: {said or 'no credentials, or wrong ones'}", hint=self._log_in
            )
        if kind is errors.TooManyRequestsError:
            return errors.TooManyRequestsError(
                said or f"`{self.url}` is asked too often", again=int(answer.pause() or 1)
            )
        return kind(said or f"`{self.url}` says no ({status})")


def _unconnected(error: GittrackError) -> bool:
    """Whether no connection came about, so that the server cannot have done what it was to be asked."""
    from urllib3 import exceptions

    return isinstance(error.__cause__, (exceptions.NewConnectionError, exceptions.ConnectTimeoutError))


def _hint(cause: BaseException) -> str:
    """The next step after trouble with a connection."""
    from urllib3 import exceptions

    if isinstance(cause, exceptions.SSLError):
        return "GITTRACK_TRACKING_SERVER_CERT_PATH names the certificates of a server of your own"
    return "is the server running, and is the address right? `gittrack help tracking`"


def _authorization(user: str, password: str, *, ours: bool) -> dict[str, str]:
    """The header that says who asks: what the address says, else a token, else a user; empty if nobody says it."""
    token = ""
    if not user and ours:
        token, user, password = config.credentials()
    if token:
        value = f"Bearer {token}"
    elif user:
        value = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    else:
        return {}
    if not value.isascii() or not value.isprintable():
        raise InvalidValueError("the token for the server has characters that no token has", hint="copy it anew")
    return {"Authorization": value}


def quoted(path: str) -> str:
    """An artifact's path as a part of a target."""
    return quote(path, safe="/")


def items(found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects under a key of an answer; empty if it is not there.  Raises FormatError."""
    listed = found.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise FormatError(f"a server answers no list of `{key}`")
    return listed
