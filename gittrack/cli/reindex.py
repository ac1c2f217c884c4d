"""``gittrack reindex``."""

from __future__ import annotations

import time

from gittrack.cli import common, output, text


@common.verb()
def command() -> None:
    """Build the search index again from git and the journals.

    The index is derived: deleting it or rebuilding it loses nothing. `gittrack fsck` says when it is needed.
    """
    from gittrack.registry.registry import Registry

    started = time.monotonic()
    with common.tracker(fresh=False) as opened, output.Progress("rebuilding the index") as progress:
        runs = opened.repo.reindex(progress.update)
        Registry(opened).catalog.refresh()
    output.message(f"indexed {text.count(runs, 'run')} in {text.duration((time.monotonic() - started) * 1000)}")
