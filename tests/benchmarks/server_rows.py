"""The tracking server beside `mlflow server` (SQLite and PostgreSQL) and FastTrackML: the same requests to each.

Every round starts each server anew, on an empty store, and measures one after the other: what it takes to start, the
CPU of a request in the server, requests per second over kept connections, files up and down, memory, and what a stock
MLflow client takes.  Searches are measured in a store that was filled before, without HTTP.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.benchmarks import peer
from tests.benchmarks.measure import Figures, Row, Settings, times
from tests.benchmarks.populations import FILTER, ORDER, populated, repository
from tests.benchmarks.serving_rows import Server, free_ports, started
from tests.databases import Server as Postgres, start_server
from tests.serving.load import Load, hammer, post

API: Final = "/api/2.0/mlflow/"
#: Requests that each server gets, over one and over sixteen connections; ours, and the others, which are slower.
TIMES: Final = {
    "log-metric": (2000, 300),
    "log-batch of 100 points": (400, 80),
    "create-run": (400, 80),
    "get-run": (400, 100),
}
CONNECTIONS: Final = (1, 16)
FILE: Final = 256 << 20
PAGE: Final = 10  #: of 50 runs each: the later page of a search

#: The least that a server can do with such a request: read its JSON and answer.
BARE: Final = """
import sys
import orjson, uvicorn

async def app(scope, receive, send):
    body = b""
    while scope["type"] == "http":
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if body:
        orjson.loads(body)
    answer = orjson.dumps({})
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")
"""


@dataclass
class _Kind:
    """A kind of server, and what was measured of it.

    Attributes:
        start: Starts one on an empty store, on a port.
        files: It takes artifacts over HTTP.
        experiment: The one whose runs are searched.
        pages: It takes its own page tokens.
        found: By what was measured, the values of all rounds.
    """

    name: str
    start: Callable[[int], Any]
    slow: bool = True
    files: bool = True
    experiment: str = "0"
    pages: bool = True
    found: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, value: float) -> None:
        self.found.setdefault(what, []).append(value)

    def figures(self, what: str, unit: str) -> Figures | None:
        return Figures(tuple(self.found[what]), unit) if what in self.found else None


def server(settings: Settings) -> list[Row]:
    """Start, requests, files, memory, a stock client."""
    with ExitStack() as stack:
        kinds = _kinds(settings, stack)
        for number in range(settings.rounds):
            for kind in kinds if number % 2 else kinds[::-1]:
                _measure(kind, settings)
    return _rows(kinds, settings)


def _kinds(settings: Settings, stack: ExitStack) -> list[_Kind]:
    python = sys.executable

    def ours(port: int) -> Any:
        folder = repository(settings, "hub")
        return started(settings, [python, "-m", "gittrack", "server", "--port", str(port)], port, "/health", folder)

    def bare(port: int) -> Any:
        program = settings.scratch / "bare_server.py"
        program.write_text(BARE)
        return started(settings, [python, str(program), str(port)], port, "/health")

    kinds = [_Kind("ours", ours, slow=False), _Kind("bare", bare, slow=False, files=False)]
    if settings.peer is not None:
        kinds.append(_Kind("MLflow", partial(_mlflow, settings)))
        database = _postgres(settings, stack)
        if database is not None:
            kinds.append(_Kind("MLflow on PostgreSQL", partial(_mlflow_emptied, settings, database)))
    if settings.fasttrackml is not None:
        kinds.append(_Kind("FastTrackML", partial(_fasttrackml, settings), files=False))
    else:
        settings.say("server: no rows of FastTrackML: `--fasttrackml` says where its program `fml` is")
    return kinds


def _mlflow(settings: Settings, port: int, database: Postgres | None = None, folder: Path | None = None) -> Any:
    assert settings.peer is not None
    folder = folder or settings.folder("mlflow-server")
    uri = f"sqlite:///{folder}/mlflow.db"
    if database is not None:
        uri = database.uri
    words = [str(settings.peer), "-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", uri]
    path = f"{settings.peer.parent}{os.pathsep}{os.environ['PATH']}"
    return started(
        settings, [*words, "--artifacts-destination", str(folder)], port, "/health", folder, PYTHONPATH="", PATH=path
    )


def _mlflow_emptied(settings: Settings, database: Postgres, port: int) -> Any:
    _emptied(settings, database)
    return _mlflow(settings, port, database)


def _postgres(settings: Settings, stack: ExitStack) -> Postgres | None:
    """A PostgreSQL server that MLflow can use; if there is none, that is said."""
    try:
        database = start_server(stack)
    except pytest.skip.Exception as reason:
        settings.say(f"server: no rows on PostgreSQL: {reason}")
        return None
    if _emptied(settings, database):
        return database
    settings.say("server: no rows on PostgreSQL: MLflow's interpreter has no driver (`psycopg[binary]`)")
    return None


def _emptied(settings: Settings, database: Postgres) -> bool:
    return peer.ask(settings, "empty_schema", uri=database.uri) is not None


def _fasttrackml(settings: Settings, port: int, folder: Path | None = None) -> Any:
    folder = folder or settings.folder("fasttrackml")
    words = [str(settings.fasttrackml), "server", "--listen-address", f"127.0.0.1:{port}", "--log-level", "error"]
    return started(settings, [*words, "--database-uri", f"sqlite://{folder}/fml.db"], port, "/health", folder)


# --- measuring


def _measure(kind: _Kind, settings: Settings) -> None:
    (port,) = free_ports(1)
    with kind.start(port) as found:
        kind.note("start, CPU", found.cpu)
        kind.note("start, wall", found.wall)
        kind.note("memory after the start", found.resident())
        for connections in CONNECTIONS:
            runs = ["bare"] * connections if kind.name == "bare" else [_new_run(port) for _ in range(connections)]
            for what, (many, few) in TIMES.items():
                times = max(1, settings.size(few if kind.slow else many, 16) // connections)
                _hammered(kind, found, f"{what}, {connections} connection{'s' * (connections > 1)}",
                          connections, _requests(what, runs, times))  # fmt: skip
        if kind.files:
            _moved(kind, found, _new_run(port), settings.size(FILE, 4 << 20))
        if kind.name != "bare":
            kind.note("memory after the load", found.resident())
            _stock(kind, found, settings)


def _hammered(kind: _Kind, found: Server, what: str, connections: int, ask: Callable[[int, int], bytes | None]) -> None:
    for _ in range(3):  # on a machine that is busy, MLflow's workers are killed now and then by those who watch them
        before, mine = found.used(), time.process_time()
        load: Load = asyncio.run(hammer(found.port, connections, ask))
        if not load.lost:
            break
    done = len(load.replies)
    if load.statuses != {200} or load.lost:
        said = next((reply.body[:300] for reply in load.replies if reply.status != 200), b"")
        raise RuntimeError(f"{kind.name}, {what}: answers had status {load.statuses}, {load.lost} were lost: {said!r}")
    kind.note(f"{what}: CPU of a request", (found.used() - before) / done)
    kind.note(f"{what}: CPU of it in the client", (time.process_time() - mine) / done)
    kind.note(f"{what}: requests", done / load.seconds)
    kind.note(f"{what}: p50", statistics.median(reply.seconds for reply in load.replies))


def _requests(what: str, runs: list[str], times: int) -> Callable[[int, int], bytes | None]:
    now = 1_750_000_000_000

    def body(connection: int, number: int) -> bytes:
        run = runs[connection]
        if what == "log-metric":
            point = {"key": "loss", "value": number / 3, "timestamp": now + number, "step": number}
            return _post("runs/log-metric", run_id=run, **point)
        if what == "log-batch of 100 points":
            steps = range(number * 100, number * 100 + 100)
            points = [{"key": f"m{at % 5}", "value": at / 3, "timestamp": now + at, "step": at} for at in steps]
            return _post("runs/log-batch", run_id=run, metrics=points)
        if what == "create-run":
            return _post(
                "runs/create", experiment_id="0", start_time=now, tags=[{"key": "mlflow.user", "value": "ana"}]
            )
        return f"GET {API}runs/get?run_id={run} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()

    return lambda connection, number: body(connection, number) if number < times else None


def _post(call: str, **message: Any) -> bytes:
    return post(json.dumps(message).encode(), API + call)


def _asked(port: int, call: str, **message: Any) -> Any:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("POST", API + call, json.dumps(message), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{call}: {answer.status} {text[:300]!r}")
    return json.loads(text)


def _new_run(port: int) -> str:
    return str(_asked(port, "runs/create", experiment_id="0", start_time=1)["run"]["info"]["run_id"])


def _moved(kind: _Kind, found: Server, run_id: str, size: int) -> None:
    """A file there and back."""
    block = os.urandom(1 << 20)
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/weights.bin"
    with closing(http.client.HTTPConnection("127.0.0.1", found.port, timeout=600)) as connection:
        for method in ("PUT", "GET"):
            what = "upload" if method == "PUT" else "download"
            before, begun = found.used(), time.perf_counter()
            pieces = (block for _ in range(size >> 20)) if method == "PUT" else None
            connection.request(method, path, pieces, {"content-length": str(size)} if pieces else {})
            answer = connection.getresponse()
            got = 0
            while piece := answer.read(1 << 20):
                got += len(piece)
            if answer.status != 200 or (method == "GET" and got != size):
                raise RuntimeError(f"{kind.name}: {what} was answered with {answer.status}, {got} bytes came")
            kind.note(f"{what}: wall", time.perf_counter() - begun)
            kind.note(f"{what}: CPU", found.used() - before)


def _stock(kind: _Kind, found: Server, settings: Settings) -> None:
    """A stock client's run of 1,000 points, one by one and in one batch."""
    before = found.used()
    points = settings.size(1000, 20)
    took = peer.ask(settings, "client_run", uri=f"http://127.0.0.1:{found.port}", points=points)
    if took is None:
        return
    for what, (wall, cpu) in took.items():
        kind.note(f"stock client, {what}: wall", wall)
        kind.note(f"stock client, {what}: CPU of the client", cpu)
    kind.note("stock client, both: CPU of the server", found.used() - before)


# --- searching


def server_search(settings: Settings) -> list[Row]:
    """Top 50 by a metric with a filter, the first page and a later one, in stores that were filled before."""
    rows: list[Row] = []
    for runs in (10_000, 100_000):
        count = settings.size(runs, runs // 20)
        with ExitStack() as stack:
            kinds = _filled(settings, count, stack)
            _searched(settings, kinds)
        rows += [_row(kinds, what, f"server: search among {runs:,} runs, {what}", "ms") for what in kinds[0].found]
    return rows


def _filled(settings: Settings, runs: int, stack: ExitStack) -> list[_Kind]:
    """Servers on stores with so many runs."""
    kinds = [_Kind("ours", partial(_ours_filled, settings, runs), slow=False)]
    if settings.peer is None:
        return kinds
    folder = settings.folder("mlflow-filled")
    answer = peer.ask(settings, "many_runs", folder=folder, runs=runs)
    if answer is not None:
        experiment = str(int(answer["experiment"][0]))
        kinds.append(_Kind("MLflow", partial(_mlflow, settings, folder=folder), experiment=experiment))
    database = _postgres(settings, stack)
    if database is not None:
        answer = peer.ask(settings, "many_runs", runs=runs, uri=database.uri)
        if answer is not None:
            start = partial(_mlflow, settings, database=database)
            kinds.append(_Kind("MLflow on PostgreSQL", start, experiment=str(int(answer["experiment"][0]))))
    if settings.fasttrackml is not None:
        folder = settings.folder("fasttrackml-filled")
        with _fasttrackml(settings, free_ports(1)[0], folder):
            pass  # makes the tables
        if peer.ask(settings, "many_runs_fasttrackml", folder=folder, runs=runs) is not None:
            # The last bytes of its page tokens are missing (0.6): it answers 400 to them.
            kinds.append(_Kind("FastTrackML", partial(_fasttrackml, settings, folder=folder), pages=False))
    return kinds


@contextmanager
def _ours_filled(settings: Settings, runs: int, port: int) -> Iterator[Server]:
    folder = settings.folder("filled") / "repo"
    shutil.copytree(populated(settings, runs), folder, symlinks=True)
    words = [sys.executable, "-m", "gittrack", "server", "--port", str(port)]
    with started(settings, words, port, "/health", folder) as found:
        yield found


def _searched(settings: Settings, kinds: list[_Kind]) -> None:
    with ExitStack() as stack:
        servers = {kind.name: stack.enter_context(kind.start(free_ports(1)[0])) for kind in kinds}
        for number in range(settings.rounds + 1):
            for kind in kinds if number % 2 else kinds[::-1]:
                _pages(kind, servers[kind.name], counts=number > 0)


def _pages(kind: _Kind, found: Server, *, counts: bool) -> None:
    message = {"experiment_ids": [kind.experiment], "filter": FILTER, "order_by": ORDER, "max_results": 50}
    for page in range(1, PAGE + 1):
        before, begun = found.used(), time.perf_counter()
        answer = _asked(found.port, "runs/search", **message)
        wall = time.perf_counter() - begun
        if counts and page in (1, PAGE):
            kind.note(f"page {page} of 50: wall", wall)
            kind.note(f"page {page} of 50: CPU of the server", found.used() - before)
        if "next_page_token" not in answer or not kind.pages:
            break
        message["page_token"] = answer["next_page_token"]


# --- rows


def _rows(kinds: list[_Kind], settings: Settings) -> list[Row]:
    rows = []
    for what in next(kind for kind in kinds if kind.name == "ours").found:
        if what.startswith("memory"):
            continue
        unit = (
            "requests"
            if what.endswith("requests")
            else "s"
            if what.startswith(("start", "stock", "up", "down"))
            else "ms"
        )
        rows.append(_row(kinds, what, f"server: {what}", unit))
    for what in ("memory after the start", "memory after the load"):
        told = [
            f"{kind.name} {statistics.median(kind.found[what]) / 1e6:.0f} MB" for kind in kinds if what in kind.found
        ]
        settings.say(f"server: {what}: {', '.join(told)}")
    return rows


def _row(kinds: list[_Kind], what: str, work: str, unit: str) -> Row:
    by_name = {kind.name: kind for kind in kinds}
    ours = by_name["ours"].figures(what, unit)
    assert ours is not None
    bound = by_name["bare"].figures(what, unit) if "bare" in by_name else None
    told = []
    for name, kind in by_name.items():
        theirs = kind.figures(what, unit)
        if name not in ("ours", "bare", "MLflow") and theirs is not None:
            told.append(f"{name}: {theirs}, {times(theirs, ours)}")
    mlflow = by_name["MLflow"].figures(what, unit) if "MLflow" in by_name else None
    return Row(work, ours, bound, "reads JSON, answers `{}`" if bound else "", "", mlflow, "; ".join(told))
