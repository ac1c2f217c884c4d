"""Servers that lie, stall, or send us somewhere else."""

import base64
import gzip
import hashlib
import json
import shutil
import ssl
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gittrack.errors import (
    CorruptError,
    GittrackError,
    InvalidValueError,
    NetworkError,
    NotFoundError,
    UnsupportedError,
)
from gittrack.store.repo import Repo
from gittrack.sync import artifacts, depots, endpoints, http, lfs, ssh
from gittrack.sync.artifacts import Item
from gittrack.sync.endpoints import Server, Ssh
from gittrack.types import Digest
from tests.transfer.conftest import LARGE, Clone
from tests.transfer.fake import FakeLfs, Handle, Request, fake

SECRET = "hunter2-very-secret"
SMALL = b"weights"


@pytest.fixture
def ben(ben_at_server: Clone) -> Clone:
    """A clone whose remote is the server."""
    return ben_at_server


def offer(server: FakeLfs, *contents: bytes) -> list[Item]:
    """Have the server have bytes."""
    items = [Item(Digest(hashlib.sha256(data).hexdigest()), len(data)) for data in contents]
    server.objects.update({str(item.digest): data for item, data in zip(items, contents, strict=True)})
    return items


def refusing(status: int, **headers: Any) -> Handle:
    """A step that answers only this."""

    def handle(request: Request) -> None:
        request.body()
        request.answer(status, **headers)

    return handle


# --- wrong bytes


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_wrong_bytes_do_not_count_and_the_rest_comes(ben: Clone, server: FakeLfs, content: bytes) -> None:
    items = offer(server, content, b"other", LARGE + b"2")
    server.objects[items[0].digest] = b"x" + content[1:]
    with pytest.raises(CorruptError, match=items[0].digest):
        artifacts.ensure(ben.tracker, items)
    assert ben.has(items) == [False, True, True]
    server.objects[items[0].digest] = content
    artifacts.ensure(ben.tracker, items)
    assert ben.tracker.repo.objects.read(items[0].digest) == content


@pytest.mark.parametrize("content", [SMALL, LARGE])
@pytest.mark.parametrize("wrong", [-1, 1])
@pytest.mark.parametrize("length", [True, False])
def test_a_wrong_size_does_not_count(
    ben: Clone, server: FakeLfs, content: bytes, wrong: int, length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depots, "_ATTEMPTS", 2)
    items = offer(server, content)
    sent = content[:-1] if wrong < 0 else content + b"!"

    def get(request: Request) -> None:
        if length:
            request.answer(200, sent)
        else:
            request.head(200, Connection="close")
            request.wfile.write(sent)
            request.close_connection = True

    server.get = get
    with pytest.raises((CorruptError, NetworkError)):
        artifacts.ensure(ben.tracker, items)
    assert ben.has(items) == [False]


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_a_body_without_end_is_cut_off(ben: Clone, server: FakeLfs, content: bytes) -> None:
    items = offer(server, content)
    sent = 0

    def get(request: Request) -> None:
        nonlocal sent
        request.head(200, Transfer_Encoding="chunked")
        while sent < 500 << 20:
            request.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
            sent += 1 << 16

    server.get = get
    with pytest.raises((CorruptError, NetworkError)):
        artifacts.ensure(ben.tracker, items)
    assert ben.has(items) == [False]
    assert sent < 60 << 20
    assert sum(path.stat().st_size for path in ben.temporaries()) <= len(content)


def test_compressed_bytes_are_not_taken_for_the_object(ben: Clone, server: FakeLfs) -> None:
    items = offer(server, LARGE)
    server.get = lambda request: request.answer(200, gzip.compress(LARGE), Content_Encoding="gzip")
    with pytest.raises(CorruptError, match="in another form, `gzip`"):
        artifacts.ensure(ben.tracker, items)


def test_a_range_that_was_not_asked_for_is_refused(ben: Clone, server: FakeLfs) -> None:
    items = offer(server, LARGE)
    server.get = lambda request: request.answer(206, LARGE[5:], Content_Range=f"bytes 5-{len(LARGE) - 1}/{len(LARGE)}")
    with pytest.raises(NetworkError, match="answers 206"):
        artifacts.ensure(ben.tracker, items)
    assert ben.has(items) == [False]


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_a_damaged_object_of_this_clone_is_not_sent(ben: Clone, server: FakeLfs, content: bytes) -> None:
    damaged, sound = ben.put(content, b"sound")
    path = ben.tracker.repo.objects.path(damaged.digest)
    path.chmod(0o644)
    path.write_bytes(b"x" + content[1:])
    with pytest.raises(CorruptError, match=damaged.digest):
        artifacts.upload(ben.tracker, None, [damaged, sound])
    assert server.objects == {str(sound.digest): b"sound"}


# --- answers that are none


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


ANSWERS: dict[str, bytes] = {
    "html": b"<html>welcome</html>",
    "empty": b"",
    "nested": nested(100_000),
    "long": b'{"objects": ["' + b"x" * (8 << 20) + b'"]}',
    "number": b"9" * 100_000,
    "nan": b'{"objects": NaN}',
    "array": b"[]",
    "another adapter": b'{"transfer": "tus", "objects": []}',
    "nothing": b'{"objects": []}',
    "others": b'{"objects": [{"oid": "../../etc", "size": 1}, null, 5, {"oid": 7}]}',
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_none_is_an_error(ben: Clone, server: FakeLfs, answer: bytes) -> None:
    items = offer(server, SMALL)

    def batch(request: Request) -> None:
        request.body()
        request.answer(200, answer)

    server.batch = batch
    with pytest.raises(NetworkError):
        artifacts.ensure(ben.tracker, items)
    with pytest.raises(NetworkError):
        artifacts.upload(ben.tracker, None, ben.put(b"new"))


ITEM = Item(Digest("a" * 64), 5)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
actions = st.fixed_dictionaries(
    {},
    optional={
        "href": st.sampled_from(["http://h/x", "file:///etc/passwd", "https://u:p@h/", "//h", "http://", "http://h:x/"])
        | json_values,
        "header": json_values | st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
        "expires_in": json_values,
        "expires_at": st.sampled_from(["2026-11-10T15:29:07Z", "9999-99-99T99:99:99Z", "2016-11-10T15:29:07+00:00"])
        | json_values,
    },
)
answers = st.fixed_dictionaries(
    {"oid": st.just(str(ITEM.digest))},
    optional={
        "size": json_values,
        "error": json_values | st.fixed_dictionaries({"code": json_values, "message": json_values}),
        "actions": json_values
        | st.fixed_dictionaries({}, optional={"download": actions, "upload": actions, "verify": actions}),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=100, deadline=None)
@given(answers, st.sampled_from(["upload", "download"]), st.booleans())
def test_no_answer_is_too_odd(answer: dict[str, Any], operation: str, secure: bool) -> None:
    said = json.dumps({"objects": [answer]}).encode()
    try:
        found = lfs._read_batch(said, [ITEM], operation, secure=secure)[ITEM]
    except NetworkError:
        return
    if isinstance(found, lfs.Grant):
        assert found.href.startswith("https://h" if secure else ("http://h", "https://h"))
        assert "@" not in found.href


def test_what_servers_say_is_shown_without_control_characters(ben: Clone, server: FakeLfs) -> None:
    items = offer(server, SMALL)

    def batch(request: Request) -> None:
        request.body()
        request.document({"message": "\x1b[2Jno \u202e access\nnow " + "x" * 5000}, 403)

    server.batch = batch
    with pytest.raises(NetworkError, match=r"answers 403: .*no access now") as failed:
        artifacts.ensure(ben.tracker, items)
    assert failed.value.message.isprintable()
    assert len(failed.value.message) < 500


# --- where we are sent


@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd", "ftp://127.0.0.1/x", "javascript:alert(1)", "http://user:pw@127.0.0.1/x", "//127.0.0.1/x",
        "/store/x", "http://127.0.0.1:99999/x", "http:///x", "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", 7,
        "http://169.254.169.254/latest/meta-data", "http://[fe80::1]/x", "http://0.0.0.0/x", "http://[::ffff:169.254.1.1]/x",
        "http://224.0.0.1/x", None,
    ],
)  # fmt: skip
def test_addresses_that_are_not_followed(ben: Clone, server: FakeLfs, href: object) -> None:
    items = offer(server, SMALL)
    server.action = lambda operation, oid, size: {operation: {"href": href}}
    with pytest.raises(NetworkError):
        artifacts.ensure(ben.tracker, items)
    with pytest.raises(NetworkError):
        artifacts.upload(ben.tracker, None, ben.put(b"new"))
    assert not server.requests("GET")
    assert not server.requests("PUT")


def test_redirects_are_held_to_the_same_rules(ben: Clone, server: FakeLfs) -> None:
    items = offer(server, SMALL)
    for target in ("file:///etc/passwd", "http://169.254.169.254/x", "http://u:p@127.0.0.1/", "ftp://x/"):
        server.get = lambda request, target=target: request.answer(302, Location=target)  # type: ignore[misc]
        with pytest.raises(NetworkError):
            artifacts.ensure(ben.tracker, items)
    server.get = lambda request: request.answer(302, Location="/again")
    with pytest.raises(NetworkError, match="redirects again and again"):
        artifacts.ensure(ben.tracker, items)


def client_at(*, anywhere: bool = True) -> http.Client:
    return http.Client("https://lfs.example.org/x", anywhere=anywhere)


HOME, OTHER = ("https", "lfs.example.org", 443), ("https", "store.example.org", 443)


@pytest.mark.parametrize(
    ("home", "address", "allowed"),
    [
        ("93.184.216.34", "1.1.1.1", True),
        ("93.184.216.34", "10.0.0.1", False),
        ("93.184.216.34", "127.0.0.1", False),
        ("93.184.216.34", "::1", False),
        ("93.184.216.34", "fd00::1", False),
        ("93.184.216.34", "169.254.169.254", False),
        ("10.0.0.5", "10.0.0.6", True),
        ("10.0.0.5", "1.1.1.1", True),
        ("10.0.0.5", "127.0.0.1", False),
        ("10.0.0.5", "169.254.169.254", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "fe80::1%eth0", False),
    ],
)
def test_a_server_does_not_send_us_nearer_than_it_is(home: str, address: str, allowed: bool) -> None:
    client = client_at()
    client.check_address(HOME, home)
    if allowed:
        client.check_address(OTHER, address)
    else:
        with pytest.raises(NetworkError, match="that is not followed"):
            client.check_address(OTHER, address)


@pytest.mark.parametrize(
    ("address", "allowed"), [("1.1.1.1", True), ("10.0.0.1", True), ("127.0.0.1", False), ("169.254.169.254", False)]
)
def test_a_server_that_a_file_of_the_repository_names(address: str, allowed: bool) -> None:
    if allowed:
        client_at(anywhere=False).check_address(HOME, address)
    else:
        with pytest.raises(NetworkError):
            client_at(anywhere=False).check_address(HOME, address)


def test_https_does_not_lead_to_http() -> None:
    assert http.check_url("https://h/x", secure=True) == "https://h/x"
    with pytest.raises(NetworkError, match="by https and gave an address without"):
        http.check_url("http://h/x", secure=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "b\r\nHost: evil"),
        ("X-A\r\n", "b"),
        ("Host", "evil"),
        ("Content-Length", "5"),
        ("a b", "c"),
        ("X", 5),
        ("", "x"),
    ],
)
def test_headers_that_are_not_sent(ben: Clone, server: FakeLfs, name: str, value: object) -> None:
    items = offer(server, SMALL)
    server.action = lambda operation, oid, size: {
        operation: {"href": f"{server.url}/store/{oid}", "header": {name: value}}
    }
    with pytest.raises(NetworkError, match="asks for"):
        artifacts.ensure(ben.tracker, items)


# --- https


@pytest.fixture
def secure(server: FakeLfs, ben: Clone, tmp_path: Path) -> Path:
    """The server speaks https, with a certificate that nobody knows; the certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scheme = "https"
    ben.git("remote", "set-url", "origin", f"{server.url}/team/project.git")
    return tmp_path / "cert"


def test_a_certificate_that_nobody_knows_is_refused(ben: Clone, server: FakeLfs, secure: Path) -> None:
    items = offer(server, SMALL)
    with pytest.raises(NetworkError, match="certificate verify failed") as failed:
        artifacts.ensure(ben.tracker, items)
    assert "http.sslCAInfo" in str(failed.value.hint)
    assert server.seen == []


@pytest.mark.parametrize("way", ["config", "environment"])
def test_a_certificate_of_ones_own(
    ben: Clone, server: FakeLfs, secure: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "config":
        ben.git("config", f"http.{server.url}.sslCAInfo", str(secure))
    else:
        monkeypatch.setenv("GIT_SSL_CAINFO", str(secure))
    items = ben.put(SMALL, LARGE)
    assert artifacts.upload(ben.tracker, None, items).count == 2
    for item in items:
        ben.tracker.repo.objects.delete(item.digest)
    assert artifacts.ensure(ben.tracker, items).count == 2
    server.action = lambda operation, oid, size: {operation: {"href": f"http://127.0.0.1:1/{oid}"}}
    ben.tracker.repo.objects.delete(items[0].digest)
    with pytest.raises(NetworkError, match="by https and gave an address without"):
        artifacts.ensure(ben.tracker, items)


# --- credentials


@pytest.fixture
def helper(tmp_path: Path, sealed_environment: Path) -> Path:
    """A credential helper that knows a password, and writes down what it is asked; the file it writes."""
    log = tmp_path / "helper.log"
    script = tmp_path / "helper"
    script.write_text(
        f'#!/bin/sh\necho "$1" >>{log}\ncat >>{log}\n'
        f'if [ "$1" = get ]; then echo username=ben; echo "password=$(cat {tmp_path}/password)"; fi\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "password").write_text(SECRET)
    with (sealed_environment / ".gitconfig").open("a") as file:
        file.write(f"[credential]\n\thelper = {script}\n")
    return log


def verbs(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line in ("get", "store", "erase")] if log.exists() else []


BASIC = "Basic " + base64.b64encode(f"ben:{SECRET}".encode()).decode()


def guard(server: FakeLfs, *steps: str) -> None:
    """Let some steps want the password."""
    for step in steps:
        plain = getattr(server, step)

        def guarded(request: Request, plain: Any = plain) -> None:
            if request.headers.get("Authorization") == BASIC:
                plain(request)
            else:
                request.body()
                request.answer(401, b'{"message": "who are you?"}', WWW_Authenticate="Basic")

        setattr(server, step, guarded)


@pytest.mark.parametrize("steps", [("batch",), ("batch", "get", "put", "verify"), ("get", "put", "verify")])
def test_credentials_come_from_git_and_are_asked_for_once(
    ben: Clone, server: FakeLfs, helper: Path, steps: tuple[str, ...]
) -> None:
    guard(server, *steps)
    items = ben.put(SMALL, LARGE)
    assert artifacts.upload(ben.tracker, None, items).count == 2
    gets, stores = verbs(helper).count("get"), verbs(helper).count("store")
    assert gets == stores
    assert gets in (1, 2)  # the question what is lacking, and the sending
    assert "host=127.0.0.1:" in helper.read_text()
    for item in items:
        ben.tracker.repo.objects.delete(item.digest)
    assert artifacts.ensure(ben.tracker, items).count == 2


def test_wrong_credentials_are_forgotten_and_not_told(
    ben: Clone, server: FakeLfs, helper: Path, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("wrong-" + SECRET)
    guard(server, "batch")
    with pytest.raises(NetworkError, match="answers 401: who are you") as failed:
        artifacts.ensure(ben.tracker, offer(server, SMALL))
    assert verbs(helper) == ["get", "erase"]
    assert SECRET not in repr(failed.value) + str(failed.value.hint)


def test_without_credentials_nobody_is_asked_where_there_is_no_terminal(ben: Clone, server: FakeLfs) -> None:
    guard(server, "batch")
    with pytest.raises(NetworkError, match="answers 401") as failed:
        artifacts.ensure(ben.tracker, offer(server, SMALL))
    assert "credentials that git keeps" in str(failed.value.hint)


def test_credentials_do_not_go_to_another_server(ben: Clone, server: FakeLfs, helper: Path) -> None:
    guard(server, "batch", "get")
    items = offer(server, SMALL)
    with fake() as other:
        other.objects.update(server.objects)
        server.action = lambda operation, oid, size: {operation: {"href": f"{other.url}/store/{oid}"}}
        artifacts.ensure(ben.tracker, items)
        assert [("Authorization" in headers) for headers in other.requests("GET")] == [False]

        ben.tracker.repo.objects.delete(items[0].digest)
        other.get = lambda request: request.answer(401, WWW_Authenticate="Basic")  # it may ask as much as it likes
        with pytest.raises(NetworkError, match="answers 401"):
            artifacts.ensure(ben.tracker, items)
        assert not any("Authorization" in headers for headers in other.requests("GET"))


def test_credentials_do_not_go_along_a_redirect(ben: Clone, server: FakeLfs, helper: Path) -> None:
    guard(server, "batch", "get")
    items = offer(server, SMALL)
    plain = server.get
    with fake() as other:
        other.objects.update(server.objects)

        def get(request: Request) -> None:
            if request.headers.get("Authorization") != BASIC:
                plain(request)
            else:
                request.answer(302, Location=f"{other.url}/store/{items[0].digest}")

        server.get = get
        token = {"Authorization": BASIC, "X-Token": "t"}
        server.action = lambda operation, oid, size: {operation: {"href": f"{server.url}/store/{oid}", "header": token}}
        artifacts.ensure(ben.tracker, items)
        (headers,) = other.requests("GET")
        assert not {"authorization", "x-token", "cookie"} & {name.lower() for name in headers}


def test_a_batch_that_is_redirected_takes_no_credentials_along(ben: Clone, server: FakeLfs, helper: Path) -> None:
    with fake() as other:

        def batch(request: Request) -> None:
            request.body()
            if request.headers.get("Authorization") != BASIC:
                request.answer(401)
            else:
                request.answer(307, Location=f"{other.url}/team/project.git/info/lfs/objects/batch")

        server.batch = batch
        items = offer(other, SMALL)
        artifacts.ensure(ben.tracker, items)
        assert not any("Authorization" in headers for _, _, headers in other.seen)


def test_credentials_in_the_address_are_used_and_not_shown(ben: Clone, server: FakeLfs) -> None:
    host = server.url.removeprefix("http://")
    ben.git("remote", "set-url", "origin", f"http://ben:{SECRET}@{host}/team/project.git")
    guard(server, "batch")
    items = offer(server, SMALL)
    artifacts.ensure(ben.tracker, items)
    with pytest.raises(NotFoundError) as failed:
        artifacts.ensure(ben.tracker, [ITEM])
    assert SECRET not in repr(failed.value)
    server.batch = refusing(500)
    with pytest.raises(NetworkError) as broken:
        artifacts.ensure(ben.tracker, [ITEM])
    assert SECRET not in repr(broken.value)


def test_a_header_of_the_persons_config_goes_to_that_server_only(ben: Clone, server: FakeLfs) -> None:
    """What the checkout action of a well-known host leaves behind for its jobs."""
    ben.git("config", f"http.{server.url}/.extraheader", f"AUTHORIZATION: {BASIC}")
    guard(server, "batch")
    items = offer(server, SMALL)
    with fake() as other:
        other.objects.update(server.objects)
        server.action = lambda operation, oid, size: {operation: {"href": f"{other.url}/store/{oid}"}}
        artifacts.ensure(ben.tracker, items)
        assert not any(name.lower() == "authorization" for headers in other.requests("GET") for name in headers)


# --- the repository's own words


@pytest.mark.parametrize("url", ["file:///srv/other", "/srv/other", "../other"])
def test_lfsconfig_names_no_folder(ben: Clone, url: str) -> None:
    (ben.path / ".lfsconfig").write_text(f"[lfs]\n\turl = {url}\n")
    with pytest.raises(UnsupportedError, match="names a folder of this machine"):
        artifacts.ensure(ben.tracker, [ITEM])


def test_lfsconfig_sends_us_to_no_server_on_this_machine(ben: Clone, server: FakeLfs) -> None:
    ben.git("config", "remote.origin.lfsurl", "https://lfs.example.org/")
    (ben.path / ".lfsconfig").write_text(f"[lfs]\n\turl = {server.url}/info/lfs\n")
    with pytest.raises(NetworkError, match="on this machine; that is not followed"):
        artifacts.ensure(ben.tracker, offer(server, SMALL))
    assert server.seen == []
    ben.git("config", "lfs.url", f"{server.url}/info/lfs")  # the person may say so
    artifacts.ensure(ben.tracker, offer(server, SMALL))


def test_lfsconfig_cannot_say_anything_else(ben: Clone, tmp_path: Path) -> None:
    (ben.path / ".lfsconfig").write_text(
        f'[core]\n\tsshCommand = touch {tmp_path}/pwned\n[url "file:///srv/"]\n\tinsteadOf = http://\n'
        f'[include]\n\tpath = {tmp_path}/more\n[remote "origin"]\n\turl = /srv/x\n\tlfspushurl = http://evil/\n'
    )
    (tmp_path / "more").write_text("[lfs]\n\turl = http://evil/\n")
    found = endpoints.GitSettings.read(Repo.find(ben.path))
    assert found.shipped == {}


def test_ssh_command_of_the_repository_does_not_count(ben: Clone, sealed_environment: Path) -> None:
    ben.git("config", "core.sshCommand", "touch pwned")
    assert endpoints.GitSettings.read(ben.tracker.repo).get("core.sshcommand") is None
    with (sealed_environment / ".gitconfig").open("a") as file:
        file.write("[core]\n\tsshCommand = ssh -i ~/.ssh/lab\n")
    assert endpoints.GitSettings.read(ben.tracker.repo).get("core.sshcommand") == "ssh -i ~/.ssh/lab"


@pytest.mark.parametrize(
    "url",
    [
        "ssh://-oProxyCommand=touch%20pwned/x",
        "ssh://h/-x",
        "ssh://-u@h/x",
        "-oProxyCommand=x:y",
        "h:-x",
        "ssh://h/a%0ab",
        "ssh:///x",
    ],
)
def test_ssh_addresses_that_are_options_are_refused(url: str) -> None:
    if url == "ssh://h/-x":  # behind a slash it is none
        assert isinstance(endpoints.place(url, Path("/"), lfs=False), Server)
        return
    with pytest.raises(InvalidValueError, match="cannot be part of an ssh address"):
        endpoints.place(url, Path("/"), lfs=False)


@pytest.mark.parametrize("url", ["ext::sh -c true", "fd::7", "ftp://h/x", "rsync://h/x", "foo::http://h/x"])
def test_addresses_of_other_kinds_have_no_artifacts(url: str) -> None:
    with pytest.raises(UnsupportedError):
        endpoints.place(url, Path("/"), lfs=False)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://h/a/b.git", Server("https://h/a/b.git/info/lfs")),
        ("https://h/a/b", Server("https://h/a/b.git/info/lfs")),
        ("https://h/a/b/", Server("https://h/a/b.git/info/lfs")),
        ("http://u@h:81/b.git", Server("http://h:81/b.git/info/lfs", None, "u")),
        ("https://u:p%40@h/b.git", Server("https://h/b.git/info/lfs", None, "u", "p@")),
        ("git://h/b.git", Server("https://h/b.git/info/lfs")),
        ("git@h:a/b.git", Server(ssh=Ssh("h", "a/b.git", "git"))),
        ("h:/a/b.git", Server(ssh=Ssh("h", "/a/b.git"))),
        ("ssh://git@h:22/a/b.git", Server(ssh=Ssh("h", "/a/b.git", "git", 22))),
        ("[::1]:b.git", Server(ssh=Ssh("::1", "b.git"))),
        ("file:///a%20b", Path("/a b")),
        ("../x", Path("/base/../x")),
        ("/x", Path("/x")),
    ],
)
def test_addresses_are_read_as_git_lfs_reads_them(url: str, wanted: object) -> None:
    assert endpoints.place(url, Path("/base"), lfs=False) == wanted


# --- time


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depots, "_ATTEMPTS", 1)
    monkeypatch.setattr(lfs, "_API_S", 0.6)
    monkeypatch.setattr(http, "_SLOW_S", 0.6)


def drip(request: Request, data: bytes) -> None:
    for byte in data:
        request.wfile.write(bytes([byte]))
        time.sleep(0.05)


def slow_body(request: Request) -> None:
    request.head(200, Content_Length=str(len(LARGE)))
    drip(request, b" " * 200)


SLOW: dict[str, Handle] = {
    "silence": lambda request: time.sleep(5),
    "headers": lambda request: drip(request, b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100),
    "body": slow_body,
}


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("how", SLOW)
@pytest.mark.parametrize("step", ["batch", "get", "verify"])
def test_a_slow_server_is_left(ben: Clone, server: FakeLfs, how: str, step: str) -> None:
    items = offer(server, LARGE)

    def slow(request: Request) -> None:
        request.body()
        SLOW[how](request)

    setattr(server, step, slow)
    before = time.monotonic()
    new = ben.put(b"new")
    with pytest.raises(NetworkError, match=r"too slow|no answer in time") as failed:
        _ = artifacts.upload(ben.tracker, None, new) if step == "verify" else artifacts.ensure(ben.tracker, items)
    assert time.monotonic() - before < 4
    assert "run the same command again" in str(failed.value.hint)


@pytest.mark.usefixtures("hurry")
def test_a_server_that_does_not_read_is_left(ben: Clone, server: FakeLfs) -> None:
    server.put = lambda request: time.sleep(5)
    before = time.monotonic()
    with pytest.raises(NetworkError, match="too slow"):
        artifacts.upload(ben.tracker, None, ben.put(LARGE * 4))
    assert time.monotonic() - before < 4


# --- trouble that passes, and trouble that does not


def test_a_busy_server_is_asked_again(ben: Clone, server: FakeLfs) -> None:
    items = offer(server, SMALL, LARGE)
    plain, calls = {step: getattr(server, step) for step in ("batch", "get")}, {"batch": 0, "get": 0}

    def busy(step: str) -> Any:
        def handle(request: Request) -> None:
            calls[step] += 1
            if calls[step] <= 2:
                request.body()
                request.answer(429 if calls[step] == 1 else 503, Retry_After="0")
            else:
                plain[step](request)

        return handle

    server.batch, server.get = busy("batch"), busy("get")
    assert artifacts.ensure(ben.tracker, items).count == 2


@pytest.mark.parametrize(("status", "tries"), [(503, 5), (507, 1), (400, 1)])
def test_trouble_that_stays_is_told(ben: Clone, server: FakeLfs, status: int, tries: int) -> None:
    server.put = refusing(status)
    with pytest.raises(NetworkError, match=f"answers {status}"):
        artifacts.upload(ben.tracker, None, ben.put(SMALL))
    assert len(server.requests("PUT")) == tries
    server.put = server.good_put
    assert artifacts.upload(ben.tracker, None, ben.put(SMALL)).count == 1


def test_a_long_pause_is_told_on_and_not_waited_for(ben: Clone, server: FakeLfs) -> None:
    server.batch = refusing(429, Retry_After="86400")
    with pytest.raises(NetworkError, match="answers 429"):
        artifacts.ensure(ben.tracker, [ITEM])
    assert len(server.seen) == 1


def test_a_server_that_does_not_confirm(ben: Clone, server: FakeLfs) -> None:
    server.verify = refusing(422)
    with pytest.raises(NetworkError, match="does not confirm it"):
        artifacts.upload(ben.tracker, None, ben.put(SMALL))


def test_a_batch_that_is_too_large_is_halved(ben: Clone, server: FakeLfs) -> None:
    items = offer(server, *(b"%d" % number for number in range(40)))
    plain = server.batch

    def batch(request: Request) -> None:
        if int(request.headers["Content-Length"]) > 1500:
            request.body()
            request.answer(413)
        else:
            plain(request)

    server.batch = batch
    assert artifacts.ensure(ben.tracker, items).count == 40


def test_leave_that_ends_is_asked_for_anew(ben: Clone, server: FakeLfs) -> None:
    items = offer(server, SMALL)
    good: set[str] = set()

    def action(operation: str, oid: str, size: int) -> dict[str, Any]:
        number = len(good)
        good.clear()
        good.update(f"{oid}{n}" for n in range(number + 1))
        return {operation: {"href": f"{server.url}/{number}/{oid}", "expires_in": 3600}}

    plain = server.get
    server.action = action
    server.get = lambda request: request.answer(403) if request.path.startswith("/0/") else plain(request)
    assert artifacts.ensure(ben.tracker, items).count == 1
    assert [path.split("/")[1] for verb, path, _ in server.seen if verb == "GET"] == ["0", "1"]


def test_a_remote_without_lfs_says_what_to_do(ben: Clone, server: FakeLfs) -> None:
    server.batch = refusing(404)
    with pytest.raises(NetworkError, match="no LFS for this repository") as failed:
        artifacts.upload(ben.tracker, None, ben.put(SMALL))
    assert "git config gittrack.artifacts" in str(failed.value.hint)
    with pytest.raises(NotFoundError, match="neither in this clone nor at"):
        artifacts.ensure(ben.tracker, [ITEM])


# --- ssh


@pytest.fixture
def by_ssh(ben: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh that writes its words down and runs a script instead; the script."""
    script, log = tmp_path / "authenticate", tmp_path / "ssh.log"
    program = tmp_path / "ssh program"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{log}"\nenv | grep ^GIT_ >>"{log}"\n. "{script}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", f"'{program}' -4")
    ben.git("remote", "set-url", "origin", "ssh://git@127.0.0.1:2222/team/my project.git")
    return script


def test_ssh_gives_address_and_credentials(ben: Clone, server: FakeLfs, by_ssh: Path, tmp_path: Path) -> None:
    guard(server, "batch", "get", "put", "verify")
    answer = {"href": f"{server.url}/team/project.git/info/lfs", "header": {"Authorization": BASIC}, "expires_in": 60}
    by_ssh.write_text(f"cat <<'E'\n{json.dumps(answer)}\nE\n")
    ben.git("remote", "set-url", "origin", "ssh://git@127.0.0.1:2222/team/my%20project's.git")
    items = ben.put(SMALL, LARGE)
    assert artifacts.upload(ben.tracker, None, items).count == 2
    words = (tmp_path / "ssh.log").read_text().splitlines()
    assert words[:5] == [
        "-4",
        "-p",
        "2222",
        "git@127.0.0.1",
        "git-lfs-authenticate '/team/my project'\"'\"'s.git' upload",
    ]
    assert not any(word.startswith("GIT_") for word in words)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 127", "has no `git-lfs-authenticate`"),
        ("echo 'Permission denied (publickey).' >&2; exit 255", "Permission denied"),
        ("echo '<html>'", "does not answer in JSON"),
        ("echo '{}'", "as an address, which is none"),
        ('echo \'{"href": "ftp://h/etc"}\'', "only http and https are followed"),
        ('echo \'{"href": "http://169.254.169.254/x"}\'', "not be reached|no answer|unreachable|refused|link|169"),
        ("head -c 5000000 /dev/zero", "169|127.0.0.1"),
    ],
)
def test_what_ssh_may_not_answer(
    ben: Clone, by_ssh: Path, script: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "is_here", lambda host: False)
    by_ssh.write_text(script + "\n")
    with pytest.raises(GittrackError, match=message):
        artifacts.ensure(ben.tracker, [ITEM])
