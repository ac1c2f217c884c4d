"""Live frames in PostgreSQL: what several servers write into one run, in the order in which it was committed."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from gittrack.errors import InvalidValueError, LockedError, NetworkError, PushRefusedError
from gittrack.store import codec, seal
from gittrack.store.journal import Overtaken
from gittrack.store.record import STATUS
from gittrack.store.repo import Repo
from gittrack.sync.exchange import Exchange
from gittrack.track.runs import Tracker
from gittrack.types import Run, RunId
from tests.conftest import MakeRepo, run_git
from tests.databases import Server

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'gittrack[postgres]'")
from gittrack.store.shared import Frames, Mark

RUN = RunId("ab" * 16)


@pytest.fixture
def frames(postgres: Server, request: pytest.FixtureRequest) -> Iterator[Frames]:
    with closing(Frames(postgres.url, f"live_{abs(hash(request.node.name))}", timeout=5.0)) as found:
        yield found


def payloads(frames: Frames, start: int = 0) -> list[bytes]:
    return [payload for one in frames.of(RUN) for _, payload in one.frames(start)]


def test_frames_are_read_as_they_were_written(frames: Frames) -> None:
    first = frames.append(RUN, b"one")
    assert frames.append(RUN, b"\x00two") == Mark(first.name, 2)
    assert payloads(frames) == [b"one", b"\x00two"]
    assert payloads(frames, 1) == [b"\x00two"]
    assert frames.mark(RUN) == Mark(first.name, 2)
    [journal] = frames.runs().values()
    assert (journal.name, journal.last, journal.size, journal.ended) == (first.name, 2, 7, False)
    for payload in (b"", b"x" * (codec.MAX_FRAME + 1)):
        with pytest.raises(InvalidValueError):
            frames.append(RUN, payload)
    assert len(payloads(frames)) == 2


def test_who_was_overtaken_reads_on(frames: Frames) -> None:
    mine = frames.append_after(RUN, None, b"mine")
    with pytest.raises(Overtaken):
        frames.append_after(RUN, None, b"not the first")
    theirs = frames.append(RUN, b"theirs")
    with pytest.raises(Overtaken):
        frames.append_after(RUN, mine, b"too late")
    assert frames.since(RUN, mine) == (theirs, [b"theirs"])
    assert frames.append_after(RUN, theirs, b"now") == Mark(mine.name, 3)
    assert frames.since(RUN, None) == (Mark(mine.name, 3), None), "who knows nothing reads all of it"
    frames.drop(RUN, mine.name, 2)
    assert frames.since(RUN, mine) == (Mark(mine.name, 3), None), "what came next is gone"
    assert frames.since(RUN, theirs) == (Mark(mine.name, 3), [b"now"])


def test_frames_go_once_they_are_in_a_commit(frames: Frames) -> None:
    mark = frames.append(RUN, b"one")
    frames.append(RUN, b"two")
    frames.drop(RUN, mark.name, 1)
    assert payloads(frames) == [b"two"]
    frames.drop(RUN, "another", 2)
    assert payloads(frames) == [b"two"], "a journal that is not this one"
    frames.drop(RUN, mark.name, 2)
    assert frames.runs() == {}
    assert frames.mark(RUN) == Mark(mark.name, 2), "its number stays"
    frames.tidy()
    assert frames.mark(RUN) is not None
    assert frames.append(RUN, b"three") == Mark(mark.name, 3)
    assert payloads(frames) == [b"three"]


def test_the_end_of_a_run_is_known(frames: Frames) -> None:
    def said(status: str) -> bool:
        frames.append(RUN, codec.pack([STATUS, status, None]))
        return frames.of(RUN)[0].ended

    assert [said("RUNNING"), said("FINISHED")] == [False, True]
    frames.append(RUN, b"\x01")
    assert frames.of(RUN)[0].ended
    assert frames.waiting(0.0)
    assert not frames.waiting(60.0)
    assert not said("RUNNING")
    other = RunId("cd" * 16)
    frames.append(other, b"an edit", over=True)
    assert frames.of(other)[0].ended


def test_nobody_who_reads_on_misses_a_frame(frames: Frames) -> None:
    """Eight threads write while one reads on from the last number that it saw."""
    done = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        at = 0
        while True:
            last = done.is_set()
            for one in frames.of(RUN):
                news = list(one.frames(at))
                seen.extend(payload for _, payload in news)
                at = max([at, *(number for number, _ in news)])
            if last:
                return

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: frames.append(RUN, b"%d" % number), range(200)))
    done.set()
    reader.join()
    assert sorted(seen, key=int) == [b"%d" % number for number in range(200)]


def test_a_lock_between_servers(frames: Frames, postgres: Server) -> None:
    with closing(Frames(postgres.url, frames._schema)) as other, frames.lock("seal", 1.0):
        with pytest.raises(LockedError), other.lock("seal", 0.1):
            pass
        with pytest.raises(LockedError), frames.lock("seal", 0.1):
            pass
        with other.lock("registry", 1.0):
            pass
    with closing(Frames(postgres.url, frames._schema)) as other, other.lock("seal", 1.0):
        pass


# ---------------------------------------------------------------- repositories


def server(folder: Path, postgres: Server, remote: str | None = None) -> Tracker:
    repo = Repo.find(folder, create=True, database=postgres.uri)
    if remote is not None:
        repo.exchange = Exchange(repo, remote)
    return Tracker(repo, strict=True, serving=True)


@pytest.fixture
def clones(tmp_path: Path, postgres: Server) -> Iterator[list[Tracker]]:
    """Two servers with clones of their own, and one remote."""
    run_git(tmp_path, "init", "--quiet", "--bare", "hub.git")
    found = []
    for name in ("one.git", "two.git"):
        run_git(tmp_path, "init", "--quiet", "--bare", name)
        run_git(tmp_path / name, "remote", "add", "hub", str(tmp_path / "hub.git"))
        found.append(server(tmp_path / name, postgres, "hub"))
    yield found
    for one in found:
        one.close()


def ended(tracker: Tracker) -> str:
    """A run that is over, and not committed."""
    run = tracker.create_run(capture=False)
    run.log_metric("m", 1.0, step=1, timestamp=1)
    run.log_params({"p": "1"})
    tracker._keeper.seal_soon = lambda: None  # type: ignore[method-assign]
    run.end()
    return run.run_id


def test_a_handle_learns_what_others_wrote(make_repo: MakeRepo, postgres: Server) -> None:
    folder = make_repo("bare").path
    one, two = server(folder, postgres), server(folder, postgres)
    mine = one.create_run(capture=False)
    theirs = two.writer(mine.run_id)
    for number in range(3):
        mine.set_tags({"t": f"mine {number}"})
        theirs.set_tags({"t": f"theirs {number}"})
    theirs.log_params({"p": "1"})
    with pytest.raises(InvalidValueError, match="is `1`, not `2`"):
        mine.log_params({"p": "2"})
    mine.log_params({"p": "1"})
    theirs.log_bytes(b"x", "a/b")
    with pytest.raises(InvalidValueError, match="file and a folder"):
        mine.log_bytes(b"x", "a")
    mine.delete_tag("t")
    assert two.get_run(mine.run_id).data.tags.get("t") is None
    theirs.set_status("FINISHED", 7)
    theirs.set_name("renamed")
    mine.set_tags({"after": "the end"})
    assert mine.terminated
    run = one.get_run(mine.run_id)
    assert (run.info.status, run.info.end_time, run.info.run_name) == ("FINISHED", 7, "renamed")
    two.flush()
    assert one.repo.live_runs() == {}
    committed = one.get_run(mine.run_id)
    assert (committed.info, committed.data) == (run.info, run.data)
    for tracker in (one, two):
        tracker.close()


def test_what_a_dead_server_left_is_committed_by_another(clones: list[Tracker]) -> None:
    one, two = clones
    run_id = ended(one)
    assert not two._others_wait(), "its server has two seconds"
    deadline = time.monotonic() + 5
    while not two._others_wait():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert seal.seal(two.repo) == [run_id]
    assert one.repo.frames is not None
    assert one.repo.frames.runs() == {}
    assert one.get_run(run_id).data.metrics == {"m": 1.0}
    assert [one.search_runs()[0].info.run_id, two.search_runs()[0].info.run_id] == [run_id] * 2


def test_a_server_that_dies_before_it_drops_frames(clones: list[Tracker], monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one commits the run once more; it is one run, with each point once."""
    one, two = clones
    run_id = ended(one)
    with monkeypatch.context() as patch:
        patch.setattr(Frames, "drop", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            seal.seal(one.repo)
    assert one.repo.frames is not None
    assert list(one.repo.frames.runs()) == [run_id]
    seal.seal(two.repo)
    assert one.repo.frames.runs() == {}
    for tracker in clones:
        assert list(tracker.metric_history(run_id, "m").values) == [1.0]
        assert [run.info.run_id for run in tracker.search_runs()] == [run_id]


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "is over"])
def test_a_run_that_is_committed_while_it_is_read_does_not_go_back(
    clones: list[Tracker], monkeypatch: pytest.MonkeyPatch, *, goes_on: bool
) -> None:
    """Between the look at its journal and reading it, its frames go into a commit that is not here yet."""
    one, two = clones
    run = one.create_run(capture=False)
    assert two.search_runs()[0].info.status == "RUNNING"
    one._keeper.seal_soon = lambda: None  # type: ignore[method-assign]
    run.end()
    reading, meanwhile = two.repo.journals, [one.repo]

    def journals(run_id: str) -> object:
        while meanwhile:
            assert seal.seal(meanwhile.pop()) == [run_id]
            if goes_on:
                one.writer(run_id).set_tags({"after": "the end"})
        return reading(run_id)

    monkeypatch.setattr(two.repo, "journals", journals)
    put = two.repo.index.put_runs
    seen: list[tuple[str, bool]] = []

    def put_runs(runs: list[Run], about: object) -> None:
        seen.extend((one.info.status, "after" in one.data.tags) for one in runs)
        put(runs, about)  # type: ignore[arg-type]

    monkeypatch.setattr(two.repo.index, "put_runs", put_runs)
    two.repo.refresh()
    assert not meanwhile
    assert ("RUNNING", True) not in seen
    found = two.repo.index.get_run(run.run_id)
    assert found is not None
    assert (found.info.status, "after" in found.data.tags) == ("FINISHED", goes_on)


def test_a_remote_that_is_away_loses_nothing(clones: list[Tracker], tmp_path: Path) -> None:
    one, two = clones
    experiment = one.create_experiment("before")
    assert two.get_experiment(experiment).name == "before"
    (tmp_path / "hub.git").rename(tmp_path / "away.git")
    run_id = ended(one)
    two.writer(run_id).log_metric("n", 2.0)
    with pytest.raises(NetworkError):
        seal.seal(one.repo)
    with pytest.raises(NetworkError):
        two.create_experiment("meanwhile")
    assert one.repo.frames is not None
    assert list(one.repo.frames.runs()) == [run_id]
    (tmp_path / "away.git").rename(tmp_path / "hub.git")
    seal.seal(one.repo)
    assert one.repo.frames.runs() == {}
    for tracker in clones:
        assert tracker.get_run(run_id).data.metrics == {"m": 1.0, "n": 2.0}
        assert tracker.get_experiment(experiment).name == "before"


def test_a_remote_that_refuses_is_said(clones: list[Tracker], tmp_path: Path) -> None:
    hook = tmp_path / "hub.git/hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(PushRefusedError):
        clones[0].create_experiment("refused")
    hook.unlink()
    clones[0].create_experiment("taken")
    assert clones[1].get_experiment_by_name("taken") is not None
