"""Runs as a table: the columns that CSV and Parquet files have, for both directions.

A table of runs has a row per run: ``run_id``, ``experiment``, ``name``, ``status``, ``start_time``, ``end_time``,
``user``, ``lifecycle_stage``, then ``params.<key>``, ``metrics.<key>`` (the last value) and ``tags.<key>``, as MLflow's
``search_runs`` names them.  A table of histories has a row per point: ``run_id``, ``key``, ``step``, ``timestamp``,
``value``.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

FACTS: Final = ("run_id", "experiment", "name", "status", "start_time", "end_time", "user", "lifecycle_stage")
HISTORY: Final = ("run_id", "key", "step", "timestamp", "value")
PREFIXES: Final = ("params.", "metrics.", "tags.")

#: How a cell begins that a spreadsheet takes for a formula, perhaps after what ``guarded`` put before it.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


def guarded(text: str) -> str:
    """A text as a cell of CSV that no spreadsheet runs: what would be a formula gets an apostrophe."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguarded(cell: str) -> str:
    """The inverse of ``guarded``."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def to_time(milliseconds: int | None) -> str:
    """Milliseconds since the epoch as ``2026-11-26T14:48:38.648+00:00``; the empty text for none."""
    if milliseconds is None:
        return ""
    try:
        return (_EPOCH + dt.timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds")
    except OverflowError:
        return str(milliseconds)


def from_time(text: str) -> int | None:
    """Milliseconds since the epoch from ISO 8601 (UTC if it does not say), or from a number of (milli)seconds.

    Returns:
        None for what is neither.
    """
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if not abs(number) < 1e18:
            return None
        return int(number if abs(number) >= 1e11 else number * 1000)  # 1e11 s are in the year 5138
    try:
        found = dt.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
    except ValueError:
        return None
    if found.tzinfo is None:
        found = found.replace(tzinfo=dt.timezone.utc)
    return round((found - _EPOCH) / dt.timedelta(milliseconds=1))
