"""What all places that keep artifacts have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from gittrack.errors import CorruptError, GittrackError, NetworkError, NotFoundError
from gittrack.types import Artifact, Digest

if TYPE_CHECKING:
    from gittrack.store.objects import Arrivals, Part

_T = TypeVar("_T")

#: Called with (bytes moved, bytes in all), from any thread.
Progress = Callable[[int, "int | None"], None]

_SMALL: Final = 1 << 20  #: bytes up to which an object comes through memory
_ATTEMPTS: Final = 5
_FIRST_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 60.0  #: a server that asks for a longer one is told on instead

#: What to do after an interruption.
GO_ON: Final = "run the same command again: it goes on from there"


class Item(NamedTuple):
    """An object: the sha256 of its bytes, and how many they are."""

    digest: Digest
    size: int

    @classmethod
    def of(cls, artifacts: Iterable[Artifact]) -> list[Item]:
        """The objects of artifacts, each once."""
        return list(dict.fromkeys(cls(one.digest, one.size) for one in artifacts))


@dataclass(frozen=True)
class Moved:
    """What was moved, or would be.

    Attributes:
        count: Objects.
        bytes: Their bytes together.
        skipped: Objects that were there already.
    """

    count: int
    bytes: int
    skipped: int


class Depot(Protocol):
    """A place that keeps objects by their sha256.

    Attributes:
        name: What it is called in messages; without credentials.
    """

    name: str

    def lacking(self, items: Sequence[Item]) -> list[Item]:
        """Those of ``items`` that it does not have.  Raises GittrackError if that cannot be found out."""

    def upload(self, items: Sequence[Item], progress: Progress) -> None:
        """Put these objects of the clone there; those that are there already are left alone.

        Raises:
            NotFoundError, CorruptError: The clone does not have an object, or not its bytes; the others may be there.
            GittrackError: The place cannot take one; what it has taken it keeps, and the next call goes on.
        """

    def download(self, items: Sequence[Item], progress: Progress) -> None:
        """Bring these objects into the clone, each verified before it counts.

        Raises:
            NotFoundError: The place does not have one; the others are here.
            CorruptError: It sent other bytes.
            GittrackError: It cannot be read; what came stays, and the next call goes on.
        """


class Count:
    """Adds up the bytes that several threads move, and tells them on.

    Args:
        items: What is moved.
        progress: Whom to tell.
    """

    def __init__(self, items: Iterable[Item], progress: Progress) -> None:
        self._total = sum(item.size for item in items)
        self._progress = progress
        self._lock = threading.Lock()
        self._done = 0

    def add(self, amount: int) -> None:
        """``amount`` bytes more, or fewer if what was sent has to be sent again."""
        with self._lock:
            self._done += amount
            self._progress(self._done, self._total)


def nobody_has(missing: Sequence[Item], where: str, *, hint: str | None = None) -> NotFoundError:
    """The error about objects that are not to be had."""
    shown = ", ".join(f"`{item.digest[:12]}`" for item in missing[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    subject = "artifact object" if len(missing) == 1 else f"{len(missing)} artifact objects:"
    verb = "is" if len(missing) == 1 else "are"
    return NotFoundError(
        f"{subject} {shown}{more} {verb} {where}",
        hint=hint or "`gittrack push` in the clone that has them, then try again",
    )


def lost(missing: Sequence[Item], name: str, *, hint: str | None = None) -> NotFoundError:
    """The error of a depot that does not have what was asked for."""
    return nobody_has(missing, f"neither in this clone nor at {name}", hint=hint)


def persist(attempt: Callable[[], _T], stop: threading.Event, advanced: Callable[[], int] | None = None) -> _T:
    """What ``attempt`` returns; trouble that may pass is waited for, with growing pauses.

    Args:
        attempt: Raises NetworkError with ``again`` if it is worth another try.
        stop: Set to give up.
        advanced: A number that grows when attempts get on; then they are counted anew.

    Raises:
        NetworkError: The last attempt's.
    """
    tries, reached = 0, 0 if advanced is None else advanced()
    while True:
        try:
            return attempt()
        except NetworkError as error:
            if error.again is None or error.again > _MAX_PAUSE_S or stop.is_set():
                raise
            if advanced is not None and advanced() > reached:
                tries, reached = 0, advanced()
            tries += 1
            if tries >= _ATTEMPTS or stop.wait(max(error.again, _FIRST_PAUSE_S * 2 ** (tries - 1))):
                raise


def receive(
    arrivals: Arrivals, item: Item, count: Count, *, whole: Callable[[], bytes], rest: Callable[[Part], None]
) -> None:
    """Bring one object here, going on with what an earlier try has left of it.

    Args:
        arrivals: Where it counts once it is verified.
        item: The object.
        count: Told about its bytes.
        whole: Gives all of a small one.
        rest: Writes what a part lacks, and tells ``count``.

    Raises:
        CorruptError: Other bytes came.
        GittrackError: As ``whole`` and ``rest``.
    """
    if item.size <= _SMALL:
        arrivals.add(whole(), item.digest)
        count.add(item.size)
        return
    with arrivals.part(item.digest, item.size) as part:
        if part is None:  # another process fetched it
            count.add(item.size)
            return
        count.add(part.have)
        resumed = part.have > 0
        while True:
            rest(part)
            try:
                part.finish()
            except CorruptError:
                count.add(-item.size)
                if not resumed:
                    raise
                resumed = False  # the beginning was here before, and may have been what was wrong
            else:
                return


def in_parallel(
    tasks: Iterable[tuple[Item, _T]],
    work: Callable[[Item, _T], None],
    *,
    name: str,
    total: int,
    threads: int,
    stop: Callable[[], None],
    end_thread: Callable[[], None],
) -> None:
    """``work`` for each task, by several threads.

    An item that is missing or damaged does not keep the others from being moved; any other trouble ends all.

    Args:
        tasks: Taken by one thread at a time, when one is free.
        work: Moves one item.
        name: Of the depot.
        total: How many there are.
        threads: How many at once.
        stop: Makes the calls of ``work`` that go on end soon.
        end_thread: Called at the end of each thread.

    Raises:
        NotFoundError, CorruptError: Items that were missing or damaged; the others were moved.
        GittrackError: What ended it.
    """
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    waiting, taking = iter(tasks), threading.Lock()
    moved: list[Item] = []
    missing: list[tuple[Item, str | None]] = []
    corrupt: list[CorruptError] = []

    def run() -> None:
        try:
            while True:
                with taking:
                    task = next(waiting, None)
                if task is None:
                    return
                try:
                    work(*task)
                    moved.append(task[0])
                except NotFoundError as error:
                    missing.append((task[0], error.hint))
                except CorruptError as error:
                    corrupt.append(error)
        finally:
            end_thread()

    try:
        with ThreadPoolExecutor(min(threads, total)) as pool:
            crew = [pool.submit(run) for _ in range(min(threads, total))]
            try:
                wait(crew, return_when=FIRST_EXCEPTION)
                failed = next((one for one in crew if one.done() and one.exception()), None)
                if failed is not None:
                    failed.result()  # raises
            except BaseException:  # ^C too
                stop()
                raise
    except GittrackError as error:
        if total > 1:
            error.leaving(f"{len(moved)} of {total} objects were moved")
        error.hint = error.hint or GO_ON
        raise
    if missing:
        raise lost([item for item, _ in missing], name, hint=missing[0][1])
    if corrupt:
        raise corrupt[0]


__all__ = ["GO_ON", "Count", "Depot", "Item", "Moved", "Progress", "in_parallel", "lost", "nobody_has", "persist"]
