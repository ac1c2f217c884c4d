"""How a server ends when SIGTERM or SIGINT asks it to: with status 0 and without a trace, while it starts too.

Light to import: it is there before what takes long is.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Ending:
    """Whether the end was asked for, and what is done then.

    Attributes:
        asked: A signal came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._call: Callable[[], None] | None = None

    def ask(self, _signal: int, _frame: FrameType | None) -> None:
        """A signal's handler: end what runs, or else this program, at once."""
        self.asked = True
        if self._call is None:
            raise SystemExit(0)
        self._call()

    @contextlib.contextmanager
    def by(self, call: Callable[[], None]) -> Iterator[None]:
        """Inside, a signal only calls ``call``."""
        self._call = call
        try:
            self.check()  # code that was interrupted may have swallowed it
            yield
        finally:
            self._call = None

    def check(self) -> None:
        """End the program if a signal came."""
        if self.asked:
            raise SystemExit(0)


@contextlib.contextmanager
def ending() -> Iterator[Ending]:
    """Inside, a signal ends the program with status 0.  For the main thread."""
    found = Ending()
    before = {one: signal.signal(one, found.ask) for one in SIGNALS}
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see ``postponed``
    try:
        yield found
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def postponed(*signals: signal.Signals) -> Iterator[None]:
    """Signals wait until the end of this; in a program that is started inside, until its own ``ending``, if ever."""
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
