"""prepare-commit-msg: the run that tried this code, as a `Gittrack-Run:` trailer, for those who want it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack.hooks.pre_commit import index_tree
from gittrack.store import gateway
from gittrack.track import links

if TYPE_CHECKING:
    from gittrack.track.runs import Tracker

TRAILER: Final = "Gittrack-Run"


def add_trailer(tracker: Tracker, message: Path) -> str | None:
    """Put the newest finished run of the staged code into the message; its id, None if there is none.

    A message that names that run already stays as it is.

    Args:
        tracker: The clone's.
        message: The file that git will read.

    Raises:
        GitError: git cannot tell the tree, or not change the message.
    """
    paths = tracker.repo.paths
    head = tracker.repo.git.head()
    found = links.runs_of_files(tracker, index_tree(paths), [] if head is None else [head])
    runs = [run for run in found if run.info.status == "FINISHED"]
    if not runs:
        return None
    git = gateway.Git(paths.git_dir, paths.work_tree)
    trailer = f"{TRAILER}: {runs[0].info.run_id}"
    options = ("--in-place", "--if-exists", "addIfDifferent", "--trailer", trailer)
    git.run("interpret-trailers", *options, "--", str(message.absolute()))
    return runs[0].info.run_id
