"""``gittrack export`` and its verbs."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from gittrack.cli import common, output, text
from gittrack.cli.moving import Group, tell
from gittrack.errors import AlreadyExistsError, InvalidValueError, UsageError

if TYPE_CHECKING:
    from gittrack.track.runs import Tracker
    from gittrack.types import Run

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Give runs and models to others: a tracker, tables, or a web site.

    `gittrack help moving` says what becomes of what.
    """


@command.command("mlflow")
@click.argument("target", metavar="URI")
@common.experiment_option
@click.option("--no-artifacts", is_flag=True, help="Leave files out.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def mlflow(target: str, experiments: tuple[str, ...], no_artifacts: bool, dry_run: bool, as_json: bool) -> None:
    """Write runs, logged models and the registry to a MLflow.

    URI is a server such as `http://localhost:5000`, or (with the package mlflow installed) a store such as
    `sqlite:///mlflow.db`. What is there already is passed over. A server's credentials are MLflow's variables
    MLFLOW_TRACKING_USERNAME, _PASSWORD and _TOKEN.
    """
    from gittrack import config
    from gittrack.convert.mlflow_export import Exporter
    from gittrack.convert.open import open_hub

    with common.tracker() as opened:
        chosen = common.experiment_ids(opened, experiments)
        hub = open_hub(target, config.environment())
        try:
            with output.Progress("exporting runs") as progress:
                report = Exporter(
                    opened,
                    hub,
                    experiments=chosen,
                    artifacts=not no_artifacts,
                    dry_run=dry_run,
                    progress=progress.update,
                ).run()
        finally:
            hub.close()
    tell(report, "export", dry_run=dry_run, as_json=as_json)


def _table_options(function: F) -> F:
    """What every table understands."""
    for option in (
        common.experiment_option,
        click.option("-a", "--all", "everything", is_flag=True, help="Also deleted runs."),
        click.option(
            "-f", "--filter", "filter_string", default="", metavar="FILTER", help="As `gittrack search` takes it."
        ),
        click.option("--force", is_flag=True, help="Replace FILE if it exists."),
        click.argument("target", metavar="FILE"),
    ):
        function = option(function)
    return function


def _history(function: F) -> F:
    return click.option("--history", is_flag=True, help="The points of all metrics instead of the runs.")(function)


@command.command("csv")
@_table_options
@_history
def csv(
    target: str, experiments: tuple[str, ...], everything: bool, filter_string: str, force: bool, history: bool
) -> None:
    """Write a table with a row per run, or per metric point, to FILE.

    `-` is standard output. Text that a spreadsheet would take for a formula gets an apostrophe before it; `gittrack
    import csv` takes it off.
    """
    from gittrack.convert import table_export

    with _runs(experiments, filter_string, everything=everything) as (opened, runs), _file(target, force=force) as out:
        if history:
            count = table_export.points_to_csv(out, table_export.points(opened, runs()))
        else:
            columns = table_export.Columns(runs(), common.experiment_names(opened))
            count = table_export.runs_to_csv(out, runs(), columns)
    _done(count, "point" if history else "run", target)


@command.command("json")
@_table_options
@click.option("--history", is_flag=True, help="With the points of all metrics.")
def json(
    target: str, experiments: tuple[str, ...], everything: bool, filter_string: str, force: bool, history: bool
) -> None:
    """Write an array with all that is known of each run to FILE.

    `-` is standard output.
    """
    from gittrack.convert import table_export

    with _runs(experiments, filter_string, everything=everything) as (opened, runs), _file(target, force=force) as out:
        count = table_export.runs_to_json(out, runs(), opened if history else None)
    _done(count, "run", target)


@command.command("parquet")
@_table_options
@_history
def parquet(
    target: str, experiments: tuple[str, ...], everything: bool, filter_string: str, force: bool, history: bool
) -> None:
    """Write a table with a row per run, or per metric point, to FILE as Parquet.

    Needs the package pyarrow.
    """
    from gittrack.convert import table_export

    with (
        _runs(experiments, filter_string, everything=everything) as (opened, runs),
        _replaced(target, force=force) as path,
    ):
        if history:
            count = table_export.points_to_parquet(str(path), table_export.points(opened, runs()))
        else:
            columns = table_export.Columns(runs(), common.experiment_names(opened))
            count = table_export.runs_to_parquet(str(path), runs(), columns)
    _done(count, "point" if history else "run", target)


@command.command("site")
@click.argument("target", metavar="DIR")
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=common.complete_runs)
@common.experiment_option
@click.option("-a", "--all", "everything", is_flag=True, help="Also deleted runs.")
@click.option("-f", "--filter", "filter_string", default="", metavar="FILTER", help="As `gittrack search` takes it.")
@click.option(
    "--max-artifact-size",
    "max_artifact",
    type=common.Bytes(),
    default="25m",
    show_default=True,
    metavar="SIZE",
    help="Name larger files, and leave them out.",
)
@click.option("--no-artifacts", is_flag=True, help="Leave all files out.")
@click.option("--no-code", is_flag=True, help="Leave out what was not committed.")
def site(
    target: str,
    runs: tuple[str, ...],
    experiments: tuple[str, ...],
    everything: bool,
    filter_string: str,
    max_artifact: int,
    no_artifacts: bool,
    no_code: bool,
) -> None:
    """Write runs as a folder that any web server shows: the web page, to look at.

    All runs, or those that are named or chosen. DIR is new, empty, or such a folder, which is replaced. What is in it
    everybody can read who can read the site: params, tags, the environment, files, and what was not committed of the
    code. `gittrack help ui` says what the page can do without a server.
    """
    from gittrack.server.hub import site as sites

    if runs and (experiments or filter_string or everything):
        raise UsageError("runs are named or chosen, not both", hint="leave `-e`, `-f` and `-a` out")
    folder = Path(target)
    sites.check_target(folder)
    with common.tracker() as opened:
        chosen = [opened.resolve(word) for word in runs] or _chosen(opened, experiments, filter_string, everything)
        options = sites.Options(max_artifact=0 if no_artifacts else max_artifact, code=not no_code)
        with output.Progress("exporting") as progress:
            report = sites.export(opened, chosen, folder, options, progress.update)
    output.message(
        f"exported {text.count(report.runs, 'run')} into `{target}`: {text.count(report.files, 'file')}, "
        f"{text.size(report.size)}"
    )
    if report.too_large and not no_artifacts:
        output.message(f"{text.count(report.too_large, 'file')} of runs left out: larger than `--max-artifact-size`")
    if report.absent:
        output.warning(
            f"{text.count(report.absent, 'file')} of runs left out: not in this clone (`gittrack artifacts fetch`)"
        )
    output.message(f"`python -m http.server -d {shlex.quote(target)}` shows it at http://localhost:8000")


def _chosen(opened: Tracker, experiments: tuple[str, ...], filter_string: str, everything: bool) -> list[str]:
    """The runs that options choose."""
    from gittrack.types import ViewType

    view = ViewType.ALL if everything else ViewType.ACTIVE_ONLY
    found = common.pages(opened, experiments=experiments, filter_string=filter_string, view=view)
    return [run.info.run_id for run in found]


Reading = Callable[[], "Iterator[Run]"]


@contextlib.contextmanager
def _runs(experiments: tuple[str, ...], filter_string: str, *, everything: bool) -> Iterator[tuple[Tracker, Reading]]:
    """The store, and a function that goes through the runs that are meant, oldest first."""
    from gittrack.types import ViewType

    view = ViewType.ALL if everything else ViewType.ACTIVE_ONLY
    order = ["attributes.start_time ASC"]
    with common.tracker() as opened, output.Progress("exporting") as progress:

        def runs() -> Iterator[Run]:
            found = common.pages(
                opened, experiments=experiments, filter_string=filter_string, view=view, order_by=order
            )
            for number, run in enumerate(found, 1):
                yield run
                progress.update(number)

        yield opened, runs


@contextlib.contextmanager
def _file(target: str, *, force: bool) -> Iterator[IO[str]]:
    """FILE as text, which appears under its name when it is whole; standard output for `-`."""
    if target == "-":
        sys.stdout.flush()
        out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", errors="backslashreplace", newline="")
        try:
            yield out
            out.flush()
        finally:
            out.detach()
        return
    with _replaced(target, force=force) as path, path.open("w", encoding="utf-8", newline="") as out:
        yield out


@contextlib.contextmanager
def _replaced(target: str, *, force: bool) -> Iterator[Path]:
    """A file that takes the place of FILE if all goes well."""
    from gittrack.store import files

    path = Path(target)
    if target == "-":
        raise InvalidValueError("this table is no text", hint="name a file")
    if path.exists() and not force:
        raise AlreadyExistsError(f"`{target}` exists", hint="`--force` replaces it")
    fd, name = files.create_temp(path.parent, 0o644)
    os.close(fd)
    temp = Path(name)
    try:
        yield temp
        with files.reporting(path):
            temp.replace(path)
    finally:
        temp.unlink(missing_ok=True)


def _done(count: int, what: str, target: str) -> None:
    output.message(f"exported {text.count(count, what)}" + ("" if target == "-" else f" into `{target}`"))
