"""What changed lately, for pages that show it as it comes: looked for once a second for all who listen together.

Nothing is looked for while nobody asks.  Who asks says up to where he knows everything (a mark), and is told what
changed since.  Marks are times, which tell nobody how much changed of what he may not see.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeVar

from anyio import CapacityLimiter

from gittrack.errors import GittrackError
from gittrack.server.hub.streams import threaded
from gittrack.store.changes import Observer
from gittrack.store.repo import Repo

#: Seconds between two looks, ...
_PAUSE: Final = 1.0
#: ... which take at most this part of the time, ...
_SHARE: Final = 0.05
#: ... and after one that failed.
_AFTER_FAILURE: Final = 10.0
#: Threads that look, and tell: requests of other kinds have theirs.
_THREADS: Final = 4
#: Seconds for which it is known what changed.
KEPT: Final = 900.0
#: Runs, and experiments, of which it is known.
_MOST: Final = 50_000
_MARK: Final = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")

T = TypeVar("T")
_log = logging.getLogger("gittrack.server")


class News(NamedTuple):
    """What changed since a mark.

    Attributes:
        mark: Up to where all is known now.
        runs: By id, the experiments they are in; None if nobody knows any more.
        experiments: The ids of those that were made or edited.
        complete: False: there is more, of which it is not known what.
    """

    mark: str
    runs: dict[str, str | None]
    experiments: list[str]
    complete: bool


class Feed:
    """What changed lately; see the module.  Threads may share it.

    Args:
        repo: Where.
        clock: Seconds that only grow.

    Attributes:
        threads: For those who look.
    """

    def __init__(self, repo: Repo, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = Observer(repo)
        self._clock = clock
        self._origin = secrets.token_hex(4)
        self._begun = clock()
        self._next = float("-inf")
        self._now = 0  # the time of the last look
        self._unknown = 0  # of what changed until then, not all is known
        self._runs: OrderedDict[str, tuple[int, str | None]] = OrderedDict()  # the latest last
        self._experiments: OrderedDict[str, tuple[int, None]] = OrderedDict()
        self._lock = threading.Lock()
        self._looking: asyncio.Task[None] | None = None
        self.threads = CapacityLimiter(_THREADS)

    def look(self) -> None:
        """See what changed, unless somebody has just done so."""
        with self._lock:
            if self._clock() < self._next:
                return
            begun = time.thread_time()
            now = max(self._now + 1, round((self._clock() - self._begun) * 1000))
            try:
                found = self._observer.look()
            except GittrackError as error:
                _log.warning("what changes cannot be seen: %s", error)
                self._next = self._clock() + _AFTER_FAILURE
                return
            self._now = now
            if not found.complete:
                self._unknown = now
            _note(self._runs, ((run_id, (now, home)) for run_id, home in found.runs.items()))
            _note(self._experiments, ((one, (now, None)) for one in found.experiments))
            self._forget(now - round(KEPT * 1000))
            self._next = self._clock() + max(_PAUSE, (time.thread_time() - begun) / _SHARE)

    def _forget(self, until: int) -> None:
        for noted in (self._runs, self._experiments):
            while noted and (len(noted) > _MOST or next(iter(noted.values()))[0] <= until):
                self._unknown = max(self._unknown, noted.popitem(last=False)[1][0])

    async def next(self) -> None:
        """Wait for the next look.  All who wait, wait for the same one."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_later())
        await asyncio.shield(self._looking)

    async def _look_later(self) -> None:
        await asyncio.sleep(max(0.0, self._next - self._clock()))
        await threaded(self.look, limiter=self.threads)

    def since(self, mark: str | None) -> News:
        """What changed since a mark of before; nothing if there is none."""
        with self._lock:
            then = self._now if mark is None else self._time(mark)
            complete = then >= max(self._unknown, self._now - round(KEPT * 1000))
            runs = {run_id: home for run_id, (_, home) in _later(self._runs, then)}
            experiments = [one for one, _ in _later(self._experiments, then)]
            return News(f"{self._origin}-{self._now}", runs, experiments, complete)

    def _time(self, mark: str) -> int:
        """The time of a mark; before all times if another server made it, or this one before it was started anew."""
        match = _MARK.fullmatch(mark)
        return int(match[2]) if match is not None and match[1] == self._origin else -1


def _note(noted: OrderedDict[str, T], news: Iterator[tuple[str, T]]) -> None:
    for key, value in news:
        noted[key] = value
        noted.move_to_end(key)


def _later(noted: OrderedDict[str, tuple[int, T]], then: int) -> Iterator[tuple[str, tuple[int, T]]]:
    for key, value in reversed(noted.items()):
        if value[0] <= then:
            return
        yield key, value
