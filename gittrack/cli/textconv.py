"""``gittrack textconv``: what git calls to show a run's records as text (set up by ``gittrack init``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gittrack.cli import common, output, text
from gittrack.errors import FormatError


@common.verb(hidden=True)
@click.argument("path", metavar="FILE")
def command(path: str) -> None:
    """Print a record of a run commit as text, one fact a line."""
    from gittrack.store import codec

    data = Path(path).read_bytes()
    try:
        points = codec.unpack_points(data)
    except FormatError:
        lines = _facts("", _readable(codec.unpack(data)))
    else:
        lines = (_history(key, *columns) for key, columns in sorted(points.items()))
    output.lines(lines)


def _readable(record: Any) -> Any:
    """A record without its bookkeeping: which journals are in it, and who changed a field after how many changes."""
    if not (isinstance(record, dict) and isinstance(record.get("fields"), dict)):
        return record
    facts = {key: value for key, value in record.items() if key not in ("absorbed", "fields")}
    return facts | {key: entry[-1] for key, entry in record["fields"].items() if isinstance(entry, list) and entry}


def _facts(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from _facts(f"{name}.{key}" if name else str(key), value[key])
    elif isinstance(value, str):
        first, *rest = text.clean_lines(value)
        yield f"{name}: {first}"
        yield from ("    " + line for line in rest)
    elif value is not None:
        yield f"{name}: {json.dumps(value, ensure_ascii=False, default=str)}"


def _history(key: str, steps: Any, timestamps: Any, values: Any) -> str:
    if not len(values):
        return f"{key}: no points"
    numbers = [value for value in values if value == value]
    spread = f", {text.number(min(numbers))} to {text.number(max(numbers))}" if numbers else ""
    last = text.number(values[-1])
    return f"{key}: {text.count(len(values), 'point')}, steps {min(steps)} to {max(steps)}, last {last}{spread}"
