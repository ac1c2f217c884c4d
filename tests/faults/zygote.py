"""A warm process that forks the programs of ``programs.py``: traced, untraced, as often as asked.

Importing gittrack and its packages costs more than most operations that are swept, so it is done once, here.  Run as
``python -m tests.faults.zygote``; ``Zygote`` is the tester's end of its pipes.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tests.faults import programs, tracer
from tests.faults.power import cut_power

_WARM: Final = (
    "gittrack.fluent",
    "dulwich.repo",
    "dulwich.object_store",
    "dulwich.pack",
    "git",
    "msgpack",
    "sqlite3",
    "concurrent.futures",
)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        at: Number of the mutating call, counted from 1 (only those named in ``calls``, if any are).
        action: "kill" the whole process tree, "kill-one" process, "power" (cut it: the file system at ``mount`` stops
            taking writes and what was not synced is lost; then kill), or the name of an errno.
        calls: Names of the system calls that count; empty means all.
        repeat: The fault stays from then on (a disk that is full stays full).
    """

    at: int
    action: str = "kill"
    calls: tuple[str, ...] = ()
    mount: str = ""
    repeat: bool = False

    def decide(self) -> tracer.Fault:
        """The decision for ``tracer.trace``."""
        seen = 0

        def fault(call: tracer.Syscall) -> str | int | None:
            nonlocal seen
            if self.calls and call.name not in self.calls:
                return None
            seen += 1
            if seen < self.at or (seen > self.at and not self.repeat):
                return None
            if self.action == "power":
                cut_power(Path(self.mount))
                return "kill"
            return self.action if self.action.startswith("kill") else int(getattr(errno, self.action))

        return fault


#: Counts the calls and lets all of them pass.
COUNT: Final = Fault(0)


class Zygote:
    """Starts the warm process; ``run`` has it fork one program."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).parents[2],
        )

    def run(
        self, program: str, *, fault: Fault | None = None, timeout: float = 60.0, **arguments: Any
    ) -> tracer.Outcome:
        """Fork ``program`` of ``programs.py`` with ``arguments`` and wait for its end; traced if there is a ``fault``.

        Raises:
            TimeoutError: It took longer than ``timeout`` seconds.
        """
        request = {
            "program": program,
            "fault": vars(fault) if fault else None,
            "timeout": timeout,
            "arguments": arguments,
        }
        answer = self._ask(request)
        if "timeout" in answer:
            raise TimeoutError(f"{program}: {answer['timeout']}")
        calls = [tracer.Syscall(*call) for call in answer["calls"]]
        hit = tracer.Syscall(*answer["hit"]) if answer["hit"] else None
        return tracer.Outcome(answer["status"], calls, hit, answer["acks"], answer["stderr"])

    def why_no_faults(self) -> str | None:
        """Why programs cannot be stopped at their system calls on this machine, or None if they can."""
        return self._ask({"program": None})["reason"]  # type: ignore[no-any-return]

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the warm process died"
        return json.loads(line)

    def close(self) -> None:
        """End the warm process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fields(call: tracer.Syscall) -> list[Any]:
    return [call.number, call.name, call.path, call.pid, call.main]


def _serve() -> None:
    for name in _WARM:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a program prints must not be read as an answer
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["program"] is None:
        return {"reason": tracer.unavailable()}
    body = getattr(programs, request["program"])
    wanted = request["fault"]
    fault = Fault(**{**wanted, "calls": tuple(wanted["calls"])}).decide() if wanted else None
    try:
        outcome = tracer.run(lambda tracee: body(tracee, **request["arguments"]), fault, timeout=request["timeout"])
    except TimeoutError as error:
        return {"timeout": str(error)}
    return {
        "status": outcome.status,
        "calls": [_fields(call) for call in outcome.calls],
        "hit": _fields(outcome.hit) if outcome.hit else None,
        "acks": outcome.acks,
        "stderr": outcome.stderr,
    }


if __name__ == "__main__":
    _serve()
