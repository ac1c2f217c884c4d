"""Who may do what, for every route there is: the table of routes itself says which, so none can be left out."""

from typing import Any

import pytest

from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.messages import Field, Message
from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.server.hub.routes import Route
from tests.server.conftest import Running

#: Whoever asks these is shown what he may see, or asks about himself.
FOR_ALL = ("/search", "/search-datasets", "/version", "/server-info", "/logout", "/session", "/openapi.json")


@pytest.fixture
def things(server: Running) -> dict[str, str]:
    """An experiment, a run, a registered and a logged model called ``mine``; what messages call them."""
    experiment = server.post("experiments/create", {"name": "mine"}).ok["experiment_id"]
    run = server.new_run(experiment_id=experiment)
    assert server.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/m/MLmodel", b"x").status
    assert server.post("registered-models/create", {"name": "mine"}).ok
    assert server.post("model-versions/create", {"name": "mine", "source": f"runs:/{run}/m"}).ok
    logged = server.post("logged-models", {"experiment_id": experiment, "name": "mine"}).ok["model"]["info"]["model_id"]
    return {
        "experiment_id": experiment,
        "experiment_ids": experiment,
        "run_id": run,
        "run_ids": run,
        "name": "mine",
        "new_name": "mine2",
        "experiment_name": "mine",
        "version": "1",
        "model_id": logged,
        "path": f"{experiment}/{run}/artifacts/m/MLmodel",
        "source": f"runs:/{run}/m",
        "stage": "Staging",
        "metric_key": "m",
        "tag_key": "t",
        "model_json": "{}",
    }


def request_of(route: Route, things: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """A path and a message that get as far as the permission."""
    path = next(route.paths()).replace(":path", "")
    if "/mlflow/runs" in path or "get-artifact" in path or "artifacts/list" in path:
        things = {**things, "path": "m/MLmodel"}
    for name, value in things.items():
        path = path.replace(f"{{{name}}}", value)
    return path, said(route.message, things) if route.message is not None else {}


def said(message: Message, things: dict[str, str]) -> dict[str, Any]:
    return {
        name: value(name, field, things) for name, field in message.fields.items() if field.required or name in things
    }


def value(name: str, field: Field, things: dict[str, str]) -> Any:
    one: Any
    if field.of is not None:
        one = said(field.of, things)
    elif field.type in ("integer", "number"):
        one = 1
    else:
        one = things.get(name, "x")
    return [one] if field.many else one


def ask(server: Running, route: Route, things: dict[str, str]) -> int:
    path, body = request_of(route, things)
    if route.method in ("GET", "HEAD"):
        pairs = [
            f"{name}={one}" for name, found in body.items() for one in (found if isinstance(found, list) else [found])
        ]
        return server.get(f"{path}?{'&'.join(pairs)}").status
    if route.method == "PUT":
        return server.ask("PUT", path, b"bytes").status
    return server.ask(route.method, path, body).status


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_every_route_for_every_role(server: Running, things: dict[str, str], role: Role | None, where: str) -> None:
    """Nobody gets further than his role; whoever has none there is told that nothing is there."""
    name = "mine*" if where == "here" else "other*"
    server.caller = Caller("ana", () if role is None else (Grant(role, name, name),), "token")
    before = len(server.hub.tracker.search_runs(["0", things["experiment_id"]]))
    # What takes more comes first: what is deleted by one route cannot be asked for by the next.
    routes = [one for one in ROUTES if one.permission.role is not None and "{api}" in one.path]
    for route in sorted(
        routes, key=lambda one: (one.permission.role or 0, one.method == "DELETE", "delete" in one.path)
    ):
        needed = route.permission.role
        assert needed is not None
        if route.path.endswith(FOR_ALL):
            continue
        allowed = role is not None and where == "here" and role >= needed
        if allowed and needed >= Role.MAINTAINER:
            continue  # what they do is shown elsewhere; here it would take away what the next route is asked about
        status = ask(server, route, things)
        if allowed:
            assert status not in (401, 403), (route.method, route.path, status)
        elif role is not None and where == "here":
            assert status == 403, (route.method, route.path, status)
        else:
            assert status in (403, 404), (route.method, route.path, status)
    if role is None or where == "elsewhere" or role < Role.WRITER:
        server.caller = Caller("all", (Grant(Role.ADMIN, "*", "*"),), "local")
        assert len(server.hub.tracker.search_runs(["0", things["experiment_id"]])) == before
        assert server.hub.client.get_registered_model("mine").latest_versions[0].tags == {}
