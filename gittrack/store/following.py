"""Histories of runs in progress, for who asks for them again and again: read on from where they were read last.

A journal that grows by a thousand points a second would otherwise be read from its start each time.  A run that nobody
asks for again, since it is over perhaps, is forgotten after a minute.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gittrack.store.record import RunState
from gittrack.store.repo import JournalEvents, Repo
from gittrack.types import MetricHistory

if TYPE_CHECKING:
    from gittrack.store.journal import Journal

#: Bytes of the journals that are kept folded; in memory, points take about as much.
_MOST: Final = 128 << 20
#: Seconds for which a run is kept that nobody asks for: who watches one asks every few.
_KEPT: Final = 60.0


@dataclass
class _Followed:
    """A run in progress, as far as it was read."""

    state: RunState | None = None
    ends: dict[str, int] = field(default_factory=dict)
    size: int = 0  #: bytes of its journals
    asked: float = 0.0  #: when it was, by a clock that only grows
    lock: threading.Lock = field(default_factory=threading.Lock)


class Following:
    """Reads histories; threads may share it.

    Args:
        repo: Whose.
        clock: Seconds that only grow.
    """

    def __init__(self, repo: Repo, clock: Callable[[], float] = time.monotonic) -> None:
        self._repo = repo
        self._clock = clock
        self._runs: OrderedDict[str, _Followed] = OrderedDict()
        self._lock = threading.Lock()

    def history(self, run_id: str, key: str) -> MetricHistory:
        """As ``Repo.history``."""
        journals = self._repo.journals(run_id)
        try:
            size = sum(one.size for one in journals)
        except FileNotFoundError:  # committed meanwhile
            size = 0
        # What is in a commit already may be in the journals, too: that is not for here to tell apart.
        if 0 < size <= _MOST and not self._repo.revisions(run_id):
            state = self._followed(run_id, journals, size, key)
            if state is not None:
                return state
        with self._lock:
            self._runs.pop(run_id, None)
        return self._repo.history(run_id, key)

    def _followed(self, run_id: str, journals: list[Journal], size: int, key: str) -> MetricHistory | None:
        with self._lock:
            run = self._runs.setdefault(run_id, _Followed())
            run.asked = now = self._clock()
            self._runs.move_to_end(run_id)
            while next(iter(self._runs.values())).asked < now - _KEPT:  # ends at this one
                self._runs.popitem(last=False)
        with run.lock:
            state, ends = run.state, run.ends
            run.state, run.ends = None, {}  # half of it may be folded when something cannot be read
            if not set(ends) <= {one.name for one in journals}:
                state, ends = None, {}
            events = JournalEvents.read(journals, ends)
            if events.lacks(state):  # committed meanwhile
                return None
            run.state, run.ends, run.size = events.fold(run_id, state), events.ends, size
            if run.state is None:
                return None
            found = run.state.new_history(key)
            copy = MetricHistory(key, found.steps[:], found.timestamps[:], found.values[:])
        with self._lock:
            total = sum(one.size for one in self._runs.values())
            while total > _MOST:  # those that nobody has asked for the longest
                total -= self._runs.popitem(last=False)[1].size
        return copy
