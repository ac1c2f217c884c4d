"""The code a run starts from, exactly as it lies on the disk, taken without touching anything of the user's.

One ``git status`` (which is told not to write) lists what differs between HEAD, index and work tree; the new tree is
HEAD's with those entries replaced.  Files become blobs through ``git hash-object``, so that the user's own filters and
line endings apply, in a temporary object folder; blobs, trees and a commit then go into the repository as one pack
together with the ref that keeps them alive.  Index, HEAD, work tree, stash and config are only ever read, and no
temporary index is needed, for a clean tree costs one process and a changed one two.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from gittrack.errors import CorruptError, GitError, GittrackError
from gittrack.store import gateway
from gittrack.store.gateway import RepoPaths
from gittrack.store.git import Batch, GitStore
from gittrack.store.pack import BLOB_TYPE, decode_name
from gittrack.types import ObjectId

_FOLDER: Final = 0o040000
_FILE: Final = 0o100644
_PROGRAM: Final = 0o100755
_LINK: Final = 0o120000
_SUBMODULE: Final = 0o160000

_MIB: Final = 1 << 20
_SNIFF: Final = 8192  #: bytes that tell text from data, as git judges by
#: What a run's record lists one by one.
MAX_LISTED: Final = 200
#: Author of the commit that holds a changed tree; fixed, like its time, so that equal trees give one commit.
_AUTHOR: Final = "gittrack <gittrack@localhost>"
_MESSAGE: Final = "Working tree at the start of a run\n"

#: (path, what it holds) → why it looks like a secret; None if it does not.
SecretTest = Callable[[str, bytes], "str | None"]


def _no_secrets(path: str, content: bytes) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Policy:
    """How much of the working tree a run carries.

    Attributes:
        full: Take uncommitted changes; False records only the commit and whether there were any.
        max_untracked_bytes: Largest new file taken.
        max_untracked_total: All new files together, in bytes.
        max_untracked_files: How many new files are taken; ten times as many are looked at.
        max_tracked_bytes: Largest blob taken from a changed file that git tracks; git hosts refuse larger ones.
        looks_secret: Judges every file that HEAD does not have.
        timeout_s: Seconds after which a git that does not come back is given up.
    """

    full: bool = True
    max_untracked_bytes: int = _MIB
    max_untracked_total: int = 20 * _MIB
    max_untracked_files: int = 1000
    max_tracked_bytes: int = 100 * _MIB
    looks_secret: SecretTest = _no_secrets
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class CodeState:
    """What code a run started from.  Paths are relative to the work tree, with ``/``, and printable.

    Attributes:
        commit: The commit that was checked out; None if there was none yet.
        tree: The files as they were; None if there are none at all.
        branch: Name of the branch; None on a detached HEAD.
        dirty: ``tree`` differs from the commit's, or would if nothing had been left out of tracked files.
        detached: HEAD named a commit, not a branch.
        remote_url: Where the code comes from, without credentials; None if the clone has no remote.
        untracked_taken: New files that are in ``tree`` though git does not track them.
        left_out: (path, why) of changed and new files that are not in ``tree`` as they were; of very many only the
            first, and under ``.`` how many more.
        submodules: (path, commit) of submodules that are at another commit than HEAD says.
        pin: The ref that keeps commit and tree alive until ``GitStore.unpin``; None if there is nothing to keep.
        shallow: History was cut off.
    """

    commit: ObjectId | None
    tree: ObjectId | None
    branch: str | None
    dirty: bool
    detached: bool
    remote_url: str | None
    untracked_taken: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    submodules: tuple[tuple[str, str], ...] = ()
    pin: str | None = None
    shallow: bool = False


def capture(paths: RepoPaths, git: GitStore, policy: Policy) -> CodeState:
    """Take and pin the state of the code.

    Args:
        paths: The repository.
        git: Its objects and refs.
        policy: How much to take.

    Raises:
        GitError: git failed or took too long.
        StorageError, ReadOnlyError: The state cannot be kept.
    """
    if paths.work_tree is None:
        return _of_head(paths, git)
    for _ in range(3):
        taken = _Capture(paths, paths.work_tree, git, policy)
        state = taken.run()
        if all(git.exists(oid) for oid in taken.borrowed):
            return state
    raise GitError("git's garbage collection keeps removing objects of the index while code is captured")


def _of_head(paths: RepoPaths, git: GitStore) -> CodeState:
    """The state where there is no work tree: what HEAD names."""
    commit = git.head()
    if commit is not None and not git.exists(commit):
        commit = None
    branch = git.head_branch()
    return CodeState(
        commit=commit,
        tree=None if commit is None else git.tree_of(commit),
        branch=branch,
        dirty=False,
        detached=branch is None,
        remote_url=gateway.remote_url(paths, branch),
        pin=None if commit is None else git.pin(commit),
        shallow=paths.shallow,
    )


class _Entry(NamedTuple):
    """A tracked path that differs somewhere between HEAD, index and work tree."""

    path: bytes
    in_head: bool
    mode: int  #: in the work tree; 0: absent
    staged: tuple[int, ObjectId] | None  #: mode and blob of the index if the work tree agrees with it
    submodule: str  #: git's four letters: `N...`, or `S` and what changed


@dataclass(slots=True)
class _Status:
    commit: ObjectId | None = None
    branch: str | None = None
    entries: list[_Entry] = field(default_factory=list)
    untracked: list[bytes] = field(default_factory=list)


class _Node:
    """A folder of the new tree, as far as it differs: entries to replace (None: remove) and folders to go into."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[int, ObjectId] | None] = {}
        self.folders: dict[str, _Node] = {}

    def put(self, path: bytes, entry: tuple[int, ObjectId] | None) -> None:
        *folders, name = decode_name(path).split("/")
        node = self
        for folder in folders:
            node = node.folders.setdefault(folder, _Node())
        node.entries[name] = entry


class _Capture:
    """One attempt at capturing a work tree."""

    def __init__(self, paths: RepoPaths, work_tree: Path, git: GitStore, policy: Policy) -> None:
        self._paths = paths
        self._root = work_tree
        self._git = git
        self._policy = policy
        self._batch: Batch = git.batch()
        self._changes = _Node()
        self._left_out: list[tuple[str, str]] = []
        self._submodules: list[tuple[str, str]] = []
        #: Objects of the index that the new tree names: only the pin keeps them once the user resets the index.
        self.borrowed: list[ObjectId] = []

    def run(self) -> CodeState:
        status = self._status()
        base = None if status.commit is None else self._git.read_commit(status.commit)
        taken: list[bytes] = []
        tree = None if base is None else base.tree
        if self._policy.full and (status.entries or status.untracked):
            files = self._sort_entries(status.entries)
            taken = self._select(status.untracked)
            self._add_files({**files, **{path: self._mode(path) for path in taken}})
            tree = self._build(tree, self._changes)
        dirty = bool(status.entries) or (base.tree if base else None) != tree
        return CodeState(
            commit=status.commit,
            tree=tree,
            branch=status.branch,
            dirty=dirty,
            detached=status.branch is None,
            remote_url=gateway.remote_url(self._paths, status.branch),
            untracked_taken=tuple(_shown(path) for path in taken),
            left_out=_listed(self._left_out),
            submodules=tuple(self._submodules),
            pin=self._pin(status.commit, None if base is None else base.tree, tree, 0 if base is None else base.time),
            shallow=self._paths.shallow,
        )

    def _pin(self, commit: ObjectId | None, base: ObjectId | None, tree: ObjectId | None, time_s: int) -> str | None:
        if tree is None:
            return None
        if commit is not None and tree == base:
            return self._git.pin(commit)
        parents = [] if commit is None else [commit]
        return self._git.pin(self._batch.add_commit(tree, parents, _MESSAGE, _AUTHOR, time_s), self._batch)

    # -- what differs ------------------------------------------------------------------------------------------------

    def _status(self) -> _Status:
        out = self._git.program.run(
            "status",
            "--porcelain=v2",
            "-z",
            "--branch",
            "--no-ahead-behind",
            "--no-renames",
            "--ignore-submodules=none",
            f"--untracked-files={'all' if self._policy.full else 'no'}",
            "--",
            ":(top)",
            ":(top,exclude).gittrack",
            timeout=self._policy.timeout_s,
        )
        status = _Status()
        for record in out.split(b"\0"):
            kind, _, rest = record.partition(b" ")
            if kind == b"#":
                key, _, value = rest.decode("utf-8", "surrogateescape").partition(" ")
                if key == "branch.oid" and value != "(initial)":
                    status.commit = ObjectId(value)
                elif key == "branch.head" and value != "(detached)":
                    status.branch = value
            elif kind == b"1":
                xy, sub, head, index, work, _, oid, path = rest.split(b" ", 7)
                staged, mode = None, int(work, 8)
                if xy.endswith(b"."):  # the work tree agrees with the index
                    mode = int(index, 8)
                    staged = (mode, ObjectId(oid.decode())) if mode else None
                status.entries.append(_Entry(path, int(head, 8) != 0, mode, staged, sub.decode()))
            elif kind == b"u":
                _, sub, *modes, _, _, _, path = rest.split(b" ", 9)
                status.entries.append(_Entry(path, True, int(modes[3], 8), None, sub.decode()))
            elif kind == b"?":
                status.untracked.append(rest)
        return status

    def _sort_entries(self, entries: Iterable[_Entry]) -> dict[bytes, int]:
        """Put what needs no reading into the changes; the files that must become blobs, with their modes."""
        files: dict[bytes, int] = {}
        for entry in entries:
            if entry.submodule.startswith("S"):
                self._add_submodule(entry)
            elif not entry.in_head and entry.mode and self._is_secret(entry):
                self._changes.put(entry.path, None)
            elif entry.staged is not None:
                self._changes.put(entry.path, entry.staged)
                self.borrowed.append(entry.staged[1])
            elif entry.mode == 0:
                self._changes.put(entry.path, None)
            else:
                files[entry.path] = entry.mode
        return files

    def _add_submodule(self, entry: _Entry) -> None:
        if entry.mode == 0:
            self._changes.put(entry.path, None)
            return
        commit = entry.staged[1] if entry.staged is not None else self._submodule_head(entry.path)
        if commit is None:
            self._left_out.append((_shown(entry.path), "submodule without a commit"))
            return
        if "M" in entry.submodule or "U" in entry.submodule:
            self._left_out.append((_shown(entry.path), "uncommitted changes inside a submodule"))
        self._submodules.append((_shown(entry.path), commit))
        self._changes.put(entry.path, (_SUBMODULE, commit))

    def _submodule_head(self, path: bytes) -> ObjectId | None:
        try:
            found = gateway.discover(os.fsdecode(self._full(path)))
            return None if found is None or found.git_dir == self._paths.git_dir else GitStore(found).head()
        except GittrackError:  # a broken submodule must not stop the run; it is reported as left out
            return None

    # -- new files ---------------------------------------------------------------------------------------------------

    def _select(self, untracked: Iterable[bytes]) -> list[bytes]:
        """The new files that the policy takes, shallow ones first if not all fit; the others are noted with the reason.

        A folder full of data must not cost its reading: there is an end to how many files are looked at.
        """
        taken: list[bytes] = []
        room = self._policy.max_untracked_total
        most = self._policy.max_untracked_files
        for number, path in enumerate(sorted(untracked, key=lambda path: (path.count(b"/"), path))):
            if len(taken) < most and number < 10 * most:
                reason, size = self._judge(path, room)
            else:
                reason, size = "too many new files", 0
            if reason is None:
                taken.append(path)
                room -= size
            else:
                self._left_out.append((_shown(path), reason))
        return sorted(taken)

    def _judge(self, path: bytes, room: int) -> tuple[str | None, int]:
        """(why a new file is not taken, its size)."""
        limit = self._policy.max_untracked_bytes
        if path.endswith(b"/"):
            return "a repository of its own", 0
        try:
            found = self._full(path).lstat()
            if stat.S_ISLNK(found.st_mode):
                return self._policy.looks_secret(_shown(path), b""), found.st_size
            if not stat.S_ISREG(found.st_mode):
                return "not a regular file", 0
            if found.st_size > limit:
                return f"larger than {_amount(limit)}", 0
            if found.st_size > room:
                return f"new files larger than {_amount(self._policy.max_untracked_total)} together", 0
            content = self._content(path, _SNIFF)
            if b"\0" not in content and len(content) == _SNIFF:
                content = self._content(path, limit)
        except OSError as error:
            return f"cannot be read: {error.strerror}", 0
        if b"\0" in content:
            return "not text", 0
        return self._policy.looks_secret(_shown(path), content), len(content)

    def _is_secret(self, entry: _Entry) -> bool:
        """Whether a file that was added to the index, but never committed, must stay out; noted if so."""
        path = entry.path
        try:
            content = b"" if entry.mode == _LINK else self._content(path, self._policy.max_untracked_bytes)
        except OSError:  # it is not there to be taken either
            content = b""
        reason = self._policy.looks_secret(_shown(path), content)
        if reason is not None:
            self._left_out.append((_shown(path), reason))
        return reason is not None

    def _content(self, path: bytes, limit: int) -> bytes:
        """The first ``limit`` bytes of a file; never through a symlink, never waiting for a pipe."""
        fd = os.open(self._full(path), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(fd, "rb") as file:
            return file.read(limit)

    def _full(self, path: bytes) -> Path:
        return self._root / os.fsdecode(path)

    def _mode(self, path: bytes) -> int:
        """The mode git would give a new file."""
        mode = self._full(path).lstat().st_mode
        if stat.S_ISLNK(mode):
            return _LINK
        return _PROGRAM if mode & stat.S_IXUSR and os.name != "nt" else _FILE

    def _link(self, path: bytes) -> bytes:
        """What a symlink says; where the file system has none, git keeps it as a file."""
        full = self._full(path)
        return os.fsencode(full.readlink()) if full.is_symlink() else self._content(path, _SNIFF)

    # -- blobs and trees ---------------------------------------------------------------------------------------------

    def _add_files(self, files: dict[bytes, int]) -> None:
        """Make blobs of the files and symlinks and note them as changes."""
        for path in [path for path, mode in files.items() if mode == _LINK]:
            self._changes.put(path, (files.pop(path), self._batch.add_blob(self._link(path))))
        if not files:
            return
        # Not a TemporaryDirectory: that removes itself when the program ends, while git may still be writing into it.
        folder = Path(tempfile.mkdtemp(prefix="gittrack-"))
        try:
            for path, oid in self._hash(list(files), folder):
                content = self._blob(folder, oid)
                if content is None:
                    self._left_out.append((_shown(path), f"larger than {_amount(self._policy.max_tracked_bytes)}"))
                else:
                    self._batch.add_raw(BLOB_TYPE, content)
                    self._changes.put(path, (files[path], oid))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _hash(self, paths: list[bytes], folder: Path) -> Iterator[tuple[bytes, ObjectId]]:
        """Have git write the files as blobs below ``folder``; a file that it cannot read is noted and passed over."""
        env = {
            "GIT_OBJECT_DIRECTORY": str(folder),
            # attributes and line endings may depend on what is committed
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted_path(self._paths.common_dir / "objects"),
        }
        found = self._git.program.call(
            *("-c", "core.fsync=none", "hash-object", "-w", "--stdin-paths"),
            input=b"".join(_quoted(path) + b"\n" for path in paths),
            env=env,
            timeout=self._policy.timeout_s,
        )
        oids = found.stdout.decode("ascii", "replace").split()
        if found.status == 0 and len(oids) == len(paths):
            yield from zip(paths, map(ObjectId, oids), strict=True)
        elif len(paths) == 1:
            self._not_hashed(paths[0])
        else:
            middle = len(paths) // 2
            yield from self._hash(paths[:middle], folder)
            yield from self._hash(paths[middle:], folder)

    def _not_hashed(self, path: bytes) -> None:
        if os.path.lexists(self._full(path)):
            self._left_out.append((_shown(path), "git cannot read it"))
        else:  # removed since `git status` saw it
            self._changes.put(path, None)

    def _blob(self, folder: Path, oid: ObjectId) -> bytes | None:
        """A blob's content; None if it is too large.

        One that git already had is not in the temporary folder: it is copied all the same, because nothing may keep
        it alive.
        """
        limit = self._policy.max_tracked_bytes
        try:
            packed = (folder / oid[:2] / oid[2:]).read_bytes()
        except FileNotFoundError:
            if any((folder / "pack").glob("*.pack")):  # only files beyond core.bigFileThreshold are packed at once
                return None
            content = self._git.read_blob(oid)
            return content if len(content) <= limit else None
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed, limit + 64)
        header, found, content = data.partition(b"\0")
        if not found or not header.startswith(b"blob "):
            raise CorruptError(f"git wrote `{oid}` as something that is no blob")
        return content if len(content) == int(header[5:]) and len(content) <= limit else None

    def _build(self, base: ObjectId | None, node: _Node) -> ObjectId | None:
        """The tree ``base`` with the changes of ``node``; None if nothing is left in it."""
        table = {} if base is None else {name: (mode, oid) for name, mode, oid in self._git.list_tree(base)}
        for name, entry in node.entries.items():
            if entry is None:
                table.pop(name, None)
            else:
                table[name] = entry
        for name, folder in node.folders.items():
            mode, oid = table.get(name, (_FOLDER, None))
            built = self._build(oid if mode == _FOLDER else None, folder)
            if built is not None:
                table[name] = (_FOLDER, built)
            elif mode == _FOLDER:
                table.pop(name, None)
        if not table:
            return None
        return self._batch.add_tree((name, mode, oid) for name, (mode, oid) in table.items())


def _quoted(path: bytes) -> bytes:
    """A path for a list with one per line."""
    if b"\n" not in path and not path.startswith(b'"'):
        return path
    return b'"' + path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'


def _quoted_path(path: Path) -> str:
    """A path for a list that is separated by colons."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if os.pathsep in text or '"' in text else str(path)


def _listed(left_out: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What was left out, sorted; of very many, the first and how many more there are."""
    ordered = sorted(left_out)
    more = len(ordered) - MAX_LISTED
    return tuple(ordered) if more <= 0 else (*ordered[:MAX_LISTED], (".", f"and {more} more files"))


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _amount(size: int) -> str:
    return f"{size / _MIB:g} MiB" if size >= _MIB else f"{size} bytes"
