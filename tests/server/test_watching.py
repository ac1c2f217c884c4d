"""Counters and the log of a server, as it is started by people."""

import http.client
import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from gittrack.server.hub.accounts import Accounts
from gittrack.server.hub.roles import Grant, Role
from gittrack.store.record import METRIC
from tests.cli.test_server import Started, started
from tests.conftest import Sandbox
from tests.remote.test_shipped import MADE, OPENING, RUN, SOURCE, data

parser = pytest.importorskip("prometheus_client.parser", reason="reads Prometheus' format")

RUNS = "/api/2.0/mlflow/runs/create"
SHIPPED = data(OPENING, MADE)
MORE = data([METRIC, "m", 1.0, 1, 1], [METRIC, "m", 2.0, 2, 2])
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    found: Samples = {}
    families = list(parser.text_string_to_metric_families(text))
    assert len({one.name for one in families}) == len(families)
    for family in families:
        assert family.documentation
        assert family.type != "unknown", family.name
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def get(server: Started, path: str, **headers: str) -> tuple[int, str]:
    status, text = server.ask("GET", path, **headers)
    return status, text if isinstance(text, str) else json.dumps(text)


def test_what_is_counted(git_repo: Sandbox) -> None:
    with started(git_repo.path) as server:
        made: Any = server.ask("POST", RUNS, {"experiment_id": "0"})[1]
        run_id = made["run"]["info"]["run_id"]
        for number in range(200):  # a scan makes no counters
            server.ask("GET", f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/{number}")
            server.ask("GET", f"/nothing/{number}")
        server.ask("GET", "/health")
        at = f"http://127.0.0.1:{server.port}/api/2.0/gittrack/experiments/0/runs/{RUN}/journals/j"
        sent = {"content-type": "application/octet-stream", "gittrack-source": SOURCE}
        for offset in (0, len(SHIPPED)):  # what is sent again is not counted again
            for _ in range(2):
                request = urllib.request.Request(f"{at}?offset={offset}", (SHIPPED, MORE)[offset > 0], sent)
                urllib.request.urlopen(request, timeout=30).close()
        status, text = get(server, "/metrics")
        assert status == 200
        found = read(text)
        route = {"method": "POST", "route": "{api}/mlflow/runs/create"}
        assert value(found, "gittrack_http_requests_total", status="200", **route) == 1
        assert value(found, "gittrack_http_request_seconds_count", **route) == 1
        assert value(found, "gittrack_http_request_bytes_total", **route) == len('{"experiment_id": "0"}')
        assert value(found, "gittrack_http_response_bytes_total", **route) > 100
        assert value(found, "gittrack_http_requests_total", method="GET", route="none", status="404") == 200
        assert value(found, "gittrack_open_runs") == 1
        assert value(found, "gittrack_journals") == 2
        assert value(found, "gittrack_journal_bytes") > 0
        assert value(found, "gittrack_shipped_frames_total") == 4
        assert value(found, "gittrack_shipped_bytes_total") == len(SHIPPED + MORE)
        assert value(found, "gittrack_seal_lag_seconds") == 0
        for database in ("index", "accounts"):
            assert value(found, "gittrack_database_up", database=database) == 1
        assert value(found, "gittrack_webhook_deliveries", state="waiting") == 0
        assert value(found, "process_resident_memory_bytes") > 1 << 20
        assert value(found, "process_open_fds") > 3
        assert value(found, "gittrack_http_requests_running") == 1
        assert len({dict(labels)["route"] for name, labels in found if name == "gittrack_http_requests_total"}) < 8
        assert run_id not in text
        assert server.end() == 0


def test_who_may_read_them(git_repo: Sandbox) -> None:
    accounts = Accounts.in_store(git_repo.path / ".gittrack")
    _, token = accounts.create_token("prometheus", (Grant(Role.READER, "none"),), by="test")
    accounts.close()
    with started(git_repo.path) as server:
        assert get(server, "/metrics")[0] == 401
        assert get(server, "/metrics", authorization=f"Bearer {token}")[0] == 200
        assert server.end() == 0
    with started(git_repo.path, "--public-metrics") as server:
        assert get(server, "/metrics")[0] == 200
        assert get(server, "/version")[0] == 401
        assert server.end() == 0


@pytest.fixture
def logged(git_repo: Sandbox) -> Callable[..., Any]:
    """Starts a server, asks it the same things, and gives what it wrote."""

    def run(*words: str) -> tuple[list[str], str, list[str]]:
        accounts = Accounts.in_store(git_repo.path / ".gittrack")
        _, token = accounts.create_token("ci", (Grant(Role.WRITER, "*", "*"),), by="test")
        accounts.close()
        with started(git_repo.path, *words) as server:
            ids = []
            for sent in ("trace-1.a_b", "no good\t", "x" * 65, ""):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
                headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
                if sent:
                    headers["x-request-id"] = sent
                connection.request("POST", f"{RUNS}?password=hunter2", json.dumps({"run_name": "secret-name"}), headers)
                answer = connection.getresponse()
                assert answer.status == 200
                answer.read()
                ids.append(answer.headers["x-request-id"])
                connection.close()
            get(server, "/health", authorization="Bearer wrong-token-value")
            assert server.end() == 0
            return server.said, str(token), ids

    return run


def test_a_line_a_request_as_json(logged: Any) -> None:
    said, token, ids = logged("--log-format", "json")
    lines = [json.loads(line) for line in said if line.startswith("{")]
    requests = [one for one in lines if "request_id" in one]
    assert [one["request_id"] for one in requests[:4]] == ids
    assert ids[0] == "trace-1.a_b"
    assert all(re.fullmatch(r"[0-9a-f]{16}", one) for one in ids[1:])
    first = requests[0]
    assert (first["method"], first["route"], first["status"], first["caller"]) == (
        "POST", "{api}/mlflow/runs/create", 200, "ci",
    )  # fmt: skip
    assert first["bytes_in"] == len('{"run_name": "secret-name"}')
    assert first["bytes_out"] > 100
    assert first["ms"] > 0
    assert set(first) == {"time", "level", "message", "method", "route", "status", "ms", "bytes_in", "bytes_out",
                          "caller", "request_id"}  # fmt: skip
    text = "".join(said)
    for hidden in (token, "hunter2", "secret-name", "wrong-token-value"):
        assert hidden not in text


def test_a_line_a_request_for_people_or_none(logged: Any) -> None:
    said, token, ids = logged("--log-format", "text")
    (line,) = [one for one in said if ids[0] in one]
    assert " INFO POST {api}/mlflow/runs/create status=200 ms=" in line
    assert "caller=ci request_id=trace-1.a_b" in line
    assert token not in "".join(said)
