"""What the web page draws: tables of runs by column, curves of metrics that fit a screen, and their points as CSV.

All are derived from what MLflow's routes answer too, in forms that cost a browser nothing: a column is one list, a
curve is one block of 32-bit floats.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.responses import Response, StreamingResponse

from gittrack._version import __version__
from gittrack.convert.tables import HISTORY, guarded, to_time
from gittrack.errors import InvalidValueError
from gittrack.server.hub.app import Hub
from gittrack.server.hub.experiments import VIEWS
from gittrack.server.hub.messages import Message, Values, boolean, double, integer, number, one_of, text, texts
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.track import series
from gittrack.types import MetricHistory, ViewType

_MAX_RUNS: Final = 20_000
_MAX_CURVES: Final = 1000
_MAX_BUCKETS: Final = 4000
_BUCKETS: Final = 750
_SPARK_BUCKETS: Final = 24
_SMALL: Final = 1024  #: bytes that are not worth being compressed
_COMPRESSION: Final = 4  #: of zlib: half the time of its default for a twentieth more bytes
_ROWS: Final = 5000  #: of CSV that are sent at a time
_ALONG: Final = "metrics."  #: how an axis begins that is a metric
_KINDS: Final = ("metrics", "params", "tags")
_KEYS: Final = 100  #: of a kind, that are named at a time
#: Tags that are no columns: what MLflow and gittrack keep there.
_KEPT: Final = ("mlflow.", "gittrack.")


def _columns(call: Call) -> Response:
    values = call.values
    also = [one.partition(".") for one in values.get("also", [])]
    found, total = call.hub.tracker.search_columns(
        call.hub.readable(call.caller, values.get("experiment_ids", [])),
        values.get("filter", ""),
        view=values.get("run_view_type", ViewType.ACTIVE_ONLY),
        max_results=values.get("max_results", 1000),
        order_by=values.get("order_by"),
        offset=values.get("offset", 0),
        wanted={kind: values[kind] for kind in _KINDS if kind in values},
        also={kind: [key for of, _, key in also if of == kind] for kind in _KINDS},
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
    return sent(call, orjson.dumps(answer), "application/json")


def _shown(value: float | None) -> float | str | None:
    return value if value is None else number(value)


def _some_keys(call: Call) -> Any:
    """Of each kind the first keys with a text in them, and how many there are."""
    values = call.values
    where = call.hub.readable(call.caller, values.get("experiment_ids", []))
    wanted, answer = values.get("contains", "").casefold(), {}
    for kind, keys in call.hub.tracker.run_keys(where, values.get("run_view_type", ViewType.ACTIVE_ONLY)).items():
        fitting = [key for key in keys if wanted in key.casefold() and not (kind == "tags" and key.startswith(_KEPT))]
        answer[kind] = {"keys": fitting[:_KEYS], "total": len(fitting)}
    return answer


def _ranges(call: Call) -> Any:
    """Of metrics the least and the greatest finite value: for the table, where not all runs are in the browser."""
    values = call.values
    found = call.hub.tracker.metric_ranges(
        values["metric_keys"],
        call.hub.readable(call.caller, values.get("experiment_ids", [])),
        values.get("filter", ""),
        view=values.get("run_view_type", ViewType.ACTIVE_ONLY),
    )
    return {"ranges": found}


def _curves(call: Call) -> Response:
    """Charts as bytes, little-endian, as every browser is: one, or where they are `apart` one for each key.

    Of each the length of a JSON head (32 bits); the head, with spaces up to a multiple of eight; the axis as 64-bit
    floats; and for each curve its values as 32-bit floats, then what was smoothed, if asked for; for each group its
    mean, its least and its greatest values.  Zeros follow up to a multiple of eight.
    """
    values = call.values
    run_ids, keys = _asked(values)
    groups = values.get("groups")
    axis, smoothing = values.get("axis", "step"), values.get("smoothing", 0.0)
    buckets = values.get("buckets", _BUCKETS)
    if axis not in series.AXES and not axis.startswith(_ALONG):
        raise InvalidValueError(f"`axis` is one of {', '.join(series.AXES)}, or {_ALONG}<key>")
    if not 0 <= smoothing < 1:
        raise InvalidValueError("`smoothing` is at least 0 and below 1")
    if not 1 <= buckets <= _MAX_BUCKETS:
        raise InvalidValueError(f"`buckets` is between 1 and {_MAX_BUCKETS}")
    if groups is not None and len(groups) != len(run_ids):
        raise InvalidValueError("`groups` has a group for each run")
    group_of = None if groups is None else dict(zip(run_ids, groups, strict=True))
    window = {"low": _finite(values, "low"), "high": _finite(values, "high")}

    def drawn() -> bytes:
        return b"".join(
            _chart(
                [curve for key in together for curve in _histories(call, run_ids, key, axis)],
                axis,
                group_of,
                {**window, "buckets": buckets, "smoothing": smoothing},
            )
            for together in ([[key] for key in keys] if values.get("apart") else [keys])
        )

    return _of_runs(call, run_ids, drawn, "application/octet-stream")


def _histories(
    call: Call, run_ids: Sequence[str], key: str, axis: str
) -> Iterator[tuple[dict[str, str], MetricHistory, int]]:
    """The curves of a metric: what each is called, its points, and when its run began."""
    for run_id in run_ids:
        history: MetricHistory = call.hub.tracker.metric_history(run_id, key)
        if axis.startswith(_ALONG) and len(history):
            history = series.along(history, call.hub.tracker.metric_history(run_id, axis.removeprefix(_ALONG)))
        if len(history):
            yield {"run_id": run_id, "key": key}, history, call.hub.run(run_id).info.start_time or 0


def _chart(
    curves: Sequence[tuple[dict[str, str], MetricHistory, int]],
    axis: str,
    groups: Mapping[str, str] | None,
    options: Mapping[str, Any],
) -> bytes:
    """One chart of an answer."""
    histories = [(history, start) for _, history, start in curves]
    place = "step" if axis.startswith(_ALONG) else axis
    found: series.Chart | series.Bands
    named: list[dict[str, Any]]
    if groups is None:
        found = series.chart(histories, axis=place, **options)
        columns = [column for curve in found.curves for column in (curve.values, curve.smoothed)]
        named = [{**name, "points": curve.points} for (name, _, _), curve in zip(curves, found.curves, strict=True)]
    else:
        of_curves = [(groups[name["run_id"]], name["key"]) for name, _, _ in curves]
        found = series.bands(histories, of_curves, axis=place, **options)
        columns = [column for band in found.bands for column in (band.mean, band.least, band.greatest)]
        named = [
            {"group": group, "key": key, "runs": band.curves, "points": band.points}
            for (group, key), band in zip(dict.fromkeys(of_curves), found.bands, strict=True)
        ]
    head = {
        "axis": axis,
        "exact": found.exact,
        "places": len(found.axis),
        "low": None if math.isnan(found.low) else found.low,
        "high": None if math.isnan(found.high) else found.high,
        "smoothed": groups is None and bool(options["smoothing"]),
        "curves": named,
    }
    said = orjson.dumps(head)
    said += b" " * (-(len(said) + 4) % 8)
    body = struct.pack("<I", len(said)) + said + found.axis.tobytes()
    body += b"".join(array("f", column).tobytes() for column in columns)
    return body + bytes(-len(body) % 8)


def _keys(call: Call) -> dict[str, list[str]]:
    """The metrics that any of some runs has: of a table's columns only the first are sent unasked."""
    return {"metric_keys": sorted({key for one in call.values["run_ids"] for key in call.hub.run(one).data.metrics})}


def _points(call: Call) -> Response:
    """Every point, one a row, as `gittrack export` writes them; sent while it is read."""
    headers = {"content-disposition": 'attachment; filename="points.csv"', "cache-control": "private, no-store"}
    run_ids = [
        call.hub.run(one).info.run_id for one in call.values["run_ids"]
    ]  # what is missing is said before it begins
    rows = _rows(call, run_ids, call.values["metric_keys"])
    return StreamingResponse(rows, media_type="text/csv", headers=headers)


def _rows(call: Call, run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[str]:
    piece = io.StringIO()
    writer = csv.writer(piece, lineterminator="\r\n")
    writer.writerow(HISTORY)
    for run_id in run_ids:
        for key in keys:
            named = [run_id, guarded(key)]
            for number_of_row, point in enumerate(call.hub.tracker.metric_history(run_id, key), 1):
                writer.writerow([*named, point.step, to_time(point.timestamp), repr(point.value)])
                if number_of_row % _ROWS == 0:
                    yield piece.getvalue()
                    piece.seek(0)
                    piece.truncate()
    yield piece.getvalue()


def _asked(values: Values) -> tuple[list[str], list[str]]:
    run_ids, keys = values["run_ids"], values["metric_keys"]
    if len(run_ids) * len(keys) > _MAX_CURVES:
        raise InvalidValueError(f"at most {_MAX_CURVES} curves are drawn at a time", hint="ask for fewer runs or keys")
    return run_ids, keys


def _sparklines(call: Call) -> Response:
    """Curves for the cells of a table: each on an axis of its own, and no finer than a cell shows."""
    run_ids, keys = _asked(call.values)

    def drawn() -> bytes:
        lines: dict[str, dict[str, list[float | None]]] = {}
        for run_id in run_ids:
            for key in keys:
                history = call.hub.tracker.metric_history(run_id, key)
                if len(history) > 1:
                    line = series.chart([(history, 0)], buckets=_SPARK_BUCKETS).curves[0].values
                    values = [float(f"{value:.4g}") if math.isfinite(value) else None for value in line]
                    lines.setdefault(run_id, {})[key] = values
        return orjson.dumps({"lines": lines})

    return _of_runs(call, run_ids, drawn, "application/json")


def _finite(values: Values, name: str) -> float | None:
    value: float | None = values.get(name)
    if value is not None and not math.isfinite(value):
        raise InvalidValueError(f"`{name}` is a finite number")
    return value


def sent(call: Call, body: bytes, kind: str) -> Response:
    """An answer that a browser keeps and asks for again by its tag; compressed if it takes that."""
    return _tagged(call, body, lambda: body, kind)


def _of_runs(call: Call, run_ids: Sequence[str], work: Callable[[], bytes], kind: str) -> Response:
    """As ``sent``, but what follows from some runs and the question alone is not worked out for who has it already."""
    known = (__version__, dict(call.values), call.hub.tracker.repo.versions(run_ids))
    return _tagged(call, orjson.dumps(known, option=orjson.OPT_SORT_KEYS), work, kind)


def _tagged(call: Call, known: bytes, work: Callable[[], bytes], kind: str) -> Response:
    """What ``work`` says; the same things known, it says the same."""
    headers: dict[str, str] = {"cache-control": "private, no-cache", "vary": "Accept-Encoding"}
    tag = f'"{hashlib.blake2b(known, digest_size=16).hexdigest()}"'
    given: Mapping[str, str] = call.request.headers
    if given.get("if-none-match") == tag:
        return Response(status_code=304, headers={**headers, "etag": tag})
    headers["etag"] = tag
    body = work()
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
            also=texts(),
        ),
    ),
    Route(
        "GET",
        "{api}/gittrack/runs/keys",
        Permission(Role.READER),
        _some_keys,
        Message(experiment_ids=texts(), run_view_type=one_of(VIEWS), contains=text()),
    ),
    Route(
        "GET",
        "{api}/gittrack/runs/ranges",
        Permission(Role.READER),
        _ranges,
        Message(experiment_ids=texts(), filter=text(), run_view_type=one_of(VIEWS), metric_keys=texts(required=True)),
    ),
    Route(
        "GET",
        "{api}/gittrack/metrics/curves",
        Permission(Role.READER, _runs_of),
        _curves,
        Message(
            run_ids=texts(required=True),
            metric_keys=texts(required=True),
            groups=texts(),
            apart=boolean(),
            axis=text(),
            buckets=integer(),
            low=double(),
            high=double(),
            smoothing=double(),
        ),
        answer="application/octet-stream",
    ),
    Route(
        "GET",
        "{api}/gittrack/metrics/keys",
        Permission(Role.READER, _runs_of),
        _keys,
        Message(run_ids=texts(required=True)),
        answer=Message(metric_keys=texts()),
    ),
    Route(
        "GET",
        "{api}/gittrack/metrics/points",
        Permission(Role.READER, _runs_of),
        _points,
        Message(run_ids=texts(required=True), metric_keys=texts(required=True)),
        answer="text/csv",
    ),
    Route(
        "GET",
        "{api}/gittrack/metrics/sparklines",
        Permission(Role.READER, _runs_of),
        _sparklines,
        Message(run_ids=texts(required=True), metric_keys=texts(required=True)),
    ),
)
