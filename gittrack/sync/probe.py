"""Probe: what a remote takes, found out by making a ref there and removing it again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from gittrack.errors import PushRefusedError
from gittrack.store.refs import RefUpdate
from gittrack.sync.transport import Move, Progress, Transport, silent

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.sync.remotes import Remote
    from gittrack.types import ObjectId

#: Where runs can go on hosts that take branches and tags only.
BRANCHES: Final = "refs/heads/gittrack/"


class Found(NamedTuple):
    """What a remote takes.

    Attributes:
        refs: How many refs it shows.
        shared: How many of them are gittrack's.
        writable: It takes runs where they are to go.
        tags: It takes tags.
        prefix: Where runs are to go (``gittrack.refPrefix``); empty: the usual place.
        suggestion: A prefix that it takes, if it does not take that; empty otherwise.
        atomic: It moves several refs at once, or none.
        why: Why it refuses, in its words; empty if it does not.
    """

    refs: int
    shared: int
    writable: bool
    tags: bool
    prefix: str
    suggestion: str
    atomic: bool
    why: str


def check(repo: Repo, remote: Remote, *, progress: Progress = silent, interactive: bool = False) -> Found:
    """Try what a remote takes; it has the same refs afterwards.

    Raises:
        NetworkError: It cannot be reached.
        PushRefusedError: What was made could not be removed again.
    """
    repo.require_writable()
    transport = Transport(repo, remote, progress=progress, interactive=interactive)
    refs = transport.refs()
    probe = _commit(repo)
    name = f"check/{repo.writer}-{probe[:8]}"
    usual = remote.prefix or "refs/runs/"
    why, tags = _try(transport, f"{usual}{name}", probe), not _try(transport, f"refs/tags/models/{name}", probe)
    suggestion = ""
    if why and usual != BRANCHES and not _try(transport, f"{BRANCHES}{name}", probe):
        suggestion = BRANCHES
    repo.git.publish(repo.git.batch(), [RefUpdate(_PIN, probe, None)])
    shared = len(transport.shared(refs))
    return Found(len(refs), shared, not why, tags, remote.prefix, suggestion, transport.atomic, why)


_PIN: Final = "refs/gittrack/live/probe"


def _commit(repo: Repo) -> ObjectId:
    """An empty commit to push, kept by a ref while it is needed."""
    batch = repo.git.batch()
    tree = batch.add_tree([])
    oid = batch.add_commit(
        tree, [], "gittrack looks whether this can be pushed\n", repo.git.identity(), int(time.time())
    )
    repo.git.publish(batch, [RefUpdate(_PIN, repo.git.ref(_PIN), oid)])
    return oid


def _try(transport: Transport, ref: str, probe: ObjectId) -> str:
    """Why a ref cannot be made and removed; empty if it can."""
    try:
        refusals = transport.push([[Move(ref, None, probe)]])
    except PushRefusedError as error:
        return error.message
    if refusals:
        return refusals[0].why
    if left := transport.push([[Move(ref, probe, None)]]):
        raise PushRefusedError(f"`{ref}` could be made on `{transport.remote.name}` and not removed: {left[0].why}",
                               hint="ask whoever looks after it to remove it")  # fmt: skip
    return ""
