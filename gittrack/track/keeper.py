"""Keeper: the background work of one process, so that none of it is on the training's path.

Three daemon threads, so that none waits for another: one puts the journals on disk every second, one commits finished
runs, one captures code and environment of runs that have just started.  What they have left to do can be done from the
thread that ends the process, when threads can no longer be started.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gittrack.errors import GittrackError
from gittrack.track import lifecycle

if TYPE_CHECKING:
    from gittrack.track.active import ActiveRun

#: Seconds that a finished run's edits wait for more of them before they are sealed together.
IDLE: Final = 0.5
#: Least seconds from the start of one capture to the next: a loop of short runs shares captures.
CAPTURE_GAP: Final = 0.1

_log = logging.getLogger("gittrack")


class Keeper:
    """Background work for a ``Tracker``.

    Args:
        handles: The runs that have a journal open in this process.
        seal: Commits what is ready; False if somebody else is at it and it should be tried again.
        capture: Captures code and environment once, for all the runs given.
        sync_interval: Seconds between putting the journals on disk.
        waiting: True if something is ready that nobody here was told about.
        relieve: Closes journals if too many are open.
    """

    def __init__(
        self,
        *,
        handles: Callable[[], list[ActiveRun]],
        seal: Callable[[], bool],
        capture: Callable[[list[ActiveRun]], None],
        sync_interval: float,
        waiting: Callable[[], bool],
        relieve: Callable[[], None],
    ) -> None:
        self._handles = handles
        self._seal = seal
        self._capture = capture
        self._interval = sync_interval
        self._waiting = waiting
        self._relieve = relieve
        self.reset()

    def reset(self) -> None:
        """Forget the threads: at the start, and in a forked child, where they do not exist."""
        self._wake = threading.Condition()
        self._seal_wanted = False
        self._wanted_at: float | None = None
        self._sealing = False
        self._capturing = False
        self._stopping = False
        self._crowded = False
        self._pending: list[ActiveRun] = []
        self._threads: dict[str, threading.Thread] = {}

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = self._threads.get(name)
        if self._stopping or (thread is not None and thread.is_alive()):
            return
        thread = threading.Thread(target=target, name=f"gittrack-{name}", daemon=True)
        try:
            lifecycle.start(thread)
        except RuntimeError:  # the interpreter is shutting down: `drain` does the work in the main thread
            return
        self._threads[name] = thread

    def watch(self) -> None:
        """There are journals to put on disk from now on."""
        with self._wake:
            self._start("sync", self._sync_loop)

    def relieve_soon(self) -> None:
        """Too many journals are open."""
        with self._wake:
            self._crowded = True
            self._wake.notify_all()

    def capture_soon(self, run: ActiveRun) -> None:
        """Capture code and environment for a run that has just started."""
        run.begin_capture()
        with self._wake:
            self._pending.append(run)
            self._start("capture", self._capture_loop)
            self._wake.notify_all()

    def seal_soon(self) -> None:
        """Some run is over."""
        with self._wake:
            self._seal_wanted = True
            self._wanted_at = self._wanted_at or time.monotonic()
            self._start("seal", self._seal_loop)
            self._wake.notify_all()

    @property
    def lag(self) -> float:
        """Seconds since the first run that is not committed yet was over; 0 if none waits."""
        since = self._wanted_at
        return 0.0 if since is None else time.monotonic() - since

    def wait_idle(self, timeout: float) -> None:
        """Wait until nothing is left to capture or to commit, ``timeout`` seconds at most."""
        with self._wake:
            self._wake.wait_for(
                lambda: not (self._pending or self._capturing or self._seal_wanted or self._sealing), timeout
            )

    def _sync_loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._crowded, self._interval)
                if self._stopping:
                    return
                self._crowded = False
            self._relieve()
            for run in self._handles():
                if run.terminated and run.idle > IDLE:
                    run.release()  # edits of a finished run: commit them
                    self.seal_soon()
                else:
                    run.sync()
            if self._waiting():
                self.seal_soon()

    def _seal_loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._seal_wanted or self._stopping)
                if self._stopping:
                    return
                self._seal_wanted, self._sealing = False, True
            done = self._seal()
            with self._wake:
                self._sealing = False
                self._seal_wanted = self._seal_wanted or not done
                if not self._seal_wanted:
                    self._wanted_at = None
                self._wake.notify_all()

    def _capture_loop(self) -> None:
        while True:
            with self._wake:
                while not self._pending:
                    if self._stopping or not self._wake.wait(timeout=10.0):
                        if self._pending and not self._stopping:
                            continue
                        self._threads.pop("capture", None)
                        return
            started = time.monotonic()
            self._capture_pending()
            with self._wake:
                self._wake.wait_for(lambda: self._stopping, max(0.0, CAPTURE_GAP - (time.monotonic() - started)))

    def _capture_pending(self) -> None:
        with self._wake:
            runs, self._pending = self._pending, []
            if not runs:
                return
            self._capturing = True
        try:
            self._capture(runs)
        except GittrackError as error:
            _log.warning("gittrack: the code of %d run(s) could not be captured: %s", len(runs), error)
        except Exception:  # noqa: BLE001 - a capture reads the whole machine; what is odd there must not lose the run
            _log.warning("gittrack: the code of %d run(s) could not be captured", len(runs), exc_info=True)
        finally:
            for run in runs:
                run.finish_capture()
            if any(run.terminated for run in runs):
                self.seal_soon()
            with self._wake:
                self._capturing = False
                self._wake.notify_all()

    def drain(self, *, release: bool) -> None:
        """Stop the threads and do what they had left, here and now.

        Args:
            release: Close the journals of runs that go on, too; otherwise only put them on disk.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        for thread in self._threads.copy().values():
            if thread is not threading.current_thread():
                thread.join()
        self._capture_pending()
        for run in self._handles():
            if release or run.terminated:
                run.release()
            else:
                run.sync()
        self._seal()  # if another process is at it, the next command does what it leaves
        with self._wake:
            self._stopping = self._seal_wanted = False
            self._threads.clear()
            if not release and self._handles():
                self._start("sync", self._sync_loop)
