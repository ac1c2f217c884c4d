"""The registry under MLflow's names: ``Client`` and the fluent functions, as MLflow's users call them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack import MlflowClient
from gittrack.entities import ModelVersion, RegisteredModel
from gittrack.errors import (
    AlreadyExistsError,
    GittrackError,
    InvalidValueError,
    NotFoundError,
    UnsupportedError,
)
from gittrack.registry_client import RegistryClient
from tests.api.conftest import project as project  # noqa: PLC0414 - the fixture


@pytest.fixture
def run_id(project: Path) -> str:
    """A finished run with a model."""
    with gittrack.start_run() as run:
        gittrack.log_text("weights", "model/w.txt")
    return str(run.info.run_id)


def test_the_documented_steps(run_id: str) -> None:
    client = MlflowClient()
    version = gittrack.register_model(f"runs:/{run_id}/model", "iris", tags={"a": 1})
    assert isinstance(version, ModelVersion)
    assert (version.name, version.version, version.run_id, version.status) == ("iris", "1", run_id, "READY")
    assert version.tags == {"a": "1"}
    assert client.transition_model_version_stage("iris", "1", "Production").current_stage == "Production"
    gittrack.register_model(f"runs:/{run_id}/model", "iris")
    moved = client.transition_model_version_stage("iris", "2", "production", archive_existing_versions=True)
    assert moved.current_stage == "Production"
    assert [(v.version, v.current_stage) for v in client.get_latest_versions("iris")] == [
        ("2", "Production"), ("1", "Archived"),
    ]  # fmt: skip
    assert client.get_latest_versions("iris", ["Staging"]) == []
    client.set_registered_model_alias("iris", "champion", "1")
    assert client.get_model_version_by_alias("iris", "champion").version == "1"
    assert client.get_model_version_download_uri("iris", "1") == f"runs:/{run_id}/model"
    client.delete_registered_model_alias("iris", "champion")
    with pytest.raises(InvalidValueError):
        client.get_model_version_by_alias("iris", "champion")
    assert client.get_model_version_stages("iris", "1") == ["None", "Staging", "Production", "Archived"]
    assert client.update_model_version("iris", "1", "text").description == "text"
    client.delete_model_version("iris", "1")
    with pytest.raises(NotFoundError):
        client.get_model_version("iris", "1")


def test_models(run_id: str) -> None:
    client = MlflowClient()
    made = client.create_registered_model("iris", {"a": 1}, "text")
    assert isinstance(made, RegisteredModel)
    assert (made.name, made.tags, made.description, made.latest_versions) == ("iris", {"a": "1"}, "text", [])
    with pytest.raises(AlreadyExistsError) as caught:
        client.create_registered_model("iris")
    assert caught.value.error_code == "RESOURCE_ALREADY_EXISTS"
    client.set_registered_model_tag("iris", "b", 2)
    client.delete_registered_model_tag("iris", "a")
    assert client.update_registered_model("iris", "new").description == "new"
    assert client.rename_registered_model("iris", "flowers").tags == {"b": "2"}
    version = client.create_model_version("flowers", f"runs:/{run_id}/model", run_id, {"x": "y"}, None, "first")
    assert (version.description, version.tags) == ("first", {"x": "y"})
    copied = client.copy_model_version("models:/flowers/1", "copy")
    assert (copied.name, copied.version, copied.run_id, copied.tags) == ("copy", "1", run_id, {"x": "y"})
    assert [model.name for model in gittrack.search_registered_models()] == ["copy", "flowers"]
    assert [model.name for model in client.search_registered_models("name = 'copy'")] == ["copy"]
    assert {version.name for version in gittrack.search_model_versions()} == {"copy", "flowers"}
    assert len(client.search_model_versions(f"run_id = '{run_id}'")) == 2
    client.delete_registered_model("flowers")
    with pytest.raises(NotFoundError) as missing:
        client.get_registered_model("flowers")
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_tags_of_a_version_or_of_the_newest_in_a_stage(run_id: str) -> None:
    client = MlflowClient()
    gittrack.register_model(f"runs:/{run_id}/model", "iris")
    gittrack.set_model_version_tag("iris", "1", "a", 1)
    client.transition_model_version_stage("iris", "1", "Staging")
    client.set_model_version_tag("iris", key="b", value=2, stage="Staging")
    assert client.get_model_version("iris", "1").tags == {"a": "1", "b": "2"}
    client.delete_model_version_tag("iris", key="b", stage="Staging")
    client.delete_model_version_tag("iris", "1", "a")
    assert client.get_model_version("iris", "1").tags == {}
    calls: list[Callable[[], object]] = [
        lambda: client.set_model_version_tag("iris", "1", "a", 1, "Staging"),
        lambda: client.set_model_version_tag("iris", key="a", value=1),
        lambda: client.set_model_version_tag("iris", "1"),
        lambda: client.set_model_version_tag("iris", key="a", value=1, stage="Production"),
    ]
    for call in calls:
        with pytest.raises(GittrackError):
            call()


def test_a_model_is_registered_while_its_run_goes_on(project: Path) -> None:
    with gittrack.start_run() as run:
        gittrack.log_text("one", "model/w.txt")
        first = gittrack.register_model(f"runs:/{run.info.run_id}/model", "iris")
        gittrack.log_text("two", "model/w.txt")
        gittrack.log_metric("after", 1.0)
    second = gittrack.register_model(f"runs:/{run.info.run_id}/model", "iris")
    assert first.manifest != second.manifest
    assert gittrack.get_run(run.info.run_id).data.metrics == {"after": 1.0}
    assert gittrack.get_run(run.info.run_id).info.status == "FINISHED"


def test_a_local_folder_gets_a_run_of_its_own(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    version = gittrack.register_model(str(folder), "iris")
    again = gittrack.register_model(folder.as_uri(), "iris")
    assert version.manifest == again.manifest
    assert gittrack.get_run(str(version.run_id)).info.status == "FINISHED"
    assert version.source == f"runs:/{version.run_id}/model"


@pytest.mark.parametrize(
    "source",
    ["runs:/RUN/nope", "runs:/nope/model", "models:/nope/1", "models:/iris/9", "s3://a/b", "file://host/x", "nope",
     "runs:/RUN/../x", "models:/iris/%2e%2e", "dbfs:/x", "http:///#/../etc", "file://./etc"],
)  # fmt: skip
def test_what_cannot_be_registered_makes_nothing(run_id: str, project: Path, source: str) -> None:
    gittrack.register_model(f"runs:/{run_id}/model", "iris")
    runs = len(gittrack.search_runs(output_format="list"))
    source = source.replace("RUN", run_id)
    calls: list[Callable[[], object]] = [
        lambda: gittrack.register_model(source, "new"),
        lambda: MlflowClient().create_model_version("iris", source),
    ]
    for call in calls:
        with pytest.raises(GittrackError):
            call()
    assert [model.name for model in gittrack.search_registered_models()] == ["iris"]
    assert len(gittrack.search_model_versions()) == 1
    assert len(gittrack.search_runs(output_format="list")) == runs


def test_a_version_needs_a_model_in_the_client(run_id: str) -> None:
    with pytest.raises(NotFoundError):
        MlflowClient().create_model_version("new", f"runs:/{run_id}/model")
    MlflowClient().create_registered_model("new")
    with pytest.raises(InvalidValueError):
        MlflowClient().create_model_version("new", f"runs:/{run_id}/model", "0" * 32)
    with pytest.raises(InvalidValueError):
        MlflowClient().copy_model_version(f"runs:/{run_id}/model", "copy")
    with pytest.raises(InvalidValueError):
        MlflowClient().update_model_version("new", "1")
    with pytest.raises(UnsupportedError):
        MlflowClient().create_registered_model("job", deployment_job_id="1")


def test_the_registry_is_where_the_runs_are(project: Path, tmp_path: Path) -> None:
    gittrack.set_registry_uri("")
    gittrack.set_registry_uri(gittrack.get_tracking_uri())
    gittrack.set_registry_uri(str(project))
    assert gittrack.get_registry_uri() == gittrack.get_tracking_uri()
    for other in ("sqlite:///x.db", "http://host:5000", str(tmp_path)):
        with pytest.raises(UnsupportedError):
            gittrack.set_registry_uri(other)


def test_records_read_as_mlflows(run_id: str) -> None:
    version = gittrack.register_model(f"runs:/{run_id}/model", "iris")
    assert dict(version)["current_stage"] == "None"
    assert dict(MlflowClient().get_registered_model("iris"))["latest_versions"] == [version]


@pytest.mark.peer
@pytest.mark.parametrize(
    "name", sorted(name for name in vars(RegistryClient) if not name.startswith(("_", "register")))
)
def test_arguments_are_mlflows(name: str) -> None:
    mlflow = pytest.importorskip("mlflow", reason="compares with the real mlflow")
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(getattr(client, name)).parameters.values()]
        for client in (MlflowClient, mlflow.MlflowClient)
    )
    assert ours == theirs


@pytest.mark.peer
@pytest.mark.parametrize(
    "name",
    [
        "register_model",
        "search_registered_models",
        "search_model_versions",
        "set_model_version_tag",
        "set_registry_uri",
    ],
)
def test_fluent_arguments_are_mlflows(name: str) -> None:
    mlflow = pytest.importorskip("mlflow", reason="compares with the real mlflow")

    def arguments(function: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    assert arguments(getattr(gittrack, name)) == arguments(getattr(mlflow, name))
