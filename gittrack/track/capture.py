"""What a run starts from: the exact code, and the environment.  Called in the background, once for several runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gittrack.store.record import CODE, ENVIRONMENT
from gittrack.store.repo import Repo

#: `gittrack.code`: how much code a run carries.
FULL: Final = "full"
COMMIT: Final = "commit"
NONE: Final = "none"

_log = logging.getLogger("gittrack")


def _plain(value: Any) -> Any:
    """Tuples as the lists that msgpack has."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


class Capturer:
    """Captures code and environment for one process.

    Args:
        argv: The command line.
        environ: The process environment; a few variables of it are recorded.
        cwd: The folder the process was started in.
        mode: ``full``: the working tree exactly as it is; ``commit``: only the commit; ``none``: neither.
        max_untracked: Largest new untracked file that is carried, in bytes.
    """

    def __init__(
        self, *, argv: Sequence[str], environ: Mapping[str, str], cwd: Path, mode: str, max_untracked: int
    ) -> None:
        self._argv = list(argv)
        self._environ = environ
        self._cwd = cwd
        self._mode = mode
        self._max_untracked = max_untracked
        self._environment: dict[str, Any] | None = None
        self._warned: set[str] = set()

    def __call__(self, repo: Repo) -> list[list[Any]]:
        """The CODE and ENVIRONMENT events for runs that start now.  Raises GitError and StorageError."""
        events: list[list[Any]] = []
        if self._mode != NONE:
            events.append([CODE, self._code(repo)])
        events.append([ENVIRONMENT, self.environment(repo)])
        return events

    def _code(self, repo: Repo) -> dict[str, Any]:
        from gittrack.store import snapshot
        from gittrack.track import secrets

        policy = snapshot.Policy(
            full=self._mode == FULL, max_untracked_bytes=self._max_untracked, looks_secret=secrets.looks_secret
        )
        code = snapshot.capture(repo.paths, repo.git, policy)
        if code.left_out:
            shown = ", ".join(f"{path} ({why})" for path, why in code.left_out[:3])
            more = f" and {len(code.left_out) - 3} more" if len(code.left_out) > 3 else ""
            self._warn_once("left-out", "gittrack: not in the code that the run carries: %s%s", shown, more)
        # Absent facts are left out of the record rather than stored as nothing.
        facts = {name: _plain(getattr(code, name)) for name in type(code).__dataclass_fields__}
        return {"mode": self._mode, **{name: value for name, value in facts.items() if value not in (None, [])}}

    def _warn_once(self, kind: str, message: str, *details: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning(message, *details)

    def environment(self, repo: Repo) -> dict[str, Any]:
        """The environment; found out once, since a process keeps its packages and its machine."""
        if self._environment is None:
            from gittrack.track import environment

            self._environment = environment.capture(self._argv, self._environ, self._cwd, root=repo.paths.work_tree)
        return self._environment
