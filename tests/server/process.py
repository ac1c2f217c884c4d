"""A tracking server in a process of its own, which can be killed.

``python -m tests.server.process FOLDER PORT [DATABASE [BUCKET]]``
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gittrack.server.connection import Limits
from gittrack.server.ending import ending
from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.app import App, Hub, Options
from gittrack.server.hub.lfs import LfsServer
from gittrack.server.hub.projects import Projects
from gittrack.server.hub.roles import LOCAL
from gittrack.server.run import Address, config, listen, run
from gittrack.store import seal
from gittrack.track.runs import Tracker
from tests.server.backend import BACKEND, open_repo


def main(folder: str, port: str, database: str = "", bucket: str = "") -> None:
    repo = open_repo(Path(folder), database or None, bucket or None)
    seal.heal(repo)
    app = App(Hub(Tracker(repo, strict=True, serving=True), Options()), (*ROUTES, *LfsServer(Projects(repo)).routes()))

    async def known(scope: Any, receive: Any, send: Any) -> None:
        scope["gittrack.caller"] = LOCAL
        await app(scope, receive, send)

    with ending() as end:
        run(config(known, Limits(), patience=5.0), listen(Address(port=int(port))), lambda _: None, end)


class Process:
    """The server, and where it is; with ``options`` it is the one of the command line, started with them."""

    def __init__(
        self, folder: Path, options: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.log = folder.parent / f"server-{id(self)}.log"
        self.options = options
        self.environ = environ
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        top = Path(__file__).parents[2]
        at = BACKEND.database or "", BACKEND.place(self.folder) or ""
        command = ["tests.server.process", str(self.folder), str(self.port), *at]
        if self.options is not None:
            more = BACKEND.words(self.folder, before=self.options)
            command = ["gittrack", "-C", str(self.folder), "server", f"--port={self.port}", *self.options, *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", *command], cwd=top, stderr=log, env=self.environ)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), self.connected() as connection:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.02)
        raise AssertionError("the server does not start")

    @contextlib.contextmanager
    def connected(self) -> Iterator[http.client.HTTPConnection]:
        """A connection to it."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            yield connection

    def kill(self) -> None:
        """End it as if the machine were out of memory."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End it as people do; its status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextlib.contextmanager
def process(folder: Path) -> Iterator[Process]:
    """A server that runs, and is gone afterwards."""
    found = Process(folder)
    found.start()
    try:
        yield found
    finally:
        if found.process is not None and found.process.poll() is None:
            found.process.kill()
            found.process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
