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
        document = sharing.pull_json(pulled)
        refused = pulled.refused
        pulled.refused = {}
        if not as_json:
            sharing.tell_pull(pulled)  # it is done, whatever becomes of the push
        with output.Progress(f"pushing to {where.name}") as progress:
            pushed = push(opened, where, progress=progress.tell, interactive=asks)
    pushed.refused |= refused
    if as_json:
        output.document({"pull": document, "push": sharing.push_json(pushed)})
        sharing.refuse(pushed.refused, pushed.remote)
    else:
        sharing.tell_push(pushed)
