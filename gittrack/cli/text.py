"""Text for terminals: what may be shown, how wide it is, and how numbers, sizes and times read.

Pure functions.  Names, params and tags come from other people's programs: :func:`clean` is what stands between them
and the terminal.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

#: Control characters (C0, DEL, C1), bidirectional and other invisible formatting, line separators, lone surrogates and
#: tag characters.  Left in are the joiners U+200C and U+200D, which Persian, Hindi and emoji need.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escaped(match: re.Match[str]) -> str:
    char = match.group()
    code = ord(char)
    if char in _NAMED:
        return _NAMED[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean(text: str) -> str:
    """``text`` as one printable line: everything that could move, recolour or reorder the terminal is spelled out."""
    return _UNSAFE.sub(_escaped, text)


def clean_lines(text: str) -> list[str]:
    """``text`` as printable lines: line ends keep their meaning, tabs become spaces, else as :func:`clean`."""
    return [clean(line.expandtabs()) for line in re.split(r"\r\n|\n|\r", text)]


def width(text: str) -> int:
    """Columns that ``text`` takes: two for wide East Asian characters and emoji, none for combining marks."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def fit(text: str, columns: int, *, right: bool = False) -> str:
    """``text`` in exactly ``columns`` columns: padded, or cut with ``…``."""
    have = width(text)
    if have > columns:
        kept, used = [], 0
        for char in text:
            used += _char_width(char)
            if used > columns - 1:
                break
            kept.append(char)
        text = "".join(kept) + "…" if columns > 0 else ""
        have = width(text)
    padding = " " * (columns - have)
    return padding + text if right else text + padding


def number(value: float) -> str:
    """A metric's value with at most six significant digits; ``nan``, ``inf`` and ``-inf`` as such."""
    return f"{value:.6g}"


def count(amount: int, singular: str, plural: str | None = None) -> str:
    """``1 run``, ``2 runs``, ``10,000 runs``."""
    return f"{amount:,} {singular if amount == 1 else plural or singular + 's'}"


def runs_and_models(runs: int, models: int) -> str:
    """``2 runs``, ``1 logged model``, ``2 runs and 1 logged model``."""
    parts = [count(amount, what) for amount, what in ((runs, "run"), (models, "logged model")) if amount]
    return " and ".join(parts)


def size(amount: int) -> str:
    """Bytes as people read them: ``512 B``, ``1.4 KiB``, ``20 MiB``."""
    if amount < 1024:
        return f"{amount} B"
    power = min((amount.bit_length() - 1) // 10, 4)
    value, unit = amount / 1024**power, ("KiB", "MiB", "GiB", "TiB")[power - 1]
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def duration(milliseconds: float) -> str:
    """Elapsed time: ``340 ms``, ``12.3 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if milliseconds < 1000:
        return f"{max(milliseconds, 0):.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def date(milliseconds: int, *, iso: bool = False) -> str:
    """A point in time in the local zone, as git writes it (``Mon Nov 23 16:33:50 2026 +0000``) or as ISO 8601.

    A time that the calendar cannot hold (a hostile record can claim any) is shown as its number.
    """
    try:
        local = time.localtime(milliseconds / 1000)
    except (OverflowError, OSError, ValueError):
        return f"{milliseconds} ms"
    if iso:
        zone = time.strftime("%z", local)
        return time.strftime("%Y-%m-%dT%H:%M:%S", local) + f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%a %b', local)} {local.tm_mday} {time.strftime('%H:%M:%S %Y %z', local)}"


def ago(milliseconds: int, *, now: float | None = None) -> str:
    """How long ago, in one unit: ``12 seconds ago``, ``2 hours ago``, ``in the future``."""
    seconds = (time.time() if now is None else now) - milliseconds / 1000
    if seconds < -1:
        return "in the future"
    for limit, unit, name in (
        (90, 1, "second"),
        (90 * 60, 60, "minute"),
        (36 * 3600, 3600, "hour"),
        (14 * 86400, 86400, "day"),
        (70 * 86400, 7 * 86400, "week"),
        (730 * 86400, 30 * 86400, "month"),
    ):
        if seconds < limit:
            return count(max(int(seconds // unit), 0), name) + " ago"
    return count(int(seconds // (365 * 86400)), "year") + " ago"


def quoted(names: Iterable[str]) -> str:
    """Names in backticks, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def listed(names: Sequence[str], columns: int) -> str:
    """Names in backticks, as many as fit into ``columns`` columns (at least one), and how many there are more."""
    for shown in range(len(names), 0, -1):
        more = f" and {len(names) - shown:,} more" if shown < len(names) else ""
        line = quoted(names[:shown]) + more
        if width(clean(line)) <= columns:
            break
    return line


def wrapped(items: Iterable[str], columns: int | None) -> Iterator[str]:
    """``items`` with a space between them, in lines of at most ``columns`` columns, broken between items only."""
    line = ""
    for item in items:
        if line and columns is not None and width(clean(line)) + 1 + width(clean(item)) > columns:
            yield line
            line = item
        else:
            line = f"{line} {item}" if line else item
    if line:
        yield line


def suggest(word: str, known: Iterable[str]) -> str | None:
    """``did you mean `x`?`` for the names in ``known`` that look like ``word``; None if none does."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(f'`{name}`' for name in found)}?" if found else None
