"""Browsers of people who are logged in at a team's server in this process, and models for them to look at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Browser

from tests.server.guarded import PASSWORD
from tests.server.team import Team
from tests.ui.conftest import SIZES, Watched, log_in

MLMODEL = b"""flavors: {python_function: {loader_module: x}, sklearn: {}}
signature:
  inputs: '[{"type": "double", "name": "petal"}, {"type": "long", "name": "count", "required": false}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
  params: null
"""


@contextlib.contextmanager
def logged_in(
    browser: Browser,
    team: Team,
    token: str = "",
    *,
    user: str | None = None,
) -> Iterator[Watched]:
    """A page of a user, of somebody with that token, or of the administrator; nothing may go wrong in it."""
    context = browser.new_context(viewport=SIZES[1], reduced_motion="reduce")
    page = context.new_page()
    if user is None:
        log_in(context, f"{team.url}/login#token={token or team.admin}")
    else:
        page.goto(f"{team.url}/login")
        page.get_by_label("Name").fill(user)
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{team.url}/")
    found = Watched(page, team.url)
    yield found
    attacked = page.evaluate("() => window.attacked === 1")
    context.close()
    assert not attacked
    assert found.wrong == [], found.wrong


def register(team: Team, name: str, acc: float, **files: bytes) -> str:
    """A finished run with data and a model, registered as the next version of a model; the run's id."""
    made = team.post(
        "runs/create", {"experiment_id": "0", "run_name": f"trained {acc}", "start_time": 1_700_000_000_000}
    )
    run_id = str(made.ok["run"]["info"]["run_id"])
    metric = {"key": "acc", "value": acc, "timestamp": 1, "step": 0}
    said = {"run_id": run_id, "metrics": [metric], "params": [{"key": "lr", "value": f"{acc / 10:g}"}]}
    assert team.post("runs/log-batch", said).ok == {}
    data = {"name": "iris.csv", "digest": "d1a9", "source_type": "local", "source": "data/iris.csv"}
    assert team.post("runs/log-inputs", {"run_id": run_id, "datasets": [{"tags": [], "dataset": data}]}).ok == {}
    needs = b"scikit-learn==1.7.2\nnumpy==2.3.1\n"
    for path, content in {"MLmodel": MLMODEL, "requirements.txt": needs, **files}.items():
        url = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/model/{path}"
        assert team.ask("PUT", url, content).ok == {}
    assert team.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 1_700_000_060_000}).ok
    assert team.post("model-versions/create", {"name": name, "source": f"runs:/{run_id}/model"}).ok
    return run_id


def model(team: Team) -> list[str]:
    """`iris` with three versions, one of them in production; the runs."""
    assert team.post("registered-models/create", {"name": "iris", "description": "Tells three kinds of iris apart."}).ok
    runs = [register(team, "iris", acc, **more) for acc, more in ((0.8, {}), (0.9, {"extra": b"more"}), (0.95, {}))]
    moved = {"name": "iris", "version": "2", "stage": "Production", "reason": "beats the baseline"}
    assert team.post("model-versions/transition-stage", moved).ok
    alias = {"name": "iris", "alias": "champion", "version": "2", "reason": ""}
    assert team.ask("POST", "/api/2.0/mlflow/registered-models/alias", alias).ok == {}
    return runs
