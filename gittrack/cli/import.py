"""``gittrack import`` and its verbs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gittrack.cli import common, output
from gittrack.cli.moving import Group, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gittrack.convert.source import Source

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Take runs and models over from another tracker.

    What is there already is passed over, so that the same import can be repeated, also after it was interrupted.
    `gittrack help moving` says what becomes of what.
    """


def _options(function: F) -> F:
    """What every import understands."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON."),
        click.option("--no-artifacts", is_flag=True, help="Leave files out, and with them registered models."),
        click.option("--dry-run", is_flag=True, help="Only say what would come."),
    ):
        function = option(function)
    return function


def _chosen(function: F) -> F:
    """``-e``: experiments of the other tracker."""
    return click.option(
        "-e", "--experiment", "experiments", multiple=True, metavar="NAME",
        help="Only this experiment (its name or id there); may be given several times.",
    )(function)  # fmt: skip


@command.command("mlflow")
@click.argument("source", metavar="URI|DIR")
@_chosen
@click.option(
    "--artifacts", "roots", multiple=True, metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Artifacts may also be read from below DIR; else only from `mlruns` and `mlartifacts` beside the store.",
)  # fmt: skip
@_options
def mlflow(
    source: str,
    experiments: tuple[str, ...],
    roots: tuple[Path, ...],
    dry_run: bool,
    no_artifacts: bool,
    as_json: bool,
) -> None:
    """Take over MLflow's experiments, runs, artifacts and registry.

    URI is `sqlite:///mlflow.db`, a server such as `http://localhost:5000`, or a folder such as `mlruns`. MLflow itself
    is not needed. A server's credentials are MLflow's variables MLFLOW_TRACKING_USERNAME, _PASSWORD and _TOKEN.
    """
    from gittrack import config
    from gittrack.convert.open import open_mlflow

    _import(
        lambda: open_mlflow(source, roots, config.environment()),
        experiments=experiments, dry_run=dry_run, artifacts=not no_artifacts, as_json=as_json,
    )  # fmt: skip


def _import(
    opening: Callable[[], Source],
    *,
    experiments: Sequence[str] = (),
    dry_run: bool,
    artifacts: bool,
    as_json: bool,
) -> None:
    """Import a source, and say what came of it."""
    from gittrack import config
    from gittrack.convert.importer import Importer

    source = opening()
    try:
        next(iter(source.experiments()), None)  # what cannot be read at all makes no store here
        with common.tracker(create=True, fresh=False):
            pass  # makes the store
        with common.tracker(write=True) as opened, output.Progress("importing runs") as progress:
            settings = config.current(opened.repo.paths.work_tree or opened.repo.paths.main_root)
            report = Importer(
                opened,
                source,
                experiments=experiments,
                code=settings.code != "none",
                artifacts=artifacts,
                dry_run=dry_run,
                progress=progress.update,
            ).run()
    finally:
        source.close()
    tell(report, "import", dry_run=dry_run, as_json=as_json)


@command.command("tensorboard")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-e", "--experiment", metavar="NAME", help="Experiment; the folder's name if not given.")
@_options
def tensorboard(folder: Path, experiment: str | None, dry_run: bool, no_artifacts: bool, as_json: bool) -> None:
    """Take over TensorBoard's event files below DIR.

    Each folder that has some is a run, with its scalars, hyperparameters and texts. Images, histograms and graphs are
    not taken. TensorBoard itself is not needed.
    """
    from gittrack.convert.tensorboard import EventFolder

    name = experiment or folder.resolve().name or "tensorboard"
    _import(lambda: EventFolder(folder, name), dry_run=dry_run, artifacts=not no_artifacts, as_json=as_json)


@command.command("wandb")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-e", "--experiment", metavar="NAME", help="Experiment; the runs' project if not given.")
@_options
def wandb(folder: Path, experiment: str | None, dry_run: bool, no_artifacts: bool, as_json: bool) -> None:
    """Take over offline runs of Weights & Biases.

    DIR is the folder `wandb`, the one that it is in, or that of a single run. Neither wandb nor an account is needed.
    """
    from gittrack.convert.wandb import OfflineRuns

    _import(lambda: OfflineRuns(folder, experiment), dry_run=dry_run, artifacts=not no_artifacts, as_json=as_json)


@command.command("csv")
@click.argument(
    "files", metavar="FILE…", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "-e", "--experiment", metavar="NAME", help="Experiment of rows that name none; the first file's name if not given."
)
@_options
def csv(files: tuple[Path, ...], experiment: str | None, dry_run: bool, no_artifacts: bool, as_json: bool) -> None:
    """Take over tables: a row per run, per point, or per step of a training.

    The header says which (`gittrack help moving`); what `gittrack export csv` writes comes back whole.
    """
    from gittrack.convert.csv_runs import CsvFiles

    name = experiment or files[0].stem
    _import(lambda: CsvFiles(files, name), dry_run=dry_run, artifacts=not no_artifacts, as_json=as_json)
