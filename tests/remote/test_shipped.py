"""The receiving end of journal shipping: pieces in any order, however often, give the journal once."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.store import codec, journal
from gittrack.store.record import ARTIFACTS, CLOSE, CODE, CREATE, FIELDS, METRIC, OPEN, PARAMS, STATUS
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from gittrack.track.shipped import MAX_PIECE, Shipped
from tests.conftest import Sandbox
from tests.server.conftest import Answer, Running, server

__all__ = ["server"]

RUN = "ab" * 16
SOURCE = "5" * 32
OPENED: dict[str, Any] = {"version": 1, "run_id": RUN, "process": ["laptop", "boot", 7, "1"], "opened": 1}
FACTS: dict[str, Any] = {"run_id": RUN, "experiment_id": "0", "name": "away", "user_id": "ana", "start_time": 1000}
OPENING = [OPEN, OPENED]
MADE = [CREATE, FACTS]
EVENTS: list[list[Any]] = [
    OPENING,
    MADE,
    [PARAMS, {"lr": "0.1"}],
    *([METRIC, "loss", 1.0 / (1 + step), 1000 + step, step] for step in range(20)),
    [FIELDS, 2, "ana", {"tags.kind": "test"}],
    [STATUS, "FINISHED", 2000],
    [CLOSE],
]


def frames(events: list[list[Any]]) -> list[bytes]:
    return [codec.frame(codec.pack(event)) for event in events]


def data(*events: list[Any]) -> bytes:
    return b"".join(frames(list(events)))


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    found = Tracker(Repo.find(tmp_path, create=True), strict=True)
    yield found
    found.close()


def check(tracker: Tracker) -> None:
    tracker.flush()
    run = tracker.get_run(RUN)
    assert (run.info.status, run.info.end_time, run.data.params["lr"]) == ("FINISHED", 2000, "0.1")
    assert list(tracker.metric_history(RUN, "loss").steps) == list(range(20))
    assert run.data.summaries["loss"].count == 20
    assert not journal.list_journals(tracker.repo.live)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_delivery_gives_the_journal_once(tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject) -> None:
    """Pieces that are cut anywhere, come twice or out of order; the sender goes on from where it is told to."""
    tracker = Tracker(Repo.find(tmp_path_factory.mktemp("store"), create=True), strict=True)
    shipped = Shipped(tracker)
    parts = frames(EVENTS)
    offsets = [sum(map(len, parts[:n])) for n in range(len(parts) + 1)]
    here, deliveries = 0, 0
    while here < offsets[-1]:
        wanted = draw.draw(st.booleans()) or deliveries > 20
        start = offsets.index(here) if wanted else draw.draw(st.integers(0, len(parts) - 1))
        stop = draw.draw(st.integers(start + 1, len(parts)))
        stop = max(stop, 2) if start == 0 else stop
        found = shipped.take(RUN, "0", SOURCE, "j", offsets[start], b"".join(parts[start:stop]))
        assert found == (max(here, offsets[stop]) if offsets[start] <= here else here)
        here = found
        deliveries += 1
        if draw.draw(st.integers(0, 9)) == 0:  # the server starts anew
            shipped = Shipped(tracker)
        assert shipped.ends(RUN, SOURCE) == ({"j": here} if here else {})
    check(tracker)
    assert shipped.take(RUN, "0", SOURCE, "j", 0, b"".join(parts)) == offsets[-1]  # also after it was sealed
    assert shipped.ends(RUN, SOURCE) == {"j": offsets[-1]}
    check(tracker)
    tracker.close()


def test_a_tail_that_was_cut_off_is_written_anew(tracker: Tracker) -> None:
    parts = frames(EVENTS)
    half = sum(map(len, parts[:9]))
    assert Shipped(tracker).take(RUN, "0", SOURCE, "j", 0, b"".join(parts[:9])) == half
    path = next(iter(journal.list_journals(tracker.repo.live).values()))[0]
    with path.open("ab") as file:
        file.write(parts[9][:-3])  # the power went off in the middle of a write
    shipped = Shipped(tracker)
    assert shipped.take(RUN, "0", SOURCE, "j", half + len(parts[9]), b"".join(parts[10:])) == half
    shipped.take(RUN, "0", SOURCE, "j", half, b"".join(parts[9:]))
    check(tracker)


def post(server: Running, body: bytes, *, run: str = RUN, name: str = "j", offset: Any = 0, **more: str) -> Answer:
    sent = {"gittrack_source": SOURCE, "content_type": "application/octet-stream"} | more
    where = f"/api/2.0/gittrack/experiments/{more.pop('experiment', '0')}/runs/{run}/journals/{name}?offset={offset}"
    sent.pop("experiment", None)
    return server.ask("POST", where, body, **sent)


GOOD = data(OPENING, MADE)
OTHER = "cd" * 16
HOSTILE: dict[str, dict[str, Any]] = {
    "no frames": {"body": b"hello"},
    "bad checksum": {"body": GOOD[:-1] + b"\x00"},
    "cut off": {"body": GOOD[:-1]},
    "something behind": {"body": GOOD + b"x"},
    "no msgpack": {"body": data(OPENING) + codec.frame(b"\xc1")},
    "extension type": {"body": data(OPENING) + codec.frame(b"\xd4\x01\x00")},
    "not an event": {"body": data(OPENING) + codec.frame(codec.pack({"a": 1}))},
    "no opening": {"body": data(MADE)},
    "opening of another run": {"body": data([OPEN, {**OPENED, "run_id": OTHER}], MADE)},
    "opening without a process": {"body": data([OPEN, {"run_id": RUN, "opened": 1}], MADE)},
    "another run's beginning": {"body": data(OPENING, [CREATE, {**FACTS, "run_id": OTHER}])},
    "another experiment": {"body": data(OPENING, [CREATE, {**FACTS, "experiment_id": "17"}])},
    "no beginning": {"body": data(OPENING, [PARAMS, {"a": "b"}])},
    "beginning twice": {"body": data(OPENING, MADE, MADE)},
    "something behind the end": {"body": data(OPENING, MADE, [CLOSE], [PARAMS, {"a": "b"}])},
    "artifact out of its folder": {"body": data(OPENING, MADE, [ARTIFACTS, [["../x", "a" * 64, 1]]])},
    "a digest that is none": {"body": data(OPENING, MADE, [ARTIFACTS, [["x", "../../x", 1]]])},
    "a metric's name": {"body": data(OPENING, MADE, [METRIC, "a\x00b", 1.0, 1, 1])},
    "a param too long": {"body": data(OPENING, MADE, [PARAMS, {"a": "b" * 10_000}])},
    "a run's name": {"body": GOOD, "run": "..%2e"},
    "a journal's name": {"body": GOOD, "name": "..a"},
    "a journal's long name": {"body": GOOD, "name": "a" * 300},
    "an offset that is none": {"body": GOOD, "offset": "-1"},
    "no source": {"body": GOOD, "gittrack_source": "me"},
    "JSON": {"body": b"{}", "content_type": "application/json"},
    "an experiment that is not there": {"body": GOOD, "experiment": "123"},
}


def test_what_is_no_journal_leaves_nothing(server: Running) -> None:
    for case, request in HOSTILE.items():
        given = dict(request)
        answer = post(server, given.pop("body"), **given)
        assert 400 <= answer.status < 500, (case, answer)
        assert "error_code" in answer.json
        assert not list(server.hub.tracker.repo.live.glob("*/*")), case
    assert post(server, GOOD).ok == {"offset": len(GOOD)}


def test_too_much_is_not_read(server: Running) -> None:
    assert post(server, bytes(MAX_PIECE + 1)).status == 413


def test_a_run_is_nobody_elses(server: Running) -> None:
    """Who has not the sender's secret can neither make the run again nor change what was sent."""
    post(server, GOOD)
    thief = {"gittrack_source": "6" * 32}
    assert post(server, GOOD, **thief).status == 409
    assert post(server, data([PARAMS, {"a": "b"}]), offset=len(GOOD), **thief).ok == {"offset": 0}
    assert post(server, data(OPENING, [CREATE, {**FACTS, "name": "x"}])).status == 409  # same place, other bytes
    assert post(server, data(*EVENTS)).ok == {"offset": len(data(*EVENTS))}
    assert post(server, data([PARAMS, {"a": "b"}]), offset=len(data(*EVENTS))).status == 400  # it is closed
    made = server.new_run()
    taken = [[OPEN, {**OPENED, "run_id": made}], [CREATE, {**FACTS, "run_id": made}]]
    assert post(server, data(*taken), run=made).status == 409
    where = f"/api/2.0/gittrack/experiments/0/runs/{RUN}/journals"
    assert server.get(where, gittrack_source=SOURCE).ok == {"journals": {"j": len(data(*EVENTS))}}
    assert server.get(where, **thief).ok == {"journals": {}}


def test_it_takes_a_writer_of_the_experiment(server: Running) -> None:
    theirs = server.post("experiments/create", {"name": "theirs"}).ok["experiment_id"]
    made = [CREATE, {**FACTS, "experiment_id": theirs}]
    server.caller = Caller("ana", (Grant(Role.WRITER, "ana*"), Grant(Role.READER, "theirs")), "token")
    assert post(server, data(OPENING, made), experiment=theirs).status == 403
    server.caller = Caller("ana", (Grant(Role.WRITER, "ana*"),), "token")
    assert post(server, data(OPENING, made), experiment=theirs).status == 404
    mine = server.post("experiments/create", {"name": "ana"}).ok["experiment_id"]
    made = [CREATE, {**FACTS, "experiment_id": mine}]
    assert post(server, data(OPENING, made), experiment=mine).status == 200
    server.caller = Caller("bob", (Grant(Role.WRITER, "theirs"),), "token")
    assert post(server, data([PARAMS, {"a": "b"}]), offset=1, experiment=theirs).status == 404


def test_nobody_sees_code_by_naming_it(server: Running, git_repo: Sandbox) -> None:
    """Whoever may not see the code cannot make a run that has it."""
    server.post("experiments/create", {"name": "ana"})
    mine = server.hub.tracker.get_experiment_by_name("ana")
    assert mine is not None
    head = server.hub.tracker.repo.git.head()
    made = [CREATE, {**FACTS, "experiment_id": mine.experiment_id}]
    code = [CODE, {"commit": head, "branch": "main"}]
    server.caller = Caller("ana", (Grant(Role.WRITER, "ana"),), "token")
    assert head is not None
    assert post(server, data(OPENING, made, code), experiment=mine.experiment_id).status == 400
    unknown = [CODE, {"commit": hashlib.sha1(b"x").hexdigest(), "branch": "main"}]
    assert post(server, data(OPENING, made, unknown), experiment=mine.experiment_id).status == 200


def test_a_live_run_is_seen_and_edited_by_others(server: Running) -> None:
    """It is in every search while it goes on, takes edits from elsewhere, and is committed when its end has come."""
    parts = frames(EVENTS)
    post(server, b"".join(parts[:-2]))
    found = server.post("runs/search", {"experiment_ids": ["0"], "filter": "metrics.loss < 0.1"}).ok["runs"]
    assert [run["info"]["status"] for run in found] == ["RUNNING"]
    assert server.post("runs/set-tag", {"run_id": RUN, "key": "seen", "value": "yes"}).status == 200
    post(server, b"".join(parts[-2:]), offset=sum(map(len, parts[:-2])))
    check(server.hub.tracker)
    assert server.hub.tracker.get_run(RUN).data.tags["seen"] == "yes"
