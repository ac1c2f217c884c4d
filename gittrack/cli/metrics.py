"""``gittrack metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output, plots, render, text
from gittrack.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gittrack.types import MetricHistory, Run

_PLOT_WIDTH = 80


@common.verb()
@common.run_argument
@click.argument("keys", metavar="[KEY]…", nargs=-1)
@click.option("-p", "--plot", is_flag=True, help="Draw the history of each KEY (of every metric, without one).")
@common.json_option
def command(run: str, keys: tuple[str, ...], plot: bool, as_json: bool) -> None:
    """Show the metrics of a run, or draw them.

    Without KEY: last value, least, greatest, last step and number of points of each metric. With KEY: every point
    of it.
    """
    if plot and as_json:
        raise UsageError("`--plot` and `--json` exclude each other", hint="leave one of them out")
    with common.tracker() as opened:
        found = opened.get_run(opened.resolve(run))
        for key in keys:
            _require(found, key)
        wanted = keys or (tuple(sorted(found.data.metrics)) if plot else ())
        histories = [opened.metric_history(found.info.run_id, key) for key in wanted]
        if as_json:
            output.document({one.key: _points(one) for one in histories} if keys else _summaries(found))
        elif plot:
            output.lines(line for one in histories for line in _plot(one))
        elif keys:
            output.lines(_listings(histories))
        elif found.data.metrics:
            output.lines(render.metric_table(found, "metric"))
        else:
            output.message(f"run `{run}` has no metrics")


def _require(run: Run, key: str) -> None:
    if key not in run.data.metrics:
        hint = text.suggest(key, run.data.metrics)
        raise NotFoundError(
            f"run `{run.info.run_id[: common.SHORT]}` has no metric `{key}`",
            hint=hint or f"`gittrack metrics {run.info.run_id[: common.SHORT]}` lists its metrics",
        )


def _points(history: MetricHistory) -> list[dict[str, Any]]:
    return [{"step": one.step, "timestamp": one.timestamp, "value": one.value} for one in history]


def _summaries(run: Run) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in sorted(run.data.metrics.items()):
        result[key] = {"last": value}
        if key in run.data.summaries:
            one = run.data.summaries[key]
            result[key] |= {
                "min": one.minimum,
                "max": one.maximum,
                "step": one.step,
                "timestamp": one.timestamp,
                "count": one.count,
            }
    return result


def _listings(histories: Sequence[MetricHistory]) -> Iterator[str]:
    for place, one in enumerate(histories):
        if len(histories) > 1:
            if place:
                yield ""
            yield output.style(one.key, "bold")
        rows = ([str(point.step), repr(point.value), text.date(point.timestamp, iso=True)] for point in one)
        yield from output.table(["step", "value", "time"], rows, right=[0, 1])


def _plot(history: MetricHistory) -> Iterator[str]:
    points = plots.points_of(history)
    left_out = len(history) - len(points)
    note = f" ({text.count(left_out, 'point is', 'points are')} no number and not drawn)" if left_out else ""
    yield output.style(history.key, "bold") + note
    if plots.drawable(points):
        yield from plots.drawn([points], min(output.columns() or _PLOT_WIDTH, 120))
    else:
        yield from ("    " + text.number(value) for _, value in points[-1:])
