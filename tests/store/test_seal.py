"""Journals and ledgers that are damaged, or come from somebody who means harm: they hide only themselves."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from gittrack.errors import CorruptError, FormatError, InvalidValueError, NotFoundError
from gittrack.store import check, codec, files, layout, rewrite, seal
from gittrack.store.record import (
    ARTIFACTS,
    CLOSE,
    CODE,
    CREATE,
    ENVIRONMENT,
    FIELDS,
    INPUT,
    LINK,
    METRIC,
    METRICS,
    OPEN,
    OUTPUT,
    PARAMS,
    STATUS,
    RunState,
    check_event,
)
from gittrack.store.refs import RefUpdate
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from gittrack.types import Artifact, Dataset, DatasetInput
from tests.conftest import MakeRepo

BAD = "ba" * 16
SHA = "0" * 64
FACTS = {"run_id": BAD, "experiment_id": "0", "name": "bad", "user_id": "u", "start_time": 1}


@pytest.fixture
def tracker(make_repo: MakeRepo) -> Tracker:
    return Tracker(Repo.find(make_repo("ordinary").path, create=True), strict=True)


def good_run(tracker: Tracker) -> str:
    run = tracker.create_run(name="good")
    run.log_metric("a", 1.0)
    run.log_bytes(b"good", "note.txt")
    run.end()
    tracker.flush()
    return run.run_id


def journal_of_the_dead(repo: Repo, *frames: bytes, opening: Any = None, run_id: str = BAD) -> Path:
    """A journal with these frames, whose process is no more."""
    host, boot_id, *_ = files.process_identity().to_list()
    facts = {"version": 1, "run_id": run_id, "process": [host, boot_id, 1 << 22, "1"], "opened": time.time_ns()}
    folder = repo.live / run_id
    folder.mkdir(parents=True)
    path = folder / "x.journal"
    path.write_bytes(b"".join(map(codec.frame, [opening or codec.pack([OPEN, facts]), *frames])))
    return path


def events(*between: Any) -> list[bytes]:
    return [codec.pack(event) for event in ([CREATE, FACTS], *between, [STATUS, "FINISHED", 5], [CLOSE])]


#: Events that have the right kind and are no events: each was committed once, or stopped every commit after it.
ODD = [
    [CREATE, {**FACTS, "experiment_id": "../x"}],
    [CREATE, {**FACTS, "start_time": "now"}],
    [CREATE, {**FACTS, "name": 5}],
    [METRIC, 5, 1.0, 1, 1],
    [METRICS, [[5, 1.0, 1, 1], ["a", 1.0, 1, 1]]],
    [PARAMS, {"lr": 5}],
    [FIELDS, "x", 3, {"name": 5}],
    [ARTIFACTS, [["../../x", SHA, 3]]],
    [ARTIFACTS, [[".git/config", SHA, 3]]],
    [ARTIFACTS, [["a", "../x", 3]]],
    [ARTIFACTS, [["a", SHA, -1]]],
    [INPUT, {"dataset": {"name": 5}}],
    [INPUT, {"x": 1}],
    [OUTPUT, {}],
    [LINK, 1, 2, 3, {}],
    [STATUS, "WELL", 5],
    [STATUS, "FINISHED", "now"],
    [CODE, {"commit": 5}],
    [CODE, {"tree": "zz"}],
    [ENVIRONMENT, [["python", "3"]]],
    [OUTPUT, {"model_id": "m", "path": "../x"}],
]


@pytest.mark.parametrize("event", ODD, ids=str)
def test_an_odd_event_is_set_aside_and_stops_nobody(tracker: Tracker, event: list[Any]) -> None:
    with pytest.raises(FormatError):
        RunState(BAD).apply(event)
    with pytest.raises(InvalidValueError):
        check_event(event)
    journal_of_the_dead(tracker.repo, *events(event))
    run_id = good_run(tracker)
    assert tracker.get_run(run_id).commit is not None
    assert (tracker.repo.root / "lost" / BAD / "x.journal").exists()
    assert [run.info.run_id for run in tracker.search_runs()] == [run_id]
    assert [(p.kind, p.subject) for p in check.fsck(tracker.repo, full=True)] == [("journal", BAD)]


@pytest.mark.parametrize("event", ODD, ids=str)
def test_an_odd_journal_does_not_stop_a_search(tracker: Tracker, event: list[Any]) -> None:
    run_id = good_run(tracker)
    journal_of_the_dead(tracker.repo, *events(event))
    assert [run.info.run_id for run in tracker.search_runs()] == [run_id]


@pytest.mark.parametrize(
    "opening",
    [b"\xc1", codec.pack([OPEN]), codec.pack([OPEN, 5]), codec.pack([OPEN, {"opened": 1}]), codec.pack({})],
    ids=["no msgpack", "short", "no map", "no process", "no event"],
)
def test_a_journal_that_does_not_say_whose_it_is(tracker: Tracker, opening: bytes) -> None:
    journal_of_the_dead(tracker.repo, *events(), opening=opening)
    run_id = good_run(tracker)
    assert tracker.get_run(run_id).commit is not None
    assert not list(tracker.repo.live.iterdir())


def test_a_frame_that_is_no_msgpack(tracker: Tracker) -> None:
    journal_of_the_dead(tracker.repo, b"\xc1\xc1")
    assert tracker.get_run(good_run(tracker)).commit is not None
    assert (tracker.repo.root / "lost" / BAD).is_dir()


def test_a_run_that_no_record_can_hold_stays_readable(tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    run = tracker.create_run(name="large")
    for number in range(5):
        data = Dataset(f"data {number}", "d", "local", "s", None, "p" * 16_000_000)
        run.log_inputs([DatasetInput(data, [])])
    run.end()
    run_id = good_run(tracker)
    assert f"run `{run.run_id}` stays in its journals" in caplog.text
    assert tracker.get_run(run_id).commit is not None
    found = tracker.get_run(run.run_id)
    assert (found.info.status, len(found.inputs.dataset_inputs), found.commit) == ("FINISHED", 5, None)
    assert {one.info.run_id for one in tracker.search_runs()} == {run.run_id, run_id}


def test_groups_are_bounded_by_the_bytes_of_their_journals(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "GROUP_BYTES", 1000)
    runs = []
    with tracker.repo.seal_lock():  # so that all wait
        for _ in range(4):
            run = tracker.create_run()
            run.log_params({"p": "x" * 400})
            run.end()
            runs.append(run.run_id)
    tracker.flush()
    assert all(tracker.get_run(run_id).commit for run_id in runs)
    ref = layout.ledger_ref("0", tracker.repo.writer)
    newest = tracker.repo.git.ref(ref)
    assert newest is not None
    assert len(tracker.repo.git.read_commit(newest).parents) <= 3


# ---------------------------------------------------------------- ledgers of others


def ledger_of_another(repo: Repo, blob: bytes | None = None, *, folder: str = "ba", name: str = BAD[2:]) -> None:
    """What a fetch may bring: a ledger of another writer whose run is no run."""
    batch = repo.git.batch()
    commit = batch.add_commit(batch.add_tree([]), [], "no run", "Eve <eve@example.org>", 1)
    inner = batch.add_tree([(name, 0o160000, commit)])
    entries = [(folder, 0o040000, inner)]
    if blob is not None:
        entries.append((layout.EXPERIMENT_FILE, 0o100644, batch.add_blob(blob)))
    ledger = batch.add_commit(batch.add_tree(entries), [commit], "ledger", "Eve <eve@example.org>", 1)
    repo.git.publish(batch, [RefUpdate("refs/runs/7/eve-0000", None, ledger)])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, ("run", BAD)),
        ({"folder": "b@"}, ("ledger", "refs/runs/7/eve-0000")),
        ({"blob": b"\xc1"}, ("ledger", "refs/runs/7/eve-0000")),
        ({"blob": codec.pack({"version": 1, "created": "x", "updated": 1, "fields": {}})},
         ("ledger", "refs/runs/7/eve-0000")),
    ],
    ids=["no run commit", "no run id", "no msgpack", "no experiment"],
)  # fmt: skip
def test_a_hostile_ledger_hides_only_itself(
    tracker: Tracker, arguments: dict[str, Any], problem: tuple[str, str]
) -> None:
    ledger_of_another(tracker.repo, **arguments)
    run_id = good_run(tracker)
    assert tracker.get_run(run_id).commit is not None
    assert [run.info.run_id for run in tracker.search_runs()] == [run_id]
    assert [experiment.name for experiment in tracker.search_experiments()][-1:] == ["Default"]
    assert problem in {(p.kind, p.subject) for p in check.fsck(tracker.repo, full=True)}
    if "folder" in arguments:  # nobody can say what such a ledger refers to
        with pytest.raises(CorruptError):
            check.gc(tracker.repo, grace_s=0)
    else:
        assert check.gc(tracker.repo, grace_s=0).objects == []


# ---------------------------------------------------------------- one name, a file and a folder


def test_a_name_is_a_file_or_a_folder(tracker: Tracker, tmp_path: Path) -> None:
    run = tracker.create_run()
    run.log_bytes(b"1", "a/b")
    for path in ("a", "a/b/c"):
        with pytest.raises(InvalidValueError, match="cannot be a file and a folder"):
            run.log_bytes(b"2", path)
    (tmp_path / "a").write_bytes(b"3")
    with pytest.raises(InvalidValueError, match="cannot be a file and a folder"):
        run.log_artifact(tmp_path / "a")
    run.remove_artifacts(["a/b"])
    run.log_bytes(b"4", "a")
    run.end()
    tracker.flush()
    assert tracker.get_run(run.run_id).commit is not None
    assert tracker.read_artifact(run.run_id, "a") == b"4"


def test_of_a_file_and_a_folder_by_two_processes_the_later_stays(tracker: Tracker) -> None:
    rows = [["a", SHA, 1], ["b/c", SHA, 2], ["b/d/e", SHA, 3], ["a/x", SHA, 4], ["b", SHA, 5], ["f", SHA, 6]]
    journal_of_the_dead(tracker.repo, *events(*([ARTIFACTS, [row]] for row in rows)))
    wanted = ["a/x", "b", "f"]
    assert list(tracker.repo.artifacts(BAD)) == wanted
    assert list(tracker.repo.artifacts(BAD, "a")) == ["a/x"]
    tracker.seal_soon()
    tracker.flush()
    assert tracker.get_run(BAD).commit is not None
    assert list(tracker.repo.artifacts(BAD)) == wanted


def test_overlay_removes_and_replaces() -> None:
    found = {path: Artifact(path, layout.check_digest(SHA), 1) for path in ("a/b", "a/c", "d")}
    layout.overlay(found, {"a/b": None, "missing": None, "d/e": found["d"]})
    assert sorted(found) == ["a/c", "d/e"]
    layout.overlay(found, {"a/c": None, "a": found["a/c"]})
    assert sorted(found) == ["a", "d/e"]


# ---------------------------------------------------------------- others


def test_params_that_were_refused_can_be_written_in_parts(tracker: Tracker) -> None:
    run = tracker.create_run()
    params = {f"p{number}": "ä" * 6000 for number in range(6000)}
    with pytest.raises(InvalidValueError):
        run.log_params(params)
    run.log_params({"p1": params["p1"]})
    run.end()
    tracker.flush()
    assert tracker.get_run(run.run_id).data.params == {"p1": params["p1"]}


def test_purge_leaves_what_another_process_is_about_to_name(tracker: Tracker) -> None:
    run_id = good_run(tracker)
    digest = next(iter(tracker.repo.artifacts(run_id).values())).digest
    tracker.delete_run(run_id)
    tracker.flush()
    named_soon, _ = tracker.repo.objects.put_bytes(b"stored, and its journal not yet written")
    writing = tracker.repo.objects.root / "tmp" / ".tmp-0123456789abcdef"
    writing.write_bytes(b"half of it")
    os.utime(writing, (1, 1))
    assert rewrite.purge(tracker.repo, run_id) == len(b"good")
    assert not tracker.repo.objects.has(digest)
    assert tracker.repo.objects.has(named_soon)
    assert writing.exists()
    with pytest.raises(NotFoundError):
        tracker.get_run(run_id)
