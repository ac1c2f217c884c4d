"""What somebody pushes: apart from the repository until it was looked at, then moved in, then the refs.

A push has a bare git folder of its own, which borrows the repository's objects.  Its pack is indexed there by git, with
git's own checks; sizes, connection and gittrack's rules are looked at; then the pack is renamed into the repository and
the refs move by compare-and-swap, durably.  What is refused, or dies on the way, leaves nothing in the repository.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from gittrack.errors import (
    ConflictError,
    DeadlineError,
    GittrackError,
    PushRefusedError,
    RemoteDataError,
    StorageError,
    TooLargeError,
)
from gittrack.server.hub.projects import Project
from gittrack.server.hub.rules import Rules, Sight, Update, view_of
from gittrack.store import files, gateway
from gittrack.store.git import GitStore
from gittrack.store.pack import PackOnDisk
from gittrack.store.refs import RefUpdate
from gittrack.types import ObjectId

_FOLDER: Final = "gittrack.incoming"  #: in the git folder, so that packs move in by a rename
_OLD: Final = 24 * 3600.0  #: seconds after which a push that nobody ended is of a server that died
_IDX: Final = b"\xfftOc\0\0\0\x02"


@dataclass(frozen=True)
class Bounds:
    """What a push, or a fetch, may take.

    Attributes:
        processes: Runs of git at a time.
        wait: Seconds that a request waits for one of them to end.
        request: Bytes of a request that asks for objects.
        push: Bytes of a pack that is pushed.
        object: Bytes of a single object in it, unpacked: what is larger belongs to LFS.
        refs: Moves of one push.
        silence: Seconds in which a client may neither send nor take a byte.
        seconds: Of one run of git.
        memory: Bytes of address space of the git that unpacks a push, where the system can say so (Linux).
        code: Branches and tags of code may be pushed.
    """

    processes: int = 8
    wait: float = 30.0
    request: int = 64 << 20
    push: int = 4 << 30
    object: int = 100 << 20
    refs: int = 10_000
    silence: float = 60.0
    seconds: float = 3600.0
    memory: int = 2 << 30
    code: bool = True


#: For every run of git that strangers' requests start: how much memory it takes.
OPTIONS: Final = (
    "core.bigFileThreshold=32m",
    "core.packedGitWindowSize=32m",
    "core.packedGitLimit=512m",
    "core.deltaBaseCacheLimit=64m",
    "pack.threads=1",
    "pack.windowMemory=128m",
    "pack.deltaCacheSize=64m",
)


def _limit(process: subprocess.Popen[bytes], memory: int) -> None:
    """Bound the memory of a process: a delta of some bytes can say that it makes an object of any size."""
    if sys.platform == "linux":
        import resource

        with contextlib.suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(process.pid, resource.RLIMIT_AS, (memory, memory))


class Incoming:
    """One push.  A single thread at a time uses it; ``close`` it.

    Args:
        project: Where to.
        sight: What the one who pushes may see.
        bounds: What it may take.

    Raises:
        ReadOnlyError, StorageError: It cannot be written.
    """

    def __init__(self, project: Project, sight: Sight, bounds: Bounds) -> None:
        project.repo.require_writable()
        self._project = project
        self._sight = sight
        self._bounds = bounds
        self._pack: Path | None = None
        self._kept: PackOnDisk | None = None
        self._process: subprocess.Popen[bytes] | None = None
        paths = project.repo.paths
        top = paths.common_dir / _FOLDER
        try:
            top.mkdir(exist_ok=True)
            _sweep(top)
            self._folder = Path(tempfile.mkdtemp(prefix="push-", dir=top))
            (self._folder / "objects" / "info").mkdir(parents=True)
            (self._folder / "objects" / "pack").mkdir()
            (self._folder / "refs").mkdir()
            version, extension = (
                (1, "[extensions]\n\tobjectFormat = sha256\n") if paths.object_format != "sha1" else (0, "")
            )
            (self._folder / "config").write_text(
                f"[core]\n\trepositoryFormatVersion = {version}\n\tbare = true\n{extension}"
            )
            borrowed = os.fsencode(paths.common_dir / "objects")
            (self._folder / "objects" / "info" / "alternates").write_bytes(_quoted(borrowed) + b"\n")
            (self._folder / "HEAD").write_text("ref: refs/heads/none\n")
        except OSError as error:
            raise files.failure(error, top) from error
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._view = view_of(project.repo, self._folder)

    # -- receiving ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to receive a pack."""
        whole = self._sight.whole
        options = ["--stdin", "--strict", f"--max-input-size={self._bounds.push}", "--threads=1"]
        if whole:  # what others only hide from him cannot be the base of a delta of his
            options.append("--fix-thin")
        process = self._view.git.program.start("index-pack", *options, options=OPTIONS, stderr=self._said, leading=True)
        self._process = process
        self._stdin, self._stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        _limit(process, self._bounds.memory)

    def write(self, data: bytes) -> None:
        """The next bytes of the pack.  Raises PushRefusedError if git does not want more."""
        try:
            files.write_all(self._stdin.fileno(), data)
        except BrokenPipeError:
            raise self._failure() from None

    def finish(self) -> None:
        """There is no more of the pack.

        Raises:
            RemoteDataError, TooLargeError, StorageError: It is none, or git does not accept it.
            DeadlineError: Git takes too long.
        """
        try:
            self._stdin.close()
            status = self._process.wait(self._bounds.seconds) if self._process is not None else 0
        except subprocess.TimeoutExpired:
            raise DeadlineError(f"git took longer than {self._bounds.seconds:g} s with the pack") from None
        except BrokenPipeError:
            raise self._failure() from None
        said = self._stdout.read(200).split()
        if status != 0 or len(said) != 2:
            raise self._failure()
        pack = self._folder / "objects" / "pack" / f"pack-{said[1].decode('ascii')}.pack"
        with pack.open("rb") as file:
            if file.read(12)[8:] == bytes(4):
                return  # a push of what is here already
        self._pack = pack
        self._check_sizes()

    def _failure(self) -> GittrackError:
        status = 0 if self._process is None else gateway.end(self._process)
        self._said.seek(0)
        text = self._said.read(1 << 16).decode("utf-8", "replace").replace(str(self._folder), "…")
        lines = [line for line in text.splitlines() if line.startswith(("fatal: ", "error: "))]
        last = (lines[0].partition(": ")[2] if lines else f"git ended with status {status}")[:300]
        if "maximum allowed size" in text:
            return TooLargeError(f"the pack has more than {self._bounds.push:,} bytes", hint="push less at a time")
        if "No space left" in text or "Disk quota" in text:
            return StorageError("there is no room on the server")
        if "ut of memory" in text or "mmap failed" in text:
            return TooLargeError("the pack takes too much memory to be unpacked", hint="large files belong to git-lfs")
        return RemoteDataError(f"git refuses the objects: {last}", hint="`git fsck` looks for what is wrong")

    def _oids(self) -> list[ObjectId]:
        """The objects of the pack (https://git-scm.com/docs/pack-format, version 2 of the index)."""
        if self._pack is None:
            return []
        data = self._pack.with_suffix(".idx").read_bytes()
        if not data.startswith(_IDX):
            raise RemoteDataError("git has written an index of an unknown version")
        size = 32 if self._project.repo.paths.object_format == "sha256" else 20
        start, count = 8 + 256 * 4, int.from_bytes(data[8 + 255 * 4 : 8 + 256 * 4], "big")
        return [ObjectId(data[at : at + size].hex()) for at in range(start, start + count * size, size)]

    def _check_sizes(self) -> None:
        """No object is unpacked by anybody that nobody would have made.  Raises TooLargeError."""
        for oid, kind, size in self._view.git.headers(self._oids()).values():
            if size > self._bounds.object:
                raise TooLargeError(
                    f"{kind} `{oid[:10]}` has {size:,} bytes, more than {self._bounds.object:,}",
                    hint="large files belong to git-lfs",
                )

    # -- looking, and moving in --------------------------------------------------------------------------------------

    def settle(self, updates: list[Update], *, atomic: bool) -> dict[str, GittrackError | None]:
        """Look at everything, and do what may be done; why not for each ref, or None.

        Args:
            updates: What is asked for.
            atomic: All of it or nothing.
        """
        refused: dict[str, GittrackError] = {}
        connected = self._unconnected(updates, refused)
        refused |= Rules(self._project, self._sight, self._view, self._bounds.code).check(connected)
        good = [update for update in updates if update.ref not in refused]
        if atomic and refused:
            good = []
        if good:
            self._move_in()
            refused |= self._publish(good, atomic=atomic)
        done: dict[str, GittrackError | None] = {}
        for update in updates:
            done[update.ref] = refused.get(update.ref)
            if atomic and refused and update.ref not in refused:
                done[update.ref] = PushRefusedError("atomic push failed")
        return done

    def _unconnected(self, updates: Iterable[Update], refused: dict[str, GittrackError]) -> list[Update]:
        """The moves whose objects are all here; with what only others may see it is as if it were not."""
        git, here = self._view.git, []
        refs = self._project.repo.git.refs("refs/")
        known = {oid for ref, oid in refs.items() if self._sight.whole or self._sight.sees(ref)}
        excluded = "".join(f"^{oid}\n" for oid in git.headers(known))  # a ref at nothing is for `gittrack fsck`
        own = None if self._sight.whole else set(self._oids())
        wanted = [update for update in updates if update.new is not None]
        if own is None and self._is_connected(git, [str(one.new) for one in wanted], excluded):
            return list(updates)
        for update in updates:
            if update.new is None or self._is_connected(git, [update.new], excluded, own):
                here.append(update)
            else:
                refused[update.ref] = RemoteDataError(
                    "objects are missing", hint="push from a clone with its whole history"
                )
        return here

    def _is_connected(self, git: GitStore, new: list[str], excluded: str, own: set[ObjectId] | None = None) -> bool:
        options = ["--quiet"] if own is None else []
        found = git.program.call(
            "rev-list", "--objects", *options, "--stdin", input=("\n".join(new) + "\n" + excluded).encode(),
            timeout=self._bounds.seconds,
        )  # fmt: skip
        if found.status != 0:
            return False
        return own is None or all(
            line[: len(new[0])] in own for line in found.stdout.decode("ascii", "replace").splitlines()
        )

    def _move_in(self) -> None:
        """Give the pack to the repository, durably; git's housekeeping leaves it alone until refs name it."""
        if self._pack is None:
            return
        target = self._project.repo.paths.common_dir / "objects" / "pack"
        files.make_dirs(target)
        kept = PackOnDisk(target / self._pack.stem)
        if kept.path(".idx").exists():
            return  # the same pack was pushed before
        if not kept.path(".keep").exists():  # else it is just being pushed by somebody else, too
            kept.keep()
            self._kept = kept
        with files.reporting(target):
            for suffix in (".pack", ".rev", ".idx"):  # git looks for packs by their index: last
                source = self._pack.with_suffix(suffix)
                if source.exists():
                    fd = os.open(source, os.O_RDONLY)
                    try:
                        files.sync_file(fd)
                    finally:
                        os.close(fd)
                    source.rename(kept.path(suffix))
        files.sync_dir(target)
        self._project.repo.git.close()  # it is found when the store opens again

    def _publish(self, updates: list[Update], *, atomic: bool) -> Mapping[str, GittrackError]:
        """Move the refs; those that were moved by others meanwhile, and why."""
        git = self._project.repo.git
        moves = [RefUpdate(*update) for update in updates]
        try:
            git.publish(git.batch(), moves)
        except ConflictError as error:
            if atomic or len(moves) == 1:
                late = {move.name for move in moves if git.ref(move.name) != move.old} or {moves[0].name}
                why = ConflictError(error.message, hint="fetch (`gittrack pull`) and push again")
                return dict.fromkeys(late, why)
            found: dict[str, GittrackError] = {}
            for update in updates:
                found |= self._publish([update], atomic=True)
            return found
        return {}

    def close(self) -> None:
        """End what is going on, and forget what did not move in."""
        if self._process is not None:
            gateway.end(self._process)
            for pipe in (self._stdin, self._stdout):
                with contextlib.suppress(BrokenPipeError):  # what it did not want to have
                    pipe.close()
            self._process = None
        self._view.git.close()
        self._said.close()
        if self._kept is not None:
            self._kept.release()
        shutil.rmtree(self._folder, ignore_errors=True)


def _sweep(top: Path) -> None:
    """Remove what pushes left that were cut off with their server."""
    for one in top.glob("push-*"):
        try:
            old = one.stat().st_mtime < time.time() - _OLD
        except FileNotFoundError:  # it has just ended
            continue
        if old:
            shutil.rmtree(one, ignore_errors=True)


def _quoted(path: bytes) -> bytes:
    """A path as git's alternates have it: quoted as in C if it begins with a quote or has line ends."""
    if not path.startswith((b'"', b"#")) and b"\n" not in path:
        return path
    return b'"' + path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'
