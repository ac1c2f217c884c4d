"""The server around the protocol: limits on clients, hosts, switching, metrics, several workers, its end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from gittrack.errors import CorruptError
from gittrack.server.connection import Limits
from gittrack.server.metrics import STATUSES, Metrics
from gittrack.server.run import LOCAL_HOSTS, Address
from gittrack.server.serving import ServedModel
from tests.serving.conftest import Given, Running, Start
from tests.serving.load import hammer, post, repeat
from tests.serving.models import Fake, Linear, columns, iris_like

NAMES = ["a", "b", "c", "d"]
ROW = {"dataframe_split": {"columns": NAMES, "data": [[1, 2, 3, 4]]}}
BODY = json.dumps(ROW).encode()


def raw(running: Running, *parts: bytes, pause: float = 0.0, wait: float = 10.0) -> bytes:
    """What comes back for bytes that are sent one after the other, until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=wait) as client:
        found = b""
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            while more := client.recv(65536):
                found += more
        except TimeoutError:
            pass
        except OSError:  # closed while we were still sending
            return found
        return found


# --- limits


def test_a_body_that_is_too_large(start: Start) -> None:
    running = start(iris_like(), max_body=1000)
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for request in (
        head + b"content-length: 1001\r\n\r\n" + b"x" * 1001,
        head + b"content-length: 999999999999999999\r\n\r\n" + b"x" * 5000,
        head + b"transfer-encoding: chunked\r\n\r\n" + (b"100\r\n" + b" " * 256 + b"\r\n") * 6 + b"0\r\n\r\n",
    ):
        reply = raw(running, request)
        assert reply.startswith(b"HTTP/1.1 413"), reply
        assert b"connection: close" in reply
    assert running.post(BODY).status == 200
    assert running.post(b" " * 1001).status == 413


def test_chunks_are_one_body(start: Start) -> None:
    running = start(iris_like())
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
    chunks = [b"%x\r\n%s\r\n" % (1, BODY[at : at + 1]) for at in range(len(BODY))]
    reply = raw(running, head + b"transfer-encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")
    assert reply.endswith(b'{"predictions":[4321.0]}')


def test_a_compressed_body_is_refused(start: Start) -> None:
    running = start(iris_like())
    reply = running.ask("POST", "/invocations", BODY, content_type="application/json", content_encoding="gzip")
    assert reply.status == 415


@pytest.mark.parametrize("part", [b"", b"POST /inv", b"POST /invocations HTTP/1.1\r\ncontent-length: 9\r\n\r\n{"])
def test_a_client_that_does_not_finish_its_request(start: Start, part: bytes) -> None:
    running = start(iris_like(), limits=Limits(receive_seconds=0.4))
    begun = time.monotonic()
    reply = raw(running, part)
    assert time.monotonic() - begun < 5
    assert reply.startswith(b"HTTP/1.1 408")


def test_a_client_that_sends_drop_by_drop(start: Start) -> None:
    running = start(iris_like(), limits=Limits(receive_seconds=0.5))
    reply = raw(running, *(bytes([one]) for one in b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n" * 3), pause=0.1)
    assert reply == b"" or reply.startswith(b"HTTP/1.1 408")


def test_a_head_that_is_too_large(start: Start) -> None:
    running = start(iris_like(), limits=Limits(head_bytes=4096))
    reply = raw(running, b"GET /ping HTTP/1.1\r\n", *[b"x-header: %s\r\n" % (b"x" * 500)] * 20)
    assert reply == b"" or reply.startswith(b"HTTP/1.1 431")
    assert running.get("/ping").status == 200


def test_several_requests_on_a_connection_are_not_taken_for_one_head(start: Start) -> None:
    running = start(iris_like(), limits=Limits(head_bytes=300, receive_seconds=1.0))
    load = asyncio.run(hammer(running.port, 1, repeat(post(BODY), 50)))
    assert (load.statuses, load.lost) == ({200}, 0)


def test_requests_that_are_sent_ahead_are_answered_in_order(start: Start) -> None:
    running = start(iris_like())
    bodies = [json.dumps({"dataframe_split": {"columns": NAMES, "data": [[n, 0, 0, 0]]}}).encode() for n in range(5)]
    reply = raw(running, b"".join(map(post, bodies)), b"GET /ping HTTP/1.1\r\nconnection: close\r\n\r\n")
    assert [reply.index(b'{"predictions":[%d.0]}' % n) for n in range(5)] == sorted(
        reply.index(b'{"predictions":[%d.0]}' % n) for n in range(5)
    )


@pytest.mark.parametrize("bad", [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /invocations\r\n\r\n"])
def test_what_is_no_http(start: Start, bad: bytes) -> None:
    running = start(iris_like(), limits=Limits(receive_seconds=0.5))
    assert not raw(running, bad).startswith(b"HTTP/1.1 200")
    assert running.get("/ping").status == 200


def test_a_client_that_leaves_costs_nothing(start: Start) -> None:
    model = iris_like()
    model.predictor.pause = 0.05
    running = start(model, threads=1)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(post(BODY))
    assert running.post(BODY).status == 200


# --- hosts


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost:5000", 200), ("[::1]:1", 200), ("LOCALHOST", 200), ("evil.example", 421),
     ("127.0.0.1.evil.example", 421), ("", 421)],
)  # fmt: skip
def test_a_name_that_was_made_to_point_here_gets_nothing(start: Start, host: str, status: int) -> None:
    running = start(iris_like(), hosts=LOCAL_HOSTS)
    for _ in range(2):
        assert running.get("/ping", host=host).status == status
        assert running.ask("POST", "/invocations", BODY, host=host, content_type="application/json").status == status
        assert running.get("/v2/models/iris", host=host).status == status


def test_another_page_in_a_browser_cannot_ask(start: Start) -> None:
    """Without a preflight, a page of another origin can send three content types, and none of them is read."""
    running = start(iris_like())
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert running.post(BODY, content_type=content_type).status == 415
    preflight = running.ask("OPTIONS", "/invocations", origin="http://evil.example")
    assert preflight.status == 405
    assert not any(name.startswith("access-control") for name in preflight.headers)


def test_only_this_machine_by_default() -> None:
    assert Address().is_loopback
    assert not Address("0.0.0.0").is_loopback
    assert not Address("127.example.org").is_loopback
    assert Address("::1").is_loopback


# --- another version


def version(number: int) -> ServedModel:
    """A model whose answer says which one it is."""
    model = Fake(Linear([number, 0, 0, 0]), columns("double", "double", "double", "double"))
    return ServedModel(model, "iris", str(number))


def test_a_hundred_switches_under_load_lose_no_request(start: Start) -> None:
    source = Given(version(1).model, version="1")
    running = start(source, follow=0.01)
    body = json.dumps({"dataframe_split": {"columns": NAMES, "data": [[1, 0, 0, 0]]}}).encode()
    done = threading.Event()

    def switch() -> None:
        for number in range(2, 102):
            source.next = version(number)
            running.until(lambda: source.next is None)
        running.until(lambda: running.counted("gittrack_model_switches_total") == 100)
        done.set()

    thread = threading.Thread(target=switch)
    thread.start()
    load = asyncio.run(hammer(running.port, 8, lambda _, __: None if done.is_set() else post(body)))
    thread.join(20)
    assert (load.statuses, load.lost) == ({200}, 0)
    seen = set()
    for reply in load.replies:
        (answered,) = json.loads(reply.body)["predictions"]
        assert str(int(answered)) == reply.headers["gittrack-model-version"]
        seen.add(int(answered))
    assert len(seen) > 50
    last: dict[int, int] = {}
    for reply in load.replies:  # nobody goes back
        number = int(reply.headers["gittrack-model-version"])
        assert number >= last.get(reply.connection, 0)
        last[reply.connection] = number
    assert running.counted('gittrack_model_info{model="iris",version="101"}') == 1


@pytest.mark.parametrize("failure", [CorruptError("the bytes are others"), ImportError("no module"), MemoryError()])
def test_a_version_that_cannot_be_loaded_is_not_put_in(start: Start, failure: Exception, caplog: Any) -> None:
    source = Given(version(1).model, version="1")
    running = start(source, follow=0.02)
    source.next = failure
    running.until(lambda: running.counted("gittrack_model_switch_failures_total") == 1)
    assert running.post(BODY).headers["gittrack-model-version"] == "1"
    assert "stays" in caplog.text
    source.next = version(2)
    running.until(lambda: running.post(BODY).headers["gittrack-model-version"] == "2")


def test_a_version_that_fails_on_its_own_example_is_not_put_in(start: Start) -> None:
    source = Given(version(1).model, version="1")
    running = start(source, follow=0.02)
    broken = Fake(Linear([1, 2]), columns("double", "double"))
    source.next = ServedModel(broken, "iris", "2", b'{"dataframe_records": [{"a": 1}]}')
    running.until(lambda: running.counted("gittrack_model_switch_failures_total") == 1)
    assert running.post(BODY).headers["gittrack-model-version"] == "1"


def test_what_waits_for_the_old_version_is_answered_by_it(start: Start) -> None:
    first = version(1)
    linear: Linear = first.model.predictor  # type: ignore[attr-defined]
    linear.held = threading.Event()
    linear.held.set()
    source = Given(first.model, version="1")
    running = start(source, follow=0.02, threads=1)
    linear.pause = 0.05
    running.post(BODY)
    linear.held.clear()
    before = len(linear.calls)
    replies: list[Any] = []
    threads = [threading.Thread(target=lambda: replies.append(running.post(BODY))) for _ in range(4)]
    threads[0].start()
    running.until(lambda: len(linear.calls) > before)  # held, so that the others wait for it
    for thread in threads[1:]:
        thread.start()
    batcher = running.service._installed.batcher
    running.until(lambda: len(batcher._waiting) == 3)
    source.next = version(2)
    running.until(lambda: running.get("/v2/models/iris").json["versions"] == ["2"])
    linear.held.set()
    for thread in threads:
        thread.join(20)
    assert [reply.headers["gittrack-model-version"] for reply in replies] == ["1"] * 4
    assert running.post(BODY).predictions == [2.0]


# --- metrics


def test_metrics(start: Start) -> None:
    running = start(iris_like())
    running.post(BODY)
    running.post(b"")
    running.get("/nothing")
    running.post({"inputs": []}, path="/v2/models/iris/infer")
    text = running.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert running.counted('gittrack_requests_total{route="invocations",status="200"}') == 1
    assert running.counted('gittrack_requests_total{route="invocations",status="400"}') == 1
    assert running.counted('gittrack_requests_total{route="infer",status="400"}') == 1
    assert running.counted('gittrack_requests_total{route="other",status="404"}') == 1
    assert running.counted('gittrack_request_seconds_count{route="invocations"}') == 2
    assert running.counted('gittrack_model_info{model="iris",version="3"}') == 1
    names = set()
    for line in text.body.decode().splitlines():
        if line.startswith("# TYPE"):
            name = line.split()[2]
            assert name not in names, "described twice"
            names.add(name)
        elif not line.startswith("#"):
            found = line.partition("{")[0].partition(" ")[0]
            assert any(found in (name, f"{name}_bucket", f"{name}_sum", f"{name}_count") for name in names)
            float(line.rpartition(" ")[2])


def test_metrics_of_several_processes_add_up(tmp_path: Path) -> None:
    ours, theirs = Metrics(tmp_path), Metrics(tmp_path)
    for status in STATUSES:
        ours.answered("infer", status, 0.003)
        theirs.answered("infer", status, 20.0)
    theirs.batch(3, 30)
    for metrics in (ours, theirs):
        lines = metrics.text('a"b\\\n', "1").decode().splitlines()
        assert 'gittrack_requests_total{route="infer",status="504"} 2' in lines
        assert f'gittrack_request_seconds_bucket{{route="infer",le="0.005"}} {len(STATUSES)}' in lines
        assert f'gittrack_request_seconds_bucket{{route="infer",le="+Inf"}} {2 * len(STATUSES)}' in lines
        assert "gittrack_rows_total 30" in lines
        assert "gittrack_workers_started_total 2" in lines
        assert r'gittrack_model_info{model="a\"b\\\n",version="1"} 1' in lines


# --- processes

PROGRAM = """
import sys, os
from tests.serving.conftest import Given
from tests.serving.models import iris_like
from gittrack.server.ending import ending
from gittrack.server.run import Address, Plan, serve, show_log
from gittrack.server.serving import Options
from tests.serving.test_server import Pausing

if __name__ == "__main__":
    show_log()
    workers, pause = int(sys.argv[1]), float(sys.argv[2])
    plan = Plan(Pausing(pause), Address(port=0), Options(timeout=3.0), workers=workers)
    with ending() as end:
        sys.exit(serve(plan, lambda url, model: print(url, flush=True), end))
"""


PING = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"


class Pausing(Given):
    """A source whose model takes its time, and that can be sent to a worker."""

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def load(self) -> ServedModel:
        model = iris_like()
        model.predictor.pause = self.pause
        return ServedModel(model, "iris", "3")

    def newer(self) -> None:
        return None


class Program:
    """The server as a program of its own."""

    def __init__(self, tmp_path: Path, workers: int = 1, pause: float = 0.0) -> None:
        file = tmp_path / "program.py"
        file.write_text(PROGRAM)
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            [sys.executable, str(file), str(workers), str(pause)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(tmp_path)},
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2])
        self.until_up()

    def until_up(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                load = asyncio.run(hammer(self.port, 1, repeat(PING, 1), 20))
            except OSError:
                load = None
            if load is not None and load.statuses == {200}:
                return
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.1)

    def metrics(self) -> bytes:
        load = asyncio.run(hammer(self.port, 1, repeat(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", 1)))
        return load.replies[0].body

    def until(self, line: bytes) -> None:
        deadline = time.monotonic() + 60
        while line not in self.metrics().splitlines():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self) -> str:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_at_its_end_it_answers_what_it_has(tmp_path: Path) -> None:
    program = Program(tmp_path, pause=0.5)
    loads: list[Any] = []
    thread = threading.Thread(target=lambda: loads.append(asyncio.run(hammer(program.port, 4, repeat(post(BODY), 1)))))
    thread.start()
    time.sleep(0.25)
    said = program.stop()
    thread.join(20)
    assert (loads[0].statuses, loads[0].lost) == ({200}, 0)
    assert program.process.returncode == 0, said
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", program.port), timeout=2)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_prediction_that_hangs_does_not_keep_it(tmp_path: Path) -> None:
    program = Program(tmp_path, pause=600.0)
    with socket.create_connection(("127.0.0.1", program.port)) as client:
        client.sendall(post(BODY))
        time.sleep(0.5)
        program.stop()
    assert program.process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_workers_share_the_port_and_the_counters(tmp_path: Path) -> None:
    program = Program(tmp_path, workers=2)
    children: list[psutil.Process] = []
    try:
        program.until(b"gittrack_workers_started_total 2")
        children = psutil.Process(program.process.pid).children(recursive=True)
        load = asyncio.run(hammer(program.port, 8, repeat(post(BODY), 50)))
        assert (load.statuses, load.lost) == ({200}, 0)
        for _ in range(4):  # whichever of them is asked
            assert b'gittrack_requests_total{route="invocations",status="200"} 400' in program.metrics().splitlines()
    finally:
        program.stop()
    assert program.process.returncode == 0
    _, left = psutil.wait_procs(children, timeout=30)  # one of them, multiprocessing's own, ends when it sees that
    assert not left
    assert not list(tmp_path.glob("gittrack-serving-*"))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    program = Program(tmp_path, workers=2)
    program.until(b"gittrack_workers_started_total 2")
    children = psutil.Process(program.process.pid).children(recursive=True)
    program.process.kill()
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left
    program.stop()
