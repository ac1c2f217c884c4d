"""Everything that reaches the terminal goes through here: lines, tables, JSON, colour, the pager, progress, errors.

Standard output carries data only; what is said about the data goes to standard error.  A line is cleaned here (see
:func:`gittrack.cli.text.clean`), whoever made it: only styles that :func:`style` added survive as escape sequences, so
no name, parameter or tag that a run carries can command the terminal.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from types import TracebackType
from typing import Any, Final, TextIO

from gittrack.cli import text

_CODES: Final = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
#: Marks a style inside a line until it is printed.  Unguessable, so that stored text cannot hold one.
_NONCE: Final = os.urandom(8).hex()
_STYLED: Final = re.compile(f"\x00{_NONCE}(\\d+)\x00")
_CELL: Final = 40  # columns of a cell, where a table is too wide
_LAST: Final = 16  # columns that are worth having of a last column
_LESS: Final = "FRX"  # git's choice: leave when it fits, pass colours, keep the screen


@dataclass
class Settings:
    """What the person asked for on the command line.

    Attributes:
        color: ``auto`` (on a terminal), ``always`` or ``never``.
        pager: False after ``--no-pager``.
    """

    color: str = "auto"
    pager: bool = True


settings = Settings()


def reset() -> None:
    """Forget what an earlier command line in this process asked for."""
    settings.color, settings.pager = "auto", True


class Cell(str):
    """A table cell with a style; a plain ``str`` is a cell without."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, value: str, style: str) -> Cell:
        """A cell showing ``value`` in ``style`` (see :func:`style`)."""
        cell = super().__new__(cls, value)
        cell.style = style
        return cell


def is_terminal(stream: TextIO | None = None) -> bool:
    """True if ``stream`` (standard output by default) is a terminal."""
    return (sys.stdout if stream is None else stream).isatty()


def terminal_size() -> os.terminal_size:
    """Columns and lines of the terminal, or of one as it usually is."""
    import shutil

    return shutil.get_terminal_size()


def columns() -> int | None:
    """Width to lay out for; None when standard output is no terminal and lines may be any length."""
    return terminal_size().columns if is_terminal() else None


def _colored(stream: TextIO) -> bool:
    if settings.color != "auto":
        return settings.color == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal(stream):
        return False
    return os.name != "nt" or "WT_SESSION" in os.environ or "TERM" in os.environ


def style(value: str, *names: str) -> str:
    """``value`` in the styles ``names``: bold, dim, red, green, yellow, blue, magenta, cyan.  For :func:`lines`."""
    before = "".join(f"\x00{_NONCE}{_CODES[name]}\x00" for name in names)
    return f"{before}{value}\x00{_NONCE}0\x00"


def _finished(line: str, color: bool) -> str:
    """``line`` as it may be written: cleaned, with the styles of :func:`style` as escapes or left out."""
    if "\x00" not in line:
        return text.clean(line)
    parts = _STYLED.split(line)  # text, code, text, code, text
    for position in range(0, len(parts), 2):
        parts[position] = text.clean(parts[position])
    for position in range(1, len(parts), 2):
        parts[position] = f"\x1b[{parts[position]}m" if color else ""
    return "".join(parts)


def styled(line: str) -> str:
    """``line`` cleaned, with its styles as escape sequences: for who draws the screen himself."""
    return _finished(line, color=True)


# --- standard output: data


def lines(items: Iterable[str], *, cleaned: bool = False) -> None:
    """Print one line per item; on a terminal through the pager, once there is more than a screen of it.

    Args:
        items: The lines; whatever could command the terminal is spelled out.
        cleaned: The items are printed as they are: their maker has cleaned what came from elsewhere.
    """
    color = _colored(sys.stdout)
    finished = ((item if cleaned else _finished(item, color)) + "\n" for item in items)
    if not (settings.pager and is_terminal() and is_terminal(sys.stdin)):
        sys.stdout.writelines(finished)
        return
    screen = list(islice(finished, terminal_size().lines))
    if len(screen) < terminal_size().lines:
        sys.stdout.writelines(screen)
        return
    command = _pager()
    if command is None:
        sys.stdout.writelines(chain(screen, finished))
    else:
        _page(command, chain(screen, finished))


def raw(data: bytes) -> None:
    """Write ``data`` to standard output as it is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def passing_on(stream: TextIO) -> Callable[[bytes], None]:
    """A function that passes on bytes of another program to ``stream``, at once and as they are."""
    stream.flush()
    sink = getattr(stream.buffer, "raw", stream.buffer)  # unbuffered: nothing is left over if the reader goes away

    def pass_on(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[sink.write(view) :]

    return pass_on


def document(value: Any) -> None:
    """Print ``value`` as one JSON document, indented."""
    import json

    sys.stdout.write(json.dumps(_jsonable(value), indent=2, ensure_ascii=True) + "\n")


def array(values: Iterable[Any]) -> None:
    """Print ``values`` as one JSON array with an element on each line, as they come."""
    import json

    opening = "["
    for value in values:
        sys.stdout.write(opening + "\n" + json.dumps(_jsonable(value), ensure_ascii=True))
        opening = ","
    sys.stdout.write("[]\n" if opening == "[" else "\n]\n")


def _jsonable(value: Any) -> Any:
    """``value`` with what JSON has no word for spelled as text: NaN and the infinities, bytes."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), cut: bool = True
) -> Iterator[str]:
    """Lines of a table, aligned by display width.  A column without a name and without content takes no room.

    Args:
        headers: A name per column; all empty for no heading line.
        rows: The cells, as many as there are headers.
        right: The columns that are aligned right.
        cut: On a terminal that is too narrow, cells are cut at 40 columns, the last column to what is left (never a
            number), and those at the right edge that still do not fit are left out, which is said on standard error.
            Elsewhere, or if false, all is printed in full.
    """
    headers = [text.clean(header) for header in headers]
    body = [[_tidy(cell) for cell in row] for row in rows]
    widths = [max(text.width(cell) for cell in column) for column in zip(headers, *body, strict=True)]
    if cut and not all(widths):
        used = [position for position, width in enumerate(widths) if width]
        headers, widths = [headers[one] for one in used], [widths[one] for one in used]
        body = [[row[one] for one in used] for row in body]
        right = [number for number, one in enumerate(used) if one in right]
    shown = _fit(headers, widths, columns(), right) if cut else len(widths)

    def line(cells: Sequence[str], heading: bool = False) -> str:
        last = max((position for position in range(shown) if cells[position]), default=-1)
        parts = []
        for position, cell in enumerate(cells[: last + 1]):
            part = text.fit(cell, widths[position], right=position in right)
            if position == last:
                part = part.rstrip()
            parts.append(style(part, cell.style) if isinstance(cell, Cell) else style(part, "dim") if heading else part)
        return "  ".join(parts)

    if any(headers):
        yield line(headers, heading=True)
    for row in body:
        yield line(row)


def _fit(headers: Sequence[str], widths: list[int], limit: int | None, whole: Sequence[int]) -> int:
    """How many columns fit into ``limit``; cuts ``widths`` where all of them would not."""
    shown = len(widths)
    if limit is None or sum(widths) + 2 * (shown - 1) <= limit:
        return shown
    wanted = list(widths)
    widths[:] = [min(one, _CELL) for one in widths]
    while shown > 2 and sum(widths[:shown]) + 2 * (shown - 1) > limit:
        shown -= 1
    left = limit - sum(widths[:shown]) - 2 * shown
    if shown < len(widths) and shown not in whole and left >= _LAST:
        widths[shown] = min(widths[shown], left)
        shown += 1
    if shown < len(widths):
        said = f"{text.count(len(widths) - shown, 'column')} not shown for lack of room: "
        message(said + text.listed(headers[shown:], limit - len(said)))
    spare = limit - sum(widths[:shown]) - 2 * (shown - 1)
    for position in reversed(range(shown)):
        more = min(wanted[position] - widths[position], max(spare, 0))
        widths[position] += more
        spare -= more
    return shown


def _tidy(cell: str) -> str:
    return Cell(text.clean(cell), cell.style) if isinstance(cell, Cell) else text.clean(cell)


# --- standard error: about the data


def message(line: str) -> None:
    """Say ``line`` on standard error."""
    sys.stderr.write(_finished(line, _colored(sys.stderr)) + "\n")


def warning(line: str) -> None:
    """Say ``line`` on standard error as a warning."""
    message(f"{style('warning:', 'yellow')} {line}")


def error(line: str, hint: str | None = None, *, pointing: tuple[str, int] | None = None) -> None:
    """Say on standard error what went wrong and, after a blank line, the next step.

    Args:
        line: What went wrong.
        hint: The next step.
        pointing: A text and the 1-based column in it that is at fault, to be shown beneath each other.
    """
    sys.stdout.flush()
    message(f"{style('error:', 'red', 'bold')} {line}")
    if pointing is not None:
        source, column = pointing
        message("")
        message(f"    {source}")
        message("    " + " " * text.width(text.clean(source[: column - 1])) + style("^", "red"))
    if hint:
        message("")
        message(f"{style('hint:', 'cyan')} {hint}")


def confirm(question: str) -> bool:
    """Ask on standard error for yes or no; no is the default."""
    sys.stderr.write(f"{text.clean(question)} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # ^D: what comes next starts on a line of its own
        message("")
    return answer.strip().lower() in ("y", "yes")


class Progress:
    """A line on standard error about work that takes longer than a second; nothing where that is no terminal.

    Used as a context manager.  It draws from its own thread, so that it also shows elapsed time for work that reports
    no counts.
    """

    def __init__(self, label: str, total: int | None = None, *, sizes: bool = False) -> None:
        """``label`` says what is done (``rebuilding the index``); ``total`` is the number of steps, if known.

        With ``sizes`` the steps are bytes, and how many there are per second is shown too.
        """
        self._sizes = sizes
        self._label = label
        self._total = total
        self._done = 0

    def update(self, done: int, total: int | None = None) -> None:
        """Say that ``done`` steps are finished (of ``total``, where it was not known before)."""
        self._done = done
        self._total = self._total if total is None else total

    def tell(self, label: str, done: int, total: int | None = None) -> None:
        """Say that something else is done now: ``label``, of which ``done`` steps are finished."""
        self._label, self._total, self._sizes = label, total, False
        self._done = done

    def sizes(self, label: str) -> Callable[[int, int | None], None]:
        """For work on bytes that comes in between: who to tell of them."""

        def told(done: int, total: int | None) -> None:
            self.tell(label, done, total)
            self._sizes = True

        return told

    def __enter__(self) -> Progress:
        if is_terminal(sys.stderr):
            import threading

            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._draw, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if hasattr(self, "_thread"):
            self._stop.set()
            self._thread.join()

    def _draw(self) -> None:
        started = time.monotonic()
        wait, drawn = 1.0, False
        while not self._stop.wait(wait):
            room = terminal_size().columns - 1
            sys.stderr.write("\r" + text.fit(self._line(time.monotonic() - started), room))
            sys.stderr.flush()
            wait, drawn = 0.1, True
        if drawn:
            sys.stderr.write("\r" + " " * (terminal_size().columns - 1) + "\r")
            sys.stderr.flush()

    def _line(self, elapsed: float) -> str:
        done = text.size(self._done) if self._sizes else f"{self._done:,}"
        if not self._total:
            return f"{self._label}… {f'{done} ' if self._done else ''}{text.duration(elapsed * 1000)}"
        share = min(self._done / self._total, 1.0)
        bar = ("█" * round(share * 20)).ljust(20, "░")
        if self._sizes:
            rate = text.size(round(self._done / elapsed)) if elapsed > 0 else "0 B"
            return f"{self._label} {bar} {share:4.0%} {done}/{text.size(self._total)} {rate}/s"
        return f"{self._label} {bar} {share:4.0%} {done}/{self._total:,}"


# --- the pager


def _pager() -> str | None:
    """The command to page with, chosen as git does; None for none."""
    import shutil

    from gittrack.cli.common import core_pager

    command = os.environ.get("GIT_PAGER")
    if command is None:
        command = core_pager() or os.environ.get("PAGER") or "less"
    words = command.split()
    if not words or words == ["cat"] or shutil.which(words[0]) is None:
        return None
    return command


def _page(command: str, finished: Iterable[str]) -> None:
    import signal
    import subprocess

    environment = {"LESS": _LESS, "LV": "-c", **os.environ}
    # The person's own setting, run by a shell as git runs it: `less -S | tee x` is a legal pager.
    process = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, env=environment)  # noqa: S602
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the pager
    try:
        assert process.stdin is not None  # noqa: S101 - for the type checker; a pipe was asked for
        with process.stdin as pipe:
            for line in finished:
                pipe.write(line.encode(errors="backslashreplace"))
    except BrokenPipeError:
        return  # the reader has seen enough and left the pager
    finally:
        process.wait()
        signal.signal(signal.SIGINT, before)
