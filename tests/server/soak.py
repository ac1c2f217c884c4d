"""A soak of the tracking server: clients that train, search, move files and register models, and what it costs it.

``python -m tests.server.soak --seconds 600`` starts ``gittrack server`` in a new repository and asks it as fast as it
answers.  An hour's worth is what as many clients ask that ask once a second.  Every answer is checked, so is what is
there at the end; memory, descriptors, threads and files that are in the making must not grow after the warm-up.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

#: The part of the time that is warm-up, and the parts at the beginning and the end whose latencies are compared.
WARM_UP: Final = 0.25
PART: Final = 0.2
#: What may come on top after the warm-up, in the time that follows: bytes of memory, descriptors, threads.
#: SQLite's and git's caches may still fill, threads of the pools come when they are needed; git's packs, two
#: descriptors each, come one by one and go together.
MEMORY: Final = 24 << 20
DESCRIPTORS: Final = 160
THREADS: Final = 24
BIG: Final = 4 << 20
SMALL: Final = 32 << 10


@dataclass
class Sample:
    """What the server had at a time, in seconds since the beginning.

    Memory is its own: what is mapped from files, as git's packs are, the system takes back when it needs it.
    """

    at: float
    memory: int
    descriptors: int
    threads: int


@dataclass
class Report:
    """What a soak found.

    Attributes:
        seconds: How long it took.
        clients: How many asked.
        calls: Seconds of each request, with when it was made, by kind.
        samples: The server, about once in a second.
        errors: What was answered wrongly.
        left: Files in the making that nobody makes any more.
    """

    seconds: float
    clients: int
    calls: dict[str, list[tuple[float, float]]]
    samples: list[Sample]
    errors: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(map(len, self.calls.values()))

    @property
    def hours(self) -> float:
        """Hours in which clients that ask once a second ask as much."""
        return self.requests / self.clients / 3600

    @property
    def settled(self) -> list[Sample]:
        """The samples after the warm-up."""
        return [one for one in self.samples if one.at >= self.seconds * WARM_UP]

    @property
    def growth(self) -> float:
        """Bytes that memory grew by after the warm-up, along the line that fits best."""
        settled = self.settled
        line = statistics.linear_regression([one.at for one in settled], [one.memory for one in settled])
        return line.slope * (settled[-1].at - settled[0].at)

    def problems(self) -> list[str]:
        """What must not be, as a person reads it."""
        found = [*self.errors[:10], *(f"left behind: {name}" for name in self.left[:10])]
        settled = self.settled
        if self.growth > MEMORY:
            found.append(f"memory grew by {self.growth / 1e6:.1f} MB after the warm-up")
        for name, most in (("descriptors", DESCRIPTORS), ("threads", THREADS)):
            values = [getattr(one, name) for one in settled]
            middle = len(values) // 2
            if max(values[middle:]) > max(values[:middle]) + most:
                found.append(f"{name} went from {max(values[:middle])} to {max(values[middle:])}")
        return found

    def __str__(self) -> str:
        first, last = self.settled[0], self.settled[-1]
        asked = f"{self.requests:,} requests of {self.clients} clients in {self.seconds:.0f} s"
        memory = f"own memory {first.memory / 1e6:.1f} MB after the warm-up, {last.memory / 1e6:.1f} MB at the end"
        descriptors = f"descriptors {first.descriptors} to {last.descriptors}"
        lines = [
            f"{asked}, {len(self.errors)} errors: {self.hours:.2f} hours of clients that ask once a second",
            f"{memory}, {self.growth / 1e6:+.1f} MB along the line",
            f"{descriptors}, {max(one.descriptors for one in self.samples)} at most",
            f"threads {first.threads} to {last.threads}",
            "",
            "| Request | times | p50 first | p50 last | p99 first | p99 last |",
            "|---|---|---|---|---|---|",
        ]
        for kind, calls in sorted(self.calls.items()):
            early = [took for at, took in calls if at < self.seconds * PART]
            late = [took for at, took in calls if at > self.seconds * (1 - PART)]
            cells = [f"{_percentile(some, part) * 1e3:.1f} ms" for part in (0.5, 0.99) for some in (early, late)]
            lines.append(f"| {kind} | {len(calls):,} | {' | '.join(cells)} |")
        return "\n".join(lines)


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[int(part * (len(values) - 1))] if values else float("nan")


class Client(threading.Thread):
    """A client that trains one run after the other until it is time to stop."""

    def __init__(self, port: int, number: int, began: float, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.calls: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.errors: list[str] = []
        self.ended: list[str] = []
        self._port = port
        self._began = began
        self._until = stop
        self._random = random.Random(number)
        self._data = self._random.randbytes(BIG)

    def run(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        turn = 0
        try:
            self._experiment = self._ask("experiments/create", name=f"of client {self.number}")["experiment_id"]
            self._ask("registered-models/create", name=f"model {self.number}")
            while not self._until.is_set():
                self._train(turn)
                turn += 1
        except Exception as error:  # noqa: BLE001 - reported with all others
            self.errors.append(f"client {self.number}: {error!r}")
        finally:
            self._connection.close()

    def _train(self, turn: int) -> None:
        run_id = self._ask("runs/create", experiment_id=self._experiment, run_name=f"turn {turn}")["run"]["info"][
            "run_id"
        ]
        self._ask("runs/log-batch", run_id=run_id, params=[{"key": f"p{n}", "value": str(turn)} for n in range(10)])
        for step in range(20):
            self._ask("runs/log-metric", run_id=run_id, key="loss", value=turn + 1 / (step + 1), timestamp=1, step=step)
        for part in range(3):
            steps = range(part * 100, part * 100 + 100)
            points = [{"key": f"m{at % 5}", "value": at, "timestamp": at, "step": at} for at in steps]
            self._ask("runs/log-batch", run_id=run_id, metrics=points)
        self._ask("runs/set-tag", run_id=run_id, key="turn", value=str(turn))
        self._files(run_id, turn)
        run = self._get("runs/get", run_id=run_id)["run"]["data"]
        assert {one["key"] for one in run["metrics"]} == {"loss", "m0", "m1", "m2", "m3", "m4"}, run
        assert len(run["params"]) == 10, run
        history = self._get("metrics/get-history", run_id=run_id, metric_key="m3")["metrics"]
        assert [one["step"] for one in history] == list(range(3, 300, 5)), history
        found = self._ask(
            "runs/search",
            experiment_ids=[self._experiment],
            filter=f"metrics.loss > {max(0, turn - 5)} and params.p1 != 'x'",
            order_by=["metrics.loss DESC"],
            max_results=20,
        )["runs"]
        assert found[0]["info"]["run_id"] == run_id, found[0]
        if turn % 5 == 0:
            self._register(run_id, turn)
        self._ask("runs/update", run_id=run_id, status="FINISHED")
        if turn % 10 == 9:
            self._ask("runs/delete", run_id=run_id)
        else:
            self.ended.append(run_id)

    def _files(self, run_id: str, turn: int) -> None:
        start = self._random.randrange(BIG - SMALL)
        data = self._data[:start] if turn % 10 == 3 else self._data[start : start + SMALL]
        path = f"/api/2.0/mlflow-artifacts/artifacts/{self._experiment}/{run_id}/artifacts/model/weights.bin"
        self._request("upload", "PUT", path, data)
        listed = self._get("artifacts/list", run_id=run_id, path="model")["files"]
        assert [(one["path"], one["file_size"]) for one in listed] == [("model/weights.bin", len(data))], listed
        found = self._request("download", "GET", path)
        assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest(), "another file came back"

    def _register(self, run_id: str, turn: int) -> None:
        name = f"model {self.number}"
        source = f"mlflow-artifacts:/{self._experiment}/{run_id}/artifacts/model"
        version = self._ask("model-versions/create", name=name, source=source, run_id=run_id)["model_version"]
        assert int(version["version"]) == turn // 5 + 1, version
        self._ask("registered-models/alias", name=name, alias="best", version=version["version"])
        self._ask(
            "model-versions/transition-stage",
            name=name,
            version=version["version"],
            stage="Production",
            archive_existing_versions=True,
        )
        best = self._get("registered-models/alias", name=name, alias="best")["model_version"]
        assert (best["version"], best["current_stage"]) == (version["version"], "Production"), best

    def _ask(self, call: str, **body: Any) -> Any:
        return json.loads(self._request(call, "POST", f"/api/2.0/mlflow/{call}", json.dumps(body).encode()))

    def _get(self, call: str, **query: str) -> Any:
        words = "&".join(f"{name}={value.replace(' ', '%20')}" for name, value in query.items())
        return json.loads(self._request(call, "GET", f"/api/2.0/mlflow/{call}?{words}"))

    def _request(self, kind: str, method: str, path: str, body: bytes | None = None) -> bytes:
        began = time.perf_counter()
        headers = {"content-type": "application/json"} if method == "POST" else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        ended = time.perf_counter()
        assert answer.status == 200, f"{kind}: {answer.status} {data[:300]!r}"
        self.calls[kind].append((began - self._began, ended - began))
        return data


@contextmanager
def served(folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    """``gittrack server`` over a new repository: the process, and its port."""
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        words = [sys.executable, "-m", "gittrack", "server", "--port", str(port)]
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.05)
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def soak(folder: Path, seconds: float, clients: int = 16) -> Report:
    """Ask a server in ``folder``, a new one, for so many seconds."""
    with served(folder) as (server, port):
        began = time.perf_counter()
        stop = threading.Event()
        asking = [Client(port, number, began, stop) for number in range(clients)]
        for one in asking:
            one.start()
        samples = []
        while (at := time.perf_counter() - began) < seconds and any(one.is_alive() for one in asking):
            memory = server.memory_info()
            samples.append(Sample(at, memory.rss - memory.shared, server.num_fds(), server.num_threads()))
            time.sleep(min(1.0, seconds / 50))
        stop.set()
        for one in asking:
            one.join(120)
        calls: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for one in asking:
            for kind, some in one.calls.items():
                calls[kind] += some
        report = Report(time.perf_counter() - began, clients, calls, samples)
        report.errors = [error for one in asking for error in one.errors]
        report.errors += _missing(port, asking)
    store = folder / ".gittrack"
    report.left = [str(path.relative_to(folder)) for path in (store / "objects" / "tmp").glob("*")]
    report.left += [str(path.relative_to(folder)) for path in (store / "live").rglob("*") if path.is_file()]
    checked = subprocess.run(
        ["git", "fsck", "--strict", "--no-progress"], cwd=folder, capture_output=True, text=True, check=False
    )
    if checked.returncode or "error" in checked.stderr:
        report.errors.append(f"git fsck: {checked.stderr[-300:]}")
    return report


def _missing(port: int, asking: list[Client]) -> list[str]:
    """What ought to be there and is not."""
    reader = Client(port, 0, 0.0, threading.Event())
    reader._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found = []
    for one in asking:
        runs: list[Any] = []
        token = ""
        while True:
            answer = reader._ask("runs/search", experiment_ids=[one._experiment], max_results=1000, page_token=token)
            runs += answer.get("runs", ())
            token = answer.get("next_page_token", "")
            if not token:
                break
        ended = {run["info"]["run_id"] for run in runs if run["info"]["status"] == "FINISHED"}
        if not set(one.ended) <= ended:
            found.append(f"client {one.number}: {len(set(one.ended) - ended)} runs are missing")
    reader._connection.close()
    return found


def main() -> int:
    """Soak a server, print what came of it; 1 if something must not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.server.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default 600)")
    parser.add_argument("--clients", type=int, default=16, help="how many ask (default 16)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gittrack-soak-"))
    try:
        report = soak(folder, options.seconds, options.clients)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(report)
    for problem in report.problems():
        print(f"PROBLEM: {problem}")
    return 1 if report.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
