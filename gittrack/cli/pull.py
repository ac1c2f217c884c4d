"""``gittrack pull``."""

from __future__ import annotations

from typing import Any

import click

from gittrack.cli import common, output, sharing
from gittrack.errors import GittrackError


@common.verb()
@sharing.remote_argument
@sharing.selecting
@click.option("--artifacts", is_flag=True, help="Fetch the files of the runs too, those of earlier pulls included.")
@sharing.dry_run_option
@common.json_option
def command(remote: str | None, artifacts: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Take runs and models over from a git remote.

    REMOTE is one of git's; without it, the branch's or `origin`. Everything is looked at before it counts, and nothing
    of this clone's is overwritten. Your branches and files are left alone. The files of runs come when they are read,
    or with `--artifacts`.
    """
    from gittrack.sync.pull import pull

    with sharing.registry() as opened:
        where = sharing.open_remote(opened, remote)
        select = sharing.chosen(opened, options, known=False)
        with output.Progress(f"pulling from {where.name}") as progress:
            report = pull(opened, where, select=select, dry_run=dry_run, progress=progress.tell,
                          interactive=sharing.interactive())  # fmt: skip
        if artifacts and not dry_run:
            try:
                common.fetch(opened.tracker, sharing.files_of(opened, select), remote=where.name)
            except GittrackError as error:
                error.leaving("the runs and models are here")
                raise
    if as_json:
        output.document(sharing.pull_json(report))
        sharing.refuse(report.refused, report.remote)
    else:
        sharing.tell_pull(report)
