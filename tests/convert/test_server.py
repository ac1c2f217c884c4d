"""A server that misbehaves: what is asked of it, what is believed, and what is said."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gittrack.convert import mlflow_server
from gittrack.convert.hub_rest import RestHub
from gittrack.convert.importer import Importer
from gittrack.convert.mlflow_export import Exporter
from gittrack.convert.mlflow_rest import ServerStore
from gittrack.convert.mlflow_server import Server
from gittrack.errors import AlreadyExistsError, FormatError, InvalidValueError, NetworkError, NotFoundError
from gittrack.sync import artifacts
from gittrack.track.runs import Tracker
from tests.convert.conftest import Cli, files_of
from tests.convert.stores import RUN_A, T0

Answer = tuple[int, bytes]
Answering = Callable[[str, str, dict[str, list[str]], bytes], Answer]


class Fake:
    """A HTTP server on this machine that answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Answering = lambda method, path, query, body: (200, b"{}")
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fake.asked.append((self.command, parts.path))
                fake.headers.append(dict(self.headers))
                status, data = fake.answer(self.command, parts.path, parse_qs(parts.query), body)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def stop(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """The server; waiting between attempts is left out."""
    monkeypatch.setattr("gittrack.convert.mlflow_server.time.sleep", lambda seconds: None)
    server = Fake()
    yield server
    server.stop()


def as_json(value: object) -> Answer:
    """A good answer."""
    return 200, json.dumps(value).encode()


def one_run(**more: Any) -> Answering:
    """A store with an experiment and a run; ``more`` are answers by the end of the path."""

    def answer(method: str, path: str, query: dict[str, list[str]], body: bytes) -> Answer:
        name = path.removeprefix("/api/2.0/mlflow/")
        for end, value in more.items():
            if name.replace("/", "_").replace("-", "_").endswith(end):
                found = value(query, body) if callable(value) else value
                return found if isinstance(found, tuple) else as_json(found)
        if name == "experiments/search":
            return as_json({"experiments": [{"experiment_id": "1", "name": "exp", "lifecycle_stage": "active"}]})
        if name == "runs/search":
            info = {
                "run_id": RUN_A,
                "status": "FINISHED",
                "start_time": T0,
                "end_time": T0 + 1,
                "artifact_uri": "s3://x",
            }
            data = {"metrics": [{"key": "m", "value": 1.0, "timestamp": T0, "step": 0}]}
            return as_json({"runs": [{"info": info, "data": data}]})
        if name == "metrics/get-history":
            return as_json({"metrics": [{"key": "m", "value": "NaN", "timestamp": T0, "step": 0}]})
        return 404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}).encode()

    return answer


def take(fake: Fake, tracker: Tracker) -> list[str]:
    """Import what it has; what was left out."""
    source = ServerStore(Server(fake.address, {}))
    report = Importer(tracker, source).run()
    source.close()
    return report.problems


def test_a_run_and_its_files(fake: Fake, tracker: Tracker) -> None:
    def listed(query: dict[str, list[str]], body: bytes) -> Any:
        files = {
            "": [{"path": "d", "is_dir": True}, {"path": "a.txt", "is_dir": False, "file_size": 5}],
            "d": [{"path": "d/b c.txt", "is_dir": False, "file_size": 3}],
        }
        return {"files": files[query.get("path", [""])[0]]}

    contents = {"a.txt": b"hello", "d/b c.txt": b"abc"}
    fake.answer = one_run(artifacts_list=listed, get_artifact=lambda query, body: (200, contents[query["path"][0]]))
    assert take(fake, tracker) == []
    assert files_of(tracker, RUN_A) == contents
    assert repr(tracker.get_run(RUN_A).data.metrics["m"]) == "nan"
    assert all("Authorization" not in headers for headers in fake.headers)


@pytest.mark.parametrize(
    "path", ["../../x", "/etc/passwd", "a/../../x", "C:x", "x\\y", ".git/config", "%2e%2e/x", "a\x00b", "CON"]
)
def test_names_that_a_server_sends_stay_in_their_place(path: str, fake: Fake, tracker: Tracker) -> None:
    fake.answer = one_run(artifacts_list={"files": [{"path": path}]}, get_artifact=(200, b"evil"))
    assert len(take(fake, tracker)) == 1
    assert files_of(tracker, RUN_A) == {}
    assert all(not route.endswith("get-artifact") for _, route in fake.asked)


@pytest.mark.parametrize("size", [3, 50])
def test_a_file_of_another_size_is_not_kept(size: int, fake: Fake, tracker: Tracker) -> None:
    listed = {"files": [{"path": "a", "file_size": size}]}
    fake.answer = one_run(artifacts_list=listed, get_artifact=(200, b"0123456789"))
    (problem,) = take(fake, tracker)
    assert f"says that a file has {size} bytes" in problem
    assert files_of(tracker, RUN_A) == {}


def test_a_folder_that_lists_itself_ends(fake: Fake, tracker: Tracker) -> None:
    fake.answer = one_run(artifacts_list={"files": [{"path": "d", "is_dir": True}]})
    assert "lists `d` in `d`" in "\n".join(take(fake, tracker))


def test_a_page_that_is_its_own_next_one_ends(fake: Fake, tracker: Tracker) -> None:
    fake.answer = one_run(
        get_history={"metrics": [{"key": "m", "value": 2, "timestamp": T0, "step": 0}], "next_page_token": "x"}
    )
    take(fake, tracker)
    assert len(list(tracker.metric_history(RUN_A, "m"))) == 1


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[1]", b'{"experiments": {"a": 1}}', b'{"experiments": [1]}', b"[" * 100_000]
)
def test_what_is_no_mlflow_is_said(answer: bytes, fake: Fake) -> None:
    fake.answer = lambda *_: (200, answer)
    source = ServerStore(Server(fake.address, {}))
    with pytest.raises(FormatError):
        list(source.experiments())
    source.close()


def test_an_endless_answer_ends(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_server, "MAX_ANSWER", 1000)
    fake.answer = lambda *_: (200, b" " * 5000)
    source = ServerStore(Server(fake.address, {}))
    with pytest.raises(FormatError, match="more than 1000 bytes"):
        list(source.experiments())
    source.close()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b"", NetworkError),
        (403, b"{}", NetworkError),
        (302, b"", NetworkError),
        (404, b"", NotFoundError),
        (500, b"oops", NetworkError),
        (503, b"", NetworkError),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no\\n such"}', InvalidValueError),
        (400, b'{"error_code": "RESOURCE_ALREADY_EXISTS", "message": "x"}', AlreadyExistsError),
        (400, b"[1]", InvalidValueError),
    ],
)
def test_what_a_server_refuses_is_said(status: int, body: bytes, kind: type[Exception], fake: Fake) -> None:
    fake.answer = lambda *_: (status, body)
    server = Server(fake.address, {})
    with pytest.raises(kind) as caught:
        server.get("experiments/get", experiment_id="1")
    assert "\n" not in str(caught.value)
    server.close()
    assert len(fake.asked) == (4 if status == 503 else 1)  # the busy one is asked again
    assert fake.asked[0] == ("GET", "/api/2.0/mlflow/experiments/get")


def test_credentials_go_to_the_server_and_into_no_message(fake: Fake) -> None:
    fake.answer = lambda *_: (401, b"")
    port = fake.address.rpartition(":")[2]
    for address, environment, sent in (
        (f"http://ana:s3cret@127.0.0.1:{port}", {}, "Basic YW5hOnMzY3JldA=="),
        (
            fake.address,
            {"MLFLOW_TRACKING_USERNAME": "ana", "MLFLOW_TRACKING_PASSWORD": "s3cret"},
            "Basic YW5hOnMzY3JldA==",
        ),
        (fake.address, {"MLFLOW_TRACKING_TOKEN": "t0ken"}, "Bearer t0ken"),
    ):
        server = Server(address, environment)
        with pytest.raises(NetworkError) as caught:
            server.get("experiments/get")
        server.close()
        assert fake.headers[-1]["Authorization"] == sent
        assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidValueError) as wrong:
        Server("http://ana:s3cret@host:99999999/", {})
    assert "s3cret" not in str(wrong.value)


def test_a_server_that_goes_away_ends_the_import_which_goes_on_later(fake: Fake, tracker: Tracker) -> None:
    fake.answer = one_run(get_history=(503, b""))
    with pytest.raises(NetworkError, match="is busy"):
        take(fake, tracker)
    fake.answer = one_run(artifacts_list={})
    assert take(fake, tracker) == []
    run = tracker.get_run(RUN_A)
    assert (run.info.status, run.info.end_time, set(run.data.metrics)) == ("FINISHED", T0 + 1, {"m"})


def test_no_server_is_said(cli: Cli, fake: Fake) -> None:
    fake.stop()
    told = cli("import", "mlflow", fake.address)
    assert (told.status, "cannot be reached" in told.err) == (1, True)
    told = cli("export", "mlflow", fake.address)
    assert (told.status, "cannot be reached" in told.err) == (1, True)


def test_an_export_that_breaks_off_goes_on(fake: Fake, tracker: Tracker, tmp_path: Path) -> None:
    """A tiny MLflow that refuses its n-th call; in the end it has each run, with everything, once.

    Its file is not in this clone, but where the team keeps them.
    """
    run = tracker.create_run(name="mine", start_time=T0, capture=False)
    run.log_params({"a": 1})
    run.log_metric("m", 0.5, 1, T0)
    run.log_bytes(b"hello", "d/x y.txt")
    run.end("FINISHED", T0 + 5)
    tracker.delete_run(run.run_id)
    tracker.flush()
    (tmp_path / "kept").mkdir()
    tracker.repo.git.program.run("config", "gittrack.artifacts", (tmp_path / "kept").as_uri())
    (item,) = artifacts.Item.of(tracker.artifacts(run.run_id))
    artifacts.upload(tracker, None, [item])
    tracker.repo.objects.delete(item.digest)
    runs: list[dict[str, Any]] = []
    sent: dict[str, Any] = {}
    left = 0

    def answer(method: str, path: str, query: dict[str, list[str]], body: bytes) -> Answer:
        nonlocal left
        left -= 1
        if left == 0:
            return 500, b""
        if "/mlflow-artifacts/" in path:
            sent[path] = body
            return as_json({})
        name = path.removeprefix("/api/2.0/mlflow/")
        given = json.loads(body or b"{}")
        if name == "experiments/get-by-name":
            return as_json({"experiment": {"experiment_id": "0", "lifecycle_stage": "active"}})
        if name == "runs/search":
            return as_json({"runs": runs})
        if name == "runs/create":
            info = {
                "run_id": f"r{len(runs)}",
                "artifact_uri": "mlflow-artifacts:/0/r/artifacts",
                "lifecycle_stage": "active",
            }
            runs.append({"info": info, "data": {"tags": given["tags"]}})
            return as_json({"run": runs[-1]})
        if name == "runs/log-batch":
            runs[0]["data"]["tags"] += given["tags"]
            sent.setdefault("batches", []).append(given)
        if name == "runs/update":
            sent["status"] = given
        if name in ("runs/delete", "runs/restore"):
            runs[0]["info"]["lifecycle_stage"] = "deleted" if name == "runs/delete" else "active"
        elif name != "runs/create" and "run_id" in given and runs[0]["info"]["lifecycle_stage"] == "deleted":
            return 400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "the run must be active"}'
        return as_json({})

    fake.answer = answer
    for cut in range(1, 12):
        left = cut
        hub = RestHub(Server(fake.address, {}))
        with suppress(NetworkError):
            Exporter(tracker, hub).run()
        hub.close()
    left = -1  # from now on it works
    assert len(runs) == 1
    assert runs[0]["info"]["lifecycle_stage"] == "deleted"
    assert sent["/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/d/x%20y.txt"] == b"hello"
    assert sent["status"] == {"run_id": "r0", "status": "FINISHED", "end_time": T0 + 5}
    assert {"key": "m", "value": 0.5, "timestamp": T0, "step": 1} in [m for b in sent["batches"] for m in b["metrics"]]
    hub = RestHub(Server(fake.address, {}))
    before = len(fake.asked)
    report = Exporter(tracker, hub).run()
    hub.close()
    assert (report.runs, report.here) == (0, 1)
    assert {method for method, path in fake.asked[before:] if not path.endswith("search")} == {"GET"}

    tracker.writer(run.run_id).set_tags({"later": "yes"})  # an edit, of a run that is deleted here and there
    tracker.close()
    hub = RestHub(Server(fake.address, {}))
    report = Exporter(tracker, hub).run()
    hub.close()
    assert (report.runs, report.problems) == (1, [])
    assert {"key": "later", "value": "yes"} in runs[0]["data"]["tags"]
    assert runs[0]["info"]["lifecycle_stage"] == "deleted"


def test_writing_to_a_store_needs_mlflow(
    cli: Cli, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    told = cli("export", "mlflow", f"sqlite:///{tmp_path / 'x.db'}")
    assert (told.status, "pip install mlflow" in told.err) == (1, True)
    assert cli("export", "mlflow", "mlflow.db").status == 2
    assert not (tmp_path / "x.db").exists()
