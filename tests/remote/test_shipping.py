"""What is recorded for a server gets there, whatever happens to the server, the network or the program."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack import stores
from gittrack.errors import NetworkError
from gittrack.remote import shipping
from gittrack.remote.outbox import Outbox
from gittrack.remote.shipping import OutboxTracker
from gittrack.remote.tracking import RemoteTracker
from gittrack.store.repo import Repo
from gittrack.track import lifecycle
from gittrack.types import check_run_id
from tests.api.conftest import make_project, project
from tests.remote.conftest import mlflow_server
from tests.server.process import Process

__all__ = ["project"]

TRAIN = """
import os, sys, time, gittrack
gittrack.set_experiment("away")
with gittrack.start_run(run_name="live") as run:
    gittrack.log_params({"lr": 0.1})
    for step in range(200):
        gittrack.log_metric("loss", 1 / (1 + step), step=step)
    gittrack.set_tag("kind", "test")
    gittrack.log_text("hello", "notes/a.txt")
    print(run.info.run_id, flush=True)
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Process]:
    """A server in a process of its own, that was not started yet."""
    found = Process(make_project(tmp_path / "served"))
    yield found
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.wait()


@pytest.fixture
def recorder(project: Path) -> OutboxTracker:
    """What records for a server that is away."""
    gittrack.set_tracking_uri("http://127.0.0.1:9")
    tracker = stores.tracker()
    assert isinstance(tracker, RemoteTracker)
    found = tracker.recorder()
    assert isinstance(found, OutboxTracker)
    return found


def environment(server: Process, **more: str) -> dict[str, str]:
    return os.environ | {
        "GITTRACK_TRACKING_URI": f"http://127.0.0.1:{server.port}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **more,
    }


def program(server: Process, text: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text],
        env=environment(server, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip(), err


def verb(server: Process, *words: str, status: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "gittrack", *words],
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout) if "--json" in words and done.stdout else done.stderr


def ask(server: Process, path: str, body: Any = None) -> Any:
    with server.connected() as connection:
        sent = None if body is None else json.dumps(body)
        where = f"/api/2.0/mlflow/{path}"
        connection.request("GET" if body is None else "POST", where, sent, {"content-type": "application/json"})
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None


def there(server: Process, run_id: str) -> Any:
    found = ask(server, f"runs/get?run_id={run_id}")
    return found and found["run"]


def wait_for(what: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            found = what()
            if found:
                return found
        time.sleep(0.05)
    raise AssertionError("it does not come")


def check(server: Process, run_id: str, *, steps: int = 200, status: str = "FINISHED") -> None:
    run = there(server, run_id)
    assert run["info"]["status"] == status
    assert {one["key"]: one["value"] for one in run["data"].get("params", [])} == {"lr": "0.1"}
    points = ask(server, f"metrics/get-history?run_id={run_id}&metric_key=loss")["metrics"]
    assert [one["step"] for one in points] == list(range(steps))
    if status == "FINISHED":
        assert {one["key"]: one["value"] for one in run["data"]["tags"]}["kind"] == "test"
        with server.connected() as connection:
            connection.request("GET", f"/get-artifact?run_id={run_id}&path=notes/a.txt")
            assert connection.getresponse().read() == b"hello"


def nothing_left(project: Path) -> None:
    assert all(outbox.empty for outbox in Outbox.all(Repo.find(project)))


def test_a_live_run_is_at_the_server_within_two_seconds(project: Path, served: Process) -> None:
    """Parameters, history, tags, files, datasets, children and the end; a search sees the run while it goes on."""
    served.start()
    text = """
import sys, gittrack, numpy
gittrack.set_experiment("live")
with gittrack.start_run(run_name="parent") as run:
    gittrack.log_metric("loss", 0.5, step=1)
    gittrack.log_input(gittrack.data.from_numpy(numpy.zeros((2, 2)), name="zeros"), context="training")
    print(run.info.run_id, flush=True)
    sys.stdin.readline()
    gittrack.log_artifact("big.bin")
    with gittrack.start_run(nested=True) as child:
        gittrack.log_metrics({"a": 1.0, "b": 2.0})
    print(child.info.run_id, flush=True)
"""
    Path("big.bin").write_bytes(os.urandom(3 << 20))
    process = subprocess.Popen(
        [sys.executable, "-c", text], env=environment(served), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    started = time.monotonic()
    experiment = wait_for(lambda: ask(served, "experiments/get-by-name?experiment_name=live"))["experiment"]

    def search() -> Any:
        body = {"experiment_ids": [experiment["experiment_id"]], "filter": "metrics.loss = 0.5"}
        return (ask(served, "runs/search", body) or {}).get("runs")

    assert wait_for(search)[0]["info"]["run_id"] == run_id
    assert time.monotonic() - started < 4  # 2 s, on a machine that others use
    assert there(served, run_id)["info"]["status"] == "RUNNING"
    out, _ = process.communicate("\n", timeout=60)
    parent, child = there(served, run_id), there(served, out.strip())
    assert parent["info"]["status"] == child["info"]["status"] == "FINISHED"
    assert parent["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "zeros"
    assert {one["key"]: one["value"] for one in child["data"]["tags"]}["mlflow.parentRunId"] == run_id
    with served.connected() as connection:
        connection.request("GET", f"/get-artifact?run_id={run_id}&path=big.bin")
        assert connection.getresponse().read() == Path("big.bin").read_bytes()
    nothing_left(project)
    served.stop()  # and then it is committed there
    assert Repo.find(served.folder).revisions(run_id)


def test_what_was_recorded_offline_is_shipped_later(project: Path, served: Process) -> None:
    """The program runs as always and says once that the server is away; `gittrack sync` does the rest."""
    began = time.monotonic()
    run_id, said = finished(program(served, TRAIN, GITTRACK_SHIP_TIMEOUT="5"))
    assert time.monotonic() - began < 20
    assert said.count("takes nothing at present") == 1
    assert "gittrack sync" in said
    waiting = verb(served, "status", "--json")["unshipped"]
    assert [one["runs"] for one in waiting] == [[run_id]]
    assert waiting[0]["size"] > 1000
    assert waiting[0]["server"] == f"http://127.0.0.1:{served.port}"
    assert waiting[0]["since"] > 0
    assert verb(served, "sync", status=1)  # still away
    served.start()
    done = verb(served, "sync", "--json")["servers"]
    assert [one["runs"] for one in done] == [[run_id]]
    check(served, run_id)
    assert verb(served, "status", "--json")["unshipped"] == []
    nothing_left(project)


def test_a_server_that_is_away_takes_no_random_numbers(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between tries differ; a training that seeded `random` gets what it would get without us."""
    monkeypatch.setattr(shipping, "INTERVAL", 0.01)
    gittrack.set_tracking_uri("http://127.0.0.1:9")
    tracker = stores.tracker()
    assert isinstance(tracker, RemoteTracker)
    recorder = tracker.recorder()
    assert isinstance(recorder, OutboxTracker)
    state = random.getstate()
    with gittrack.start_run():
        gittrack.log_metric("loss", 1.0)
        deadline = time.monotonic() + 30
        while recorder._background._failures < 2 and time.monotonic() < deadline:  # after the first was a pause
            time.sleep(0.01)
    assert recorder._background._failures >= 2
    assert random.getstate() == state


def test_the_server_is_killed_in_the_middle(project: Path, served: Process) -> None:
    """What was recorded before, meanwhile and afterwards is there once it is back, once."""
    served.start()
    text = TRAIN.replace("gittrack.log_params", "print(run.info.run_id, flush=True); gittrack.log_params").replace(
        "step=step)", "step=step); time.sleep(0.02)"
    )
    process = program(served, text, GITTRACK_SHIP_TIMEOUT="30")
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    wait_for(lambda: there(served, run_id))
    served.kill()
    time.sleep(1.0)
    served.start()
    _, said = finished(process)
    assert said.count("takes nothing at present") == said.count("is back")
    check(served, run_id)
    nothing_left(project)


def test_a_program_that_was_killed_loses_nothing(project: Path, served: Process) -> None:
    """kill -9 while the server is away: the next process ships what was acknowledged, and that it was killed."""
    text = TRAIN.replace(
        "    gittrack.set_tag", "    print(run.info.run_id, flush=True); time.sleep(60)\n    gittrack.set_tag"
    )
    process = program(served, text)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    served.start()
    verb(served, "sync")
    check(served, run_id, status="KILLED")
    nothing_left(project)


def test_sync_while_the_run_goes_on(project: Path, served: Process) -> None:
    """Another process ships what there is; the program goes on, and its server has been away for long."""
    text = TRAIN.replace(
        "    gittrack.set_tag", "    print(run.info.run_id, flush=True); sys.stdin.readline()\n    gittrack.set_tag"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        env=environment(served),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    served.start()
    verb(served, "sync")
    assert there(served, run_id)["info"]["status"] == "RUNNING"
    check(served, run_id, status="RUNNING")
    _, said = process.communicate("\n", timeout=60)
    assert process.returncode == 0, said
    check(served, run_id)
    nothing_left(project)


def test_sigterm_and_forked_children(project: Path, served: Process) -> None:
    """A supervisor ends it; a child of it had written into the same run."""
    served.start()
    text = """
import os, sys, time, gittrack
run = gittrack.start_run()
gittrack.log_metric("loss", 1.0, step=0)
pid = os.fork()
if not pid:
    gittrack.log_metric("loss", 0.5, step=1)
    os._exit(0)
os.waitpid(pid, 0)
gittrack.log_metric("loss", 0.25, step=2)
print(run.info.run_id, flush=True)
while True: time.sleep(0.01)  # Python sees no signal that comes in the moment before a long one
"""
    process = program(served, text)
    assert process.stdout is not None
    with process:
        run_id = process.stdout.readline().strip()
        process.terminate()
        try:
            process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGTERM
    verb(served, "sync")
    assert there(served, run_id)["info"]["status"] == "KILLED"
    points = ask(served, f"metrics/get-history?run_id={run_id}&metric_key=loss")["metrics"]
    assert [one["value"] for one in points] == [1.0, 0.5, 0.25]
    nothing_left(project)


def test_a_signal_comes_while_the_thread_is_told(recorder: OutboxTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler ends the program, which tells the thread, too."""
    run = recorder.create_run("0")
    recorder.end_at_exit(run)
    start = lifecycle.start
    ends: list[float] = []

    def interrupted(thread: threading.Thread) -> None:
        if not ends:
            ends.append(time.monotonic())
            recorder.shutdown("KILLED", hurry=True)
            ends.append(time.monotonic())
        start(thread)

    monkeypatch.setattr(lifecycle, "start", interrupted)
    background = recorder._background
    background.after_fork_in_child()  # the thread is to be started anew
    background.start()
    assert ends[1] - ends[0] < 10
    assert recorder.repo.state(run.run_id).status == "KILLED"


def test_a_journal_is_shipped_while_somebody_asks_what_waits(
    recorder: OutboxTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = recorder.create_run("0"), recorder.create_run("0")
    before = list(recorder.outbox.journals())
    recorder.outbox.remove(dict(before)[check_run_id(first.run_id)][0])
    monkeypatch.setattr(recorder.outbox, "journals", lambda: iter(before))
    assert recorder.outbox.waiting().runs == [second.run_id]


def test_the_loop_costs_what_it_costs_locally(project: Path) -> None:
    """The network has no part in it: a call is one append to the journal, be the server there or not."""

    def cost() -> float:
        with gittrack.start_run():
            gittrack.log_metric("loss", 1.0)
            began = time.thread_time()
            for step in range(20_000):
                gittrack.log_metric("loss", 1.0, step=step)
            return time.thread_time() - began

    local = min(cost() for _ in range(3))
    gittrack.set_tracking_uri("http://127.0.0.1:9")
    tracker = stores.tracker()
    assert isinstance(tracker, RemoteTracker)
    assert isinstance(tracker.recorder(), OutboxTracker)
    assert min(cost() for _ in range(3)) < 2 * local
    with pytest.raises(NetworkError):
        tracker.ship(1.0)


@pytest.mark.peer
def test_a_mlflow_server_that_was_away_is_told(project: Path, tmp_path: Path) -> None:
    """What was recorded while nobody knew what kind of server it is goes there as calls, under an id of its own."""
    pytest.importorskip("mlflow", reason="the server is the real one")
    (tmp_path / "mlflow").mkdir()
    with mlflow_server(tmp_path / "mlflow") as url:
        gittrack.set_tracking_uri(url)
        tracker = stores.tracker()
        assert isinstance(tracker, RemoteTracker)
        tracker._ours = True  # as it is taken for while it is away
        recorder = tracker.recorder()
        assert recorder is not None
        experiment_id = recorder.create_experiment("away")
        with gittrack.start_run(experiment_id=experiment_id) as run:
            gittrack.log_params({"lr": 0.1})
            for step in range(5):
                gittrack.log_metric("loss", 1.0, step=step)
            gittrack.log_text("hello", "a.txt")
        tracker.ship(30)
        experiment = tracker.get_experiment_by_name("away")
        assert experiment is not None
        found = tracker.search_runs([experiment.experiment_id])
        assert [one.data.tags["gittrack.runId"] for one in found] == [run.info.run_id]
        assert (found[0].info.status, found[0].data.params) == ("FINISHED", {"lr": "0.1"})
        assert tracker.read_artifact(found[0].info.run_id, "a.txt") == b"hello"
        assert gittrack.get_run(run.info.run_id).info.status == "FINISHED"  # by the id that it has here
        nothing_left(project)
