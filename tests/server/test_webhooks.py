"""Webhooks: what is told, to whom, and what a delivery never does."""

import hashlib
import hmac
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.errors import InvalidValueError, NetworkError, NotFoundError, PermissionDeniedError, StateError
from gittrack.server.hub import delivery, outgoing, webhooks as kept
from gittrack.server.hub.accounts import Accounts, now
from gittrack.server.hub.news import EVENTS, Happening
from gittrack.server.hub.notifier import Actors
from gittrack.server.hub.outgoing import Target
from gittrack.server.hub.webhooks import DEAD, DELIVERED, WAITING, Delivery, Keys, Webhooks
from tests.cli.conftest import Cli, cli
from tests.cli.test_server import Started, started
from tests.conftest import Sandbox

__all__ = ["cli"]  # a fixture

SECRET = "a secret of twenty-six signs"


class Receiver:
    """An HTTP server that keeps what it is sent; ``answers`` are the statuses of the next answers."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.slow = 0.0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                time.sleep(outer.slow)
                self.send_response(outer.answers.pop(0) if outer.answers else 200)
                self.send_header("location", f"{outer.url}/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"http{'' if context is None else 's'}://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def wait(self, number: int, seconds: float = 20.0) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while len(self.got) < number and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(self.got) >= number, self.got
        return [json.loads(body) for _, body in self.got]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def webhooks(tmp_path: Path) -> Iterator[Webhooks]:
    accounts = Accounts.in_store(tmp_path)
    yield Webhooks(accounts, Keys(tmp_path / "server" / kept.KEY_FILE))
    accounts.close()


def queued(hook: str, ident: str = "d1") -> Delivery:
    return Delivery(ident, hook, "run.finished", "{}", WAITING, 0, 0, 0, "")


# --- the whole way


def test_what_happens_is_told_however_it_comes_about(
    cli: Cli, git_repo: Sandbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(git_repo.path)
    secret_file = tmp_path / "secret"
    secret_file.write_text(f"{SECRET}\n")
    cli("init")
    hook = json.loads(
        cli("server", "webhook", "add", receiver.url, "--private", "--secret-file", str(secret_file), "--json").out
    )
    assert cli("server", "webhook", "test", hook["id"]).status == 0
    assert receiver.wait(1)[0]["event"] == "webhook.test"

    with started(git_repo.path) as server:
        api = "/api/2.0/mlflow/"

        def ask(method: str, path: str, **body: Any) -> Any:
            status, found = server.ask(method, api + path, body)
            assert status == 200, found
            return found

        run_id = ask("POST", "runs/create", experiment_id="0", run_name="first")["run"]["info"]["run_id"]
        ask("POST", "runs/update", run_id=run_id, status="FINISHED", end_time=1_800_000_000_000)
        ask("POST", "registered-models/create", name="iris")
        source = f"runs:/{run_id}/model"
        server_put(server, run_id)
        ask("POST", "model-versions/create", name="iris", source=source, run_id=run_id)
        ask("POST", "model-versions/transition-stage", name="iris", version="1", stage="Production")
        ask("POST", "registered-models/alias", name="iris", alias="champion", version="1")
        ask("DELETE", "registered-models/alias", name="iris", alias="champion")
        told = {one["event"]: one for one in receiver.wait(6)[1:]}
        assert set(told) == set(EVENTS)
        run = told["run.finished"]
        assert (run["run_id"], run["status"], run["run_name"], run["experiment"]) == (
            run_id,
            "FINISHED",
            "first",
            "Default",
        )
        assert run["link"] == f"http://127.0.0.1:{server.port}/runs/{run_id}"
        assert (run["project"], run["actor"], run["time"]) == ("default", "local", "2027-01-15T08:00:00.000+00:00")
        version = told["model_version.created"]
        assert (version["model"], version["version"], version["source"]) == ("iris", "1", source)
        stage = told["model_version.stage_changed"]
        assert (stage["from_stage"], stage["to_stage"], stage["version"]) == ("None", "Production", "1")
        assert stage["actor"] == "local"
        assert told["model_version.alias_set"]["alias"] == "champion"
        assert told["model_version.alias_deleted"]["from_version"] == "1"
        for headers, body in receiver.got:
            expected = hmac.new(SECRET.encode(), headers["x-gittrack-timestamp"].encode() + b"." + body, hashlib.sha256)
            assert headers["x-gittrack-signature"] == f"sha256={expected.hexdigest()}"
            assert headers["x-gittrack-delivery"] == json.loads(body)["id"]
            assert headers["host"] == f"127.0.0.1:{receiver.port}"

        # A push, and one of a run that was told before: only what is new.
        before = len(receiver.got)
        clone = tmp_path / "clone"
        run_in(tmp_path, "clone", "-q", f"http://127.0.0.1:{server.port}/git/default", str(clone))
        run_in(clone, "fetch", "-q", "origin", "refs/tags/*:refs/tags/*")
        tag = "refs/tags/models/iris/v1"
        message = run_in(clone, "cat-file", "tag", tag).partition("\n\n")[2].replace("iris v1", "iris v2").replace(
            "Gittrack-Version: 1", "Gittrack-Version: 2"
        )  # fmt: skip
        run_in(clone, "tag", "-a", "-m", message, "models/iris/v2", f"{tag}^{{}}")
        run_in(clone, "push", "-q", "origin", "refs/tags/models/iris/v2")
        pushed = receiver.wait(before + 1)[-1]
        assert (pushed["event"], pushed["version"], pushed["actor"]) == ("model_version.created", "2", "local")
        assert server.end() == 0

    # What is done by a command while nobody serves is told at the next start.
    assert cli("models", "promote", "iris/2", "staging").status == 0
    with started(git_repo.path) as server:
        late = receiver.wait(before + 2)[-1]
        assert (late["event"], late["to_stage"], late["version"]) == ("model_version.stage_changed", "Staging", "2")
        assert late["actor"].startswith("Ana")
        assert server.end() == 0
    assert len({body for _, body in receiver.got}) == len(receiver.got), "something was told twice"
    listed = json.loads(cli("server", "webhook", "list", "--json").out)
    assert (listed[0][DELIVERED], listed[0][WAITING], listed[0]["failed"]) == (7, 0, [])
    assert cli("server", "webhook", "remove", hook["id"]).status == 0
    assert json.loads(cli("server", "webhook", "--json").out) == []


def run_in(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def server_put(server: Started, run_id: str) -> None:
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/model/MLmodel"
    assert server.ask("PUT", path, {"flavors": {}})[0] == 200


# --- the queue


def test_a_delivery_is_tried_again_and_then_given_up(
    webhooks: Webhooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, secret = webhooks.add(receiver.url, by="ana", private=True)
    receiver.answers = [500] * 20
    assert webhooks.queue([queued(hook.id)]) == 1
    assert webhooks.queue([queued(hook.id)]) == 0
    monkeypatch.setattr(kept, "WAITS", (0, 0))
    for tries in range(1, 4):
        (one,) = webhooks.take(5)
        assert webhooks.take(5) == []  # another server does not get it, too
        webhooks.settle(one, *delivery.tried(hook.target, secret, one.event, one.id, b"{}"))
        (bad,) = webhooks.troubles(hook.id)
        assert (bad.tries, bad.error) == (tries, "answered with status 500")
    assert webhooks.take(5) == []
    assert webhooks.counts() == {hook.id: {DEAD: 1}}
    assert len({headers["x-gittrack-delivery"] for headers, _ in receiver.got}) == 1


def test_gone_is_gone_and_waits_grow(webhooks: Webhooks, receiver: Receiver) -> None:
    hook, _ = webhooks.add(receiver.url, by="ana", private=True)
    webhooks.queue([queued(hook.id), queued(hook.id, "d2")])
    first, second = webhooks.take(5)
    webhooks.settle(first, 410, "answered with status 410")
    webhooks.settle(second, None, "did not answer")
    assert webhooks.counts()[hook.id] == {DEAD: 1, WAITING: 1}
    assert webhooks.take(5) == []
    assert list(kept.WAITS) == sorted(kept.WAITS)
    webhooks.remove(hook.id)
    assert webhooks.counts() == {}


def test_what_is_dead_is_tried_again_when_somebody_says_so(webhooks: Webhooks) -> None:
    hook, _ = webhooks.add("https://x.org/", by="ana")
    other, _ = webhooks.add("https://y.org/", by="ana")
    webhooks.queue([queued(hook.id), queued(hook.id, "d2"), queued(other.id, "d3")])
    for one in webhooks.take(5):
        if one.id != "d2":
            webhooks.settle(one, 410, "gone")
    assert webhooks.retry(hook.id) == 1  # not the one that is under way
    assert webhooks.counts() == {hook.id: {WAITING: 2}, other.id: {DEAD: 1}}
    (again,) = webhooks.take(5)
    assert (again.id, again.tries) == ("d1", 0)
    assert webhooks.retry() == 1
    assert webhooks.retry() == 0
    with pytest.raises(NotFoundError):
        webhooks.retry("nobody")


def test_a_try_that_took_too_long_decides_nothing(webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server has the delivery by then; that it came through counts all the same."""
    hook, _ = webhooks.add("https://x.org/", by="ana")
    webhooks.queue([queued(hook.id)])
    (slow,) = webhooks.take(5)
    monkeypatch.setattr(kept, "now", lambda: now() + 61_000)
    (second,) = webhooks.take(5)
    webhooks.settle(slow, None, "did not answer")
    assert webhooks.take(5) == []
    webhooks.settle(second, 200, "")
    webhooks.settle(slow, 410, "gone")
    assert webhooks.counts() == {hook.id: {DELIVERED: 1}}


def test_a_new_webhook_hears_of_what_is_new(
    cli: Cli, git_repo: Sandbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if others were there before, and no server was running meanwhile."""
    monkeypatch.chdir(git_repo.path)
    cli("init")

    def add() -> str:
        return str(json.loads(cli("server", "webhook", "add", receiver.url, "--private", "--json").out)["id"])

    def run(name: str) -> None:
        assert cli("run", "--name", name, "--", "true").status == 0

    first = add()
    run("one")
    second = add()
    run("two")
    with started(git_repo.path) as server:
        told = receiver.wait(3)
        assert server.end() == 0
    queue = json.loads(cli("server", "webhook", "--json").out)
    assert {one["id"]: one[DELIVERED] for one in queue} == {first: 2, second: 1}
    assert sorted(one["run_name"] for one in told) == ["one", "two", "two"]
    assert cli("server", "webhook", "retry").status == 0


def test_a_copy_of_the_database_signs_nothing(webhooks: Webhooks, tmp_path: Path) -> None:
    hook, secret = webhooks.add("https://ci.example.org/x", by="ana", secret=SECRET)
    assert webhooks.get(hook.id) == (hook, SECRET)
    assert secret == SECRET
    assert SECRET.encode() not in (tmp_path / "server" / "accounts.db").read_bytes()
    key = tmp_path / "server" / kept.KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    with pytest.raises(StateError, match="cannot be read"):
        webhooks.get(hook.id)
    Keys(key).lock("another")
    with pytest.raises(StateError, match="another key"):
        webhooks.get(hook.id)


def test_what_cannot_be_told_is_refused(webhooks: Webhooks) -> None:
    for url in ("ftp://x.org/", "https://", "http://x.org/", "https://a:b@x.org/", "https://x.org/#a",
                "https://x.org:0/", "https://x.org:99999/", "https://x.org/\r\nHost: y",
                "https://ü.org/", "file:///etc/passwd"):  # fmt: skip
        with pytest.raises(InvalidValueError):
            webhooks.add(url, by="ana")
    with pytest.raises(InvalidValueError, match="no event"):
        webhooks.add("https://x.org/", by="ana", events=["run.started"])
    with pytest.raises(InvalidValueError, match="a secret has"):
        webhooks.add("https://x.org/", by="ana", secret="short")
    assert webhooks.all() == []


def test_events_and_projects_choose(webhooks: Webhooks) -> None:
    hook, _ = webhooks.add("https://x.org/", by="ana", events=["run.finished"], projects=["team"])
    assert hook.wants("run.finished", "team")
    assert not hook.wants("run.finished", "default")
    assert not hook.wants("model_version.created", "team")


# --- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
        "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1",
        "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
        "2002:7f00:1::", "100.100.100.200", "168.63.129.16",
    ],
)  # fmt: skip
def test_only_public_addresses(address: str) -> None:
    with pytest.raises(PermissionDeniedError):
        outgoing.check_address(address, private=False)


def test_metadata_never_and_private_only_when_allowed() -> None:
    for address in (
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "168.63.129.16",
        "fe80::1",
        "0.0.0.0",
    ):
        with pytest.raises(PermissionDeniedError):
            outgoing.check_address(address, private=True)
    for address in ("127.0.0.1", "10.0.0.1", "::1", "fd00::1"):
        outgoing.check_address(address, private=True)
    for address in ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"):
        outgoing.check_address(address, private=False)


def test_a_name_is_resolved_once_and_all_its_addresses_count(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    answers = [["93.184.215.14", "127.0.0.1"], ["127.0.0.1"]]
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in answers.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    target = Target(f"https://rebind.example:{receiver.port}/")
    for _ in range(2):
        with pytest.raises(PermissionDeniedError):
            delivery.send(target, SECRET, "e", "d", b"{}")
    assert receiver.got == []
    # Allowed, and then pointing somewhere else: the connection is to what was looked at.
    answers = [["127.0.0.1"]]
    assert (
        delivery.send(Target(f"http://rebind.example:{receiver.port}/a?b=c", private=True), SECRET, "e", "d", b"{}")
        == 200
    )
    assert receiver.got[0][0]["host"] == f"rebind.example:{receiver.port}"
    assert asked == ["rebind.example"] * 3


# --- the other side


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.answers = [302, 307, 308]
    for status in (302, 307, 308):
        assert delivery.tried(Target(receiver.url, private=True), SECRET, "e", "d", b"{}") == (
            status,
            f"answered with status {status}",
        )
    assert len(receiver.got) == 3


def test_a_slow_receiver_and_one_that_sends_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "ALL_SECONDS", 0.5)
    endless = [b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536]
    drip = [b"HTTP", b"/"]
    for head, more in (endless, drip):
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def serve(listening: socket.socket = listening, head: bytes = head, more: bytes = more) -> None:
                connection, _ = listening.accept()
                with connection:
                    try:
                        connection.recv(65536)
                        connection.sendall(head)
                        for _ in range(300):
                            connection.sendall(more)
                            time.sleep(0.02)
                    except OSError:
                        pass

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            began = time.monotonic()
            status, error = delivery.tried(
                Target(f"http://127.0.0.1:{listening.getsockname()[1]}/", private=True), SECRET, "e", "d", b"{}"
            )
            assert time.monotonic() - began < 3
            assert (status == 200) if more[0] == ord("x") else bool(error)
            thread.join(10)


def test_tls_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme", reason="makes certificates")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    found = Receiver(context)
    try:
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))],
        )
        good = Target(f"https://hooks.example:{found.port}/", private=True)
        with pytest.raises(NetworkError, match="TLS"):
            delivery.send(good, SECRET, "e", "d", b"{}")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert delivery.send(good, SECRET, "e", "d", b"{}") == 200
        with pytest.raises(NetworkError, match="TLS"):
            delivery.send(Target(f"https://other.example:{found.port}/", private=True), SECRET, "e", "d", b"{}")
    finally:
        found.close()
    assert len(found.got) == 1


def test_who_did_it(webhooks: Webhooks) -> None:
    actors = Actors()
    one = Happening("run.finished", "k", 0, "git", "refs/runs/0/w", {"run_id": "r"})
    assert actors.of(one) == "git"
    actors.note("refs/runs/0/w", "pusher")
    assert actors.of(one) == "pusher"
    actors.note("run r", "asker")
    assert actors.of(one) == "asker"
