"""Nothing to push, nothing to pull: said before most of the program is loaded, which takes longer than to ask.

It is so if the ledgers, documents and registry tags of the clone are exactly those that the remote shows and that were
last seen there, and no run waits to be committed.  Whatever else is the case, options included, is for ``push`` and
``pull`` to find out; they take over what the remote has answered here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from gittrack import config
from gittrack.errors import GittrackError
from gittrack.store import gateway, layout
from gittrack.store.refs import RefStore
from gittrack.sync import remotes, transport
from gittrack.sync.remotes import Remote

#: What is said when there is nothing to do, by verb.
SAID: Final = {
    "push": "nothing to push to `{}`",
    "pull": "`{}` has nothing new",
    "fetch": "`{}` has nothing new",
}


def idle(words: list[str]) -> str | None:
    """What a command has to say if it certainly has nothing to do; None if it may have."""
    folder, words = (Path(words[1]), words[2:]) if words[:1] == ["-C"] and len(words) > 1 else (None, words)
    if not 1 <= len(words) <= 2 or words[0] not in SAID or words[-1].startswith("-"):
        return None
    try:
        remote = _same(folder or Path.cwd(), words[1] if len(words) > 1 else None)
    except (GittrackError, OSError):  # the verb will say it
        return None
    return None if remote is None else SAID[words[0]].format(remote)


def _same(folder: Path, name: str | None) -> str | None:
    """The remote that is meant, by name or the default one, if it and the clone have the same."""
    settings = config.current(folder)
    paths = gateway.discover(folder)
    if paths is None or settings.tracking_uri:
        return None
    root = paths.main_root / layout.FOLDER
    if not os.access(root, os.W_OK) or not (root / "writer").exists() or any((root / "live").iterdir()):
        return None
    refs = RefStore(paths)
    branch = (refs.symbolic("HEAD") or "").removeprefix("refs/heads/")
    name = name or gateway.default_remote(paths, branch)
    if name not in gateway.remotes(paths) or not remotes.is_name(name) or gateway.push_url(paths, name) is not None:
        return None
    remote = Remote(name, "", prefix=settings.ref_prefix)
    here = {
        ref: oid
        for prefix in (layout.LEDGER_PREFIX, layout.DOCUMENT_PREFIX, layout.TAG_PREFIX)
        for ref, oid in refs.below(prefix).items()
        if remotes.is_shared(ref)
    }
    if remote.seen_by(refs.below) != here or refs.below(layout.INCOMING_PREFIX):
        return None
    program = gateway.Git(paths.git_dir, paths.work_tree)
    shown = transport.early(program, name, interactive=sys.stdin.isatty() and sys.stderr.isatty())
    there = {local: oid for ref, oid in shown.items() if (local := remote.here(ref)) is not None}
    return name if there == here else None
