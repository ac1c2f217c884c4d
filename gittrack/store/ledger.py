"""Ledgers: the tables that say which commit each run is at (design section 4).

A ledger commit's tree holds ``ab/<rest of run id>`` → gitlink (mode 160000) to the run commit, beside a few files at
its root such as ``experiment.msgpack``.  Its parents are the ledger commit before it and the run commits it adds, which
keeps those reachable.  Folders are the first two characters of the run id; ids of one or two characters, which leave no
rest, are in the folder ``_`` (no id begins with one).

These are functions over a GitStore; ``GitStore.ledger_…`` are the same under the names the rest of the code uses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from gittrack.errors import CorruptError
from gittrack.types import ObjectId, RunId, check_run_id

if TYPE_CHECKING:
    from gittrack.store.git import GitStore
    from gittrack.store.pack import Batch

GITLINK: Final = 0o160000
_FOLDER: Final = 0o040000
_FILE: Final = 0o100644
_SHORT: Final = "_"
_FEW: Final = 16  #: folders that are found faster one by one than by listing all

Table = dict[str, tuple[int, ObjectId]]


def split(run_id: str) -> tuple[str, str]:
    """(folder, name) of a run's entry.  Raises InvalidValueError for what is no run id."""
    check_run_id(run_id)
    return (run_id[:2], run_id[2:]) if len(run_id) > 2 else (_SHORT, run_id)


def join(folder: str, name: str) -> RunId:
    """The inverse of ``split``.

    Raises:
        CorruptError: No run id has that entry.
    """
    run_id = name if folder == _SHORT else folder + name
    try:
        if split(run_id) == (folder, name):
            return RunId(run_id)
    except ValueError:  # said below, as what it is: damage
        pass
    raise CorruptError(f"a ledger has the entry `{folder!r:.20}/{name!r:.80}`, which is no run")


def read(store: GitStore, commit: ObjectId) -> Iterator[tuple[RunId, ObjectId]]:
    """Every (run id, run commit), ordered by folder and name."""
    folders = _folders(store, commit)
    links = _links_of(store, folders.values())
    for folder, (_, tree) in folders.items():
        for name, oid in links[tree].items():
            yield join(folder, name), oid


def find(store: GitStore, commit: ObjectId, run_id: str) -> ObjectId | None:
    """The run commit of one run; None if the ledger does not have it."""
    folder, name = split(run_id)
    found = store.lookup(store.tree_of(commit), f"{folder}/{name}")
    return found[1] if found is not None and found[0] == GITLINK else None


def by_folder(run_ids: Iterable[str]) -> dict[str, set[str]]:
    """The names of runs' entries by their folders, for ``find_many``.  Raises InvalidValueError."""
    found: dict[str, set[str]] = {}
    for run_id in run_ids:
        folder, name = split(run_id)
        found.setdefault(folder, set()).add(name)
    return found


def find_many(
    store: GitStore, commit: ObjectId, wanted: Mapping[str, Collection[str]]
) -> Iterator[tuple[RunId, ObjectId]]:
    """Those of the runs in ``by_folder`` that the ledger has, and their commits: each of its folders is read once."""
    if len(wanted) < _FEW:
        root = store.tree_of(commit)
        found = {folder: store.lookup(root, folder) for folder in wanted}
        folders = {folder: entry for folder, entry in found.items() if entry is not None and entry[0] == _FOLDER}
    else:
        folders = {folder: entry for folder, entry in _folders(store, commit).items() if folder in wanted}
    links = _links_of(store, folders.values())
    for folder, (_, tree) in folders.items():
        for name in links[tree].keys() & wanted[folder]:
            yield join(folder, name), links[tree][name]


def diff(
    store: GitStore, old: ObjectId | None, new: ObjectId | None
) -> Iterator[tuple[RunId, ObjectId | None, ObjectId | None]]:
    """(run id, old commit, new commit) of every run that differs; None where it, or the whole ledger, is absent.

    Only folders whose id changed are read, so that the cost follows what changed.
    """
    before = _folders(store, old) if old is not None else {}
    after = _folders(store, new) if new is not None else {}
    changed = sorted(folder for folder in {*before, *after} if before.get(folder) != after.get(folder))
    links = _links_of(store, [side[folder] for folder in changed for side in (before, after) if folder in side])
    for folder in changed:
        olds = links[before[folder][1]] if folder in before else {}
        news = links[after[folder][1]] if folder in after else {}
        for name in sorted({*olds, *news}):
            if olds.get(name) != news.get(name):
                yield join(folder, name), olds.get(name), news.get(name)


def blob(store: GitStore, commit: ObjectId, name: str) -> bytes | None:
    """Content of a file at the root of a ledger; None if there is none."""
    found = store.lookup(store.tree_of(commit), name)
    return None if found is None or found[0] != _FILE else store.read_blob(found[1])


def build(
    store: GitStore,
    batch: Batch,
    old: ObjectId | None,
    *,
    changes: Mapping[str, ObjectId | None],
    files: Mapping[str, bytes | None],
    message: str,
    author: str,
    time_s: int,
) -> ObjectId:
    """Add the ledger commit that follows ``old`` to the batch.

    Args:
        store: Where ``old`` is read from.
        batch: Takes the new trees and the commit.
        old: The ledger commit so far; None for a new ledger.
        changes: Run id → its commit; None takes the run out.
        files: Root-level file → content; None removes it.
        message: Commit message.
        author: ``Name <mail>``.
        time_s: Seconds since the epoch.

    Raises:
        InvalidValueError: A key of ``changes`` is no run id.
    """
    root: Table = _table(store, store.tree_of(old)) if old is not None else {}
    by_folder: dict[str, dict[str, ObjectId | None]] = {}
    for run_id, commit in changes.items():
        folder, name = split(run_id)
        by_folder.setdefault(folder, {})[name] = commit
    for folder, entries in by_folder.items():
        links = _links(store.list_tree(root[folder][1])) if folder in root else {}
        for name, commit in entries.items():
            if commit is None:
                links.pop(name, None)
            else:
                links[name] = commit
        if links:
            root[folder] = (_FOLDER, batch.add_tree((name, GITLINK, oid) for name, oid in links.items()))
        else:
            root.pop(folder, None)
    for name, data in files.items():
        if data is None:
            root.pop(name, None)
        else:
            root[name] = (_FILE, batch.add_blob(data))
    tree = batch.add_tree((name, mode, oid) for name, (mode, oid) in root.items())
    added = [oid for oid in changes.values() if oid is not None]
    parents = dict.fromkeys([*([old] if old is not None else []), *added])
    return batch.add_commit(tree, parents, message, author, time_s)


def _table(store: GitStore, tree: ObjectId) -> Table:
    return {name: (mode, oid) for name, mode, oid in store.list_tree(tree)}


def _folders(store: GitStore, commit: ObjectId) -> Table:
    return {
        name: (mode, oid)
        for name, mode, oid in store.list_tree(store.tree_of(commit))
        if mode == _FOLDER and not name.startswith(".")
    }


def _links_of(store: GitStore, folders: Iterable[tuple[int, ObjectId]]) -> dict[ObjectId, dict[str, ObjectId]]:
    """The gitlinks of many folders, by folder."""
    return {tree: _links(entries) for tree, entries in store.list_trees({tree for _, tree in folders}).items()}


def _links(entries: Iterable[tuple[str, int, ObjectId]]) -> dict[str, ObjectId]:
    """The gitlinks of one folder; anything else in it is not ours to judge here and is passed over."""
    return {name: oid for name, mode, oid in entries if mode == GITLINK}
