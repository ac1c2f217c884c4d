"""The whole server as it is started for a team: accounts, guard, every route, git and git-lfs too.

It is asked over a socket, or in process by those who ask thousands of times.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gittrack.server.hub import website
from gittrack.server.hub.accounts import Accounts
from gittrack.server.hub.app import App
from gittrack.server.hub.roles import Grant, Role
from gittrack.server.hub.routes import Route
from gittrack.server.hub.start import Plan, Server
from gittrack.track.runs import Tracker
from tests.server.backend import open_repo
from tests.server.conftest import Answer
from tests.server.guarded import bearer, listening

API = "/api/2.0/mlflow"


@dataclass
class Team:
    """A server whose callers have tokens.

    Attributes:
        server: It.
        tracker: Its runs.
        accounts: Whom it knows.
        port: Where it listens.
        admin: The token of one who may everything.
    """

    server: Server
    tracker: Tracker
    accounts: Accounts
    port: int
    admin: str = ""
    _made: int = 0
    _connection: http.client.HTTPConnection | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def app(self) -> App:
        app = self.server.guard._app
        assert isinstance(app, App)
        return app

    @property
    def routes(self) -> tuple[Route, ...]:
        """Everything that is answered."""
        return self.app.routes

    def token(self, *grants: Grant) -> str:
        """A token of somebody new."""
        self._made += 1
        made = str(self.accounts.create_token(f"t{self._made}", grants, by="test")[1])
        self.server.guard.auth._fresh_until = 0.0  # it looks again
        return made

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        pieces: Iterable[bytes] | None = None,
    ) -> Answer:
        """One request over the socket; with ``token`` ``""``, of nobody."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {} if token == "" else bearer(token or self.admin)
        if data is not None or pieces is not None:
            sent["content-type"] = "application/json"
        sent.update(headers or {})
        connection = self._connection
        if connection is None:
            connection = self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method, path, data if pieces is None else pieces, sent, encode_chunked=pieces is not None
            )
            reply = connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, found, reply.read())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next request makes another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def post(self, path: str, body: Any = None, token: str | None = None) -> Answer:
        return self.ask("POST", f"{API}/{path}", {} if body is None else body, token)

    def things(self, name: str = "mine") -> dict[str, str]:
        """An experiment, a run, a registered model with a version, a logged model; as messages call them."""
        experiment = self.post("experiments/create", {"name": name}).ok["experiment_id"]
        run = self.post("runs/create", {"experiment_id": experiment}).ok["run"]["info"]["run_id"]
        file = f"{experiment}/{run}/artifacts/m/MLmodel"
        assert self.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{file}", b"flavors: {}").ok == {}
        assert self.post("registered-models/create", {"name": name}).ok
        assert self.post("model-versions/create", {"name": name, "source": f"runs:/{run}/m"}).ok
        assert self.post("registered-models/alias", {"name": name, "alias": "best", "version": "1"}).ok == {}
        made = self.post("logged-models", {"experiment_id": experiment, "name": name}).ok["model"]["info"]
        path = f"{experiment}/models/{made['model_id']}/artifacts/MLmodel"
        assert self.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", b"flavors: {}").ok == {}
        tagged = {"tags": [{"key": "k", "value": "1"}]}
        assert self.ask("PATCH", f"{API}/logged-models/{made['model_id']}/tags", tagged).ok
        for kind in ("metric", "parameter"):
            facts = {"run_id": run, "key": "k", "value": "1", "timestamp": 1}
            assert self.post(f"runs/log-{kind}", facts).ok == {}
        assert self.post("runs/set-tag", {"run_id": run, "key": "k", "value": "v"}).ok == {}
        found = {
            "experiment_id": experiment,
            "experiment_ids": experiment,
            "run_id": run,
            "run_ids": run,
            "run_uuid": run,
            "name": name,
            "new_name": f"{name}2",
            "experiment_name": name,
            "version": "1",
            "model_id": made["model_id"],
            "path": file,
            "source": f"runs:/{run}/m",
            "stage": "Staging",
            "alias": "best",
            "key": "k",
            "value": "1",
            "field_name": "name",
            "max_results": "1",
            "metric_key": "k",
            "tag_key": "k",
            "model_json": json.dumps({"artifact_path": "m", "flavors": {}, "utc_time_created": "x", "run_id": run}),
            "project": "default",
            "oid": "0" * 64,
            "id": "1",
            "into": f"{experiment}/{run}/artifacts/up",
            "number": "1",
            "etag": hashlib.sha256(b"flavors: {}").hexdigest(),
        }
        self.upload(found)
        return found

    def upload(self, things: dict[str, str]) -> None:
        """An upload that can be completed: put where messages look for it."""
        where = "/api/2.0/mlflow-artifacts/mpu"
        made = self.ask("POST", f"{where}/create/{things['into']}", {"path": "MLmodel", "num_parts": 1}).ok
        things["upload"] = things["upload_id"] = made["upload_id"]
        assert self.ask("PUT", f"{where}/part/{made['upload_id']}/1", b"flavors: {}").status == 200


@contextlib.contextmanager
def serving(folder: Path, plan: Plan | None = None, failures: int = 10) -> Iterator[Team]:
    """A server for a team, of the repository in ``folder``."""
    tracker = Tracker(open_repo(folder), strict=True)
    accounts = Accounts.in_store(tracker.repo.root)
    admin = str(accounts.create_token("admin", (Grant(Role.ADMIN, "*", "*"),), by="test")[1])
    server = Server(tracker, plan or Plan())
    if not website.is_built():
        website._files()["index.html"] = website._File("text/html", b"<!doctype html>", None, '"1"')
    guard = server.guard
    guard.options = replace(guard.options, failures=failures)
    guard.failures = type(guard.failures)(failures)
    with listening(server.watch) as port:
        team = Team(server, tracker, accounts, port, admin)
        try:
            yield team
        finally:
            team.close()
            tracker.close()
