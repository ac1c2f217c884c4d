"""Folders of objects on this machine: the LFS storage of a remote, a clone of a colleague, a mounted disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gittrack.errors import NotFoundError
from gittrack.store import gateway, layout
from gittrack.store.objects import Arrivals, ObjectStore
from gittrack.sync.depots import Count, Item, Progress, lost

if TYPE_CHECKING:
    from gittrack.store.repo import Repo


class FolderDepot:
    """Folders with the layout of a git-lfs media folder.

    Args:
        repo: This clone.
        stores: Where to look, the first one is also where to put.
        name: What it is called in messages.
    """

    def __init__(self, repo: Repo, stores: Sequence[ObjectStore], name: str) -> None:
        self._mine = repo.objects
        self._stores = stores
        self.name = name

    def lacking(self, items: Sequence[Item]) -> list[Item]:
        """Those that are not where new ones are put."""
        return [item for item in items if not self._stores[0].has(item.digest, item.size)]

    def having(self, items: Sequence[Item]) -> list[Item]:
        """Those that are in one of the folders."""
        return [item for item in items if any(store.has(item.digest, item.size) for store in self._stores)]

    def upload(self, items: Sequence[Item], progress: Progress) -> None:
        """Copy objects there; see ``Depot``."""
        count = Count(items, progress)
        with Arrivals(self._stores[0], len(items)) as arrivals:
            for item in items:
                _copy(self._mine, arrivals, item, count)

    def download(self, items: Sequence[Item], progress: Progress) -> None:
        """Copy objects here; see ``Depot``."""
        count = Count(items, progress)
        missing: list[Item] = []
        with Arrivals(self._mine, len(items)) as arrivals:
            for item in items:
                store = next((one for one in self._stores if one.has(item.digest, item.size)), None)
                if store is None:
                    missing.append(item)
                else:
                    _copy(store, arrivals, item, count)
        if missing:
            raise lost(missing, self.name)


def _copy(source: ObjectStore, arrivals: Arrivals, item: Item, count: Count) -> None:
    with source.descriptor(item.digest) as fd:
        arrivals.copy(fd, item.digest, item.size, count.add)


def stock_lfs(repo: Repo) -> FolderDepot:
    """What stock git-lfs fetched into this clone."""
    return FolderDepot(repo, [_lfs_storage(repo.paths)], "git-lfs")


def remote_repository(repo: Repo, folder: Path) -> FolderDepot:
    """The LFS storage of a repository on this machine, where stock git-lfs keeps it.

    If runs are recorded there, its `.gittrack` is read too.

    Raises:
        NotFoundError: There is no repository.
        GitError: git does not trust it.
    """
    paths = gateway.discover(folder) if folder.is_dir() else None
    if paths is None or folder.resolve() not in (paths.main_root, paths.work_tree, paths.git_dir, paths.common_dir):
        raise NotFoundError(f"there is no git repository at `{folder}`", hint="`git remote -v` lists the remotes")
    gateway.Git(paths.git_dir, paths.work_tree).check_trust()
    recorded = ObjectStore(paths.main_root / layout.FOLDER / "objects")
    return FolderDepot(repo, [_lfs_storage(paths), recorded], f"`{folder}`")


def plain_folder(repo: Repo, folder: Path) -> FolderDepot:
    """A folder that holds artifacts and nothing else."""
    return FolderDepot(repo, [ObjectStore(folder)], f"`{folder}`")


def _lfs_storage(paths: gateway.RepoPaths) -> ObjectStore:
    # Its configuration could name any folder; only the usual one is written to.
    return ObjectStore(paths.common_dir / "lfs" / "objects", temp=paths.common_dir / "lfs" / "tmp")


__all__ = ["FolderDepot", "plain_folder", "remote_repository", "stock_lfs"]
