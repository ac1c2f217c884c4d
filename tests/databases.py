"""Databases that the index can be in: SQLite, and a PostgreSQL server that is started for the tests."""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from gittrack.store.index import TABLES, Index

KINDS = ("sqlite", "postgres")
_numbers = itertools.count()


class Server:
    """A PostgreSQL server of one's own, reached through a socket in its folder.

    Attributes:
        url: Of a database in it.
        uri: The same as an address.
    """

    def __init__(self, folder: Path, programs: Path, user: str | None) -> None:
        self._data = folder / "data"
        self._programs = programs
        self._user = user
        self.url = f"host={folder} dbname=postgres user=postgres"
        self.uri = f"postgresql://postgres@/postgres?host={folder}"
        self._run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8")
        (self._data / "postgresql.auto.conf").write_text(
            f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nfsync = off\nmax_connections = 50\n"
            "shared_buffers = '32MB'\nlog_min_messages = panic\n"
        )
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._data}/log")

    def listen(self, port: int) -> None:
        """Start it anew, so that it takes connections over TCP, too, with passwords; and has all its ports there."""
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.write(f"listen_addresses = '127.0.0.1'\nport = {port}\n")
        (self._data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        self.stop()
        self.url = f"{self.url} port={port}"
        self.uri = f"{self.uri}&port={port}"
        self.start()

    def stop(self, how: str = "fast") -> None:
        """Stop it; ``immediate`` is as if it had been killed."""
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={how}")

    def _run(self, program: str, *options: str) -> None:
        subprocess.run(
            [self._programs / program, f"--pgdata={self._data}", *options],
            check=True, user=self._user, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip


def start_server(stack: ExitStack) -> Server:
    """A server that lives as long as ``stack``; the test is skipped where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'gittrack[postgres]'")
    found = shutil.which("pg_ctl")
    programs = [Path(found).resolve().parent] if found else []
    programs += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    programs = [folder for folder in programs if (folder / "initdb").exists()]
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gittrack-pg-", ignore_cleanup_errors=True)))
    user = None
    if os.geteuid() == 0:  # it refuses to run as root
        user = "postgres"
        with suppress(KeyError):
            pwd.getpwnam(user)
            shutil.chown(folder, user)
        if folder.stat().st_uid == 0:
            pytest.skip("PostgreSQL does not run as root, and there is no user `postgres`")
    server = Server(folder, programs[0], user)
    stack.callback(server.stop, "immediate")
    return server


class Place:
    """Where an index can be.

    Attributes:
        kind: One of ``KINDS``.
        address: The arguments of ``open_index`` for it.
    """

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address

    def open(self, timeout: float = 30.0) -> Index:
        """The index there, as another process would open it."""
        return open_index(self.kind, self.address, timeout)


def open_index(kind: str, address: str, timeout: float = 30.0) -> Index:
    """The index at an address that ``Place`` has."""
    if kind == "sqlite":
        return Index(Path(address), timeout=timeout)
    from gittrack.store.postgres import PostgresIndex

    schema, _, url = address.partition(" ")
    return PostgresIndex(url, schema, timeout=timeout)


def new_place(kind: str, folder: Path, request: pytest.FixtureRequest) -> Place:
    """A place where nothing is yet."""
    if kind == "sqlite":
        return Place(kind, str(folder / "index.db"))
    server: Server = request.getfixturevalue("postgres")
    return Place(kind, f"test_{next(_numbers)} {server.url}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for all tests of this process."""
    with ExitStack() as stack:
        yield start_server(stack)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for an index, of every kind one after the other."""
    return new_place(request.param, tmp_path, request)


@pytest.fixture(params=KINDS, scope="module")
def empty_index(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Index]]:
    """``empty_index()`` is an empty index, of every kind one after the other; the one before must be done with."""
    opened = new_place(request.param, tmp_path_factory.mktemp("index"), request).open()

    def cleared() -> Index:
        nonlocal opened
        if request.param == "sqlite":
            opened.close()
            opened = Index(None)
            return opened
        with opened.transaction():  # in less time than `clear` takes
            opened._execute("; ".join(f"DELETE FROM {table}" for table in TABLES))
        return opened

    yield cleared
    opened.close()
