"""``gittrack push``."""

from __future__ import annotations

from typing import Any

from gittrack.cli import common, output, sharing


@common.verb()
@sharing.remote_argument
@sharing.selecting
@sharing.dry_run_option
@common.json_option
def command(remote: str | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Send runs and models to a git remote.

    REMOTE is one of git's; without it, the branch's or `origin`. What is there already is not sent again, and nothing
    there is overwritten. A version number that somebody else was given first is taken over, and yours gets the next.
    """
    from gittrack.sync.push import push

    with sharing.registry() as opened:
        where = sharing.open_remote(opened, remote)
        select = sharing.chosen(opened, options, known=True)
        with output.Progress(f"pushing to {where.name}") as progress:
            report = push(opened, where, select=select, dry_run=dry_run, progress=progress.tell,
                          interactive=sharing.interactive())  # fmt: skip
    if as_json:
        output.document(sharing.push_json(report))
        sharing.refuse(report.refused, report.remote)
    else:
        sharing.tell_push(report)
