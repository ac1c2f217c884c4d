"""Lookout: which journals a server's index has to look at before it answers.

A server has thousands of runs open, and most of their journals are its own: what it wrote itself it knows, and folds
in before the next answer.  Journals of others (a training on this machine that writes beside the server) it finds by
looking at all there are, which takes longer the more there are: that is done now and then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gittrack.store import files

#: Looking at everything takes at most this part of the time, ...
_SHARE: Final = 0.05
#: ... unless that were less often than every so many seconds.
_SECONDS: Final = 2.0


class Lookout:
    """When to look where; threads may share it.

    Attributes:
        lock: Whoever brings the index up to date holds it: who comes meanwhile finds it done.
    """

    def __init__(self) -> None:
        self._next = 0.0
        self.after_fork_in_child()
        files.tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """A forked child gets its lock anew: another thread of the parent may have held it."""
        self.lock = threading.RLock()

    @property
    def is_due(self) -> bool:
        """True if it is time to look at everything."""
        return time.monotonic() >= self._next

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Everything is looked at inside."""
        began = time.thread_time()
        yield
        took = time.thread_time() - began
        self._next = time.monotonic() + min(took / _SHARE, _SECONDS)
