"""Logged models as a training program meets them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack import entities
from gittrack.errors import InvalidValueError, NotFoundError
from gittrack.models import addresses
from gittrack.types import LoggedModel, LoggedModelStatus, ModelOutput

MLMODEL = b"flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n"


def line(slope: float = 1.0) -> Any:
    """A fitted model of scikit-learn."""
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    return linear_model.LinearRegression().fit([[0.0], [1.0]], [0.0, slope])


def test_what_log_model_logs_is_a_logged_model(project: Path) -> None:
    with gittrack.start_run() as run:
        gittrack.log_params({"lr": 0.1})
        gittrack.log_metric("acc", 0.5)
        gittrack.log_metric("acc", 0.75, step=3)
        info = gittrack.sklearn.log_model(line(), name="line", params={"own": 1}, tags={"stage": "x"}, model_type="l")
        gittrack.log_metrics({"late": 0.25})  # at the model's step
        gittrack.log_metric("other", 1, step=1)
    model = gittrack.get_logged_model(str(info.model_id))
    assert (model.name, model.status, model.source_run_id) == ("line", LoggedModelStatus.READY, run.info.run_id)
    assert (model.path, model.model_type) == ("line", "l")
    assert model.flavors == ("python_function", "sklearn")
    assert model.params == {"own": "1", "lr": "0.1"}
    assert model.tags["stage"] == "x"
    assert model.tags["mlflow.source.type"] == "LOCAL"
    assert [(point.key, point.value, point.step) for point in model.metrics] == [("acc", 0.5, 0), ("late", 0.25, 0)]
    assert gittrack.last_logged_model() == model
    (found,) = gittrack.search_logged_models(
        filter_string="metrics.late > 0 AND params.lr = '0.1'", output_format="list"
    )
    assert found == model
    assert gittrack.sklearn.load_model(model.model_uri).coef_ == pytest.approx([1.0])
    assert gittrack.get_run(run.info.run_id).inputs.model_inputs == []


def test_a_newer_model_of_the_same_name_leaves_the_older_one_findable(project: Path) -> None:
    with gittrack.start_run():
        first, second = (gittrack.sklearn.log_model(line(slope), name="line") for slope in (1.0, 2.0))
        names = [model.name for model in gittrack.search_logged_models(output_format="list")]
        assert names == ["line", "line"]
        for info, slope in ((first, 1.0), (second, 2.0)):
            assert gittrack.sklearn.load_model(f"models:/{info.model_id}").coef_ == pytest.approx([slope])


def test_a_model_can_be_made_before_its_files(project: Path) -> None:
    waiting = gittrack.initialize_logged_model(name="late", params={"a": "1"}, experiment_id="0")
    assert (waiting.status, waiting.source_run_id) == (LoggedModelStatus.PENDING, None)
    with pytest.raises(NotFoundError):
        gittrack.sklearn.load_model(waiting.model_uri)
    with gittrack.start_run() as run:
        info = gittrack.sklearn.log_model(line(3.0), model_id=waiting.model_id)
    assert info.model_id == waiting.model_id
    done = gittrack.get_logged_model(waiting.model_id)
    assert (done.status, done.source_run_id) == (LoggedModelStatus.READY, None)
    assert gittrack.sklearn.load_model(done.model_uri).coef_ == pytest.approx([3.0])
    (output,) = gittrack.get_run(run.info.run_id).outputs.model_outputs
    assert output == ModelOutput(waiting.model_id, 0)
    assert len(gittrack.search_runs(output_format="list")) == 1
    version = gittrack.register_model(done.model_uri, "registered")
    assert (version.model_id, version.run_id) == (done.model_id, done.run_id)
    assert gittrack.sklearn.load_model("models:/registered/1").coef_ == pytest.approx([3.0])


def test_a_run_in_progress_is_the_source(project: Path) -> None:
    with gittrack.start_run(experiment_id=gittrack.create_experiment("e")) as run:
        made = gittrack.initialize_logged_model(name="m")
        outside = gittrack.initialize_logged_model(name="m", source_run_id=run.info.run_id)
    for model in (made, outside):
        assert (model.source_run_id, model.experiment_id) == (run.info.run_id, run.info.experiment_id)
    later = gittrack.initialize_logged_model(source_run_id=run.info.run_id)
    assert later.experiment_id == run.info.experiment_id
    assert later.name


def test_runs_know_models_by_name_that_were_logged_through_mlflow(project: Path) -> None:
    client = gittrack.Client()
    with gittrack.start_run() as run:
        run_id = run.info.run_id
        older, newer, gone = (client.create_logged_model("0", "line", run_id) for _ in range(3))
        for model, data in ((older, b"older"), (newer, b"newer"), (gone, b"gone")):
            run_writer = gittrack.stores.tracker().writer(run_id)
            run_writer.log_bytes(MLMODEL, f"{model.path}/MLmodel")
            run_writer.log_bytes(data, f"{model.path}/data")
        client.delete_logged_model(gone.model_id)
        found = addresses.locate(f"runs:/{run_id}/line")
        assert found.path in (older.path, newer.path)  # the newest; they may be of one millisecond
        version = gittrack.register_model(f"runs:/{run_id}/line", "r")
        assert version.path == found.path
        with pytest.raises(NotFoundError):
            addresses.locate(f"runs:/{run_id}/nothing")


def test_an_external_model(project: Path) -> None:
    made = gittrack.create_external_model(name="agent", model_type="agent", tags={"a": "b"})
    assert (made.status, made.model_type) == (LoggedModelStatus.READY, "agent")
    assert made.tags["mlflow.model.isExternal"] == "true"
    assert [file.path for file in gittrack.Client().list_logged_model_artifacts(made.model_id)] == ["MLmodel"]
    assert gittrack.last_logged_model() == made
    gittrack.log_model_params({"depth": "2"}, made.model_id)
    gittrack.set_logged_model_tags(made.model_id, {"c": "d"})
    gittrack.delete_logged_model_tag(made.model_id, "a")
    found = gittrack.get_logged_model(made.model_id)
    assert found.params == {"depth": "2"}
    assert ("a" in found.tags, found.tags["c"]) == (False, "d")
    gittrack.Client().delete_logged_model(made.model_id)
    with pytest.raises(NotFoundError):
        gittrack.get_logged_model(made.model_id)
    with pytest.raises(InvalidValueError, match="no model is active"):
        gittrack.log_model_params({"a": "1"})


def test_metrics_go_to_the_active_model(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gittrack.get_active_model_id() is None
    with gittrack.start_run() as run:
        with gittrack.set_active_model(name="first") as first:
            gittrack.log_metric("a", 1.0)
            with gittrack.set_active_model(model_id=first.model_id, name="first"):
                gittrack.log_metrics({"b": 2.0}, step=4)
            second = gittrack.set_active_model(name="second")
            gittrack.Client().log_metric(run.info.run_id, "c", 3.0)
            gittrack.log_metric("given", 4.0, model_id=first.model_id)
        assert gittrack.get_active_model_id() is None
        gittrack.log_metric("nobody", 5.0)
        assert gittrack.set_active_model(name="first").model_id == first.model_id
        gittrack.clear_active_model()
        gittrack.log_metric("nobody", 6.0)

    def measured(model: LoggedModel) -> list[str]:
        return [point.key for point in gittrack.get_logged_model(model.model_id).metrics]

    assert (measured(first), measured(second)) == (["a", "b", "given"], ["c"])
    read = gittrack.get_run(run.info.run_id).inputs.model_inputs
    assert {one.model_id for one in read} == {first.model_id}
    with pytest.raises(InvalidValueError, match="is called"):
        gittrack.set_active_model(name="other", model_id=first.model_id)
    with pytest.raises(NotFoundError):
        gittrack.set_active_model(model_id="m-1")
    with pytest.raises(InvalidValueError, match="a name or an id"):
        gittrack.set_active_model()
    with pytest.raises(InvalidValueError, match="quotes"):
        gittrack.set_active_model(name="a'b")


def test_the_environment_names_the_active_model(project: Path, python: Any) -> None:
    text = "import gittrack; print(gittrack.get_active_model_id())"
    for name in ("GITTRACK_ACTIVE_MODEL_ID", "MLFLOW_ACTIVE_MODEL_ID"):
        assert python(text, **{name: "m-7"}).stdout.strip() == "m-7"


def test_a_point_that_several_models_share_is_one_point(project: Path) -> None:
    with gittrack.start_run() as run:
        models = [gittrack.initialize_logged_model(name=name) for name in "ab"]
        gittrack.log_outputs([ModelOutput(model.model_id, 5) for model in models])
        gittrack.log_metrics({"acc": 0.5}, step=5)
        gittrack.log_metric("acc", 0.75, step=6)
        with pytest.raises(InvalidValueError):
            gittrack.log_metric("acc", 0.5, step=[1])  # type: ignore[arg-type]
    assert len(gittrack.Client().get_metric_history(run.info.run_id, "acc")) == 2
    assert gittrack.get_run(run.info.run_id).data.summaries["acc"].count == 2
    for model in models:
        assert [point.value for point in gittrack.get_logged_model(model.model_id).metrics] == [0.5]


def test_files_of_a_model(project: Path, tmp_path: Path) -> None:
    client = gittrack.Client()
    model = client.create_logged_model("0", "files")
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_text("b", encoding="utf-8")
    client.log_model_artifact(model.model_id, str(tmp_path / "a.txt"))
    client.log_model_artifacts(model.model_id, str(tmp_path / "folder"), "sub")
    client.log_model_artifact(model.model_id, str(tmp_path / "folder"), "deep")
    assert [one.path for one in client.list_logged_model_artifacts(model.model_id)] == ["a.txt", "deep", "sub"]
    assert [one.path for one in client.list_logged_model_artifacts(model.model_id, "deep/folder")] == [
        "deep/folder/b.txt"
    ]
    assert Path(gittrack.artifacts.download_artifacts(model.artifact_location), "sub", "b.txt").read_bytes() == b"b"
    with pytest.raises(InvalidValueError):
        client.log_model_artifact(model.model_id, str(tmp_path / "a.txt"), "../x")
    with pytest.raises(NotFoundError):
        client.list_logged_model_artifacts("m-1")


def test_searches_give_frames_and_lists(project: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    made = [gittrack.create_external_model(name=name) for name in "abc"]
    frame = gittrack.search_logged_models()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["name"]) == ["c", "b", "a"]
    assert list(frame.columns) == sorted(frame.columns)
    assert list(frame["status"]) == [LoggedModelStatus.READY] * 3
    some = gittrack.search_logged_models(max_results=2, order_by=[{"field_name": "name"}], output_format="list")
    assert [model.name for model in some] == ["a", "b"]
    assert gittrack.search_logged_models(["0"], "name = 'b'", output_format="list") == [made[1]]
    wrong: list[dict[str, Any]] = [{"output_format": "x"}, {"experiment_ids": "0"}]
    for arguments in wrong:
        with pytest.raises(InvalidValueError):
            gittrack.search_logged_models(**arguments)


def test_the_record_has_mlflows_shapes(project: Path) -> None:
    model = gittrack.create_external_model(name="a", params={"p": "1"})
    facts = model.to_dictionary()
    assert list(facts) == sorted(facts)
    assert (facts["status"], facts["params"]) == (2, {"p": "1"})
    assert "model_uri" not in facts
    assert dict(model)["model_uri"] == f"models:/{model.model_id}"
    assert dict(model)["status"] == "READY"
    assert model == copy.deepcopy(model) == pickle.loads(pickle.dumps(model))
    for number, status in enumerate(LoggedModelStatus):
        assert (status.to_int(), LoggedModelStatus.from_int(number)) == (number, status)
        assert LoggedModelStatus.is_finalized(status) == (number > 1)
    for wrong in (4, -1, True, "READY"):
        with pytest.raises(InvalidValueError):
            LoggedModelStatus.from_int(wrong)  # type: ignore[arg-type]
    assert entities.LoggedModelTag("a", "b") == entities.LoggedModelTag("a", "b")
    assert entities.LoggedModelParameter("a", "b").value == "b"
