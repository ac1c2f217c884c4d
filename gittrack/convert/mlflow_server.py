"""A MLflow server over HTTP: JSON calls and files, with bounds; nothing of MLflow's is needed."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

from gittrack.errors import (
    AlreadyExistsError,
    FormatError,
    GittrackError,
    InvalidValueError,
    NetworkError,
    NotFoundError,
)
from gittrack.store import files

#: Bytes of a JSON answer.
MAX_ANSWER: Final = 256 << 20
#: Seconds without an answer.
TIMEOUT: Final = 60.0
#: A call is made so many times if the server is busy or goes away.
ATTEMPTS: Final = 4
_CHUNK: Final = 1 << 20
_BUSY: Final = (429, 502, 503, 504)
_GONE: Final = (http.client.HTTPException, OSError)


class Server:
    """One server; calls are made one after the other over one connection.

    Args:
        address: ``http://host:5000/prefix``; a user and a password in it are sent as such.
        environment: Where MLflow's variables for credentials are.

    Raises:
        InvalidValueError: No address of a server.
    """

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        parts = urlsplit(address)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
            raise InvalidValueError(f"`{_shown(address)}` is no address of a server", hint="http://HOST:PORT")
        self.name = f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
        self._prefix = parts.path.rstrip("/")
        self._headers = {"User-Agent": "gittrack", "Accept": "application/json"}
        user = unquote(parts.username or "") or environment.get("MLFLOW_TRACKING_USERNAME", "")
        password = unquote(parts.password or "") or environment.get("MLFLOW_TRACKING_PASSWORD", "")
        token = environment.get("MLFLOW_TRACKING_TOKEN", "")
        if user:
            self._headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        elif token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(parts.hostname, port, timeout=TIMEOUT, context=context)
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT)

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        self._connection.close()

    # -- JSON --------------------------------------------------------------------------------------------------------

    def get(self, path: str, /, **parameters: object) -> dict[str, Any]:
        """``GET /api/2.0/mlflow/<path>``.  Raises as ``post``."""
        given = {key: value for key, value in parameters.items() if value is not None}
        return self._call("GET", f"/api/2.0/mlflow/{path}?{urlencode(given)}", None)

    def post(self, path: str, body: Mapping[str, Any], *, method: str = "POST") -> dict[str, Any]:
        """``POST /api/2.0/mlflow/<path>``, or another method.

        Raises:
            NotFoundError: The server has no such thing.
            NetworkError: It does not answer, or lets nobody in.
            AlreadyExistsError, InvalidValueError: It says no.
            FormatError: It answers what is not JSON, or too much of it.
        """
        return self._call(method, f"/api/2.0/mlflow/{path}", json.dumps(body).encode())

    def pages(
        self, path: str, key: str, body: Mapping[str, Any] | None, /, **parameters: object
    ) -> Iterator[dict[str, Any]]:
        """The items of all pages of a list; ``body`` is posted, ``parameters`` are for a GET."""
        token: str | None = None
        while True:
            more = {} if token is None else {"page_token": token}
            found = self.get(path, **{**parameters, **more}) if body is None else self.post(path, {**body, **more})
            yield from _list(found, key)
            following = found.get("next_page_token")
            if not following or following == token:
                return
            token = str(following)

    def _call(self, method: str, target: str, body: bytes | None) -> dict[str, Any]:
        headers = {} if body is None else {"Content-Type": "application/json"}
        answer = self._answer(method, target, body, headers)
        data = answer.read(MAX_ANSWER + 1)
        if len(data) > MAX_ANSWER:
            self.close()
            raise FormatError(f"`{self.name}` answers more than {MAX_ANSWER} bytes")
        try:
            found = json.loads(data or b"{}")
        except (ValueError, RecursionError) as error:
            raise FormatError(f"`{self.name}` does not answer as a server of MLflow does") from error
        if not isinstance(found, dict):
            raise FormatError(f"`{self.name}` does not answer as a server of MLflow does")
        return found

    # -- files -------------------------------------------------------------------------------------------------------

    def download(self, target: str, path: Path, *, size: int | None) -> Path:
        """Write what ``GET <target>`` gives into a new file; it must have ``size`` bytes, if that is known."""
        answer = self._answer("GET", target, None, {"Accept": "*/*"})
        done = 0
        with files.reporting(path), path.open("xb") as out:
            while True:
                try:
                    data = answer.read(_CHUNK)
                except _GONE as error:
                    self.close()
                    raise self._trouble(error) from error
                if not data:
                    break
                done += len(data)
                if size is not None and done > size:
                    self.close()
                    break
                out.write(data)
        if size is not None and done != size:
            path.unlink()
            raise FormatError(
                f"`{self.name}` says that a file has {size} bytes, and sends {'more' if done > size else done}"
            )
        return path

    def upload(self, target: str, path: Path) -> None:
        """``PUT`` a file."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        self._answer("PUT", target, path, headers).read(MAX_ANSWER)

    # -- HTTP --------------------------------------------------------------------------------------------------------

    def _answer(
        self, method: str, target: str, body: bytes | Path | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._once(method, target, body, headers)
            except _GONE as error:
                self.close()
                if attempt == ATTEMPTS or isinstance(error, (ssl.SSLError, ConnectionRefusedError)):
                    raise self._trouble(error) from error
            else:
                if answer.status < 300:
                    return answer
                said = self._refusal(answer)
                if answer.status not in _BUSY or attempt == ATTEMPTS:
                    raise said
            time.sleep(0.25 * 2**attempt)
        raise AssertionError  # the last attempt returned or raised

    def _once(
        self, method: str, target: str, body: bytes | Path | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        every = {**self._headers, **headers}
        if isinstance(body, Path):
            with os.fdopen(files.open_source(body), "rb") as file:
                self._connection.request(method, self._prefix + target, file, every)
        else:
            self._connection.request(method, self._prefix + target, body, every)
        return self._connection.getresponse()

    def _trouble(self, error: Exception) -> NetworkError:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return NetworkError(f"`{self.name}` cannot be reached: {said:.200}", hint="is it running? what was done stays")

    def _refusal(self, answer: http.client.HTTPResponse) -> GittrackError:
        """The error that an answer is."""
        status = answer.status
        try:
            told = json.loads(answer.read(1 << 16))
            code, message = str(told.get("error_code", "")), " ".join(str(told.get("message", "")).split())
        except (ValueError, AttributeError, RecursionError, *_GONE):
            code, message = "", ""
        self.close()
        if status in (401, 403):
            return NetworkError(
                f"`{self.name}` lets nobody in without credentials, or not with these",
                hint="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            )
        if status == 404:
            return NotFoundError(f"`{self.name}`: {message or 'there is no such thing'}"[:400])
        if 300 <= status < 400:
            return NetworkError(f"`{self.name}` sends us elsewhere", hint="name the address that it sends to")
        if status in _BUSY:
            return NetworkError(f"`{self.name}` is busy ({status})", hint="try again later; what was done stays")
        said = f"`{self.name}` says no: {message or code or status}"[:400]
        if code == "RESOURCE_ALREADY_EXISTS":
            return AlreadyExistsError(said)
        return InvalidValueError(said) if status < 500 else NetworkError(said)


def file_target(route: str, **parameters: str) -> str:
    """The path of a request for a file."""
    return f"{route}?{urlencode(parameters)}"


def quoted(path: str) -> str:
    """An artifact's path as a part of a URL."""
    return quote(path, safe="/")


def _list(found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = found.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise FormatError(f"a server answers no list of `{key}`")
    return items


def _shown(address: str) -> str:
    """An address without a password."""
    return re.sub(r"//[^/@]*@", "//", address)[:200]
