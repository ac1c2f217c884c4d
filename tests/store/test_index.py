"""The index: what is put in comes out, from any thread or process, and a bad file is no obstacle."""

import math
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from gittrack.errors import CorruptError, InvalidValueError, LockedError, StorageError
from gittrack.store import index as module
from gittrack.store.index import CompiledQuery, Condition, Index, Order
from gittrack.types import Experiment, MetricSummary, Run, RunData, RunInfo, ViewType
from tests.databases import Place
from tests.track import records

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
NEWEST = (Order("r.start_time", ascending=False, indexed=True), Order("r.run_id", indexed=True))
ALL = CompiledQuery((), NEWEST)


def make(
    run_id: str, *, name: str = "", experiment: str = "0", stage: str = "active", start: int = 0, acc: float = 0.5
) -> Run:
    """A run with one metric, one param and one tag."""
    info = RunInfo(run_id, experiment, "ana", "FINISHED", start, None, stage, "", name)
    return Run(
        info,
        RunData({"acc": acc}, {"lr": "0.1"}, {"mlflow.runName": name}, {"acc": MetricSummary(acc, 1, 2, acc, acc, 1)}),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where an index can be."""
    return tmp_path / "index.db"


@pytest.fixture
def index(place: Place) -> Iterator[Index]:
    """An empty index that others can open too."""
    with closing(place.open()) as opened:
        yield opened


def ids(
    index: Index, query: CompiledQuery = ALL, experiments: list[str] | None = None, view: int = ViewType.ACTIVE_ONLY
) -> str:
    """Ids of the runs found, one after the other."""
    return "".join(index.search_run_ids(query, experiments, view))


def rows(index: Index) -> dict[str, int]:
    """How many rows the tables of runs have."""
    tables = ("runs", "docs", "metrics", "params", "tags", "inputs")
    return {table: index._all(f"SELECT COUNT(*) FROM {table}")[0][0] for table in tables}


# ---------------------------------------------------------------- runs


def same(one: Run, other: Run) -> bool:
    """Equality that also holds for NaN."""
    return repr(one) == repr(other)


@given(
    st.lists(records.many_runs(), min_size=1, max_size=4), st.sets(st.sampled_from([f"{n:x}run" for n in range(16)]))
)
@settings(max_examples=60 if FULL else 25)
def test_what_is_put_in_comes_out(empty_index: Callable[[], Index], batches: list[list[Run]], gone: set[str]) -> None:
    index = empty_index()
    kept: dict[str, Run] = {}
    for batch in batches:
        index.put_runs(iter(batch))
        kept.update((run.info.run_id, run) for run in batch)
    index.drop_runs(gone)
    kept = {run_id: run for run_id, run in kept.items() if run_id not in gone}
    found = index.get_runs([*reversed(kept), "unknown", "\ud800"])
    assert [run.info.run_id for run in found] == list(reversed(kept))
    assert all(same(run, kept[run.info.run_id]) for run in found)
    assert index.count_runs() == len(kept)
    # No row of what was replaced or dropped is left.
    before = rows(index)
    fresh = empty_index()
    fresh.put_runs(kept.values())
    assert before == rows(fresh)


def test_the_same_id_twice_in_one_call_is_the_last(index: Index) -> None:
    index.put_runs([make("a", name="one"), make("b"), make("a", name="two")])
    assert [run.info.run_name for run in index.get_runs(["a", "b"])] == ["two", ""]


def test_a_run_without_summaries_has_none_afterwards(index: Index) -> None:
    run = make("a")
    bare = replace(run, data=RunData({"acc": 0.25}, {}, {}))
    index.put_runs([bare])
    assert index.get_run("a") == bare
    assert index.get_run("b") is None


def test_large_parts_that_runs_share_are_kept_once(index: Index) -> None:
    packages = {f"package{n}": "1.0" for n in range(300)}
    index.put_runs(replace(make(f"r{n}"), environment={"packages": packages, "argv": [str(n)]}) for n in range(1200))
    assert index._all("SELECT COUNT(*) FROM shared") == [(1,)]
    assert index.get_runs(["r7"])[0].environment == {"packages": packages, "argv": ["7"]}


def test_integers_beyond_sql_are_kept_as_they_are_and_searched_as_the_nearest(index: Index) -> None:
    run = make("a")
    index.put_runs([replace(run, info=replace(run.info, start_time=2**64 - 1, end_time=2**63))])
    found = index.search_runs(ALL, None)
    assert (found[0].info.start_time, found[0].info.end_time) == (2**64 - 1, 2**63)


def test_names_that_look_like_sql_are_names(index: Index) -> None:
    evil = "x'); DROP TABLE runs; --"
    run = make("a", name=evil)
    run = replace(run, data=RunData({evil: 1.0}, {evil: evil}, {evil: evil}))
    index.put_runs([run])
    assert index.get_run("a") == run
    assert index.has_metric(evil)
    assert not index.has_metric("acc")
    assert index.find_run_name(evil) == [("a", evil)]
    assert index.get_runs([evil]) == []
    assert ids(index, ALL, [evil]) == ""
    assert index.meta_get(evil) is None
    assert ids(index) == "a"


def test_prefixes_and_names(index: Index) -> None:
    index.put_runs(
        [
            make("ab12", name="n"),
            make("ab-x", name="n", start=5),
            make("ac", name="n", stage="deleted"),
            make("b_", name="m"),
        ]
    )
    assert index.find_run_prefix("ab") == [("ab-x", "n"), ("ab12", "n")]
    assert index.find_run_prefix("ab", limit=1) == [("ab-x", "n")]
    assert index.find_run_prefix("b") == [("b_", "m")]
    assert [run_id for run_id, _ in index.find_run_prefix("")] == ["ab-x", "ab12", "ac", "b_"]
    assert index.find_run_prefix("%") == index.find_run_prefix("\ud800") == []
    assert index.find_run_name("n") == [("ab-x", "n"), ("ab12", "n")]
    assert index.find_run_name("\ud800") == []


# ---------------------------------------------------------------- searching


def test_views_and_experiments(index: Index) -> None:
    index.put_runs(
        [make("a"), make("b", experiment="1"), make("c", experiment="2", stage="deleted"), make("d", experiment="1")]
    )
    assert ids(index) == "abd"
    assert ids(index, view=ViewType.DELETED_ONLY) == "c"
    assert ids(index, view=ViewType.ALL) == "abcd"
    assert ids(index, experiments=["1"]) == "bd"
    assert ids(index, experiments=["1", "0", "0", "nope"]) == "abd"
    assert ids(index, experiments=[]) == ids(index, experiments=["nope"]) == ""
    assert index.count_runs(None, ["1", "2"]) == 3
    assert index.count_runs(ALL, [], ViewType.ALL) == 0
    with pytest.raises(InvalidValueError):
        ids(index, view=7)


def test_more_experiments_than_a_statement_takes(index: Index) -> None:
    index.put_runs(make(f"{n:04}", experiment=str(n)) for n in range(600))
    every = [str(n) for n in range(100_000)]
    assert index.search_run_ids(ALL, every) == [f"{n:04}" for n in range(600)]
    assert index.search_run_ids(ALL, every[1:]) == [f"{n:04}" for n in range(1, 600)]


def test_a_page_takes_few_statements(path: Path) -> None:
    index = Index(path)
    index.put_runs(replace(make(f"{n:04}", start=n), environment={"packages": ["p"] * 50}) for n in range(300))
    statements: list[str] = []
    assert isinstance(index._connection, sqlite3.Connection)
    index._connection.set_trace_callback(statements.append)
    assert len(index.search_runs(ALL, None, limit=200)) == 200
    assert len(statements) <= 6  # begin, runs, documents, shared parts, end; not one for each run


@pytest.mark.parametrize("experiments", [None, ["0"], ["0", "1"]])
def test_the_newest_runs_are_found_without_sorting_all(path: Path, experiments: list[str] | None) -> None:
    index = Index(path)
    index.put_runs(make(f"{n:05}", start=n, experiment=str(n % 2)) for n in range(4100))
    metric = Condition(
        "EXISTS (SELECT 1 FROM metrics AS x WHERE x.owner = r.id AND x.value > :v)",
        {"v": 0}, "metrics", f"{module.key_is('k')} AND x.value > :v", "acc", "value", True,
    )  # fmt: skip
    by_metric = Order("value", False, "metrics", "acc", indexed=True)
    for order, conditions in (
        (NEWEST, ()),
        ((by_metric, *NEWEST), ()),
        ((by_metric, *NEWEST), (metric._replace(params={"v": 0, "k": "acc"}),)),
    ):
        scope = index._scope(experiments) or ()
        first = next(index._segments(module._stages(1), (*scope, *conditions), order, 50))
        plan = index._all("EXPLAIN QUERY PLAN " + first.select("r.id", 50, 0)[0], first.select("r.id", 50, 0)[1])
        assert not any(row[3].startswith("USE TEMP B-TREE FOR ORDER BY") for row in plan), plan


# ---------------------------------------------------------------- experiments


@given(st.lists(records.many_experiments(), max_size=3))
@settings(max_examples=60 if FULL else 25)
def test_experiments_come_out_as_they_went_in(
    empty_index: Callable[[], Index], batches: list[list[Experiment]]
) -> None:
    index = empty_index()
    kept: dict[str, Experiment] = {}
    for batch in batches:
        index.put_experiments(batch)
        kept.update((experiment.experiment_id, experiment) for experiment in batch)
    assert index.get_experiments() == sorted(kept.values(), key=lambda e: int(e.experiment_id))
    wanted = ["100", "x", "0", "9", "\ud800"]
    assert index.get_experiments(wanted) == [kept[i] for i in wanted if i in kept]
    index.drop_experiments(["0", "x"])
    assert index.get_experiments() == sorted(
        (e for i, e in kept.items() if i != "0"), key=lambda e: int(e.experiment_id)
    )
    index.drop_experiments(kept)
    assert index._all("SELECT COUNT(*) FROM experiment_tags") == [(0,)]


# ---------------------------------------------------------------- meta and transactions


def test_meta(index: Index) -> None:
    assert index.meta_get("k") is None
    value: object
    for value in ("text", b"bytes", 7, {"ref": "oid", "n": {"a": [1, 2**63 - 1]}}, [], ""):
        index.meta_set("k", value)
        assert index.meta_get("k") == value
    index.meta_set("k", None)
    assert index.meta_get("k") is None


def test_a_failed_transaction_leaves_nothing(index: Index) -> None:
    index.put_runs([make("a")])
    with suppress(ZeroDivisionError), index.transaction():
        index.put_runs([make("b"), make("a", name="new")])
        with index.transaction():
            index.meta_set("k", 1)
        assert ids(index) == "ab"
        raise ZeroDivisionError
    assert ids(index) == "a"
    assert index.get_runs(["a"])[0].info.run_name == ""
    assert index.meta_get("k") is None
    index.put_runs([replace(make("b"), data=RunData({"other": 1.0}, {}, {}))])  # no number of a key was remembered
    assert index.has_metric("other")


def test_runs_that_fail_while_they_are_read_leave_nothing(index: Index) -> None:
    def failing() -> Iterator[Run]:
        yield from (make(f"{n:04}") for n in range(1500))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        index.put_runs(failing())
    assert index.count_runs() == 0
    assert rows(index)["metrics"] == 0


def test_others_see_all_of_a_transaction_or_nothing(place: Place, index: Index) -> None:
    with closing(place.open()) as other:
        with index.transaction():
            index.put_runs([make("a")])
            index.meta_set("fingerprint", "x")
            assert ids(other) == ""
            assert other.meta_get("fingerprint") is None
        assert ids(other) == "a"
        assert other.meta_get("fingerprint") == "x"


def test_one_writes_and_others_wait_or_say_so(place: Place, index: Index) -> None:
    with closing(place.open(timeout=0.1)) as other:
        with index.transaction():
            index.put_runs([make("a")])
            with pytest.raises(LockedError, match="another process"):
                other.put_runs([make("b")])
        other.put_runs([make("b")])
        assert ids(index) == "ab"


def test_keys_are_not_mixed_up_when_another_process_starts_over(place: Place, index: Index) -> None:
    index.put_runs([make("a")])
    with closing(place.open()) as other:
        other.clear()
        other.put_runs([replace(make("b"), data=RunData({"first": 1.0, "second": 2.0}, {}, {}))])
    index.put_runs([make("c")])
    assert index.has_metric("acc")
    assert index._all("SELECT n.name, x.value FROM metrics x JOIN names n ON n.id = x.key ORDER BY 1") == [
        ("acc", 0.5), ("first", 1.0), ("second", 2.0),
    ]  # fmt: skip


# ---------------------------------------------------------------- threads and processes


def test_threads_share_an_index(index: Index) -> None:
    def work(worker: int) -> None:
        for n in range(20):
            index.put_runs([make(f"{worker}-{n}")])
            assert index.get_run(f"{worker}-{n}") is not None
            index.search_runs(ALL, ["0"], limit=5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert index.count_runs() == 160


def test_a_thread_does_not_write_into_the_transaction_of_another(index: Index) -> None:
    inside, done = threading.Event(), threading.Event()

    def write() -> None:
        inside.wait()
        index.put_runs([make("b")])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    with suppress(ZeroDivisionError), index.transaction():
        index.put_runs([make("a")])
        inside.set()
        assert not done.wait(0.2)
        raise ZeroDivisionError
    thread.join()
    assert ids(index) == "b"


SCRIPT = """
    import sys
    sys.path.insert(0, sys.argv[4])
    from tests.databases import open_index
    from tests.store.test_index import make
    index = open_index(sys.argv[1], sys.argv[3])
    for n in range(15):
        with index.transaction():
            one = index.meta_get("count") or 0
            index.put_runs([make(f"{sys.argv[2]}-{n}")])
            index.meta_set("count", one + 1)
        with index._reading():
            assert index.meta_get("count") == index.count_runs()
    index.close()
"""


def test_processes_open_make_and_fill_one_place_together(place: Place) -> None:
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), place.kind, str(n), place.address, root],
            cwd=root,
            stderr=subprocess.PIPE,
        )
        for n in range(5)
    ]
    for worker in workers:
        _, error = worker.communicate(timeout=120)
        assert worker.returncode == 0, error.decode()
    with closing(place.open()) as index:
        assert index.count_runs() == index.meta_get("count") == 75


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_connection_of_its_own(index: Index) -> None:
    index.put_runs([make("a")])
    with index.transaction():  # the child must neither wait for it nor end it
        index.put_runs([make("b")])
        child = os.fork()
        if child == 0:
            os._exit(0 if ids(index) == "a" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ids(index) == "ab"


# ---------------------------------------------------------------- files


def test_it_is_still_there_when_opened_again(place: Place) -> None:
    with closing(place.open()) as index:
        index.put_runs([make("a")])
        index.meta_set("k", 1)
    with closing(place.open()) as index:
        assert ids(index) == "a"
        assert index.meta_get("k") == 1


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def rubbish(path: Path) -> None:
    path.write_bytes(b"this is no database, and longer than a header of one hundred bytes would be" * 50)


def other_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE runs RENAME COLUMN run_id TO x")
        connection.execute(f"PRAGMA user_version = {module.SCHEMA_VERSION + 1}")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncated, rubbish, other_schema, emptied])
def test_a_bad_file_is_replaced(path: Path, damage: Callable[[Path], None]) -> None:
    with closing(Index(path)) as index:
        index.put_runs(make(f"r{n}") for n in range(500))
        index.meta_set("fingerprint", "old")
    damage(path)
    with closing(Index(path)) as index:
        try:
            assert index.meta_get("fingerprint") is None
        except CorruptError:
            index.clear()  # found on reading only
        assert index.meta_get("fingerprint") is None
        assert index.count_runs() == 0
        index.put_runs([make("a")])
        assert ids(index) == "a"


def test_damage_in_the_middle_is_reported_and_mended_by_clear(path: Path) -> None:
    with closing(Index(path)) as index:
        index.put_runs(make(f"r{n}") for n in range(2000))
        index.meta_set("fingerprint", "old")
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(size // 4)
        file.write(os.urandom(size // 2))
    with closing(Index(path)) as index:
        with pytest.raises(CorruptError) as caught:
            index.get_runs([f"r{n}" for n in range(2000)])
        assert "reindex" in (caught.value.hint or "")
        index.clear()
        assert index.meta_get("fingerprint") is None
        index.put_runs([make("a")])
        assert ids(index) == "a"


def test_clear_forgets_everything(index: Index) -> None:
    index.put_runs([make("a")])
    index.put_experiments([Experiment("0", "Default", "", "active", {"k": "v"})])
    index.meta_set("k", 1)
    index.clear()
    assert (index.count_runs(), index.get_experiments(), index.meta_get("k"), index.has_metric("acc")) == (
        0,
        [],
        None,
        False,
    )


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="index"):
        Index(tmp_path / "nowhere" / "index.db")


# ---------------------------------------------------------------- read-only


def snapshot(path: Path) -> bytes | None:
    """What is in a file; None if it is not there."""
    return path.read_bytes() if path.exists() else None


def test_read_only_reads_the_file_and_writes_to_memory(path: Path) -> None:
    with closing(Index(path)) as index:
        index.put_runs([make("a")])
        index.meta_set("fingerprint", "x")
    before = snapshot(path)
    with closing(Index(path, read_only=True)) as index:
        assert ids(index) == "a"
        index.put_runs([make("b")])
        index.meta_set("fingerprint", "y")
        index.drop_runs(["a"])
        assert ids(index) == "b"
    assert snapshot(path) == before
    with closing(Index(path)) as index:
        assert ids(index) == "a"
        assert index.meta_get("fingerprint") == "x"


def test_read_only_beside_a_writer(path: Path) -> None:
    index = Index(path)
    index.put_runs([make("a")])
    with closing(Index(path, read_only=True)) as reader:
        assert ids(reader) == "a"
        index.put_runs([make("b")])
        assert ids(reader) == "ab"


@pytest.mark.parametrize("damage", [rubbish, other_schema, emptied, Path.unlink])
def test_read_only_without_a_usable_file_starts_empty(path: Path, damage: Callable[[Path], None]) -> None:
    with closing(Index(path)) as index:
        index.put_runs([make("a")])
    damage(path)
    before = snapshot(path)
    with closing(Index(path, read_only=True)) as index:
        assert ids(index) == ""
        index.put_runs([make("b")])
        assert ids(index) == "b"
    assert snapshot(path) == before


def test_read_only_in_a_folder_that_cannot_be_written(path: Path) -> None:
    with closing(Index(path)) as index:
        index.put_runs([make("a")])
    folder = path.parent
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with closing(Index(path, read_only=True)) as index:
            assert ids(index) == "a"
            index.put_runs([make("b")])
            assert ids(index) == "ab"
    finally:
        folder.chmod(stat.S_IRWXU)


def test_a_log_left_by_a_crash_is_not_overlooked(path: Path, tmp_path: Path) -> None:
    """A copy of the files of a running writer is what a crash leaves: the newest runs are only in the log."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(Index(path)) as index:
        index.put_runs([make("a")])
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", copy / f"index.db{suffix}")
    with closing(Index(copy / "index.db", read_only=True)) as index:
        assert ids(index) in ("a", "")  # never a half; empty if the folder were read-only
    with closing(Index(copy / "index.db")) as index:
        assert ids(index) == "a"


# ---------------------------------------------------------------- cost


def test_importing_it_loads_no_database() -> None:
    code = "import sys, gittrack.track.query; print([m for m in sys.modules if 'sqlite3' in m or m == 'json'])"
    assert (
        subprocess.check_output([sys.executable, "-c", code], text=True, cwd=Path(__file__).parents[2]).strip() == "[]"
    )


def test_metrics_that_are_not_numbers_come_out_as_they_went_in(index: Index) -> None:
    for value in (math.inf, -math.inf, math.nan):
        index.put_runs([make("a", acc=value)])
        assert repr(index.get_runs(["a"])[0].data.metrics["acc"]) == repr(value)
        (stored,) = index._all("SELECT x.value FROM metrics AS x")[0]
        assert stored == (None if math.isnan(value) else value)
