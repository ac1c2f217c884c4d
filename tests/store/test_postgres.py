"""The index in PostgreSQL: what is not as in SQLite.  What is, the tests of the index and of queries run on both."""

import sys
import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gittrack.errors import InvalidValueError, LockedError, NetworkError, ReadOnlyError
from gittrack.store.index import Index
from gittrack.store.repo import Repo
from gittrack.track.query import compile_search
from gittrack.track.runs import Tracker
from gittrack.types import RunData
from tests.conftest import MakeRepo
from tests.databases import Place, Server, new_place, start_server
from tests.store.test_index import ALL, ids, make

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'gittrack[postgres]'")
from gittrack.store.postgres import CONNECTIONS, PostgresIndex


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return new_place("postgres", tmp_path, request)


@pytest.fixture
def index(place: Place) -> Iterator[Index]:
    with closing(place.open()) as opened:
        yield opened


def rows(index: Index, sql: str) -> list[tuple[object, ...]]:
    """What a query finds."""
    with index._reading():
        return index._all(sql)


def execute(index: Index, sql: str) -> None:
    """Run a statement outside of a transaction."""
    with index._using():
        index._execute(sql)


# ---------------------------------------------------------------- values


def test_text_that_postgresql_refuses_is_kept_found_and_ordered(index: Index) -> None:
    texts = ["", "\0", "\0\0", "\0\x01", "\0a", "\x01", "\x01\0", "\x01\x01", "\x01\x02", "\x02", "a", "a\0", "a\x01"]
    index.put_runs(
        replace(make(f"{n:02}"), data=RunData({}, {"p": text}, {f"k{text}": text})) for n, text in enumerate(texts)
    )
    for n, text in enumerate(texts):
        run = index.get_run(f"{n:02}")
        assert run is not None
        assert (run.data.params, run.data.tags) == ({"p": text}, {f"k{text}": text})
        if "\0" not in text:  # which no filter has
            assert ids(index, compile_search(f"params.p = '{text}'", ["run_id"])) == f"{n:02}"
        assert f"k{text}" in index.tag_keys("k")
    for ascending in ("ASC", "DESC"):
        found = index.search_runs(compile_search("", [f"params.p {ascending}"]), None)
        assert [run.data.params["p"] for run in found] == sorted(texts, reverse=ascending == "DESC")


def test_text_is_as_long_as_it_may_be(index: Index) -> None:
    long = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(8000))  # no compression makes an index entry of it
    run = make("a", name=long)
    run = replace(run, data=RunData({}, {"p": long}, {"mlflow.note.content": long, "mlflow.runName": long}))
    index.put_runs([run])
    assert index.get_run("a") == run
    assert ids(index, compile_search(f"params.p LIKE '{long[:4000]}%'", [])) == "a"
    assert index.find_run_name(long) == [("a", long)]


def test_every_character_is_folded_as_python_does_it(index: Index) -> None:
    characters = [
        c for c in map(chr, range(1, sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cs", "Cn", "Co")
    ]
    for start in range(0, len(characters), 2000):
        text = " ".join(characters[start : start + 2000])
        with index._reading():
            assert index._all("SELECT fold_text(:text)", {"text": text}) == [(text.casefold(),)]


def test_many_rows_and_few_are_written_alike(index: Index) -> None:
    """COPY and INSERT take other ways."""
    data = RunData(
        {f"m{n}": value for n, value in enumerate((0.1, -0.0, float("inf"), float("nan"), 1e308))},
        {f"p{n}": text for n, text in enumerate(("\\N", "\t\n\\", "", "\0", "é", "1e400"))},
        {},
    )
    run = replace(make("few"), data=data)
    index.put_runs([run])
    metrics = rows(index, "SELECT value, minimum FROM metrics ORDER BY key")
    params = rows(index, "SELECT value, number FROM params ORDER BY key")
    index.clear()
    index.put_runs(replace(run, info=replace(run.info, run_id=f"r{n}")) for n in range(10))
    assert rows(index, "SELECT value, minimum FROM metrics WHERE owner = 7 ORDER BY key") == metrics
    assert rows(index, "SELECT value, number FROM params WHERE owner = 7 ORDER BY key") == params
    assert repr(index.get_runs(["r6"])[0].data) == repr(data)


# ---------------------------------------------------------------- schemas


def test_tables_of_another_version_are_made_anew(place: Place, index: Index) -> None:
    index.put_runs([make("a")])
    execute(index, "ALTER TABLE runs RENAME COLUMN run_id TO x")
    execute(index, "COMMENT ON TABLE meta IS 'gittrack 0'")
    with closing(place.open()) as other:
        assert ids(other) == ""
        other.put_runs([make("b")])
    assert ids(index) == "b"


def test_two_clones_in_one_database_do_not_see_each_other(place: Place, index: Index, postgres: Server) -> None:
    index.put_runs([make("a")])
    with closing(PostgresIndex(postgres.url, "another")) as other:
        assert ids(other) == ""


@pytest.mark.parametrize("schema", ["", "X", "a; DROP TABLE runs", "1a", 'a"b', "a" * 64])
def test_a_schema_has_a_plain_name(schema: str) -> None:
    with pytest.raises(InvalidValueError, match="schema"):
        PostgresIndex("host=/nowhere", schema)


# ---------------------------------------------------------------- trouble


def test_a_password_is_never_shown() -> None:
    for url in (
        "postgresql://ana:s3cret@127.0.0.1:1/x",
        "host=/nowhere password=s3cret",
        "postgresql://ana:s3cret@localhost/x?no=1",
    ):
        with pytest.raises((NetworkError, InvalidValueError)) as caught:
            PostgresIndex(url, "s")
        assert "s3cret" not in f"{caught.value} {caught.value.hint}"


def test_a_database_in_another_encoding_is_refused(postgres: Server, index: Index) -> None:
    execute(index, "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        with pytest.raises(InvalidValueError, match="LATIN1"):
            PostgresIndex(postgres.url.replace("dbname=postgres", "dbname=latin"), "s")
    finally:
        execute(index, "DROP DATABASE latin")


def test_a_user_who_may_not_write_is_told(postgres: Server, place: Place, index: Index) -> None:
    execute(index, "CREATE ROLE reader LOGIN")
    with pytest.raises(ReadOnlyError, match="permission denied"):
        PostgresIndex(postgres.url.replace("user=postgres", "user=reader"), "of_reader")


def test_the_database_goes_and_comes_back() -> None:
    with ExitStack() as stack:
        server = start_server(stack)
        index = stack.enter_context(closing(PostgresIndex(server.url, "s")))
        index.put_runs([make("a")])
        index.put_runs([make("b")])
        server.stop("immediate")
        for _ in range(2):
            with pytest.raises(NetworkError, match="cannot be used"):
                ids(index)
            with pytest.raises(NetworkError), index.transaction():
                pass
        server.start()
        found = ids(index)
        assert found in ("", "a", "ab")  # derived, so not synced: whole, and what is missing comes again
        index.put_runs([make("c")])
        assert ids(index) == f"{found}c"
        before = {f"{found}c", found}

        def interrupted() -> None:
            with index.transaction():
                index.put_runs([make("d")])
                server.stop("immediate")
                server.start()
                index.put_runs([make("e")])

        with pytest.raises(NetworkError):
            interrupted()
        assert ids(index) in before


def test_a_writer_whose_process_is_stopped_is_waited_for_only_so_long(place: Place, index: Index) -> None:
    with closing(place.open(timeout=0.05)) as other, index.transaction():
        with pytest.raises(LockedError):
            other.clear()
        with other._using() as connection:
            assert not connection.in_transaction
        assert ids(other) == ""


# ---------------------------------------------------------------- a repository


def test_a_repository_has_its_index_in_a_database(make_repo: MakeRepo, postgres: Server) -> None:
    folder = make_repo("ordinary").path
    tracker = Tracker(Repo.find(folder, create=True, database=postgres.url), strict=True)
    run = tracker.create_run(name="served")
    run.log_metric("acc", 0.5)
    assert [found.info.run_name for found in tracker.search_runs(None, "metrics.acc = 0.5")] == ["served"]
    run.end()
    tracker.flush()
    assert tracker.get_experiment("0").name == "Default"
    assert [found.info.status for found in tracker.search_runs()] == ["FINISHED"]
    assert not (folder / ".gittrack" / "index.db").exists()
    assert tracker.repo.reindex() == 1
    tracker.close()
    plain = Repo.find(folder)  # who works in the clone has an index of his own
    plain.refresh()
    assert plain.index.count_runs(ALL) == 1
    plain.close()


def test_questions_are_answered_beside_each_other(index: Index) -> None:
    """A long search holds up nobody, and a thread that goes on asking has its connection for itself."""
    assert isinstance(index, PostgresIndex)
    index.meta_set("key", "value")
    together = threading.Barrier(5, timeout=20)

    def ask(_: int) -> Any:
        with index._reading():
            together.wait()
            return index.meta_get("key")

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(ask, range(5))) == ["value"] * 5
    assert index._pool.idle == CONNECTIONS
