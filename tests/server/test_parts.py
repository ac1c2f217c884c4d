"""Files that come in parts and leave in ranges, and those who lie about them."""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gittrack.server.hub import parts
from gittrack.server.hub.app import Options
from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.types import Digest
from tests.conftest import Sandbox
from tests.server.backend import open_repo
from tests.server.conftest import Answer, Running, running
from tests.server.process import process

API = "/api/2.0/mlflow-artifacts"
FULL = os.environ.get("GITTRACK_FAULTS") == "full"


def ask(server: Running, what: str, run_id: str, **said: Any) -> Answer:
    return server.ask("POST", f"{API}/mpu/{what}/0/{run_id}/artifacts/model", {"path": "/home/ana/big.bin", **said})


def begin(server: Running, run_id: str, count: int = 3) -> tuple[str, list[str]]:
    """An upload, and the paths of its parts."""
    made = ask(server, "create", run_id, num_parts=count).ok
    assert [one["part_number"] for one in made["credentials"]] == list(range(1, count + 1))
    return made["upload_id"], [one["url"].removeprefix(server.url) for one in made["credentials"]]


def send(server: Running, path: str, data: bytes) -> str:
    answer = server.ask("PUT", path, data, content_type="application/octet-stream")
    assert answer.status == 200, answer
    return answer.headers["etag"]


def named(etags: list[str]) -> list[dict[str, Any]]:
    return [{"part_number": number, "etag": etag, "url": "x"} for number, etag in enumerate(etags, 1)]


def left(server: Running) -> list[str]:
    return os.listdir(server.hub.tracker.repo.root / "server/uploads")


def content(server: Running, run_id: str) -> Answer:
    return server.get(f"{API}/artifacts/0/{run_id}/artifacts/model/big.bin")


def test_parts_are_put_together(server: Running) -> None:
    run_id = server.new_run()
    data = [os.urandom(70_000), os.urandom(70_000), b"end"]
    upload, paths = begin(server, run_id)
    send(server, paths[1], b"broken off")
    etags = [send(server, path, part) for path, part in reversed(list(zip(paths, data, strict=True)))][::-1]
    assert etags[0] == f'"{hashlib.sha256(data[0]).hexdigest()}"'
    assert content(server, run_id).status == 404
    assert ask(server, "complete", run_id, upload_id=upload, parts=named(etags)).ok == {}
    got = content(server, run_id)
    assert got.body == b"".join(data)
    assert got.headers["etag"] == f'"{hashlib.sha256(got.body).hexdigest()}"'
    assert left(server) == []
    # What is over is over.
    assert ask(server, "complete", run_id, upload_id=upload, parts=named(etags)).status == 404
    assert ask(server, "abort", run_id, upload_id=upload).status == 404
    assert server.ask("PUT", paths[0], b"x").status == 404
    assert left(server) == []


def test_what_is_given_up_or_forgotten_leaves_nothing(server: Running) -> None:
    run_id = server.new_run()
    upload, paths = begin(server, run_id)
    send(server, paths[0], b"1")
    assert ask(server, "abort", run_id, upload_id=upload).ok == {}
    assert left(server) == []
    assert ask(server, "complete", run_id, upload_id=upload, parts=named(["x"] * 3)).status == 404
    old, paths = begin(server, run_id)
    send(server, paths[0], b"1")
    long_ago = time.time() - 25 * 3600
    os.utime(server.hub.tracker.repo.root / "server/uploads" / old, (long_ago, long_ago))
    new, _ = begin(server, run_id)
    assert left(server) == [new]
    assert list(server.hub.tracker.repo.objects.iter_digests()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda etags: named(etags[:2]),
        lambda etags: named([*etags, etags[0]]),
        lambda etags: named(etags)[::-1],
        lambda etags: [*named(etags)[:2], named(etags)[0]],
        lambda etags: named([etags[1], etags[0], etags[2]]),
        lambda etags: named([*etags[:2], '""']),
        lambda etags: [{"part_number": 0, "etag": etags[0]}],
        lambda etags: [],
        lambda etags: "all",
    ],
)
def test_lies_about_parts_are_refused(server: Running, wrong: Any) -> None:
    run_id = server.new_run()
    upload, paths = begin(server, run_id)
    etags = [send(server, path, part) for path, part in zip(paths, (b"1", b"2", b"3"), strict=True)]
    refused = ask(server, "complete", run_id, upload_id=upload, parts=wrong(etags))
    assert (refused.status, refused.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert content(server, run_id).status == 404
    assert list(server.hub.tracker.repo.objects.iter_digests()) == []
    assert ask(server, "complete", run_id, upload_id=upload, parts=named(etags)).ok == {}


def test_a_part_that_was_not_sent(server: Running) -> None:
    run_id = server.new_run()
    upload, paths = begin(server, run_id)
    etags = [send(server, paths[0], b"1")] * 3
    refused = ask(server, "complete", run_id, upload_id=upload, parts=named(etags))
    assert refused.status == 400
    assert "part 2 was not sent" in refused.json["message"]


def test_numbers_sizes_and_paths(server: Running) -> None:
    run_id = server.new_run()
    for count in (0, -1, 10_001, 1 << 62):
        assert ask(server, "create", run_id, num_parts=count).status == 400
    upload, paths = begin(server, run_id)
    top = paths[0].rpartition("/")[0]
    for number in ("0", "4", "01", "-1", "1.0", "%31%2f..%2f2", "..", "about.json", "lock", "%D9%A1", "9" * 30):
        assert server.ask("PUT", f"{top}/{number}", b"x").status in (400, 404), number
    for other in ("0" * 32, "..", upload.upper(), f"{upload}%2f..%2f{upload}"):
        assert server.ask("PUT", f"{top.rpartition('/')[0]}/{other}/1", b"x").status == 404
        assert ask(server, "abort", run_id, upload_id=other).status == 404
    for path in ("..", ".", "a/..", "", "x\0y", "C:x", "con", ".git"):
        answer = server.ask("POST", f"{API}/mpu/create/0/{run_id}/artifacts", {"path": path, "num_parts": 1})
        assert answer.status == 400, path
    for into in (
        f"0/{run_id}/artifacts/../x",
        f"0/{run_id}",
        f"{'1' * 18}/{run_id}/artifacts",
        f"0/{'0' * 32}/artifacts",
        "../x",
    ):
        answer = server.ask("POST", f"{API}/mpu/create/{into}", {"path": "x", "num_parts": 1})
        assert answer.status in (400, 404), into
    assert left(server) == [upload]


def test_an_upload_is_for_one_file_of_one_run(server: Running) -> None:
    run_id, other = server.new_run(), server.new_run()
    upload, paths = begin(server, run_id, 1)
    etags = [send(server, paths[0], b"1")]
    for what in ("complete", "abort"):
        assert ask(server, what, other, upload_id=upload, parts=named(etags)).status == 404
        assert ask(server, what, run_id, upload_id=upload, parts=named(etags), path="other.bin").status == 404
    assert ask(server, "complete", run_id, upload_id=upload, parts=named(etags)).ok == {}


def test_only_who_may_write_to_the_run_goes_on(server: Running) -> None:
    run_id = server.new_run()
    ana = Caller("ana", (Grant(Role.WRITER, "*", "*"),), "token")
    server.caller = ana
    upload, paths = begin(server, run_id, 1)
    etags = [send(server, paths[0], b"1")]
    for caller, expected in (
        (Caller("eve", (Grant(Role.WRITER, "other", "*"),), "token"), 404),
        (Caller("ana", (Grant(Role.READER, "*", "*"),), "token"), 403),
    ):
        server.caller = caller
        assert server.ask("PUT", paths[0], b"2").status == expected
        assert ask(server, "complete", run_id, upload_id=upload, parts=named(etags)).status == expected
        assert ask(server, "abort", run_id, upload_id=upload).status == expected
    assert ask(server, "create", run_id, num_parts=1).status == 403
    server.caller = ana
    assert ask(server, "complete", run_id, upload_id=upload, parts=named(etags)).ok == {}
    assert content(server, run_id).body == b"1"


def test_what_the_client_showed_is_what_it_sends_along(server: Running) -> None:
    run_id = server.new_run()
    shown = "Basic " + base64.b64encode(b"ana:secret").decode()
    where = f"{API}/mpu/create/0/{run_id}/artifacts"
    made = server.ask("POST", where, {"path": "x", "num_parts": 1}, authorization=shown)
    assert made.ok["credentials"][0]["headers"] == {"Authorization": shown}
    assert made.headers["cache-control"] == "no-store"
    made = server.ask("POST", where, {"path": "x", "num_parts": 1}, cookie="gittrack=secret")
    assert made.ok["credentials"][0]["headers"] == {}


def test_limits(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_MOST_OPEN", 2)
    with running(git_repo.path, Options(max_artifact=1000, public="https://hub.example.org/x/")) as server:
        run_id = server.new_run()
        made = ask(server, "create", run_id, num_parts=3).ok
        url = made["credentials"][0]["url"]
        assert url.startswith("https://hub.example.org/x/api/2.0/mlflow-artifacts/mpu/part/")
        path = url.removeprefix("https://hub.example.org/x")[:-2]
        assert server.ask("PUT", f"{path}/1", b"x" * 1001).status == 413
        send(server, f"{path}/1", b"x" * 600)
        assert server.ask("PUT", f"{path}/2", b"x" * 600).status == 413
        send(server, f"{path}/2", b"x" * 400)
        folder = server.hub.tracker.repo.root / "server/uploads"
        assert sorted(os.listdir(folder / made["upload_id"])) == ["1", "2", "about.json"]
        if os.name == "posix":
            assert folder.stat().st_mode & 0o777 == 0o700
        begin(server, run_id, 1)
        assert ask(server, "create", run_id, num_parts=1).status == 429


def test_two_who_complete_make_one_file(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = server.new_run()
    upload, paths = begin(server, run_id, 1)
    etags = [send(server, paths[0], b"1")]
    seen: list[Answer] = []
    real = parts.Upload.pieces

    def pieces(self: parts.Upload, etags: Any) -> Any:
        monkeypatch.setattr(parts.Upload, "pieces", real)
        said = {"upload_id": upload, "parts": named(["x"])}
        seen.extend(ask(server, what, run_id, **said) for what in ("complete", "abort"))
        return real(self, etags)

    monkeypatch.setattr(parts.Upload, "pieces", pieces)
    assert ask(server, "complete", run_id, upload_id=upload, parts=named(etags)).ok == {}
    assert [one.status for one in seen] == [503, 503]
    assert str(server.hub.tracker.repo.root) not in json.dumps([one.json for one in seen])
    assert content(server, run_id).body == b"1"
    assert left(server) == []


def test_a_server_that_is_killed_meanwhile_goes_on_and_takes_no_memory(git_repo: Sandbox) -> None:
    size, count = (64 << 20, 16) if FULL else (8 << 20, 8)
    piece = os.urandom(size)
    with process(git_repo.path) as server:

        def told(method: str, path: str, body: Any = None) -> Any:
            data = body if isinstance(body, bytes | None) else json.dumps(body)
            with server.connected() as connection:
                connection.timeout = 120
                connection.request(method, path, data, {"content-type": "application/json"})
                reply = connection.getresponse()
                answered = reply.read()
                assert reply.status == 200, answered
                return reply.headers["etag"] if method == "PUT" else json.loads(answered)

        run_id = told("POST", "/api/2.0/mlflow/runs/create", {})["run"]["info"]["run_id"]
        where = f"0/{run_id}/artifacts"
        made = told("POST", f"{API}/mpu/create/{where}", {"path": "big", "num_parts": count})
        paths = [f"/api{one['url'].partition('/api')[2]}" for one in made["credentials"]]
        told("PUT", paths[0], piece)
        server.kill()
        server.start()
        etags = [told("PUT", path, piece) for path in paths[1:]]
        etags.insert(0, etags[0])
        # What keeps files is loaded, and takes what it always takes.
        told("PUT", f"{API}/artifacts/{where}/smaller", os.urandom(1 << 20) * 40)
        assert server.process is not None
        status = Path(f"/proc/{server.process.pid}/status")
        before = _peak(status)
        told(
            "POST",
            f"{API}/mpu/complete/{where}",
            {"path": "big", "upload_id": made["upload_id"], "parts": named(etags)},
        )
        assert _peak(status) - before < 24 << 10  # KiB
        listed = told("GET", f"{API}/artifacts?path={where}")
        assert {"path": "big", "is_dir": False, "file_size": size * count} in listed["files"]
    with contextlib.closing(open_repo(git_repo.path)) as repo:
        stored = dict(repo.objects.iter_digests())
    expected = hashlib.sha256()
    for _ in range(count):
        expected.update(piece)
    assert stored[Digest(expected.hexdigest())] == size * count
    assert os.listdir(git_repo.path / ".gittrack/server/uploads") == []


def _peak(status: Path) -> int:
    if not status.exists():
        return 0
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))


# --- ranges


@pytest.mark.parametrize("size", [1000, 700_000])
def test_ranges_and_what_is_known_already(server: Running, size: int) -> None:
    run_id = server.new_run()
    data = os.urandom(size)
    where = f"{API}/artifacts/0/{run_id}/artifacts/x.bin"
    assert server.ask("PUT", where, data).status == 200
    whole = server.get(where)
    assert whole.headers["accept-ranges"] == "bytes"
    etag = whole.headers["etag"]
    for asked, expected in (
        ("bytes=0-0", data[:1]),
        ("bytes=10-99", data[10:100]),
        ("bytes=990-", data[990:]),
        ("bytes=-5", data[-5:]),
        (f"bytes=5-{size * 2}", data[5:]),
        (f"bytes=-{size * 2}", data),
    ):
        got = server.get(where, range=asked)
        assert (got.status, got.body) == (206, expected), asked
        start = (
            size - len(expected) if asked != "bytes=0-0" and asked != "bytes=10-99" else int(asked[6:].split("-")[0])
        )
        assert got.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{size}"
        assert got.headers["content-length"] == str(len(expected))
    for asked in (f"bytes={size}-", "bytes=-0", "bytes=5-2", f"bytes={size + 5}-{size + 9}"):
        got = server.get(where, range=asked)
        assert (got.status, got.headers["content-range"], got.body) == (416, f"bytes */{size}", b"")
    for asked in ("bytes=-", "bytes=1-2,4-5", "lines=1-2", "bytes=x-1"):
        assert server.get(where, range=asked).body == data, asked
    assert server.get(where, range="bytes=1-2", if_range=etag).body == data[1:3]
    assert server.get(where, range="bytes=1-2", if_range='"other"').body == data
    for known in (etag, f'"other", W/{etag}', "*"):
        got = server.get(where, if_none_match=known)
        assert (got.status, got.body, got.headers["etag"]) == (304, b"", etag)
    assert server.get(where, if_none_match='"other"').body == data
    told = server.get(f"{API}/presigned/0/{run_id}/artifacts/x.bin", authorization="Basic eDp5").ok
    assert told == {"url": f"{server.url}{where}", "headers": {"Authorization": "Basic eDp5"}, "file_size": size}
    assert server.get(f"{API}/presigned/0/{run_id}/artifacts/y.bin").status == 404
    assert server.get(f"{API}/presigned/0/{run_id}/artifacts").status == 404


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_goes_on_with_a_download(server: Running, tmp_path: Path) -> None:
    run_id = server.new_run()
    data = os.urandom(900_000)
    where = f"{API}/artifacts/0/{run_id}/artifacts/x.bin"
    assert server.ask("PUT", where, data).status == 200
    (tmp_path / "x").write_bytes(data[:400_000])
    subprocess.run(["curl", "-sf", "-C", "-", "-o", str(tmp_path / "x"), f"{server.url}{where}"], check=True)
    assert (tmp_path / "x").read_bytes() == data
