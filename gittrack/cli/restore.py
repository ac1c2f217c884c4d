"""``gittrack restore``."""

from __future__ import annotations

import click

from gittrack.cli import common, output, text


@common.verb()
@click.argument("runs", metavar="RUN…", nargs=-1, required=True, shell_complete=common.complete_runs)
def command(runs: tuple[str, ...]) -> None:
    """Bring deleted runs back.

    `gittrack log --all` lists deleted runs too.
    """
    with common.tracker(write=True) as opened:
        for run_id in [opened.resolve(run) for run in runs]:
            opened.restore_run(run_id)
    output.message(f"restored {text.count(len(runs), 'run')}")
