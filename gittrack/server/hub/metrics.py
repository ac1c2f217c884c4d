"""The history of metrics."""

from __future__ import annotations

import math
from typing import Any, Final

from gittrack.errors import InvalidValueError
from gittrack.server.hub import records
from gittrack.server.hub.app import Hub
from gittrack.server.hub.messages import Message, Values, integer, messages, text, texts
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.server.hub.runs import run_scope
from gittrack.track import query
from gittrack.types import Metric

_MAX_RUNS: Final = 100
_MAX_POINTS: Final = 25_000
_MAX_SAMPLES: Final = 2_500


def _history(call: Call) -> Any:
    values = call.values
    size = values.get("max_results")
    if size is not None and size <= 0:
        raise InvalidValueError(
            f"Invalid value {size} for parameter 'max_results' supplied. It must be a positive integer."
        )
    start = query.page_offset(values.get("page_token") or None)
    found: list[Metric] = list(call.hub.tracker.metric_history(values["run_id"], values["metric_key"]))
    points = found[start:] if size is None else found[start : start + size]
    answer: records.Json = {"metrics": [records.metric(one) for one in points]} if points else {}
    end = start + len(points)
    return answer | ({"next_page_token": query.page_token(end)} if size is not None and end < len(found) else {})


def _scopes_of(hub: Hub, values: Values) -> list[Scope]:
    return [hub.run_scope(one) for one in values.get("run_ids") or values.get("run_id") or ()]


def _bulk(call: Call) -> Any:
    values = call.values
    run_ids = values.get("run_id", [])
    if not run_ids:
        raise InvalidValueError("GetMetricHistoryBulk request must specify at least one run_id.")
    if len(run_ids) > _MAX_RUNS:
        raise InvalidValueError(
            f"GetMetricHistoryBulk request cannot specify more than {_MAX_RUNS} run_ids. "
            f"Received {len(run_ids)} run_ids."
        )
    if values.get("metric_key") is None:
        raise InvalidValueError("GetMetricHistoryBulk request must specify a metric_key.")
    most = min(values.get("max_results", _MAX_POINTS), _MAX_POINTS)
    if most < 0:
        raise InvalidValueError(f"Invalid value {most} for parameter 'max_results' supplied.")
    points: list[records.Json] = []
    for run_id in sorted(run_ids):
        history = call.hub.tracker.metric_history(run_id, values["metric_key"])
        points += [records.metric(one, run_id) for one in list(history)[: most - len(points)]]
        if len(points) >= most:
            break
    return {"metrics": points}


def _sampled(call: Call) -> Any:
    """Evenly spaced steps of several runs, with the smallest and the largest step of each run."""
    values = call.values
    run_ids, most = values["run_ids"], values.get("max_results", _MAX_SAMPLES)
    if len(run_ids) > _MAX_RUNS:
        raise InvalidValueError(
            f"GetMetricHistoryBulkInterval request must specify at most {_MAX_RUNS} run_ids. "
            f"Received {len(run_ids)} run_ids."
        )
    if not 1 <= most <= _MAX_SAMPLES:
        raise InvalidValueError(f"max_results must be between 1 and {_MAX_SAMPLES}.")
    first, last = values.get("start_step"), values.get("end_step")
    if (first is None) != (last is None):
        raise InvalidValueError("If either start step or end step are specified, both must be specified.")
    if first is not None and last is not None and first > last:
        raise InvalidValueError(
            f"end_step must be greater than start_step. Found start_step={first} and end_step={last}."
        )
    histories = {run_id: list(call.hub.tracker.metric_history(run_id, values["metric_key"])) for run_id in run_ids}
    low, high = (-math.inf, math.inf) if first is None or last is None else (first, last)
    steps_of = [[one.step for one in points if low <= one.step <= high] for points in histories.values()]
    every = sorted({step for of_run in steps_of for step in of_run})
    steps = {every[index] for index in _spaced(len(every), most)}
    steps |= {end for of_run in steps_of if of_run for end in (min(of_run), max(of_run))}
    answer: list[records.Json] = []
    for run_id in run_ids:
        chosen = [one for one in histories[run_id] if one.step in steps]
        chosen.sort(key=lambda one: (one.step, one.timestamp))
        # One step may have any number of points.
        answer += [records.metric(chosen[at], run_id) for at in _spaced(len(chosen), _MAX_SAMPLES)]
    return {"metrics": answer} if answer else {}


def _spaced(count: int, most: int) -> list[int]:
    """``most`` of so many indices, as evenly spaced as can be, and the last one."""
    if count <= most:
        return list(range(count))
    return sorted({*(int(at * count / most) for at in range(most)), count - 1})


_READ: Final = Permission(Role.READER, run_scope)
_READ_ALL: Final = Permission(Role.READER, _scopes_of)
_METRICS: Final = Message(metrics=messages(records.METRIC))
_SAMPLE: Final = Message(
    run_ids=texts(required=True),
    metric_key=text(required=True),
    start_step=integer(),
    end_step=integer(),
    max_results=integer(),
)

ROUTES: Final = (
    Route(
        "GET",
        "{api}/mlflow/metrics/get-history",
        _READ,
        _history,
        Message(
            run_id=text(required=True, alias="run_uuid"),
            metric_key=text(required=True),
            page_token=text(),
            max_results=integer(),
        ),
        answer=Message(metrics=messages(records.METRIC), **records.PAGE),
    ),
    Route(
        "GET",
        "/ajax-api/2.0/mlflow/metrics/get-history-bulk",
        _READ_ALL,
        _bulk,
        Message(run_id=texts(), metric_key=text(), max_results=integer()),
        answer=_METRICS,
    ),
    Route("GET", "{api}/mlflow/metrics/get-history-bulk-interval", _READ_ALL, _sampled, _SAMPLE, answer=_METRICS),
    Route("GET", "/api/2.11/mlflow/metrics/get-history-bulk-interval", _READ_ALL, _sampled, _SAMPLE, answer=_METRICS),
)
