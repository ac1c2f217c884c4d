"""The code that a run ran, read from git: its files, what of them was not committed, and how it differs from another's.

What is asked for is small by its nature (a page shows it), and what is too large for that is said instead of read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from gittrack.errors import CorruptError, InvalidValueError, NotFoundError, TooLargeError
from gittrack.store import layout
from gittrack.track import compare
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.types import Run

MAX_FILE: Final = 1 << 20  #: bytes of a file that is shown, or compared with another
_SECONDS: Final = 30.0  #: that git may take for a comparison
_FOLDER, _LINK, _SUBMODULE = 0o040000, 0o120000, 0o160000
_NO_BLOB: Final = (0, _SUBMODULE)
_RAW: Final = re.compile(r":(\d+) (\d+) ([0-9a-f]+) ([0-9a-f]+) ([A-Z])\d*")


class Change(NamedTuple):
    """One file that differs.

    Attributes:
        path: Where it is; where it was, if it is gone.
        status: git's letter: ``A`` added, ``D`` gone, ``M`` changed, ``R`` moved, ``T`` another kind.
        old_path: Where it was, if it moved.
        added: Lines that came; None if it is no text.
        deleted: Lines that went.
        blobs: What was there and what is there, where that is a file.
    """

    path: str
    status: str
    old_path: str | None
    added: int | None
    deleted: int | None
    blobs: tuple[ObjectId, ...]


class Entry(NamedTuple):
    """One entry of a folder: ``kind`` is ``folder``, ``file``, ``link`` or ``submodule``."""

    name: str
    kind: str
    oid: ObjectId


class Text(NamedTuple):
    """A file: its text, None if it is none or too large to be shown; ``kind`` is as that of an entry."""

    kind: str
    size: int
    text: str | None


def base_of(repo: Repo, run: Run) -> str:
    """What a run's code is compared with to see what was not committed: its code commit, or nothing before the first.

    Raises:
        NotFoundError: It is not here, or it is not what the run's commit builds on.
    """
    commit = run.code.get("commit")
    if not commit:
        return compare.empty_tree(repo)
    base = ObjectId(str(commit))
    absent = NotFoundError(f"the commit `{base:.12}` that the run started on is not in this clone")
    try:
        # A record may name any commit; what leads to it is what was checked when the run came here.
        known = run.commit is None or repo.is_ancestor(base, run.commit)
    except (NotFoundError, CorruptError):
        raise absent from None
    if not known or not repo.git.exists(base):
        raise absent
    return base


def changes(repo: Repo, a: str, b: str, paths: Sequence[str] = ()) -> list[Change]:
    """The files that differ between two tree-ishes, in git's order.

    Args:
        repo: Where they are.
        a: What was.
        b: What is.
        paths: Only these.

    Raises:
        GitError: git cannot compare them, or not in time.
    """
    options = ("--raw", "--numstat", "--no-abbrev", "-z")
    parts = iter(compare.tree_diff(repo, a, b, options=options, paths=paths, timeout=_SECONDS).split(b"\0"))
    found: list[Change] = []
    lines: dict[str, tuple[int | None, int | None]] = {}
    for part in parts:
        if match := _RAW.fullmatch(part.decode("ascii", "replace")):
            modes, oids, status = match.group(1, 2), match.group(3, 4), match[5]
            first = _shown(next(parts))
            path, old = (_shown(next(parts)), first) if status == "R" else (first, None)
            blobs = (ObjectId(oid) for mode, oid in zip(modes, oids, strict=True) if int(mode, 8) not in _NO_BLOB)
            found.append(Change(path, status, old, None, None, tuple(blobs)))
        elif part:
            added, deleted, name = part.split(b"\t", 2)
            if not name:  # it moved: both names follow
                next(parts)
                name = next(parts)
            lines[_shown(name)] = _number(added), _number(deleted)
    for place, one in enumerate(found):
        added_lines, deleted_lines = lines.get(one.path, (None, None))
        found[place] = one._replace(added=added_lines, deleted=deleted_lines)
    return found


def patch(repo: Repo, a: str, b: str, path: str, old_path: str | None = None) -> str:
    """How one file differs, as `git diff` shows it; empty if it does not.

    Args:
        repo: Where both are.
        a: What was.
        b: What is.
        path: The file.
        old_path: Where it was, if it moved.

    Raises:
        InvalidValueError: What can be no path.
        TooLargeError: It is too large to be shown.
        GitError: git cannot compare the two, or not in time.
    """
    paths = [path] if old_path is None else [old_path, path]
    for one in paths:
        if "\0" in one or any(part in ("", ".", "..") for part in one.split("/")):
            raise InvalidValueError("Invalid path")
    found = changes(repo, a, b, paths)
    blobs = [oid for one in found if one.added is not None for oid in one.blobs]
    if any(one.size > MAX_FILE for one in repo.git.headers(blobs).values()):
        raise TooLargeError(
            f"`{path}` has more than {MAX_FILE >> 20} MiB, too much to be compared here",
            hint="`gittrack diff` shows all of it",
        )
    return compare.tree_diff(repo, a, b, paths=paths, timeout=_SECONDS).decode("utf-8", "replace") if found else ""


def entries(repo: Repo, run: Run, folder: str = "") -> list[Entry]:
    """What is in a folder of the run's code, folders first.

    Raises:
        NotFoundError: The run has no code, or there is no such folder.
    """
    mode, oid = _lookup(repo, run, folder)
    if mode != _FOLDER:
        raise NotFoundError(f"the code of run `{run.info.run_id}` has no folder `{folder}`")
    return sorted(_entries(repo, oid, folder), key=lambda one: (one.kind != "folder", one.name))


def _entries(repo: Repo, oid: ObjectId, folder: str) -> Iterator[Entry]:
    for name, mode, entry in repo.git.list_tree(oid):
        if folder or name != layout.FOLDER:
            yield Entry(_shown(name.encode("utf-8", "surrogateescape")), _kind(mode), entry)


def read(repo: Repo, run: Run, path: str) -> Text:
    """One file of the run's code.

    Raises:
        NotFoundError: The run has no code, or there is no such file.
    """
    mode, oid = _lookup(repo, run, path)
    kind = _kind(mode)
    if kind == "folder":
        raise NotFoundError(f"the code of run `{run.info.run_id}` has no file `{path}`")
    if kind == "submodule":
        return Text(kind, 0, oid)
    header = repo.git.headers([oid]).get(oid)
    if header is None:
        raise NotFoundError(f"`{path}` is not in this clone")
    if header.size > MAX_FILE:
        return Text(kind, header.size, None)
    data = repo.git.read_blob(oid)
    return Text(kind, len(data), None if b"\0" in data else data.decode("utf-8", "replace"))


def _lookup(repo: Repo, run: Run, path: str) -> tuple[int, ObjectId]:
    code = compare.code_tree(run)
    if code is None:
        raise NotFoundError(f"run `{run.info.run_id}` carries no code")
    oid = ObjectId(code)
    # A tree stands in for a commit where a run has none yet.
    tree = oid if run.commit is None and code == run.code.get("tree") else repo.git.tree_of(oid)
    if not path:
        return _FOLDER, tree
    found = None if path.partition("/")[0] == layout.FOLDER else repo.git.lookup(tree, path)
    if found is None:
        raise NotFoundError(f"the code of run `{run.info.run_id}` has no `{path}`")
    return found


def _kind(mode: int) -> str:
    return {_FOLDER: "folder", _LINK: "link", _SUBMODULE: "submodule"}.get(mode, "file")


def _number(text: bytes) -> int | None:
    return None if text == b"-" else int(text)


def _shown(name: bytes) -> str:
    """A name as text; bytes that are none are written out."""
    return name.decode("utf-8", "backslashreplace")


def history(repo: Repo, run_id: str, most: int) -> list[tuple[ObjectId, int]]:
    """The commits of a run and when each was made (seconds), newest first: what was changed in it later made new ones.

    Args:
        repo: Where the run is.
        run_id: The run.
        most: Return so many.

    Raises:
        CorruptError, NotFoundError: One cannot be read.
    """
    todo, found = list(repo.revisions(run_id)), dict[ObjectId, int]()
    while todo and len(found) < most:
        oid = todo.pop(0)
        if oid in found or not repo.is_run_commit(oid):
            continue
        commit = repo.git.read_commit(oid)
        found[oid] = commit.time
        todo.extend(commit.parents)
    return sorted(found.items(), key=lambda one: -one[1])
