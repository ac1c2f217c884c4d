"""``git cat-file`` that stays: thousands of objects for the price of one process, at a few microseconds each.

For what reads a whole population (a pull, a push, the first filling of the index).  Reading single objects is dulwich's
part, in ``git``: that needs no process.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from gittrack.errors import GitError
from gittrack.types import ObjectId

if TYPE_CHECKING:
    import subprocess

    from gittrack.store.gateway import Git


class Header(NamedTuple):
    """What an object is: ``kind`` is ``commit``, ``tree``, ``blob`` or ``tag``, ``size`` its bytes."""

    oid: ObjectId
    kind: str
    size: int


class CatFile:
    """One process of git that answers questions about objects, for one thread at a time; started by the first one.

    To be closed: where files in use cannot be removed, the packs that it has opened stay.

    Args:
        program: git, on the repository.
    """

    def __init__(self, program: Git) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def headers(self, names: Sequence[str]) -> list[Header | None]:
        """What each of these objects is; None where there is none.

        Args:
            names: Ids, or ``<id>:<path>``.

        Raises:
            GitError: git cannot be started, or ended over one of them; the next question starts it again.
            MissingDependencyError: There is no git program.
        """
        self._ask("info", names)
        return [self._header() for _ in names]

    def contents(self, names: Sequence[str]) -> list[tuple[Header, bytes] | None]:
        """The same with the bytes of each, all of them in memory at once."""
        self._ask("contents", names)
        return [self._content() for _ in names]

    def close(self) -> None:
        """Let git end."""
        if self._process is not None:
            with suppress(OSError):  # it has ended
                self._questions.close()
            self._answers.close()
            self._process.wait()
            self._process = None

    def _ask(self, verb: str, names: Sequence[str]) -> None:
        """Ask.  git reads all questions before it answers the first one, so that neither waits for the other."""
        if self._process is None:
            self._process = self._program.start("cat-file", "--batch-command", "--buffer")
            self._questions = cast("IO[bytes]", self._process.stdin)
            self._answers = cast("IO[bytes]", self._process.stdout)
        try:
            self._questions.write("".join([f"{verb} {name}\n" for name in names]).encode() + b"flush\n")
            self._questions.flush()
        except OSError as error:
            raise self._ended() from error

    def _header(self) -> Header | None:
        words = self._answers.readline().decode().split()
        if len(words) == 3:
            return Header(ObjectId(words[0]), words[1], int(words[2]))
        if words[1:] != ["missing"]:
            raise self._ended()
        return None

    def _content(self) -> tuple[Header, bytes] | None:
        header = self._header()
        if header is None:
            return None
        data = self._answers.read(header.size + 1)
        if len(data) <= header.size:
            raise self._ended()
        return header, data[:-1]

    def _ended(self) -> GitError:
        self.close()
        return GitError("`git cat-file` ended over a damaged object", hint="run `gittrack fsck`")
