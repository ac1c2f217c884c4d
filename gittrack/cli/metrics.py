"""``gittrack metrics``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output, render, text
from gittrack.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gittrack.types import MetricHistory, Run

_PLOT_HEIGHT = 16
_PLOT_WIDTH = 80
_TICKS = 6


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
    points = [(step, value) for step, value in zip(history.steps, history.values, strict=True) if math.isfinite(value)]
    width = min(output.columns() or _PLOT_WIDTH, 120)
    left_out = len(history) - len(points)
    note = f" ({text.count(left_out, 'point is', 'points are')} no number and not drawn)" if left_out else ""
    yield output.style(history.key, "bold") + note
    if len({step for step, _ in points}) < 2:
        yield from ("    " + text.number(value) for _, value in points[-1:])
        return
    import plotext

    points = _thinned(sorted(points), width * 2)
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, _PLOT_HEIGHT)
    figure.draw(figure.signal([step for step, _ in points], [value for _, value in points]).lines())
    figure.label("step", "x")
    ticks = _ticks(points[0][0], points[-1][0])
    figure.ruler("x").ticks(ticks, [f"{tick:,}" for tick in ticks])
    yield from (line.rstrip() for line in plotext.uncolorize(str(figure.build())).rstrip("\n").split("\n"))


def _ticks(low: int, high: int) -> list[int]:
    """Round steps from ``low`` to ``high``, five or so."""
    rough = max((high - low) // _TICKS, 1)
    unit = 10 ** (len(str(rough)) - 1)
    stride = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return list(range(-(-low // stride) * stride, high + 1, stride))


def _thinned(points: Sequence[tuple[int, float]], buckets: int) -> list[tuple[int, float]]:
    """At most two points a bucket: its least and its greatest, so that no spike is lost."""
    if len(points) <= 2 * buckets:
        return list(points)
    kept = []
    for number in range(buckets):
        part = points[number * len(points) // buckets : (number + 1) * len(points) // buckets]
        least, greatest = min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])
        kept += sorted({least, greatest})
    return kept
