"""Connections that break at any byte, processes killed at any moment, remotes that refuse: the next call goes on."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gittrack.errors import NetworkError, PushRefusedError, RemoteDataError, StorageError
from gittrack.store.check import fsck
from tests.conftest import Sandbox
from tests.sync.conftest import Desk, Join, assert_clean, listed, state_of
from tests.sync.servers import free_port, web_server

#: As for the other fault tests: every point instead of samples.
FULL = os.environ.get("GITTRACK_FAULTS") == "full"


class Cutter:
    """Passes bytes on to a server, until so many have come back from it; then the connection is reset.

    Attributes:
        room: Bytes that may still pass; None: all.
    """

    def __init__(self, port: int) -> None:
        self.room: int | None = None
        self.port = free_port()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with source, suppress(OSError):
            while data := source.recv(512):
                if self.room is not None:
                    self.room -= len(data)
                    if self.room < 0:
                        for one in (source, target):
                            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            one.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it, and closes it
                        return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def cutter(tmp_path: Path, hub: Sandbox) -> Iterator[tuple[Cutter, str]]:
    """A cutter in front of the hub behind a web server, and its address."""
    with web_server(tmp_path / "web", hub.path.parent) as address:
        one = Cutter(int(address.split(":")[2].split("/")[0]))
        try:
            yield one, f"http://127.0.0.1:{one.port}/git/{hub.path.name}"
        finally:
            one.close()


def whole(desk: Desk) -> None:
    """The clone is in order, and no call that comes next trips over anything."""
    assert_clean(desk.sandbox.path)
    assert not [problem for problem in fsck(desk.repo) if problem.kind != "artifact"]


def test_connections_that_break(join: Join, bo: Desk, hub: Sandbox, tmp_path: Path) -> None:
    with cutter(tmp_path, hub) as (line, url):
        ana = join("ana")
        for number in range(10):
            ana.run(f"run {number}", experiment=f"of {number % 3}", files={"a.txt": os.urandom(50)})
        ana.model()
        ana.sandbox.git("remote", "set-url", "origin", url)
        before, refs = state_of(ana.sandbox.path), listed(hub.path)
        broken = 0
        for room in range(100, 40_000, 500 if FULL else 9_000):
            line.room = room
            try:
                ana.push(files=False)
            except (NetworkError, PushRefusedError) as error:
                broken += 1
                assert "transferred" in error.message or "pushed" in error.message  # noqa: PT017
                there = {ref for ref in listed(hub.path) if ref not in refs}
                assert not there or len(there) >= 4, "all of a push or nothing"
        assert broken > 1
        line.room = None
        ana.push(files=False)
        assert ana.push(files=False).ledgers == []
        assert state_of(ana.sandbox.path) == before
        bo.sandbox.git("remote", "set-url", "origin", url)
        broken = 0
        for room in range(100, 40_000, 500 if FULL else 9_000):
            line.room = room
            try:
                bo.pull()
            except (NetworkError, RemoteDataError):
                broken += 1
                whole(bo) if FULL else assert_clean(bo.sandbox.path)
        assert broken > 1
        line.room = None
        bo.pull()
        assert bo.log() == ana.log()
        assert bo.stages() == ana.stages()
        whole(bo)
    assert_clean(hub.path)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from gittrack.registry.registry import Registry
from gittrack.store.repo import Repo
from gittrack.sync import pull, push, remotes
from gittrack.track.runs import Tracker
registry = Registry(Tracker(Repo.find(Path({folder!r})), strict=True))
print("ready", flush=True)
sys.stdin.readline()
remote = remotes.choose(registry.repo)
if {verb!r} == "push":
    push.push(registry, remote, files=False)
else:
    pull.pull(registry, remote)
print("done", flush=True)
"""


def killed_after(desk: Desk, verb: str, seconds: float) -> bool:
    """A process that pushes or pulls is killed after so many seconds; True if it was ready before."""
    desk.close()
    code = CHILD.format(root=str(Path(__file__).parents[2]), folder=str(desk.sandbox.path), verb=verb)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(b"\n")
        process.stdin.flush()
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # git and its helpers too: the machine goes down
        return process.stdout.read() == b"done\n"


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_killed_at_any_moment(ana: Desk, bo: Desk, hub: Sandbox, verb: str) -> None:
    for number in range(6):
        ana.run(f"run {number}", experiment=f"of {number % 3}")
    ana.model()
    if verb == "pull":
        ana.push(files=False)
    desk = ana if verb == "push" else bo
    desk.registry  # noqa: B018 - makes the store
    before = state_of(desk.sandbox.path)
    moments = [step * (0.02 if FULL else 0.12) for step in range(60 if FULL else 6)]
    for seconds in moments:
        finished = killed_after(desk, verb, seconds)
        assert_clean(hub.path)
        assert_clean(desk.sandbox.path)
        if finished:
            break
    assert state_of(desk.sandbox.path) == before
    for lock in (desk.sandbox.path / ".git" / "refs").rglob("*.lock"):
        os.utime(lock, (time.time() - 60,) * 2)  # the machine is up again a minute later
    left = list((hub.path / "refs").rglob("*.lock"))
    if left:  # git's own, which was killed there, too: whoever keeps the remote removes them, and is told so
        with pytest.raises(PushRefusedError, match=r"\.lock': File exists"):
            ana.push(files=False)
        for lock in left:
            lock.unlink()
    ana.push(files=False)
    bo.pull()
    assert bo.log() == ana.log()
    assert bo.stages() == ana.stages()
    assert not [ref for ref in bo.refs() if "incoming" in ref]
    assert not list((desk.sandbox.path / ".git" / "refs").rglob("*.lock"))
    whole(desk)


def test_a_refused_push_says_why_and_changes_nothing(ana: Desk, hub: Sandbox) -> None:
    hook = hub.path / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        '#!/bin/sh\ncase "$1" in refs/tags/*) echo "tags are for $(id -un | tr a-z A-Z) only" >&2; exit 1;; esac\n'
    )
    hook.chmod(0o755)
    ana.model()
    before, own = listed(hub.path), ana.refs()
    with pytest.raises(PushRefusedError, match=r"models/iris/v1.*tags are for") as refused:
        ana.push(files=False)
    assert "nothing was pushed" in refused.value.message
    assert listed(hub.path) == before, "not even the runs"
    assert ana.refs() == own
    hook.unlink()
    assert ana.push(files=False).tags == ["models/iris/v1"]


def test_a_remote_that_began_anew_gets_everything_again(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    ana.model()
    ana.push(files=False)
    bo.pull()
    for ref in listed(hub.path):
        if not ref.startswith("refs/heads"):
            hub.git("update-ref", "-d", ref)
    hub.git("gc", "--quiet", "--prune=now")
    assert bo.pull().published.conflicts == []
    assert bo.push(files=False).tags == ["models/iris/v1"]
    assert ana.push(files=False).ledgers == []
    assert ana.stages() == bo.stages()


def test_a_full_disk(ana: Desk, bo: Desk) -> None:
    """No file may grow beyond 4 kB: the pack cannot be written, nothing is left, and later all arrives."""
    import resource

    for _ in range(30):
        ana.run(f"run {os.urandom(200).hex()}")
    ana.push()
    bo.pull(dry_run=True)
    before = bo.refs()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises((NetworkError, StorageError)):
            bo.pull()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert bo.refs() == before
    assert len(bo.pull().published.runs) == 30
    assert bo.log() == ana.log()
    whole(bo)
