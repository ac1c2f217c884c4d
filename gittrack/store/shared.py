# ruff: noqa: S608 — nothing but constants of this file is put into statements
"""Live frames in PostgreSQL: the journals of runs in progress that several servers write into.

A run has one journal here, whoever writes: frames are numbered, and the row of the journal is locked until a frame is
committed, so that they become visible in the order of their numbers and nobody who reads on from a number misses one.
``append`` returns when the frame is committed; it survives whatever the database survives.  What is in a run's commit
is dropped.  The row stays for an hour: from its number a writer knows whether others have written since it looked.

A writer that has to know what others wrote (a param is written once, a field counts up) says how far it has read; if
somebody wrote since, nothing is added and it reads on first.

A journal that is written elsewhere and sent here piece by piece becomes frames of the run, too.  How many bytes of it
are here is a row, which moves in the statement that adds the frames: what is sent again, to whatever server, is
recognised by where it belongs.  The run is over when all of its journals are closed; its commit says then how many
bytes of each it has, and the rows go.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from gittrack.errors import GittrackError, InvalidValueError, LockedError, NetworkError
from gittrack.store import codec
from gittrack.store.codec import MAX_FRAME
from gittrack.store.journal import Overtaken, Received
from gittrack.store.postgres import Connected, Pool, connect, translated
from gittrack.store.record import STATUS
from gittrack.types import TERMINAL, RunId

#: How a frame begins that says how a run is doing.
_STATUS: Final = codec.pack([STATUS, None, None])[:2]
#: Seconds that a row is kept for after its frames were dropped.
_KEPT: Final = 3600.0
#: Seconds between two attempts to get a lock.
_PAUSE: Final = 0.05

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS journals (
    run_id TEXT PRIMARY KEY, name TEXT NOT NULL, size BIGINT NOT NULL, bytes BIGINT NOT NULL,
    dropped BIGINT NOT NULL DEFAULT 0, opened BIGINT NOT NULL, touched TIMESTAMPTZ NOT NULL, ended BOOLEAN NOT NULL)
    WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS frames (
    run_id TEXT NOT NULL, number BIGINT NOT NULL, payload BYTEA NOT NULL, PRIMARY KEY (run_id, number));
CREATE TABLE IF NOT EXISTS shipped (run_id TEXT NOT NULL, name TEXT NOT NULL, size BIGINT NOT NULL,
    closed BOOLEAN NOT NULL, PRIMARY KEY (run_id, name));
CREATE TABLE IF NOT EXISTS pushes (one INTEGER PRIMARY KEY, number BIGINT NOT NULL);
ALTER TABLE frames ALTER COLUMN payload SET STORAGE EXTERNAL
"""
# `ended` stays as it is if a frame says nothing about it; a new journal takes it from the run.
_FRAME: Final = "INSERT INTO frames SELECT run_id, size, :payload FROM j RETURNING (SELECT name FROM j), number"
_MOVE: Final = """size = old.size + 1, bytes = old.bytes + :length, touched = clock_timestamp(),
    ended = COALESCE(:ended, old.ended)"""
_NEW: Final = """INSERT INTO journals AS old (run_id, name, size, bytes, opened, touched, ended)
    VALUES (:run_id, :name, 1, :length, :opened, clock_timestamp(), COALESCE(:ended, :over)) ON CONFLICT (run_id)"""
_APPEND: Final = f"WITH j AS ({_NEW} DO UPDATE SET {_MOVE} RETURNING run_id, name, size) {_FRAME}"
_FIRST: Final = f"WITH j AS ({_NEW} DO NOTHING RETURNING run_id, name, size) {_FRAME}"
_AGO: Final = "clock_timestamp() - make_interval(secs => :idle)"
_OVER: Final = "(j.ended AND NOT EXISTS (SELECT 1 FROM shipped AS s WHERE s.run_id = j.run_id AND NOT s.closed))"
_NEXT: Final = f"""WITH j AS (UPDATE journals AS old SET {_MOVE}
    WHERE old.run_id = :run_id AND old.name = :name AND old.size = :size RETURNING run_id, name, size) {_FRAME}"""
# A piece of a shipped journal: the one that makes a run, the first of another one, and those that follow.
_PAYLOADS: Final = "unnest(CAST(:payloads AS BYTEA[])) WITH ORDINALITY AS f (payload, place)"
_ADD: Final = f"""f AS (INSERT INTO frames
    SELECT j.run_id, j.size - :count + f.place, f.payload FROM j CROSS JOIN {_PAYLOADS}) SELECT 1 FROM s"""
_OF: Final = "INSERT INTO journals AS old (run_id, name, size, bytes, opened, touched, ended)"
_MAKING: Final = f"""WITH j AS ({_OF} VALUES (:run_id, :name, :count, :length, :opened, clock_timestamp(),
    COALESCE(:ended, FALSE)) ON CONFLICT (run_id) DO NOTHING RETURNING run_id, size),
    s AS (INSERT INTO shipped SELECT run_id, :journal, :end, :closed FROM j RETURNING run_id), {_ADD}"""
_JOINED: Final = f"""j AS ({_OF} SELECT run_id, :name, :count, :length, :opened, clock_timestamp(),
    COALESCE(:ended, :over) FROM s ON CONFLICT (run_id) DO UPDATE SET size = old.size + :count,
    bytes = old.bytes + :length, touched = clock_timestamp(), ended = COALESCE(:ended, old.ended)
    RETURNING run_id, size), {_ADD}"""
_JOINING: Final = f"""WITH s AS (INSERT INTO shipped VALUES (:run_id, :journal, :end, :closed)
    ON CONFLICT (run_id, name) DO NOTHING RETURNING run_id), {_JOINED}"""
_FOLLOWING: Final = f"""WITH s AS (UPDATE shipped SET size = :end, closed = :closed
    WHERE run_id = :run_id AND name = :journal AND size = :have AND NOT closed RETURNING run_id), {_JOINED}"""


class Mark(NamedTuple):
    """How far a journal was read: which, and the number of its last frame."""

    name: str
    size: int


class SharedJournal(NamedTuple):
    """A journal as its readers see it.

    Attributes:
        run_id: Its run.
        name: Which one.
        last: The number of its last frame.
        size: Bytes that were ever written.
        opened: When it was, in nanoseconds since the epoch.
        ended: The run is over, and nobody who sends his journal of it has still to close that.
    """

    table: Frames
    run_id: RunId
    name: str
    last: int
    size: int
    opened: int
    ended: bool

    def frames(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """The frames behind ``start`` as (number, payload).  Raises NetworkError."""
        sql = "SELECT number, payload FROM frames WHERE run_id = :run_id AND number > :start ORDER BY number"
        yield from self.table.ask(sql, {"run_id": self.run_id, "start": start})

    def gone(self, ends: Sequence[int]) -> int:
        """The number before the first one that is there: there are no gaps."""
        return ends[0] - 1 if ends else self.last

    def drop(self, end: int) -> None:
        """Drop the frames up to ``end``: a commit that everybody sees has them.  Raises NetworkError."""
        self.table.drop(self.run_id, self.name, end)

    def remove(self) -> None:
        """Drop all of it.  Raises NetworkError."""
        self.table.drop(self.run_id, self.name, self.last)


class Frames:
    """The live frames of a group of servers.  Threads may share it.

    Args:
        url: Of the database.
        schema: Where in it; made if it is missing.
        timeout: Seconds to wait for a connection.

    Raises:
        NetworkError, ReadOnlyError: The database cannot be reached, or nothing can be made there.
    """

    def __init__(self, url: str, schema: str, *, timeout: float = 30.0) -> None:
        self._url = url
        self._schema = schema
        self._pool = Pool(self._connect, timeout, f"schema `{schema}`")
        self._made = False
        self._locks: dict[str, threading.Lock] = {}
        self._pool.give_back(self._pool.take())

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, run_id: str, payload: bytes, *, over: bool = False) -> Mark:
        """Add a frame; how far the journal goes now.

        Args:
            run_id: The run.
            payload: Of the frame.
            over: The run is over, as far as is known; counts if this is the first frame.

        Raises:
            InvalidValueError: ``payload`` is empty or longer than MAX_FRAME.
            NetworkError: It is not known to be there; it may be.
        """
        found = self._add(_APPEND, run_id, payload, over)
        assert found is not None  # noqa: S101 — the statement inserts or updates
        return found

    def append_after(self, run_id: str, mark: Mark | None, payload: bytes, *, over: bool = False) -> Mark:
        """``append``, if nobody has written since ``mark``; None: as long as there is no journal.

        Raises:
            Overtaken: Somebody has; nothing was added.
        """
        if mark is None:
            found = self._add(_FIRST, run_id, payload, over)
        else:
            found = self._add(_NEXT, run_id, payload, over, name=mark.name, size=mark.size)
        if found is None:
            raise Overtaken
        return found

    def _add(self, sql: str, run_id: str, payload: bytes, over: bool, **more: Any) -> Mark | None:
        if not 0 < len(payload) <= MAX_FRAME:
            raise InvalidValueError(f"a frame holds 1 to {MAX_FRAME} bytes, not {len(payload)}")
        ended = codec.unpack(payload)[1] in TERMINAL if payload[:2] == _STATUS else None
        facts = {"run_id": run_id, "payload": payload, "length": len(payload), "ended": ended, "over": over}
        rows = self.ask(sql, {**facts, **_new_journal(), **more})
        return Mark(*rows[0]) if rows else None

    def received(self, run_id: str, prefix: str) -> dict[str, Received]:
        """The journals of a run that were shipped, whose names begin so.  Raises NetworkError."""
        sql = "SELECT name, size, closed FROM shipped WHERE run_id = :run_id AND starts_with(name, :prefix)"
        return {
            name: Received(size, closed) for name, size, closed in self.ask(sql, {"run_id": run_id, "prefix": prefix})
        }

    def receive(
        self,
        run_id: str,
        journal: str,
        known: Received | None,
        now: Received,
        payloads: Sequence[bytes],
        *,
        made: bool,
        over: bool = False,
    ) -> bool:
        """Add a piece of a journal that is shipped, if all before it is here and nothing of it.

        Args:
            run_id: The run.
            journal: The journal, by the name that it has here.
            known: What there is of it, as far as is known; None: nothing that is not in a commit.
            now: How much is here then, and whether that is all.
            payloads: Of the frames that are added.
            made: The piece makes the run: there must be nothing of it yet.
            over: As for ``append``.

        Returns:
            False if it was otherwise; nothing was added then.

        Raises:
            NetworkError: It is not known to be there; it may be.
        """
        sql = _MAKING if made else _JOINING if known is None else _FOLLOWING
        ends = [event[1] in TERMINAL for event in map(codec.unpack, payloads) if event[0] == STATUS]
        have = 0 if known is None else known.size
        facts = {"run_id": run_id, "journal": journal, "have": have, "end": now.size, "closed": now.closed}
        added = {"payloads": list(payloads), "count": len(payloads), "length": sum(map(len, payloads))}
        state = {"ended": ends[-1] if ends else None, "over": over}
        return bool(self.ask(sql, {**facts, **added, **state, **_new_journal()}))

    def drop(self, run_id: str, name: str, end: int) -> None:
        """Drop the frames of a journal up to a number.  Raises NetworkError."""
        self.ask(
            "WITH j AS (UPDATE journals SET dropped = GREATEST(dropped, :end) WHERE run_id = :run_id AND name = :name"
            " RETURNING run_id) DELETE FROM frames AS f USING j WHERE f.run_id = j.run_id AND f.number <= :end"
            " RETURNING 1",
            {"run_id": run_id, "name": name, "end": end},
        )

    def forget(self, run_id: str, journals: Iterable[str]) -> None:
        """Forget journals that were shipped and closed: a commit that everybody sees says it.  Raises NetworkError."""
        self.ask(
            "DELETE FROM shipped WHERE run_id = :run_id AND closed AND name = ANY(CAST(:names AS TEXT[])) RETURNING 1",
            {"run_id": run_id, "names": list(journals)},
        )

    def tidy(self) -> None:
        """Forget the journals that have nothing to say any more, and that no writer remembers.  Raises NetworkError."""
        self.ask(f"DELETE FROM journals WHERE size = dropped AND touched < {_AGO} RETURNING 1", {"idle": _KEPT})

    # -- reading -----------------------------------------------------------------------------------------------------

    def mark(self, run_id: str) -> Mark | None:
        """How far the journal of a run goes; None if there is none.  Raises NetworkError."""
        rows = self.ask("SELECT name, size FROM journals WHERE run_id = :run_id", {"run_id": run_id})
        return Mark(*rows[0]) if rows else None

    def since(self, run_id: str, mark: Mark | None) -> tuple[Mark | None, list[bytes] | None]:
        """How far the journal goes, and the payloads behind ``mark``; None if some of them are gone.

        Raises:
            NetworkError: The database cannot be asked.
        """
        rows = self.ask(
            "SELECT j.name, j.size, j.dropped, f.payload FROM journals AS j LEFT JOIN frames AS f"
            " ON f.run_id = j.run_id AND f.number > :seen WHERE j.run_id = :run_id ORDER BY f.number",
            {"run_id": run_id, "seen": 0 if mark is None else mark.size},
        )
        if not rows:
            return None, None
        name, size, dropped, _ = rows[0]
        whole = mark is not None and name == mark.name and mark.size >= dropped
        return Mark(name, size), [row[3] for row in rows if row[3] is not None] if whole else None

    def runs(self) -> dict[RunId, SharedJournal]:
        """The journals that have frames, by run.  Raises NetworkError."""
        return {one.run_id: one for one in self._journals("size > dropped", {})}

    def of(self, run_id: str) -> list[SharedJournal]:
        """The journal of a run, if it has frames.  Raises NetworkError."""
        return self._journals("run_id = :run_id AND size > dropped", {"run_id": run_id})

    def _journals(self, which: str, params: Mapping[str, Any]) -> list[SharedJournal]:
        sql = f"SELECT run_id, name, size, bytes, opened, {_OVER} FROM journals AS j WHERE {which} ORDER BY run_id"
        return [SharedJournal(self, *row) for row in self.ask(sql, params)]

    def waiting(self, idle: float) -> bool:
        """True if a run is over, and nobody has written to it for ``idle`` seconds.  Raises NetworkError."""
        return bool(
            self.ask(
                f"SELECT 1 FROM journals AS j WHERE size > dropped AND touched < {_AGO} AND {_OVER} LIMIT 1",
                {"idle": idle},
            )
        )

    def pushes(self) -> int:
        """How often the servers have pushed to their remote.  Raises NetworkError."""
        return int(self.ask("SELECT COALESCE(MAX(number), 0) FROM pushes")[0][0])

    def pushed(self) -> int:
        """One of them has; how often they have now.  Raises NetworkError."""
        return int(
            self.ask(
                "INSERT INTO pushes AS p (one, number) VALUES (1, 1) ON CONFLICT (one) DO UPDATE"
                " SET number = p.number + 1 RETURNING number"
            )[0][0]
        )

    # -- locks -------------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, name: str, timeout: float) -> Iterator[None]:
        """A lock between the servers; the database frees it when its holder dies.

        Raises:
            LockedError: Another server has it for ``timeout`` seconds.
            NetworkError: The database cannot be reached.
        """
        deadline = time.monotonic() + timeout
        here = self._locks.setdefault(name, threading.Lock())  # only one thread of a process waits at the database
        if not here.acquire(timeout=timeout):
            raise LockedError(f"another thread holds the lock `{name}`", hint="try again")
        try:
            with self._locked_there(name, deadline):
                yield
        finally:
            here.release()

    @contextmanager
    def _locked_there(self, name: str, deadline: float) -> Iterator[None]:
        connection = self._pool.take()
        key = {"schema": self._schema, "name": name}
        try:
            sql = "SELECT pg_try_advisory_lock(hashtext(:schema), hashtext(:name))"
            while not self._asked(connection, sql, key)[0][0]:
                if time.monotonic() > deadline:
                    raise LockedError(f"another server holds the lock `{name}`", hint="try again")
                time.sleep(_PAUSE)
            try:
                yield
            finally:
                with suppress(NetworkError):  # the database was away: it holds no locks for us any more
                    self._asked(connection, "SELECT pg_advisory_unlock(hashtext(:schema), hashtext(:name))", key)
        finally:
            self._pool.give_back(connection)

    # -- the database ------------------------------------------------------------------------------------------------

    def ask(self, sql: str, params: Mapping[str, Any] | None = None) -> list[Any]:
        """What a statement returns; it is committed.  Raises NetworkError, StorageError."""
        connection = self._pool.take()
        try:
            return self._asked(connection, sql, params)
        finally:
            self._pool.give_back(connection)

    def _asked(self, connection: Connected, sql: str, params: Mapping[str, Any] | None) -> list[Any]:
        with self._translating():
            return connection.execute(sql, params or {}).fetchall()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except GittrackError:
            raise
        except Exception as error:
            failure = translated(error, self._url, f"live frames `{self._schema}`")
            if failure is None:
                raise
            raise failure from error

    def _connect(self) -> Connected:
        with self._translating():
            return connect(self._url, self._ready)

    def _ready(self, connection: Connected) -> None:
        connection.execute(f"SET search_path TO {self._schema}")
        connection.execute("SET synchronous_commit TO on")  # what is answered for is on the database's disk
        if self._made:
            return
        connection.execute("BEGIN")
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(:schema))", {"schema": self._schema})
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute("COMMIT")
        self._made = True

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def _new_journal() -> dict[str, Any]:
    """What the journal of a run is called, if there is none."""
    return {"name": f"shared-{secrets.token_hex(6)}.journal", "opened": time.time_ns()}
