"""How often: wrong credentials from one address or for one account, requests of one caller.

In the memory of one process, and of bounded size: whoever comes from very many addresses pushes others' counts out,
which costs those nothing.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final, TypeVar

from gittrack.errors import TooManyRequestsError

T = TypeVar("T")

_WINDOW: Final = 60.0  #: seconds in which failures are counted, and for which then nothing is tried
_MOST: Final = 20_000  #: addresses and accounts that are counted
_BURST: Final = 10.0  #: seconds over which the rate of requests is an average


class Failures:
    """Counts wrong credentials.

    Args:
        most: So many in a minute are too many.
        clock: Seconds that only grow.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()  #: count, end of the minute
        self._locked: OrderedDict[str, float] = OrderedDict()

    def check(self, key: str) -> None:
        """Refuse who failed too often.  Raises TooManyRequestsError."""
        until = self._locked.get(key)
        if until is None:
            return
        left = until - self._clock()
        if left > 0:
            raise TooManyRequestsError(
                "wrong credentials came too often", again=math.ceil(left), hint="wait a minute, then log in again"
            )
        del self._locked[key]

    def count(self, key: str, times: int = 1) -> bool:
        """Count a failure; true if it was one too many.

        Args:
            key: Who.
            times: So many times as many are allowed.
        """
        now = self._clock()
        if self._locked.get(key, now) > now:
            return False
        number, end = self._seen.pop(key, (0, 0.0))
        if end <= now:
            number, end = 0, now + _WINDOW
        if number + 1 >= self._most * times:
            _put(self._locked, key, now + _WINDOW)
            return True
        _put(self._seen, key, (number + 1, end))
        return False


class Rates:
    """Limits requests: each caller has a bucket of ten seconds' worth of them, which fills up again.

    Threads may count at the same time.

    Args:
        rate: Requests in a second.
        clock: Seconds that only grow.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._full = max(1.0, rate * _BURST)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  #: requests left, when that was
        self._lock = Lock()

    def count(self, caller: str, times: int = 1) -> None:
        """Count a request.

        Args:
            caller: Who asks.
            times: So many requests, or as many as there ever are at once.

        Raises:
            TooManyRequestsError: There are not so many left.
        """
        wanted = min(float(times), self._full)
        with self._lock:
            now = self._clock()
            left, then = self._left.pop(caller, (self._full, now))
            left = min(self._full, left + (now - then) * self._rate)
            _put(self._left, caller, (max(0.0, left - wanted), now))
        if left < wanted:
            raise TooManyRequestsError(
                "too many requests", again=math.ceil((wanted - left) / self._rate), hint="ask again later"
            )


def _put(where: OrderedDict[str, T], key: str, value: T) -> None:
    where[key] = value
    if len(where) > _MOST:
        where.popitem(last=False)
