"""Outbox: what a store has recorded for a server and not shipped yet.

A program that tracks to a server records into a store of this machine, as always.  Each journal that it opens gets a
second name in the outbox (a hard link), so that its bytes stay until the server has them, also when the run is
committed here meanwhile and its journal removed.  ``.gittrack/outbox/<server>/`` has a folder ``runs`` that looks like
``live``; the file ``server`` says where they go, ``source`` is the secret by which the server knows this store again.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gittrack.errors import CorruptError, NotFoundError, StorageError
from gittrack.store import codec, files, gateway, journal, layout, seal
from gittrack.store.record import CLOSE, STATUS
from gittrack.store.repo import JournalFile, Repo, in_order, journal_opening
from gittrack.types import TERMINAL, RunId

FOLDER: Final = "outbox"
#: What runs are called on a MLflow server, which gives them ids of its own.
IDS: Final = "ids"
_SENT: Final = ".sent"
_SOURCE: Final = re.compile(r"[0-9a-f]{32}")
_ATTEMPTS: Final = 10


def has_outbox(folder: Path) -> bool:
    """Whether something was ever recorded for a server in the store that a folder belongs to."""
    paths = gateway.discover(folder)
    return paths is not None and (paths.main_root / layout.FOLDER / FOLDER).is_dir()


class Waiting(NamedTuple):
    """What was not shipped yet.

    Attributes:
        server: Where it goes.
        runs: Ids of the runs.
        size: Bytes of their journals, without their files.
        since: When the oldest of these journals was opened, milliseconds since the epoch; None if there is none.
    """

    server: str
    runs: list[RunId]
    size: int
    since: int | None


class Outbox:
    """What is to be shipped from a store to a server; processes may share it.

    Args:
        repo: The store.
        url: The server, without credentials.
    """

    def __init__(self, repo: Repo, url: str) -> None:
        self.repo = repo
        self.url = url
        self.key = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.folder = repo.root / FOLDER / self.key
        self.runs = self.folder / "runs"

    @classmethod
    def all(cls, repo: Repo) -> list[Outbox]:
        """Those of a store."""
        found = []
        for path in sorted((repo.root / FOLDER).glob("*/server")):
            with files.reporting(path, "read"):
                found.append(cls(repo, path.read_text("utf-8").strip()))
        return found

    def create(self) -> None:
        """Make what is missing of it.  Raises ReadOnlyError, StorageError."""
        if not (self.folder / "server").exists():
            files.make_dirs(self.runs)
            if not (self.folder / "source").exists():
                files.write_atomic(self.folder / "source", secrets.token_hex(16).encode(), mode=0o600)
            files.write_atomic(self.folder / "server", f"{self.url}\n".encode())

    @property
    def source(self) -> str:
        """The secret by which the server knows this store again.  Raises CorruptError."""
        with files.reporting(self.folder / "source", "read"):
            text = (self.folder / "source").read_text("ascii", "replace").strip()
        if not _SOURCE.fullmatch(text):
            raise CorruptError(f"`{self.folder / 'source'}` is damaged", hint="remove the file")
        return text

    # -- what is in it -----------------------------------------------------------------------------------------------

    def add(self, run_id: str, path: Path) -> None:
        """Keep a journal that was just opened until it is shipped.  Raises StorageError."""
        folder = self.runs / run_id
        for attempt in range(_ATTEMPTS):
            files.make_dirs(folder, durable=False)
            try:
                os.link(path, folder / path.name)
            except FileNotFoundError as error:  # whoever shipped the run's last journal removed the folder
                if attempt + 1 == _ATTEMPTS:
                    raise files.failure(error, path) from error
            except OSError as error:
                raise StorageError(f"`{path}` cannot have a second name: {error.strerror}") from error
            else:
                return

    def journals(self) -> Iterator[tuple[RunId, list[Path]]]:
        """The journals of each run, oldest first.  Raises StorageError."""
        for run_id, paths in journal.list_journals(self.runs).items():
            yield run_id, [one.path for one in in_order([*map(JournalFile, paths)])]

    @property
    def empty(self) -> bool:
        """True if nothing is to be shipped."""
        return not journal.list_journals(self.runs)

    def holds(self, run_id: str) -> bool:
        """True if something of a run is still to be shipped, or the server knows it by another id."""
        return (self.runs / run_id).is_dir() or self._called(run_id) is False

    def was_made_there(self, run_id: str) -> bool:
        """True if the server gave the run its id."""
        return self._called(run_id) is True

    def _called(self, run_id: str) -> bool | None:
        """Whether the server knows a run by the id that it has here; None if nothing is noted of it."""
        try:
            return run_id in (self.folder / IDS / f"{run_id}.json").read_text("utf-8", "replace")
        except FileNotFoundError:
            return None

    def waiting(self) -> Waiting:
        """What was not shipped yet; a journal that goes on and was shipped so far does not count."""
        runs, size, since = [], 0, []
        for run_id, paths in self.journals():
            rest = 0
            for path in paths:
                try:
                    left = max(0, path.stat().st_size - self.sent(path))
                except FileNotFoundError:  # it has been shipped since it was listed
                    continue
                opening = journal_opening(path) if left else None
                if opening is not None:
                    since.append(opening["opened"] // 1_000_000)
                rest += left
            if rest:
                runs.append(run_id)
                size += rest
        return Waiting(self.url, runs, size, min(since, default=None))

    def sent(self, path: Path) -> int:
        """How many bytes of a journal the server has, as it said last."""
        try:
            text = path.with_name(path.name + _SENT).read_text("ascii", "replace")
        except FileNotFoundError:
            return 0
        return int(text) if text.isdecimal() and len(text) < 19 else 0

    def mark(self, path: Path, sent: int) -> None:
        """Note what the server has; a note that a crash takes back costs a question."""
        note = path.with_name(path.name + _SENT)
        temp = note.with_name(f"{note.name}-{os.getpid()}")
        with files.reporting(note):
            temp.write_text(str(sent), "ascii")
            temp.replace(note)

    def remove(self, path: Path) -> None:
        """The server has all of a journal."""
        path.unlink(missing_ok=True)
        path.with_name(path.name + _SENT).unlink(missing_ok=True)
        try:
            path.parent.rmdir()
        except OSError:  # there is another one
            return

    def clear(self) -> None:
        """Nothing is to be shipped."""
        for _, paths in list(self.journals()):
            for path in paths:
                self.remove(path)

    # -- processes that are gone -------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Follow what became of journals here: one that was written anew, and those of processes that are gone."""
        dead: list[tuple[RunId, Path]] = []
        for run_id, paths in self.journals():
            for path in paths:
                self._follow(run_id, path)
                if not seal.is_closed(path) and not seal.owner_alive(path):
                    dead.append((run_id, path))
        if not dead:
            return
        if not self.repo.read_only:
            seal.heal(self.repo)
        for run_id, path in dead:
            if not (self.repo.live / run_id / path.name).exists():
                self._close(run_id, path)

    def _follow(self, run_id: str, path: Path) -> None:
        """After trouble with the disk a journal is written anew, under its name: take that file instead."""
        live = self.repo.live / run_id / path.name
        try:
            if live.samefile(path):
                return
            temp = path.with_name(f"{path.name}-{os.getpid()}")
            os.link(live, temp)
            temp.replace(path)
        except FileNotFoundError:
            return  # committed meanwhile

    def _close(self, run_id: RunId, path: Path) -> None:
        """Say in the journal of a process that is gone, and whose run is committed here, how it ended."""
        journal.repair(path)
        events = [CLOSE]
        ending: list[Sequence[object]] = [events]
        owner, told = False, False
        for _, payload in journal.iter_journal(path):
            owner = owner or payload[:2] in seal.OWNERS
            if payload[:2] in seal.OWNERS:
                event = codec.unpack(payload)
                told = event[0] == STATUS and event[1] in TERMINAL
        if owner and not told:
            try:
                state = self.repo.state(run_id)
            except NotFoundError:
                state = None
            status, end = ("KILLED", None) if state is None else (state.status, state.end_time)
            if status not in TERMINAL:
                status = "KILLED"
            if end is None:
                end = path.stat().st_mtime_ns // 1_000_000
            ending.insert(0, [STATUS, status, end])
        fd = files.open_append(path)
        try:
            with files.reporting(path):
                files.write_all(fd, b"".join(codec.frame(codec.pack(event)) for event in ending))
                files.sync_data(fd)
        finally:
            os.close(fd)
