"""Journals that are written elsewhere and sent here piece by piece: the receiving end of journal shipping.

A journal that was shipped is kept byte for byte in a file of its own beside the run's other journals, so an offset
means the same at both ends: what is sent again is recognised by where it belongs, and cannot count twice.  Where
servers share a database its frames are rows there, and any server takes any piece.  The journal's name has the
sender's secret in it, hashed, so nobody can write into the journal of somebody else.  Nothing that is sent is trusted:
a piece is taken as a whole, when every frame of it can be folded, or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gittrack.errors import ConflictError, FormatError, InvalidValueError, LockedError, NotFoundError, StateError
from gittrack.store import codec, files, journal, layout
from gittrack.store.journal import Received
from gittrack.store.record import CLOSE, CODE, CREATE, OPEN, STATUS, RunState
from gittrack.store.repo import JournalFile
from gittrack.track import limits
from gittrack.types import TERMINAL, RunId, check_run_id

if TYPE_CHECKING:
    from gittrack.store.shared import Frames
    from gittrack.track.runs import Tracker

#: Bytes of one piece: any frame fits.
MAX_PIECE: Final = codec.MAX_FRAME + (1 << 20)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,179}")
_SOURCE: Final = re.compile(r"[0-9a-f]{32}")
_CLOSING: Final = codec.pack([CLOSE])
#: Journals whose end is remembered, and locks that runs share.
_REMEMBERED: Final = 4096
_LOCKS: Final = 64
#: Looks at what is here, when others send the same.
_TRIES: Final = 5

#: Whether whoever sends may refer to an object of the repository, by its id.
MayName = Callable[[str], bool]


class _Piece(NamedTuple):
    """What was sent at once; see ``Shipped.take``."""

    experiment_id: str
    offset: int
    data: bytes
    payloads: list[tuple[int, bytes]]
    may_name: MayName | None

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


class _New(NamedTuple):
    """What of a piece is new.

    Attributes:
        payloads: Of its frames.
        makes: The run begins with it.
        ending: How the run ends, if that is said.
        closes: It is the end of the journal.
    """

    payloads: list[bytes]
    makes: bool
    ending: tuple[str, int | None] | None
    closes: bool


class Shipped:
    """Takes what is shipped to a store; threads may share it.

    Args:
        tracker: The store's.

    Attributes:
        frames: How many it has taken, each once.
        bytes: Of those.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._ends: OrderedDict[Path, int] = OrderedDict()
        self._counting = threading.Lock()
        self.frames = self.bytes = 0

    def ends(self, run_id: str, source: str) -> dict[str, int]:
        """The journals of a run that a sender has shipped, by name, and how many bytes of each are here.

        Raises:
            InvalidValueError: No id of a run, or no secret.
        """
        run_id = check_run_id(run_id)
        prefix = _prefix(source)
        if (frames := self._tracker.repo.frames) is not None:
            found = {name: one.size for name, one in frames.received(run_id, prefix).items()}
            return _listed({**self._absorbed(run_id), **found}, prefix)
        found = self._absorbed(run_id)
        with self._locked(run_id):
            for one in self._tracker.repo.journals(run_id):
                if isinstance(one, JournalFile) and one.name.startswith(prefix):
                    found[one.name] = self._end(one.path)
        return _listed(found, prefix)

    def take(
        self,
        run_id: str,
        experiment_id: str,
        source: str,
        name: str,
        offset: int,
        data: bytes,
        *,
        may_name: MayName | None = None,
    ) -> int:
        """Add a piece to a journal, durably.

        Args:
            run_id: The run.
            experiment_id: Where it is made if there is none.
            source: The sender's secret: 32 hex digits.
            name: The journal, as the sender calls it.
            offset: Where the piece belongs.
            data: Whole frames; empty only asks.
            may_name: Asked about commits and trees that are here already; None: any may be named.

        Returns:
            How many bytes of the journal are here now: where the next piece belongs.

        Raises:
            InvalidValueError, FormatError: It cannot be a piece of a journal of this run; nothing of it was taken.
            ConflictError: The journal has other bytes there, or the run comes from somebody else.
            StateError: The journal is closed, or the run was purged.
            NotFoundError: There is no such run, and the piece does not begin one.
            ReadOnlyError, StorageError: It cannot be kept.
        """
        run_id = check_run_id(run_id)
        if run_id == layout.TREE_RUN_ID:
            raise InvalidValueError(f"no run can be called `{run_id}`")
        if not _NAME.fullmatch(name):
            raise InvalidValueError("a journal's name has letters, digits, `-`, `_` and `.`")
        kept = f"{_prefix(source)}{name}{journal.SUFFIX}"
        if not 0 <= offset < 1 << 62:
            raise InvalidValueError("the offset is outside of any journal")
        piece = _Piece(experiment_id, offset, data, _payloads(data), may_name)
        frames = self._tracker.repo.frames
        if frames is None:
            with self._locked(run_id):
                have, found = self._into_file(run_id, self._tracker.repo.live / run_id / kept, piece)
        else:
            have, found = self._into_rows(run_id, frames, kept, piece)
        if found is None:
            return have
        with self._counting:
            self.frames += len(found.payloads)
            self.bytes += sum(map(len, found.payloads)) + codec.HEADER.size * len(found.payloads)
        self._tracker.repo.written.add(run_id)  # the next reader, be it of permissions, sees it
        if found.ending is not None:
            self._tracker.ended_elsewhere(run_id, *found.ending)
        if found.closes:
            self._tracker.seal_soon()
        return have

    def _into_file(self, run_id: RunId, path: Path, piece: _Piece) -> tuple[int, _New | None]:
        """Add a piece to a journal that is a file: how much of it is here then, and what is new."""
        offset, data = piece.offset, piece.data
        there = path.exists()
        if not there and self._tracker.repo.purged(run_id):
            raise StateError(f"run `{run_id}` was purged here")
        have = self._end(path) if there else self._absorbed(run_id).get(path.name, 0)
        if offset > have or piece.end <= have:
            if there and offset < have:
                _compare(path, offset, data)
            return have, None
        if have and (not there or self._closed(path)):
            raise StateError("the journal is closed")
        _compare(path, offset, data[: have - offset])
        new = self._check(run_id, piece, have)
        self._append(path, have, data[have - offset :])
        self._ends[path] = piece.end
        while len(self._ends) > _REMEMBERED:
            self._ends.popitem(last=False)
        return piece.end, new

    def _into_rows(self, run_id: RunId, frames: Frames, kept: str, piece: _Piece) -> tuple[int, _New | None]:
        """``_into_file`` where servers share a database; another one may have got the same piece."""
        repo = self._tracker.repo
        for _ in range(_TRIES):
            known, have = self._in_rows(run_id, frames, kept)
            if piece.offset > have or piece.end <= have:
                return have, None
            if repo.purged(run_id):
                raise StateError(f"run `{run_id}` was purged here")
            if have and (known is None or known.closed):
                raise StateError("the journal is closed")
            if piece.offset < have and have - piece.offset not in {end for end, _ in piece.payloads}:
                raise ConflictError("the journal has other records there")
            try:
                new = self._check(run_id, piece, have)
            except ConflictError:
                if have or self._in_rows(run_id, frames, kept)[1]:  # it was this very piece that made the run meanwhile
                    continue
                raise
            says = new.ending is not None or new.makes
            over = not says and frames.mark(run_id) is None and repo.state(run_id).terminated
            rows = [one for one in new.payloads[0 if have else 1 :] if one != _CLOSING]
            now = Received(piece.end, new.closes)
            if frames.receive(run_id, kept, known, now, rows, made=new.makes, over=over):
                return piece.end, new
        raise LockedError("others send the same journal at the same time", hint="send it again")

    def _in_rows(self, run_id: RunId, frames: Frames, kept: str) -> tuple[Received | None, int]:
        """What is known of a journal until it is in a commit, and how much of it is here."""
        known = frames.received(run_id, kept).get(kept)
        return known, self._absorbed(run_id).get(kept, 0) if known is None else known.size

    def _check(self, run_id: RunId, piece: _Piece, have: int) -> _New:
        """Look at everything that is new behind the first ``have`` bytes."""
        payloads = [payload for end, payload in piece.payloads if piece.offset + end > have]
        first, may_name = not have, piece.may_name
        scratch, ending = RunState(run_id), None
        for number, payload in enumerate(payloads):
            event = codec.unpack(payload)
            if not isinstance(event, list) or not event:
                raise FormatError("a frame holds no event")
            kind = event[0]
            if (kind == OPEN) != (first and number == 0):
                raise InvalidValueError("a journal begins with its opening, which comes once")
            if kind == CLOSE and number + 1 < len(payloads):
                raise InvalidValueError("there is something behind the end of the journal")
            scratch.apply(event)
            if kind == OPEN:
                _check_opening(event, run_id)
            elif kind == CREATE:
                if not first or number != 1:
                    raise InvalidValueError("a run is made by the first record of a journal")
                if (event[1].get("run_id"), event[1]["experiment_id"]) != (run_id, piece.experiment_id):
                    raise InvalidValueError("the journal is one of another run")
            elif kind == CODE and may_name is not None:
                for oid in {event[1].get("commit"), event[1].get("tree")} - {None}:
                    if self._tracker.repo.git.exists(oid) and not may_name(oid):
                        raise InvalidValueError("the code of the run is something that you may not see here")
            elif kind == STATUS:
                ending = (event[1], event[2])
        _check_limits(scratch)
        if first:
            self._check_beginning(run_id, piece.experiment_id, made=scratch.created)
        ended = ending if ending is not None and ending[0] in TERMINAL else None
        return _New(payloads, scratch.created, ended, payloads[-1] == _CLOSING)

    def _check_beginning(self, run_id: RunId, experiment_id: str, *, made: bool) -> None:
        """A run is made once: whoever else says that he makes it means another one."""
        try:
            known = self._tracker.repo.state(run_id)
        except NotFoundError:
            if not made:
                raise
        else:
            if made:
                raise ConflictError(f"there is a run `{run_id}` that comes from elsewhere")
            if known.experiment_id != experiment_id:  # who may write there was asked about that one
                raise NotFoundError(f"no run `{run_id}`")

    def _append(self, path: Path, have: int, data: bytes) -> None:
        """Add bytes behind the first ``have``, on disk when this returns; nothing of them if it fails."""
        self._ends.pop(path, None)
        if not have:
            files.make_dirs(path.parent)
            files.write_atomic(path, data)
            return
        fd = files.open_append(path)
        try:
            with files.reporting(path):
                try:
                    files.write_all(fd, data)
                    files.sync_data(fd)
                except OSError:
                    os.ftruncate(fd, have)
                    raise
        finally:
            os.close(fd)

    def _end(self, path: Path) -> int:
        """The bytes of a journal that is there; a tail that was cut off is removed first."""
        known = self._ends.get(path)
        if known is None or known != path.stat().st_size:
            journal.repair(path)
            known = path.stat().st_size
            self._ends[path] = known
        self._ends.move_to_end(path)
        return known

    def _closed(self, path: Path) -> bool:
        closing = codec.frame(_CLOSING)
        with files.reporting(path, "read"), path.open("rb") as file:
            file.seek(max(0, self._end(path) - len(closing)))
            return file.read() == closing

    def _absorbed(self, run_id: str) -> dict[str, int]:
        """How far journals of a run are in its commits; a journal without a file any more is there as a whole."""
        repo = self._tracker.repo
        stored = repo.stored_state(run_id, repo.revisions(run_id))
        return {} if stored is None else stored.absorbed

    def _locked(self, run_id: str) -> threading.Lock:
        return self._locks[hash(run_id) % _LOCKS]


def _prefix(source: str) -> str:
    """How the files of a sender's journals begin."""
    if not _SOURCE.fullmatch(source):
        raise InvalidValueError("the sender does not say who it is")
    return f"{journal.SHIPPED}{hashlib.sha256(source.encode()).hexdigest()[:16]}-"


def _listed(found: Mapping[str, int], prefix: str) -> dict[str, int]:
    """Those of some journals that are a sender's, as he calls them."""
    mine = {name: end for name, end in sorted(found.items()) if name.startswith(prefix)}
    return {name.removeprefix(prefix).removesuffix(journal.SUFFIX): end for name, end in mine.items()}


def _payloads(data: bytes) -> list[tuple[int, bytes]]:
    """The frames of a piece: the offset behind each, and its payload.  Raises InvalidValueError for other bytes."""
    if len(data) > MAX_PIECE:
        raise InvalidValueError(f"a piece of a journal has at most {MAX_PIECE} bytes")
    found = list(codec.read_frames(data))
    if (found[-1][0] if found else 0) != len(data):
        raise InvalidValueError("the body is not made of whole frames")
    return found


def _compare(path: Path, offset: int, data: bytes) -> None:
    """Refuse bytes that are not those of the journal.  Raises ConflictError."""
    if not data:
        return
    with files.reporting(path, "read"), path.open("rb") as file:
        file.seek(offset)
        known = file.read(len(data))
    if known != data[: len(known)]:
        raise ConflictError("the journal has other records there")


def _check_opening(event: list[Any], run_id: str) -> None:
    try:
        facts = event[1]
        files.ProcessId.from_list(facts["process"])
        if facts["run_id"] != run_id or type(facts["opened"]) is not int or not 0 <= facts["opened"] < 1 << 63:
            raise InvalidValueError("the journal is one of another run")
    except (TypeError, KeyError, IndexError) as error:
        raise FormatError("the opening of the journal has the wrong shape") from error


def _check_limits(state: RunState) -> None:
    """What was recorded within limits that hold everywhere passes.  Raises InvalidValueError."""
    for key in state.current_summaries():
        limits.check_key("metric", key)
    for key, value in state.params.items():
        limits.check_param(key, value, truncate=False)
    for key, value in state.tags().items():
        limits.check_tag(key, value, truncate=False)
