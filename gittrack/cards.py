"""Records as HTML for notebooks: tables, and beside a metric the line that it took, which read well wherever they are.

No style, no script, no address: what viewers such as GitHub's take out is not missed, and light and dark are theirs;
a line has the colour of the text.  Every text of a record is escaped; of what was measured only numbers are in a line.
Knows records by their fields only, so that ``types`` may ask it; where points are, ``points_of`` is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

_MOST_ROWS: Final = 50  #: of a table; how many there are more is said
_MOST_COLUMNS: Final = 20
_LONGEST: Final = 300  #: characters of a value
_SHORT: Final = 8  #: characters of a run's id beside others
#: Lines of a card, and points of the metrics that they stand for: nobody waits for a picture.
_MOST_LINES: Final = 200
_MOST_POINTS: Final = 500_000
_WIDE, _HIGH = 60, 14  #: pixels of a line

#: A few of the values of a run's metric in their order, every peak among them; NaN where the line has a gap, and
#: nothing if the run is unknown.  Who opens stores says how (``session``).
points_of: Callable[[str, str], Sequence[float]] | None = None


class _Html(str):
    """A cell that is HTML by now."""

    __slots__ = ()


class _Lines:
    """The metrics of one card as cells, with lines until there are enough."""

    def __init__(self) -> None:
        self._lines = _MOST_LINES
        self._points = _MOST_POINTS

    def cell(self, run: Any, key: str) -> Any:
        """The last value, and the line to it."""
        value = run.data.metrics.get(key, "")
        known = run.data.summaries.get(key)
        if points_of is None or known is None or known.count < 2 or not self._lines or known.count > self._points:
            return value
        self._lines -= 1
        self._points -= known.count
        return _Html(f"{_text(value)} {_line(points_of(run.info.run_id, key))}".rstrip())


def _line(values: Sequence[float]) -> str:
    """A drawing of some values; nothing if it would show nothing."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    across = (_WIDE - 2) / (len(values) - 1)
    path, pen = [], "M"
    for at, value in enumerate(values):
        if not math.isfinite(value):
            pen = "M"
            continue
        up = value / 2 - low / 2, high / 2 - low / 2  # halves: what is between the ends may be too large for a float
        y = 1 + (_HIGH - 2) * (1 - (up[0] / up[1] if up[1] else 0.5))
        path.append(f"{pen}{1 + at * across:.1f} {y:.1f}")
        pen = "L"
    return (
        f'<svg width="{_WIDE}" height="{_HIGH}" viewBox="0 0 {_WIDE} {_HIGH}" aria-hidden="true">'
        f'<path d="{"".join(path)}" fill="none" stroke="currentColor"></path></svg>'
    )


def run(found: Any) -> str:
    """A run: what it is, its metrics, its parameters."""
    info, data = found.info, found.data
    commit = found.code.get("commit")
    code = (
        "" if not commit else f"{str(commit)[:_SHORT]}{' with uncommitted changes' if found.code.get('dirty') else ''}"
    )
    took = "" if info.end_time is None else f"{(info.end_time - info.start_time) / 1000:,.1f} s"
    facts = {"Run": info.run_id, "Status": info.status, "Started": _time(info.start_time), "Took": took,
             "User": info.user_id, "Code": code}  # fmt: skip
    lines = _Lines()
    metrics = [
        (
            key,
            lines.cell(found, key),
            *((one.minimum, one.maximum, one.step) if one is not None and one.count > 1 else ("", "", "")),
        )
        for key in sorted(data.metrics)
        for one in [data.summaries.get(key)]
    ]
    params = sorted(data.params.items())
    return _card(
        info.run_name,
        _facts(facts),
        _table(("Metric", "Last", "Min", "Max", "Step"), metrics),
        _table(("Parameter", "Value"), params),
    )


def runs(found: Sequence[Any]) -> str:
    """Runs beside each other, a row each: what tells them apart, metrics before parameters, then the other metrics."""

    def keys(kind: str) -> list[str]:
        every = {key for one in found for key in getattr(one.data, kind)}
        return sorted(key for key in every if kind == "params" or not key.startswith("system/"))

    def differs(kind: str, key: str) -> bool:
        return len({repr(getattr(one.data, kind).get(key)) for one in found}) > 1  # NaN is what it is

    columns = [(kind, key) for kind in ("metrics", "params") for key in keys(kind) if differs(kind, key)]
    columns += [("metrics", key) for key in keys("metrics") if ("metrics", key) not in columns]
    if len(found) == 1:
        columns += [("params", key) for key in keys("params")]
    shown, left = columns[:_MOST_COLUMNS], len(columns) - _MOST_COLUMNS
    lines = _Lines()
    rows = [
        (
            one.info.run_name,
            one.info.run_id[:_SHORT],
            one.info.status,
            _time(one.info.start_time),
            *(lines.cell(one, key) if kind == "metrics" else one.data.params.get(key, "") for kind, key in shown),
        )
        for one in found[:_MOST_ROWS]
    ]
    more = f"<p>{left} more columns are not shown.</p>" if left > 0 else ""
    heads = ("Run", "Id", "Status", "Started", *(key for _, key in shown))
    return f"<div>{_table(heads, rows, len(found))}{more}</div>"


def version(found: Any) -> str:
    """A version of a model."""
    stage = "" if found.current_stage in (None, "None") else found.current_stage
    facts = {"Stage": stage, "Aliases": ", ".join(f"@{one}" for one in found.aliases), "Run": found.run_id or "",
             "Made": _time(found.creation_timestamp), "Description": found.description or ""}  # fmt: skip
    return _card(f"{found.name} v{found.version}", _facts(facts), _table(("Tag", "Value"), sorted(found.tags.items())))


def model(found: Any) -> str:
    """A registered model and its newest versions."""
    rows = [
        (
            f"v{one.version}",
            "" if one.current_stage in (None, "None") else one.current_stage,
            (one.run_id or "")[:_SHORT],
        )
        for one in found.latest_versions
    ]
    aliases = ", ".join(f"@{alias} v{number}" for alias, number in found.aliases.items())
    facts = {"Aliases": aliases, "Description": found.description or ""}
    return _card(found.name, _facts(facts), _table(("Version", "Stage", "Run"), rows))


def _card(title: str, *parts: str) -> str:
    return f"<div><p><b>{_text(title)}</b></p>{''.join(parts)}</div>"


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{name}</th><td>{_text(value)}</td></tr>" for name, value in facts.items() if value)
    return f"<table>{rows}</table>" if rows else ""


def _table(headers: Iterable[str], rows: Sequence[Sequence[Any]], total: int | None = None) -> str:
    """Nothing if there are no rows; ``total`` is how many there are if not all of them were made."""
    if not rows:
        return ""
    head = "".join(f"<th>{_text(name)}</th>" for name in headers)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows[:_MOST_ROWS])
    left = (len(rows) if total is None else total) - _MOST_ROWS
    more = f"<p>{left} more are not shown.</p>" if left > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _text(value: Any) -> str:
    """A value for a cell: numbers with six digits, texts escaped and not too long."""
    from html import escape

    if isinstance(value, _Html):
        return value
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    shown = str(value)
    return escape(shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…")


def _time(milliseconds: int) -> str:
    """In UTC: a notebook is read in other places than where it was run."""
    try:
        return f"{datetime.fromtimestamp(milliseconds / 1000, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # a hostile record can claim any
        return str(milliseconds)
