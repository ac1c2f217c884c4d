"""From an address to verified files: every form, and what is said if there is nothing."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression

import gittrack
import gittrack.sklearn
from gittrack import pyfunc, stores
from gittrack.errors import (
    AlreadyExistsError,
    CorruptError,
    GittrackError,
    InvalidValueError,
    NotFoundError,
    SchemaError,
    StateError,
    UnsupportedError,
    UsageError,
)
from gittrack.models import (
    addresses,
    convert_input_example_to_serving_input,
    get_model_info,
    get_model_requirements,
    infer_signature,
    requirements,
    set_signature,
    update_model_requirements,
    validate_serving_input,
)
from gittrack.models.model import Model
from gittrack.registry.registry import Registry
from tests.models.conftest import equal


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `logged` keeps what it has made."""
    return tmp_path_factory.mktemp("logged")


@pytest.fixture
def logged(project: Path, iris: Any, template: Path) -> Any:
    """What ``log_model`` returned for a model that is registered three times, and then promoted.

    The first test makes the repository, and the others get a copy.
    """
    if not (template / "infos").exists():
        infos = []
        for strength in (0.01, 1.0, 10.0):
            with gittrack.start_run():
                model = LogisticRegression(C=strength, max_iter=500).fit(*iris)
                infos.append(
                    gittrack.sklearn.log_model(
                        model, name="model", registered_model_name="iris", input_example=iris[0][:2]
                    )
                )
        registry = Registry(stores.tracker())
        registry.promote("iris", "2", "Production", archive_existing=False)
        registry.set_alias("iris", "champion", "1")
        stores.tracker().close()
        shutil.copytree(project, template / "project", symlinks=True)
        (template / "infos").write_bytes(pickle.dumps(infos))
    shutil.copytree(template / "project", project, symlinks=True, dirs_exist_ok=True)
    stores._process = stores._Process()  # as a new process finds it
    return pickle.loads((template / "infos").read_bytes())


def strength(uri: object) -> float:
    """Which of the models is at an address."""
    found: float = gittrack.sklearn.load_model(str(uri)).C
    return found


def test_every_form(logged: Any, tmp_path: Path) -> None:
    first, second, third = logged
    assert [info.registered_model_version for info in logged] == [1, 2, 3]
    expected = {
        f"runs:/{first.run_id}/model": 0.01,
        f"runs:/{third.run_id}/model": 10.0,
        first.model_uri: 0.01,
        second.model_uri: 1.0,
        "models:/iris/1": 0.01,
        "models:/iris/3": 10.0,
        "models:/iris/Production": 1.0,
        "models:/iris/production": 1.0,
        "models:/iris/latest": 10.0,
        "models:/iris@champion": 0.01,
        "iris@champion": 0.01,
        "iris@v2": 1.0,
        "iris@production": 1.0,
    }
    assert {uri: strength(uri) for uri in expected} == expected
    target = tmp_path / "target"
    target.mkdir()
    local = addresses.fetch("models:/iris/3", dst=target)
    assert local.folder == target
    assert local.version is not None
    assert local.version.version == "3"
    assert local.manifest.digest == local.version.manifest
    assert strength(target) == 10.0
    assert strength(target.as_uri()) == 10.0
    again = addresses.fetch("models:/iris/3", dst=target)  # nothing is written over
    assert again.folder.parent == target


@pytest.mark.parametrize(
    ("address", "error", "says"),
    [
        ("models:/iris/9", NotFoundError, "9"),
        ("models:/iris/Staging", NotFoundError, "v2 is Production"),
        ("models:/iris/Nowhere", GittrackError, "Nowhere"),
        ("models:/iris@nobody", NotFoundError, "@champion"),
        ("models:/flower/1", NotFoundError, "flower"),
        ("models:/m-" + "0" * 32, NotFoundError, "no logged model"),
        ("models:/iris", InvalidValueError, "iris/Production"),
        ("iris@v9", NotFoundError, "9"),
        ("runs:/" + "0" * 32 + "/model", NotFoundError, "0" * 32),
        ("runs:/x y/model", InvalidValueError, "run id"),
        ("nowhere", NotFoundError, "runs:/RUN/PATH"),
        ("s3://bucket/model", UnsupportedError, "s3"),
        ("http://host/model", UnsupportedError, "http"),
        ("file://./etc", InvalidValueError, "file:///PATH"),
        ("file:///etc?x", InvalidValueError, "file:///PATH"),
        ("models:/m/%2e%2e", GittrackError, "m"),
        ("models:/../../x", GittrackError, ""),
    ],
)
def test_what_is_not_there_is_said(address: str, error: type[GittrackError], says: str, logged: Any) -> None:
    with pytest.raises(error) as caught:
        pyfunc.load_model(address)
    assert says in str(caught.value)


@pytest.mark.parametrize("path", ["", "mod", "model/MLmodel", "../model", "model/../../x", "/etc", "model\\..\\x"])
def test_paths_in_a_run(path: str, logged: Any) -> None:
    with pytest.raises((NotFoundError, InvalidValueError)):
        pyfunc.load_model(f"runs:/{logged[0].run_id}/{path}")
    with pytest.raises(NotFoundError) as caught:
        pyfunc.load_model(f"runs:/{logged[0].run_id}/other")
    assert "it has model" in str(caught.value.hint)


def test_bytes_that_changed_are_not_loaded(logged: Any) -> None:
    tracker = stores.tracker()
    artifact = tracker.repo.artifacts(logged[0].run_id)["model/model.skops"]
    path = tracker.repo.objects.path(artifact.digest)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for address in ("models:/iris/1", logged[0].model_uri, f"runs:/{logged[0].run_id}/model"):
        with pytest.raises(CorruptError):
            pyfunc.load_model(address)


def test_a_newer_model_of_the_same_name_makes_room(project: Path, iris: Any) -> None:
    infos = []
    with gittrack.start_run() as run:
        for step, strength_ in enumerate((0.01, 1.0, 10.0)):
            model = LogisticRegression(C=strength_, max_iter=500).fit(*iris)
            infos.append(gittrack.sklearn.log_model(model, name="model", step=step))
    assert [strength(info.model_uri) for info in infos] == [0.01, 1.0, 10.0]
    assert strength(f"runs:/{run.info.run_id}/model") == 10.0
    outputs = gittrack.get_run(run.info.run_id).outputs.model_outputs
    assert {(one.model_id, one.step) for one in outputs} == {(info.model_id, info.step) for info in infos}
    stores.tracker().flush()
    stores.tracker().repo.reindex()
    assert [strength(info.model_uri) for info in infos] == [0.01, 1.0, 10.0]


def test_other_artifacts_are_not_mixed_with_a_model(project: Path, iris: Any) -> None:
    model = LogisticRegression(max_iter=500).fit(*iris)
    with gittrack.start_run():
        gittrack.log_text("x", "model/notes.txt")
        with pytest.raises(AlreadyExistsError, match=r"model/notes.txt"):
            gittrack.sklearn.log_model(model, name="model")
        gittrack.sklearn.log_model(model, name="other")


def test_a_run_is_started_if_there_is_none(project: Path, iris: Any) -> None:
    info = gittrack.sklearn.log_model(LogisticRegression(max_iter=500).fit(*iris), "older_name")
    active = gittrack.active_run()
    assert active is not None
    assert info.run_id == active.info.run_id
    assert info.artifact_path == info.name == "older_name"


def test_a_given_run_and_id(project: Path, iris: Any) -> None:
    run = gittrack.Client().create_run("0")
    model_id = "m-" + "ab" * 16
    model = LogisticRegression(max_iter=500).fit(*iris)
    info = gittrack.sklearn.log_model(
        model,
        name="model",
        run_id=run.info.run_id,
        model_id=model_id,
        params={"a": 1},
        tags={"b": 2},
        model_type="line",
    )
    assert (info.model_id, info.run_id, info.params, info.tags) == (model_id, run.info.run_id, {"a": "1"}, {"b": "2"})
    assert strength(f"models:/{model_id}") == 1.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "../x"},
        {"name": "/x"},
        {"name": "a", "artifact_path": "b"},
        {"model_id": "m-/1"},
        {"step": "x"},
        {"oops": 1},
    ],
)
def test_wrong_arguments_write_nothing(arguments: dict[str, Any], project: Path, iris: Any) -> None:
    with gittrack.start_run() as run:
        with pytest.raises(InvalidValueError):
            gittrack.sklearn.log_model(LogisticRegression(max_iter=500).fit(*iris), **arguments)
        assert not stores.tracker().repo.artifacts(run.info.run_id)
        assert not gittrack.get_run(run.info.run_id).outputs.model_outputs


def test_a_deleted_run_takes_no_model(project: Path, iris: Any) -> None:
    with gittrack.start_run() as run:
        pass
    gittrack.delete_run(run.info.run_id)
    with pytest.raises(StateError):
        gittrack.sklearn.log_model(LogisticRegression(max_iter=500).fit(*iris), name="m", run_id=run.info.run_id)


def test_model_info_and_a_signature_afterwards(logged: Any, tmp_path: Path, iris: Any) -> None:
    info = get_model_info("models:/iris/1")
    assert (info.run_id, info.model_uri) == (logged[0].run_id, logged[0].model_uri)
    other = infer_signature(iris[0].iloc[:2, :2])
    set_signature(logged[0].model_uri, other)
    assert get_model_info(f"runs:/{logged[0].run_id}/model").signature == other
    assert get_model_info("models:/iris/1").signature == logged[0].signature  # a version never changes
    with pytest.raises(UnsupportedError, match="never changes"):
        set_signature("models:/iris/1", other)
    with pytest.raises(InvalidValueError):
        set_signature(logged[0].model_uri, "x")  # type: ignore[arg-type]
    target = tmp_path / "target"
    target.mkdir()
    addresses.fetch("models:/iris/2", dst=target)
    set_signature(target, other)
    assert Model.load(target).signature == other
    assert get_model_info(target).signature == other


def test_requirements_afterwards(logged: Any, tmp_path: Path) -> None:
    before = get_model_requirements("models:/iris/1")
    assert before == get_model_requirements(logged[0].model_uri)
    numpy = next(line for line in before if line.startswith("numpy=="))
    expected = sorted([line for line in before if line != numpy] + ["NumPy>=2", "scipy"], key=str.lower)

    # Of a version: beside it, with a history, for every copy.
    update_model_requirements("iris@champion", "add", ["NumPy>=2", "scipy"], reason="a fix")
    assert get_model_requirements("models:/iris/1") == expected
    assert requirements.read(addresses.fetch("models:/iris/1").folder) == expected
    [edit] = Registry(stores.tracker()).requirements_history("iris", "1")
    assert (edit.reason, str(edit.value).splitlines()) == ("a fix", expected)
    assert get_model_requirements("models:/iris/2") == before
    assert get_model_requirements(logged[0].model_uri) == before

    # Of a run's model and of a folder: the files. A lock that would be wrong now goes.
    target = tmp_path / "target"
    target.mkdir()
    addresses.fetch("models:/iris/2", dst=target)
    for uri in (f"runs:/{logged[1].run_id}/model", str(target)):
        update_model_requirements(uri, "add", ["NumPy>=2", "scipy"])
        assert get_model_requirements(uri) == expected
        local = addresses.fetch(uri)
        assert not (local.folder / requirements.LOCK).exists()
        conda = (local.folder / requirements.CONDA_ENV).read_text()
        assert "NumPy>=2" in conda
        assert numpy not in conda
        update_model_requirements(uri, "remove", ["numpy==0.1", "SciPy", "never-there"])
        assert get_model_requirements(uri) == [line for line in before if line != numpy]
    assert get_model_requirements("models:/iris/2") == before  # what was registered stays


@pytest.mark.parametrize(
    ("operation", "lines"), [("set", ["numpy"]), ("add", ["--index-url https://evil.example"]), ("remove", ["=="])]
)
def test_requirements_that_cannot_be(logged: Any, operation: Any, lines: list[str]) -> None:
    before = get_model_requirements("models:/iris/1")
    with pytest.raises(InvalidValueError):
        update_model_requirements("models:/iris/1", operation, lines)
    assert get_model_requirements("models:/iris/1") == before
    assert not Registry(stores.tracker()).requirements_history("iris", "1")


def test_a_request_is_tried_before_a_server_gets_it(logged: Any, iris: Any) -> None:
    request = str(convert_input_example_to_serving_input(iris[0][:2]))
    assert equal(validate_serving_input("models:/iris/3", request), [0, 0])
    assert equal(
        validate_serving_input("models:/iris/3", {"dataframe_split": json.loads(request)["dataframe_split"]}), [0, 0]
    )
    with pytest.raises(SchemaError):
        validate_serving_input("models:/iris/3", {"dataframe_records": [{"x": 1}]})
    with pytest.raises(UsageError):
        validate_serving_input("models:/iris/3", {"rows": []})


def test_decided_requirements_hold_for_every_copy(logged: Any) -> None:
    Registry(stores.tracker()).set_requirements("iris", "1", "scikit-learn==1.5.0\n", "a fix")
    local = addresses.fetch("models:/iris/1")
    assert (local.folder / "requirements.txt").read_text(encoding="utf-8") == "scikit-learn==1.5.0"
    local = addresses.fetch("models:/iris/2")
    assert "skops==" in (local.folder / "requirements.txt").read_text(encoding="utf-8")


def test_an_example_of_the_input_is_kept(logged: Any, iris: Any) -> None:
    loaded = pyfunc.load_model("models:/iris/1")
    assert loaded.input_example is not None
    assert loaded.input_example.equals(iris[0][:2])
    assert equal(loaded.predict(loaded.input_example), [0, 0])
    assert repr(loaded) == (
        f"mlflow.pyfunc.loaded_model:\n  run_id: {logged[0].run_id}\n  artifact_path: model\n  flavor: mlflow.sklearn\n"
    )
