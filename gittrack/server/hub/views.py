"""What the web page draws: tables of runs by column, and curves of metrics that fit a screen.

Both are derived from what MLflow's routes answer too, in forms that cost a browser nothing: a column is one list, a
curve is one block of 32-bit floats.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from array import array
from collections.abc import Mapping
from typing import Final

import orjson
from starlette.responses import Response

from gittrack.errors import InvalidValueError
from gittrack.server.hub.app import Hub
from gittrack.server.hub.experiments import VIEWS
from gittrack.server.hub.messages import Message, Values, double, integer, number, one_of, text, texts
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.track import series
from gittrack.types import MetricHistory, ViewType

_MAX_RUNS: Final = 20_000
_MAX_CURVES: Final = 1000
_MAX_BUCKETS: Final = 4000
_BUCKETS: Final = 750
_SMALL: Final = 1024  #: bytes that are not worth being compressed
_COMPRESSION: Final = 4  #: of zlib: half the time of its default for a twentieth more bytes
_KINDS: Final = ("metrics", "params", "tags")


def _columns(call: Call) -> Response:
    values = call.values
    found, total = call.hub.tracker.search_columns(
        call.hub.readable(call.caller, values.get("experiment_ids", [])),
        values.get("filter", ""),
        view=values.get("run_view_type", ViewType.ACTIVE_ONLY),
        max_results=values.get("max_results", 1000),
        order_by=values.get("order_by"),
        offset=values.get("offset", 0),
        wanted={kind: values[kind] for kind in _KINDS if kind in values},
    )
    metrics = {key: [_shown(value) for value in column] for key, column in found.values["metrics"].items()}
    answer = {
        "total": total,
        "runs": found.facts,
        "metrics": metrics,
        "params": found.values["params"],
        "tags": found.values["tags"],
        # Elsewhere there may be keys that he must not know of.
        "keys": found.names if call.caller.may(Role.READER) else {kind: list(found.values[kind]) for kind in _KINDS},
    }
    return _sent(call, orjson.dumps(answer), "application/json")


def _shown(value: float | None) -> float | str | None:
    return value if value is None else number(value)


def _curves(call: Call) -> Response:
    """A chart as bytes, little-endian, as every browser is.

    The length of a JSON head (32 bits); the head, with spaces up to a multiple of eight; the axis as 64-bit floats; and
    for each curve its values as 32-bit floats, then what was smoothed, if asked for.
    """
    values = call.values
    run_ids, keys = values["run_ids"], values["metric_keys"]
    if len(run_ids) * len(keys) > _MAX_CURVES:
        raise InvalidValueError(f"at most {_MAX_CURVES} curves are drawn at a time", hint="ask for fewer runs or keys")
    axis, smoothing = values.get("axis", "step"), values.get("smoothing", 0.0)
    buckets = values.get("buckets", _BUCKETS)
    if axis not in series.AXES:
        raise InvalidValueError(f"`axis` is one of {', '.join(series.AXES)}")
    if not 0 <= smoothing < 1:
        raise InvalidValueError("`smoothing` is at least 0 and below 1")
    if not 1 <= buckets <= _MAX_BUCKETS:
        raise InvalidValueError(f"`buckets` is between 1 and {_MAX_BUCKETS}")
    named, histories = [], []
    for run_id in run_ids:
        start = call.hub.run(run_id).info.start_time or 0
        for key in keys:
            history: MetricHistory = call.hub.tracker.metric_history(run_id, key)
            if len(history):
                named.append({"run_id": run_id, "key": key})
                histories.append((history, start))
    chart = series.chart(
        histories,
        axis=axis,
        buckets=buckets,
        low=_finite(values, "low"),
        high=_finite(values, "high"),
        smoothing=smoothing,
    )
    head = {
        "axis": axis,
        "exact": chart.exact,
        "places": len(chart.axis),
        "low": None if math.isnan(chart.low) else chart.low,
        "high": None if math.isnan(chart.high) else chart.high,
        "smoothed": bool(smoothing),
        "curves": [{**name, "points": curve.points} for name, curve in zip(named, chart.curves, strict=True)],
    }
    said = orjson.dumps(head)
    said += b" " * (-(len(said) + 4) % 8)
    parts = [struct.pack("<I", len(said)), said, chart.axis.tobytes()]
    for curve in chart.curves:
        parts += [array("f", curve.values).tobytes(), array("f", curve.smoothed).tobytes()]
    return _sent(call, b"".join(parts), "application/octet-stream")


def _finite(values: Values, name: str) -> float | None:
    value: float | None = values.get(name)
    if value is not None and not math.isfinite(value):
        raise InvalidValueError(f"`{name}` is a finite number")
    return value


def _sent(call: Call, body: bytes, kind: str) -> Response:
    """An answer that a browser keeps and asks for again by its tag; compressed if it takes that."""
    headers: dict[str, str] = {"cache-control": "private, no-cache", "vary": "Accept-Encoding"}
    tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    given: Mapping[str, str] = call.request.headers
    if given.get("if-none-match") == tag:
        return Response(status_code=304, headers={**headers, "etag": tag})
    headers["etag"] = tag
    if len(body) > _SMALL and "gzip" in given.get("accept-encoding", ""):
        body = gzip.compress(body, _COMPRESSION, mtime=0)
        headers["content-encoding"] = "gzip"
    return Response(body, media_type=kind, headers=headers)


def _runs_of(hub: Hub, values: Values) -> list[Scope]:
    return [hub.run_scope(one) for one in values["run_ids"]]


ROUTES: Final = (
    Route(
        "GET",
        "{api}/gittrack/runs/columns",
        Permission(Role.READER),
        _columns,
        Message(
            experiment_ids=texts(),
            filter=text(),
            run_view_type=one_of(VIEWS),
            max_results=integer(most=_MAX_RUNS),
            order_by=texts(),
            offset=integer(),
            metrics=texts(),
            params=texts(),
            tags=texts(),
        ),
    ),
    Route(
        "GET",
        "{api}/gittrack/metrics/curves",
        Permission(Role.READER, _runs_of),
        _curves,
        Message(
            run_ids=texts(required=True),
            metric_keys=texts(required=True),
            axis=text(),
            buckets=integer(),
            low=double(),
            high=double(),
            smoothing=double(),
        ),
        answer="application/octet-stream",
    ),
)
