"""The server as a git remote: git's smart HTTP protocol (https://git-scm.com/docs/http-protocol), both ways in pieces.

Fetching is git's own ``upload-pack`` with the refs hidden that the caller may not read.  Pushing is answered here: what
is asked for and what comes of it are a few lines of text, and between the two stands ``incoming``, which lets nothing
into the repository that was not looked at.  Hooks and settings of the repository have no say in either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from io import BufferedReader
from typing import IO, Any, Final, NamedTuple, cast

import anyio
from starlette.responses import PlainTextResponse, Response

from gittrack.errors import (
    GitError,
    GittrackError,
    InvalidValueError,
    NoEndpointError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnsupportedError,
)
from gittrack.server.hub.app import later
from gittrack.server.hub.incoming import OPTIONS, Bounds, Incoming
from gittrack.server.hub.projects import Project, Projects
from gittrack.server.hub.roles import Caller, Role
from gittrack.server.hub.routes import Call, Permission, Route
from gittrack.server.hub.rules import Sight, Update, has_anything
from gittrack.server.hub.streams import PIECE, Body, Timely, no_cache, threaded
from gittrack.store import gateway
from gittrack.types import ObjectId

ROOT: Final = "/git/{project}"
#: What each service takes.
SERVICES: Final[Mapping[str, Role]] = {"git-upload-pack": Role.READER, "git-receive-pack": Role.WRITER}

_FLUSH: Final = b"0000"
_MAX_LINE: Final = 65520
_KEEP_ALIVE: Final = 5.0  #: seconds after which a client that waits hears that it is worked on
_COMMAND: Final = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) ([^\x00-\x20\x7f]{1,1024})")
_PROTOCOL: Final = re.compile(r"version=[012]")

_log = logging.getLogger("gittrack.server")
Handler = Callable[[Call], Coroutine[Any, Any, Response]]
#: Why each ref did not move; None: it did.
Done = dict[str, GittrackError | None]

#: Hears of one ref of a push.
Told = Callable[[Caller, Project, Update, GittrackError | None], None]


def line(data: bytes) -> bytes:
    """A pkt-line (https://git-scm.com/docs/protocol-common)."""
    return b"%04x" % (len(data) + 4) + data


class Request(NamedTuple):
    """What a push asks for.

    Attributes:
        updates: The moves, in order.
        can: What the client is able to.
    """

    updates: list[Update]
    can: frozenset[str]


class Outcome(NamedTuple):
    """What came of a push.

    Attributes:
        done: For each ref.
        failed: Why nothing of it could be looked at; None: it was.
    """

    done: Done
    failed: GittrackError | None


class GitRemote:
    """Answers git's clients.

    Args:
        projects: The repositories.
        bounds: What a request may take.
        told: Hears of every ref that somebody moved, or why he may not: for logs and hooks, in a thread.  It must not
            fail.
    """

    def __init__(self, projects: Projects, bounds: Bounds | None = None, told: Told | None = None) -> None:
        self.projects = projects
        self._told = told or _logged
        self.bounds = bounds or Bounds()
        self._slots = asyncio.Semaphore(self.bounds.processes)
        # A thread may wait for each run of git, and be in the middle of a push besides.
        self._threads = anyio.CapacityLimiter(self.bounds.processes * 2 + 4)

    def routes(self) -> tuple[Route, ...]:
        """The routes; who may do what is decided ref by ref."""
        anybody = Permission(Role.READER)
        return (
            Route("GET", f"{ROOT}/info/refs", anybody, answering(self._refs)),
            Route("POST", f"{ROOT}/git-upload-pack", anybody, answering(self._upload_pack)),
            Route("POST", f"{ROOT}/git-receive-pack", anybody, answering(self._receive_pack)),
        )

    # -- what there is -----------------------------------------------------------------------------------------------

    async def _refs(self, call: Call) -> Response:
        service = call.request.query_params.get("service", "")
        if service not in SERVICES:
            raise PermissionDeniedError("this server speaks git's smart protocol only", hint="update git")
        project = await self._in_thread(find, self.projects, call.caller, call.values["project"], SERVICES[service])
        sight = Sight(project, call.caller)
        kind = f"application/x-{service}-advertisement"
        if service == "git-receive-pack":
            return Response(await self._in_thread(_advertised, project, sight), media_type=kind, headers=no_cache())
        await self._in_thread(_commit, project)
        head = line(f"# service={service}\n".encode()) + _FLUSH
        return await self._git(call, project, sight, None, ["--advertise-refs"], kind, head)

    # -- fetching ----------------------------------------------------------------------------------------------------

    async def _upload_pack(self, call: Call) -> Response:
        project = await self._in_thread(find, self.projects, call.caller, call.values["project"], Role.READER)
        _check_kind(call, "git-upload-pack")
        body = Body(call.request, limit=self.bounds.request, silence=self.bounds.silence)
        with tempfile.TemporaryFile() as asked:  # git has a handle of its own
            async for piece in body.pieces():
                await self._in_thread(asked.write, piece)
            asked.seek(0)
            kind = "application/x-git-upload-pack-result"
            return await self._git(call, project, Sight(project, call.caller), asked, [], kind, b"")

    async def _git(
        self, call: Call, project: Project, sight: Sight, asked: IO[bytes] | None, words: Sequence[str], kind: str,
        head: bytes,
    ) -> Response:  # fmt: skip
        """An answer of ``git upload-pack``."""
        protocol = call.request.headers.get("git-protocol", "")
        if _PROTOCOL.fullmatch(protocol) is None or not sight.whole:
            protocol = ""  # version 2 gives out every object that somebody knows the name of, hidden or not
        options = [*OPTIONS, "uploadpack.allowFilter=true", "uploadpack.allowAnySHA1InWant=false",
                   "uploadpack.allowReachableSHA1InWant=false", "uploadpack.allowTipSHA1InWant=false",
                   "transfer.advertiseSID=false"]  # fmt: skip
        options += [f"transfer.hideRefs={ref}" for ref in await self._in_thread(list, sight.hidden())]
        await self._take_slot()
        with contextlib.ExitStack() as unless_it_runs:
            unless_it_runs.callback(self._slots.release)
            said = unless_it_runs.enter_context(tempfile.TemporaryFile())
            stdin = subprocess.DEVNULL if asked is None else asked
            process: subprocess.Popen[bytes] = await self._in_thread(
                partial(
                    project.repo.git.program.start,
                    options=options, stdin=stdin, stderr=said, protocol=protocol, leading=True,
                ),
                "upload-pack", "--stateless-rpc", "--strict", *words, str(project.repo.paths.git_dir),
            )  # fmt: skip
            answer = cast("BufferedReader", process.stdout)
            unless_it_runs.callback(answer.close)
            unless_it_runs.callback(gateway.end, process)
            ending = unless_it_runs.pop_all()
        overdue = asyncio.get_running_loop().call_later(self.bounds.seconds, gateway.end, process)
        ending.callback(overdue.cancel)
        pieces = self._pieces(process, answer, said, head)
        return Timely(pieces, silence=self.bounds.silence, ended=ending.close, media_type=kind, headers=no_cache())

    async def _pieces(
        self, process: subprocess.Popen[bytes], answer: BufferedReader, said: IO[bytes], head: bytes
    ) -> AsyncIterator[bytes]:
        """What git says, as it says it."""
        if head:
            yield head
        while piece := await threaded(answer.read1, PIECE, limiter=self._threads, leave=True):
            yield piece
        if await self._in_thread(process.wait) != 0:
            _log.warning("git upload-pack ended with status %d: %s", process.returncode, _last(said))

    # -- pushing -----------------------------------------------------------------------------------------------------

    async def _receive_pack(self, call: Call) -> Response:
        project = await self._in_thread(find, self.projects, call.caller, call.values["project"], Role.WRITER)
        _check_kind(call, "git-receive-pack")
        kind = "application/x-git-receive-pack-result"
        body = Body(call.request, limit=self.bounds.push + (16 << 20), silence=self.bounds.silence)
        asked = await _read_request(body, project.repo.paths.object_format, self.bounds.refs)
        if not asked.updates:  # the client tries whether it is let in
            return Response(b"", media_type=kind, headers=no_cache())
        await self._take_slot()
        with contextlib.ExitStack() as unless_it_goes_on:
            unless_it_goes_on.callback(self._slots.release)
            incoming = await self._in_thread(Incoming, project, Sight(project, call.caller), self.bounds)
            unless_it_goes_on.callback(incoming.close)
            failed = None
            if any(update.new is not None for update in asked.updates):
                failed = await self._receive(body, incoming)
            # Done to its end also if nobody waits for the answer any more.
            job = asyncio.ensure_future(self._in_thread(self._settle, project, call.caller, incoming, asked, failed))
            job.add_done_callback(lambda _: self._slots.release())
            unless_it_goes_on.pop_all()
        pieces = self._answers(job, asked)
        return Timely(pieces, silence=self.bounds.silence, media_type=kind, headers=no_cache())

    async def _receive(self, body: Body, incoming: Incoming) -> GittrackError | None:
        """Take the pack; why it is none.  The rest of what is refused is read, so that the client hears why."""
        failed: GittrackError | None = None
        await self._in_thread(incoming.start)
        async for piece in body.pieces():
            if failed is None:
                try:
                    await self._in_thread(incoming.write, piece)
                except GittrackError as error:
                    failed = error
        if failed is None:
            try:
                await self._in_thread(incoming.finish)
            except GittrackError as error:
                failed = error
        return failed

    def _settle(
        self, project: Project, caller: Caller, incoming: Incoming, asked: Request, failed: GittrackError | None
    ) -> Outcome:
        """Do what a push asks for, and tell of it."""
        done: Done = {}
        with contextlib.closing(incoming):
            try:
                if failed is None:
                    done = incoming.settle(asked.updates, atomic="atomic" in asked.can)
            except GittrackError as error:
                failed = error
            except Exception:  # noqa: BLE001 - a bug of ours: said in the log, and to nobody outside
                _log.exception("a push to `%s` failed", project.name)
                failed = GitError("the server failed; its log says why")
        for update in asked.updates:
            self._told(caller, project, update, done.setdefault(update.ref, failed))
        project.repo.git.maintain()
        return Outcome(done, failed)

    async def _answers(self, job: asyncio.Future[Outcome], asked: Request) -> AsyncIterator[bytes]:
        """What comes of a push."""
        aside = "side-band-64k" in asked.can
        while not job.done():
            await asyncio.wait({job}, timeout=_KEEP_ALIVE)
            if not job.done() and aside:
                yield line(b"\x02")
        for piece in _report(asked, job.result(), aside=aside):
            yield piece

    # -- processes ---------------------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await threaded(work, *arguments, limiter=self._threads)

    async def _take_slot(self) -> None:
        try:
            with anyio.fail_after(self.bounds.wait):
                await self._slots.acquire()
        except TimeoutError:
            raise OverloadedError("the server is busy with other pushes and fetches", hint="try again") from None


def find(projects: Projects, caller: Caller, name: str, role: Role) -> Project:
    """The project of that name.

    Raises:
        UnauthenticatedError: Nobody knows who asks.
        NotFoundError: There is none, or he may not know of it.
        PermissionDeniedError: He may not do that there.
    """
    if not has_anything(caller, Role.READER):
        if caller.kind == "anonymous":
            raise UnauthenticatedError("log in", hint="a token is the password")
        raise NotFoundError("there is no such project on this server")
    project = projects.get(name)
    if not has_anything(caller, role):
        raise PermissionDeniedError(
            f"this takes the role of a {role.name.lower()}", hint="ask an administrator of this server for it"
        )
    return project


def answering(handler: Handler) -> Handler:
    """``handler``, with errors as git shows them to people, and asks people for a password."""

    async def answer(call: Call) -> Response:
        try:
            return await handler(call)
        except GittrackError as error:
            if error.http_status >= 500:
                _log.warning("%s: %s", call.request.url.path, error)
            headers = {**no_cache(), **asking(error)}
            return PlainTextResponse(f"{error}\n", error.http_status, headers)

    return answer


def asking(error: GittrackError) -> Mapping[str, str]:
    """What makes a client ask its credential helpers, or come back later."""
    if isinstance(error, UnauthenticatedError):
        return {"www-authenticate": 'Basic realm="gittrack", charset="UTF-8"'}
    return later(error)


def _check_kind(call: Call, service: str) -> None:
    if call.request.headers.get("content-type", "") != f"application/x-{service}-request":
        raise NoEndpointError("only git asks here")


def _logged(caller: Caller, project: Project, update: Update, why: GittrackError | None) -> None:
    what = "moved" if why is None else f"refused: {why.message}"
    _log.info("push by %s to `%s`: %s %s", caller.name, project.name, update.ref, what)


def _commit(project: Project) -> None:
    try:
        project.settle()
    except GittrackError as error:  # what is committed can be fetched all the same
        _log.warning("runs of `%s` cannot be committed: %s", project.name, error)


def _last(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
    return gateway.strip_credentials(lines[-1])[:300] if lines else "nothing"


# -- the text of a push ------------------------------------------------------------------------------------------------


def _advertised(project: Project, sight: Sight) -> bytes:
    """The refs that can be pushed to, and what the server is able to."""
    form = project.repo.paths.object_format
    can = f"report-status delete-refs side-band-64k quiet atomic ofs-delta object-format={form} agent=gittrack"
    if not sight.whole:
        can += " no-thin"
    refs = [(ref, oid) for ref, oid in project.repo.git.refs("refs/").items() if sight.sees(ref)]
    if not refs:
        refs = [("capabilities^{}", ObjectId("0" * (64 if form == "sha256" else 40)))]
    lines = [f"{oid} {ref}".encode("utf-8", "surrogateescape") for ref, oid in refs]
    lines[0] += b"\0" + can.encode()
    return line(b"# service=git-receive-pack\n") + _FLUSH + b"".join(line(one + b"\n") for one in lines) + _FLUSH


async def _read_line(body: Body) -> bytes | None:
    """A pkt-line; None at the end of a part."""
    head = await body.exactly(4)
    if re.fullmatch(rb"[0-9A-Fa-f]{4}", head) is None:
        raise InvalidValueError("this is not what git sends")
    size = int(head, 16)
    if size == 0:
        return None
    if not 4 <= size <= _MAX_LINE:
        raise InvalidValueError("this is not what git sends")
    return await body.exactly(size - 4)


async def _read_request(body: Body, form: str, most: int) -> Request:
    """What a push asks for; what follows in the body is the pack.

    Raises:
        InvalidValueError: It is not what git sends.
        UnsupportedError: It asks for something that was not offered.
    """
    updates: dict[str, Update] = {}
    can: frozenset[str] | None = None
    size = 64 if form == "sha256" else 40
    while (found := await _read_line(body)) is not None:
        text, _, offered = found.rstrip(b"\n").partition(b"\0")
        if can is None and not text.startswith(b"shallow "):
            can = frozenset(offered.decode("utf-8", "replace").split())
        words = text.decode("utf-8", "surrogateescape")
        if words.startswith("shallow "):  # what is missing in a shallow clone has to be here
            continue
        if words.startswith("push-cert"):
            raise UnsupportedError("signed pushes are not offered here", hint="git -c push.gpgSign=false push …")
        match = _COMMAND.fullmatch(words)
        if match is None or len(match[1]) != size or len(match[2]) != size or match[3] in updates:
            raise InvalidValueError("this is not what git sends")
        old, new = (None if set(oid) == {"0"} else ObjectId(oid) for oid in match.groups()[:2])
        updates[match[3]] = Update(match[3], old, new)
        if len(updates) > most:
            raise InvalidValueError(f"more than {most:,} refs at once", hint="push fewer at a time")
    if can and not {f"object-format={form}"} >= {one for one in can if one.startswith("object-format=")}:
        raise UnsupportedError(f"this repository has objects of {form}", hint=f"git init --object-format={form}")
    return Request(list(updates.values()), can or frozenset())


def _report(asked: Request, outcome: Outcome, *, aside: bool) -> Iterator[bytes]:
    """What came of each ref (https://git-scm.com/docs/pack-protocol, report-status); what to do is said beside it."""
    done, failed = outcome
    if aside:
        told: set[str] = set()
        for ref, why in done.items():
            if why is not None and why.hint and why.hint not in told:
                told.add(why.hint)
                yield line(b"\x02" + _plain(f"{ref}: {why.message}; {why.hint}") + b"\n")
    if "report-status" in asked.can:
        lines = [line(b"unpack " + (b"ok" if failed is None else _plain(failed.message)) + b"\n")]
        for ref, why in done.items():
            name = ref.encode("utf-8", "surrogateescape")
            said = b"ok " + name if why is None else b"ng " + name + b" " + _plain(why.message)
            lines.append(line(said + b"\n"))
        report = b"".join(lines) + _FLUSH
        if aside:
            for start in range(0, len(report), _MAX_LINE - 5):
                yield line(b"\x01" + report[start : start + _MAX_LINE - 5])
        else:
            yield report
    if aside:
        yield _FLUSH


def _plain(text: str) -> bytes:
    """One line without what could command a terminal; without brackets, which git puts around it."""
    clean = "".join(char if char.isprintable() else "?" for char in text).replace("(", "[").replace(")", "]")
    return clean[:1000].encode("utf-8", "replace")
