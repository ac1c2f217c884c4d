"""Projects: the repositories of a server that people push to and fetch from, by name.

``default`` is the repository that the server was started in, whose runs the REST API shows.  Every other one is a
folder below the server's own with a private store in it, so that `gittrack` works there as in any folder.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gittrack.errors import AlreadyExistsError, InvalidValueError, NotFoundError
from gittrack.store import files, gateway
from gittrack.store.git import GitStore
from gittrack.store.repo import Repo

DEFAULT: Final = "default"
_FOLDER: Final = "server/projects"  #: below ``.gittrack``
#: Lower case, so that no two names are one on some file system; nothing that git or an address takes for more.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]|\.(?=[a-z0-9_-])){0,62}")


@dataclass(frozen=True)
class Project:
    """One repository.

    Attributes:
        name: As in its address.
        repo: Its store.
        settle: Commits the runs that are over, for those who fetch.
    """

    name: str
    repo: Repo
    settle: Callable[[], None]


def is_name(text: str) -> bool:
    """True for what can be a project's name."""
    return _NAME.fullmatch(text) is not None and not text.endswith((".git", ".lock"))


class Projects:
    """The projects of a server; threads may share it.

    Args:
        repo: The repository that the server was started in.
        settle: Commits its runs that are over.
    """

    def __init__(self, repo: Repo, settle: Callable[[], None] = lambda: None) -> None:
        self._folder = repo.root / _FOLDER
        self._open = {DEFAULT: Project(DEFAULT, repo, settle)}
        self._lock = threading.Lock()

    def get(self, name: str) -> Project:
        """A project, also by its name with ``.git``, as clients that speak LFS write it.  Raises NotFoundError."""
        name = name.removesuffix(".git")
        with self._lock:
            if name not in self._open:
                self._open[name] = self._opened(name)
            return self._open[name]

    def _opened(self, name: str) -> Project:
        if not is_name(name) or not gateway.private_git_dir(self._folder / name).is_dir():
            raise NotFoundError(
                "there is no such project on this server",
                hint="`gittrack server project create NAME` makes one",
            )
        return Project(name, Repo.find(self._folder / name), lambda: None)

    def names(self) -> list[str]:
        """The names of all, ``default`` first."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        made = sorted(one.name for one in found if is_name(one.name) and gateway.private_git_dir(one).is_dir())
        return [DEFAULT, *made]

    def create(self, name: str) -> Path:
        """Make an empty project; its folder.

        Raises:
            InvalidValueError: That cannot be its name.
            AlreadyExistsError: There is one.
            ReadOnlyError, StorageError: It cannot be made.
        """
        if not is_name(name):
            raise InvalidValueError(
                f"`{name!s:.80}` cannot be a project's name",
                hint="lower-case letters, digits, `-`, `_` and inner dots, at most 63",
            )
        if name in self.names():
            raise AlreadyExistsError(f"there is a project `{name}`")
        files.make_dirs(self._folder / name)
        GitStore.create_private(self._folder / name)  # or the repository around it would be found
        Repo.find(self._folder / name, create=True)
        return self._folder / name

    def close(self) -> None:
        """Close those that this opened; the next use opens them again."""
        with self._lock:
            for name in self._open.keys() - {DEFAULT}:
                self._open.pop(name).repo.close()
