"""What the page works out itself where it has no server, and what Python works out: the same, from the same numbers.

`UPDATE_SNAPSHOTS=1` writes the numbers anew; `npm test` in `gittrack/ui` reads them, too.
"""

import json
import math
import os
import random
from array import array
from pathlib import Path
from typing import Any

import gittrack
from gittrack.errors import QuerySyntaxError
from gittrack.track import series
from gittrack.track.query import RUNS as RUNS_ENTITY, parse_filter
from gittrack.track.query.python import predicate
from gittrack.types import MetricHistory, MetricSummary, Run, RunData, RunInfo
from tests.track.test_query import ERRORS

VECTORS = Path(gittrack.__file__).parent / "ui" / "src" / "lib" / "site"
START = 1_700_000_000_000
NAME = "mlflow.runName"
FACTS = ("run_id", "run_name", "status", "user_id", "start_time", "end_time", "commit", "branch", "dirty")


def number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def check(name: str, found: Any) -> None:
    """The file says what Python says."""
    path = VECTORS / name
    lines = ",\n".join(json.dumps(one) for one in found)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(f"[\n{lines}\n]\n")
    assert path.read_text() == f"[\n{lines}\n]\n"


def history(draw: random.Random, count: int, *, odd: bool) -> MetricHistory:
    steps = [step * draw.choice([1, 2]) for step in range(count)]
    if odd:
        draw.shuffle(steps)
    values = [round(draw.choice([draw.gauss(0, 1), draw.gauss(0, 100)]), 2) for _ in range(count)]
    for at in range(0, count if odd else 0, 4):
        values[at] = draw.choice([math.nan, math.inf, -math.inf])
    times = sorted(START + draw.randrange(100_000) for _ in range(count))
    return MetricHistory("m", array("q", steps), array("q", times), array("d", values))


def test_curves() -> None:
    draw = random.Random(7)
    cases: list[Any] = []
    for odd in (False, True):
        for window in (
            {"buckets": 20}, {"buckets": 3}, {"buckets": 4, "smoothing": 0.8}, {"buckets": 30, "smoothing": 0.5},
            {"buckets": 3, "low": 4.5, "high": 20.0}, {"buckets": 6, "axis": "time"},
            {"buckets": 40, "axis": "relative", "smoothing": 0.3}, {"buckets": 1}, {"buckets": 9, "low": 1e9},
        ):  # fmt: skip
            histories = [(history(draw, count, odd=odd), START + 10 * count) for count in (13, 9, 1, 0)]
            groups = ["a", "b", "a", "b"]
            cases.append([window, histories, groups])
    written = []
    for window, histories, groups in cases:
        plain = [
            ([*one.steps], [*one.timestamps], [number(value) for value in one.values], start)
            for one, start in histories
        ]
        chart, bands = series.chart(histories, **window), series.bands(histories, groups, **window)
        along = series.along(histories[0][0], histories[1][0])
        said = {
            "window": {"axis": "step", **window},
            "histories": plain,
            "groups": groups,
            "axis": [number(one) for one in chart.axis],
            "exact": chart.exact,
            "low": number(chart.low),
            "high": number(chart.high),
            "curves": [[c.points, [*map(number, c.values)], [*map(number, c.smoothed)]] for c in chart.curves],
            "band_axis": [number(one) for one in bands.axis],
            "bands": [
                [b.curves, b.points, *([*map(number, column)] for column in (b.mean, b.least, b.greatest))]
                for b in bands.bands
            ],
            "along": [[number(one) for one in column] for column in (along.steps, along.timestamps, along.values)],
        }
        written.append(said)
    check("series.vectors.json", written)


def run(number: int, params: dict[str, str], tags: dict[str, str], metrics: dict[str, list[float]]) -> Run:
    summaries = {
        key: MetricSummary(values[-1], 0, 0, min(values), max(values), len(values)) for key, values in metrics.items()
    }
    info = RunInfo(f"run{number}", "0", "ana" if number % 2 else "Bo", "FINISHED", START + number,
                   None if number == 2 else START + 9000, "active", "", tags[NAME])  # fmt: skip
    data = RunData({key: one.value for key, one in summaries.items()}, params, tags, summaries)
    code = {"commit": "abc", "branch": "main", "dirty": number == 1} if number else {}
    return Run(info, data, code=code)


LOSS = [3.0, 1.0, 2.0]
RUNS = [
    run(0, {"lr": "0.1", "model": "resnet"}, {"team": "blue", NAME: "first"}, {"acc": [0.5, 0.9]}),
    run(1, {"lr": "1e-3", "model": "Straße"}, {"team": "BLUE", NAME: "2", "a b": "x"}, {"acc": [0.2], "loss": LOSS}),
    run(2, {"lr": " Inf ", "model": "a.b*c"}, {"note": "a\nb", NAME: "3"}, {"acc": [math.nan], "loss.min": [7.0]}),
    run(3, {"lr": "ten", "größe": "é\U0001f600"}, {NAME: "4s"}, {"loss": [math.inf], "acc": [1.0]}),
]
FILTERS = [
    "", " ", "metrics.acc > 0.5", "metrics.acc >= 0.9 AND params.lr = '0.1'", "metrics.acc != 1", "metrics.acc < 1.0",
    "metrics.acc IS NULL", "metrics.loss IS NOT NULL", "metrics.loss > 1e308", "metric.acc=.9", "metrics.acc = 1 AND ",
    "metrics.loss.min = 7", "metrics.loss.max = 3", "metrics.\"loss\".min = 1", "metrics.`loss.min` > 0",
    "metrics.loss.last = 2", "params.lr > 0.01", "params.lr != 0.1", "params.lr <= 1E-3", "params.lr > 1e300",
    "params.model LIKE 'res%'", "params.model LIKE '%e_s%'", "params.model LIKE 'a.b*c'", "params.model LIKE 'a_b_c'",
    "params.model ILIKE '%STRASSE%'", "params.model ILIKE 'RESNET'", "params.model LIKE ''", "tags.note LIKE 'a%b'",
    "params.größe LIKE '_\U0001f600'", "params.größe LIKE '__'", "params.`größe` LIKE '_'", "tags.team = 'blue'",
    "tags.team IN ('blue', 'BLUE')", "tags.team NOT IN ('blue')", "tags.team != 'blue'", "NOT tags.team = 'blue'",
    "tags.'a b' = 'x'", "tags.`a b` = 'x'", "tags.\"a b\" IN (\"x\",)", "attributes.status = 'FINISHED'",
    "run_name = 'first'", "run.run_name LIKE '%s%'", "`run name` = 'first'", "\"Run Name\" != 'first'",
    "user_id ILIKE 'b%'", f"start_time > {START + 1}", f"attr.end_time <= {START + 9000}", "end_time IS NULL",
    f"created = {START}",
    "commit IS NULL", "branch = 'main'", "dirty = 'true'", "attributes.dirty != 'true'", "run_id IN ('run1','run3')",
    "tags.team = 'blue' OR metrics.acc = 1 AND params.lr = 'ten'", "NOT (tags.team = 'blue' OR NOT metrics.acc > 0)",
    "not not metrics.acc > 0", "(((metrics.acc > 0)))", "params.lr is null", "params.lr IS  NOT\nNULL",
    "params.__class__ = 'x'", "params.constructor IS NULL", "tags.toString IS NOT NULL",
    "NOT " * 51 + "metrics.acc > 0", "metrics.acc > 00.5", "metrics.acc > +5", "metrics.acc > -5.",
    "params.\U0001f600 = 1", "params.a = 'it''s'", "tags.ﬁ = 'x' AND nope.x = 1",
]  # fmt: skip


def test_filters() -> None:
    metrics = {key for one in RUNS for key in one.data.metrics}
    written: list[dict[str, Any]] = []
    for text in [*FILTERS, *(text for text, _, _ in ERRORS)]:
        if "\ud800" in text or text.startswith("datasets"):  # no JSON has it; no copy has them
            continue
        try:
            meets = predicate(parse_filter(text, has_metric=metrics.__contains__))
            found = [one.info.run_id for one in RUNS if meets(one)]
            written.append({"text": text, "meets": found})
        except QuerySyntaxError as error:
            written.append({"text": text, "column": error.column})
    assert sum("meets" in one for one in written) > 60
    runs = [
        {
            "params": one.data.params,
            "tags": one.data.tags,
            "metrics": {
                key: {"last": number(s.value), "min": number(s.minimum), "max": number(s.maximum)}
                for key, s in one.data.summaries.items()
            },
            "facts": {name: RUNS_ENTITY.attributes[name].read(one) for name in FACTS},
        }
        for one in RUNS
    ]
    check("query.vectors.json", [{"runs": runs}, *written])
