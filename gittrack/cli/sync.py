"""``gittrack sync``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gittrack.cli import common, output, sharing, shipping

if TYPE_CHECKING:
    from gittrack.registry.registry import Registry
    from gittrack.sync.remotes import Remote


@common.verb()
@sharing.remote_argument
@common.json_option
def command(remote: str | None, as_json: bool) -> None:
    """Ship what was recorded for tracking servers; pull, then push.

    Afterwards the servers have what was recorded here for them, also of runs that go on, and this clone and the remote
    have the same. REMOTE is one of git's; without it, the branch's or `origin`, if there is one.
    """
    with sharing.registry() as opened:
        shipped = shipping.ship(opened.tracker.repo)
        where = _remote(opened, remote, needed=not shipped)
        if not as_json:
            shipping.tell(shipped)
        document: dict[str, Any] = {"servers": shipping.as_json(shipped)}
        refused: dict[str, str] = {}
        if where is not None:
            pulled, pushed, refused = _exchange(opened, where, as_json=as_json)
            document |= {"pull": pulled, "push": pushed}
    if as_json:
        output.document(document)
    if where is not None and as_json:
        sharing.refuse(refused, where.name)
    shipping.refuse(shipped)


def _remote(opened: Registry, name: str | None, *, needed: bool) -> Remote | None:
    """The git remote; None if there is none, and somebody else took what there was."""
    from gittrack.errors import NotFoundError

    try:
        return sharing.open_remote(opened, name)
    except NotFoundError:
        if needed or name is not None:
            raise
        return None


def _exchange(opened: Registry, where: Remote, *, as_json: bool) -> tuple[Any, Any, dict[str, str]]:
    """Pull, then push; both as `--json` prints them, and what was refused."""
    from gittrack.sync.pull import pull
    from gittrack.sync.push import push

    asks = sharing.interactive()
    with output.Progress(f"pulling from {where.name}") as progress:
        pulled = pull(opened, where, progress=progress.tell, interactive=asks)
    document = sharing.pull_json(pulled)
    refused = pulled.refused
    pulled.refused = {}
    if not as_json:
        sharing.tell_pull(pulled)  # it is done, whatever becomes of the push
    with output.Progress(f"pushing to {where.name}") as progress:
        pushed = push(opened, where, progress=progress.tell, interactive=asks)
    pushed.refused |= refused
    if not as_json:
        sharing.tell_push(pushed)
    return document, sharing.push_json(pushed), pushed.refused
