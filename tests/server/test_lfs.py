"""The server as an LFS server: stock git-lfs, gittrack, and whoever sends something else."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.server.hub import lfs
from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.sync import artifacts
from gittrack.types import Digest
from tests.conftest import Sandbox, run_git
from tests.server.backend import damage
from tests.server.conftest import Answer
from tests.server.remote import Served, ask, serving
from tests.server.test_git import desk
from tests.sync.conftest import closed_desks, hub  # noqa: F401 - fixtures

JSON = "application/vnd.git-lfs+json"
LFS = "/git/default.git/info/lfs"
DATA = b"some bytes of a model"
OID = hashlib.sha256(DATA).hexdigest()
FULL = os.environ.get("GITTRACK_FAULTS") == "full"
EVERYTHING = Caller("ana", (Grant(Role.WRITER, "*", "*"),), "token")
SOME = Caller("bo", (Grant(Role.WRITER, "team-a/*"),), "token")
READS = Caller("cy", (Grant(Role.READER, "*", "*"),), "token")


@pytest.fixture
def served(hub: Sandbox) -> Iterator[Served]:  # noqa: F811
    with serving(hub.path) as found:
        yield found


def batch(served: Served, operation: str, *objects: tuple[str, Any], token: str | None = None, **more: Any) -> Answer:
    body = {"operation": operation, "objects": [{"oid": oid, "size": size} for oid, size in objects], **more}
    return ask(served, "POST", f"{LFS}/objects/batch", json.dumps(body).encode(), token, content_type=JSON)


def stored(served: Served) -> dict[str, int]:
    objects = served.hub.tracker.repo.objects
    assert not list(objects._temp.glob("*"))
    return dict(objects.iter_digests())


def test_up_and_down(served: Served) -> None:
    found = batch(served, "upload", (OID, len(DATA)))
    assert (found.status, found.headers["content-type"]) == (200, JSON)
    actions = found.json["objects"][0]["actions"]
    assert actions["upload"]["href"] == f"{served.url}/git/default/info/lfs/objects/{OID}"
    assert ask(served, "PUT", f"{LFS}/objects/{OID}", DATA).status == 200
    said = json.dumps({"oid": OID, "size": len(DATA)}).encode()
    assert ask(served, "POST", f"{LFS}/verify", said, content_type=JSON).status == 200
    assert "actions" not in batch(served, "upload", (OID, len(DATA))).json["objects"][0], "it is here"
    down = batch(served, "download", (OID, len(DATA))).json["objects"][0]["actions"]["download"]["href"]
    got = ask(served, "GET", down.removeprefix(served.url))
    assert (got.status, got.body) == (200, DATA)
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-type"] == "application/octet-stream"


def test_parts_of_an_object(served: Served) -> None:
    ask(served, "PUT", f"{LFS}/objects/{OID}", DATA)
    for asked, status, body in (
        ("bytes=5-", 206, DATA[5:]), ("bytes=0-0", 206, DATA[:1]), ("bytes=3-6", 206, DATA[3:7]),
        (f"bytes={len(DATA)}-", 416, b""), ("bytes=9-3", 416, b""), ("bytes=5-999", 206, DATA[5:]),
        ("lines=1-2", 200, DATA), ("bytes=-5", 206, DATA[-5:]), ("bytes=0-1,3-4", 200, DATA),
    ):  # fmt: skip
        got = ask(served, "GET", f"{LFS}/objects/{OID}", range=asked)
        assert (asked, got.status, got.body) == (asked, status, body)
    assert ask(served, "GET", f"{LFS}/objects/{OID}", range="bytes=3-6").headers["content-range"] == "bytes 3-6/21"


def test_other_bytes_are_not_stored(served: Served) -> None:
    assert ask(served, "PUT", f"{LFS}/objects/{OID}", b"others").status == 422
    assert stored(served) == {}
    ask(served, "PUT", f"{LFS}/objects/{OID}", DATA)
    assert ask(served, "PUT", f"{LFS}/objects/{OID}", b"others").status == 422
    assert ask(served, "PUT", f"{LFS}/objects/{OID}", DATA).status == 200
    assert ask(served, "GET", f"{LFS}/objects/{OID}").body == DATA
    assert stored(served) == {OID: len(DATA)}


@pytest.mark.parametrize("oid", ["../../x", "0" * 63, "A" * 64, "..%2f..%2fx", "0" * 65, "%00", "0" * 63 + "g"])
def test_what_names_no_object(served: Served, oid: str) -> None:
    for method in ("GET", "PUT"):
        answer = ask(served, method, f"{LFS}/objects/{oid}", DATA if method == "PUT" else None)
        assert answer.status == 404, answer.body
    assert stored(served) == {}
    found = batch(served, "download", (oid, 1)).json["objects"][0]
    assert found["error"]["code"] == 422


def test_single_objects_fail_alone(served: Served) -> None:
    ask(served, "PUT", f"{LFS}/objects/{OID}", DATA)
    found = batch(served, "download", (OID, 21), (OID, 20), ("0" * 64, 1), (OID, -1), (OID, "x"), (OID, True))
    codes = [one.get("error", {}).get("code") for one in found.json["objects"]]
    assert (found.status, codes) == (200, [None, 422, 404, 422, 422, 422])


def test_requests_that_cannot_be(served: Served) -> None:
    def post(body: bytes, kind: str = JSON, path: str = "objects/batch") -> Answer:
        return ask(served, "POST", f"{LFS}/{path}", body, content_type=kind)

    assert post(b"{").status == 400
    assert post(b"[]").status == 400
    assert post(b"\xff").status == 400
    assert post(b"{}", "text/plain").status == 415
    assert post(b'{"operation": "delete", "objects": []}').status == 400
    assert post(b'{"operation": "upload"}').status == 400
    assert post(b'{"operation": "upload", "objects": [], "transfers": ["ssh"]}').status == 501
    assert post(b'{"operation": "upload", "objects": [7, null]}').json["objects"][1]["error"]["code"] == 422
    assert post(b" " * (5 << 20)).status == 413
    assert batch(served, "upload", *[(OID, 1)] * 1001).status == 413
    assert post(json.dumps({"oid": "0" * 64, "size": 1}).encode(), path="verify").status == 404
    assert ask(served, "POST", "/git/nothing/info/lfs/objects/batch", b"{}", content_type=JSON).status in (400, 404)
    for path in ("locks", "locks/verify", "locks/7/unlock"):
        answer = post(b"{}", path=path)
        assert (answer.status, answer.headers["content-type"]) == (501, JSON)
        assert "locked" in answer.json["message"]


def test_hosts_that_cannot_be(served: Served) -> None:
    for host in ("a b", "x/y", "h\x7f", "a@b", ""):
        raw = f"POST {LFS}/objects/batch HTTP/1.1\r\nHost: {host}\r\nContent-Type: {JSON}\r\n".encode("latin-1")
        body = json.dumps({"operation": "upload", "objects": [{"oid": OID, "size": 1}]}).encode()
        with socket.create_connection(("127.0.0.1", served.port), 10) as wire:
            wire.sendall(raw + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert wire.makefile("rb").readline().split()[1] == b"400"


def test_the_address_that_was_configured(hub: Sandbox) -> None:  # noqa: F811
    with serving(hub.path, public="https://hub.example.org/") as found:
        href = batch(found, "upload", (OID, 1)).json["objects"][0]["actions"]["upload"]["href"]
    assert href == f"https://hub.example.org/git/default/info/lfs/objects/{OID}"


def test_who_may(served: Served) -> None:
    served.callers |= {"a": EVERYTHING, "b": SOME, "c": READS}
    assert ask(served, "PUT", f"{LFS}/objects/{OID}", DATA, "c").status == 403
    assert batch(served, "upload", (OID, 1), token="c").status == 403
    nobody = batch(served, "download", (OID, 1))
    assert (nobody.status, nobody.headers["lfs-authenticate"][:5]) == (401, "Basic")
    assert ask(served, "PUT", f"{LFS}/objects/{OID}", DATA, "a").status == 200
    assert "actions" not in batch(served, "upload", (OID, 21), token="a").json["objects"][0]
    found = batch(served, "upload", (OID, 21), token="b").json["objects"][0]
    assert "actions" in found, "who may not see everything is not told what is here"
    assert ask(served, "GET", f"{LFS}/objects/{OID}", token="c").body == DATA


def test_limits(hub: Sandbox) -> None:  # noqa: F811
    large = os.urandom(1001)
    name = hashlib.sha256(large).hexdigest()
    with serving(hub.path, lfs_bounds=lfs.Bounds(object=1000, batch=2, silence=0.5)) as served:
        assert batch(served, "upload", (name, 1001)).json["objects"][0]["error"]["code"] == 422
        assert ask(served, "PUT", f"{LFS}/objects/{name}", large).status == 413
        pieces = iter([large[:600], large[600:]])
        assert ask(served, "PUT", f"{LFS}/objects/{name}", pieces).status == 413, "nor in chunks"
        assert batch(served, "download", *[(OID, 1)] * 3).status == 413
        with socket.create_connection(("127.0.0.1", served.port), 10) as wire:
            wire.sendall(f"PUT {LFS}/objects/{OID} HTTP/1.1\r\nHost: x\r\nContent-Length: 21\r\n\r\nsome".encode())
            assert wire.makefile("rb").readline().split()[1] == b"504", "a client that says nothing is left"
        assert stored(served) == {}


def test_clients_that_go_away(served: Served) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", served.port), 10) as wire:
            wire.sendall(f"PUT {LFS}/objects/{OID} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nsome".encode())
    deadline = time.monotonic() + 10
    while list(served.hub.tracker.repo.objects._temp.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stored(served) == {}
    assert ask(served, "PUT", f"{LFS}/objects/{OID}", DATA).status == 200


def test_many_at_once_store_it_once(served: Served) -> None:
    statuses: list[int] = []

    def put() -> None:
        statuses.append(ask(served, "PUT", f"{LFS}/objects/{OID}", DATA).status)

    threads = [threading.Thread(target=put) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 12
    assert stored(served) == {OID: len(DATA)}


def test_damaged_objects_end_too_early(served: Served) -> None:
    data = os.urandom(3 << 20)
    name = hashlib.sha256(data).hexdigest()
    ask(served, "PUT", f"{LFS}/objects/{name}", data)
    damage(served.hub.tracker.repo.objects, Digest(name), b"x" + data[1:])
    with pytest.raises(http.client.IncompleteRead):
        ask(served, "GET", f"{LFS}/objects/{name}")


def test_large_objects_take_no_memory(served: Served) -> None:
    size = (1 << 30) if FULL else (64 << 20)
    piece = os.urandom(1 << 20)
    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(piece)
    name = digest.hexdigest()
    smaller = piece * 40  # what sends it is loaded, and takes what it always takes
    assert ask(served, "PUT", f"{LFS}/objects/{hashlib.sha256(smaller).hexdigest()}", smaller).status == 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    assert ask(served, "PUT", f"{LFS}/objects/{name}", (piece for _ in range(size >> 20))).status == 200
    up = time.monotonic()
    got = ask(served, "GET", f"{LFS}/objects/{name}", sink=True)
    down = time.monotonic()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(f"up {size / (up - started) / 1e6:.0f} MB/s, down {size / (down - up) / 1e6:.0f} MB/s, {grown} MiB more")
    assert got.body == name.encode()
    assert grown < 48


# -- clients -----------------------------------------------------------------------------------------------------------


def test_stock_git_lfs(served: Served, tmp_path: Path) -> None:
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")
    served.callers["t0ken"] = EVERYTHING
    login = served.project(token="t0ken")
    run_git(tmp_path, "clone", "--quiet", login, "ana")
    ana = Sandbox(tmp_path / "ana", "ordinary")
    ana.git("lfs", "install", "--local")
    ana.git("lfs", "track", "*.bin")
    data = {f"{number}.bin": os.urandom(1000 + number) for number in range(20)}
    for name, content in data.items():
        ana.write(name, content)
    ana.commit("large files")
    push = ["git", "push", "origin", "HEAD:refs/heads/large"]
    said = subprocess.run(push, cwd=ana.path, capture_output=True, check=False)
    assert said.returncode == 0, said.stderr
    assert b"lock" not in said.stderr.lower(), said.stderr
    assert len(stored(served)) == 20
    run_git(tmp_path, "-c", "filter.lfs.required=true", "-c", "filter.lfs.smudge=git-lfs smudge -- %f",
            "-c", "filter.lfs.process=git-lfs filter-process", "clone", "-q", "-b", "large", login, "bo")  # fmt: skip
    assert {name: (tmp_path / "bo" / name).read_bytes() for name in data} == data
    fsck = run_git(tmp_path / "bo", "lfs", "fsck")
    assert "OK" in fsck


def test_gittrack_with_a_token_from_a_credential_helper(
    served: Served, tmp_path: Path, sealed_environment: Path
) -> None:
    served.callers["t0ken"] = EVERYTHING
    (sealed_environment / "credentials").write_text(f"{served.url.replace('://', '://me:t0ken@')}\n")
    run_git(tmp_path, "config", "--global", "credential.helper", f"store --file={sealed_environment}/credentials")
    ana, bo = desk(served, tmp_path, "ana"), desk(served, tmp_path, "bo")
    ana.run("with files", files={"a/b.bin": os.urandom(100_000), "c.txt": b"c"})
    assert ana.push().files == 2
    assert len(stored(served)) == 2
    bo.pull()
    run = next(iter(bo.names()))
    found = bo.tracker.artifacts(run)
    artifacts.bring(bo.tracker, found)
    assert bo.repo.objects.read(next(one for one in found if one.path == "c.txt").digest) == b"c"
