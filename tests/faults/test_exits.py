"""How a training process can end, and what its run says afterwards.  Real interpreters: their exit is the test."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import FULL, Project, environment

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

_START = """
import os, signal, sys, threading, time
import gittrack
gittrack.set_experiment("swept")
run = gittrack.start_run(run_name=sys.argv[1])
gittrack.log_metric("loss", 0.5, step=1)
gittrack.log_text("kept", "kept.txt")
"""


def _start(project: Project, source: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python program in the project's folder; a file, because processes that are spawned load it again."""
    above = project.folder.parent
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir=above, delete=False) as file:
        file.write(source)
    return subprocess.Popen(
        [sys.executable, file.name, *arguments],
        cwd=project.folder,
        env={**environment(above / "home"), "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and what it said."""
    with process:
        _, said = process.communicate(timeout=120)
    return process.returncode, said


def _run(project: Project, name: str) -> dict[str, Any]:
    """The run of that name as a fresh process reads it."""
    outcome = project.zygote.run("describe", folder=str(project.folder), name=name)
    assert outcome.status == 0, outcome.stderr
    runs = [json.loads(line) for line in outcome.acks]
    assert len(runs) == 1, runs
    return dict(runs[0])


ENDINGS: dict[str, tuple[str, int, str]] = {
    "end of the script": ("", 0, "FINISHED"),
    "end_run": ("gittrack.end_run()", 0, "FINISHED"),
    "end_run with a status": ("gittrack.end_run('FAILED')", 0, "FAILED"),
    "with block": ("with run: pass", 0, "FINISHED"),
    "exception": ("raise ValueError('boom')", 1, "FAILED"),
    "exception in a with block": ("with run: 1 / 0", 1, "FAILED"),
    "exception in a with block, caught": ("try:\n    with run: 1 / 0\nexcept ZeroDivisionError: pass", 0, "FAILED"),
    "sys.exit()": ("sys.exit()", 0, "FINISHED"),
    "sys.exit(0)": ("sys.exit(0)", 0, "FINISHED"),
    "sys.exit(3)": ("sys.exit(3)", 3, "FINISHED"),  # Python tells nobody of it; as in MLflow
    "sys.exit(3) in a with block": ("with run: sys.exit(3)", 3, "FAILED"),
    "os._exit": ("os._exit(0)", 0, "KILLED"),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "KILLED"),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", -signal.SIGTERM, "KILLED"),
    "SIGTERM in a with block": (
        "with run: os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
        -signal.SIGTERM,
        "KILLED",
    ),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", -signal.SIGINT, "KILLED"),
    "SIGINT in a with block": (
        "with run: os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
        -signal.SIGINT,
        "KILLED",
    ),
    "SIGHUP": ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(9)", -signal.SIGHUP, "KILLED"),
    "SIGSEGV": ("import faulthandler; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, "KILLED"),
    "SIGTERM while threads log": (
        """
        def work():
            while True:
                gittrack.log_metric("busy", 1.0)
                time.sleep(0.001)
        for _ in range(4): threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)
        """,
        -signal.SIGTERM,
        "KILLED",
    ),
    "a SIGTERM handler of their own": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
        5,
        "FINISHED",
    ),
}


def test_status_after_every_ending(project: Project) -> None:
    """A fresh process sees how each program ended, some of them at the same time in one store, and what it logged."""

    def one(name: str) -> tuple[int, str]:
        return _end(_start(project, _START + textwrap.dedent(ENDINGS[name][0]), name))

    with ThreadPoolExecutor(3) as pool:
        results = dict(zip(ENDINGS, pool.map(one, ENDINGS), strict=True))
    wrong = []
    for name, (_, code, status) in ENDINGS.items():
        returned, said = results[name]
        if returned != code:
            wrong.append(f"{name}: exit status {returned}\n{said}")
        run = _run(project, name)
        end_time, metrics = run.pop("end_time"), run.pop("metrics")
        if run != {"status": status, "artifacts": ["kept.txt"]} or metrics["loss"] != [[1, 0.5]] or end_time is None:
            wrong.append(f"{name}: {run}, loss {metrics['loss']}, ended at {end_time}")
    assert not wrong, "\n".join(wrong)
    project.verify("processes that ended in every way")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not say what threads block")
def test_our_threads_leave_sigterm_to_the_program(project: Project) -> None:
    """One that took it would not wake the main thread, which sleeps on."""
    source = """
    gittrack.enable_system_metrics_logging()
    with gittrack.start_run(nested=True):
        gittrack.log_metric("loss", 0.25)
        threading.Thread(target=time.sleep, args=(30,), daemon=True, name="theirs").start()
        print(*(f"{one.name} {one.native_id}" for one in threading.enumerate()), sep=", ", flush=True)
        while True: time.sleep(0.01)
    """
    with _start(project, _START + textwrap.dedent(source), "threads") as process:
        assert process.stdout is not None
        listed = dict(one.rsplit(" ", 1) for one in process.stdout.readline().strip().split(", "))
        blocking = {}
        for name, number in listed.items():
            status = Path(f"/proc/{process.pid}/task/{number}/status").read_text()
            blocked = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
            blocking[name] = bool(int(blocked, 16) >> (signal.SIGTERM - 1) & 1)
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
    assert {"MainThread", "theirs", "gittrack-sync", "gittrack-system-metrics"} <= blocking.keys()
    assert blocking == {name: name.startswith("gittrack-") for name in blocking}


def test_sigterm_sent_twice(project: Project) -> None:
    """An impatient supervisor: the second signal arrives while the first one is dealt with."""
    with _start(project, _START + "print('ready', flush=True)\ntime.sleep(30)\n", "twice") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == -signal.SIGTERM
    assert _run(project, "twice")["status"] == "KILLED"
    project.verify("SIGTERM twice")


_FORK = """
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        for step in range(50):
            gittrack.log_metric(f"child-{number}", step, step=step)
        gittrack.log_text("x", f"child-{number}.txt")
        sys.exit(number)
    children.append(pid)
statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
assert statuses == [0, 1, 2], statuses
assert gittrack.get_run(run.info.run_id).info.status == "RUNNING"
gittrack.log_metric("loss", 0.25, step=2)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_after_start(project: Project) -> None:
    """Children log into the parent's run; their end is not the run's end."""
    returned, said = _end(_start(project, _START + _FORK, "forked"))
    assert returned == 0, said
    run = _run(project, "forked")
    assert run["status"] == "FINISHED"
    assert run["metrics"]["loss"] == [[1, 0.5], [2, 0.25]]
    for number in range(3):
        assert run["metrics"][f"child-{number}"] == [[step, float(step)] for step in range(50)]
    assert run["artifacts"] == ["child-0.txt", "child-1.txt", "child-2.txt", "kept.txt"]
    project.verify("a fork")


_OUTLIVING = """
pid = os.fork()
if pid == 0:
    time.sleep(1.0)
    gittrack.log_metric("late", 1.0, step=1)
    sys.exit(0)
gittrack.end_run()
os.waitpid(pid, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_that_outlives_its_parent(project: Project) -> None:
    """What a child logs after the parent has ended the run is kept, and the status stays."""
    returned, said = _end(_start(project, _START + _OUTLIVING, "outlived"))
    assert returned == 0, said
    run = _run(project, "outlived")
    assert (run["status"], run["metrics"]["late"]) == ("FINISHED", [[1, 1.0]])
    project.verify("a child that outlived its parent")


_WORKERS = """
import multiprocessing, sys
import gittrack

def work(run_id, number):
    with gittrack.start_run(run_id=run_id):
        for step in range(20):
            gittrack.log_metric(f"rank-{number}", step, step=step)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    gittrack.set_experiment("swept")
    with gittrack.start_run(run_name="joined") as run:
        run_id = run.info.run_id
        workers = [context.Process(target=work, args=(run_id, number)) for number in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        assert gittrack.get_run(run_id).info.status == "RUNNING"
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"] if FULL else ["spawn"])
def test_workers_join_by_the_id_of_the_run(project: Project, method: str) -> None:
    """As data loaders and distributed ranks do; a worker's end is not the run's end."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot start processes by {method}")
    returned, said = _end(_start(project, _WORKERS, method))
    assert returned == 0, said
    run = _run(project, "joined")
    assert run["status"] == "FINISHED"
    for number in range(3):
        assert run["metrics"][f"rank-{number}"] == [[step, float(step)] for step in range(20)]
    project.verify(f"workers started by {method}")
