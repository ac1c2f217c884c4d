"""How a process ends, told to the runs it has open: interpreter exit, an exception nobody caught, SIGTERM.

Nothing here changes what the process would have done; the old hooks and handlers run all the same.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Lifecycle:
    """Calls ``on_end(status, hurry)`` once, when the process ends.

    Args:
        on_end: Gets FINISHED, FAILED (an exception ended the program) or KILLED (^C, SIGTERM), and whether whoever ends
            the process (a supervisor, which kills it if it takes too long) waits for it.
    """

    def __init__(self, on_end: Callable[[str, bool], None]) -> None:
        self._on_end = on_end
        self._status = "FINISHED"
        self._pid = os.getpid()
        self._installed = False
        self._ended = False

    def install(self) -> None:
        """Hook in; a second call does nothing.  Signals only from the main thread, which is where Python has them."""
        if self._installed and self._pid == os.getpid():
            return
        self._installed, self._ended, self._pid = True, False, os.getpid()
        atexit.register(self._at_exit)
        if "multiprocessing.process" in sys.modules and sys.modules["multiprocessing.process"].parent_process():
            # A child of multiprocessing leaves by os._exit, after its own finalizers and without atexit.
            from multiprocessing.util import Finalize

            Finalize(None, self._at_exit, exitpriority=0)
        self._old_hook = sys.excepthook
        sys.excepthook = self._on_exception
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # Without a handler SIGTERM ends Python on the spot, without atexit; a handler of the user's is left alone.
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        self._status = "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        return self._old_hook(kind, error, trace)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            self._end("KILLED", hurry=True)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def _at_exit(self) -> None:
        self._end(self._status, hurry=False)
        if self._status == "KILLED":
            # CPython ends by SIGINT, so that shells see the ^C, if the last text it executed was interrupted; what we
            # imported meanwhile made it forget.
            with contextlib.suppress(KeyboardInterrupt):
                exec("raise KeyboardInterrupt", {})  # noqa: S102 - a constant

    def _end(self, status: str, *, hurry: bool) -> None:
        # A forked child's exit is not the end of its parent's runs; and a signal during the exit must not start again.
        if self._pid == os.getpid() and not self._ended:
            self._ended = True
            self._on_end(status, hurry)


def start(thread: threading.Thread) -> None:
    """Start a thread of ours so that it, and what it starts, leaves SIGTERM to the others.

    Python runs handlers in the main thread only, and a signal that came to another thread does not wake the main one: a
    program that sleeps, and that would have ended at once but for our handler, would sleep on.  What comes in the
    moment before it falls asleep waits all the same, as with any handler of Python's.

    Raises:
        RuntimeError: The system's limit of threads, or the interpreter is shutting down.
    """
    ours = isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), Lifecycle)
    if sys.platform == "win32" or not ours:
        thread.start()
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
