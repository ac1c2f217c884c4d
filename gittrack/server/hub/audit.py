"""The audit log: who did what that others must be able to look up later, in files that only grow.

A line is a JSON object in ASCII: ``seq``, ``time`` (UTC), ``who``, ``how`` (token, user …), ``what``, ``object``,
``address``, ``outcome``, ``prev`` (the SHA-256 of the line before, without its line feed; 64 zeros for the first).  So
a line that was changed, removed or put elsewhere breaks the chain.  ``audit.head`` names the newest line that was
synced, and shows that lines at the end are gone.  It is a file of the same folder: whoever may write both can forge
both; to keep such a person from it, note the newest line elsewhere (``gittrack server audit verify`` prints it).

``audit.jsonl`` is written to; when it is large it becomes ``audit-<number of its first line>.jsonl``, and the chain
goes on in a new one.  A line that was not complete when the machine stopped was never acknowledged, and is cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

from gittrack.errors import CorruptError, InvalidValueError
from gittrack.store import files

ACTIVE: Final = "audit.jsonl"
HEAD: Final = "audit.head"
LOCK: Final = "audit.lock"
ROTATED: Final = re.compile(r"audit-([0-9]{12})\.jsonl")
#: Bytes after which a file is full.
FULL: Final = 16 << 20
_NOTHING: Final = "0" * 64
_LONGEST: Final = 500  #: characters of a field; in ASCII 12 bytes each at most
_LOCK_SECONDS: Final = 10.0
_FIELDS: Final = ("who", "how", "what", "object", "address", "outcome")
_TAIL: Final = 64 << 10  #: bytes at the end that hold the last line, whatever is in it


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done, or refused.

    Attributes:
        who: The caller's name.
        how: How he is known: ``token``, ``user``, ``local``, ``anonymous``, ``command line``.
        what: ``token.create``, ``model.promote``, ``login`` …
        object: What it was done to.
        address: Where he asked from; empty for the command line.
        outcome: ``done`` or ``refused``, and why.
    """

    who: str
    how: str
    what: str
    object: str = ""
    address: str = ""
    outcome: str = "done"


class Line(NamedTuple):
    """The place of a line in the chain: its number, and the hash of its bytes."""

    seq: int
    hash: str


_BEFORE_ALL: Final = Line(0, _NOTHING)


class Audit:
    """An audit log.

    Args:
        folder: Where its files are; made when the first line is written.
        full: Bytes after which a new file is begun.
    """

    def __init__(self, folder: Path, *, full: int = FULL) -> None:
        self.folder = folder
        self._full = full
        self._mutex = threading.Lock()

    def record(self, happened: Event, *, sync: bool = True) -> Line:
        """Add a line.

        Args:
            happened: What it says.
            sync: It is on disk when this returns, and its absence would be seen.

        Raises:
            LockedError: Other processes write all the time.
            CorruptError: The last line cannot be read.
            ReadOnlyError, StorageError: It cannot be written.
        """
        files.make_dirs(self.folder)
        with self._mutex, files.FileLock(self.folder / LOCK, timeout=_LOCK_SECONDS):
            path = self.folder / ACTIVE
            before = self._settle(path)
            if path.exists() and path.stat().st_size >= self._full:
                before = self._rotate(path, before)
            return self._append(path, before, happened, sync=sync)

    def _append(self, path: Path, before: Line, happened: Event, *, sync: bool) -> Line:
        data = _written(before, happened)
        new = not path.exists()
        fd = files.create_append(path, 0o600) if new else files.open_append(path)
        try:
            with files.reporting(path):
                files.write_all(fd, data + b"\n")
                if sync:
                    files.sync_data(fd)
        finally:
            os.close(fd)
        if new:
            files.sync_dir(self.folder)
        line = Line(before.seq + 1, _hash(data))
        if sync:  # else the head could be on disk before the line is
            self._write_head(line)
        return line

    def _settle(self, path: Path) -> Line:
        """Cut an incomplete line off; the last complete one."""
        if not path.exists():
            newest = max((seq for seq, _ in _rotated(self.folder)), default=None)
            return _BEFORE_ALL if newest is None else _last(self.folder / _name(newest))[0]
        line, whole = _last(path)
        if whole < path.stat().st_size:
            fd = files.open_append(path)
            try:
                with files.reporting(path):
                    os.ftruncate(fd, whole)
                    files.sync_file(fd)
            finally:
                os.close(fd)
        if line == _BEFORE_ALL:  # a file whose first line was cut off
            newest = max((seq for seq, _ in _rotated(self.folder)), default=None)
            return _BEFORE_ALL if newest is None else _last(self.folder / _name(newest))[0]
        return line

    def _rotate(self, path: Path, before: Line) -> Line:
        with path.open("rb") as source:
            first = _parsed(path, source.readline().rstrip(b"\n"))["seq"]
        with files.reporting(path):
            path.rename(self.folder / _name(first))
        files.sync_dir(self.folder)
        return before

    def _write_head(self, line: Line) -> None:
        """In place, and within one sector of the disk: it is the old one or the new one after a power cut."""
        path = self.folder / HEAD
        text = f"{line.seq:020d} {line.hash}\n".encode()
        if not path.exists():
            files.write_atomic(path, text, mode=0o600)
            return
        with files.reporting(path):
            fd = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
            try:
                files.write_all(fd, text)
                files.sync_data(fd)
            finally:
                os.close(fd)

    # --- reading

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every line, the oldest first; an incomplete last one is left out.  Raises CorruptError."""
        for path in self._files():
            for data, complete in _raw_lines(path):
                if complete:
                    yield _parsed(path, data)

    def verify(self, *, since: int = 1, noted: Line | None = None) -> Line:
        """Look at every line; the newest one.

        Args:
            since: The number of the oldest line that must be there.
            noted: A line whose number and hash somebody noted; it must be there.

        Raises:
            CorruptError: A line was changed, removed or put elsewhere.
            InvalidValueError: The noted line is older than what is looked at.
        """
        if noted is not None and noted.seq < since:
            raise InvalidValueError(f"line {noted.seq} is older than line {since}", hint="look at older lines, too")
        before = None if since > 1 else _BEFORE_ALL
        head = self._head()
        wanted = {line.seq: line for line in (noted, head) if line is not None and line.seq >= since}
        for path, data in self._complete_lines():
            found = _parsed(path, data)
            if before is None:
                if found["seq"] < since:
                    continue
                if found["seq"] > since:
                    raise _broken(f"line {since} is missing: `{path.name}` goes on with line {found['seq']}")
            elif found["seq"] != before.seq + 1:
                raise _broken(f"line {before.seq + 1} is missing in `{path.name}`: line {found['seq']} is in its place")
            elif found["prev"] != before.hash:
                raise _broken(f"line {before.seq} or line {found['seq']} in `{path.name}` was changed")
            before = Line(found["seq"], _hash(data))
            if wanted.pop(before.seq, before) != before:
                raise _broken(f"line {before.seq} in `{path.name}` was changed")
        if wanted:
            last = before.seq if before else 0
            raise _broken(f"lines are missing at the end: the last is {last}, and there was a line {max(wanted)}")
        if before is None:
            raise _broken(f"line {since} is missing")
        if head is None and before.seq:
            raise _broken(f"`{HEAD}` is missing, which names the newest line")
        return before

    def _files(self) -> list[Path]:
        found = [self.folder / name for _, name in sorted(_rotated(self.folder))]
        active = self.folder / ACTIVE
        return [*found, active] if active.exists() else found

    def _complete_lines(self) -> Iterator[tuple[Path, bytes]]:
        paths = self._files()
        for path in paths:
            for data, complete in _raw_lines(path):
                if complete:
                    yield path, data
                elif path != paths[-1]:
                    raise _broken(f"the last line of `{path.name}` is not complete")

    def _head(self) -> Line | None:
        try:
            text = (self.folder / HEAD).read_text("ascii")
        except FileNotFoundError:
            return None
        except ValueError:
            text = ""
        match = re.fullmatch(r"([0-9]{20}) ([0-9a-f]{64})\n", text)
        if match is None:
            raise _broken(f"`{HEAD}` cannot be read")
        return Line(int(match[1]), match[2])


def _broken(message: str) -> CorruptError:
    return CorruptError(
        f"the audit log is not what was written: {message}", hint="compare it with a backup, and ask who was there"
    )


def _name(first: int) -> str:
    return f"audit-{first:012d}.jsonl"


def _rotated(folder: Path) -> Iterator[tuple[int, str]]:
    if folder.is_dir():
        for path in folder.iterdir():
            match = ROTATED.fullmatch(path.name)
            if match is not None:
                yield int(match[1]), path.name


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _written(before: Line, happened: Event) -> bytes:
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = {name: str(getattr(happened, name))[:_LONGEST] for name in _FIELDS}
    text = json.dumps({"seq": before.seq + 1, "time": time, **fields, "prev": before.hash}, ensure_ascii=True)
    return text.replace("\x7f", "\\u007f").encode("ascii")


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
        if isinstance(found["seq"], int) and isinstance(found["prev"], str) and len(data) < _TAIL:
            return dict(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise _broken(f"a line in `{path.name}` cannot be read")


def _raw_lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Lines without their line feed, and whether they have one."""
    with path.open("rb") as source:
        for data in source:
            yield data.removesuffix(b"\n"), data.endswith(b"\n")


def _last(path: Path) -> tuple[Line, int]:
    """The last complete line of a file, and where it ends."""
    with path.open("rb") as source:
        size = source.seek(0, os.SEEK_END)
        start = max(0, size - 2 * _TAIL)
        source.seek(start)
        tail = source.read()
    end = tail.rfind(b"\n")
    if end < 0:
        if start:
            raise _broken(f"the last line of `{path.name}` cannot be read")
        return _BEFORE_ALL, 0
    begin = tail.rfind(b"\n", 0, end) + 1
    data = tail[begin:end]
    return Line(_parsed(path, data)["seq"], _hash(data)), start + end + 1
