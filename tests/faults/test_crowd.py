"""Many processes in one store, and git's own housekeeping beside them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.harness import FULL, Project, environment, git

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

PROCESSES = 8
RUNS = 50 if FULL else 10

_WRITER = """
import json, sys
import gittrack
gittrack.set_experiment("swept")
for number in range(int(sys.argv[1])):
    with gittrack.start_run(run_name=f"run-{number}") as run:
        gittrack.log_metric("loss", number / 4, step=number)
        if number % 10 == 0:
            gittrack.log_text(f"text {number}", "text.txt")
    print(json.dumps([run.info.run_id, number]), flush=True)
"""

_READER = """
import sys, time
import gittrack
gittrack.set_experiment("swept")
client = gittrack.Client()
experiment = client.get_experiment_by_name("swept").experiment_id
finished, rounds = set(), 0
while not sys.stdin.readline().startswith("stop"):
    found = {r.info.run_id: r for r in client.search_runs([experiment], max_results=50_000)}
    missing = finished - found.keys()
    assert not missing, f"round {rounds}: {len(missing)} finished runs are not found any more"
    for run_id, run in found.items():
        if run.info.status == "FINISHED":
            assert run_id not in finished or run.data.metrics, f"{run_id} lost its metrics"
            finished.add(run_id)
    for run_id in list(found)[:20]:
        again = client.get_run(run_id)
        assert len(client.get_metric_history(run_id, "loss")) >= ("loss" in again.data.metrics), run_id
    rounds += 1
print(rounds, len(finished))
"""


def _python(project: Project, home: Path, source: str, *arguments: str) -> subprocess.Popen[str]:
    env = {**environment(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        cwd=project.folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def _loop(project: Project, *commands: str) -> Iterator[None]:
    """Git commands of the user's, over and over."""
    script = "; ".join(f"git {command} 2>&1 || true" for command in commands)
    process = subprocess.Popen(
        ["sh", "-c", f"while :; do {script}; sleep 0.05; done"],
        cwd=project.folder,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _crowd(project: Project, home: Path, runs: int) -> None:
    """``PROCESSES`` writers of ``runs`` each, and a reader; all runs must be there, and it never missed one."""
    reader = _python(project, home, _READER)
    writers = [_python(project, home, _WRITER, str(runs)) for _ in range(PROCESSES)]
    assert reader.stdin is not None
    while reader.poll() is None and any(writer.poll() is None for writer in writers):
        reader.stdin.write("go\n")
        reader.stdin.flush()
        time.sleep(0.02 if FULL else 0.2)
    for writer in writers:
        said, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
        for run_id, number in map(json.loads, said.splitlines()):
            project.promises["metric", run_id] = [["metric", run_id, "loss", number, number / 4]]
            project.promises["status", run_id] = [["status", run_id, "FINISHED"]]
    _, errors = reader.communicate("stop\n" if reader.poll() is None else None, timeout=120)
    assert reader.returncode == 0, errors


def test_eight_processes_end_runs_at_once(project: Project, tmp_path: Path) -> None:
    before = len(project.promises)
    _crowd(project, tmp_path / "home", RUNS)
    assert len(project.promises) - before == 2 * PROCESSES * RUNS
    project.verify(f"{PROCESSES} processes with {RUNS} runs each")


HOUSEKEEPING = [
    ("gc --prune=now --quiet", "pack-refs --all --prune"),
    ("gc --prune=now --quiet",),
    ("pack-refs --all --prune",),
    ("repack -adq", "prune --expire=now", "pack-refs --all"),
]


@pytest.mark.parametrize("commands", HOUSEKEEPING if FULL else HOUSEKEEPING[:1], ids=" and ".join)
def test_beside_git_housekeeping(project: Project, tmp_path: Path, commands: tuple[str, ...]) -> None:
    """No object and no ref gets lost while the user's git collects everything that nothing refers to."""
    with _loop(project, *commands):
        _crowd(project, tmp_path / "home", RUNS if FULL else 4)
    git(project.folder, "gc", "--prune=now", "--quiet", "--force")
    project.verify(f"`git {commands[0]}` in a loop")
