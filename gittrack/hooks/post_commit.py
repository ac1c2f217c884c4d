"""post-commit: runs made before their code was committed are linked to the commit; the notes follow."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gittrack import config
from gittrack.errors import ConflictError
from gittrack.hooks import notes, quick
from gittrack.store import files
from gittrack.track import links

if TYPE_CHECKING:
    from gittrack.store.gateway import RepoPaths
    from gittrack.track.runs import Tracker
    from gittrack.types import ObjectId, RunId


def link(tracker: Tracker) -> list[RunId]:
    """Link the runs that ran what HEAD is now, as uncommitted changes; their ids.

    Raises:
        GittrackError: They cannot be read or written.
    """
    head = tracker.repo.git.head()
    linked = [] if head is None else links.link_same_code(tracker, head)
    settle(tracker, linked, [] if head is None else [head])
    return linked


def settle(tracker: Tracker, linked: Sequence[RunId], new: Sequence[ObjectId]) -> None:
    """Commit the links, bring the notes up to date, and leave for ``quick`` what there is.

    Args:
        tracker: The clone's.
        linked: The runs that got links.
        new: Commits that were made just now.
    """
    repo = tracker.repo
    if linked:
        tracker.close()
    stamp = quick.fingerprint(str(repo.paths.common_dir))
    with contextlib.suppress(ConflictError):  # another hook writes the notes just now
        notes.refresh(tracker, new)
    linked_commits = filter(None, map(links.linked_commit, repo.index.tag_keys(links.LINK_TAG)))
    known = {*linked_commits, *repo.index.code_ids()}
    text = quick.seen_text(stamp, sorted(known), sorted(repo.index.changed_commits()))
    files.write_atomic(repo.root / quick.SEEN, text)


def push_in_background(paths: RepoPaths) -> None:
    """Start `gittrack push` and do not wait for it; what it says is in `.gittrack/push.log`.

    It goes on when git and the terminal are gone; two at a time wait for each other.
    """
    environment = {name: value for name, value in config.environment().items() if not name.startswith("GIT_")}
    log = paths.main_root / ".gittrack" / "push.log"
    with log.open("wb") as said:
        subprocess.Popen(
            [sys.executable, "-m", "gittrack", "-C", str(paths.work_tree), "push"],
            cwd=paths.main_root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
