"""Running a program as a run: its output is kept, its exit status recorded, signals reach it.

Works for any program in any language; one that logs with gittrack itself logs into the same run, through
``GITTRACK_RUN_ID`` in its environment.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from gittrack.track import secrets
from gittrack.track.environment import packages

if TYPE_CHECKING:
    from gittrack.track.active import ActiveRun

#: The tag that says how the program ended, as a shell would: 128 + N after signal N.
EXIT_STATUS_TAG: Final = "gittrack.exit_status"
#: What is kept of one stream: this many bytes of its beginning and as many of its end.
KEEP: Final = 5 * 1024 * 1024
#: Output becomes visible to others at most this often (seconds) …
_PUBLISH: Final = 2.0
#: … and, once there is more than this, only when it has grown by a quarter: every state published is stored.
_SMALL: Final = 64 * 1024
#: How long a grandchild that keeps the pipes open after the program ended is listened to (seconds).
_LINGER: Final = 2.0

_FORWARDED: Final = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_KILLING: Final = ("SIGINT", "SIGTERM", "SIGKILL", "SIGHUP", "SIGQUIT")


_PYTHON: Final = re.compile(r"python[\d.]*(?:\.exe)?")
#: Imports nothing, so that no file of the current folder can get in the way.
_QUESTION: Final = (
    "import sys; print(sys.version.split()[0], sys.implementation.name, sys.executable, *sys.path[1:], sep='\\n')"
)
_ANSWER_SECONDS: Final = 10.0


def environment_of(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """What to record of a command's surroundings in the place of our own.

    That is the command and, if it is another Python than ours, that Python's version and packages.

    Args:
        command: The program and its arguments; secrets in it are redacted in the answer.
        environment: The environment that it will run in.
    """
    facts: dict[str, Any] = {"command": secrets.redact_args(command)}
    program = shutil.which(command[0])
    if program is None or not _PYTHON.fullmatch(Path(program).name) or Path(program).absolute() == Path(sys.executable):
        return facts
    try:
        asked = subprocess.run(
            [program, "-c", _QUESTION],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return facts  # it will say itself what is wrong when it runs
    version, implementation, executable, *paths = asked.stdout.decode(errors="backslashreplace").splitlines()
    facts["python"] = {"version": version, "implementation": implementation, "executable": executable}
    facts["packages"] = packages(paths)
    return facts


class Outcome(NamedTuple):
    """How a program ended.

    Attributes:
        exit_status: As a shell gives it: 128 + N after signal N.
        status: What the run became: FINISHED, FAILED or KILLED.
    """

    exit_status: int
    status: str


class Transcript:
    """What one stream said: all of it up to twice ``keep`` bytes, else its beginning and its end."""

    def __init__(self, keep: int = KEEP) -> None:
        """``keep`` is how many bytes of the beginning, and of the end, are held in memory."""
        self._keep = keep
        self._head = bytearray()
        self._tail = bytearray()
        self._lock = threading.Lock()
        self.size = 0  #: bytes said so far

    def add(self, data: bytes) -> None:
        """Append what was just said."""
        with self._lock:
            self.size += len(data)
            room = self._keep - len(self._head)
            self._head += data[:room]
            self._tail += data[max(room, 0) :]
            if len(self._tail) > 2 * self._keep:  # cut seldom, not for every line
                del self._tail[: -self._keep]

    def content(self) -> bytes:
        """What is kept, with a line that says how much is missing in the middle, if any is."""
        with self._lock:
            tail = bytes(self._tail[-self._keep :])
            missing = self.size - len(self._head) - len(tail)
            gap = f"\n[gittrack left out {missing} bytes here]\n".encode() if missing else b""
            return bytes(self._head) + gap + tail


class _Stream:
    """A pipe of the program: passed on as it comes, kept, and published as an artifact."""

    def __init__(self, name: str, pipe: IO[bytes], pass_on: Callable[[bytes], None]) -> None:
        self._path = f"{name}.txt"
        self._pipe = pipe
        self._pass_on: Callable[[bytes], None] | None = pass_on
        self._transcript = Transcript()
        self._published = 0
        self.thread = threading.Thread(target=self._pump, name=f"gittrack-{name}", daemon=True)
        self.thread.start()

    def _pump(self) -> None:
        with self._pipe as pipe:
            while data := os.read(pipe.fileno(), 65536):
                self._transcript.add(data)
                if self._pass_on is not None:
                    try:
                        self._pass_on(data)
                    except OSError:  # nobody reads our output any more; the program's work goes on
                        self._pass_on = None

    def publish(self, run: ActiveRun, *, final: bool = False) -> None:
        """Make what was said so far the run's artifact, if there is enough that is new."""
        size = self._transcript.size
        worth = size > self._published and (size <= _SMALL or size >= self._published * 1.25)
        if worth or (final and size != self._published):
            run.log_bytes(self._transcript.content(), self._path)
            self._published = size


def execute(
    run: ActiveRun,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    pass_on: Mapping[str, Callable[[bytes], None]],
) -> Outcome:
    """Run ``command`` to its end as ``run``, and end the run.

    Standard input is inherited.  Standard output and standard error are pipes: each is passed on as it comes and kept
    as the artifacts ``stdout.txt`` and ``stderr.txt`` (the first and last 5 MiB).  SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2
    are forwarded; SIGINT and SIGQUIT too, unless the terminal has sent them to the program already.

    Args:
        run: A run of this process.
        command: The program and its arguments; no shell reads them.
        environment: All of the program's environment.
        folder: Where to run it; the current folder if not given.
        pass_on: What to do with output of ``stdout`` and ``stderr``.

    Raises:
        OSError: The program cannot be started; the run has ended as FAILED.
    """
    with _forwarding() as forward_to:
        try:
            process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError:
            run.end("FAILED")
            raise
        forward_to(process)
        streams = [
            _Stream(name, pipe, pass_on[name])
            for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr))
            if pipe is not None
        ]
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PUBLISH)
            for stream in streams:
                stream.publish(run)
        deadline = time.monotonic() + _LINGER
        for stream in streams:
            stream.thread.join(max(deadline - time.monotonic(), 0.0))
            stream.publish(run, final=True)
    outcome = _outcome(process.returncode)
    run.set_tags({EXIT_STATUS_TAG: str(outcome.exit_status)})
    run.end(outcome.status)
    return outcome


def _outcome(code: int) -> Outcome:
    if code >= 0:
        return Outcome(code, "FAILED" if code else "FINISHED")
    killed = any(getattr(signal, name, None) == -code for name in _KILLING)
    return Outcome(128 - code, "KILLED" if killed else "FAILED")


@contextlib.contextmanager
def _forwarding() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Pass signals on to the program instead of dying of them; those that come before it has started wait for it.

    Gives what is to be called with the program once it has started.
    """
    process: subprocess.Popen[bytes] | None = None
    waiting: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if process is None:
            waiting.append(number)
        elif not (number in from_terminal and _in_foreground()):
            process.send_signal(number)

    def forward_to(started: subprocess.Popen[bytes]) -> None:
        nonlocal process
        process = started
        for number in ignored:
            signal.signal(number, forward)
        for number in waiting:
            process.send_signal(number)

    from_terminal = {getattr(signal, name, None) for name in ("SIGINT", "SIGQUIT")}
    numbers = [getattr(signal, name) for name in _FORWARDED if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    # The program inherits what is ignored (`nohup`), and no handlers: those must not come before it.
    ignored = [number for number in numbers if before[number] is signal.SIG_IGN]
    try:
        for number in numbers:
            if number not in ignored:
                signal.signal(number, forward)
        yield forward_to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """True if ^C goes from the terminal to the program directly, as it does to us."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except (OSError, AttributeError):  # standard input is no terminal, or a system without process groups
        return False
