"""A model behind HTTP: CPU per request, requests per second, time of one, start and memory."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from tests.benchmarks.measure import Figures, Row, Settings
from tests.serving.load import Load, hammer, post, repeat

COLUMNS: Final = 10
#: Rows of a request, connections, requests of ours in one measurement, and of MLflow's, which is slower.
CASES: Final = ((1, 1, 2000, 300), (1, 16, 6400, 480), (1000, 1, 300, 60), (1000, 16, 320, 64))
MIXED_CASES: Final = ((1, 1, 200, 200), (1, 16, 320, 320), (1000, 1, 60, 60))

_Case = tuple[int, int, int, int]

#: The least that a server can do which calls the same predict: no checks, no limits, no metrics.
BARE: Final = """
import sys
import numpy, orjson, uvicorn, warnings
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
import gittrack.sklearn

warnings.filterwarnings("ignore")
model = gittrack.sklearn.load_model(sys.argv[1])

async def ping(request):
    return Response(b"")

async def predict(request):
    document = orjson.loads(await request.body())
    answer = model.predict(numpy.array(document["dataframe_split"]["data"]))
    body = orjson.dumps({"predictions": answer}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")

app = Starlette(routes=[Route("/ping", ping), Route("/invocations", predict, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
"""


@dataclass
class Server:
    """A server that was started.

    Attributes:
        port: Where it listens.
        process: Its first process.
        wall: Seconds until it answered.
        cpu: CPU seconds until then.
        memory: Bytes that it has after the measurements.
        found: By case: CPU seconds per request, requests per second, seconds of a request in the middle.
    """

    port: int
    process: subprocess.Popen[bytes]
    wall: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    found: dict[Any, list[tuple[float, float, float]]] = field(default_factory=dict)

    def used(self) -> float:
        """CPU seconds of all its processes."""
        return sum(sum(one.cpu_times()[:2]) for one in self._processes())

    def resident(self) -> int:
        """Bytes in memory of all its processes."""
        return sum(int(one.memory_info().rss) for one in self._processes())

    def _processes(self) -> list[psutil.Process]:
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]


@contextmanager
def started(
    settings: Settings,
    words: list[str],
    port: int,
    path: str = "/ping",
    folder: Path | None = None,
    **environment: str,
) -> Iterator[Server]:
    """A server that answers 200 at ``path``, run in ``folder``; ended when the block is left."""
    log = (settings.folder("server") / "log").open("wb")
    begun = time.perf_counter()
    process = subprocess.Popen(
        words, env={**settings.environment(), **environment}, stdout=log, stderr=log, cwd=folder or settings.scratch,
        start_new_session=True,
    )  # fmt: skip
    server = Server(port, process)
    try:
        while True:
            with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as probe:
                probe.request("GET", path)
                if probe.getresponse().status == 200:
                    break
            if process.poll() is not None or time.perf_counter() - begun > 180:
                raise RuntimeError(f"{words}: {Path(log.name).read_text()[-2000:]}")
            time.sleep(0.02)
        server.wall, server.cpu = time.perf_counter() - begun, server.used()
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        log.close()


def serving(settings: Settings) -> list[Row]:
    """A model of numbers: three servers, turn about."""
    return _compared(settings, "", CASES, _numbers(), BARE)


def serving_mixed(settings: Settings) -> list[Row]:
    """A model of numbers and texts, which goes through pandas; two servers, turn about."""
    return _compared(settings, " of texts and numbers", MIXED_CASES, _mixed(), None)


_Model = tuple[Any, Any]  # an estimator, and the table that it was fitted with


def _compared(settings: Settings, what: str, cases: Sequence[_Case], model: _Model, bare: str | None) -> list[Row]:
    """The rows for one model.

    Args:
        settings: What was asked for.
        what: Said of its rows.
        cases: What to measure.
        model: What to serve.
        bare: Program of the least that a server could do; None if there is none.
    """
    estimator, features = model
    folder = _saved(settings, estimator, features)
    ports = free_ports(3)
    python = sys.executable
    ours = [python, "-m", "gittrack", "models", "serve", "-m", str(folder), "--port", str(ports[0])]
    with ExitStack() as stack:
        servers = {"ours": stack.enter_context(started(settings, ours, ports[0]))}
        if bare is not None:
            program = settings.scratch / "bare.py"
            program.write_text(bare)
            words = [python, str(program), str(folder), str(ports[1])]
            servers["bare"] = stack.enter_context(started(settings, words, ports[1]))
        if settings.peer is not None:
            words = [str(settings.peer), "-m", "mlflow", "models", "serve", "-m", str(folder), "-p", str(ports[2])]
            path = f"{settings.peer.parent}{os.pathsep}{os.environ['PATH']}"
            peer = started(settings, [*words, "--env-manager", "local"], ports[2], PYTHONPATH="", PATH=path)
            servers["peer"] = stack.enter_context(peer)
        for number in range(settings.rounds + 1):
            names = list(servers) if number % 2 else list(servers)[::-1]
            for case in cases:
                for name in names:
                    measured = _measured(servers[name], case, features, name == "peer", settings)
                    if number:
                        servers[name].found.setdefault(case, []).append(measured)
        for server in servers.values():
            server.memory = server.resident()
    return _rows(servers, what, cases, settings)


def _numbers() -> _Model:
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    names = [f"column {at}" for at in range(COLUMNS)]
    features = pd.DataFrame(np.random.default_rng(0).random((1000, COLUMNS)), columns=names)
    return LogisticRegression().fit(features, features.sum(axis=1) > COLUMNS / 2), features


def _mixed() -> _Model:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    _, features = _numbers()
    target = features.sum(axis=1) > COLUMNS / 2
    features["text"] = ["north", "east", "south", "west"] * 250
    encoder = ColumnTransformer([("text", OneHotEncoder(), ["text"])], remainder="passthrough")
    return make_pipeline(encoder, LogisticRegression()).fit(features, target), features


def _saved(settings: Settings, estimator: Any, features: Any) -> Path:
    import gittrack.sklearn
    from gittrack.models.signature import infer_signature

    folder = settings.folder("model") / "model"
    signature = infer_signature(features, estimator.predict(features))
    gittrack.sklearn.save_model(estimator, folder, signature=signature, pip_requirements=["scikit-learn"])
    return folder


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _measured(server: Server, case: _Case, features: Any, slow: bool, settings: Settings) -> tuple[float, float, float]:
    rows, connections, many, few = case
    requests = settings.size(few if slow else many, 32)
    split = features.iloc[:rows].to_dict(orient="split")
    request = post(json.dumps({"dataframe_split": {"columns": split["columns"], "data": split["data"]}}).encode())
    before = server.used()
    load: Load = asyncio.run(hammer(server.port, connections, repeat(request, max(1, requests // connections))))
    cpu = server.used() - before
    if load.statuses != {200} or load.lost:
        raise RuntimeError(f"answers had status {load.statuses}, {load.lost} were lost")
    done = len(load.replies)
    return cpu / done, done / load.seconds, statistics.median(reply.seconds for reply in load.replies)


def _rows(servers: dict[str, Server], what: str, cases: Sequence[_Case], settings: Settings) -> list[Row]:
    found: list[Row] = []
    aims = {(1, 1): "≤ 1/10 of MLflow", (1, 16): "≤ 1/20 of MLflow"} if "bare" in servers else {}

    def figures(name: str, case: Any, at: int, unit: str) -> Figures | None:
        return Figures(tuple(one[at] for one in servers[name].found[case]), unit) if name in servers else None

    for case in cases:
        rows, connections = case[:2]
        size = f"{rows:,} row{'s' * (rows > 1)}{what}, {connections} connection{'s' * (connections > 1)}"
        for at, (text, unit) in enumerate((("CPU of a request", "ms"), ("requests", "requests"), ("p50", "ms"))):
            ours = figures("ours", case, at, unit)
            assert ours is not None
            found.append(
                Row(
                    f"serve {size}: {text}",
                    ours,
                    figures("bare", case, at, unit),
                    "bare Starlette handler, same predict, no checks" if "bare" in servers else "",
                    aims.get((rows, connections), "") if at == 0 else "",
                    figures("peer", case, at, unit),
                )
            )
    for text, attribute in (("start-up, CPU", "cpu"), ("start-up, wall", "wall")):
        values = {name: Figures((getattr(one, attribute),), "s") for name, one in servers.items()}
        work = f"serve{what}: {text}"
        found.append(Row(work, values["ours"], values.get("bare"), "bare handler", "", values.get("peer")))
    settings.say(
        "serving: memory after the measurements "
        + ", ".join(f"{name} {server.memory / 1e6:.0f} MB" for name, server in servers.items())
    )
    return found
