"""The index in PostgreSQL: the same tables and statements as in SQLite, in a schema of a database of one's own.

For servers: what many clients ask at once is answered beside each other, and the index is where a team backs things up.
It stays derived: drop the schema and nothing is lost.  Every clone has a schema of its own, so several servers may use
one database.  Needs psycopg (the extra ``postgres``), a database in UTF-8, and session state: a pooler between must
hand out whole sessions.

What differs from SQLite is here and nowhere else: types, the marks of parameters, the text that PostgreSQL refuses
(NUL), NaN (stored as NULL, as SQLite does by itself), case folding, locks, and bulk inserts, which go through COPY.
"""

from __future__ import annotations

import os
import queue
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from typing import Any, Final

from gittrack.errors import (
    CorruptError,
    GittrackError,
    InvalidValueError,
    LockedError,
    MissingDependencyError,
    NetworkError,
    ReadOnlyError,
    StorageError,
)
from gittrack.store.index import SCHEMA, SCHEMA_VERSION, TABLES, Connection, Cursor, Index

try:
    import psycopg
    from psycopg import errors
    from psycopg.pq import TransactionStatus
    from psycopg.types.numeric import FloatDumper
    from psycopg.types.string import StrDumperUnknown, TextLoader
except ImportError as missing:
    raise MissingDependencyError(
        "PostgreSQL needs the package psycopg", hint="pip install 'gittrack[postgres]'"
    ) from missing


#: Connections that a process has at most: so many questions are answered beside each other.
CONNECTIONS: Final = 8
#: Rows from which on an INSERT becomes a COPY.
_BULK: Final = 16
#: Rows written since the planner's statistics were taken; beyond it they are taken anew.
_ANALYZE: Final = 20_000
#: Seconds to wait for the database to take a connection.
_CONNECT_TIMEOUT: Final = 5
#: Of the lock under which schemas are made; any number that nobody else uses.
_MAKING: Final = 0x67697474

_inherited: list[Any] = []  # a forked child keeps what was its parent's

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class PostgresIndex(Index):
    """An index in a PostgreSQL database.

    Args:
        url: ``postgresql://user:password@host:port/database?…``, or any other text that libpq takes.
        schema: Where in it; made if it is missing.  Lower-case letters, digits and ``_``.
        timeout: Seconds to wait for another process that writes.

    Raises:
        InvalidValueError: A bad name of a schema, an address that cannot be read, or a database that is not in UTF-8.
        NetworkError: The database cannot be reached, or does not let us in.
        ReadOnlyError: The user may not make tables.
    """

    def __init__(self, url: str, schema: str, *, timeout: float = 30.0) -> None:
        if not _NAME.fullmatch(schema):
            raise InvalidValueError(f"`{schema:.80}` is no name for a schema", hint="use lower-case letters and digits")
        self._url = url
        self._schema = schema
        self._where = f"index `{schema}` in {_shown(url)}"
        self._here = _Here()
        self._pool = Pool(self._open, timeout, _shown(url))
        super().__init__(None, timeout=timeout)
        self._pool.adopt(self._link)
        self._here.connection = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As ``Index.transaction``; after much was written the planner is told what there is now."""
        self._look_for_fork()
        with self._lock, self._using():  # the lock first: a thread that waits for it needs no connection
            with super().transaction():
                yield
            if not self._writing and self._link.written > _ANALYZE:
                self._execute("ANALYZE")
                self._link.written = 0

    @contextmanager
    def filling(self) -> Iterator[None]:
        """As ``Index.filling``; COPY needs no help, and readers would wait for indexes that go and come."""
        with self.transaction():
            yield

    # -- what differs ------------------------------------------------------------------------------------------------

    @property
    def _link(self) -> Connected:
        """The connection that this thread has, inside ``_using``."""
        assert self._here.connection is not None  # noqa: S101 — nothing here asks outside
        return self._here.connection

    def _open(self) -> Connected:
        with self._translating():
            return connect(self._url, self._ready)

    def _ready(self, connection: Connected) -> None:
        """Make the schema and its tables if they are not there, or not these."""
        encoding = connection.execute("SHOW server_encoding").fetchall()[0][0]
        if encoding != "UTF8":
            raise InvalidValueError(f"{_shown(self._url)} is in {encoding}", hint="createdb --encoding=UTF8")
        connection.execute(f"SET search_path TO {self._schema}")
        connection.execute("SET synchronous_commit TO off")  # derived, and the database stays whole all the same
        connection.execute("SET plan_cache_mode TO force_custom_plan")  # what a key is decides what is quick
        connection.execute("SET jit TO off")  # it takes longer than these searches do
        connection.execute("BEGIN")
        connection.execute(f"SELECT pg_advisory_xact_lock({_MAKING})")
        if not connection.execute(f"SELECT to_regnamespace('{self._schema}')").fetchall()[0][0]:
            connection.execute(f"CREATE SCHEMA {self._schema}")
        if connection.version() != SCHEMA_VERSION:
            _create(connection)
        connection.execute("COMMIT")

    @property
    def _connection(self) -> Connection:
        return self._link

    @_connection.setter
    def _connection(self, connection: Connection) -> None:
        assert isinstance(connection, Connected)  # noqa: S101 — it is what `_open` returned
        self._here.connection = connection

    @property
    def _writing(self) -> bool:
        return self._here.writing

    @_writing.setter
    def _writing(self, writing: bool) -> None:
        self._here.writing = writing

    @contextmanager
    def _using(self) -> Iterator[Connection]:
        """A connection for this thread; a new one after the database was away, and in a forked child."""
        self._look_for_fork()
        if self._here.connection is not None:
            yield self._here.connection
            return
        pool = self._pool
        self._here.connection = pool.take()
        try:
            yield self._here.connection
        finally:
            connection, self._here.connection = self._link, None
            pool.give_back(connection)

    def _all(self, sql: str, params: Mapping[str, Any] | None = None) -> list[Any]:
        with self._using():
            return super()._all(sql, params)

    def _execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        with self._using():
            super()._execute(sql, params)

    def _look_for_fork(self) -> None:
        if self._pid != os.getpid():
            _inherited.append((self._here, self._pool))  # closing them would end the parent's
            self._here, self._pool = _Here(), Pool(self._open, self._timeout, _shown(self._url))
            self._lock = threading.RLock()
            self._pid = os.getpid()

    def close(self) -> None:
        """As ``Index.close``; a connection that another thread has is closed when it gives it back."""
        self._pool.close()

    def _begin(self, *, write: bool) -> None:
        try:
            self._enter(write=write)
        except NetworkError:
            if not self._link.broken:
                raise
            self._connection = self._open()  # the database was away meanwhile: nothing of this transaction is lost
            self._enter(write=write)

    def _enter(self, *, write: bool) -> None:
        if not write:
            self._execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return
        self._execute("BEGIN")
        try:
            self._execute(f"SET LOCAL lock_timeout TO {max(1, int(self._timeout * 1000))}")
            self._execute("LOCK TABLE meta IN SHARE ROW EXCLUSIVE MODE")
        except BaseException:
            self._connection.rollback()
            raise

    def _create(self) -> None:
        with self._translating():
            if self._link.version() == SCHEMA_VERSION:
                self._execute(f"TRUNCATE {', '.join(TABLES)} RESTART IDENTITY")
            else:
                _create(self._connection)
        self._names.clear()
        self._shared.clear()

    def _failure(self, error: Exception) -> GittrackError | None:
        return translated(error, self._url, self._where)


class _Here(threading.local):
    """What a thread has."""

    def __init__(self) -> None:
        self.connection: Connected | None = None
        self.writing = False


class Pool:
    """Connections for the threads of a process, made when they are needed.

    Args:
        connect: Makes one.
        timeout: Seconds to wait for one if all are in use.
        where: What they lead to, for people.
    """

    def __init__(self, connect: Callable[[], Connected], timeout: float, where: str) -> None:
        self._connect = connect
        self._timeout = timeout
        self._where = where
        self._closed = False
        self._idle: queue.LifoQueue[Connected | None] = queue.LifoQueue()  # None: not made yet
        for _ in range(CONNECTIONS):
            self._idle.put(None)

    def take(self) -> Connected:
        """A connection that works, as far as can be told without asking.

        Raises:
            LockedError: All are in use.
            NetworkError: The database cannot be reached.
        """
        try:
            found = self._idle.get(timeout=self._timeout)
        except queue.Empty:
            raise LockedError(f"all connections to {self._where} are busy", hint="try again") from None
        try:
            if found is not None and found.left:
                found.close()
                found = None
            return self._connect() if found is None else found
        except BaseException:
            self._idle.put(None)
            raise

    def give_back(self, connection: Connected) -> None:
        """Somebody is done with a connection; one that is broken, or in the middle of something, is closed."""
        if self._closed or connection.in_transaction or connection.broken:
            connection.close()
            self._idle.put(None)
        else:
            self._idle.put(connection)

    def adopt(self, connection: Connected) -> None:
        """Take over a connection that was made elsewhere, as one of those there may be."""
        self._idle.get()
        self._idle.put(connection)

    @property
    def idle(self) -> int:
        """Connections that may be taken."""
        return self._idle.qsize()

    def close(self) -> None:
        """Close every connection; those in use, when they are given back."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                if (found := self._idle.get_nowait()) is not None:
                    found.close()
        for _ in range(CONNECTIONS):
            self._idle.put(None)


class Connected:
    """A connection as ``index.Connection`` describes it.

    Attributes:
        written: Rows that were inserted since it was last set to 0.
    """

    def __init__(self, url: str) -> None:
        self.written = 0
        self._psycopg = psycopg.connect(
            url, autocommit=True, connect_timeout=_CONNECT_TIMEOUT, application_name="gittrack", keepalives_idle=30
        )
        adapters = self._psycopg.adapters
        adapters.register_dumper(str, _TextDumper)
        adapters.register_dumper(float, _NumberDumper)
        adapters.register_loader("text", _Text)

    @property
    def in_transaction(self) -> bool:
        """As ``index.Connection``."""
        status = self._psycopg.info.transaction_status
        return status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)

    @property
    def broken(self) -> bool:
        """True after the database has gone away."""
        return self._psycopg.closed

    @property
    def left(self) -> bool:
        """True if the database has gone away while nobody asked it anything: only then does it say something."""
        try:
            return self.broken or _says_something(self._psycopg.fileno())
        except psycopg.Error:
            return True

    def execute(self, sql: str, params: Mapping[str, Any] | None = None, /) -> Cursor:
        """As ``index.Connection``."""
        return self._psycopg.execute(_marked(sql), params or None)

    def executemany(self, sql: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """As ``index.Connection``; many rows are copied."""
        bulk = _INSERT.fullmatch(sql) if len(rows) >= _BULK else None
        with self._psycopg.cursor() as cursor:
            if bulk is None:
                cursor.executemany(_marked(sql), rows)
            else:
                names = [name.strip().removeprefix(":") for name in bulk[3].split(",")]
                with cursor.copy(f"COPY {bulk[1]} ({bulk[2]}) FROM STDIN".encode()) as copy:
                    for row in rows:
                        copy.write_row([row[name] for name in names])
        self.written += len(rows)

    def rollback(self) -> None:
        """As ``index.Connection``; what a database that went away does by itself."""
        with suppress(psycopg.OperationalError, psycopg.InterfaceError):
            self._psycopg.rollback()

    def close(self) -> None:
        """As ``index.Connection``."""
        self._psycopg.close()

    def version(self) -> int | None:
        """The number of the schema that the tables have; None without tables."""
        rows = self.execute("SELECT obj_description(to_regclass('meta'), 'pg_class')").fetchall()
        match = re.fullmatch(r"gittrack (\d+)", rows[0][0] or "")
        return None if match is None else int(match[1])


# ---------------------------------------------------------------- values

# PostgreSQL's text has no NUL.  Written as two characters, and U+0001 with it, it keeps its place in every order.
_ESCAPES: Final = (("\x01", "\x01\x02"), ("\x00", "\x01\x01"))


class _TextDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Any:
        if "\x00" in obj or "\x01" in obj:
            for plain, escaped in _ESCAPES:
                obj = obj.replace(plain, escaped)
        return super().dump(obj)


class _Text(TextLoader):
    def load(self, data: Any) -> Any:
        text = super().load(data)
        if isinstance(text, str) and "\x01" in text:
            for plain, escaped in reversed(_ESCAPES):
                text = text.replace(escaped, plain)
        return text


class _NumberDumper(FloatDumper):
    def dump(self, obj: float) -> Any:
        return None if obj != obj else super().dump(obj)


# ---------------------------------------------------------------- statements

_PARAMETER: Final = re.compile(r":([a-z_][a-z0-9_]*)", re.ASCII)
_INSERT: Final = re.compile(r"INSERT INTO (\w+) \(([^()]*)\)\s*VALUES \(([^()]*)\)")
#: Types, and what keeps text in the order of its code points.
_TYPES: Final = (
    (r"\bINTEGER PRIMARY KEY\b", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
    (r"\bINTEGER\b", "BIGINT"),
    (r"\bREAL\b", "DOUBLE PRECISION"),
    (r"\bBLOB\b", "BYTEA"),
    (r"\bTEXT\b", 'TEXT COLLATE "C"'),
    (r"\bWITHOUT ROWID\b", ""),
)
#: An entry of an index has 2,704 bytes at most, and these columns hold longer text; they are searched by their keys.
_UNINDEXED: Final = ("runs_name", "params_value", "tags_value")


@lru_cache(1024)
def _marked(statement: str) -> bytes:
    """A statement with its parameters as psycopg wants them."""
    return _PARAMETER.sub(r"%(\1)s", statement.replace("%", "%%")).encode() if ":" in statement else statement.encode()


def _create(connection: Connection) -> None:
    """Empty tables in place of whatever there is; inside a transaction."""
    for table in TABLES:
        connection.execute(f"DROP TABLE IF EXISTS {table}", {})
    for statement in filter(str.strip, SCHEMA.split(";")):
        if not any(f"CREATE INDEX {name} " in statement for name in _UNINDEXED):
            for pattern, ours in _TYPES:
                statement = re.sub(pattern, ours, statement)  # noqa: PLW2901
            connection.execute(statement, {})
    connection.execute(_fold_text(), {})
    connection.execute(f"COMMENT ON TABLE meta IS 'gittrack {SCHEMA_VERSION}'", {})


@cache
def _fold_text() -> str:
    """``str.casefold`` in SQL: what is ASCII goes a short way, everything else by Unicode's table."""
    folds = {c: c.casefold() for c in map(chr, range(128, sys.maxunicode + 1)) if c != c.casefold()}
    single = {c: folded for c, folded in folds.items() if len(folded) == 1}
    inner = 'lower(x COLLATE "C")'  # of ASCII only
    for c, folded in folds.items():
        if c not in single:
            inner = f"replace({inner}, '{c}', '{folded}')"
    return (
        "CREATE OR REPLACE FUNCTION fold_text(x text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT"
        f' CASE WHEN octet_length(x) = length(x) THEN lower(x COLLATE "C")'
        f" ELSE translate({inner}, '{''.join(single)}', '{''.join(single.values())}') END $$"
    )


def translated(error: Exception, url: str, where: str) -> GittrackError | None:
    """An error of the database as ours; None if it is none of the database's.

    Args:
        error: What psycopg raised.
        url: Of the database.
        where: What was used there, for people.
    """
    if not isinstance(error, psycopg.Error):
        return None
    text = str(error).partition("\n")[0]
    if isinstance(error, (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)):
        return LockedError(f"another process is writing the {where}", hint="try again")
    if isinstance(error, (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction)):
        return CorruptError(f"damaged {where}: {text}", hint="run `gittrack reindex`: nothing is lost with it")
    if isinstance(error, (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)):
        return ReadOnlyError(f"cannot write the {where}: {text}", hint="GRANT CREATE ON DATABASE … TO …")
    if isinstance(error, (errors.ProgramLimitExceeded, errors.StatementTooComplex)):
        return InvalidValueError(f"too large a query: {text}", hint="search for less at once")
    if isinstance(error, (errors.InvalidPassword, errors.InvalidAuthorizationSpecification)):
        return NetworkError(f"{_shown(url)} does not let us in", hint="check user and password", denied=True)
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        return InvalidValueError("the address of the database cannot be read", hint="postgresql://user@host/name")
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return NetworkError(f"{_shown(url)} cannot be used: {text}", hint="is the database running?", again=1.0)
    return StorageError(f"cannot use the {where}: {text}")


def connect(url: str, ready: Callable[[Connected], None]) -> Connected:
    """A connection that ``ready`` has made ready; closed again if that fails.  Raises what psycopg does."""
    connection = Connected(url)
    try:
        ready(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _says_something(fd: int) -> bool:
    """Whether there is something to be read from a socket, whatever its number: `select` ends at 1024."""
    if sys.platform == "win32":  # where it takes any socket, and there is no `poll`
        return bool(select.select([fd], [], [], 0)[0])
    asked = select.poll()
    asked.register(fd, select.POLLIN)
    return bool(asked.poll(0))


def _shown(url: str) -> str:
    """Which database that is, without its password."""
    with suppress(psycopg.Error):
        parts = psycopg.conninfo.conninfo_to_dict(url)
        return f"database `{parts.get('dbname') or ''}` at `{parts.get('host') or 'localhost'}`"
    return "the database"
