"""``gittrack rm``."""

from __future__ import annotations

import click

from gittrack.cli import common, output, text


@common.verb()
@click.argument("runs", metavar="RUN…", nargs=-1, required=True, shell_complete=common.complete_runs)
def command(runs: tuple[str, ...]) -> None:
    """Delete runs; `gittrack restore` brings them back.

    A deleted run is hidden from `gittrack log`, `search` and the statistics, and keeps all it has.
    """
    with common.tracker(write=True) as opened:
        ids = [opened.resolve(run) for run in runs]  # all names are read before anything is deleted
        for run_id in ids:
            opened.delete_run(run_id)
    undo = " ".join(run_id[: common.SHORT] for run_id in ids)
    output.message(f"deleted {text.count(len(ids), 'run')}; `gittrack restore {undo}` undoes it")
