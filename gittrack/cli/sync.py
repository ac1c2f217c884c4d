"""``gittrack sync``."""

from __future__ import annotations

from gittrack.cli import common, output, sharing


@common.verb()
@sharing.remote_argument
@common.json_option
def command(remote: str | None, as_json: bool) -> None:
    """Pull, then push: afterwards this clone and the remote have the same.

    REMOTE is one of git's; without it, the branch's or `origin`.
    """
    from gittrack.sync.pull import pull
    from gittrack.sync.push import push

    with sharing.registry() as opened:
        where = sharing.open_remote(opened, remote)
        asks = sharing.interactive()
        with output.Progress(f"pulling from {where.name}") as progress:
            pulled = pull(opened, where, progress=progress.tell, interactive=asks)
        with output.Progress(f"pushing to {where.name}") as progress:
            pushed = push(opened, where, progress=progress.tell, interactive=asks)
    pushed.refused |= pulled.refused
    if as_json:
        output.document({"pull": sharing.pull_json(pulled), "push": sharing.push_json(pushed)})
        sharing.refuse(pushed.refused, pushed.remote)
    else:
        pulled.refused.clear()
        sharing.tell_pull(pulled)
        sharing.tell_push(pushed)
