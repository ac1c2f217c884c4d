"""Journals that are shipped to servers which share a database: any of them takes any piece, and each counts once."""

import contextlib
import http.client
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack.client import Client
from gittrack.errors import ConflictError, InvalidValueError, NotFoundError, StateError
from gittrack.store import journal, rewrite
from gittrack.store.record import CLOSE, CREATE, METRIC, OPEN, PARAMS, STATUS
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from gittrack.track.shipped import Shipped
from tests.api.conftest import project, python
from tests.conftest import FOREIGN, GITCONFIG, Sandbox, run_git
from tests.databases import Server
from tests.remote.test_shipped import EVENTS, FACTS, MADE, OPENED, OPENING, RUN, SOURCE, check, data, frames
from tests.server.conftest import running
from tests.server.process import Process

__all__ = ["project", "python"]

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
KILLS = 20 if FULL else 1
PARTS = frames(EVENTS)
OFFSETS = [sum(map(len, PARTS[:n])) for n in range(len(PARTS) + 1)]


@pytest.fixture
def trackers(postgres: Server, tmp_path: Path) -> Iterator[tuple[Tracker, Tracker]]:
    """Those of two servers on one repository."""
    found = [Tracker(Repo.find(tmp_path, create=True, database=postgres.url), strict=True) for _ in range(2)]
    yield found[0], found[1]
    for one in found:
        one.close()


def send(shipped: Shipped, start: int, stop: int, name: str = "j") -> int:
    return shipped.take(RUN, "0", SOURCE, name, OFFSETS[start], b"".join(PARTS[start:stop]))


@pytest.mark.parametrize("seed", range(40 if FULL else 2))
def test_any_delivery_gives_the_journal_once(trackers: tuple[Tracker, Tracker], seed: int) -> None:
    """Pieces that are cut anywhere, come twice or out of order, to any server."""
    draw = random.Random(seed)
    servers = [Shipped(one) for one in trackers]
    here = 0
    while here < OFFSETS[-1]:
        start = OFFSETS.index(here) if draw.random() < 0.6 else draw.randrange(len(PARTS))
        stop = max(draw.randint(start + 1, len(PARTS)), 2 if start == 0 else 0)
        found = send(draw.choice(servers), start, stop)
        assert found == (max(here, OFFSETS[stop]) if OFFSETS[start] <= here else here)
        here = found
        assert draw.choice(servers).ends(RUN, SOURCE) == ({"j": here} if here else {})
    check(trackers[0])
    trackers[1].flush()
    assert trackers[1].repo.frames is not None
    assert trackers[1].repo.frames.received(RUN, "") == {}
    for shipped in servers:  # also after it was committed
        assert send(shipped, 0, len(PARTS)) == OFFSETS[-1]
        assert shipped.ends(RUN, SOURCE) == {"j": OFFSETS[-1]}
        with pytest.raises(StateError):
            shipped.take(RUN, "0", SOURCE, "j", OFFSETS[-1], data([PARAMS, {"late": "1"}]))
    check(trackers[1])


def test_the_same_piece_at_the_same_time(trackers: tuple[Tracker, Tracker]) -> None:
    """As from a client that asks another server because the first one does not answer: it counts once."""
    servers = [Shipped(one) for one in trackers] * 3
    wrong: list[BaseException] = []
    for start, stop in ((0, 2), (2, 9), (9, len(PARTS))):
        together = threading.Barrier(len(servers))

        def work(shipped: Shipped, start: int = start, stop: int = stop, together: Any = together) -> None:
            together.wait(20)
            try:
                assert send(shipped, start, stop) == OFFSETS[stop]
            except BaseException as error:  # noqa: BLE001 - shown by the test
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(one,)) for one in servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
    check(trackers[0])


def test_what_is_no_piece_changes_nothing(trackers: tuple[Tracker, Tracker]) -> None:
    one, two = map(Shipped, trackers)
    for wrong in (
        data(OPENING, [PARAMS, {"a": "b"}]),
        data(OPENING, [CREATE, {**FACTS, "experiment_id": "17"}]),
        data(MADE),
        data(OPENING, MADE, [CLOSE], [PARAMS, {"a": "b"}]),
        data(OPENING, MADE, MADE),
    ):
        with pytest.raises((InvalidValueError, NotFoundError)):
            one.take(RUN, "0", SOURCE, "j", 0, wrong)
    assert one.ends(RUN, SOURCE) == {}
    assert send(one, 0, 5) == OFFSETS[5]
    with pytest.raises(ConflictError):  # another who says that he made the run
        two.take(RUN, "0", "6" * 32, "j", 0, data(OPENING, MADE))
    with pytest.raises(ConflictError):  # it does not go on where this one is
        two.take(RUN, "0", SOURCE, "j", 0, data(OPENING, MADE, *([METRIC, "x", 1.0, 1, n] for n in range(30))))
    assert two.ends(RUN, "6" * 32) == {}
    assert two.ends(RUN, SOURCE) == {"j": OFFSETS[5]}


def test_journals_of_two_processes_and_edits_of_others(trackers: tuple[Tracker, Tracker]) -> None:
    one, two = map(Shipped, trackers)
    send(one, 0, 3)
    other: list[list[Any]] = [
        [OPEN, {**OPENED, "process": ["laptop", "boot", 8, "1"]}],
        [METRIC, "rank", 1.0, 5, 1],
        [CLOSE],
    ]
    two.take(RUN, "0", "7" * 32, "rank1", 0, data(*other))
    trackers[1].writer(RUN).set_tags({"seen": "yes"})
    trackers[0].repo.refresh()
    assert trackers[0].get_run(RUN).data.tags["seen"] == "yes"
    send(two, 3, len(PARTS))
    check(trackers[0])
    run = trackers[1].get_run(RUN)
    assert (run.data.metrics["rank"], run.data.tags["seen"]) == (1.0, "yes")
    assert trackers[0].repo.frames is not None
    trackers[0].flush()
    assert trackers[0].repo.frames.received(RUN, "") == {}
    # What is said after the end, in a journal of its own, is committed as well.
    late: list[list[Any]] = [
        [OPEN, {**OPENED, "process": ["laptop", "boot", 9, "1"]}],
        [METRIC, "late", 2.0, 5, 1],
        [CLOSE],
    ]
    one.take(RUN, "0", SOURCE, "again", 0, data(*late))
    assert one.ends(RUN, SOURCE) == {"again": len(data(*late)), "j": OFFSETS[-1]}
    trackers[0].flush()
    assert trackers[0].repo.frames.of(RUN) == []
    assert trackers[0].repo.frames.received(RUN, "") == {}
    assert two.ends(RUN, SOURCE) == {"again": len(data(*late)), "j": OFFSETS[-1]}
    assert trackers[0].get_run(RUN).data.metrics["late"] == 2.0


def test_a_run_that_was_purged_does_not_come_back(trackers: tuple[Tracker, Tracker]) -> None:
    send(Shipped(trackers[0]), 0, len(PARTS))
    check(trackers[0])
    trackers[0].delete_run(RUN)
    trackers[0].flush()
    rewrite.purge(trackers[0].repo, RUN)
    with pytest.raises(StateError, match="purged"):
        Shipped(trackers[1]).take(RUN, "0", "6" * 32, "j", 0, data(OPENING, MADE))
    with pytest.raises(StateError, match="purged"):  # nor by its sender
        send(Shipped(trackers[1]), 0, len(PARTS))
    assert trackers[1].repo.frames is not None
    assert trackers[1].repo.frames.of(RUN) == []


def test_a_run_goes_on_until_all_who_send_its_journals_have_closed_them(trackers: tuple[Tracker, Tracker]) -> None:
    one, two = map(Shipped, trackers)
    opened: list[list[Any]] = [[OPEN, {**OPENED, "process": ["laptop", "boot", 8, "1"]}], [METRIC, "rank", 1.0, 5, 1]]
    send(one, 0, 3)
    start = two.take(RUN, "0", "7" * 32, "rank1", 0, data(*opened))
    send(two, 3, len(PARTS))
    trackers[0].flush()
    assert trackers[0].repo.frames is not None
    assert not trackers[0].repo.frames.waiting(0.0)
    assert [one.ended for one in trackers[0].repo.frames.of(RUN)] == [False]
    assert trackers[1].get_run(RUN).info.status == "FINISHED"  # as far as everybody sees
    one.take(RUN, "0", "7" * 32, "rank1", start, data([METRIC, "rank", 2.0, 6, 2], [CLOSE]))
    trackers[0].flush()
    assert trackers[0].repo.frames.of(RUN) == []
    assert trackers[0].repo.frames.received(RUN, "") == {}
    assert trackers[1].get_run(RUN).data.metrics["rank"] == 2.0


def test_a_client_ships_and_does_not_record_by_calls(
    git_repo: Sandbox, postgres: Server, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(git_repo.path, database=postgres.url) as server:
        assert server.get("/api/2.0/gittrack/server-info").ok["journals"] == 1
        gittrack.set_tracking_uri(server.url)
        with gittrack.start_run(run_name="shipped") as run:
            gittrack.log_param("lr", 0.1)
            for step in range(50):
                gittrack.log_metric("loss", 1.0 / (1 + step), step=step)
        gittrack.flush_async_logging()
        client = Client(server.url)
        found = client.get_run(run.info.run_id)
        assert (found.info.status, found.data.params["lr"]) == ("FINISHED", "0.1")
        frames_of = server.hub.tracker.repo.frames
        assert frames_of is not None
        server.hub.tracker.flush()
        assert frames_of.received(run.info.run_id, journal.SHIPPED) == {}  # the commit says it
        revision = server.hub.tracker.repo.revisions(run.info.run_id)
        stored = server.hub.tracker.repo.stored_state(run.info.run_id, revision)
        assert stored is not None
        assert [name.startswith(journal.SHIPPED) for name in sorted(stored.absorbed)] == [False, True]
        assert not journal.list_journals(server.hub.tracker.repo.live)


class Sender:
    """Sends the journal of a run in pieces, to any server that answers, as a client does."""

    def __init__(self, servers: list[Process], run_id: str, events: list[list[Any]], draw: random.Random) -> None:
        self.servers = servers
        self.run_id = run_id
        self.parts = frames(events)
        self.offsets = [sum(map(len, self.parts[:n])) for n in range(len(self.parts) + 1)]
        self.draw = draw
        self.here = 0

    def step(self) -> None:
        """One piece; what is not answered is sent again."""
        start = self.offsets.index(self.here)
        stop = min(start + self.draw.randint(2, 6), len(self.parts))
        where = f"/api/2.0/gittrack/experiments/0/runs/{self.run_id}/journals/j?offset={self.here}"
        sent = {"gittrack-source": SOURCE, "content-type": "application/octet-stream"}
        server = self.draw.choice(self.servers)
        with contextlib.suppress(OSError, http.client.HTTPException), server.connected() as connection:
            connection.request("POST", where, b"".join(self.parts[start:stop]), sent)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status in (200, 503), text
            if answer.status == 200:
                self.here = int(json.loads(text)["offset"])

    @property
    def done(self) -> bool:
        return self.here == self.offsets[-1]


def test_servers_are_killed_and_nothing_is_lost_or_counted_twice(postgres: Server, tmp_path: Path) -> None:
    """Two servers on clones with one remote, each killed in turn while journals come in."""
    (tmp_path / ".gitconfig").write_text(GITCONFIG)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environ |= {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    run_git(tmp_path, "init", "--quiet", "--bare", "hub.git")
    servers = []
    for name in ("one.git", "two.git"):
        run_git(tmp_path, "init", "--quiet", "--bare", name)
        run_git(tmp_path / name, "remote", "add", "hub", str(tmp_path / "hub.git"))
        options = [f"--backend-store-uri={postgres.uri}", f"--artifacts-destination={tmp_path / 'objects'}",
                   "--shared-remote=hub"]  # fmt: skip
        servers.append(Process(tmp_path / name, options, environ))
    draw = random.Random(7)
    steps = 60
    events = [[METRIC, "loss", 1.0 / (1 + step), 1000 + step, step] for step in range(steps)]
    senders = []
    for number in range(3):
        run_id = f"{number:02x}" * 16
        begin = [[OPEN, {**OPENED, "run_id": run_id}], [CREATE, {**FACTS, "run_id": run_id}]]
        senders.append(Sender(servers, run_id, [*begin, *events, [STATUS, "FINISHED", 2000], [CLOSE]], draw))
    try:
        for server in servers:
            server.start()
        kills = [draw.randint(3, 20) for _ in range(KILLS)]
        turn = 0
        while not all(one.done for one in senders):
            for one in senders:
                if not one.done:
                    one.step()
            turn += 1
            if kills and turn >= kills[0]:
                kills.pop(0)
                turn = 0
                down = draw.choice(servers)
                killer = threading.Timer(draw.random() * 0.02, down.kill)  # in the middle of a request
                killer.start()
                for one in senders:
                    if not one.done:
                        one.step()
                killer.join()
                down.start()
        client = Client(f"http://127.0.0.1:{servers[0].port}")
        for one in senders:
            run = client.get_run(one.run_id)
            assert run.info.status == "FINISHED"
            history = client.get_metric_history(one.run_id, "loss")
            assert [point.step for point in history] == list(range(steps))
    finally:
        for server in servers:
            if server.process is not None and server.process.poll() is None:
                server.process.kill()
                server.process.wait()
