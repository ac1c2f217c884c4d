"""The free tree: files under paths of somebody's own, which are of no run and of no logged model.

One run keeps them, as a logged model that no run made is kept by one: it is there for nothing else, no search finds it,
and it is in a ledger beside those of all experiments.  So the files are written, committed, shared, merged and
collected as those of any run are, and there is no second way to do any of that.  It is over from the start, so that
changes are committed by and by instead of staying in a journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gittrack.errors import NotFoundError, StateError
from gittrack.store import layout
from gittrack.track.limits import check_artifact_path
from gittrack.types import Artifact, FileInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gittrack.track.active import ActiveRun
    from gittrack.track.runs import Tracker

RUN_ID: Final = layout.TREE_RUN_ID
_TREE_MODE: Final = 0o040000


class Tree:
    """The free tree of a repository; threads may share it.

    Args:
        tracker: Its runs.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._taught: ActiveRun | None = None

    # -- writing -----------------------------------------------------------------------------------------------------

    def writer(self) -> ActiveRun:
        """The handle to write to it; ``Tracker.settle`` is to follow.

        Raises:
            ReadOnlyError, LockedError: It cannot be made now.
            StateError: It was purged.
        """
        try:
            run = self._tracker.writer(RUN_ID)
        except NotFoundError:
            run = self._made()
        if run is not self._taught:  # or a file could take the place of a folder that was committed long ago
            run.know_files(self._tracker.repo.artifacts(RUN_ID))
            self._taught = run
        return run

    def _made(self) -> ActiveRun:
        repo = self._tracker.repo
        with repo.lock("tree"):
            try:
                return self._tracker.writer(RUN_ID)  # somebody was quicker
            except NotFoundError:
                if repo.purged(RUN_ID):
                    raise StateError("the files that were of no run were purged, for good") from None
            run = self._tracker.begin_run(RUN_ID, layout.TREE_EXPERIMENT_ID, name=RUN_ID, start_time=0, keeper=True)
            run.set_status("FINISHED", 0)
        return run

    # -- reading -----------------------------------------------------------------------------------------------------

    def file(self, path: str) -> Artifact:
        """A file.  Raises NotFoundError, InvalidValueError."""
        path = check_artifact_path(path)
        try:
            changes = self._tracker.repo.state(RUN_ID).artifacts
        except NotFoundError:
            raise _nothing() from None
        found = changes.get(path)
        if found is None and path not in changes and not _covers(changes, path):
            found = self._committed(path)
        if found is None:
            raise _nothing()
        return found

    def _committed(self, path: str) -> Artifact | None:
        """A file as its commits have it, found without reading what is beside it."""
        repo = self._tracker.repo
        for commit in reversed(repo.revisions(RUN_ID)):
            place = f"{layout.FOLDER}/{layout.ARTIFACTS}/{path}"
            entry = repo.git.lookup(repo.git.tree_of(commit), place)
            if entry is not None and entry[0] != _TREE_MODE:
                return layout.parse_pointer(path, repo.git.read_blob(entry[1]))
        return None

    def below(self, path: str) -> list[Artifact]:
        """A file, or those in a folder.  Raises NotFoundError, InvalidValueError."""
        try:
            return [self.file(path)]
        except NotFoundError:
            found = list(self._tracker.repo.artifacts(RUN_ID, check_artifact_path(path)).values())
            if not found:
                raise
            return found

    def entries(self, path: str = "") -> list[FileInfo]:
        """What is in a folder; nothing if there is none.  Raises InvalidValueError."""
        try:
            return self._tracker.list_artifacts(RUN_ID, path or None)
        except NotFoundError:
            return []


def _nothing() -> NotFoundError:
    return NotFoundError("there are no artifacts at this path")


def _covers(changes: Mapping[str, Artifact | None], path: str) -> bool:
    """True if something that is not committed yet is where a committed file of that path was."""
    if any(changes.get(folder) is not None for folder in layout.folders_of(path)):
        return True
    return any(one is not None and other.startswith(f"{path}/") for other, one in changes.items())
