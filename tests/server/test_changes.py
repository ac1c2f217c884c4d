"""What changed, told to who may see it: at once, and as it happens, whoever changed it."""

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gittrack.errors import StorageError
from gittrack.server.hub import changes, feed
from gittrack.server.hub.feed import Feed
from gittrack.server.hub.roles import Grant, Role
from gittrack.store import following as store_following
from gittrack.store.following import Following
from gittrack.track import series
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox
from tests.databases import Server as Database
from tests.server.backend import open_repo
from tests.server.conftest import Running
from tests.server.guarded import bearer
from tests.server.process import Process
from tests.server.team import Team, serving

AT = "/ajax-api/2.0/gittrack/changes"
EVENTS = {"accept": "text/event-stream"}


@pytest.fixture
def team(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    monkeypatch.setattr(feed, "_PAUSE", 0.05)
    monkeypatch.setattr(feed, "_SHARE", 1.0)
    with serving(git_repo.path) as found:
        yield found
        found.server.hub.is_ending = lambda: True


class Stream:
    """A stream that somebody reads."""

    def __init__(self, port: int, path: str = AT, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.connection.request("GET", path, headers={**EVENTS, **headers})
        self.answer = self.connection.getresponse()

    def event(self) -> Any:
        """The next event; None at the end."""
        for line in iter(self.answer.readline, b""):
            if line.startswith(b"data: "):
                return json.loads(line[6:])
        return None

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def streaming(team: Team, token: str | None = None, path: str = AT, **headers: str) -> Iterator[Stream]:
    stream = Stream(team.port, path, **bearer(token or team.admin), **headers)
    try:
        yield stream
    finally:
        stream.close()


def asked(team: Team, token: str | None = None, since: str | None = None) -> Any:
    return team.ask("GET", AT + (f"?since={since}" if since else ""), token=token).ok


def changed(team: Team, since: str, token: str | None = None) -> Any:
    """What has changed since, once the server has looked."""
    team.server.hub.feed._next = 0.0
    return asked(team, token, since)


def new_run(team: Team, experiment: str) -> str:
    return str(team.post("runs/create", {"experiment_id": experiment}).ok["run"]["info"]["run_id"])


def log(team: Team, run_id: str, step: int = 0) -> None:
    point = {"key": "loss", "value": 1.0, "timestamp": 1, "step": step}
    assert team.post("runs/log-batch", {"run_id": run_id, "metrics": [point]}).ok == {}


def test_who_asks_is_told_what_changed_since(team: Team) -> None:
    things = team.things()
    first = asked(team)
    assert (first["complete"], first["run_ids"], first["experiment_ids"]) == (True, [], [])
    log(team, things["run_id"])
    second = changed(team, first["mark"])
    assert (second["complete"], second["run_ids"]) == (True, [things["run_id"]])
    assert changed(team, second["mark"])["run_ids"] == []
    assert changed(team, first["mark"])["run_ids"] == [things["run_id"]]  # whoever is behind is told, too
    team.post("runs/update", {"run_id": things["run_id"], "status": "FINISHED"})
    team.tracker.flush()  # committed: the journal is gone, a ledger moved
    third = changed(team, second["mark"])
    assert third["run_ids"] == [things["run_id"]]
    team.post("experiments/update", {"experiment_id": things["experiment_id"], "new_name": "other name"})
    fourth = changed(team, third["mark"])
    assert (fourth["run_ids"], fourth["experiment_ids"]) == ([], [things["experiment_id"]])
    team.post("runs/delete", {"run_id": things["run_id"]})
    assert changed(team, fourth["mark"])["run_ids"] == [things["run_id"]]


@pytest.mark.parametrize("mark", ["00000000-1", "x", "", "00000000-99999999999999999999"])
def test_a_mark_of_another_server_is_one_of_which_nothing_is_known(team: Team, mark: str) -> None:
    with streaming(team, path=f"{AT}?since={mark or 'y'}") as stream:
        assert stream.event()["complete"] is False
    told = asked(team, since=mark or "y")
    assert (told["complete"], told["run_ids"]) == (False, [])
    assert asked(team, since=told["mark"])["complete"] is True


def test_another_process_is_seen_too(team: Team) -> None:
    mark = asked(team)["mark"]
    program = "\n".join(
        (
            "import gittrack",
            "run = gittrack.start_run()",
            "gittrack.log_metric('loss', 1.0)",
            "print(run.info.run_id, flush=True)",
            "input()",
            "gittrack.end_run()",
        )
    )
    where = team.tracker.repo.paths.main_root
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        run_id = other.stdout.readline().strip()
        with contextlib.closing(open_repo(where)) as somebody:
            somebody.refresh()  # the index is up to date: no reason to say nothing
        told = changed(team, mark)
        assert told["run_ids"] == [run_id]
        assert team.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}").ok["run"]["data"]["metrics"]
        other.communicate("\n")
    assert changed(team, told["mark"])["run_ids"] == [run_id]
    assert team.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}").ok["run"]["info"]["status"] == "FINISHED"


def test_nobody_is_told_of_what_he_may_not_see(team: Team) -> None:
    mine, other = team.things("mine"), team.things("other")
    somebody = team.token(Grant(Role.READER, "mine*", None))
    nobody = team.token()
    mark = asked(team)["mark"]
    with streaming(team, somebody, f"{AT}?since={mark}") as his, streaming(team, nobody, f"{AT}?since={mark}") as none:
        for stream in (his, none):
            assert (stream.event()["run_ids"], stream.answer.status) == ([], 200)
        log(team, other["run_id"])
        team.post("experiments/set-experiment-tag", {"experiment_id": other["experiment_id"], "key": "a", "value": "b"})
        told = changed(team, mark, somebody)
        assert (told["run_ids"], told["experiment_ids"], told["complete"]) == ([], [], True)
        log(team, mine["run_id"])
        assert his.event()["run_ids"] == [mine["run_id"]]
        assert changed(team, mark, nobody)["run_ids"] == []
        assert set(changed(team, mark)["run_ids"]) == {mine["run_id"], other["run_id"]}
    assert other["run_id"] not in json.dumps(changed(team, mark, somebody))


def test_events_have_marks_to_go_on_from(team: Team) -> None:
    run_id = team.things()["run_id"]
    with streaming(team) as stream:
        assert stream.answer.getheader("content-type", "").startswith("text/event-stream")
        assert stream.answer.getheader("cache-control") == "no-store"
        ident = stream.answer.readline()
        mark = stream.event()["mark"]
        assert ident == b"id: %s\n" % mark.encode()
        begun = time.monotonic()
        log(team, run_id)
        assert stream.event()["run_ids"] == [run_id]
        assert time.monotonic() - begun < 2.0
    log(team, run_id, 1)
    with streaming(team, path=f"{AT}?since=00000000-1", **{"last-event-id": mark}) as stream:
        told = stream.event()
        assert (told["complete"], told["run_ids"]) == (True, [run_id])


def test_a_silent_stream_has_a_heartbeat(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_HEARTBEAT", 0.1)
    with streaming(team) as stream:
        first, second = stream.event(), stream.event()
        assert (second["complete"], second["run_ids"], second["experiment_ids"]) == (True, [], [])
        assert second["mark"] != first["mark"]


def test_a_caller_has_few_streams_and_they_end_when_he_leaves(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_MOST_EACH", 3)
    somebody = team.token(Grant(Role.READER, "*", "*"))
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(streaming(team, somebody)).event()
        with streaming(team, somebody) as refused:
            assert (refused.answer.status, refused.answer.getheader("retry-after")) == (429, "60")
        assert asked(team, somebody)["complete"] is True  # by asking it goes on
        with streaming(team) as others:
            assert others.answer.status == 200
        monkeypatch.setattr(changes, "_MOST", 3)
        with streaming(team) as refused:
            assert (refused.answer.status, refused.answer.getheader("retry-after")) == (429, "60")
    deadline = time.monotonic() + 10
    while team.server.hub.streams and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not team.server.hub.streams


def test_streams_take_no_threads_and_nobody_looks_when_nobody_listens(team: Team) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(streaming(team)).event()
        assert sum(thread.name.startswith("AnyIO") for thread in threading.enumerate()) < 12
        assert asked(team)["complete"] is True
    deadline = time.monotonic() + 10
    while team.server.hub.streams and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.15)  # the look that they waited for
    looked = team.server.hub.feed._now
    time.sleep(0.2)  # four times the pause
    assert team.server.hub.feed._now == looked


def test_a_stream_ends_with_the_token(team: Team) -> None:
    token = team.token(Grant(Role.READER, "*", "*"))
    with streaming(team, token) as stream:
        assert stream.event() is not None
        team.accounts.revoke_token(token.split("_")[1])
        assert stream.event() is None
    assert team.ask("GET", AT, token=token).status == 401


def test_a_stream_follows_the_rights_of_its_reader(team: Team) -> None:
    """What is taken away while it is open is not told any more."""
    experiment = team.things("mine")["experiment_id"]
    token = team.token(Grant(Role.READER, "mine", None))
    with streaming(team, token) as stream:
        assert stream.event() is not None
        team.server.guard.auth._fresh_until = float("inf")
        known, ident = team.server.guard.auth._callers, token.split("_")[1]
        known[ident] = replace(known[ident], grants=())
        run_id = new_run(team, experiment)
        time.sleep(0.3)  # it has looked several times
        team.server.hub.is_ending = lambda: True
        assert all(run_id not in told["run_ids"] for told in iter(stream.event, None))


def test_streams_end_with_the_server(git_repo: Sandbox) -> None:
    server = Process(git_repo.path, [])
    server.start()
    try:
        stream = Stream(server.port)
        assert stream.event()["complete"] is True
        begun = time.monotonic()
    finally:
        assert server.stop() == 0
    assert time.monotonic() - begun < 5
    assert stream.event() is None
    stream.close()


@pytest.mark.any_backend  # they have a database of their own
def test_servers_that_share_a_database_see_what_each_other_does(git_repo: Sandbox, postgres: Database) -> None:
    here, there = (open_repo(git_repo.path, postgres.url) for _ in range(2))
    watching = Feed(here)
    watching.look()
    mark = watching.since(None).mark
    tracker = Tracker(there, strict=True, serving=True)
    run = tracker.create_run()
    run.log_metric("loss", 1.0)
    watching._next = 0.0
    watching.look()
    assert watching.since(mark).runs == {run.run_id: "0"}
    mark = watching.since(None).mark
    following = Following(here)
    assert len(following.history(run.run_id, "loss")) == 1
    run.log_metric("loss", 0.5, step=1)
    assert len(following.history(run.run_id, "loss")) == 2
    watching._next = 0.0
    watching.look()
    assert watching.since(mark).runs == {run.run_id: "0"}
    tracker.close()
    here.close()


def test_what_cannot_be_seen_now_is_seen_later(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(open_repo(git_repo.path), strict=True)
    now = [100.0]
    watching = Feed(tracker.repo, clock=lambda: now[0])
    watching.look()
    mark = watching.since(None).mark
    run = tracker.create_run()
    with monkeypatch.context() as broken:
        broken.setattr(tracker.repo, "stamps", lambda: (_ for _ in ()).throw(StorageError("no disk")))
        now[0] += 5
        watching.look()
    assert watching.since(mark).runs == {}
    now[0] += 5
    watching.look()  # it waits for a while before it tries again
    assert watching.since(mark).runs == {}
    now[0] += 6
    watching.look()
    assert watching.since(mark).runs == {run.run_id: "0"}
    now[0] += feed.KEPT + 2
    watching.look()
    assert watching.since(mark).complete is False  # so long ago that nobody remembers
    assert watching._runs == {}
    tracker.close()


def test_a_rewritten_ledger_is_more_than_can_be_told(git_repo: Sandbox) -> None:
    tracker = Tracker(open_repo(git_repo.path), strict=True)
    run = tracker.create_run()
    run.end()
    tracker.flush()
    watching = Feed(tracker.repo)
    watching.look()
    mark = watching.since(None).mark
    ((ref, _),) = tracker.repo.ledger_refs().items()
    watching._observer._ledgers = {ref: type(run.run_id)("0" * 40)}  # type: ignore[dict-item]  # gone since
    watching._observer._fingerprint = ""
    watching._next = 0.0
    watching.look()
    assert watching.since(mark).complete is False
    tracker.close()


# --- histories that grow


def test_a_history_is_read_on_and_is_as_the_whole_one(git_repo: Sandbox) -> None:
    tracker = Tracker(open_repo(git_repo.path), strict=True)
    following = Following(reader := open_repo(git_repo.path))
    run = tracker.create_run()
    assert list(following.history(run.run_id, "loss")) == []
    for step in range(100):
        run.log_metric("loss", step / 3, step=step)
        run.log_metric("acc", 1.0, step=step)
        if step % 10 == 0:
            assert list(following.history(run.run_id, "loss")) == list(reader.history(run.run_id, "loss"))
    run.log_metric("loss", 5.0, step=3)  # goes back
    found = following.history(run.run_id, "loss")
    assert list(found) == list(reader.history(run.run_id, "loss"))
    run.log_metric("loss", 6.0, step=200)
    assert len(found) == 101  # nobody changes what was handed out
    run.end()
    tracker.flush()
    assert list(following.history(run.run_id, "loss")) == list(reader.history(run.run_id, "loss"))
    assert not following._runs
    reader.close()
    tracker.close()


def test_what_is_followed_has_a_bound(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(open_repo(git_repo.path), strict=True)
    runs = [tracker.create_run() for _ in range(3)]
    for run in runs:
        for step in range(20):
            run.log_metric("loss", 1.0, step=step)
    monkeypatch.setattr(
        store_following, "_MOST", 2 * max(sum(j.size for j in tracker.repo.journals(r.run_id)) for r in runs) + 1
    )
    following = Following(tracker.repo)
    for run in runs:
        assert len(following.history(run.run_id, "loss")) == 20
    assert list(following._runs) == [run.run_id for run in runs[1:]]
    tracker.close()


def test_what_nobody_asks_for_any_more_is_forgotten(git_repo: Sandbox) -> None:
    tracker = Tracker(open_repo(git_repo.path), strict=True)
    runs = [tracker.create_run() for _ in range(3)]
    for run in runs:
        run.log_metric("loss", 1.0, step=1)
    now = 0.0
    following = Following(tracker.repo, clock=lambda: now)
    for now in (0.0, 40.0, 80.0):
        assert len(following.history(runs[0].run_id, "loss")) == 1
        if not now:
            following.history(runs[1].run_id, "loss")
    assert list(following._runs) == [runs[0].run_id]
    now = 200.0
    following.history(runs[2].run_id, "loss")
    assert list(following._runs) == [runs[2].run_id]
    tracker.close()


def test_curves_that_a_browser_has_are_not_drawn_again(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that goes on, is committed, and is edited."""
    drawn: list[int] = []
    real = series.chart

    def chart(histories: Any, **more: Any) -> Any:
        drawn.append(len(histories))
        return real(histories, **more)

    monkeypatch.setattr(series, "chart", chart)
    run_id = server.new_run(experiment_id="0")
    asked = f"?run_ids={run_id}&metric_keys=loss"
    tags: dict[str, str] = {}

    def ask(path: str, expected: int) -> bytes:
        before = len(drawn)
        answer = server.get(f"{path}", **({"if-none-match": tags[path]} if path in tags else {}))
        assert answer.status == expected
        assert (len(drawn) > before) is (expected == 200)
        tags[path] = answer.headers["etag"]
        return answer.body

    curves, sparks = (f"/ajax-api/2.0/gittrack/metrics/{kind}{asked}" for kind in ("curves", "sparklines"))
    for step in range(3):
        point = {"key": "loss", "value": 1.0, "timestamp": step, "step": step}
        server.post("runs/log-batch", {"run_id": run_id, "metrics": [point]})
        assert b'"points":%d' % (step + 1) in ask(curves, 200)
        for _ in range(8):
            ask(curves, 304)
    ask(sparks, 200)
    ask(sparks, 304)
    ask(f"{curves}&smoothing=0.5", 200)
    server.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 5})
    server.hub.tracker.flush()
    for path in (curves, sparks):
        ask(path, 200)
        ask(path, 304)
    server.post("runs/set-tag", {"run_id": run_id, "key": "team", "value": "blue"})
    server.hub.tracker.flush()
    ask(curves, 200)
    ask(curves, 304)
