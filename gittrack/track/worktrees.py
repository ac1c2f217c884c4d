"""Work trees for a while: one commit's files in a temporary folder, taken away again even if the process is killed.

git's own lock of a work tree holds who made it.  What a process that is gone has left behind is taken away by the next
that asks for ``tidy``.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack.errors import FormatError
from gittrack.store import files, gateway

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.types import ObjectId

_FOLDER: Final = "gittrack-"  #: begins the name of the temporary folder
_CODE: Final = "code"  #: the work tree in it
_REASON: Final = "gittrack is at work in it: "


class Temporary:
    """A detached work tree of a commit for as long as the block runs: ``with Temporary(repo, commit) as folder:``.

    Raises:
        GitError: git cannot make it.
    """

    def __init__(self, repo: Repo, commit: ObjectId) -> None:
        self._git = gateway.Git(repo.paths.git_dir, repo.paths.work_tree)
        self._commit = commit

    def __enter__(self) -> Path:
        self._folder = Path(os.path.realpath(tempfile.mkdtemp(prefix=_FOLDER)))
        target = self._folder / _CODE
        reason = _REASON + json.dumps(files.process_identity().to_list())
        try:
            self._git.run(
                "worktree",
                "add",
                "--detach",
                "--lock",
                "--reason",
                reason,
                "--end-of-options",
                str(target),
                self._commit,
            )
        except BaseException:
            _take_away(self._git, target)
            raise
        return target

    def __exit__(self, *_: object) -> None:
        _take_away(self._git, self._folder / _CODE)


def tidy(repo: Repo) -> int:
    """Take away the work trees of processes that are gone; how many there were."""
    git, found = gateway.Git(repo.paths.git_dir, repo.paths.work_tree), 0
    for lock in sorted(repo.paths.common_dir.glob("worktrees/*/locked")):
        with suppress(OSError, ValueError, FormatError):
            target = Path(lock.with_name("gitdir").read_text().rstrip("\n")).parent
            who = lock.read_text()
            ours = who.startswith(_REASON) and target.name == _CODE and target.parent.name.startswith(_FOLDER)
            if ours and files.is_alive(files.ProcessId.from_list(json.loads(who[len(_REASON) :]))) is False:
                _take_away(git, target)
                found += 1
    return found


def _take_away(git: gateway.Git, target: Path) -> None:
    """What cannot be taken away now is left to ``tidy``: whatever was done in the work tree is not undone by it."""
    try:
        git.run("worktree", "remove", "--force", "--force", "--end-of-options", str(target), check=False)
    finally:
        shutil.rmtree(target.parent, ignore_errors=True)
