"""Calls to a tracking server: what is repeated, what is told, and who gets the credentials."""

import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gittrack import errors
from gittrack.remote.address import is_server
from gittrack.remote.http import Connection


class Fake:
    """A server that answers what it is told to, one after the other; the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes] | Callable[[BaseHTTPRequestHandler], None]] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections: set[tuple[str, int]] = set()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fake.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                fake.connections.add(self.client_address)
                answer = fake.answers.pop(0) if len(fake.answers) > 1 else fake.answers[0]
                if callable(answer):
                    answer(self)
                    return
                status, headers, data = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def says(self, status: int, found: object = None, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = found if isinstance(found, bytes) else json.dumps({} if found is None else found).encode()
        self.answers.append((status, named, data))


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def other() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def connection(fake: Fake, sealed_environment: Path) -> Iterator[Connection]:
    made = Connection(f"{fake.url}/team/")
    yield made
    made.close()


def test_calls_go_below_the_address_over_one_connection(fake: Fake, connection: Connection) -> None:
    fake.says(200, {"run": 1})
    assert connection.get("runs/get", run_id="a b", missing=None) == {"run": 1}
    assert connection.post("runs/create", {"tags": []}) == {"run": 1}
    (get, target, _, _), (post, _, headers, body) = fake.asked
    assert (get, target) == ("GET", "/team/api/2.0/mlflow/runs/get?run_id=a+b")
    assert (post, headers["content-type"], body) == ("POST", "application/json", b'{"tags": []}')
    assert "authorization" not in headers
    assert len(fake.connections) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "RESOURCE_DOES_NOT_EXIST", errors.NotFoundError),
        (400, "RESOURCE_ALREADY_EXISTS", errors.AlreadyExistsError),
        (400, "INVALID_PARAMETER_VALUE", errors.InvalidValueError),
        (403, "PERMISSION_DENIED", errors.PermissionDeniedError),
        (401, "UNAUTHENTICATED", errors.UnauthenticatedError),
        (409, "RESOURCE_CONFLICT", errors.ConflictError),
        (404, "ENDPOINT_NOT_FOUND", errors.NoEndpointError),
        (501, "NOT_IMPLEMENTED", errors.UnsupportedError),
        (400, "", errors.InvalidValueError),
        (403, "", errors.PermissionDeniedError),
        (500, "INTERNAL_ERROR", errors.NetworkError),
        (302, "", errors.NetworkError),
    ],
)
def test_a_refusal_is_the_error_with_its_code(
    fake: Fake, connection: Connection, status: int, code: str, kind: type[errors.GittrackError]
) -> None:
    fake.says(status, {"error_code": code, "message": "it is\nso"} if code else b"<html>")
    with pytest.raises(errors.GittrackError) as caught:
        connection.post("x", {})
    assert type(caught.value) is kind
    assert not code or status >= 500 or caught.value.error_code == code
    assert not code or "it is so" in str(caught.value)
    assert len(fake.asked) == 1


def test_what_changes_something_is_made_again_only_if_the_server_did_not_take_it(
    fake: Fake, connection: Connection
) -> None:
    fake.says(502)
    fake.says(200)
    with pytest.raises(errors.NetworkError, match="busy or away"):
        connection.post("x", {})
    fake.answers.clear()
    fake.says(503, Retry_After="0")
    fake.says(429)
    fake.says(200, {"done": True})
    assert connection.post("x", {}) == {"done": True}
    fake.answers.clear()
    fake.asked.clear()
    fake.says(502)
    fake.says(200, {"done": True})
    assert connection.get("x") == connection.post("x", {}, repeatable=True) == {"done": True}
    assert len(fake.asked) == 3


def test_a_connection_that_breaks_is_told_at_once_unless_the_call_may_be_repeated(
    fake: Fake, connection: Connection
) -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    fake.answers.append(hang_up)
    with pytest.raises(errors.NetworkError):
        connection.post("x", {})
    assert len(fake.asked) == 1
    fake.says(200, {"found": 1})
    fake.answers.insert(0, hang_up)
    fake.answers.pop(1)
    assert connection.get("x") == {"found": 1}


def test_a_server_that_is_away_is_one_clear_error_soon(sealed_environment: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        connection = Connection(f"http://127.0.0.1:{taken.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(errors.NetworkError, match=r"127\.0\.0\.1:\d+.*refused.*hint: is the server running"):
            connection.post("runs/create", {})
        assert time.monotonic() - began < 5
        connection.close()


def test_one_that_never_answers_is_left(fake: Fake, connection: Connection) -> None:
    over = threading.Event()
    fake.answers.append(lambda _: (over.wait(10), None)[1])
    with pytest.raises(errors.NetworkError, match="too slow"):
        connection.call("POST", "/api", {}, seconds=0.5)
    over.set()


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({"GITTRACK_TOKEN": "ours", "MLFLOW_TRACKING_TOKEN": "theirs"}, "Bearer ours"),
        ({"MLFLOW_TRACKING_TOKEN": "theirs"}, "Bearer theirs"),
        ({"MLFLOW_TRACKING_USERNAME": "ana", "MLFLOW_TRACKING_PASSWORD": "ü"}, "ana:ü"),
        ({"MLFLOW_TRACKING_USERNAME": "ana"}, None),
    ],
)
def test_credentials_of_the_environment_are_sent(
    fake: Fake, sealed_environment: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sent: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fake.says(200)
    Connection(fake.url).get("x")
    Connection(fake.url, credentials=False).get("x")
    expected = sent if sent is None or ":" not in sent else "Basic " + base64.b64encode(sent.encode()).decode()
    assert [headers.get("authorization") for _, _, headers, _ in fake.asked] == [expected, None]


def test_credentials_are_not_told_and_do_not_follow_to_another_server(
    fake: Fake, other: Fake, sealed_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITTRACK_TOKEN", "unused")
    connection = Connection(fake.url.replace("://", "://ana:s3cret%40@"))
    assert connection.url == fake.url
    fake.says(302, Location=f"{other.url}/there")
    other.says(200, {"from": "other"})
    assert connection.get("x") == {"from": "other"}
    assert fake.asked[0][2]["authorization"] == "Basic " + base64.b64encode(b"ana:s3cret@").decode()
    assert "authorization" not in other.asked[0][2]
    fake.answers.clear()
    fake.says(401, {"error_code": "UNAUTHENTICATED", "message": "no"})
    with pytest.raises(errors.UnauthenticatedError, match="GITTRACK_TOKEN") as caught:
        connection.get("x")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1]", b"[" * 100_000])
def test_what_is_no_tracking_server_is_told(fake: Fake, connection: Connection, body: bytes) -> None:
    fake.says(200, body)
    with pytest.raises(errors.FormatError, match="does not answer as a tracking server"):
        connection.get("x")


def test_pages_end_where_the_server_says_nothing_new(fake: Fake, connection: Connection) -> None:
    fake.says(200, {"runs": [{"n": 1}], "next_page_token": "a"})
    fake.says(200, {"runs": [{"n": 2}], "next_page_token": "a"})
    assert list(connection.pages("runs/search", "runs", {"max_results": 1})) == [{"n": 1}, {"n": 2}]
    fake.answers.clear()
    fake.says(200, {"runs": {"n": 1}})
    with pytest.raises(errors.FormatError):
        list(connection.pages("runs/search", "runs"))


def test_files_go_up_and_come_down_as_they_are(fake: Fake, connection: Connection, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "up").write_bytes(data)
    fake.says(200)
    connection.upload("/up", tmp_path / "up")
    assert fake.asked[0][0] == "PUT"
    assert fake.asked[0][3] == data
    fake.answers.clear()
    fake.says(200, data)
    connection.download("/down", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data


def test_a_file_that_breaks_off_is_fetched_again(fake: Fake, connection: Connection, tmp_path: Path) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 500)
        handler.close_connection = True

    fake.answers.append(half)
    fake.says(200, b"y" * 1000)
    connection.download("/down", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == b"y" * 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(fake: Fake, connection: Connection) -> None:
    fake.says(200, {"x": 1})
    connection.get("x")
    child = os.fork()
    if not child:
        os._exit(0 if connection.get("x") == {"x": 1} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert connection.get("x") == {"x": 1}
    assert len(fake.connections) == 2


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_server_of_ones_own_certificate_is_trusted_when_it_is_named(
    fake: Fake, sealed_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out",
         str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    fake.server.socket = context.wrap_socket(fake.server.socket, server_side=True)
    fake.says(200, {"secure": True})
    url = fake.url.replace("http:", "https:")
    with pytest.raises(errors.NetworkError, match="GITTRACK_TRACKING_SERVER_CERT_PATH"):
        Connection(url).get("x")
    assert not fake.asked
    with monkeypatch.context() as named:
        named.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        assert Connection(url).get("x") == {"secure": True}
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    assert Connection(url).get("x") == {"secure": True}


@pytest.mark.parametrize("address", ["ftp://host", "http://", "http://host:port", "http://host?x=1", "folder"])
def test_what_is_no_address_is_refused(sealed_environment: Path, address: str) -> None:
    with pytest.raises(errors.InvalidValueError):
        Connection(address)


def test_only_http_names_a_server() -> None:
    assert is_server("HTTPS://host")
    assert is_server("http://host:5000/x")
    assert not any(map(is_server, (None, "", "file:///x", "http", "httpfolder", "/http://x")))
