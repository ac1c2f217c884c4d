"""``gittrack pull``."""

from __future__ import annotations

from typing import Any

from gittrack.cli import common, output, sharing


@common.verb()
@sharing.remote_argument
@sharing.selecting
@sharing.dry_run_option
@common.json_option
def command(remote: str | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Take runs and models over from a git remote.

    REMOTE is one of git's; without it, the branch's or `origin`. Everything is looked at before it counts, and nothing
    of this clone's is overwritten. Your branches and files are left alone.
    """
    from gittrack.sync.pull import pull

    with sharing.registry() as opened:
        where = sharing.open_remote(opened, remote)
        select = sharing.chosen(opened, options, known=False)
        with output.Progress(f"pulling from {where.name}") as progress:
            report = pull(opened, where, select=select, dry_run=dry_run, progress=progress.tell,
                          interactive=sharing.interactive())  # fmt: skip
    if as_json:
        output.document(sharing.pull_json(report))
        sharing.refuse(report.refused, report.remote)
    else:
        sharing.tell_pull(report)
