"""Starts the processes of a server, and ends them without cutting a request off."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import GittrackError, StorageError
from gittrack.server.connection import GuardedConnection, Limits
from gittrack.server.ending import Ending, postponed
from gittrack.server.metrics import Metrics
from gittrack.server.serving import PREDICTING, Options, ServedModel, Service, Source, shown

if TYPE_CHECKING:
    import uvicorn

    from gittrack.server.tls import Tls

MAX_CONNECTIONS: Final = 1024
KEEP_ALIVE: Final = 15  #: seconds that a connection may stay unused
_BACKLOG: Final = 2048
_PATIENCE: Final = 2.0  #: seconds that predictions get to end, when nobody waits for them any more
_STARTUP_FAILURE: Final = 3  #: exit status of a worker that says to its parent: it would fail again
_M_ARENA_MAX: Final = -8  #: of glibc's mallopt(3)
_HEAPS: Final = 2

_log = logging.getLogger("gittrack.serving")


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        host: A name or an address.
        port: 0 for any that is free.
    """

    host: str = "127.0.0.1"
    port: int = 5000

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name
            return False


#: What the header `Host` may name if only this machine can reach the server: a page whose name was made to point here
#: cannot read from it.
LOCAL_HOSTS: Final = frozenset(("127.0.0.1", "localhost", "[::1]"))


@dataclass(frozen=True)
class Worker:
    """Makes the application in a worker process; travels there as a pickle."""

    source: Source
    options: Options
    folder: Path

    def __call__(self) -> Service:
        """The application; ends the process if there is no model to answer with."""
        show_log()
        tempfile.tempdir = str(self.folder)  # removed by the parent: a worker ends by a signal, without cleaning up
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
        try:
            first = self.source.load()
        except GittrackError as error:
            _log.error("%s", shown(error))
            sys.exit(_STARTUP_FAILURE)
        return Service(self.source, self.options, Metrics(self.folder), first)


@dataclass(frozen=True)
class Plan:
    """Everything that a server is started with."""

    source: Source
    address: Address = field(default_factory=Address)
    options: Options = field(default_factory=Options)
    limits: Limits = field(default_factory=Limits)
    workers: int = 1


def serve(plan: Plan, said: Callable[[str, ServedModel | None], None], ending: Ending) -> int:
    """Serve until a signal comes; the exit status.

    Args:
        plan: What and how.
        said: Told the address, and the model if it was loaded in this process, once requests are accepted.
        ending: Asked to end by the signals.

    Raises:
        GittrackError: The model cannot be loaded; the address is taken.
    """
    if plan.workers > 1:
        return _serve_many(plan, said, ending)
    first = plan.source.load()
    listening = listen(plan.address)
    service = Service(plan.source, plan.options, first=first)
    settings = config(service, plan.limits, patience=plan.options.timeout)
    run(settings, listening, lambda where: said(where, first), ending)
    _leave_behind_what_hangs(0)
    return 0


def run(
    settings: uvicorn.Config,
    listening: socket.socket,
    said: Callable[[str], None],
    ending: Ending,
    tls: Tls | None = None,
) -> None:
    """Serve in this process until a signal comes; ``said`` is told the address once requests are accepted."""
    import uvicorn

    settings.load()
    settings.ssl = None if tls is None else tls.context

    class Server(uvicorn.Server):
        """Uvicorn has handlers of its own for a while, and raises what came once more at their end."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            ending.asked = True
            super().handle_exit(sig, frame)

    server = Server(settings)

    def stop() -> None:
        server.should_exit = True

    with ending.by(stop):
        said(url(listening, secure=tls is not None))
        with contextlib.nullcontext() if tls is None else tls.watching():
            server.run([listening])


def _serve_many(plan: Plan, said: Callable[[str, ServedModel | None], None], ending: Ending) -> int:
    from multiprocessing import resource_tracker

    from uvicorn.supervisors import Multiprocess

    class Supervisor(Multiprocess):
        """Starts workers that a ^C, which goes to all processes of a terminal, does not reach: they are told to end."""

        def init_processes(self) -> None:
            resource_tracker.ensure_running()  # which would end the waiting, were it done at the first worker
            with postponed(signal.SIGINT):
                super().init_processes()

        def keep_subprocess_alive(self) -> None:
            with postponed(signal.SIGINT):
                super().keep_subprocess_alive()

    listening = listen(plan.address)
    folder = Path(tempfile.mkdtemp(prefix="gittrack-serving-"))
    try:
        settings = config(
            Worker(plan.source, plan.options, folder),
            plan.limits,
            patience=plan.options.timeout,
            workers=plan.workers,
            factory=True,
        )
        supervisor = Supervisor(settings, sockets=[listening])  # has handlers of its own, and does not take them back
        ending.check()
        said(url(listening), None)
        supervisor.run()
        return 1 if any(one.exitcode == _STARTUP_FAILURE for one in supervisor.processes) else 0
    finally:
        shutil.rmtree(folder)
        listening.close()


def config(app: Any, limits: Limits, *, patience: float, workers: int = 1, factory: bool = False) -> uvicorn.Config:
    """How uvicorn runs ``app``.

    Args:
        app: The application, or what makes it if it is a ``factory``.
        limits: What a client may take.
        patience: Seconds that requests get to end when the server does.
        workers: Processes.
        factory: See ``app``.
    """
    import uvicorn

    return uvicorn.Config(
        app,
        factory=factory,
        workers=workers,
        http=partial(GuardedConnection, limits=limits),  # type: ignore[arg-type]  # called as the class is
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(patience)),
        limit_concurrency=MAX_CONNECTIONS,
        backlog=_BACKLOG,
    )


def listen(address: Address) -> socket.socket:
    """A socket that accepts connections.  Raises StorageError if the address cannot be had."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as unless_it_works:
            found = unless_it_works.enter_context(socket.socket(family, kind, protocol))
            if os.name == "posix":
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(where)
            found.listen(_BACKLOG)
            found.set_inheritable(True)
            unless_it_works.pop_all()
    except OSError as error:
        raise StorageError(
            f"cannot listen on `{address.host}` port {address.port}: {error.strerror}", hint="take another `--port`"
        ) from error
    return found


def allow_many_files() -> None:
    """Let this process have as many connections and journals open as the system allows at all."""
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # macOS says that there is no bound, and has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def share_memory() -> None:
    """Let the threads of this process have few heaps: glibc's give one to each, which is full of holes after a while.

    Of what a busy server had, half was free and of no use; where there is no glibc nothing happens.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)


def url(listening: socket.socket, *, secure: bool = False) -> str:
    """The address of a socket as people use it."""
    host, port = listening.getsockname()[:2]
    return f"http{'s' if secure else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def show_log() -> None:
    """What the server and uvicorn have to say goes to standard error, a line each with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    for name, level in (
        (_log.name, logging.INFO),
        ("gittrack.server", logging.INFO),
        ("uvicorn.error", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on, and keep the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        signal.raise_signal(signal.SIGTERM)


def _leave_behind_what_hangs(status: int) -> None:
    """End at once if a prediction hangs: Python would wait for its thread for ever."""
    deadline = time.monotonic() + _PATIENCE
    threads = [one for one in threading.enumerate() if one.name.startswith(PREDICTING)]
    for one in threads:
        one.join(max(0.0, deadline - time.monotonic()))
    if any(one.is_alive() for one in threads):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
