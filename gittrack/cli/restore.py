"""``gittrack restore``."""

from __future__ import annotations

import click

from gittrack.cli import common, output, text


@common.verb()
@click.argument("runs", metavar="RUN…", nargs=-1, required=True, shell_complete=common.complete_runs)
def command(runs: tuple[str, ...]) -> None:
    """Bring deleted runs back.

    `gittrack log --all` lists deleted runs too. A logged model is named by its id, `m-…`.
    """
    with common.tracker(write=True) as opened:
        words, models = common.without_models(opened, runs)
        for run_id in [opened.resolve(run) for run in words]:
            opened.restore_run(run_id)
        for model_id in models:
            from gittrack.track.logged_models import LoggedModels

            LoggedModels(opened).restore(model_id)
    output.message(f"restored {text.runs_and_models(len(words), len(models))}")
