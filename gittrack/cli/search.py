"""``gittrack search``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output, render, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gittrack.types import Run


@common.verb()
@click.argument("filter_string", metavar="[FILTER]", default="")
@click.option(
    "-o",
    "--order-by",
    "order_by",
    multiple=True,
    metavar="KEY",
    help="Sort by this: `metrics.acc DESC`; further ones break ties.",
)
@common.limit_option
@common.experiment_option
@click.option("-a", "--all", "everything", is_flag=True, help="Also deleted runs.")
@click.option("-c", "--columns", metavar="KEYS", help="The columns to show: `metrics.acc,params.lr`.")
@click.option("--oneline", is_flag=True, help="One line per run, as `gittrack log --oneline`.")
@common.format_option
@common.json_option
def command(
    filter_string: str,
    order_by: tuple[str, ...],
    limit: int | None,
    experiments: tuple[str, ...],
    everything: bool,
    columns: str | None,
    oneline: bool,
    template: str | None,
    as_json: bool,
) -> None:
    """Find runs by their metrics, parameters, tags and attributes.

    FILTER is written in MLflow's grammar and a little more: `metrics.acc > 0.9 and params.model = 'svc'`. Quote it for
    the shell. `gittrack help search` explains all of it.
    """
    from gittrack.cli.log import renderer, show
    from gittrack.types import ViewType

    with common.tracker() as opened:
        names = common.experiment_names(opened)
        runs = common.pages(
            opened,
            experiments=experiments,
            filter_string=filter_string,
            view=ViewType.ALL if everything else ViewType.ACTIVE_ONLY,
            order_by=list(order_by) or None,
            limit=limit,
        )
        if as_json or oneline or template is not None:
            show(runs, names, renderer(oneline, template), as_json, cleaned=template is not None)
            return
        found = list(runs)
        wanted = _meant(columns, found) if columns else columns_of(found)
        if found:
            # What was asked for stands before what is always there: a narrow terminal leaves out columns at the right.
            first = 2 if columns else 5
            headers = ["run", "name", "experiment", "status", "started"]
            headers[first:first] = [title_of(key) for key in wanted]
            numeric = [first + place for place, key in enumerate(wanted) if key.startswith("metrics.")]
            output.lines(output.table(headers, _rows(found, names, wanted, first), right=numeric))
        output.message(text.count(len(found), "run"))


def title_of(key: str) -> str:
    """The heading of a column."""
    kind, _, name = key.partition(".")
    return name if kind in ("metrics", "params", "tags") else key


def _meant(columns: str, runs: Sequence[Run]) -> list[str]:
    """The columns that a person asked for; a name alone is that of a metric, parameter or tag of these runs."""
    known = [f"metrics.{key}" for run in runs for key in run.data.metrics]
    known += [f"params.{key}" for run in runs for key in run.data.params]
    known += [f"tags.{key}" for run in runs for key in run.data.tags]
    by_name = {key.partition(".")[2]: key for key in reversed(known)}
    wanted = [by_name.get(key, key) for key in map(str.strip, columns.split(","))]
    nowhere = [key for key in wanted if key not in known]
    if nowhere and runs:
        hint = text.suggest(nowhere[0], dict.fromkeys([*known, *by_name]))
        output.message(f"none of these runs has {text.quoted(nowhere)}" + (f"; {hint}" if hint else ""))
    return wanted


def columns_of(runs: Sequence[Run]) -> list[str]:
    """Every metric, then the parameters that tell these runs apart (all of them if there is one run)."""
    metrics = sorted({key for run in runs for key in run.data.metrics if not key.startswith("system/")})
    params = sorted({key for run in runs for key in run.data.params})
    if len(runs) > 1:
        params = [key for key in params if len({run.data.params.get(key) for run in runs}) > 1]
    return [f"metrics.{key}" for key in metrics] + [f"params.{key}" for key in params]


def _rows(runs: Sequence[Run], names: Mapping[str, str], wanted: Sequence[str], first: int) -> Iterator[list[str]]:
    for run in runs:
        row = [
            output.Cell(run.info.run_id[: common.SHORT], "yellow"),
            run.info.run_name,
            names.get(run.info.experiment_id, run.info.experiment_id),
            output.Cell(run.info.status, render.status_style(run.info.status)),
            text.ago(run.info.start_time),
        ]
        row[first:first] = [value_of(run, key) for key in wanted]
        yield row


def value_of(run: Run, key: str) -> str:
    """What a run has under one of these keys; empty if nothing."""
    kind, _, name = key.partition(".")
    if kind == "metrics":
        return text.number(run.data.metrics[name]) if name in run.data.metrics else ""
    return (run.data.tags if kind == "tags" else run.data.params).get(name, "")
