"""A git remote's LFS server: the batch API with the `basic` transfer adapter, as stock git-lfs speaks it.

https://github.com/git-lfs/git-lfs/tree/main/docs/api.  Credentials are git's (``git credential``) and are sent to the
server that they are for and to no other; by ssh, ``git-lfs-authenticate`` on the other side gives address and
credentials.  What a server says is checked; what it sends counts when it has the right sha256.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from gittrack.errors import CorruptError, GittrackError, NetworkError, NotFoundError
from gittrack.store.objects import Arrivals, Part
from gittrack.sync import http, ssh
from gittrack.sync.depots import Count, Item, Progress, in_parallel, persist, receive
from gittrack.sync.http import Answer, Body, Client

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.sync.endpoints import Server, Ssh

_T = TypeVar("_T")

_TYPE: Final = "application/vnd.git-lfs+json"
_BATCH: Final = 100  #: objects that are asked for at once, as git-lfs does
_THREADS: Final = 8
_API_S: Final = 120.0  #: in which the server must have answered a question
_MAX_ANSWER: Final = 4 << 20
_MAX_WORDS: Final = 16 << 10  #: of an answer that says why not
_LEEWAY_S: Final = 10.0  #: an address that is good for less is asked for anew
_FRESH_S: Final = 30.0  #: credentials that are younger and refused are wrong, not old


@dataclass(frozen=True)
class Grant:
    """Where the server lets an object be sent, or fetched from.

    Attributes:
        href: The address.
        headers: What it wants to be sent along; may be credentials, for that address only.
        until: When it ends, by the monotonic clock; None if it does not.
        verify: To be told afterwards that an object was sent.
    """

    href: str
    headers: Mapping[str, str]
    until: float | None = None
    verify: Grant | None = None

    @property
    def ending(self) -> bool:
        """True if it is about to end, or has ended."""
        return self.until is not None and time.monotonic() >= self.until - _LEEWAY_S


class LfsDepot:
    """The LFS servers of a remote.

    Args:
        repo: This clone.
        source: Where to fetch from.
        target: Where to send to; mostly the same.
        settings: How servers are reached, by address.
        ssh_command: What ``core.sshCommand`` says.
        interactive: A person may be asked for credentials.
    """

    def __init__(
        self,
        repo: Repo,
        source: Server,
        target: Server,
        *,
        settings: Callable[[str], http.Settings],
        ssh_command: str | None = None,
        interactive: bool = False,
    ) -> None:
        self.name = source.name
        self._repo = repo
        self._source = source
        self._target = target
        self._settings = settings
        self._ssh_command = ssh_command
        self._interactive = interactive
        self._granted: dict[Item, Grant] = {}  # answers of `lacking` that `upload` can use

    def lacking(self, items: Sequence[Item]) -> list[Item]:
        """Those that the server wants to be sent; see ``Depot``."""
        with self._api("upload") as api:
            for item, grant in api.grants(items):
                if isinstance(grant, GittrackError):
                    raise grant
                if grant is not None:
                    self._granted[item] = grant
        return [item for item in items if item in self._granted]

    def upload(self, items: Sequence[Item], progress: Progress) -> None:
        """Send objects; see ``Depot``."""
        count = Count(items, progress)
        with self._api("upload") as api:

            def asked() -> Iterator[tuple[Item, Grant | GittrackError | None]]:
                known = [item for item in items if item in self._granted]
                yield from ((item, self._granted.pop(item)) for item in known)
                yield from api.grants([item for item in items if item not in set(known)])

            api.all(asked(), lambda item, grant: self._send(api, item, grant, count), self._target.name, len(items))

    def download(self, items: Sequence[Item], progress: Progress) -> None:
        """Fetch objects; see ``Depot``."""
        count = Count(items, progress)
        with self._api("download") as api, Arrivals(self._repo.objects, len(items)) as arrivals:
            api.all(
                api.grants(items),
                lambda item, grant: self._fetch(api, arrivals, item, grant, count),
                self.name,
                len(items),
            )

    @contextmanager
    def _api(self, operation: str) -> Iterator[_Api]:
        server = self._target if operation == "upload" else self._source
        login: _Login
        if server.ssh is not None:
            login = _BySsh(server.ssh, operation, command=self._ssh_command, interactive=self._interactive)
        else:
            login = _ByCredentials(self._repo, server, interactive=self._interactive)
        api = _Api(server.name, login, operation, self._settings(login.url))
        try:
            yield api
        finally:
            api.close()

    # -- one object

    def _send(self, api: _Api, item: Item, grant: Grant | None, count: Count) -> None:
        if grant is None:  # somebody else was quicker
            count.add(item.size)
            return
        api.with_grant(item, grant, lambda given: self._put(api, item, given, count))

    def _put(self, api: _Api, item: Item, grant: Grant, count: Count) -> None:
        headers = {"Content-Type": "application/octet-stream", **grant.headers}
        given = {name.lower(): name for name in headers}
        if len(given) != len(headers):  # the server says another type
            del headers["Content-Type"]
        chunked = "transfer-encoding" in given and headers.pop(given["transfer-encoding"]).lower() == "chunked"

        def opened() -> IO[bytes]:
            return cast("IO[bytes]", self._repo.objects.open(item.digest))

        body = Body(opened, item.size, chunked=chunked, told=count.add)
        with api.exchange("PUT", grant.href, headers, body=body) as answer:
            if not answer.ok:
                raise _refused(answer, self._target.name)
        if grant.verify is not None:
            api.persist(lambda: self._verify(api, item, cast("Grant", grant.verify)))

    def _verify(self, api: _Api, item: Item, verify: Grant) -> None:
        answer, _ = api.question(verify.href, {"oid": item.digest, "size": item.size}, verify.headers)
        if not answer.ok:
            raise NetworkError(f"{self._target.name} took object `{item.digest[:12]}` and does not confirm it")

    def _fetch(self, api: _Api, arrivals: Arrivals, item: Item, grant: Grant | None, count: Count) -> None:
        if grant is None:
            raise NotFoundError(f"{self.name} gives no address for object `{item.digest[:12]}`")

        def rest(part: Part) -> None:
            if part.have < item.size:
                api.with_grant(item, grant, lambda given: _get(api, item, given, part, count), lambda: part.have)

        receive(
            arrivals,
            item,
            count,
            whole=lambda: api.with_grant(item, grant, lambda given: _get_small(api, item, given)),
            rest=rest,
        )


def _get_small(api: _Api, item: Item, grant: Grant) -> bytes:
    with api.exchange("GET", grant.href, grant.headers) as answer:
        if not answer.ok:
            raise _refused(answer, http.shown(grant.href))
        _check_length(answer, item, item.size)
        data = answer.read(item.size)
    if len(data) < item.size:
        raise _broken_off(item, len(data))
    return data


def _get(api: _Api, item: Item, grant: Grant, part: Part, count: Count) -> None:
    """Fetch what is missing of a part."""
    headers = dict(grant.headers)
    if part.have:
        headers["Range"] = f"bytes={part.have}-"
    with api.exchange("GET", grant.href, headers) as answer:
        going_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {part.have}-")
        if answer.status == 416 or (answer.ok and part.have and not going_on):
            count.add(-part.have)
            part.restart()
        if answer.status == 416:
            raise NetworkError(f"{http.shown(grant.href)} cannot go on where it broke off", again=0.0)
        if not answer.ok or (answer.status == 206 and not going_on):
            raise _refused(answer, http.shown(grant.href))
        _check_length(answer, item, item.size - part.have)
        for chunk in answer.chunks():
            part.write(chunk)
            count.add(len(chunk))
    if part.have < item.size:
        raise _broken_off(item, part.have)


def _check_length(answer: Answer, item: Item, expected: int) -> None:
    coding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    length = answer.headers.get("Content-Length")
    if coding not in ("", "identity"):
        raise CorruptError(f"object `{item.digest[:12]}` is sent in another form, `{coding:.20}`")
    if length is not None and length.strip() != str(expected):
        raise CorruptError(f"object `{item.digest[:12]}` is sent with {length:.20} bytes to come, not {expected}")


def _broken_off(item: Item, have: int) -> NetworkError:
    return NetworkError(f"only {have} of the {item.size} bytes of object `{item.digest[:12]}` came", again=0.0)


def _refused(answer: Answer, where: str) -> GittrackError:
    """What an answer of a storage means: that it has no such address is not that nobody has the object."""
    error = http.refusal(answer, where)
    if isinstance(error, NotFoundError):
        return NetworkError(error.message, denied=True)
    return error


# --- the server's side


class _Api:
    """Questions to one LFS server, in one operation."""

    def __init__(self, name: str, login: _Login, operation: str, settings: http.Settings) -> None:
        self._name = name
        self._operation = operation
        self._login = login
        self._url = login.url.rstrip("/")
        self._client = Client(self._url, settings, anywhere=login.anywhere)

    def close(self) -> None:
        """End all connections."""
        self._client.close()

    def persist(self, attempt: Callable[[], _T], advanced: Callable[[], int] | None = None) -> _T:
        """See ``depots.persist``."""
        return persist(attempt, self._client.stop, advanced)

    def all(
        self,
        asked: Iterator[tuple[Item, Grant | GittrackError | None]],
        work: Callable[[Item, Grant | None], None],
        name: str,
        total: int,
    ) -> None:
        """``work`` for each object that the server gave leave for; see ``in_parallel``."""

        def one(item: Item, grant: Grant | GittrackError | None) -> None:
            if isinstance(grant, GittrackError):
                raise grant
            work(item, grant)

        in_parallel(
            asked, one, name=name, total=total, threads=_THREADS, stop=self._client.close,
            end_thread=self._client.end_thread,
        )  # fmt: skip

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: Body | None = None,
        seconds: float | None = None,
    ) -> Iterator[Answer]:
        """A request, with credentials if it goes to the server itself and those are wanted.  As ``Client.exchange``."""
        wanted = http.origin(url) == self._client.home and "authorization" not in {name.lower() for name in headers}
        while True:
            used = self._login.headers if wanted else {}
            with self._client.exchange(method, url, {**headers, **used}, body=body, seconds=seconds) as answer:
                if answer.status == 401 and wanted and self._login.renew(used):
                    continue
                if answer.ok and used:
                    self._login.confirm(used)
                yield answer
                return

    def question(self, url: str, document: object, headers: Mapping[str, str]) -> tuple[Answer, bytes]:
        """A question of the API: the answer, with its body."""
        import io

        import orjson

        data = orjson.dumps(document)
        headers = {"Accept": _TYPE, "Content-Type": _TYPE, **headers}
        body = Body(lambda: io.BytesIO(data), len(data))
        with self.exchange("POST", url, headers, body=body, seconds=_API_S) as answer:
            said = answer.read(_MAX_ANSWER if answer.ok else _MAX_WORDS)
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise http.refusal(answer, self._name, _words(said))
        return answer, said

    def grants(self, items: Sequence[Item]) -> Iterator[tuple[Item, Grant | GittrackError | None]]:
        """Each object with where it may be sent or fetched from.

        None in its place: the server has what should be sent, or does not have what should be fetched.  An error in its
        place: what the server says about it.

        Raises:
            NetworkError: The server cannot be asked, or its answer is none.
        """
        waiting = iter(items)
        size = _BATCH
        while batch := list(islice(waiting, size)):
            yield from self._batch(batch)

    def _batch(self, batch: Sequence[Item]) -> list[tuple[Item, Grant | GittrackError | None]]:
        document = {
            "operation": self._operation,
            "transfers": ["basic"],
            "objects": [{"oid": item.digest, "size": item.size} for item in batch],
            "hash_algo": "sha256",
        }
        answer, said = self.persist(lambda: self.question(f"{self._url}/objects/batch", document, {}))
        if answer.status == 413 and len(batch) > 1:
            half = len(batch) // 2
            return self._batch(batch[:half]) + self._batch(batch[half:])
        if not answer.ok:
            error = http.refusal(answer, self._name, _words(said))
            if not isinstance(error, NotFoundError):
                raise error
            if self._operation == "download":  # some say it so if they have none of them
                hint = f"{error.message}; check the address of the remote, or push what it has not got yet"
                return [(item, NotFoundError(error.message, hint=hint)) for item in batch]
            raise NetworkError(
                f"{error.message}; it has no LFS for this repository, or not for you",
                hint="`git config gittrack.artifacts s3://BUCKET/PREFIX`, or another place, keeps artifacts elsewhere",
                denied=True,
            )
        found = _read_batch(said, batch, self._operation, secure=self._client.home[0] == "https")
        return [(item, found[item]) for item in batch]

    def with_grant(
        self, item: Item, grant: Grant, use: Callable[[Grant], _T], advanced: Callable[[], int] | None = None
    ) -> _T:
        """``use`` with a grant that is good, as often as that gets on; see ``persist``."""
        given, renewed = grant, False

        def attempt() -> _T:
            nonlocal given
            if given.ending:
                given = self._anew(item)
            return use(given)

        while True:
            try:
                return self.persist(attempt, advanced)
            except NetworkError as error:
                if not error.denied or renewed:
                    raise
                given, renewed = self._anew(item), True  # grants may end early

    def _anew(self, item: Item) -> Grant:
        ((_, grant),) = self._batch([item])
        if isinstance(grant, GittrackError):
            raise grant
        if grant is None:
            raise NetworkError(f"{self._name} took back its leave for object `{item.digest[:12]}`")
        return grant


def _words(said: bytes) -> str:
    """What an error document says; empty if it is none."""
    import orjson

    try:
        document = orjson.loads(said)
    except orjson.JSONDecodeError:
        return ""
    message = document.get("message") if isinstance(document, dict) else None
    return message if isinstance(message, str) else ""


def _read_batch(
    said: bytes, batch: Sequence[Item], operation: str, *, secure: bool
) -> dict[Item, Grant | GittrackError | None]:
    """The answer to a batch request.  Raises NetworkError for anything else."""
    import orjson

    try:
        document = orjson.loads(said)
    except orjson.JSONDecodeError as error:
        raise NetworkError("the LFS server's answer is no JSON; is that its address?") from error
    objects = document.get("objects") if isinstance(document, dict) else None
    if not isinstance(objects, list) or document.get("transfer", "basic") != "basic":
        raise NetworkError("the LFS server's answer is none to a batch request for basic transfers")
    wanted = {str(item.digest): item for item in batch}
    found: dict[Item, Grant | GittrackError | None] = {}
    for one in objects:
        item = wanted.get(one["oid"]) if isinstance(one, dict) and isinstance(one.get("oid"), str) else None
        if item is not None and item not in found:
            found[item] = _read_object(one, item, operation, secure=secure)
    for item in batch:
        if item not in found:
            raise NetworkError(f"the LFS server says nothing about object `{item.digest[:12]}`")
    return found


def _read_object(one: dict[str, Any], item: Item, operation: str, *, secure: bool) -> Grant | GittrackError | None:
    error = one.get("error")
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        words = re.sub(r"[^\x20-\x7e]", " ", message if isinstance(message, str) else "")[:200]
        if code in (404, 410) and operation == "download":
            return NotFoundError(words)
        return NetworkError(f"the LFS server refuses object `{item.digest[:12]}`: {code!s:.10} {words}".rstrip())
    actions = one.get("actions") or {}
    if not isinstance(actions, dict):
        raise NetworkError("the LFS server's answer has actions that are none")
    if actions.get(operation) is None:
        return None
    grant = _read_action(actions[operation], secure=secure)
    if operation != "upload" or actions.get("verify") is None:
        return grant
    return replace(grant, verify=_read_action(actions["verify"], secure=secure))


def _read_action(action: object, *, secure: bool) -> Grant:
    if not isinstance(action, dict):
        raise NetworkError("the LFS server's answer has an action that is none")
    headers = action.get("header") or {}
    if not isinstance(headers, dict) or len(headers) > 64:
        raise NetworkError("the LFS server's answer has headers that are none")
    checked = dict(http.header_value(name, value) for name, value in headers.items())
    return Grant(http.check_url(action.get("href"), secure=secure), checked, _until(action))


def _until(action: Mapping[str, object]) -> float | None:
    """When a grant ends, by the monotonic clock; None if it does not say, or says a time that is over already."""
    seconds = action.get("expires_in")
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        text = action.get("expires_at")
        match = (
            re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
            if isinstance(text, str)
            else None
        )
        if match is None:
            return None
        try:
            at = datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00"))
        except ValueError:
            return None
        seconds = (at - datetime.now(timezone.utc)).total_seconds()
    return time.monotonic() + seconds if _LEEWAY_S < seconds < 1e9 else None  # the clocks may differ


# --- logging in


class _Login:
    """Where the API is and what lets us in.

    Attributes:
        url: The address of the API.
        anywhere: It may be wherever it is.
        headers: Sent to that server, and to no other.
    """

    url: str
    anywhere = True

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}
        self._lock = threading.Lock()

    def renew(self, used: Mapping[str, str]) -> bool:
        """Find other headers than the ones that were refused; False if there are none."""
        with self._lock:
            return self.headers is not used or self._renewed()

    def _renewed(self) -> bool:
        return False

    def confirm(self, used: Mapping[str, str]) -> None:
        """They were good."""


class _ByCredentials(_Login):
    """A user and a password, from the address or from git's credential helpers, when the server asks for them."""

    def __init__(self, repo: Repo, server: Server, *, interactive: bool) -> None:
        super().__init__()
        self.url = server.url
        self.anywhere = server.named
        self._git = repo.git.program
        self._server = server
        self._interactive = interactive
        self._filled: dict[str, str] | None = None  # what the helper gave
        self._confirmed = False
        self._tries = 2 if interactive else 1
        if server.password is not None:
            self.headers = _basic(server.user or "", server.password)

    def _renewed(self) -> bool:
        if self._filled is not None:
            self._ask("reject", self._filled)
            self._filled = None
        if not self._tries or self._server.password is not None:
            return False
        self._tries -= 1
        given = urlsplit(self.url)
        asked = {"protocol": given.scheme, "host": given.netloc, "path": given.path.lstrip("/")}
        if self._server.user:
            asked["username"] = self._server.user
        found = self._ask("fill", asked)
        if "password" not in found:
            return False
        self._filled = {**asked, **found}
        self._confirmed = False
        self.headers = _basic(found.get("username", ""), found["password"])
        return True

    def confirm(self, used: Mapping[str, str]) -> None:
        """Have git remember them."""
        with self._lock:
            if self._filled is not None and used is self.headers and not self._confirmed:
                self._confirmed = True
                self._ask("approve", self._filled)

    def _ask(self, verb: str, facts: Mapping[str, str]) -> dict[str, str]:
        """``git credential``; the facts go through its standard input, never through its arguments."""
        if any(char in value for value in facts.values() for char in "\n\0\r"):
            return {}
        lines = "".join(f"{key}={value}\n" for key, value in facts.items())
        done = ssh.credential(self._git, verb, f"{lines}\n".encode(), interactive=self._interactive)
        pairs = (line.partition("=") for line in done.decode("utf-8", "surrogateescape").splitlines())
        return {key: value for key, _, value in pairs if key in ("username", "password")}


def _basic(user: str, password: str) -> dict[str, str]:
    return {
        "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode()
    }


class _BySsh(_Login):
    """What ``git-lfs-authenticate`` says on the other side."""

    def __init__(self, place: Ssh, operation: str, *, command: str | None, interactive: bool) -> None:
        super().__init__()
        self._place = place
        self._operation = operation
        self._command = command
        self._interactive = interactive
        self.anywhere = ssh.is_here(place.host)
        self._authenticate()

    def _authenticate(self) -> None:
        import orjson

        words = ["git-lfs-authenticate", self._place.path, self._operation]
        said = ssh.run(self._place, words, interactive=self._interactive, setting=self._command)
        try:
            document = orjson.loads(said)
        except orjson.JSONDecodeError as error:
            raise NetworkError(f"`git-lfs-authenticate` at `{self._place}` does not answer in JSON") from error
        grant = _read_action(document if isinstance(document, dict) else {}, secure=False)
        self.url, self.headers = grant.href, grant.headers
        self._at = time.monotonic()

    def _renewed(self) -> bool:
        if time.monotonic() < self._at + _FRESH_S:
            return False
        url = self.url
        self._authenticate()
        return self.url == url


__all__ = ["Grant", "LfsDepot"]
