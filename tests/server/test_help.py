"""What `gittrack help server` tells people to copy is what the programs take that it is for."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import gittrack
from gittrack.cli.server import start
from tests.databases import start_server

pytestmark = pytest.mark.any_backend  # its server has what the page says
PAGE = (Path(gittrack.__file__).parent / "help/server.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def check_options(line: str) -> None:
    """Fail if `gittrack server` does not take the options of a command line."""
    words = shlex.split(line)
    words = words[words.index("server") + 1 :]
    start.make_context("start", words, resilient_parsing=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd looks at its unit")
def test_the_unit(tmp_path: Path) -> None:
    unit = block("ini")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit.replace("\\\n", ""), re.MULTILINE)
    check_options(command)
    program = shutil.which("true")
    assert program is not None
    text = unit.replace("/opt/gittrack/bin/gittrack", program).replace("User=gittrack", "User=root")
    (tmp_path / "gittrack.service").write_text(text)
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "gittrack.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "gittrack.service" not in found.stderr, found.stderr


def test_the_composition() -> None:
    composed: Any = yaml.safe_load(block("yaml"))
    services = composed["services"]
    check_options(services["server"]["command"])
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in composed["volumes"], volume
        assert set(service.get("depends_on", ())) <= set(services)
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    secrets = re.findall(r"PASSWORD[A-Z_]*: (\S+)", block("yaml"))
    assert secrets
    assert all("${" in one for one in secrets), "a password is written down"


@contextlib.contextmanager
def running(command: list[str], folder: Path, environ: Mapping[str, str], log: Path) -> Iterator[None]:
    """A program, which is told to end as `docker stop` does, and ends well."""
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=said, stderr=said)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


class Asking:
    """Somebody who asks for `hub.example.org` at a port of this machine."""

    def __init__(self, port: int, **headers: str) -> None:
        self._port = port
        self._headers = {"host": "hub.example.org", **{name.replace("_", "-"): text for name, text in headers.items()}}

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"content-type": "application/json"} if data is not body else {}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            connection.request(method, path, data, {**self._headers, **kind, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def json(self, path: str, body: Any) -> Any:
        """What is answered to a call of MLflow's API that works."""
        status, text = self("POST", f"/api/2.0/mlflow/{path}", body)
        assert status == 200, text
        return json.loads(text)

    def until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                if self("GET", "/health") == (200, b"OK"):
                    return
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Composition:
    """The server of the composition, which runs.

    Attributes:
        services: What the page says, with passwords.
        port: Where the server listens.
        token: That of an administrator.
        hub: The repository.
        environ: The server's environment.
        store: A client of the S3.
        bucket: What it keeps the artifacts in.
    """

    services: Any
    port: int
    token: str
    hub: Path
    environ: dict[str, str]
    store: Any
    bucket: str


GITTRACK = [sys.executable, "-m", "gittrack"]


@pytest.fixture(scope="module")
def composition(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    """Its server with PostgreSQL and an S3, as programs of this machine instead of containers.

    What is replaced are the names and ports of the other services, the network that the proxy is in, which is 127.0.0.1
    here, and the port that the server listens on.
    """
    import boto3

    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'gittrack[postgres]'")
    folder = tmp_path_factory.mktemp("composition")
    known = {"DB_PASSWORD": secrets.token_urlsafe(), "S3_PASSWORD": secrets.token_urlsafe()}
    text = re.sub(r"\$\{(\w+):\?\}", lambda found: known[found[1]], block("yaml"))
    services: Any = yaml.safe_load(text)["services"]
    make_bucket, make_token = re.findall(r"^docker compose run --rm (.*)$", PAGE, re.MULTILINE)
    port, of_database = free_port(), free_port()
    with ExitStack() as stack:
        database, facts = start_server(stack), services["db"]["environment"]
        database.listen(of_database)
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {facts['POSTGRES_USER']} LOGIN PASSWORD '{facts['POSTGRES_PASSWORD']}'")
            connection.execute(f"CREATE DATABASE {facts['POSTGRES_DB']} OWNER {facts['POSTGRES_USER']}")

        command, environ = services["server"]["command"], dict(services["server"]["environment"])
        for old, new in (
            ("@db/", f"@127.0.0.1:{of_database}/"),
            ("http://s3:9000", s3.replace("127.0.0.1", "localhost")),  # a name, as there
            ("--trusted-proxy 172.16.0.0/12", "--trusted-proxy 127.0.0.1"),
        ):
            assert old in f"{command} {environ}"
            command = command.replace(old, new)
            environ = {key: value.replace(old, new) for key, value in environ.items()}
        (folder / "home").mkdir()  # nobody has told git who he is
        environ |= {"HOME": str(folder / "home"), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}

        # A folder in the data of MinIO is a bucket.
        (bucket,) = re.findall(r"s3 -c 'mkdir -p /data/(\w+)'", make_bucket)
        assert services["s3"]["volumes"] == ["s3:/data"]
        facts = services["s3"]["environment"]
        login = {"aws_access_key_id": facts["MINIO_ROOT_USER"], "aws_secret_access_key": facts["MINIO_ROOT_PASSWORD"]}
        assert {environ[name.upper()] for name in login} == set(login.values())
        store = boto3.client("s3", endpoint_url=s3, region_name="us-east-1", **login)
        stack.callback(store.close)
        store.create_bucket(Bucket=bucket)

        hub = folder / "hub"
        subprocess.run(["git", "init", "-q", "--bare", str(hub)], env=environ, check=True)
        words = make_token.removeprefix("server gittrack ").split()
        token = subprocess.run([*GITTRACK, *words], cwd=hub, env=environ, check=True, capture_output=True, text=True)
        words = [*shlex.split(command)[1:], f"--port={port}"]
        with running([*GITTRACK, *words], hub, environ, folder / "server.log"):
            Asking(port).until_it_answers()
            yield Composition(services, port, token.stdout.strip(), hub, environ, store, bucket)
    for line in (folder / "server.log").read_text().splitlines():
        assert not line.startswith("{") or json.loads(line)["level"] == "info", line


def test_the_composition_works(composition: Composition) -> None:
    proxied = {"x_forwarded_for": "203.0.113.9", "x_forwarded_proto": "https", "x_forwarded_host": "hub.example.org"}
    stranger = Asking(composition.port, **proxied)
    ana = Asking(composition.port, authorization=f"Bearer {composition.token}", **proxied)
    assert stranger("GET", "/ready") == (200, b"OK")
    assert stranger("POST", "/api/2.0/mlflow/runs/create", {})[0] == 401
    assert ana("POST", "/api/2.0/mlflow/runs/create", {}, host="evil.example.org")[0] == 421
    run_id = ana.json("runs/create", {"run_name": "composed"})["run"]["info"]["run_id"]
    assert ana.json("runs/log-metric", {"run_id": run_id, "key": "acc", "value": 0.5, "timestamp": 1}) == {}
    file, data = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/weights", os.urandom(300_000)
    assert ana("PUT", file, data)[0] == 200
    assert ana("GET", file) == (200, data)
    assert stranger("GET", file)[0] == 401
    digest = hashlib.sha256(data).hexdigest()
    kept = composition.store.list_objects_v2(Bucket=composition.bucket, Prefix="hub/")["Contents"]
    assert (f"hub/{digest[:2]}/{digest[2:4]}/{digest}", len(data)) in [(one["Key"], one["Size"]) for one in kept]
    assert ana.json("runs/update", {"run_id": run_id, "status": "FINISHED"})["run_info"]["status"] == "FINISHED"
    assert ana.json("runs/delete", {"run_id": run_id}) == {}  # which the audit log tells
    told = subprocess.run(
        [*GITTRACK, "server", "audit", "show", "--json"],
        cwd=composition.hub, env=composition.environ, check=True, capture_output=True,
    )  # fmt: skip
    assert ("ana", "203.0.113.9") in [(one["who"], one["address"]) for one in json.loads(told.stdout)]
    # Nothing of it is where it would be without the options.
    assert not list(composition.hub.rglob("*.db"))
    assert not [one for one in (composition.hub / ".gittrack/objects").rglob("*") if one.is_file()]


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")
def test_the_proxy_of_the_composition(composition: Composition, tmp_path: Path) -> None:
    """Without TLS and so without the name, which Caddy would ask the world for a certificate for.

    One of its own (`--internal-certs`) it would put among those that this machine trusts.
    """
    port = free_port()
    command = composition.services["proxy"]["command"]
    for old, new in (
        ("--from hub.example.org", f"--from http://:{port}"),
        ("--to server:5000", f"--to 127.0.0.1:{composition.port}"),
    ):
        assert old in command
        command = command.replace(old, new)
    (listening,) = (one.default for one in start.params if one.name == "port")
    assert listening == 5000
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    with running(shlex.split(command), tmp_path, environ, tmp_path / "log"):
        stranger = Asking(port)
        stranger.until_it_answers()
        ana = Asking(port, authorization=f"Bearer {composition.token}")
        assert stranger("POST", "/api/2.0/mlflow/runs/create", {})[0] == 401
        run_id = ana.json("runs/create", {})["run"]["info"]["run_id"]
        file, data = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/weights", os.urandom(9 << 20)
        assert ana("PUT", file, data)[0] == 200
        assert ana("GET", file) == (200, data)
        assert ana("GET", file, host="evil.example.org")[0] == 421


def test_the_settings_are_those_of_the_program() -> None:
    options = {name for one in start.params if isinstance(one, click.Option) for name in one.opts}
    part = PAGE.partition("| Setting | |")[2].partition("\n\n")[0]
    named = set(re.findall(r"--[a-z][a-z-]+", part))
    assert named
    assert named <= options
