"""Registered models, served: the versions that a stage or an alias means, and the models that are loaded."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack
import gittrack.sklearn
from gittrack import fluent, stores
from gittrack.errors import NotFoundError
from gittrack.models.pyfunc import PyFuncModel
from gittrack.models.scoring import JSON, Scorer
from gittrack.models.signature import infer_signature
from gittrack.registry.registry import Registry
from gittrack.server.following import Addressed, moves
from tests.conftest import Sandbox
from tests.serving.conftest import Running, Start
from tests.serving.load import hammer, post

pd = pytest.importorskip("pandas")
linear_model = pytest.importorskip("sklearn.linear_model")
pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names")

NAMES = ["a", "b", "c"]
ROW = {"dataframe_split": {"columns": NAMES, "data": [[1.0, 2.0, 3.0]]}}


def table(rows: int = 40) -> Any:
    return pd.DataFrame(np.random.default_rng(1).random((rows, 3)), columns=NAMES)


def log(intercept: float) -> str:
    """A run that logged a model which adds up the columns, and ``intercept``; the model's address."""
    features = table()
    model = linear_model.LinearRegression().fit(features, features.sum(axis=1) + intercept)
    with gittrack.start_run():
        info = gittrack.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(features, model.predict(features)),
            input_example=features.iloc[:2],
            pip_requirements=["scikit-learn"],
        )
    return info.model_uri


@pytest.fixture
def registry(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(git_repo.path)
    monkeypatch.setattr(fluent._process, "experiment_id", None)  # `register` sets it for the process
    stores.set_tracking_uri(git_repo.path)
    return Registry(stores.tracker())


def register(registry: Registry, intercept: float) -> str:
    """Another version of `sums`; its number."""
    gittrack.set_experiment("sums")
    log(intercept)
    run = registry.tracker.search_runs(order_by=["attributes.start_time DESC"], max_results=1)[0]
    return registry.register("sums", run.info.run_id, "model").version


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("models:/iris/Production", True),
        ("models:/iris/latest", True),
        ("models:/iris@champion", True),
        ("iris@production", True),
        ("iris@latest", True),
        ("models:/iris/3", False),
        ("iris@v3", False),
        ("iris@3", False),
        ("models:/m-" + "0" * 32, False),
        ("runs:/" + "0" * 32 + "/model", False),
        ("file:///tmp/model", False),
        ("/tmp", False),
        ("model", False),
        ("models:/", False),
    ],
)
def test_addresses_that_may_come_to_mean_another_version(uri: str, expected: bool) -> None:
    assert moves(uri) is expected


def test_a_stage_is_followed(registry: Registry, start: Start) -> None:
    registry.promote("sums", register(registry, 0.0), "Production", archive_existing=True)
    running = start(Addressed("models:/sums/Production"), follow=0.05)
    assert answered(running) == (6.0, "1")
    register(registry, 100.0)
    assert answered(running) == (6.0, "1")
    registry.promote("sums", "2", "Production", archive_existing=True)
    running.until(lambda: answered(running) == (106.0, "2"))
    registry.promote("sums", "1", "Production", archive_existing=True)
    running.until(lambda: answered(running) == (6.0, "1"))
    assert running.counted("gittrack_model_switches_total") == 2
    assert running.counted("gittrack_model_switch_failures_total") == 0


def answered(running: Running) -> tuple[float, str]:
    reply = running.post(ROW)
    (value,) = reply.predictions
    return round(value, 6), reply.headers["gittrack-model-version"]


def test_an_alias_that_moves_under_load(registry: Registry, start: Start) -> None:
    for intercept in (0.0, 100.0, 200.0):
        register(registry, intercept)
    registry.set_alias("sums", "champion", "1")
    running = start(Addressed("sums@champion"), follow=0.02)
    done = threading.Event()
    loads: list[Any] = []
    body = post(json.dumps(ROW).encode())

    def ask() -> None:
        import asyncio

        loads.append(asyncio.run(hammer(running.port, 4, lambda _, __: None if done.is_set() else body)))

    thread = threading.Thread(target=ask)
    thread.start()
    for number in ("2", "3", "1", "3"):
        registry.set_alias("sums", "champion", number)
        running.until(lambda number=number: answered(running)[1] == number)  # type: ignore[misc]
    done.set()
    thread.join(30)
    assert (loads[0].statuses, loads[0].lost) == ({200}, 0)
    for reply in loads[0].replies:
        (value,) = json.loads(reply.body)["predictions"]
        assert round(value) == 6 + 100 * (int(reply.headers["gittrack-model-version"]) - 1)


def test_a_version_whose_bytes_are_damaged_is_not_put_in(
    registry: Registry, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    for intercept in (0.0, 100.0):
        register(registry, intercept)
    registry.set_alias("sums", "champion", "1")
    running = start(Addressed("sums@champion"), follow=0.02)
    damaged = registry.manifest(registry.get_version("sums", "2")).files["model.skops"][0]
    (path,) = (path for path in registry.tracker.repo.root.rglob(damaged) if path.is_file())
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1] + b"x")
    registry.set_alias("sums", "champion", "2")
    running.until(lambda: running.counted("gittrack_model_switch_failures_total") == 1)
    assert answered(running) == (6.0, "1")
    assert "stays" in caplog.text
    path.write_bytes(content)
    registry.set_alias("sums", "challenger", "1")  # a change is a reason to look again, at once
    running.until(lambda: answered(running) == (106.0, "2"))


def test_a_stage_that_nothing_is_in_any_more_goes_on(registry: Registry, start: Start) -> None:
    registry.promote("sums", register(registry, 0.0), "Production", archive_existing=True)
    running = start(Addressed("models:/sums/Production"), follow=0.02)
    registry.promote("sums", "1", "Archived", archive_existing=False)
    running.until(lambda: running.counted("gittrack_model_switch_failures_total") == 1)
    assert answered(running) == (6.0, "1")


def test_what_is_not_there_is_said(registry: Registry) -> None:
    register(registry, 0.0)
    for uri in ("models:/sums/7", "models:/nothing/1", "sums@nobody", "models:/sums/Production", "./no-such-folder"):
        with pytest.raises(NotFoundError) as caught:
            Addressed(uri).load()
        assert caught.value.hint


def test_a_folder_and_a_runs_model_are_served(registry: Registry, tmp_path: Path, start: Start) -> None:
    register(registry, 0.0)
    registry.pull(registry.get_version("sums", "1"), tmp_path / "copy")
    running = start(Addressed(str(tmp_path / "copy")))
    assert running.post(ROW).predictions == [pytest.approx(6.0)]
    assert running.get("/v2/models/copy").json["versions"] == []
    run_id = registry.get_version("sums", "1").run_id
    assert start(Addressed(f"runs:/{run_id}/model")).get("/v2/models/model/ready").status == 200


# --- which models take arrays


def loaded(model: Any, features: Any, tmp_path: Path) -> PyFuncModel:
    folder = tmp_path / "saved"
    gittrack.sklearn.save_model(
        model, folder, signature=infer_signature(features, model.predict(features)), pip_requirements=["scikit-learn"]
    )
    return gittrack.pyfunc.load_model(folder)


def makers() -> dict[str, tuple[Callable[[], Any], bool]]:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor, VotingRegressor
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    ridge = linear_model.Ridge
    return {
        "linear": (ridge, True),
        "forest": (lambda: RandomForestRegressor(5, random_state=0), True),
        "boosting": (lambda: HistGradientBoostingRegressor(max_iter=5), True),
        "neighbours": (KNeighborsRegressor, True),
        "pipeline": (lambda: make_pipeline(StandardScaler(), ridge()), True),
        "search": (lambda: GridSearchCV(ridge(), {"alpha": [0.1, 1.0]}), True),
        "voting": (lambda: VotingRegressor([("r", ridge()), ("f", RandomForestRegressor(3, random_state=0))]), True),
        "by name": (lambda: make_pipeline(ColumnTransformer([("a", StandardScaler(), ["a"])]), ridge()), False),
        "function": (lambda: make_pipeline(FunctionTransformer(), ridge()), False),
        "handing on tables": (lambda: make_pipeline(StandardScaler().set_output(transform="pandas"), ridge()), False),
    }


@pytest.mark.parametrize("name", list(makers()))
def test_arrays_are_for_models_that_know_columns_by_position(name: str, tmp_path: Path) -> None:
    """And then the answers are exactly those for a table."""
    make, expected = makers()[name]
    features = table()
    model = loaded(make().fit(features, features.sum(axis=1)), features, tmp_path)
    scorer = Scorer(model)
    assert (scorer.predictor is not None) is expected
    shuffled = features[["c", "a", "b"]]
    body = json.dumps({"dataframe_split": shuffled.to_dict(orient="split")}).encode()
    request = scorer.read(body, JSON)
    assert request.matrix is expected
    assert list(scorer.predict(request)) == list(model.predict(features))


def test_a_model_that_was_fitted_with_other_names_takes_no_arrays(tmp_path: Path) -> None:
    features = table()
    model = linear_model.Ridge().fit(features[["b", "a", "c"]], features.sum(axis=1))
    folder = tmp_path / "saved"
    gittrack.sklearn.save_model(
        model, folder, signature=infer_signature(features, features.a), pip_requirements=["scikit-learn"]
    )
    assert Scorer(gittrack.pyfunc.load_model(folder)).predictor is None


WITHOUT_PANDAS = """
import sys

class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoPandas())
from gittrack.models.scoring import Scorer
from gittrack.server.following import Addressed
scorer = Scorer(Addressed(sys.argv[1]).load().model)
for body, kind in ((sys.argv[2].encode(), "application/json"), (b"a,b,c\\n1,2,3\\n", "text/csv")):
    print(scorer.write(scorer.predict(scorer.read(body, kind))).decode())
assert "pandas" not in sys.modules
"""


def test_a_numeric_model_is_served_where_there_is_no_pandas(tmp_path: Path) -> None:
    features = table()
    model = linear_model.LinearRegression().fit(features, features.sum(axis=1))
    loaded(model, features, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PANDAS, str(tmp_path / "saved"), json.dumps(ROW)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert json.loads(line)["predictions"] == [pytest.approx(6.0)]
