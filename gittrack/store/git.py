"""GitStore: git objects (through dulwich, SHA-1 and SHA-256) and refs of one clone, durable and safe beside git itself.

Writing is always the same three steps: objects collect in a ``Batch``; ``publish`` writes them as one pack that git's
housekeeping keeps its hands off; then the refs move, all or none, by compare-and-swap.  When ``publish`` returns,
everything is on disk.  dulwich is imported on first use of an object; refs need only plain files.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from gittrack.errors import (
    ConflictError,
    CorruptError,
    FormatError,
    GitError,
    GittrackError,
    LockedError,
    NotFoundError,
)
from gittrack.store import files, gateway, ledger
from gittrack.store.catfile import CatFile, Header
from gittrack.store.gateway import RepoPaths
from gittrack.store.pack import (
    BLOB_TYPE,
    COMMIT_TYPE,
    TAG_TYPE,
    TREE_TYPE,
    Batch,
    PackOnDisk,
    decode_name,
    encode_name,
    stale_keeps,
)
from gittrack.store.refs import RefStore, RefUpdate
from gittrack.types import ObjectId, RunId

if TYPE_CHECKING:
    from dulwich.object_store import DiskObjectStore

T = TypeVar("T")

#: Where captured code is kept alive until its runs are sealed.
PIN_PREFIX: Final = "refs/gittrack/live/"
#: A pin that young may belong to a run that has not written its journal yet.
PIN_GRACE_S: Final = 600.0
#: More packs than this in one folder slow every lookup down.
MAX_PACKS: Final = 64
#: Tags with files of their own, above which ``maintain`` packs them.
MAX_LOOSE: Final = 256

_FOLDER: Final = 0o040000
_TYPE_NAMES: Final = {COMMIT_TYPE: "commit", TREE_TYPE: "tree", BLOB_TYPE: "blob", TAG_TYPE: "tag"}
_COMMIT_HEAD = re.compile(rb"tree ([0-9a-f]{40}|[0-9a-f]{64})\n")
#: The first entries of a tree, all of them whole; by the bytes of an id.
_ENTRIES: Final = {size: re.compile(rb"(?s)(?:[0-7]{5,6} [^\0]+\0.{%d})*" % size) for size in (20, 32)}
_TAG_HEAD = re.compile(
    rb"object ([0-9a-f]{40}|[0-9a-f]{64})\ntype (commit|tree|blob|tag)\ntag ([^\n]{1,1024})\n"
    rb"tagger ([^<>\n]{1,1024}<[^<>\n]{0,1024}>) ([0-9]{1,12}) [+-][0-9]{4}\n\n"
)
#: Bytes of a tag object that is read; those of the registry have a few hundred.
MAX_TAG: Final = 1 << 20
#: Of a ledger of thousands of runs, the folders alone are 256 objects, of some hundred bytes each.
_CACHED_OBJECTS: Final = 8192
#: Bytes that ``contents`` has in memory at once, if they are not those of one object.
_CONTENTS: Final = 4 << 20
#: Objects that dulwich reads faster than a process of git is started.
MANY: Final = 64
_CACHED_SIZE: Final = 64 * 1024
#: Bytes of all of them: a server reads for months.
_CACHED_BYTES: Final = 8 << 20
_log = logging.getLogger("gittrack")


class CommitInfo(NamedTuple):
    """What a commit says.  ``time`` is the committer's, in seconds since the epoch; ``author`` is ``Name <mail>``."""

    tree: ObjectId
    parents: tuple[ObjectId, ...]
    message: str
    author: str
    time: int


class TagInfo(NamedTuple):
    """What an annotated tag says.

    ``name`` is the part behind ``refs/tags/`` that the tag says it has, ``tagger`` is ``Name <mail>``, ``time`` in
    seconds since the epoch; ``message`` includes the signature, if there is one.
    """

    target: ObjectId
    target_type: str
    name: str
    tagger: str
    time: int
    message: str


class GitStore:
    """Objects and refs of one clone; threads may share it.

    Args:
        paths: Where the repository is.

    Attributes:
        paths: The same.
        program: Runs git on this repository.
    """

    def __init__(self, paths: RepoPaths) -> None:
        self.paths = paths
        self.program = gateway.Git(paths.git_dir, paths.work_tree)
        self._refs = RefStore(paths)
        self._pack_dir = paths.common_dir / "objects" / "pack"
        self._store: DiskObjectStore | None = None
        self._mutex = threading.RLock()
        self._bulk = threading.local()
        self._partial: bool | None = None  # until it is looked at
        self._cache: OrderedDict[ObjectId, tuple[int, bytes]] = OrderedDict()
        self._cached = 0  # bytes in it
        self._identity: str | None = None
        files.tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Forget what another thread of the parent may have been in the middle of."""
        self._mutex = threading.RLock()
        self._bulk = threading.local()  # its processes answer the parent
        self._store = None

    @classmethod
    def create_private(cls, folder: Path) -> RepoPaths:
        """Make the bare store of a folder that is in no repository, durably; harmless if it exists.

        Raises:
            ReadOnlyError, StorageError: It cannot be made.
        """
        git_dir = gateway.private_git_dir(Path(os.path.realpath(folder)))
        for part in ("objects/info", "objects/pack", "refs/heads"):
            files.make_dirs(git_dir / part)
        files.write_atomic(git_dir / "config", b"[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        files.write_atomic(git_dir / "HEAD", b"ref: refs/heads/main\n")  # last: without it, it is no repository
        paths = gateway.discover(folder)
        if paths is None:
            raise CorruptError(f"`{git_dir}` was made and is not recognised")
        return paths

    # -- refs --------------------------------------------------------------------------------------------------------

    def ref(self, name: str) -> ObjectId | None:
        """Where a ref is; None if it does not exist."""
        return self._refs.read(name)

    def refs(self, prefix: str) -> dict[str, ObjectId]:
        """Every ref whose full name begins with ``prefix``, sorted."""
        return self._refs.below(prefix)

    def head(self) -> ObjectId | None:
        """The commit that is checked out; None if there is none yet."""
        return self._refs.read("HEAD")

    def head_branch(self) -> str | None:
        """Short name of the current branch (also one without commits); None on a detached HEAD."""
        name = self._refs.symbolic("HEAD")
        return None if name is None else name.removeprefix("refs/heads/")

    def refs_fingerprint(self, prefix: str = "refs/runs/") -> bytes:
        """Bytes that stay the same while no ref below ``prefix`` moves; under 1 ms, imports nothing."""
        return self._refs.fingerprint(prefix)

    # -- reading objects ---------------------------------------------------------------------------------------------

    def exists(self, oid: ObjectId) -> bool:
        """True if the object is in the store."""
        return self._try(lambda store: oid.encode("ascii") in store or None) is True  # type: ignore[operator]

    def read_commit(self, oid: ObjectId) -> CommitInfo:
        """A commit.  Raises NotFoundError, CorruptError."""
        from dulwich.objects import Commit

        data = self._raw(oid, COMMIT_TYPE)
        try:
            commit = Commit.from_string(data)
            return CommitInfo(
                ObjectId(commit.tree.decode("ascii")),
                tuple(ObjectId(parent.decode("ascii")) for parent in commit.parents),
                commit.message.decode("utf-8", "replace"),
                commit.author.decode("utf-8", "replace"),
                commit.commit_time,
            )
        except Exception as error:  # dulwich's parser fails in many ways on damaged bytes, all of which mean the same
            raise CorruptError(f"git object `{oid}` is no readable commit: {error}") from error

    def tree_of(self, commit: ObjectId) -> ObjectId:
        """The tree of a commit; the rest of what it says is not read.  Raises NotFoundError, CorruptError."""
        head = _COMMIT_HEAD.match(self._raw(commit, COMMIT_TYPE))
        if head is None:
            raise CorruptError(f"git object `{commit}` is no readable commit")
        return ObjectId(head[1].decode("ascii"))

    def read_blob(self, oid: ObjectId) -> bytes:
        """A file's content.  Raises NotFoundError, CorruptError."""
        return self._raw(oid, BLOB_TYPE)

    def read_tag(self, oid: ObjectId) -> TagInfo:
        """An annotated tag, in exactly the form that git and ``Batch.add_tag`` write.

        Raises:
            FormatError: It is no such tag, too large, or not UTF-8.
            NotFoundError, CorruptError: It cannot be read.
        """
        data = self._raw(oid, TAG_TYPE)
        if len(data) > MAX_TAG:
            raise FormatError(f"tag object `{oid}` has {len(data)} bytes, more than {MAX_TAG}")
        head = _TAG_HEAD.match(data)
        if head is None:
            raise FormatError(f"tag object `{oid}` has an unknown form")
        try:
            target, kind, name, tagger, seconds = (part.decode("utf-8") for part in head.groups())
            message = data[head.end() :].decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"tag object `{oid}` is not UTF-8") from error
        return TagInfo(ObjectId(target), kind, name, tagger, int(seconds), message)

    def list_tree(self, oid: ObjectId) -> list[tuple[str, int, ObjectId]]:
        """The (name, mode, id) of a folder's entries, in git's order.  Raises NotFoundError, CorruptError."""
        return _parse_tree(oid, self._raw(oid, TREE_TYPE))

    def lookup(self, tree: ObjectId, path: str) -> tuple[int, ObjectId] | None:
        """(mode, id) of ``path`` below a tree; None if there is no such entry.  Raises NotFoundError, CorruptError."""
        mode, oid = _FOLDER, tree
        for part in path.split("/"):
            found = _entry(oid, self._raw(oid, TREE_TYPE), part) if mode == _FOLDER else None
            if found is None:
                return None
            mode, oid = found
        return mode, oid

    # -- reading many objects ----------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[CatFile]:
        """Inside, whatever reads many objects asks one process of git, and not one for each call.  For one thread."""
        known: CatFile | None = getattr(self._bulk, "process", None)
        if known is not None:
            yield known
            return
        self._bulk.process = process = CatFile(self.program)
        try:
            yield process
        finally:
            del self._bulk.process
            process.close()

    @property
    def is_partial(self) -> bool:
        """True for a partial clone: it may lack any object, and git would try to fetch what it is asked about."""
        if self._partial is None:
            self._partial = any(self._pack_dir.glob("*.promisor"))
        return self._partial

    def headers(self, oids: Iterable[ObjectId]) -> dict[ObjectId, Header]:
        """What objects are, without reading them; missing ones not."""
        asked = list(dict.fromkeys(oids))
        if asked and self.is_partial:
            asked = [oid for oid in asked if self.exists(oid)]
        if not asked:
            return {}
        with self.reading() as git:
            return {header.oid: header for header in git.headers(asked) if header is not None}

    def headers_at(self, commits: Iterable[ObjectId], path: str) -> dict[ObjectId, Header]:
        """What many commits have at ``path``, by commit; those without are left out."""
        asked = list(dict.fromkeys(commits))
        if self.is_partial:
            return self._headers_at(asked, path)
        if not asked:
            return {}
        with self.reading() as git:
            found = git.headers([f"{oid}:{path}" for oid in asked])
        return {oid: header for oid, header in zip(asked, found, strict=True) if header is not None}

    def _headers_at(self, commits: Iterable[ObjectId], path: str) -> dict[ObjectId, Header]:
        entries: dict[ObjectId, ObjectId] = {}
        for oid in commits:
            with suppress(NotFoundError):
                if entry := self.lookup(self.tree_of(oid), path):
                    entries[oid] = entry[1]
        headers = self.headers(entries.values())
        return {oid: headers[entry] for oid, entry in entries.items() if entry in headers}

    def contents(self, headers: Iterable[Header]) -> Iterator[tuple[Header, bytes]]:
        """The bytes of many objects, of which a few megabytes, or one object, are in memory at a time."""
        group: list[ObjectId] = []
        size = 0
        rest = deque(headers)
        while rest:
            header = rest.popleft()
            group.append(header.oid)
            size += header.size
            if size >= _CONTENTS or not rest:
                with self.reading() as git:
                    found = git.contents(group)
                yield from (one for one in found if one is not None)
                group, size = [], 0

    def list_trees(self, oids: Collection[ObjectId]) -> dict[ObjectId, list[tuple[str, int, ObjectId]]]:
        """``list_tree`` of many folders.  Raises NotFoundError, CorruptError."""
        found: dict[ObjectId, list[tuple[str, int, ObjectId]]] = {}
        if len(oids) >= MANY:
            with suppress(GitError):  # which one is damaged, and how, is said below
                headers = [header for header in self.headers(oids).values() if header.kind == "tree"]
                found = {header.oid: _parse_tree(header.oid, data) for header, data in self.contents(headers)}
        return found | {oid: self.list_tree(oid) for oid in oids if oid not in found}

    def _raw(self, oid: ObjectId, kind: int) -> bytes:
        with self._mutex:
            found = self._cache.get(oid)
            if found is None:
                found = self._try(lambda store: store.get_raw(oid.encode("ascii")))  # type: ignore[arg-type]
                if found is None:
                    raise NotFoundError(f"git has no object `{oid}`", hint="run `gittrack fsck`")
                if found[0] != BLOB_TYPE and len(found[1]) <= _CACHED_SIZE:
                    self._cache[oid] = found
                    self._cached += len(found[1])
                    while len(self._cache) > _CACHED_OBJECTS or self._cached > _CACHED_BYTES:
                        self._cached -= len(self._cache.popitem(last=False)[1][1])
        if found[0] != kind:
            raise CorruptError(f"git object `{oid}` is no {_TYPE_NAMES[kind]}")
        return found[1]

    def _try(self, read: Callable[[DiskObjectStore], T | None]) -> T | None:
        """What ``read`` finds; None if the object is missing.

        A second look follows every failure, because git may be moving objects from loose files to packs or from pack
        to pack just now.
        """
        with self._mutex:
            try:
                found = read(self._open())
                if found is not None:
                    return found
            except KeyError:
                pass  # the second look decides
            except Exception:  # noqa: BLE001 - whatever it was, it counts only if it happens again below
                _log.debug("reading an object failed, trying again", exc_info=True)
                self.close()
            try:
                return read(self._open())
            except KeyError:
                return None
            except OSError as error:
                raise files.failure(error, self.paths.common_dir / "objects", "read") from error
            except Exception as error:  # dulwich has no common base for what damaged bytes lead to
                raise CorruptError(f"a git object cannot be read: {error or type(error).__name__}") from error

    def _open(self) -> DiskObjectStore:
        if self._store is None:
            from dulwich.object_format import get_object_format
            from dulwich.object_store import DiskObjectStore

            self._store = DiskObjectStore(
                self.paths.common_dir / "objects", object_format=get_object_format(self.paths.object_format)
            )
        return self._store

    def close(self) -> None:
        """Close the packs; the next use opens them again."""
        process: CatFile | None = getattr(self._bulk, "process", None)
        if process is not None:
            process.close()
        with self._mutex:
            if self._store is not None:
                self._store.close()
            self._store = None
            self._partial = None

    def __del__(self) -> None:
        # dulwich warns about packs that are left to the garbage collector.
        if getattr(self, "_store", None) is not None:
            self.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def batch(self) -> Batch:
        """A new, empty batch for this repository's object format."""
        from dulwich.object_format import get_object_format

        return Batch(get_object_format(self.paths.object_format))

    def publish(self, batch: Batch, updates: Iterable[RefUpdate]) -> None:
        """Put the batch and then the refs on disk: all of them, or none of the refs.

        Args:
            batch: Objects to write; may be empty.
            updates: Refs to move; each new value must be in the batch or in the store.

        Raises:
            ConflictError: A ref was not at its ``old``; nothing changed.
            LockedError: A ref was locked for too long; nothing changed.
            NotFoundError: A new value is nowhere.
            ReadOnlyError, StorageError: The system refused.
        """
        moves = list(updates)
        self._require([m.new for m in moves if m.new is not None and m.new not in batch])
        pack = batch.write(self._pack_dir) if len(batch) else None
        try:
            with self._writers_lock():
                self._move(moves)
        except BaseException:
            if pack is not None and not self._any_moved(moves):
                pack.discard()
            raise
        if pack is not None:
            self._confirm(batch, pack)
        self._require([m.new for m in moves if m.new is not None and m.new not in batch])

    def _move(self, moves: list[RefUpdate]) -> None:
        try:
            self._refs.update(moves)
        except LockedError:
            # The holder is no gittrack (we have the writers' lock), and git holds a ref for milliseconds.
            if not self._heal(10.0):
                raise
            self._refs.update(moves)

    def _any_moved(self, moves: list[RefUpdate]) -> bool:
        """True if a ref names a new object although moving failed, or may: then what it names must stay.

        The rename of a ref can have happened when putting it on disk fails.
        """
        try:
            return any(move.new is not None and self._refs.read(move.name) == move.new for move in moves)
        except GittrackError:  # it cannot be told, so nothing is thrown away
            return True

    def _confirm(self, batch: Batch, pack: PackOnDisk) -> None:
        """Make sure that the pack is still there now that refs name its objects; write it again if it is not.

        git honours ``.keep``; other programs that tidy repositories may not.
        """
        for _ in range(3):
            if pack.is_whole():
                pack.release()
                return
            pack = batch.write(self._pack_dir)
        raise CorruptError(f"something removes new packs from `{self._pack_dir}`", hint="run `gittrack fsck`")

    def _require(self, oids: Iterable[ObjectId]) -> None:
        for oid in oids:
            if not self.exists(oid):
                raise NotFoundError(f"git has no object `{oid}`", hint="run `gittrack fsck`")

    def _writers_lock(self) -> files.FileLock:
        """Held by every gittrack process that moves refs: who holds it knows that a stale ``*.lock`` is nobody's."""
        return files.FileLock(self.paths.common_dir / "gittrack.mutex", timeout=60)

    def heal_locks(self, max_age_s: float = 10) -> list[str]:
        """Remove what dead processes left: ``*.lock`` of gittrack's refs, ``.keep`` of its packs, temporary packs.

        Args:
            max_age_s: Locks that young may be git's, at work.

        Returns:
            Paths removed, relative to the git folder.
        """
        with self._writers_lock():
            removed = self._heal(max_age_s)
        for path in stale_keeps(self._pack_dir):
            files.discard(path)
            removed.append(str(path.relative_to(self.paths.common_dir)))
        files.sweep_temps(self._pack_dir, 3600)
        return removed

    def _heal(self, max_age_s: float) -> list[str]:
        removed: list[str] = []
        for path in self._refs.stale_locks(max_age_s):
            files.remove(path)
            removed.append(str(path.relative_to(self.paths.common_dir)))
            _log.warning("gittrack: removed `%s`, left behind by a process that died", path)
        return removed

    # -- pins --------------------------------------------------------------------------------------------------------

    def pin(self, oid: ObjectId, batch: Batch | None = None) -> str:
        """Keep a commit and all it reaches alive; the name of the ref that does.  Idempotent.

        Args:
            oid: In the store, or in ``batch``.
            batch: Published together with the pin, if the pin is new.
        """
        name = PIN_PREFIX + oid
        with self._writers_lock():
            if self._refs.read(name) == oid and self.exists(oid):
                self._refs.touch(name, oid)
                return name
        try:
            self.publish(batch if batch is not None else self.batch(), [RefUpdate(name, None, oid)])
        except ConflictError:
            if self._refs.read(name) != oid:  # else another process was quicker with the same
                raise
        return name

    def unpin(self, names: Iterable[str]) -> None:
        """Remove pins; unknown names are passed over."""
        with self._writers_lock():
            self._drop_pins(set(names))

    def unpin_except(self, names: Iterable[str], *, grace_s: float = PIN_GRACE_S) -> None:
        """Remove every pin but ``names`` and those that were made or asked for in the last ``grace_s`` seconds."""
        if not self._refs.below(PIN_PREFIX):
            return
        with self._writers_lock():
            young = self._refs.younger_than(PIN_PREFIX, time.time() - grace_s)
            self._drop_pins(set(self._refs.below(PIN_PREFIX)) - set(names) - young)

    def _drop_pins(self, names: set[str]) -> None:
        pins = self._refs.below(PIN_PREFIX)
        self._refs.update([RefUpdate(name, pins[name], None) for name in names if name in pins])

    # -- ledgers (see store.ledger) ----------------------------------------------------------------------------------

    def ledger_read(self, commit: ObjectId) -> Iterator[tuple[RunId, ObjectId]]:
        """Every (run id, run commit) of a ledger."""
        return ledger.read(self, commit)

    def ledger_lookup(self, commit: ObjectId, run_id: str) -> ObjectId | None:
        """The run commit of one run in a ledger; None if it is not in it."""
        return ledger.find(self, commit, run_id)

    def ledger_lookup_many(
        self, commit: ObjectId, wanted: Mapping[str, Collection[str]]
    ) -> Iterator[tuple[RunId, ObjectId]]:
        """(run id, run commit) of those of these runs (``ledger.by_folder``) that are in a ledger."""
        return ledger.find_many(self, commit, wanted)

    def ledger_diff(
        self, old: ObjectId | None, new: ObjectId | None
    ) -> Iterator[tuple[RunId, ObjectId | None, ObjectId | None]]:
        """(run id, old, new) of every run that differs between two ledger commits."""
        return ledger.diff(self, old, new)

    def ledger_blob(self, commit: ObjectId, name: str) -> bytes | None:
        """A file at the root of a ledger; None if there is none."""
        return ledger.blob(self, commit, name)

    def ledger_build(
        self,
        batch: Batch,
        old: ObjectId | None,
        changes: Mapping[str, ObjectId | None],
        files: Mapping[str, bytes | None],
        message: str,
        *,
        author: str,
        time_s: int,
    ) -> ObjectId:
        """Add the ledger commit that follows ``old`` to the batch; see ``store.ledger.build``."""
        return ledger.build(
            self, batch, old, changes=changes, files=files, message=message, author=author, time_s=time_s
        )

    # -- housekeeping ------------------------------------------------------------------------------------------------

    def identity(self) -> str:
        """``Name <mail>`` of whoever works here, from git's config; made from user and host if git knows none."""
        if self._identity is None:
            try:
                found = self.program.call("var", "GIT_AUTHOR_IDENT", timeout=10)
            except GittrackError as error:  # no git program, or a repository it does not trust: not needed for a name
                _log.debug("git cannot tell who the user is: %s", error)
                found = gateway.Result(1, b"", b"")
            line = found.stdout.decode("utf-8", "replace")
            self._identity = line[: line.rfind(">") + 1] if found.status == 0 and ">" in line else _fallback_identity()
        return self._identity

    def maintain(self) -> None:
        """Merge packs when there are many, and the files of tags; removes no object, and is only logged if it fails."""
        if self._refs.count_loose("refs/tags/") > MAX_LOOSE:  # a registry looks at all of its tags each time
            try:
                self.program.run("pack-refs")  # tags, and what was packed before: what moves stays a file
                files.sync_dir(self.paths.common_dir)
            except GittrackError as error:
                _log.warning("gittrack: tags could not be packed: %s", error)
        names = [path.name for path in self._pack_dir.iterdir()] if self._pack_dir.is_dir() else []
        packs = [name for name in names if name.endswith(".pack")]
        if len(packs) <= MAX_PACKS or any(name.endswith(".promisor") for name in names):
            return  # git before 2.44 forgets which objects a partial clone may fetch later when it merges their packs
        self.close()  # where files in use cannot be removed
        try:
            self.program.run("repack", "--geometric=2", "-d", "-q", "--no-write-bitmap-index")
            files.sync_dir(self._pack_dir)
        except GittrackError as error:
            _log.warning("gittrack: packs could not be merged: %s", error)

    def fsck(self) -> list[str]:
        """What ``git fsck --strict`` finds wrong, one line each; empty if all is well."""
        found = self.program.call("fsck", "--strict", "--no-dangling", "--no-progress")
        lines = (found.stdout + found.stderr).decode("utf-8", "replace").splitlines()
        problems = [line for line in lines if line and not line.startswith(("notice:", "Checking "))]
        return problems or ([f"git fsck ended with status {found.status}"] if found.status else [])


def _entry(tree: ObjectId, data: bytes, name: str) -> tuple[int, ObjectId] | None:
    """(mode, id) of one entry of a folder; None if there is none.

    The others are not taken apart: a folder may have thousands, and who looks for a run looks at every ledger.
    """
    size = len(tree) // 2
    key = b" " + encode_name(name) + b"\0"
    at = data.find(key)
    while at >= 0:
        end = at + len(key) + size
        for mode in (data[at - digits : at] for digits in (5, 6) if at >= digits):
            # The same bytes may be in an id: it is an entry only if there are whole entries before it.
            if mode.isdigit() and _ENTRIES[size].fullmatch(data, 0, at - len(mode)) and end <= len(data):
                return int(mode, 8), ObjectId(data[end - size : end].hex())
        at = data.find(key, at + 1)
    return None


def _parse_tree(oid: ObjectId, data: bytes) -> list[tuple[str, int, ObjectId]]:
    from dulwich.objects import parse_tree

    try:
        return [
            (decode_name(name), mode, ObjectId(sha.decode("ascii")))
            for name, mode, sha in parse_tree(data, sha_len=len(oid) // 2)
        ]
    except Exception as error:  # dulwich's parser fails in many ways on damaged bytes, all of which mean the same
        raise CorruptError(f"git object `{oid}` is no readable tree: {error}") from error


def _fallback_identity() -> str:
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a passwd entry
        user = "unknown"
    return f"{user} <{user}@{socket.gethostname() or 'localhost'}>"


__all__ = ["Batch", "CommitInfo", "GitStore", "Header", "RefUpdate", "TagInfo"]
