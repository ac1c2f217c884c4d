"""Thousands of runs that are open at a time: an answer does not look at all of them, and misses nothing."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.server.hub.app import Hub, Options
from gittrack.store import git, journal, seal
from gittrack.store.repo import Repo
from gittrack.track import runs as tracking
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox

pytestmark = pytest.mark.any_backend  # of journals in files, which other servers have not


@pytest.fixture
def tracker(git_repo: Sandbox) -> Iterator[Tracker]:
    found = Tracker(Repo.find(git_repo.path, create=True), strict=True, serving=True)
    yield found
    found.close()


def another(folder: Path) -> Tracker:
    """A training on the same machine."""
    return Tracker(Repo.find(folder), strict=True)


def soon(what: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def never_due(tracker: Tracker) -> None:
    """From now on, nobody looks at all journals because it is time to."""
    tracker.search_runs()
    assert tracker.repo._lookout is not None
    tracker.repo._lookout._next = math.inf


def last(tracker: Tracker, run_id: str) -> float:
    return next(run.data.metrics["m"] for run in tracker.search_runs() if run.info.run_id == run_id)


def test_what_a_server_wrote_is_read_at_once_without_a_look_at_all_there_is(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tracker.create_run(name=f"r{number}") for number in range(20)]
    never_due(tracker)
    monkeypatch.setattr(journal, "stamps", lambda _: pytest.fail("looks at all journals"))
    for step in range(1, 4):
        for run in runs:
            run.log_metric("m", float(step), step)
            assert last(tracker, run.run_id) == step
    new = tracker.create_run(name="new")
    new.log_params({"a": "b"})
    new.set_tags({"c": "d"})
    found = tracker.search_runs(filter_string="params.a = 'b' and tags.c = 'd'")
    assert [one.info.run_id for one in found] == [new.run_id]


def test_a_run_that_ends_is_found_before_and_after_its_commit(tracker: Tracker) -> None:
    never_due(tracker)
    for number in range(5):
        run = tracker.create_run(name=f"r{number}")
        run.log_metric("m", float(number))
        run.end()
        assert last(tracker, run.run_id) == number
    tracker.flush()
    assert sorted(run.data.metrics["m"] for run in tracker.search_runs()) == [0, 1, 2, 3, 4]
    assert journal.stamps(tracker.repo.live) == {}


def test_what_others_write_is_found_soon_and_what_they_commit_at_once(tracker: Tracker, git_repo: Sandbox) -> None:
    mine = tracker.create_run(name="mine")
    other = another(git_repo.path)
    theirs = other.create_run(name="theirs")
    for step in range(1, 5):
        theirs.log_metric("m", float(step), step)
        mine.log_metric("m", float(step), step)
        soon(lambda step=step: last(tracker, theirs.run_id) == step)  # type: ignore[misc]
    never_due(tracker)
    theirs.log_metric("m", 9.0, 9)
    theirs.end()
    other.close()
    assert last(tracker, theirs.run_id) == 9


def test_an_index_that_somebody_emptied_is_filled_again(tracker: Tracker, git_repo: Sandbox) -> None:
    runs = [tracker.create_run(name=f"r{number}").run_id for number in range(3)]
    never_due(tracker)
    another(git_repo.path).repo.index.clear()
    assert {run.info.run_id for run in tracker.search_runs()} == set(runs)


def test_what_could_not_be_indexed_is_not_forgotten(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracker.create_run(name="one")
    never_due(tracker)
    run.log_metric("m", 1.0)
    with monkeypatch.context() as broken:
        broken.setattr(Repo, "_refresh_live", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tracker.search_runs()
    assert last(tracker, run.run_id) == 1


def test_what_a_run_costs_does_not_depend_on_how_many_there_are(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its beginning to its commit, and reading it: entries of folders and objects of git that are looked at."""
    monkeypatch.setattr(tracker._keeper, "seal_soon", lambda: None)  # sealed here, one at a time
    looked = [0]

    def counted(owner: object, name: str, of: Callable[[Any], int]) -> None:
        real = getattr(owner, name)

        def counting(*arguments: Any) -> Any:
            found = real(*arguments)
            looked[0] += of(found)
            return found

        monkeypatch.setattr(owner, name, counting)

    counted(git, "_parse_tree", len)
    counted(git.GitStore, "_try", lambda _: 1)
    experiments = [tracker.create_experiment(f"e{number}") for number in range(8)]

    def cost() -> int:
        before = looked[0]
        run = tracker.create_run(experiments[0], name="one")
        run.log_metric("m", 1.0)
        assert last(tracker, run.run_id) == 1.0
        run.end()
        seal.seal(tracker.repo, but=tracker.open_ids())
        assert tracker.get_run(run.run_id).info.status == "FINISHED"
        return looked[0] - before

    cost()
    few = cost()
    for number in range(240):
        tracker.create_run(experiments[1 + number % 7], run_id=f"{number:032x}"[::-1]).end()
    seal.seal(tracker.repo, but=tracker.open_ids())
    cost()
    assert cost() <= few + 8, "each other ledger has a folder for such a run, perhaps"


def test_a_new_run_is_answered_as_it_is_read(tracker: Tracker) -> None:
    client = Hub(tracker, Options()).client
    new = client.create_run("0", 7, {"mlflow.user": "ana", "a": "b", "mlflow.parentRunId": "c" * 32}, "one")
    assert new == client.get_run(new.info.run_id)
    assert client.create_run("0").info.run_name


def test_readers_and_writers_beside_each_other_read_what_was_written(tracker: Tracker) -> None:
    never_due(tracker)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run = tracker.create_run()
            for step in range(1, 31):
                run.log_metric("m", float(step), step)
                assert tracker.repo.run(run.run_id).data.metrics["m"] == step
                assert last(tracker, run.run_id) == step
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []


def test_journals_are_closed_before_the_descriptors_are_used_up(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "most_open", lambda: 8)
    ids = [tracker.create_run(name=f"r{number}").run_id for number in range(40)]
    soon(lambda: len(tracker._open) <= 8)
    for value in (1.0, 2.0):
        for run_id in ids:
            tracker.writer(run_id).log_metric("m", value, int(value))
    soon(lambda: len(tracker._open) <= 8)
    found = {run.info.run_id: run for run in tracker.search_runs()}
    assert set(found) == set(ids)
    assert {run.info.status for run in found.values()} == {"RUNNING"}
    assert {tuple(tracker.metric_history(run_id, "m").values) for run_id in ids[:5]} == {(1.0, 2.0)}
    for run_id in ids:
        tracker.writer(run_id).set_status("FINISHED")
    tracker.flush()
    assert {run.info.status for run in tracker.search_runs()} == {"FINISHED"}
