"""The API against a server: the same programs on gittrack's own and on MLflow's."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack import Client, errors
from gittrack.types import Metric, Param, Run, RunTag, ViewType
from tests.remote.conftest import Place

Python = Callable[..., "subprocess.CompletedProcess[str]"]


def experiment(name: str) -> str:
    """A fresh experiment that is the chosen one."""
    return str(gittrack.set_experiment(f"{name} {time.time_ns()}").experiment_id)


def test_the_quickstart_runs_there(there: str, server: Place) -> None:
    experiment_id = experiment("quickstart")
    assert gittrack.get_tracking_uri() == gittrack.get_registry_uri() == there
    with gittrack.start_run(run_name="first", tags={"stage": "dev"}, description="a try") as run:
        gittrack.log_params({"lr": 0.1, "layers": 3})
        for step in range(3):
            gittrack.log_metric("loss", 1.0 / (step + 1), step=step)
        gittrack.log_metrics({"acc": 0.5, "odd": float("nan")}, step=2)
        gittrack.set_tag("note", "ünï")
        gittrack.log_text("hello", "notes/hello.txt")
        gittrack.log_dict({"a": [1]}, "config.json")
        assert gittrack.active_run() is not None
    found = gittrack.get_run(run.info.run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "first")
    assert found.info.experiment_id == experiment_id
    assert found.info.end_time is not None
    assert found.info.end_time >= found.info.start_time
    assert found.data.params == {"lr": "0.1", "layers": "3"}
    assert {key: value for key, value in found.data.metrics.items() if key != "odd"} == {"loss": 1 / 3, "acc": 0.5}
    assert found.data.metrics["odd"] != found.data.metrics["odd"]
    assert found.data.tags["note"] == "ünï"
    assert found.data.tags["stage"] == "dev"
    assert found.data.tags["mlflow.note.content"] == "a try"
    assert len(found.data.tags["mlflow.source.git.commit"]) == 40
    history = Client().get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert {one.path for one in Client().list_artifacts(run.info.run_id)} == {"config.json", "notes"}
    assert gittrack.artifacts.load_text(f"runs:/{run.info.run_id}/notes/hello.txt") == "hello"
    assert gittrack.artifacts.load_dict(f"runs:/{run.info.run_id}/config.json") == {"a": [1]}
    last = gittrack.last_active_run()
    assert last is not None
    assert last.info == found.info
    assert Path(".gittrack").exists() == (server.kind == "gittrack")  # where it was recorded first


def test_a_program_that_dies_fails_its_run(there: str, python: Python) -> None:
    experiment_id = experiment("dies")
    done = python(
        "import gittrack\nrun = gittrack.start_run()\nprint(run.info.run_id, flush=True)\nraise ValueError",
        check=False,
        GITTRACK_TRACKING_URI=there,
        GITTRACK_EXPERIMENT_ID=experiment_id,
    )
    assert done.returncode == 1, done.stderr
    assert gittrack.get_run(done.stdout.strip()).info.status == "FAILED"


def test_nested_runs_know_their_parent(there: str) -> None:
    experiment_id = experiment("nested")
    with gittrack.start_run() as parent:
        children = []
        for depth in range(2):
            with gittrack.start_run(nested=True, run_name=f"child {depth}") as child:
                gittrack.log_metric("depth", depth)
                children.append(child.info.run_id)
    found = gittrack.search_runs(
        [experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'", order_by=["metrics.depth DESC"],
        output_format="list",
    )  # fmt: skip
    assert [one.info.run_id for one in found] == children[::-1]
    above = gittrack.get_parent_run(children[0])
    assert above is not None
    assert above.info.run_id == parent.info.run_id


def test_searches_filter_order_and_page(there: str) -> None:
    experiment_id = experiment("search")
    client = Client()
    for number in range(5):
        run = client.create_run(experiment_id, run_name=f"r{number}", tags={"even": str(number % 2 == 0)})
        client.log_batch(run.info.run_id, [Metric("m", number, 1, 0)], [Param("p", str(number))], [RunTag("t", "x")])
        client.set_terminated(run.info.run_id)

    def names(found: Iterable[Run]) -> list[str]:
        return [one.info.run_name for one in found]

    assert names(client.search_runs([experiment_id], "metrics.m > 2", order_by=["metrics.m ASC"])) == ["r3", "r4"]
    assert names(
        client.search_runs([experiment_id], "params.p LIKE '%4%' AND tags.even = 'True'", order_by=["params.p DESC"])
    ) == ["r4"]
    pages, token = [], None
    while True:
        page = client.search_runs([experiment_id], order_by=["metrics.m DESC"], max_results=2, page_token=token)
        pages.append(names(page))
        token = page.token
        if token is None:
            break
    assert pages == [["r4", "r3"], ["r2", "r1"], ["r0"]]
    assert len(gittrack.search_runs([experiment_id], max_results=3)) == 3
    client.delete_run(client.search_runs([experiment_id], "attributes.run_name = 'r0'")[0].info.run_id)
    assert names(client.search_runs([experiment_id], run_view_type=ViewType.DELETED_ONLY)) == ["r0"]
    with pytest.raises(errors.InvalidValueError):
        client.search_runs([experiment_id], "metrics.m ~ 3")


def test_artifacts_of_some_size_come_back_as_they_were(there: str, tmp_path: Path) -> None:
    experiment("artifacts")
    data = os.urandom(5 << 20)
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "big.bin").write_bytes(data)
    (source / "deep" / "er" / "ä b.txt").write_text("text")
    with gittrack.start_run() as run:
        gittrack.log_artifacts(str(source), "all")
        gittrack.log_artifact(str(source / "big.bin"))
        gittrack.log_artifact(str(source / "deep"), "more")
    run_id = run.info.run_id
    place = gittrack.artifacts.download_artifacts(run_id=run_id, artifact_path="all", dst_path=str(tmp_path / "back"))
    assert Path(place) == tmp_path / "back" / "all"
    assert (tmp_path / "back/all/big.bin").read_bytes() == data
    assert (tmp_path / "back/all/deep/er/ä b.txt").read_text() == "text"
    one = gittrack.artifacts.download_artifacts(f"runs:/{run_id}/more/deep/er/ä b.txt")
    assert Path(one).name == "ä b.txt"
    assert Path(one).read_text() == "text"
    every = Path(gittrack.artifacts.download_artifacts(run_id=run_id))
    assert sorted(path.name for path in every.iterdir()) == ["all", "big.bin", "more"]
    client = Client()
    assert [(found.path, found.is_dir, found.file_size) for found in client.list_artifacts(run_id, "all")] == [
        ("all/big.bin", False, 5 << 20),
        ("all/deep", True, None),
    ]
    assert client.list_artifacts(run_id, "big.bin") == client.list_artifacts(run_id, "nothing") == []
    with pytest.raises(errors.NotFoundError):
        client.download_artifacts(run_id, "nothing")
    with pytest.raises(errors.InvalidValueError):
        client.download_artifacts(run_id, "../x")


def test_tables_grow_there(there: str) -> None:
    experiment("tables")
    with gittrack.start_run() as run:
        gittrack.log_table({"a": [1], "b": ["x"]}, "table.json")
        gittrack.log_table({"a": [2], "b": ["y"]}, "table.json")
    found = gittrack.load_table("table.json", run_ids=[run.info.run_id])
    assert found["b"].tolist() == ["x", "y"]


def test_what_other_runs_have_can_be_edited(there: str) -> None:
    experiment_id = experiment("edits")
    client = Client()
    run_id = client.create_run(experiment_id, start_time=1000, run_name="old").info.run_id
    client.set_tag(run_id, "a", 1)
    client.set_tag(run_id, "b", 2)
    client.delete_tag(run_id, "b")
    client.log_param(run_id, "p", "v")
    client.log_param(run_id, "p", "v")
    with pytest.raises(errors.InvalidValueError):
        client.log_param(run_id, "p", "w")
    with pytest.raises(errors.NotFoundError):
        client.delete_tag(run_id, "b")
    client.update_run(run_id, name="new")
    client.set_terminated(run_id, "FAILED", end_time=5000)
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status, run.info.end_time) == ("new", "FAILED", 5000)
    assert (run.data.tags["a"], "b" in run.data.tags) == ("1", False)
    with gittrack.start_run(run_id) as resumed:
        assert resumed.info.status == "RUNNING"
        gittrack.log_metric("again", 1)
    assert client.get_run(run_id).info.status == "FINISHED"
    client.delete_run(run_id)
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    client.restore_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "active"


def test_many_points_go_in_the_pieces_that_servers_take(there: str) -> None:
    run_id = Client().create_run(experiment("batches")).info.run_id
    points = [Metric("m", float(step), 1000 + step, step) for step in range(2500)]
    params = [Param(f"p{number}", str(number)) for number in range(150)]
    Client().log_batch(run_id, points, params, [RunTag(f"t{number}", "x") for number in range(120)])
    run = Client().get_run(run_id)
    assert (len(run.data.params), run.data.tags["t119"], run.data.metrics["m"]) == (150, "x", 2499.0)
    history = Client().get_metric_history(run_id, "m")
    assert [(one.step, one.timestamp) for one in history] == [(step, 1000 + step) for step in range(2500)]


def test_datasets_are_recorded(there: str) -> None:
    experiment("datasets")
    import pandas as pd

    with gittrack.start_run() as run:
        frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]})
        gittrack.log_input(gittrack.data.from_pandas(frame, targets="y", name="toy"), context="training")
    found = gittrack.get_run(run.info.run_id).inputs.dataset_inputs
    assert [(one.dataset.name, one.tags[0].value) for one in found] == [("toy", "training")]


def test_experiments_are_edited(there: str) -> None:
    client = Client()
    name = f"edited {time.time_ns()}"
    experiment_id = client.create_experiment(name, tags={"team": "a"})
    with pytest.raises(errors.AlreadyExistsError):
        client.create_experiment(name)
    client.set_experiment_tag(experiment_id, "owner", "ana")
    client.rename_experiment(experiment_id, f"{name} 2")
    found = client.get_experiment(experiment_id)
    assert (found.name, found.tags["team"], found.tags["owner"]) == (f"{name} 2", "a", "ana")
    by_name = client.get_experiment_by_name(f"{name} 2")
    assert by_name is not None
    assert by_name.experiment_id == experiment_id
    assert client.get_experiment_by_name(name) is None
    assert [one.name for one in client.search_experiments(filter_string=f"name = '{name} 2'")] == [f"{name} 2"]
    client.delete_experiment(experiment_id)
    assert client.get_experiment(experiment_id).lifecycle_stage == "deleted"
    client.restore_experiment(experiment_id)
    with pytest.raises(errors.NotFoundError):
        client.get_experiment("987654")


def test_a_model_goes_there_and_comes_back_by_alias_stage_and_version(there: str) -> None:
    sklearn = pytest.importorskip("sklearn.linear_model", reason="trains a model of scikit-learn")
    numpy = pytest.importorskip("numpy", reason="trains a model of scikit-learn")
    experiment_id = experiment("models")
    name = f"line-{time.time_ns()}"
    model: Any = sklearn.LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    with gittrack.start_run() as run:
        gittrack.log_metric("rmse", 0.25)
        gittrack.log_param("depth", 2)
        info = gittrack.sklearn.log_model(
            model, name="model", registered_model_name=name, input_example=numpy.array([[1.0]]), params={"own": "1"}
        )
    assert info.registered_model_version == 1
    assert info.model_id is not None
    client = Client()
    logged = gittrack.get_logged_model(info.model_id)
    assert (logged.name, logged.source_run_id, logged.status.value) == ("model", run.info.run_id, "READY")
    assert logged.params == {"own": "1", "depth": "2"}
    assert [(one.key, one.value) for one in logged.metrics] == [("rmse", 0.25)]
    found = gittrack.search_logged_models([experiment_id], "metrics.rmse < 1", output_format="list")
    assert [one.model_id for one in found] == [info.model_id]
    assert "MLmodel" in {one.path for one in client.list_logged_model_artifacts(info.model_id)}

    client.set_registered_model_alias(name, "champion", "1")
    assert client.transition_model_version_stage(name, "1", "Production").current_stage == "Production"
    run_uri = f"runs:/{run.info.run_id}/model"
    for uri in (f"models:/{name}/1", f"models:/{name}@champion", f"models:/{name}/Production", f"models:/{name}/latest",
                f"models:/{info.model_id}", run_uri, f"{name}@champion"):  # fmt: skip
        assert gittrack.sklearn.load_model(uri).predict([[2.0]])[0] == pytest.approx(5.0), uri
    assert gittrack.pyfunc.load_model(run_uri).predict(numpy.array([[3.0]]))[0] == pytest.approx(7.0)
    assert gittrack.models.get_model_info(f"models:/{name}@champion").signature is not None
    assert any("scikit-learn" in line for line in gittrack.models.get_model_requirements(f"models:/{name}/1"))

    second = gittrack.register_model(run_uri, name, tags={"why": "again"})
    assert (second.version, second.tags["why"], second.run_id) == ("2", "again", run.info.run_id)
    copied = client.copy_model_version(f"models:/{name}@champion", f"{name}-copy")
    assert gittrack.sklearn.load_model(f"models:/{copied.name}/{copied.version}").predict([[2.0]])[0] > 4
    assert copied.source == copied.copied_from == f"models:/{name}/1"
    assert not client.get_model_version_download_uri(copied.name, copied.version).startswith("models:")
    with pytest.raises(errors.NotFoundError):
        gittrack.sklearn.load_model(f"models:/{name}@nobody")
    with pytest.raises(errors.NotFoundError):
        gittrack.sklearn.load_model(f"models:/{name}/Staging")
    with pytest.raises(errors.NotFoundError):
        gittrack.sklearn.load_model(f"runs:/{run.info.run_id}/other")


def test_a_model_that_runs_code_needs_trust_there_too(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cloudpickle = pytest.importorskip("cloudpickle", reason="pickles a model")
    assert cloudpickle
    experiment("trust")

    class Twice(gittrack.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return [2 * one for one in model_input]

    name = f"twice-{time.time_ns()}"
    with gittrack.start_run():
        gittrack.pyfunc.log_model(name="model", python_model=Twice(), registered_model_name=name)
    with pytest.raises(errors.UntrustedModelError, match="shows no signatures"):
        gittrack.pyfunc.load_model(f"models:/{name}/1")
    assert gittrack.pyfunc.load_model(f"models:/{name}/1", trust=True).predict([1, 2]) == [2, 4]
    Client().transition_model_version_stage(name, "1", "Production")
    monkeypatch.setenv("GITTRACK_REQUIRE_SIGNED", "production")
    with pytest.raises(errors.PolicyError, match="must be signed"):
        gittrack.pyfunc.load_model(f"models:/{name}/Production", trust=True)


def test_the_registry_is_edited(there: str) -> None:
    client = Client()
    name = f"registry-{time.time_ns()}"
    client.create_registered_model(name, {"team": "a"}, "first")
    with pytest.raises(errors.AlreadyExistsError):
        client.create_registered_model(name)
    run_id = client.create_run(experiment("registry")).info.run_id
    client.log_text(run_id, "flavors: {}", "m/MLmodel")
    for _ in range(3):
        client.create_model_version(name, f"runs:/{run_id}/m", run_id)
    client.update_registered_model(name, "second")
    client.set_registered_model_tag(name, "k", "v")
    client.delete_registered_model_tag(name, "team")
    client.set_registered_model_alias(name, "best", "2")
    model = client.get_registered_model(name)
    assert (model.description, model.tags, model.aliases) == ("second", {"k": "v"}, {"best": "2"})
    assert client.get_model_version_by_alias(name, "best").version == "2"
    client.set_model_version_tag(name, "1", "x", 1)
    client.update_model_version(name, "1", "text")
    client.transition_model_version_stage(name, "1", "Staging")
    client.transition_model_version_stage(name, "3", "staging", archive_existing_versions=True)
    one = client.get_model_version(name, "1")
    assert (one.current_stage, one.description, one.tags) == ("Archived", "text", {"x": "1"})
    assert [found.version for found in client.get_latest_versions(name, ["Staging"])] == ["3"]
    client.delete_model_version_tag(name, "1", "x")
    client.delete_registered_model_alias(name, "best")
    client.delete_model_version(name, "2")
    assert {found.version for found in client.search_model_versions(f"name = '{name}'")} == {"1", "3"}
    page = client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number ASC"])
    assert ([found.version for found in page], bool(page.token)) == (["1"], True)
    assert [found.name for found in client.search_registered_models(f"name = '{name}'")] == [name]
    client.rename_registered_model(name, f"{name}-new")
    client.delete_registered_model(f"{name}-new")
    with pytest.raises(errors.NotFoundError):
        client.get_registered_model(f"{name}-new")


def test_logged_models_are_made_edited_and_found(there: str) -> None:
    experiment_id = experiment("logged")
    model = gittrack.initialize_logged_model("mine", params={"a": "1"}, tags={"k": "v"}, model_type="agent")
    client = Client()
    client.set_logged_model_tags(model.model_id, {"x": 2})
    client.delete_logged_model_tag(model.model_id, "k")
    client.log_model_params(model.model_id, {"b": "3"})
    gittrack.finalize_logged_model(model.model_id, "READY")
    found = client.get_logged_model(model.model_id)
    assert (found.name, found.model_type, found.status.value) == ("mine", "agent", "READY")
    assert found.params == {"a": "1", "b": "3"}
    assert (found.tags["x"], "k" in found.tags) == ("2", False)
    assert [one.model_id for one in client.search_logged_models([experiment_id], "name = 'mine'")] == [model.model_id]
    client.delete_logged_model(model.model_id)
    with pytest.raises(errors.NotFoundError):
        client.get_logged_model(model.model_id)


def test_errors_are_those_of_a_repository(there: str) -> None:
    client = Client()
    missing = "0" * 32
    for call in (
        lambda: client.get_run(missing),
        lambda: client.set_tag(missing, "a", "b"),
        lambda: client.get_registered_model("nothing"),
        lambda: client.get_logged_model("m-" + "0" * 32),
        lambda: gittrack.start_run(missing),
    ):
        with pytest.raises(errors.NotFoundError) as caught:
            call()
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(errors.InvalidValueError):
        client.get_run("../x")
    with pytest.raises(errors.NotFoundError, match="no remote"):
        gittrack.push()  # of the repository here
