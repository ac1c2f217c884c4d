"""Predictions of one model: small requests that wait at the same time become one call of the model.

The event loop is not held up: what takes long runs in threads.  A matrix that a fast model answers in less than
``INLINE_SECONDS`` is predicted in the loop itself, since handing it to a thread would cost more than that.
Joining is only for models that answer each row by itself (``Request.matrix``).  If a joined call fails, every request
of it is predicted alone, so that a bad row costs nobody else an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import DeadlineError, GittrackError, OverloadedError

if TYPE_CHECKING:
    from gittrack.models.scoring import Request, Scorer

INLINE_SECONDS: Final = 0.002
_BASE_ROWS: Final = 50  #: a call costs about as much as this many rows more
_LEARNING: Final = 0.2  #: weight of the newest measurement


@dataclass(slots=True, eq=False)
class _Job:
    """A request that waits.

    Attributes:
        future: What the requester awaits.
        request: A matrix, or None for ``work``.
        work: Anything else.
        timer: Ends the waiting.
    """

    future: asyncio.Future[Any]
    request: Request | None = None
    work: Callable[[], Any] | None = None
    timer: asyncio.TimerHandle | None = None


class Batcher:
    """Runs the predictions of one model.  Belongs to one event loop.

    Args:
        scorer: The model.
        pool: Where what takes long runs; shared by the models of a server.
        threads: How many calls of this model may run at a time.
        timeout: Seconds that a request may take.
        max_rows: A joined call has at most that many rows, unless a single request has more; 1 joins nothing.
        max_waiting: More requests than that are refused.
        count: Told of each call: how many requests and rows.
    """

    def __init__(
        self,
        scorer: Scorer,
        pool: ThreadPoolExecutor,
        *,
        threads: int,
        timeout: float,
        max_rows: int,
        max_waiting: int,
        count: Callable[[int, int], None],
    ) -> None:
        self._scorer = scorer
        self._pool = pool
        self._threads = threads
        self._timeout = timeout
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Job] = deque()
        self._running: dict[ThreadFuture[Any], float] = {}  # with the time when it began
        self._scheduled = False
        self._row_seconds: float | None = None

    @property
    def stuck(self) -> bool:
        """True if every thread is busy with something that nobody has waited for any more for a while."""
        limit = time.monotonic() - 2 * self._timeout
        return len(self._running) >= self._threads and all(begun < limit for begun in self._running.values())

    def predict(self, request: Request) -> asyncio.Future[Any]:
        """The prediction for a matrix.

        Raises:
            OverloadedError: Too many requests wait.  The future may raise DeadlineError, and what ``Scorer.predict``
                raises.
        """
        return self._submit(_Job(self._loop.create_future(), request=request))

    def run(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """The result of ``work``, which is called in a thread.  Raises as ``predict`` does."""
        return self._submit(_Job(self._loop.create_future(), work=work))

    def _submit(self, job: _Job) -> asyncio.Future[Any]:
        if len(self._waiting) >= self._max_waiting:
            raise OverloadedError("too many requests are waiting", hint="send it again later")
        self._waiting.append(job)
        if not self._scheduled:
            # Not at once: what else has arrived meanwhile joins.
            self._scheduled = True
            self._loop.call_soon(self._start)
        return job.future

    def _start(self) -> None:
        self._scheduled = False
        while self._waiting:
            if self._waiting[0].future.done():  # timed out, or the client is gone
                self._waiting.popleft()
                continue
            inline = self._is_fast(self._waiting[0])
            if not inline and len(self._running) >= self._threads:
                break
            batch = self._take()
            if inline:
                self._finish(batch, self._call(batch))
                continue
            for job in batch:
                self._limit(job)
            running = self._pool.submit(self._call, batch)
            self._running[running] = time.monotonic()
            running.add_done_callback(lambda done, batch=batch: self._from_thread(done, batch))  # type: ignore[misc]
        for job in self._waiting:
            self._limit(job)

    def _is_fast(self, job: _Job) -> bool:
        if job.request is None or self._row_seconds is None:  # not yet measured: the first call goes to a thread
            return False
        return self._row_seconds * (len(job.request.data) + _BASE_ROWS) < INLINE_SECONDS

    def _take(self) -> list[_Job]:
        """The next jobs to do in one call."""
        first = self._waiting.popleft()
        batch = [first]
        if first.request is None or first.request.params:
            return batch
        rows = len(first.request.data)
        while self._waiting:
            request = self._waiting[0].request
            if request is None or request.params or rows + len(request.data) > self._max_rows:
                break
            job = self._waiting.popleft()
            if not job.future.done():
                batch.append(job)
                rows += len(request.data)
        return batch

    def _limit(self, job: _Job) -> None:
        if job.timer is None and not job.future.done():
            job.timer = self._loop.call_later(self._timeout, self._expire, job)

    def _expire(self, job: _Job) -> None:
        if not job.future.done():
            job.future.set_exception(DeadlineError("the prediction was not there in time"))

    def _call(self, batch: list[_Job]) -> list[Any]:
        """Results in the order of the jobs: values, or what was raised."""
        work = batch[0].work
        if work is not None:
            return [_outcome(work)]
        requests = [job.request for job in batch if job.request is not None]
        begun = time.perf_counter()
        rows = sum(len(request.data) for request in requests)
        results = self._joined(requests, rows) if len(requests) > 1 else None
        if results is None:
            results = [_outcome(lambda request=request: self._scorer.predict(request)) for request in requests]  # type: ignore[misc]
        per_row = (time.perf_counter() - begun) / (rows + _BASE_ROWS)
        known = self._row_seconds
        self._row_seconds = per_row if known is None else known + _LEARNING * (per_row - known)
        return results

    def _joined(self, requests: list[Request], rows: int) -> list[Any] | None:
        """The predictions of one call for all; None if they have to be made one by one."""
        import numpy as np

        from gittrack.models.scoring import Request

        try:
            prediction = self._scorer.predict(Request(np.concatenate([one.data for one in requests]), matrix=True))
        except GittrackError:  # of one of them, and who that is turns out when each is alone
            return None
        if getattr(prediction, "shape", (None,))[:1] != (rows,):  # not a row per row: a list may be one per output
            return None
        results, at = [], 0
        for request in requests:
            results.append(prediction[at : at + len(request.data)])
            at += len(request.data)
        return results

    def _from_thread(self, running: ThreadFuture[Any], batch: list[_Job]) -> None:
        self._loop.call_soon_threadsafe(self._thread_ended, running, batch)

    def _thread_ended(self, running: ThreadFuture[Any], batch: list[_Job]) -> None:
        self._running.pop(running)
        self._finish(batch, running.result())
        self._start()

    def _finish(self, batch: list[_Job], results: list[Any]) -> None:
        if batch[0].request is not None:
            self._count(len(batch), sum(len(job.request.data) for job in batch if job.request is not None))
        for job, result in zip(batch, results, strict=True):
            if job.timer is not None:
                job.timer.cancel()
            if job.future.done():
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - it is raised again where the result is awaited
        return error
