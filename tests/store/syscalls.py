"""The system calls of `gittrack.store.files`, watched and made to fail: every N-th call, until the work succeeds."""

from __future__ import annotations

import errno
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gittrack.errors import GittrackError
from gittrack.store import files, journal

#: (name, which argument says what file it is about)
WATCHED = ("open", "write", "fsync", "fdatasync", "replace", "rename", "mkdir", "ftruncate", "dup", "read", "readv")


@dataclass
class Syscalls:
    """Records the calls that concern ``folder``; the ``fail_at``-th of them (counted from 1) fails with ``error``.

    Attributes:
        events: (call, path) of what succeeded, in order; for a rename (call, old path, new path).
        failed: True once the fault has been injected.
    """

    folder: Path
    fail_at: int = 0
    error: int = errno.EIO
    events: list[tuple[str, ...]] = field(default_factory=list)
    failed: bool = False
    _calls: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, fail_at: int, error: int) -> None:
        """Forget what was seen and fail the ``fail_at``-th call from now on."""
        self.fail_at, self.error, self.failed = fail_at, error, False
        self.forget()

    def forget(self) -> None:
        """Count and record from here on."""
        self._calls = 0
        self.events.clear()

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` with an eye on it."""

        def watched(*args: Any, **options: Any) -> Any:
            names = _names(name, args, options)
            if not all(text.startswith(str(self.folder)) for text in names):
                return call(*args, **options)
            with self._lock:
                self._calls += 1
                if self._calls == self.fail_at:
                    self.failed = True
                    raise OSError(self.error, os.strerror(self.error))
            result = call(*args, **options)
            self.events.append((name, *names))
            return result

        return watched

    def assert_durable(self, *, whole: bool = False) -> None:
        """Every byte was synced before its file got its name, and every name and folder after that.

        Args:
            whole: A sync of the whole file system counts for all that was before it.
        """
        for at, (call, *names) in enumerate(self.events):
            after = [event for event in self.events[at + 1 :] if event[0] in ("fsync", "whole")]
            if call in ("replace", "rename"):
                old, new = names
                wrote = max(i for i, event in enumerate(self.events[:at]) if event == ("write", old))
                between = self.events[wrote + 1 : at]
                assert ("fsync", old) in between or (whole and any(e[0] == "whole" for e in between)), names
                parent = str(Path(new).parent)
            elif call == "mkdir":
                parent = str(Path(names[0]).parent)
            else:
                continue
            assert ("fsync", parent) in after or (whole and any(e[0] == "whole" for e in after)), (call, names)


def _names(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> list[str]:
    if name in ("replace", "rename"):
        names = [_absolute(args[0], options.get("src_dir_fd")), _absolute(args[1], options.get("dst_dir_fd"))]
    elif isinstance(args[0], int):
        names = [_path_of(args[0])]
    else:
        names = [_absolute(args[0], options.get("dir_fd"))]
    return names


def _absolute(path: Any, dir_fd: int | None) -> str:
    return os.fspath(path) if dir_fd is None else f"{_path_of(dir_fd)}/{path}"


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def watch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Syscalls:
    """Puts a Syscalls between gittrack and the system."""
    seen = Syscalls(folder)
    for name in WATCHED:
        watched = seen.wrap(name, getattr(os, name))
        monkeypatch.setattr(os, name, watched)
        if name in ("mkdir", "replace", "rename") and hasattr(pathlib, "_normal_accessor"):  # Python 3.10
            monkeypatch.setattr(pathlib._normal_accessor, name, watched)
    monkeypatch.setattr(journal, "_write", os.write)  # bound early there, for speed
    monkeypatch.setattr(files, "sync_whole", seen.wrap("whole", files.sync_whole))
    return seen


def sweep(seen: Syscalls, work: Callable[[], object], errors: tuple[int, ...]) -> Iterator[tuple[int, bool]]:
    """Does ``work`` with its first call failing, then its second …, until none is left to fail; for each error.

    Yields (number of the call, True if ``work`` raised).  Only gittrack's own errors may leave ``work``.
    """
    for error in errors:
        for number in range(1, 10_000):
            seen.arm(number, error)
            raised = False
            try:
                work()
            except GittrackError:
                raised = True
            reached = seen.failed
            seen.arm(0, 0)
            yield number, raised
            if not reached:
                assert not raised
                break


def temporaries(folder: Path) -> list[Path]:
    """The temporary files that were left anywhere below ``folder``."""
    return [path for path in folder.rglob("*") if files.is_temp(path.name) or path.name.endswith(journal.OPENING)]
