"""`gittrack server` with a certificate of an authority that the test makes."""

import http.client
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gittrack.errors import GittrackError, InvalidValueError, StorageError
from gittrack.server.tls import Files, Tls
from tests.conftest import Sandbox
from tests.server.guarded import Guarded, bearer, options

pytestmark = pytest.mark.any_backend  # of connections
trustme = pytest.importorskip("trustme", reason="makes certificates")


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


def issue(authority: Any, folder: Path, name: str = "127.0.0.1") -> Files:
    made = authority.issue_cert(name)
    files = Files(folder / "cert.pem", folder / "key.pem")
    made.private_key_pem.write_to_path(str(files.key))
    files.certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    return files


def test_a_server_with_tls_and_a_renewed_certificate(authority: Any, git_repo: Sandbox, tmp_path: Path) -> None:
    files = issue(authority, tmp_path)
    command = [sys.executable, "-m", "gittrack", "server", "--port", "0", "--ssl-certfile", str(files.certificate),
               "--ssl-keyfile", str(files.key), "--ssl-min-version", "1.3"]  # fmt: skip
    server = subprocess.Popen(command, cwd=git_repo.path, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        said = server.stderr.readline()
        assert "at https://127.0.0.1:" in said, said
        port = int(said.partition("https://127.0.0.1:")[2].partition(" ")[0])
        context = ssl.create_default_context()
        authority.configure_trust(context)

        def number() -> int:
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
            try:
                connection.request("GET", "/health")
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b"OK")
                assert connection.sock.version() == "TLSv1.3"
                shown = connection.sock.getpeercert()
                assert shown is not None
                return int(str(shown["serialNumber"]), 16)
            finally:
                connection.close()

        first = number()
        files.key.write_text("no key")  # half of a renewal: the old one is used further on
        server.send_signal(signal.SIGHUP)
        assert "could not be renewed" in wait_for_line(server, "certificate")
        assert number() == first
        issue(authority, tmp_path)
        server.send_signal(signal.SIGHUP)
        wait_for_line(server, "read anew")
        assert number() != first
        old = ssl.create_default_context()
        authority.configure_trust(old)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=old).request("GET", "/health")
        stranger = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.request("GET", "/health")
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.communicate()


def wait_for_line(server: "subprocess.Popen[str]", text: str) -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if text in line:
            return line
    raise AssertionError(text)


def test_a_certificate_that_changed_is_seen(authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gittrack.server.tls._SECONDS", 0.01)
    tls = Tls(issue(authority, tmp_path))
    before = tls._newest
    with tls.watching():
        time.sleep(0.05)
        assert tls._newest is before
        issue(authority, tmp_path)
        deadline = time.monotonic() + 10
        while tls._newest is before and time.monotonic() < deadline:
            time.sleep(0.01)
    assert tls._newest is not before


def test_what_is_wrong_is_said_before_anything_is_bound(authority: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files, other = issue(authority, tmp_path), issue(authority, tmp_path / "other")
    said: list[tuple[Files, type[GittrackError], str]] = [
        (Files(tmp_path / "none.pem", files.key), StorageError, "none.pem` cannot be read"),
        (Files(files.certificate, other.key), InvalidValueError, "is not that of the certificate"),
        (Files(files.key, files.key), InvalidValueError, "holds no certificate"),
        (Files(files.certificate, files.certificate), InvalidValueError, "cannot be used"),
    ]
    for bad, kind, text in said:
        with pytest.raises(kind, match=text):
            bad.load()


def test_an_encrypted_key(authority: Any, tmp_path: Path) -> None:
    files = issue(authority, tmp_path)
    command = ["openssl", "pkey", "-in", str(files.key), "-aes256", "-passout", "pass:sesame"]
    subprocess.run([*command, "-out", str(tmp_path / "locked")], check=True)
    for word, good in (("sesame", True), ("wrong", False), ("", False)):
        (tmp_path / "word").write_text(f"{word}\n")
        locked = Files(files.certificate, tmp_path / "locked", tmp_path / "word")
        if good:
            locked.load()
        else:
            with pytest.raises(InvalidValueError, match="password is missing or wrong"):
                locked.load()
    with pytest.raises(InvalidValueError, match="password is missing or wrong"):
        Files(files.certificate, tmp_path / "locked").load()


def test_browsers_keep_to_tls(tmp_path: Path) -> None:
    team = Guarded(tmp_path, options(hosts=frozenset(("hub.example",)), loopback=False, secure=True))
    token = team.token()
    header = "strict-transport-security"
    assert team.ask(host="hub.example", headers=bearer(token)).headers[header] == "max-age=31536000"
    assert header in team.ask(host="hub.example").headers  # a refusal, too
    assert header not in team.with_options(secure=False).ask(host="hub.example").headers
    assert header not in team.with_options(loopback=True).ask(host="hub.example").headers


@pytest.mark.skipif(os.name != "posix", reason="SIGHUP")
def test_a_certificate_needs_its_key(git_repo: Sandbox, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gittrack", "server", "--ssl-certfile", str(tmp_path / "x")]
    found = subprocess.run(command, cwd=git_repo.path, capture_output=True, text=True, check=False)
    assert (found.returncode, "go together" in found.stderr) == (2, True)
