"""``gittrack experiments`` and its verbs."""

from __future__ import annotations

import click

from gittrack.cli import common, output, text


@click.group(cls=common.VerbGroup, default="ls")
def command() -> None:
    """List the experiments; create, rename, delete or restore one.

    Without a further word it lists them.
    """


@command.command("ls")
@click.option("-a", "--all", "everything", is_flag=True, help="Also deleted experiments.")
@common.json_option
def list_experiments(everything: bool, as_json: bool) -> None:
    """List the experiments with how many runs they have."""
    from gittrack.types import Experiment, LifecycleStage, ViewType

    view = ViewType.ALL if everything else ViewType.ACTIVE_ONLY
    with common.tracker() as opened:
        found = list(common.every(lambda token: opened.search_experiments(view=view, page_token=token)))
        counts = {
            one.experiment_id: opened.repo.index.count_runs(None, [one.experiment_id], ViewType.ACTIVE_ONLY)
            for one in found
        }
        if as_json:
            names = Experiment.__slots__
            output.array(
                {name: getattr(one, name) for name in names} | {"runs": counts[one.experiment_id]} for one in found
            )
            return
        headers = ["id", "name", "runs", "changed", ""]
        rows = [
            [
                output.Cell(one.experiment_id, "yellow"),
                one.name,
                f"{counts[one.experiment_id]:,}",
                text.ago(one.last_update_time) if one.last_update_time else "",
                output.Cell("deleted", "red") if one.lifecycle_stage == LifecycleStage.DELETED else "",
            ]
            for one in found
        ]
        output.lines(output.table(headers, rows, right=[2]))


@command.command("create")
@click.argument("name")
def create(name: str) -> None:
    """Create the experiment NAME and print its id."""
    with common.tracker(create=True) as opened:
        output.lines([opened.create_experiment(name)])


@command.command("rename")
@click.argument("experiment", shell_complete=common.complete_experiments)
@click.argument("name")
def rename(experiment: str, name: str) -> None:
    """Rename EXPERIMENT to NAME; its id stays."""
    with common.tracker(write=True) as opened:
        opened.rename_experiment(common.experiment_id(opened, experiment), name)
    output.message(f"renamed experiment `{experiment}` to `{name}`")


@command.command("rm")
@click.argument("experiment", shell_complete=common.complete_experiments)
def remove(experiment: str) -> None:
    """Delete EXPERIMENT with its runs.

    `gittrack experiments restore` brings all of it back.
    """
    with common.tracker(write=True) as opened:
        opened.delete_experiment(common.experiment_id(opened, experiment))
    output.message(f"deleted experiment `{experiment}`; `gittrack experiments restore {experiment}` brings it back")


@command.command("restore")
@click.argument("experiment", shell_complete=common.complete_experiments)
def restore(experiment: str) -> None:
    """Bring a deleted EXPERIMENT back."""
    with common.tracker(write=True) as opened:
        opened.restore_experiment(common.experiment_id(opened, experiment))
    output.message(f"restored experiment `{experiment}`")
