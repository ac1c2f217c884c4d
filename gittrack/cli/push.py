"""``gittrack push``."""

from __future__ import annotations

from typing import Any

import click

from gittrack.cli import common, output, sharing


@common.verb()
@sharing.remote_argument
@sharing.selecting
@click.option("--no-artifacts", is_flag=True, help="Leave the files of runs here.")
@sharing.dry_run_option
@common.json_option
def command(remote: str | None, no_artifacts: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Send runs and models to a git remote.

    REMOTE is one of git's; without it, the branch's or `origin`. The files of runs go first, to the remote's LFS or
    where `gittrack.artifacts` says. What is there already is not sent again, and nothing
    there is overwritten. A version number that somebody else was given first is taken over, and yours gets the next.
    """
    from gittrack.sync.push import push

    with sharing.registry() as opened:
        where = sharing.open_remote(opened, remote)
        select = sharing.chosen(opened, options, known=True)
        with output.Progress(f"pushing to {where.name}") as progress:
            report = push(
                opened,
                where,
                select=select,
                dry_run=dry_run,
                files=not no_artifacts,
                progress=progress.tell,
                sending=progress.sizes("sending files"),
                interactive=sharing.interactive(),
            )
    if as_json:
        output.document(sharing.push_json(report))
        sharing.refuse(report.refused, report.remote)
    else:
        sharing.tell_push(report)
