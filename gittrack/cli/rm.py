"""``gittrack rm``."""

from __future__ import annotations

import click

from gittrack.cli import common, output, text


@common.verb()
@click.argument("runs", metavar="RUN…", nargs=-1, required=True, shell_complete=common.complete_runs)
def command(runs: tuple[str, ...]) -> None:
    """Delete runs; `gittrack restore` brings them back.

    A deleted run is hidden from `gittrack log`, `search` and the statistics, and keeps all it has. A logged model is
    named by its id, `m-…`.
    """
    with common.tracker(write=True) as opened:
        words, models = common.without_models(opened, runs)
        ids = [opened.resolve(run) for run in words]  # all names are read before anything is deleted
        for run_id in ids:
            opened.delete_run(run_id)
        for model_id in models:
            from gittrack.track.logged_models import LoggedModels

            LoggedModels(opened).delete(model_id)
    undo = " ".join([*(run_id[: common.SHORT] for run_id in ids), *models])
    output.message(f"deleted {text.runs_and_models(len(ids), len(models))}; `gittrack restore {undo}` undoes it")
