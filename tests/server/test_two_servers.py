"""Two servers on one database and one bucket: each request may go to either, and either may die at any moment."""

import contextlib
import http.client
import itertools
import json
import os
import random
import secrets
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FOREIGN, GITCONFIG, run_git
from tests.databases import Server, start_server
from tests.server.process import Process

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
WRITERS = 16 if FULL else 4
PAUSE = 0.0 if FULL else 0.03
KILLS = 20 if FULL else 1

#: The servers have a database and a bucket of their own.
pytestmark = [pytest.mark.timeout(1200 if FULL else 150), pytest.mark.any_backend]


@dataclass
class Pair:
    """Two servers, and what they share."""

    servers: list[Process]
    database: Server
    kind: str
    turn: Iterator[int] = field(default_factory=lambda: itertools.cycle((0, 1)))

    def ask(self, method: str, path: str, body: Any = None, at: int | None = None) -> tuple[int, bytes]:
        """One request to a server, the next one if ``at`` does not say which.  Raises OSError, HTTPException."""
        server = self.servers[next(self.turn) if at is None else at]
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with server.connected() as connection:
            connection.request(method, path, data, {"content-type": "application/json"} if data is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def post(self, path: str, body: Any, at: int | None = None) -> Any:
        """What is answered to a request that works."""
        status, text = self.ask("POST", f"/api/2.0/mlflow/{path}", body, at)
        assert status == 200, text
        return json.loads(text)

    def get(self, path: str, at: int | None = None) -> Any:
        """As ``post``."""
        status, text = self.ask("GET", f"/api/2.0/mlflow/{path}", at=at)
        assert status == 200, text
        return json.loads(text)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Server]:
    """A PostgreSQL server that a test may stop."""
    with ExitStack() as stack:
        yield start_server(stack)


@pytest.fixture(scope="module", params=["one repository", "one remote"])
def pair(
    own_postgres: Server, s3: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Pair]:
    """Two servers that run, on one repository or on clones with one remote; each test leaves them running."""
    top = tmp_path_factory.mktemp("two servers")
    (top / ".gitconfig").write_text(GITCONFIG)
    environ = {name: value for name, value in os.environ.items() if not name.startswith((*FOREIGN, "AWS_"))}
    environ |= {"HOME": str(top), "GIT_CONFIG_NOSYSTEM": "1", "AWS_ENDPOINT_URL": s3, "AWS_DEFAULT_REGION": "us-east-1"}
    environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    name = f"b{secrets.token_hex(8)}"
    urllib.request.urlopen(urllib.request.Request(f"{s3}/{name}", method="PUT"), timeout=10).close()  # makes the bucket
    options = [f"--backend-store-uri={own_postgres.uri}", f"--artifacts-destination=s3://{name}/artifacts"]
    run_git(top, "init", "--quiet", "--bare", "hub.git")
    folders = [top / "hub.git"] * 2
    if request.param == "one remote":
        folders = [top / "one.git", top / "two.git"]
        for folder in folders:
            run_git(top, "init", "--quiet", "--bare", str(folder))
            run_git(folder, "remote", "add", "hub", str(top / "hub.git"))
        options.append("--shared-remote=hub")
    servers = [Process(folder, options, environ) for folder in folders]
    try:
        for server in servers:
            server.start()
        yield Pair(servers, own_postgres, request.param)
    finally:
        for server in servers:
            if server.process is not None and server.process.poll() is None:
                server.process.kill()
                server.process.wait()


def only_in_full_form(pair: Pair, kind: str) -> None:
    """In the quick form a test is made with pairs of one kind."""
    if not FULL and pair.kind != kind:
        pytest.skip(f"with {pair.kind} only if GITTRACK_FAULTS=full")


class Writer(threading.Thread):
    """Records runs, each request at the other server, and remembers what was answered with 200."""

    def __init__(self, pair: Pair, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.pair = pair
        self.number = number
        self.stop = stop
        self.runs: dict[str, dict[str, list[Any]]] = {}
        self.ended: set[str] = set()
        self.experiments: list[str] = []
        self.odd: list[tuple[int, bytes]] = []

    def run(self) -> None:
        for turn in itertools.count():
            if self.stop.is_set():
                return
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._one_run(turn)

    def _one_run(self, turn: int) -> None:
        """A run from its beginning to its end; given up when its end is not answered."""
        made = self._ask("runs/create", {"experiment_id": "0", "run_name": f"{self.number}-{turn}"})
        if made is None:
            return
        run_id = made["run"]["info"]["run_id"]
        kept = self.runs[run_id] = {"points": [], "params": [], "tags": [], "files": []}
        for step in range(1, 18):
            if self.stop.is_set():
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._record(run_id, kept, step)
        if turn % 3 == 0:
            name = f"experiment {secrets.token_hex(4)}"
            if self._ask("experiments/create", {"name": name}) is not None:
                self.experiments.append(name)
        if self._ask("runs/update", {"run_id": run_id, "status": "FINISHED"}) is not None:
            self.ended.add(run_id)

    def _record(self, run_id: str, kept: dict[str, list[Any]], step: int) -> None:
        time.sleep(PAUSE)
        point = {"key": "m", "value": float(step), "timestamp": step, "step": step}
        if step % 8 == 0:
            path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/f{step}"
            status, text = self.pair.ask("PUT", path, f"{self.number}:{step}".encode() * (1 + step % 3 * 50_000))
            if status == 200:
                kept["files"].append(f"f{step}")
            elif status != 503:
                self.odd.append((status, text))
        elif step % 8 == 5:
            if self._ask("runs/log-parameter", {"run_id": run_id, "key": f"p{step}", "value": str(step)}) is not None:
                kept["params"].append(f"p{step}")
        elif step % 8 == 3:
            if self._ask("runs/set-tag", {"run_id": run_id, "key": "t", "value": str(step)}) is not None:
                kept["tags"].append(str(step))
        elif step % 8 == 7:
            if self._ask("runs/log-batch", {"run_id": run_id, "metrics": [point]}) is not None:
                kept["points"].append(step)
        elif self._ask("runs/log-metric", {"run_id": run_id, **point}) is not None:
            kept["points"].append(step)

    def _ask(self, path: str, body: Any) -> Any:
        """What is answered with 200; None for what may be tried again."""
        status, text = self.pair.ask("POST", f"/api/2.0/mlflow/{path}", body)
        if status == 200:
            return json.loads(text)
        if status != 503:
            self.odd.append((status, text))
        return None


def loaded(pair: Pair, trouble: Callable[[], None]) -> list[Writer]:
    """Writers that were at work while there was trouble."""
    stop = threading.Event()
    writers = [Writer(pair, number, stop) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        trouble()
    finally:
        stop.set()
        for writer in writers:
            writer.join(60)
    assert not any(writer.is_alive() for writer in writers)
    return writers


def check(pair: Pair, writers: list[Writer], servers: Sequence[int] = (0, 1)) -> None:
    """Everything that was answered for is there, once, whichever server is asked."""
    for writer in writers:
        assert writer.odd == [], "\n".join(server.log.read_text()[-5000:] for server in pair.servers)
    experiments = {name for writer in writers for name in writer.experiments}
    for at in servers:
        found: dict[str, Any] = {}
        token = ""
        while True:
            body = {"experiment_ids": ["0"], "max_results": 500, **({"page_token": token} if token else {})}
            page = pair.post("runs/search", body, at)
            for run in page.get("runs", ()):
                assert run["info"]["run_id"] not in found
                found[run["info"]["run_id"]] = run
            token = page.get("next_page_token", "")
            if not token:
                break
        names = [one["name"] for one in pair.post("experiments/search", {"max_results": 1000}, at)["experiments"]]
        assert len(names) == len(set(names))
        assert experiments <= set(names)
        points: dict[str, list[int]] = {}
        ids = [run_id for writer in writers for run_id in writer.runs]
        for start in range(0, len(ids), 50):
            query = "&".join(f"run_id={run_id}" for run_id in ids[start : start + 50])
            bulk = f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?{query}&metric_key=m&max_results=25000"
            status, text = pair.ask("GET", bulk, at=at)
            assert status == 200, text
            for one in json.loads(text).get("metrics", ()):
                points.setdefault(one["run_id"], []).append(one["step"])
        for writer in writers:
            for run_id, kept in writer.runs.items():
                run = found[run_id]
                if run_id in writer.ended:
                    assert run["info"]["status"] == "FINISHED"
                assert set(kept["params"]) <= {one["key"] for one in run["data"].get("params", ())}
                tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
                if kept["tags"]:
                    assert int(tags["t"]) >= int(kept["tags"][-1])
                steps = points.get(run_id, [])
                assert len(steps) == len(set(steps)), "a point is there twice"
                assert set(kept["points"]) <= set(steps)
                if kept["files"]:
                    listed = pair.get(f"artifacts/list?run_id={run_id}", at)["files"]
                    assert set(kept["files"]) <= {one["path"] for one in listed}
                    name = kept["files"][-1]
                    place = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/{name}"
                    step = int(name[1:])
                    sent = f"{writer.number}:{step}".encode() * (1 + step % 3 * 50_000)
                    assert pair.ask("GET", place, at=at) == (200, sent)


def test_every_request_may_go_to_either(pair: Pair) -> None:
    """What one server was told, the other one knows: also what depends on it."""
    only_in_full_form(pair, "one remote")
    experiment = pair.post("experiments/create", {"name": "shared"}, 0)["experiment_id"]
    assert pair.get("experiments/get-by-name?experiment_name=shared", 1)["experiment"]["experiment_id"] == experiment
    run_id = pair.post("runs/create", {"experiment_id": experiment}, 1)["run"]["info"]["run_id"]
    for step in range(10):
        point = {"key": "m", "value": 1.0 / (1 + step), "timestamp": step, "step": step}
        pair.post("runs/log-metric", {"run_id": run_id, **point}, step % 2)
        pair.post("runs/set-tag", {"run_id": run_id, "key": "last", "value": str(step)}, step % 2)
    for at in (0, 1):
        run = pair.get(f"runs/get?run_id={run_id}", at)["run"]
        assert {one["key"]: one["value"] for one in run["data"]["tags"]}["last"] == "9"
        assert run["data"]["metrics"][0]["step"] == 9
    pair.post("runs/log-parameter", {"run_id": run_id, "key": "lr", "value": "1"}, 0)
    pair.post("runs/log-parameter", {"run_id": run_id, "key": "lr", "value": "1"}, 1)
    status, text = pair.ask(
        "POST", "/api/2.0/mlflow/runs/log-parameter", {"run_id": run_id, "key": "lr", "value": "2"}, 1
    )
    assert (status, json.loads(text)["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    pair.post("runs/delete-tag", {"run_id": run_id, "key": "last"}, 1)
    status, _ = pair.ask("POST", "/api/2.0/mlflow/runs/delete-tag", {"run_id": run_id, "key": "last"}, 0)
    assert status == 404
    pair.post("runs/update", {"run_id": run_id, "status": "FINISHED"}, 0)
    pair.post("runs/set-tag", {"run_id": run_id, "key": "after", "value": "the end"}, 1)
    deadline = time.monotonic() + 1.5  # before it is committed, and after
    while time.monotonic() < deadline:
        runs = [pair.get(f"runs/get?run_id={run_id}", at)["run"] for at in (0, 1)]
        assert [run["info"]["status"] for run in runs] == ["FINISHED"] * 2
        assert ["after" in {one["key"] for one in run["data"]["tags"]} for run in runs] == [True, True]
        time.sleep(0.2)
    pair.post("runs/delete", {"run_id": run_id}, 1)
    assert pair.get(f"runs/get?run_id={run_id}", 0)["run"]["info"]["lifecycle_stage"] == "deleted"
    body = {"run_id": run_id, "key": "m", "value": 1.0, "timestamp": 1}
    time.sleep(1.1)
    assert [pair.ask("POST", "/api/2.0/mlflow/runs/log-metric", body, at)[0] for at in (0, 1)] == [400, 400]


def test_models_registered_at_both_at_once(pair: Pair) -> None:
    """Numbers are given once, and nobody's version is lost."""
    only_in_full_form(pair, "one remote")
    run_id = pair.post("runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/model/MLmodel"
    assert pair.ask("PUT", path, b"artifact_path: model\nflavors: {}\n")[0] == 200
    pair.post("registered-models/create", {"name": "m"}, 0)
    made: list[str] = []
    failed: list[Any] = []

    def register(at: int) -> None:
        for _ in range(2):
            body = {"name": "m", "source": f"runs:/{run_id}/model", "run_id": run_id}
            status, text = pair.ask("POST", "/api/2.0/mlflow/model-versions/create", body, at)
            if status == 200:
                made.append(json.loads(text)["model_version"]["version"])
            else:
                failed.append((status, text))

    threads = [threading.Thread(target=register, args=(at,)) for at in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert sorted(map(int, made)) == list(range(1, 9))
    for at in (0, 1):
        pair.post("registered-models/alias", {"name": "m", "alias": f"a{at}", "version": str(3 + at)}, at)
        found = pair.get("model-versions/search?filter=name%3D%27m%27&max_results=100", 1 - at)["model_versions"]
        assert len(found) == 8
        alias = pair.get(f"registered-models/alias?name=m&alias=a{at}", 1 - at)["model_version"]
        assert alias["version"] == str(3 + at)


def test_either_dies_under_load(pair: Pair) -> None:
    def trouble() -> None:
        for kill in range(KILLS):
            time.sleep(0.5 + random.random() * (1.5 if FULL else 0.3))
            victim = pair.servers[1 - kill % 2]
            victim.kill()
            time.sleep(0.3 if kill % 3 else 0.0)
            victim.start()
        time.sleep(0.5)

    writers = loaded(pair, trouble)
    assert sum(len(kept["points"]) for writer in writers for kept in writer.runs.values()) > WRITERS
    check(pair, writers)
    # What a server that died leaves behind, the other one commits.
    pair.servers[0].kill()
    ended = [run_id for writer in writers for run_id in writer.ended]
    deadline = time.monotonic() + 30
    while missing := [one for one in ended if one not in committed(pair.servers[1].folder)]:
        assert time.monotonic() < deadline, f"{len(missing)} of {len(ended)} runs were not committed"
        time.sleep(0.3)
    pair.servers[0].start()
    check(pair, writers, (0,))


def committed(folder: Path) -> set[str]:
    """The runs that the ledgers name."""
    from gittrack.store.repo import Repo

    repo = Repo.find(folder)
    return repo._listed(repo.ledgers())


def test_the_database_goes_and_comes_back_under_load(pair: Pair) -> None:
    only_in_full_form(pair, "one repository")
    answered: list[float] = []

    def trouble() -> None:
        for how in ("fast", "immediate") * 3 if FULL else ("immediate",):
            time.sleep(0.5)
            pair.database.stop(how)
            began = time.monotonic()
            status, text = pair.ask("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0"})
            answered.append(time.monotonic() - began)
            assert (status, json.loads(text)["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
            time.sleep(0.2)
            pair.database.start()
        time.sleep(0.5)

    writers = loaded(pair, trouble)
    assert max(answered) < 5
    assert sum(len(kept["points"]) for writer in writers for kept in writer.runs.values()) > WRITERS
    check(pair, writers)
