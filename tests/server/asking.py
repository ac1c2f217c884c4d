"""For every route a request that works, made from what the route says it reads; and all that is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from gittrack.client import all_pages
from gittrack.server.hub.messages import Field, Message
from gittrack.server.hub.routes import PUBLIC, Route
from gittrack.types import ViewType
from tests.server.conftest import Answer
from tests.server.team import Team

Things = dict[str, str]
#: Of which there can be only one.
_NEW = ("experiments/create", "registered-models/create")
_LFS = "application/vnd.git-lfs+json"


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    body: Any
    headers: Mapping[str, str]

    def of(self, team: Team, token: str | None = None) -> Answer:
        """What is answered to somebody."""
        return team.ask(self.method, self.path, self.body, token, dict(self.headers))


def is_public(route: Route) -> bool:
    return set(route.paths()) <= PUBLIC


def told(route: Route, things: Things) -> Things:
    """What the fields of one route are called: the same name means different things to different routes."""
    path = route.path
    more: Things = {}
    if path.endswith(_NEW):
        more["name"] = things["new_name"]
    if path.startswith("/page/"):
        more["name"] = "index.html"
    if "/model-versions/get-artifact" in path:
        more["path"] = "MLmodel"
    elif "get-artifact" in path or "artifacts/list" in path:
        more["path"] = "m/MLmodel"
    elif path.endswith("/upload-artifact"):
        more.update(run_uuid=things["run_id"], path="m/page.txt")
    elif path.endswith("mlflow-artifacts/artifacts"):
        more["path"] = things["path"].rpartition("/")[0]
    if path == "/graphql":
        more["query"] = (
            f'{{mlflowGetExperiment(input: {{experimentId: "{things["experiment_id"]}"}}) {{experiment {{name}}}}'
            f' mlflowGetRun(input: {{runId: "{things["run_id"]}"}}) {{run {{experiment {{name}}}}}}}}'
        )
    if "logged-models/{model_id}" in path:
        more.update(status="LOGGED_MODEL_READY", artifact_file_path="MLmodel")
    return {**things, **more}


def request(route: Route, things: Things, **others: Any) -> Asked:
    """A request that works, if the caller may; ``others`` are values that do not."""
    things = told(route, things)
    path = next(route.paths()).replace(":path", "")
    body: Any = None
    said: dict[str, Any] = {}
    parts = re.findall(r"\{(\w+)\}", path)
    if route.message is not None:
        said = {**_said(route.message, things), **{k: v for k, v in others.items() if k in route.message.fields}}
    for name in parts:
        path = path.replace(f"{{{name}}}", quote(str(others.get(name, things[name]))))
        said.pop(name, None)
    headers = {}
    if route.path.startswith("/git/"):
        if route.method == "GET":
            return Asked("GET", f"{path}?service=git-upload-pack", None, {})
        headers["content-type"] = _LFS if "/lfs/" in path else f"application/x-{path.rpartition('/')[2]}-request"
        oid = {"oid": things["oid"], "size": 1}
        body = {"operation": "download", "objects": [oid], **oid} if route.method == "POST" and "/lfs/" in path else b""
    elif route.method == "GET":
        path = f"{path}?{urlencode(said, doseq=True)}"
    elif path.endswith("/upload-artifact"):
        path, body = f"{path}?{urlencode(said)}", b"flavors: {}"
    elif route.method == "PUT":
        body = b"flavors: {}"
    else:
        body = said
    return Asked(route.method, path, body, headers)


def _said(message: Message, things: Things) -> dict[str, Any]:
    return {
        name: _value(name, field, things)
        for name, field in message.fields.items()
        if field.required or name in things or field.of is not None
    }


def _value(name: str, field: Field, things: Things) -> Any:
    one: Any
    if field.of is not None:
        one = _said(field.of, things)
    elif field.type in ("integer", "number"):
        one = 1
    else:
        one = things.get(name, "x")
    return [one] if field.many else one


def prepare(team: Team, route: Route, things: Things) -> None:
    """What has to be so that the request of a route works."""
    if route.path.endswith("/restore"):
        assert request(_beside(team, route, "/restore", "/delete"), things).of(team).ok == {}
    if route.path.endswith("/delete-experiment-tag"):
        assert request(_beside(team, route, "/delete-", "/set-"), things).of(team).ok == {}
    if "/mpu/" in route.path:
        team.upload(things)


def _beside(team: Team, route: Route, old: str, new: str) -> Route:
    return next(one for one in team.routes if one.path == route.path.replace(old, new))


def stored(team: Team) -> dict[str, Any]:
    """Everything that callers can have changed, as it is read back, and where git's refs of models are."""
    client, tracker = team.app.hub.client, team.tracker
    experiments = all_pages(
        lambda size, token: client.search_experiments(ViewType.ALL, size, page_token=token), most=1000
    )
    ids = [one.experiment_id for one in experiments]
    runs = all_pages(
        lambda size, token: client.search_runs(ids, run_view_type=ViewType.ALL, max_results=size, page_token=token),
        most=1000,
    )
    models = all_pages(lambda size, token: client.search_registered_models(None, size, None, token), most=1000)
    versions = all_pages(lambda size, token: client.search_model_versions(None, size, None, token), most=1000)
    logged = client.search_logged_models(ids) if ids else []
    return {
        "experiments": {one.experiment_id: repr(one) for one in experiments},
        "runs": {one.info.run_id: repr({**one.to_dictionary(), "commit": None}) for one in runs},
        "files": {one.info.run_id: sorted(map(repr, tracker.artifacts(one.info.run_id, ""))) for one in runs},
        "models": {one.name: repr(one) for one in models},
        "versions": {f"{one.name}/{one.version}": repr(one) for one in versions},
        "logged": {one.model_id: repr(one) for one in logged},
        "tags": dict(tracker.repo.git.refs("refs/tags/")),
    }  # fmt: skip
