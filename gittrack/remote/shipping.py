"""Shipping: sends an outbox to gittrack's server, journal by journal, and goes on where the server says it is.

The bytes of artifacts go first, by sha256, then the frames that name them.  A MLflow server, which knows no journals,
is told what they say (``mlflow``).  Nothing here is on the training's path: a thread does it, and whatever goes wrong
is said once and tried again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gittrack.errors import (
    AlreadyExistsError,
    ConflictError,
    FormatError,
    GittrackError,
    LockedError,
    NetworkError,
    NoEndpointError,
    NotFoundError,
    PermissionDeniedError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnsupportedError,
)
from gittrack.remote import wire
from gittrack.remote.http import Connection
from gittrack.remote.mlflow import Teller
from gittrack.remote.outbox import IDS, Outbox
from gittrack.store import codec, files, journal, seal
from gittrack.store.record import ARTIFACTS, CREATE, RunState
from gittrack.store.repo import JournalEvents, JournalFile
from gittrack.track import lifecycle
from gittrack.track.active import ActiveRun
from gittrack.track.runs import Tracker
from gittrack.types import Digest, Run, RunId, check_run_id

_API: Final = "/api/2.0/gittrack"
_LFS: Final = "/git/default/info/lfs/objects"
#: Bytes that are sent at once, unless one frame has more; objects that are asked about at once.
_PIECE: Final = 1 << 20
_BATCH: Final = 500
#: Not the module's own: a training that seeded that gets the numbers that it would get without us.
_CHANCE: Final = random.SystemRandom()
#: Seconds from one look at the outbox to the next, and longest pause while the server is away.
INTERVAL: Final = 0.5
MAX_PAUSE: Final = 60.0
#: Seconds that a supervisor is made to wait.
HURRY: Final = 2.0
#: Objects that are remembered to be there.
_KNOWN: Final = 100_000
_MAKING: Final = codec.pack([CREATE, None])[:2]
_NAMING: Final = codec.pack([ARTIFACTS, None])[:2]

_log = logging.getLogger("gittrack")
#: What concerns the server as a whole, and not one run.
_AWAY: Final = (NetworkError, UnauthenticatedError, TooManyRequestsError, NoEndpointError, UnsupportedError)


class Shipper:
    """Sends what is in an outbox.  One thread at a time.

    Args:
        outbox: What there is to send.
        connection: The server.

    Attributes:
        refused: Runs that the server does not take, and why, as of the last pass.
    """

    def __init__(self, outbox: Outbox, connection: Connection) -> None:
        self.outbox = outbox
        self.refused: dict[RunId, GittrackError] = {}
        self._connection = connection
        self._repo = outbox.repo
        self._greeted = False
        self._teller: Teller | None = None
        self._experiments: dict[RunId, str] = {}
        self._there: set[Digest] = set()

    def ship(self, *, timeout: float = 0.0, told: Callable[[int], None] | None = None) -> None:
        """Send all there is now.

        Args:
            timeout: Seconds to wait while another process is at it.
            told: Told how many bytes were sent.

        Raises:
            LockedError: Another process is at it.
            NetworkError, TooManyRequestsError: The server is away, or busy.
            UnauthenticatedError: It does not know who asks.
            UnsupportedError: It takes journals in another form.
            StorageError: The outbox cannot be read.
        """
        if self.outbox.empty:
            return
        with files.FileLock(self._repo.root / "locks" / f"ship-{self.outbox.key}", timeout=timeout):
            self.outbox.settle()
            self._greet()
            for run_id, paths in list(self.outbox.journals()):
                try:
                    for path in paths:
                        self._send(run_id, path, told)
                    self.refused.pop(run_id, None)
                except _AWAY:
                    raise
                except GittrackError as error:  # it holds up no other
                    if run_id not in self.refused:
                        _log.warning("gittrack: `%s` does not take run `%s`: %s", self.outbox.url, run_id, error)
                    self.refused[run_id] = error

    def _greet(self) -> None:
        """Find out whether it is gittrack's server."""
        if self._greeted:
            return
        try:
            said = self._connection.call("GET", f"{_API}/server-info")
        except (NotFoundError, NoEndpointError):
            self._teller = Teller(self._connection, self._repo, self.outbox.folder / IDS)
            self._greeted = True
            return
        if said.get("journals") != 1:
            raise UnsupportedError(
                f"`{self.outbox.url}` takes journals in another form", hint="both sides need the same gittrack"
            )
        if said.get("writer") == self._repo.writer:  # it serves this very store, where everything is already
            self.outbox.clear()
        self._greeted = True

    # -- journals ----------------------------------------------------------------------------------------------------

    def _send(self, run_id: RunId, path: Path, told: Callable[[int], None] | None) -> None:
        """Send what is new of a journal; once it is closed and there, it is taken out of the outbox."""
        offset, again = self.outbox.sent(path), 0
        while True:
            closed = seal.is_closed(path)
            data, payloads = _piece(path, offset)
            if not data or (not offset and len(payloads) == 1 and not closed):
                break
            if self._teller is not None:
                self._tell(self._teller, run_id, payloads)
                there = offset + len(data)
            else:
                self._send_objects(payloads)
                there = self._post(run_id, path, offset, data)
            again = 0 if there > offset else again + 1
            if again > 2:
                raise FormatError(f"`{self.outbox.url}` does not take what it asks for")
            if told is not None:
                told(len(data))
            offset = there
            self.outbox.mark(path, offset)
        if closed and offset >= path.stat().st_size:
            self.outbox.remove(path)

    def _post(self, run_id: RunId, path: Path, offset: int, data: bytes) -> int:
        """Send a piece; where the server wants the next one."""
        name = path.name.removesuffix(journal.SUFFIX)
        experiment = self._experiment_of(run_id)
        target = f"{_API}/experiments/{experiment}/runs/{run_id}/journals/{name}?offset={offset}"
        headers = {"Content-Type": "application/octet-stream", "Gittrack-Source": self.outbox.source}
        try:
            said = self._connection.call("POST", target, data, headers=headers, repeatable=True)
        except NotFoundError:
            if not self._make_experiment(experiment):
                raise
            said = self._connection.call("POST", target, data, headers=headers, repeatable=True)
        found = said.get("offset")
        if type(found) is not int or found < 0:
            raise FormatError(f"`{self.outbox.url}` does not say what it has of a journal")
        return found

    def _experiment_of(self, run_id: RunId) -> str:
        if run_id not in self._experiments:
            try:
                state: RunState | None = self._repo.state(run_id)
            except NotFoundError:  # removed here since
                paths = dict(self.outbox.journals()).get(run_id, [])
                state = JournalEvents.read(map(JournalFile, paths)).fold(run_id, None)
            if state is None or not state.created:
                raise NotFoundError(f"run `{run_id}` is not here any more")
            self._experiments[run_id] = state.experiment_id
        return self._experiments[run_id]

    def _tell(self, teller: Teller, run_id: RunId, payloads: list[bytes]) -> None:
        """Tell a MLflow server what frames say; an experiment that was made here has an id of the server's there."""
        told = list(payloads)
        for number, payload in enumerate(payloads):
            if payload[:2] == _MAKING:
                event = codec.unpack(payload)
                event[1]["experiment_id"] = self._experiment_there(event[1]["experiment_id"])
                told[number] = codec.pack(event)
        teller.tell(run_id, told)

    def _experiment_there(self, experiment_id: str) -> str:
        """The id that an experiment of this store has on a MLflow server, where it is made if need be."""
        known = self._repo.experiment_states().get(experiment_id)
        try:
            found = self._connection.get("experiments/get", experiment_id=experiment_id)
        except NotFoundError:
            if known is None:
                raise
        else:
            return str(wire.part(found, "experiment").get("experiment_id"))
        try:
            found = self._connection.get("experiments/get-by-name", experiment_name=known.name)
        except NotFoundError:
            return str(self._connection.post("experiments/create", {"name": known.name}).get("experiment_id"))
        return str(wire.part(found, "experiment").get("experiment_id"))

    def _make_experiment(self, experiment_id: str) -> bool:
        """Make an experiment of this store on the server; False if it is there."""
        try:
            self._connection.get("experiments/get", experiment_id=experiment_id)
        except NotFoundError:
            known = self._repo.experiment_states().get(experiment_id)
            if known is None:
                raise
        else:
            return False
        try:
            made = self._connection.post("experiments/create", {"name": known.name}).get("experiment_id")
        except AlreadyExistsError:
            made = None
        if made != experiment_id:
            raise ConflictError(
                f"experiment `{known.name}` has another id on the server",
                hint="rename it on one side: an id follows from the first name",
            )
        return True

    # -- artifacts ---------------------------------------------------------------------------------------------------

    def _send_objects(self, payloads: list[bytes]) -> None:
        """Send the bytes of the artifacts that frames name, as far as they are here and not there."""
        wanted: dict[Digest, int] = {}
        for payload in payloads:
            if payload[:2] == _NAMING:
                rows = codec.unpack(payload)[1]
                new = [row[1:] for row in rows if row[1] is not None and row[1] not in self._there]
                wanted.update((digest, size) for digest, size in new if self._repo.objects.has(digest, size))
        digests = list(wanted)
        for start in range(0, len(digests), _BATCH):
            some = digests[start : start + _BATCH]
            asked = [{"oid": digest, "size": wanted[digest]} for digest in some]
            body = {"operation": "upload", "transfers": ["basic"], "objects": asked}
            found = self._connection.call("POST", f"{_LFS}/batch", body, repeatable=True).get("objects")
            if not isinstance(found, list):
                raise FormatError(f"`{self.outbox.url}` does not say which files it has")
            for one in found:
                self._send_object(one, wanted)
            self._there.update(some)
        if len(self._there) > _KNOWN:
            self._there.clear()

    def _send_object(self, asked: Any, wanted: dict[Digest, int]) -> None:
        """Send one object if the server lacks it: to this server, whatever address it names."""
        if not isinstance(asked, dict) or asked.get("oid") not in wanted:
            raise FormatError(f"`{self.outbox.url}` asks for a file that it was not told of")
        if "error" in asked:
            error = asked["error"]
            said = error.get("message") if isinstance(error, dict) else error
            raise PermissionDeniedError(f"the server does not take a file of the run: {said!s:.200}")
        if asked.get("actions"):
            digest = Digest(asked["oid"])
            self._connection.upload(f"{_LFS}/{digest}", self._repo.objects.path(digest))


def _piece(path: Path, offset: int) -> tuple[bytes, list[bytes]]:
    """Frames from ``offset`` on: as bytes, and their payloads."""
    payloads: list[bytes] = []
    size = 0
    for _, payload in journal.iter_journal(path, offset):
        if payloads and size + len(payload) > _PIECE:
            break
        payloads.append(payload)
        size += len(payload) + codec.HEADER.size
    return b"".join(map(codec.frame, payloads)), payloads


class Background:
    """Ships an outbox from a thread of this process.

    Args:
        shipper: Does it.
    """

    def __init__(self, shipper: Shipper) -> None:
        self._shipper = shipper
        self._outbox = shipper.outbox
        self.after_fork_in_child()
        files.tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """In a forked child the thread does not exist."""
        self._wake = threading.Condition()  # re-entrant: a signal handler may end the program while `start` holds it
        self._thread: threading.Thread | None = None
        self._away: GittrackError | None = None
        self._failures = 0
        self._passes = 0  #: that have ended
        self._hurry = False

    def start(self) -> None:
        """There is, or will be, something to ship."""
        with self._wake:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="gittrack-ship", daemon=True)
                try:
                    lifecycle.start(self._thread)
                except RuntimeError:  # the interpreter is shutting down: what is left, `gittrack sync` ships
                    self._thread = None
            self._wake.notify_all()

    def _loop(self) -> None:
        while True:
            done = self._pass()
            with self._wake:
                self._passes += done
                self._wake.notify_all()
                if self._hurry:
                    pause = 0.05
                elif self._failures:
                    pause = min(MAX_PAUSE, INTERVAL * 2**self._failures) * _CHANCE.uniform(0.5, 1.0)
                else:
                    pause = INTERVAL
                until = time.monotonic() + pause
                while not (self._hurry and pause > 0.05) and (left := until - time.monotonic()) > 0:
                    self._wake.wait(left)

    def _pass(self) -> bool:
        """Ship what there is; False if another process is at it."""
        try:
            self._shipper.ship()
        except LockedError:
            return False
        except GittrackError as error:
            self._failures += 1
            if self._away is None:
                _log.warning(
                    "gittrack: `%s` takes nothing at present: %s; what is recorded is kept here and shipped later",
                    self._outbox.url,
                    error,
                )
            self._away = error
        except Exception:  # noqa: BLE001 - a bug of ours must not end the thread, let alone the training
            self._failures += 1
            _log.warning("gittrack: what was recorded could not be shipped", exc_info=True)
        else:
            self._failures = 0
            if self._away is not None:
                _log.warning("gittrack: `%s` is back; what was recorded meanwhile is there", self._outbox.url)
                self._away = None
        return True

    def wait_shipped(self, seconds: float) -> None:
        """Wait until what is there now was shipped.  Raises what keeps it from it."""
        if not self._outbox.waiting().runs:
            return
        self.start()
        deadline = time.monotonic() + seconds
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            wanted = self._passes + 2  # one may have been under way
            try:
                while self._passes < wanted and (left := deadline - time.monotonic()) > 0:
                    self._wake.wait(left)
            finally:
                self._hurry = False
            if self._away is not None:
                raise self._away
            if self._passes < wanted:
                raise NetworkError(f"`{self._outbox.url}` did not take what was recorded in {seconds:g} s")
        for error in self._shipper.refused.values():
            raise error

    def finish(self, seconds: float) -> None:
        """Ship what is left, for a bounded time; then say how to go on.  Not longer than it takes to see it is away."""
        if self._outbox.empty:
            return
        self.start()
        deadline = time.monotonic() + seconds
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            first = self._passes + 2  # one may have been under way
            while not self._outbox.empty and (left := deadline - time.monotonic()) > 0 and self._thread is not None:
                if self._passes >= first and self._failures:
                    break
                if self._passes >= first and self._outbox.waiting().runs == list(self._shipper.refused):
                    break
                self._wake.wait(left)
            self._hurry = False
        rest = self._outbox.waiting()
        if rest.runs:
            _log.warning(
                "gittrack: %d run(s) are not at `%s` yet, or not all of them; `gittrack sync` goes on with it",
                len(rest.runs),
                self._outbox.url,
            )


class OutboxTracker(Tracker):
    """A tracker whose runs go to a server, too.  Made as a ``Tracker``; ``ship_to`` says where."""

    outbox: Outbox
    _server: Connection
    _background: Background
    _patience: float

    def ship_to(self, connection: Connection, *, patience: float) -> None:
        """From now on, what is recorded goes to a server.

        Args:
            connection: The server.
            patience: Seconds that the end of the program waits for it.
        """
        self._server = connection
        self.outbox = Outbox(self.repo, connection.url)
        self.outbox.create()
        self._background = Background(Shipper(self.outbox, connection))
        self._patience = patience
        if not self.outbox.empty:
            self._background.start()  # what an earlier process left

    def go_on_with(self, made: Run, *, capture: bool = True, environment: Mapping[str, Any] | None = None) -> ActiveRun:
        """Record what becomes of a run that was just made on a server of MLflow's, under the id that it has there.

        Raises:
            InvalidValueError, StorageError, ReadOnlyError: As ``create_run``.
        """
        Teller(self._server, self.repo, self.outbox.folder / IDS).called(made.info.run_id, made.info.run_id)
        return self.create_run(
            made.info.experiment_id, name=made.info.run_name, start_time=made.info.start_time, tags=made.data.tags,
            user_id=made.info.user_id, capture=capture, environment=environment, run_id=made.info.run_id,
        )  # fmt: skip

    def opened(self, run: Any, path: Path | None = None) -> None:
        """A journal is to be shipped."""
        super().opened(run, path)
        assert path is not None  # noqa: S101 - only servers share journals that are no files
        try:
            self.outbox.add(run.run_id, path)
        except GittrackError as error:
            self.trouble(error, f"run {run.run_id} is recorded here, and not shipped to `{self.outbox.url}`")
        else:
            self._background.start()

    def holds(self, run_id: str) -> bool:
        """True if a run is recorded here, and not all of it is on the server."""
        return self.outbox.holds(check_run_id(run_id))

    def ship_now(self, seconds: float) -> None:
        """Wait until what was recorded up to now is on the server.

        Raises:
            NetworkError: It is away, or it takes longer.
            GittrackError: It takes nothing, or refuses a run.
        """
        self._background.wait_shipped(seconds)

    def shutdown(self, status: str, *, hurry: bool) -> None:
        """The process ends: so do its runs, with ``status``; what is left is shipped, for a bounded time."""
        super().shutdown(status, hurry=hurry)
        self._background.finish(min(HURRY, self._patience) if hurry else self._patience)
