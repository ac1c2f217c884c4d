"""Repo: the one door to a clone's runs.  Opens and creates `.gittrack`, reads runs, keeps the index fresh.

A run is read from two places that are always folded together: the revision its ledgers name and the journals below
`.gittrack/live`.  ``seal`` (in ``gittrack.store.seal``) moves the second into the first.  Knows nothing of machine
learning, reads no environment and prints nothing.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import secrets
import socket
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from gittrack.errors import (
    CorruptError,
    FormatError,
    GitError,
    InvalidValueError,
    NotARepositoryError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
)
from gittrack.store import codec, files, gateway, journal, layout
from gittrack.store.experiments import ExperimentState
from gittrack.store.git import MANY, GitStore
from gittrack.store.ledger import by_folder
from gittrack.store.lookout import Lookout
from gittrack.store.objects import ObjectStore
from gittrack.store.record import CLOSE, OPEN, Columns, RunState, merge_histories
from gittrack.store.refs import RefUpdate
from gittrack.types import Artifact, MetricHistory, ObjectId, Run, RunId

if TYPE_CHECKING:
    from gittrack.store.index import Index
    from gittrack.store.journal import Journal
    from gittrack.store.pack import Batch
    from gittrack.store.shared import Frames, SharedJournal

_log = logging.getLogger("gittrack")
_UNREADABLE: Final = "gittrack: run `%s` cannot be read: %s; run `gittrack fsck`"

#: How long a command waits for another process that is sealing.
LOCK_TIMEOUT: Final = 60.0
#: Segments of metrics that are kept as they were read, and how many bytes one of them may have.
_KEPT_SEGMENTS: Final = 8
_KEPT_SEGMENT: Final = 2 << 20
#: From so many runs on, an empty index is filled first and ordered afterwards.
_VERY_MANY: Final = 2000


class Exchange(Protocol):
    """How the clones of servers that share a database come by what the others have in git.

    Attributes:
        group: The same for all of them.
    """

    group: str

    @property
    def inside(self) -> bool:
        """True in a thread that changes something, or brings something: what it knows stays as it is meanwhile."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """A block in which this thread is inside."""
        ...

    def behind(self) -> bool:
        """True if others have sent something that is not here."""
        ...

    def look(self) -> None:
        """Bring what others sent; nothing inside."""
        ...

    def bring(self) -> None:
        """Bring what others sent, inside."""
        ...

    def send(self) -> None:
        """Send what this clone has moved."""
        ...


class Repo:
    """One clone's store.  Use ``Repo.find``; threads may share it.

    Args:
        paths: Where git's things are.
        read_only: Nothing can be written.
        database: Where the index is kept: the address of a PostgreSQL database, which has what is recorded through
            servers, too, in schemas of this clone's own; another file than usual, on a faster disk perhaps; None: the
            usual file.

    Attributes:
        paths: Where git's things are.
        root: The `.gittrack` folder.
        git: Objects and refs.
        objects: Artifacts by content.
        read_only: True if nothing can be written; reading works all the same.
        exchange: How it has what servers with other clones know; None for a clone that stands alone.
        written: Runs that this process wrote to since the index was brought up to date, at least.
    """

    def __init__(
        self, paths: gateway.RepoPaths, *, read_only: bool = False, database: str | Path | None = None
    ) -> None:
        self.paths = paths
        self.root = paths.main_root / layout.FOLDER
        self.live = self.root / "live"
        self.read_only = read_only
        self.git = GitStore(paths)
        self.objects = ObjectStore(self.root / "objects")
        self._database = database
        self._index: Index | None = None
        self._frames: Frames | None = None
        self.exchange: Exchange | None = None
        self._lookout: Lookout | None = None
        self.written: set[str] = set()
        self.after_fork_in_child()
        files.tell_after_fork(self)
        self._writer: str | None = None
        self._whole: set[ObjectId] = set()  # the commits that ledgers are at and that are known to be there
        self._stones: dict[ObjectId, frozenset[str]] = {}
        self._told: dict[ObjectId, bytes | None] = {}  # what ledger commits say of their experiments
        self._segment = lru_cache(_KEPT_SEGMENTS)(self._read_segment)

    def after_fork_in_child(self) -> None:
        """A forked child gets its lock anew: another thread of the parent may have held it."""
        self._opening = threading.Lock()

    # -- opening -----------------------------------------------------------------------------------------------------

    @classmethod
    def find(cls, start: Path, *, create: bool = False, database: str | Path | None = None) -> Repo:
        """The repo that ``start`` lies in.

        Args:
            start: Any folder of a work tree, a bare repository, or a plain folder.
            create: Make `.gittrack` where it is missing; in a folder that is in no git repository, with a private bare
                store inside it.
            database: As for ``Repo``.

        Raises:
            NotARepositoryError: Nothing found, and not asked to create.
        """
        paths = gateway.discover(start)
        if paths is None:
            if not create:
                raise NotARepositoryError(
                    f"`{start}` is in no git repository and has no gittrack store",
                    hint="run `gittrack init` in your project's folder",
                )
            files.make_dirs(start / layout.FOLDER)
            paths = GitStore.create_private(start)
        root = paths.main_root / layout.FOLDER
        writable = os.access(root if root.exists() else paths.main_root, os.W_OK)
        repo = cls(paths, read_only=not writable, database=database)
        if create and not repo.read_only:
            repo.create()
        return repo

    @property
    def exists(self) -> bool:
        """True once `.gittrack` was made."""
        return (self.root / "writer").exists()

    def create(self) -> bool:
        """Make what is missing of `.gittrack`; True if it was not there before.  Touches nothing of git's."""
        if self.exists:
            return False
        self.require_writable()
        for folder in (self.root, self.objects.root, self.live, self.root / "locks"):
            files.make_dirs(folder)
        # The folder ignores itself, so that no file of the user's has to change.
        files.write_atomic(self.root / ".gitignore", b"*\n")
        with files.FileLock(self.root / "locks" / "create", timeout=LOCK_TIMEOUT):
            if not (self.root / "writer").exists():
                files.write_atomic(self.root / "writer", f"{new_writer()}\n".encode())
        return True

    def require_writable(self) -> None:
        """Raise ReadOnlyError if nothing can be written here."""
        if self.read_only:
            raise ReadOnlyError(
                f"`{self.root}` cannot be written",
                hint="reading works; to record or change anything, use a clone that you own",
            )

    @property
    def writer(self) -> str:
        """This clone's writer id: the last part of the refs it alone moves."""
        if self._writer is None:
            try:
                text = (self.root / "writer").read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise CorruptError(f"`{self.root / 'writer'}` cannot be read", hint="run `gittrack init`") from error
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
                raise CorruptError(
                    f"`{self.root / 'writer'}` holds no writer id", hint="delete it, run `gittrack init`"
                )
            self._writer = text
        return self._writer

    def become(self, writer: str) -> None:
        """Give this clone another writer id, durably: another clone has the one it had.

        Under the seal lock, after the refs of the old one were seen to.
        """
        self.require_writable()
        files.write_atomic(self.root / "writer", f"{writer}\n".encode())
        self._writer = writer

    @property
    def index(self) -> Index:
        """The SQL index, opened on first use; call ``refresh`` before reading from it."""
        if self._index is None:
            with self._opening:  # two threads must not get two: a transaction of one would wait for the other's
                if self._index is None:
                    self._index = self._open_index()
        return self._index

    def _open_index(self) -> Index:
        if self._database is None or not self._has_database:
            from gittrack.store.index import Index

            return Index(self.root / "index.db", read_only=self.read_only or not self.exists)
        if isinstance(self._database, Path):
            return self._index_in(self._database)
        from gittrack.store.postgres import PostgresIndex

        return PostgresIndex(self._database, f"gittrack_{self.writer[-50:].replace('-', '_')}")

    def _index_in(self, path: Path) -> Index:
        """The index in a file that somebody named, who may have meant another: nobody else's is emptied."""
        from gittrack.store.index import Index, is_index

        try:
            foreign = path.exists() and path.stat().st_size > 0 and not is_index(path)
        except OSError as error:
            raise StorageError(f"`{path}` cannot be read: {error.strerror}") from error
        if foreign:
            raise InvalidValueError(
                f"`{path}` is no index of gittrack, which would write over it",
                hint="name a file that is not there yet; `gittrack import mlflow sqlite:///…` takes over MLflow's runs",
            )
        index = Index(path)
        with index.transaction():
            owner = index.meta_get("writer")
            if owner is None:
                index.meta_set("writer", self.writer)
        if owner not in (None, self.writer):
            index.close()
            raise InvalidValueError(
                f"`{path}` is the index of another clone", hint="give every clone a file of its own"
            )
        return index

    @property
    def _has_database(self) -> bool:
        return self._database is not None and self.exists and not self.read_only

    @property
    def frames(self) -> Frames | None:
        """Where journals are that several servers write into; None if there is no database."""
        if self._frames is None and isinstance(self._database, str) and self._has_database:
            from gittrack.store.shared import Frames

            with self._opening:
                if self._frames is None:
                    name = self.writer[-49:].replace("-", "_") if self.exchange is None else self.exchange.group
                    self._frames = Frames(self._database, f"gittrack_live_{name}")
        return self._frames

    def close(self) -> None:
        """Close index and packs; the next use opens them again."""
        self.git.close()
        if self._index is not None:
            self._index.close()
            self._index = None
        if self._frames is not None:
            self._frames.close()
            self._frames = None

    # -- one run -----------------------------------------------------------------------------------------------------

    def artifact_uri(self, run_id: str) -> str:
        """The address of a run's artifact root; ``runs:/`` works in every clone, a path would not."""
        return f"runs:/{run_id}"

    def ledgers(self) -> dict[str, ObjectId]:
        """Every ledger ref and the commit it is at; one whose commit is missing is left to ``gittrack fsck``."""
        found = self.ledger_refs()
        known = self._whole  # a look through all packs for each ledger would be most of what this takes
        broken = [ref for ref, oid in found.items() if oid not in known and not self.git.exists(oid)]
        for ref in broken:
            _log.warning("gittrack: ledger `%s` names a commit that is missing; run `gittrack fsck`", ref)
            del found[ref]
        self._whole = set(found.values())
        return found

    def ledger_refs(self) -> dict[str, ObjectId]:
        """Every ledger ref and what it names, whether that exists or not."""
        self.look()
        refs = self.git.refs(layout.LEDGER_PREFIX)
        return {ref: oid for ref, oid in refs.items() if layout.parse_ledger_ref(ref)}

    def look(self) -> None:
        """Have what servers with other clones know, before something that depends on it is read.

        After journals were read: what is not in them any more is in git then.  Raises NetworkError.
        """
        if self.exchange is not None:
            self.exchange.look()

    def revisions(self, run_id: str, ledgers: Mapping[str, ObjectId] | None = None) -> list[ObjectId]:
        """The newest run commits of a run: one, or several if two clones amended it and nobody has merged yet.

        Empty for a run that is only in journals or does not exist.  ``ledgers`` saves listing them again.
        """
        ledgers = self.ledgers() if ledgers is None else ledgers
        found = {oid for ledger in set(ledgers.values()) if (oid := self.git.ledger_lookup(ledger, run_id))}
        if found and self.purged(run_id, ledgers):
            return []
        return self._newest(found)

    def revisions_of(
        self,
        run_ids: Collection[str],
        ledgers: Mapping[str, ObjectId] | None = None,
        *,
        listed: Mapping[str, Mapping[str, ObjectId]] | None = None,
    ) -> dict[str, list[ObjectId]]:
        """``revisions`` of many runs, reading each ledger once; one that cannot be read has none.

        Args:
            run_ids: The runs.
            ledgers: Saves listing them again.
            listed: Everything that some of these ledgers list, by ref, which saves reading them.
        """
        ledgers = self.ledgers() if ledgers is None else ledgers
        known = listed or {}
        wanted = by_folder(run_ids)
        found: dict[str, set[ObjectId]] = {}
        for ref, oid in ledgers.items():
            try:
                entries = known[ref].items() if ref in known else self.git.ledger_lookup_many(oid, wanted)
                for run_id, commit in entries:
                    found.setdefault(run_id, set()).add(commit)
            except (CorruptError, NotFoundError) as error:
                _log.warning("gittrack: ledger `%s` cannot be read: %s; run `gittrack fsck`", ref, error.message)
        stones = self.tombstones(ledgers)
        if stones:
            found = {run_id: oids for run_id, oids in found.items() if layout.tombstone(run_id) not in stones}
        return {run_id: self._newest(found.get(run_id, set())) for run_id in run_ids}

    def _newest(self, found: set[ObjectId]) -> list[ObjectId]:
        """Those of a run's commits that are no earlier revision of another one."""
        if len(found) > 1:
            found -= {older for older in found for newer in found - {older} if self.is_ancestor(older, newer)}
        return sorted(found)

    def tombstones(self, ledgers: Mapping[str, ObjectId] | None = None, *, strict: bool = False) -> frozenset[str]:
        """What all ledgers, or these, keep of purged runs (``layout.tombstone``); read once for each ledger commit.

        Raises:
            CorruptError, NotFoundError: They cannot be read, if ``strict``; otherwise such a ledger has none.
        """
        found: set[str] = set()
        ledgers = self.ledgers() if ledgers is None else ledgers
        stones = self._stones  # another thread may put a smaller one in its place
        if len(stones) > 2 * len(ledgers) + 100:  # those that ledgers were at before
            stones = self._stones = {oid: stones[oid] for oid in ledgers.values() if oid in stones}
        for ref, oid in ledgers.items():
            if oid not in stones:
                try:
                    data = self.git.ledger_blob(oid, layout.TOMBSTONES)
                    stones[oid] = frozenset() if data is None else layout.check_tombstones(codec.unpack(data))
                except (CorruptError, NotFoundError) as error:
                    if strict:
                        raise
                    _log.warning("gittrack: ledger `%s` cannot be read: %s; run `gittrack fsck`", ref, error.message)
                    stones[oid] = frozenset()
            found |= stones[oid]
        return frozenset(found)

    def purged(self, run_id: str, ledgers: Mapping[str, ObjectId] | None = None) -> bool:
        """True if some clone has purged this run: it does not exist any more, whoever else has it."""
        return layout.tombstone(run_id) in self.tombstones(ledgers)

    def is_ancestor(self, older: ObjectId, newer: ObjectId) -> bool:
        """True if ``older`` is an earlier revision of ``newer``.  Stops where the run begins: at the code commit."""
        todo, seen = [newer], set()
        while todo:
            oid = todo.pop()
            if oid == older:
                return True
            if oid in seen or not self._record_bytes(oid):
                continue
            seen.add(oid)
            todo.extend(self.git.read_commit(oid).parents)
        return False

    def _record_bytes(self, commit: ObjectId) -> bytes | None:
        found = self.git.lookup(self.git.tree_of(commit), f"{layout.FOLDER}/{layout.RECORD}")
        return None if found is None else self.git.read_blob(found[1])

    def _records(self, commits: Collection[ObjectId]) -> dict[ObjectId, bytes]:
        """The records of many run commits, as far as they can be read at once; none of few."""
        found: dict[ObjectId, bytes] = {}
        if len(commits) >= MANY:
            with suppress(GitError):  # one is damaged: which one, and how, shows where they are read one by one
                places = self.git.headers_at(commits, f"{layout.FOLDER}/{layout.RECORD}")
                blobs = {header.oid: data for header, data in self.git.contents(set(places.values()))}
                found = {oid: blobs[header.oid] for oid, header in places.items() if header.oid in blobs}
        return found

    def stored_state(
        self, run_id: str, revisions: Iterable[ObjectId], records: Mapping[ObjectId, bytes] | None = None
    ) -> RunState | None:
        """The run as its revisions tell it, journals apart; None without revisions.

        Args:
            run_id: Its id.
            revisions: Its newest commits.
            records: Records of commits that were read before.

        Raises:
            CorruptError: A revision is no run commit, or is one of another run.
        """
        state: RunState | None = None
        for oid in revisions:
            data = (records or {}).get(oid) or self._record_bytes(oid)
            if data is None:
                raise CorruptError(f"commit `{oid}` is no run commit", hint="run `gittrack fsck`")
            one = RunState.decode(data, base=oid)
            if one.run_id != run_id:
                raise CorruptError(f"commit `{oid}` says it is run `{one.run_id}`, its ledger says `{run_id}`")
            if state is None:
                state = one
            else:
                state.merge(one)
        return state

    def journals(self, run_id: str) -> list[Journal]:
        """The journals of a run, oldest first."""
        return in_order([*map(JournalFile, journal.list_run(self.live / run_id)), *self._shared(run_id)])

    def _shared(self, run_id: str) -> list[SharedJournal]:
        return [] if self.frames is None else self.frames.of(run_id)

    def versions(self, run_ids: Sequence[str]) -> list[tuple[list[ObjectId], list[tuple[str, int]]]]:
        """What tells two states of each run apart without reading it: its newest commits, how long its journals are.

        What is read afterwards is of this state or of a later one.  Nothing at all for a run that is not there.
        """
        live: list[list[tuple[str, int]]] = []
        for run_id in run_ids:
            sizes = []
            for one in self.journals(run_id):
                with suppress(FileNotFoundError):  # committed meanwhile, which the commits will tell
                    sizes.append((one.name, one.size))
            live.append(sizes)
        stored = self.revisions_of(run_ids)
        return [(stored[run_id], sizes) for run_id, sizes in zip(run_ids, live, strict=True)]

    def live_runs(self, but: Collection[str] = ()) -> dict[RunId, list[Journal]]:
        """The journals of each run, but for some, that has any, oldest first.  Raises StorageError, NetworkError."""
        found: dict[RunId, list[Journal]] = {}
        for run_id, paths in journal.list_journals(self.live, but).items():
            found[run_id] = [JournalFile(path) for path in paths]
        if self.frames is not None:
            for run_id, one in self.frames.runs().items():
                found.setdefault(run_id, []).append(one)
        return {run_id: in_order(journals) for run_id, journals in found.items()}

    def state(self, run_id: str) -> RunState:
        """The run as it is now: its revisions and its journals folded.

        Raises:
            NotFoundError: No such run.
        """
        # The journals first: if they are sealed in between, the revision says that it has absorbed them.
        events = JournalEvents.read(self.journals(run_id))
        state = events.fold(run_id, self.stored_state(run_id, self.revisions(run_id)))
        if state is None or not state.created:
            raise NotFoundError(f"no run `{run_id}`", hint="`gittrack log` lists the runs")
        return state

    def run(self, run_id: str) -> Run:
        """The run as a frozen record, from its own bytes rather than from the index.  Raises NotFoundError."""
        return self.state(run_id).to_run(self.artifact_uri(run_id))

    def history(self, run_id: str, key: str) -> MetricHistory:
        """All points of one metric in history order; empty if the run has no such metric.  Raises NotFoundError."""
        pieces: list[tuple[array[int], array[int], array[float]]] = []
        journals = self.journals(run_id)
        events = JournalEvents.read(journals)
        revisions = self.revisions(run_id)
        for oid in revisions:
            folder = self.git.lookup(self.git.tree_of(oid), f"{layout.FOLDER}/{layout.METRICS}")
            for _, _, blob in self.git.list_tree(folder[1]) if folder else ():
                points = self._segment(blob) or codec.unpack_points(self.git.read_blob(blob), [key])
                if key in points:
                    pieces.append(points[key])
        if revisions and not journals:
            return merge_histories(key, pieces)
        live = events.fold(run_id, self.stored_state(run_id, revisions))
        if live is None:
            raise NotFoundError(f"no run `{run_id}`", hint="`gittrack log` lists the runs")
        new = live.new_history(key)
        pieces.append((new.steps, new.timestamps, new.values))
        return merge_histories(key, pieces)

    def _read_segment(self, blob: ObjectId) -> dict[str, Columns] | None:
        """A segment of metrics, to be kept: who asks for one metric asks for others next.  None: it is too large."""
        data = self.git.read_blob(blob)
        return codec.unpack_points(data) if len(data) <= _KEPT_SEGMENT else None

    def is_run_commit(self, commit: ObjectId) -> bool:
        """True if this commit carries a run record."""
        return self._record_bytes(commit) is not None

    def all_run_ids(self) -> set[str]:
        """The id of every run, from journals and from the ledgers that can be read."""
        ledgers = self.ledgers()
        stones = self.tombstones(ledgers)
        found = {run_id for run_id in self._listed(ledgers) if not stones or layout.tombstone(run_id) not in stones}
        return found | {run_id for run_id in self.live_runs() if self._is_whole(run_id)}

    def _listed(self, ledgers: Mapping[str, ObjectId]) -> set[str]:
        """The id of every run in these ledgers, as far as they can be read."""
        found: set[str] = set()
        for ledger in set(ledgers.values()):
            with suppress(CorruptError, NotFoundError):  # `gittrack fsck` names it
                found.update([run_id for run_id, _ in self.git.ledger_read(ledger)])
        return found

    def _is_whole(self, run_id: str) -> bool:
        try:
            state = JournalEvents.read(self.journals(run_id)).fold(run_id, None)
        except FormatError:
            return False
        return state is not None and state.created

    def artifacts_of(self, commit: ObjectId, folder: str = "") -> dict[str, Artifact]:
        """The artifacts of one revision by path, of one folder if asked.  Raises FormatError."""
        return {path: layout.parse_pointer(path, data) for path, data in self._artifact_pointers(commit, folder)}

    def stored_artifacts(self, revisions: Iterable[ObjectId], folder: str = "") -> dict[str, Artifact]:
        """The artifacts of a run's revisions together, journals apart.  Raises FormatError."""
        found: dict[str, Artifact] = {}
        for oid in revisions:
            layout.overlay(found, self.artifacts_of(oid, folder))
        return found

    def artifacts_in(self, commits: Collection[ObjectId]) -> set[Artifact]:
        """The artifacts of many revisions together, under the last parts of their paths.  Raises FormatError."""
        if len(commits) < MANY:
            return {file for oid in commits for file in self.artifacts_of(oid).values()}
        with self.git.reading():
            tops = self.git.headers_at(commits, f"{layout.FOLDER}/{layout.ARTIFACTS}").values()
            level = {header.oid for header in tops if header.kind == "tree"}
            seen: set[ObjectId] = set()
            pointers: dict[ObjectId, str] = {}
            while level := level - seen:
                seen |= level
                entries = [entry for tree in self.git.list_trees(level).values() for entry in tree]
                level = {oid for _, mode, oid in entries if mode == 0o040000}
                pointers |= {oid: name for name, mode, oid in entries if mode != 0o040000}
            headers = self.git.headers(pointers).values()
            if large := next((header for header in headers if header.size > layout.MAX_POINTER), None):
                raise FormatError(f"artifact `{pointers[large.oid]}` is not a git-lfs pointer")
            return {layout.parse_pointer(pointers[header.oid], data) for header, data in self.git.contents(headers)}

    def artifacts(self, run_id: str, folder: str = "") -> dict[str, Artifact]:
        """The artifacts of a run by path, sorted: all, or those below a folder.  Raises NotFoundError, FormatError."""
        return self.artifacts_as(self.state(run_id), folder)

    def artifacts_as(self, state: RunState, folder: str = "") -> dict[str, Artifact]:
        """``artifacts`` of a run whose state is known."""
        changes = state.artifacts
        # A change of a path outside of the folder can still put a file in the place of the folder.
        found = self.stored_artifacts(self.revisions(state.run_id), "" if changes else folder)
        layout.overlay(found, changes)
        return {path: found[path] for path in sorted(found) if not folder or path.startswith(f"{folder}/")}

    def _artifact_pointers(self, commit: ObjectId, folder: str) -> Iterator[tuple[str, bytes]]:
        path = f"{layout.FOLDER}/{layout.ARTIFACTS}{folder and '/'}{folder}"
        top = self.git.lookup(self.git.tree_of(commit), path)
        todo = [(f"{folder}/" if folder else "", top[1])] if top and top[0] == 0o040000 else []
        while todo:
            prefix, tree = todo.pop()
            for name, mode, oid in self.git.list_tree(tree):
                layout.check_part(name)
                if mode == 0o040000:
                    todo.append((f"{prefix}{name}/", oid))
                else:
                    data = self.git.read_blob(oid)
                    if len(data) > layout.MAX_POINTER:
                        raise FormatError(f"artifact `{prefix}{name}` is not a git-lfs pointer")
                    yield prefix + name, data

    # -- experiments -------------------------------------------------------------------------------------------------

    def experiment_states(self) -> dict[str, ExperimentState]:
        """Every experiment by id, folded over all writers; Default is always there."""
        states = {layout.DEFAULT_EXPERIMENT_ID: ExperimentState.default()}
        ledgers = self.ledgers()
        told = self._told
        if len(told) > 2 * len(ledgers) + 100:  # those that ledgers were at before
            told = self._told = {oid: told[oid] for oid in ledgers.values() if oid in told}
        for ref, oid in sorted(ledgers.items()):
            parsed = layout.parse_ledger_ref(ref)
            if oid not in told:
                told[oid] = self.git.ledger_blob(oid, layout.EXPERIMENT_FILE)
            data = told[oid]
            if parsed is None or data is None:
                continue
            try:
                state = ExperimentState.decode(parsed[0], data)
            except FormatError as error:
                _log.warning("gittrack: ledger `%s`: %s; run `gittrack fsck`", ref, error.message)
                continue
            if parsed[0] in states:
                states[parsed[0]].merge(state)
            else:
                states[parsed[0]] = state
        return states

    def edit_experiment(self, experiment_id: str, changes: Mapping[str, str | None], now: int) -> None:
        """Change editable fields of an experiment (or make it), durably, in this clone's ledger.

        Args:
            experiment_id: Its id.
            changes: ``name``, ``lifecycle``, ``artifact_location`` or ``tags.<key>`` to the new value; None removes.
            now: Milliseconds since the epoch.
        """
        self.require_writable()
        with self.seal_lock():
            state = self.experiment_states().get(experiment_id) or ExperimentState(experiment_id, now)
            state.edit(self.writer, changes, now)
            batch = self.git.batch()
            update = self.ledger_update(
                batch,
                experiment_id,
                {},
                files={layout.EXPERIMENT_FILE: state.encode()},
                message=f"experiment {state.name}\n",
                time=now // 1000,
            )
            self.git.publish(batch, [update])

    def ledger_update(
        self,
        batch: Batch,
        experiment_id: str,
        changes: Mapping[str, ObjectId | None],
        *,
        message: str,
        time: int,
        files: Mapping[str, bytes | None] | None = None,
    ) -> RefUpdate:
        """Add the next commit of this clone's ledger to a batch, under the seal lock; the ref update that publishes it.

        Args:
            batch: Gets the commit and its trees.
            experiment_id: Which ledger.
            changes: Run ids and their new revisions; None takes a run out.
            message: The commit's message.
            time: Seconds since the epoch; the ledger's last time if that is later, for git expects parents to be older.
            files: Files at the ledger's root to write, or to remove if None.
        """
        ref = layout.ledger_ref(experiment_id, self.writer)
        old = self.git.ref(ref)
        time = time if old is None else max(time, self.git.read_commit(old).time)
        new = self.git.ledger_build(batch, old, changes, files or {}, message, author=self.git.identity(), time_s=time)
        return RefUpdate(ref, old, new)

    def seal_lock(self, timeout: float = LOCK_TIMEOUT) -> AbstractContextManager[object]:
        """The lock that whoever moves this clone's ledgers holds."""
        return self.lock("seal", timeout)

    @contextmanager
    def lock(self, name: str, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
        """A lock of this clone; servers that share a database take it from each other, wherever they are.

        Raises:
            LockedError: Somebody has it for ``timeout`` seconds.
        """
        here = files.FileLock(self.root / "locks" / name, timeout=timeout)
        with ExitStack() as stack:
            if self.exchange is None:
                if self.frames is not None:
                    stack.enter_context(self.frames.lock(name, timeout))
                with here:
                    yield
            elif self.exchange.inside or self.frames is None:
                with here:
                    yield
            else:  # what one clone does depends on what all others did
                stack.enter_context(self.frames.lock("all", timeout))
                stack.enter_context(self.exchange.alone())
                self.exchange.bring()
                with here:
                    yield
                self.exchange.send()

    # -- index -------------------------------------------------------------------------------------------------------

    def look_out(self) -> None:
        """From now on ``refresh`` folds in at once what this process wrote, and others' journals every now and then."""
        self._lookout = Lookout()

    def refresh(self, progress: Callable[[int, int | None], None] | None = None) -> None:
        """Bring the index up to the refs and the journals.  Costs a few stats when nothing changed.

        ``progress`` is told (runs done, runs in all).
        """
        if self._lookout is None or self.frames is not None or self.exchange is not None:
            self.written.clear()
            self._refresh_all(progress)
            return
        with self._lookout.lock:
            written = set()
            while self.written:  # what is written from here on is in here again, or read below
                written.add(self.written.pop())
            try:
                if self._lookout.is_due or self.index.meta_get("fingerprint") != self._fingerprint():
                    with self._lookout.looking():
                        self._refresh_all(progress)
                elif written:
                    with self.index.transaction():
                        self._refresh_each(written)
            except BaseException:
                self.written |= written
                raise

    def refresh_ledgers(self) -> None:
        """As ``refresh``, for who asks for what only ledgers tell: journals are left for who asks for runs."""
        self.look()
        if self.index.meta_get("fingerprint") != self._fingerprint():
            self.refresh()

    def _refresh_all(self, progress: Callable[[int, int | None], None] | None) -> None:
        while self._is_stale():
            with suppress(_Behind), nullcontext() if self.exchange is None else self.exchange.alone():
                if self._refresh(progress):
                    return

    def _refresh(self, progress: Callable[[int, int | None], None] | None) -> bool:
        """Index what is new, or nothing; False if runs are as they were that were told more of.

        Raises:
            _Behind: Others have sent something meanwhile, without which runs would be missing or go back in time.
        """
        index = self.index
        with index.transaction():
            # Looked at again inside, where only one process is at a time: what another has indexed since must not be
            # replaced by what this one saw before.
            live, fingerprint = self.stamps()
            if self._is_behind():
                raise _Behind
            seen = index.meta_get("live") or {}
            settled: set[str] = set()
            if index.meta_get("fingerprint") != fingerprint:
                with self.git.reading():
                    settled = self._refresh_ledgers(progress)
                index.meta_set("fingerprint", fingerprint)
            changed = {run_id for run_id in {*live, *seen} if live.get(run_id) != seen.get(run_id)}
            late = self._refresh_each(changed | (settled & {*live, *seen}), settled)
            if late & settled & seen.keys():
                raise _Behind
            index.meta_set("live", {run_id: stamps for run_id, stamps in live.items() if run_id not in late})
        return not late

    def _refresh_each(self, run_ids: Iterable[str], from_start: Collection[str] = ()) -> set[str]:
        """Fold in the journals of these runs, inside of a transaction; one that cannot be read hides no other.

        Returns:
            Those whose frames went into a commit that is not here yet; they stay as they are until the next look.
        """
        late: set[str] = set()
        for run_id in run_ids:
            try:
                if not self._refresh_live(run_id, from_start=run_id in from_start):
                    late.add(run_id)
            except (CorruptError, NotFoundError) as error:
                _log.warning(_UNREADABLE, run_id, error.message)
        return late

    def _is_stale(self) -> bool:
        live, fingerprint = self.stamps()
        return self.index.meta_get("fingerprint") != fingerprint or (self.index.meta_get("live") or {}) != live

    def stamps(self) -> tuple[dict[str, list[list[Any]]], str]:
        """What is compared with what was seen before: the journals by run, and the ledgers' fingerprint.

        The journals first: a run that is sealed in between is then found in the refs, never missed in both.
        """
        live = self._live_stamps()
        self.look()
        return live, self._fingerprint()

    def _fingerprint(self) -> str:
        return self.git.refs_fingerprint(layout.LEDGER_PREFIX).hex()

    def _live_stamps(self) -> dict[str, list[list[Any]]]:
        """Per run in progress, its journals with size and modification time."""
        stamps = journal.stamps(self.live)
        if self.frames is not None:
            for run_id, one in self.frames.runs().items():
                stamps.setdefault(run_id, []).append([one.name, one.last, 0])
        return stamps

    def _refresh_ledgers(self, progress: Callable[[int, int | None], None] | None) -> set[str]:
        """Index what changed between the ledgers as last seen and as they are; the ids of the runs concerned."""
        index = self.index
        seen: dict[str, ObjectId] = index.meta_get("ledgers") or {}
        now = self.ledgers()
        changed: set[str] = set()
        listed: dict[str, dict[str, ObjectId]] = {}  # by ledgers that are new here
        for ref in [ref for ref in {*seen, *now} if seen.get(ref) != now.get(ref)]:
            try:
                news = {run_id: new for run_id, _, new in self.git.ledger_diff(seen.get(ref), now.get(ref))}
            except (CorruptError, NotFoundError) as error:  # it may come from anywhere: it hides only its own runs
                _log.warning("gittrack: ledger `%s` cannot be read: %s; run `gittrack fsck`", ref, error.message)
                now.pop(ref, None)
                continue
            changed.update(news)
            if ref not in seen:
                listed[ref] = {run_id: oid for run_id, oid in news.items() if oid is not None}
        stones = self.tombstones(now) - frozenset(index.meta_get("tombstones") or ())
        if stones:
            changed.update(run_id for run_id in self._listed(now) if layout.tombstone(run_id) in stones)
            index.meta_set("tombstones", sorted(self.tombstones(now)))
        revisions = self.revisions_of(changed, now, listed=listed)
        with index.filling() if not seen and len(changed) >= _VERY_MANY else nullcontext():
            self._index_runs(revisions, progress)
        index.put_experiments([s.to_experiment() for s in self.experiment_states().values()])
        index.meta_set("ledgers", now)
        return changed

    def _index_runs(
        self, revisions: Mapping[str, Iterable[ObjectId]], progress: Callable[[int, int | None], None] | None
    ) -> None:
        """Index runs as their revisions tell them; forget those without."""
        gone: list[str] = []
        rest = iter(sorted(revisions))
        done = 0
        while some := list(islice(rest, 1000)):
            records = self._records({oid for run_id in some for oid in revisions[run_id]})
            found: list[RunState] = []
            for run_id in some:
                try:
                    state = self.stored_state(run_id, revisions[run_id], records)
                except (CorruptError, NotFoundError) as error:  # one run does not hide the others
                    _log.warning(_UNREADABLE, run_id, error.message)
                    state = None
                if state is None:
                    gone.append(run_id)
                else:
                    found.append(state)
            self.index_states(found)
            done += len(some)
            if progress is not None:
                progress(done, len(revisions))
        self.index.drop_runs(gone)

    def index_states(self, states: Iterable[RunState]) -> None:
        """Put runs into the index as these states tell them, with what they have to do with logged models."""
        from gittrack.store.index import RunModels

        runs, about = [], {}
        for state in states:
            uri = self.artifact_uri(state.run_id)
            runs.append(state.to_run(uri))
            models = RunModels(state.logged_models(uri), state.measured(), state.keeper)
            if any(models):
                about[state.run_id] = models
        self.index.put_runs(runs, about)

    def _refresh_live(self, run_id: str, *, from_start: bool) -> bool:
        """Fold the new frames of a run's journals into what the index has of it; False: see ``_refresh_each``."""
        index = self.index
        journals = self.journals(run_id)
        if not journals:
            stored = self.stored_state(run_id, self.revisions(run_id))
            if self._is_behind():
                return False
            index.meta_set(f"live:{run_id}", None)
            if stored is None:
                index.drop_runs([run_id])
            else:  # sealed since the refs were looked at
                self.index_states([stored])
            return True
        cached = index.meta_get(f"live:{run_id}")
        offsets: dict[str, int] = {} if cached is None else cached["offsets"]
        if cached is None or from_start or set(offsets) - {one.name for one in journals}:
            offsets = {}
        state: RunState | None = None
        events = JournalEvents.read(journals, offsets)
        if offsets and cached is not None:
            state = RunState.decode(cached["record"], base=cached["base"])
            if events.lacks(state):  # sealed since its journals were looked at
                events, state = JournalEvents.read(journals), None
            elif events.ends == offsets:
                return True
        if state is None:
            state = self.stored_state(run_id, self.revisions(run_id))
            if events.lacks(state):
                return not self._is_behind()
        state = events.fold(run_id, state)
        if state is not None and state.created:
            state.settle()
            self.index_states([state])
            try:
                known = {"offsets": events.ends, "record": state.record(), "base": state.base}
            except InvalidValueError:  # more than a record can hold: all of it is read again the next time
                known = None
            index.meta_set(f"live:{run_id}", known)
        return True

    def _is_behind(self) -> bool:
        """True if others have sent something that is not here: a commit, perhaps, that frames went into."""
        return self.exchange is not None and self.exchange.behind()

    def reindex(self, progress: Callable[[int, int | None], None] | None = None) -> int:
        """Throw the index away and build it again from refs and journals; the number of runs in it.

        ``progress`` is told (runs done, runs in all).
        """
        self.require_writable()
        self.index.clear()
        self.refresh(progress)
        return self.index.count_runs()


class _Behind(Exception):  # noqa: N818 — it is no error: one looks again
    """Others have sent something that is not here."""


class JournalEvents:
    """What a run's journals say, read before anything else is looked at.

    Attributes:
        ends: The offset up to which each journal was read, by file name.
    """

    def __init__(self, starts: Mapping[str, int]) -> None:
        # Name, and of each frame its end and its payload: unpacked when it is folded, events take four times as much.
        self._frames: list[tuple[str, array[int], list[bytes]]] = []
        self._gone: dict[str, int] = {}
        self._starts = starts
        self.ends: dict[str, int] = {}

    @classmethod
    def read(cls, journals: Iterable[Journal], offsets: Mapping[str, int] | None = None) -> JournalEvents:
        """Read the journals, oldest first, from the given offsets on.  Raises StorageError, NetworkError."""
        self = cls(offsets or {})
        for one in journals:
            start = self._starts.get(one.name, 0)
            ends, payloads = array("q"), []
            for end, payload in one.frames(start):
                ends.append(end)
                payloads.append(payload)
            self._frames.append((one.name, ends, payloads))
            self._gone[one.name] = one.gone(ends)
            self.ends[one.name] = ends[-1] if ends else start
        return self

    @property
    def empty(self) -> bool:
        """True if nothing happened but the opening and the closing of journals.  Raises FormatError."""
        events = (codec.unpack(payload) for _, _, payloads in self._frames for payload in payloads)
        return all(isinstance(event, list) and event[:1] in ([OPEN], [CLOSE]) for event in events)

    def lacks(self, state: RunState | None) -> bool:
        """True if frames between ``state`` and these were dropped: they went into a commit that ``state`` is not of."""
        absorbed = {} if state is None else state.absorbed
        return any(end > max(absorbed.get(name, 0), self._starts.get(name, 0)) for name, end in self._gone.items())

    def fold(self, run_id: str, state: RunState | None) -> RunState | None:
        """``state`` continued by what it has not absorbed already of the journals.  Raises FormatError."""
        absorbed = dict(state.absorbed) if state is not None else {}
        for name, ends, payloads in self._frames:
            start = bisect_right(ends, absorbed.get(name, 0))
            if start < len(payloads):
                state = RunState.fold(run_id, map(codec.unpack, islice(payloads, start, None)), state)
        return state


class JournalFile:
    """A journal that is a file.

    Attributes:
        path: Where it is.
        name: Its name there.
    """

    __slots__ = ("name", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    @property
    def opened(self) -> int:
        """When it was opened, in nanoseconds since the epoch; 0 if it does not say."""
        opening = journal_opening(self.path)
        return int(opening["opened"]) if opening else 0

    def frames(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """As ``iter_journal``."""
        return journal.iter_journal(self.path, start)

    def gone(self, ends: Sequence[int]) -> int:
        """Nothing: a file goes as a whole."""
        del ends
        return 0

    def drop(self, end: int) -> None:
        """Remove the file, unless somebody wrote behind its end: that is the next seal's."""
        if self.path.stat().st_size == end:
            self.path.unlink()

    def remove(self) -> None:
        """Remove the file."""
        files.remove(self.path)


_Journals = TypeVar("_Journals", bound="Journal")


def in_order(journals: list[_Journals]) -> list[_Journals]:
    """Journals apply in the order in which they were opened."""
    return sorted(journals, key=lambda one: (one.opened, one.name)) if len(journals) > 1 else journals


def journal_opening(path: Path) -> dict[str, Any] | None:
    """The facts of a journal's OPEN frame; None if a crash left it without one, or it is gone."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except FileNotFoundError:
        return None
    for _, payload in codec.read_frames(start):
        try:
            kind, facts = codec.unpack(payload)
            if kind == OPEN:
                files.ProcessId.from_list(facts["process"])
                return {**facts, "opened": int(facts["opened"])}
        except (FormatError, TypeError, ValueError, KeyError):  # whoever wrote that does not write here
            _log.debug("`%s` does not say whose it is", path, exc_info=True)
        return None
    return None


def new_writer() -> str:
    """A writer id that says who and where, and is unique: ``ana-laptop-3f2a``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a passwd entry
        user = "user"
    text = f"{user}-{socket.gethostname().split('.')[0]}".lower()
    text = re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:48].strip("-") or "writer"
    return f"{text}-{secrets.token_hex(2)}"
