"""Client: runs and experiments by their ids, pages, and what happens to things that do not exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack import Client
from gittrack.entities import Metric, Param, RunTag, ViewType
from gittrack.errors import AlreadyExistsError, InvalidValueError, NotFoundError, StateError

NO_RUN = "f" * 32


@pytest.fixture
def client(project: Path) -> Client:
    return gittrack.MlflowClient()


def test_a_run_from_start_to_end(client: Client) -> None:
    run = client.create_run("0", start_time=1000, tags={"a": 1, "mlflow.user": "ana"}, run_name="name")
    run_id = run.info.run_id
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("RUNNING", 1000, None)
    assert (run.info.run_name, run.info.user_id, run.data.tags["a"]) == ("name", "ana", "1")
    assert gittrack.active_run() is None
    client.log_metric(run_id, "m", 1.5, timestamp=5, step=2)
    client.log_metric(run_id, "m", 2.5, timestamp=6, step=1)
    assert client.log_param(run_id, "p", 3) == 3
    client.set_tag(run_id, "t", "u")
    client.delete_tag(run_id, "a")
    client.log_batch(run_id, [Metric("n", 1, 7, 0)], [Param("q", "1")], [RunTag("v", "w")])
    client.set_terminated(run_id, "KILLED", end_time=2000)
    found = client.get_run(run_id)
    assert (found.info.status, found.info.end_time) == ("KILLED", 2000)
    assert found.data.metrics == {"m": 1.5, "n": 1.0}
    assert found.data.params == {"p": "3", "q": "1"}
    assert {"t": "u", "v": "w"}.items() <= found.data.tags.items()
    assert "a" not in found.data.tags
    assert [(p.key, p.value, p.timestamp, p.step) for p in client.get_metric_history(run_id, "m")] == [
        ("m", 1.5, 5, 2),
        ("m", 2.5, 6, 1),
    ]
    assert client.get_metric_history(run_id, "m").token is None
    assert client.get_metric_history(run_id, "other").to_list() == []
    client.log_metric(run_id, "late", 1)  # finished runs still take metrics
    client.update_run(run_id, status="RUNNING", name="renamed")
    found = client.get_run(run_id)
    assert (found.info.status, found.info.end_time, found.info.run_name) == ("RUNNING", None, "renamed")
    client.set_terminated(run_id)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert found.to_dictionary()["info"]["run_id"] == run_id


def test_names_of_runs(client: Client) -> None:
    assert client.create_run("0", tags={"mlflow.runName": "by tag"}).info.run_name == "by tag"
    assert client.create_run("0").info.run_name
    with pytest.raises(InvalidValueError, match="differ"):
        client.create_run("0", tags={"mlflow.runName": "a"}, run_name="b")


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.get_run(NO_RUN),
        lambda c: c.log_metric(NO_RUN, "m", 1),
        lambda c: c.log_param(NO_RUN, "p", 1),
        lambda c: c.set_tag(NO_RUN, "t", 1),
        lambda c: c.delete_run(NO_RUN),
        lambda c: c.restore_run(NO_RUN),
        lambda c: c.set_terminated(NO_RUN),
        lambda c: c.get_metric_history(NO_RUN, "m"),
        lambda c: c.list_artifacts(NO_RUN),
        lambda c: c.download_artifacts(NO_RUN, "a"),
        lambda c: c.get_experiment("999"),
        lambda c: c.create_run("999"),
        lambda c: c.delete_experiment("999"),
        lambda c: c.rename_experiment("999", "x"),
        lambda c: c.set_experiment_tag("999", "k", "v"),
    ],
)
def test_what_does_not_exist(client: Client, call: Any) -> None:
    with pytest.raises(NotFoundError) as caught:
        call(client)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("run_id", ["", "../x", "a b", "x" * 257, None, 5])
def test_what_is_no_run_id(client: Client, run_id: Any) -> None:
    for call in (client.get_run, client.delete_run, client.set_terminated, client.list_artifacts):
        with pytest.raises(InvalidValueError, match="invalid run id"):
            call(run_id)


def test_a_status_and_a_time_must_be_such(client: Client) -> None:
    run_id = client.create_run("0").info.run_id
    for call in (
        lambda: client.set_terminated(run_id, "DONE"),
        lambda: client.set_terminated(run_id, end_time=-1),
        lambda: client.update_run(run_id, status="DONE", name="new"),
        lambda: client.create_run("0", start_time=-1),
    ):
        with pytest.raises(InvalidValueError):
            call()
    assert client.get_run(run_id).info.run_name != "new"
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_batch_is_taken_whole_or_not_at_all(client: Client) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "p", 1)
    for metrics, params, tags in (
        ([Metric("m", 1, 0)], [Param("p", "2"), Param("q", "1")], [RunTag("t", "1")]),
        ([Metric("m", 1, 0), Metric("", 1, 0)], [Param("q", "1")], [RunTag("t", "1")]),
        ([Metric("m", 1, -1)], [Param("q", "1")], [RunTag("t", "1")]),
        ([Metric("m", 1, 0)], [Param("q", "1")], [RunTag("..", "1")]),
    ):
        with pytest.raises(InvalidValueError):
            client.log_batch(run_id, metrics, params, tags)
    found = client.get_run(run_id)
    assert (found.data.metrics, found.data.params) == ({}, {"p": "1"})
    assert "t" not in found.data.tags


def test_pages_of_runs(client: Client) -> None:
    ids = [client.create_run("0", start_time=1000 + i).info.run_id for i in range(7)]
    seen: list[str] = []
    token = None
    sizes = []
    while True:
        page = client.search_runs(["0"], max_results=3, page_token=token)
        seen += [run.info.run_id for run in page]
        sizes.append(len(page))
        token = page.token
        if token is None:
            break
    assert seen == ids[::-1]
    assert sizes == [3, 3, 1]
    assert client.search_runs(["0"], max_results=7).token is None
    assert client.search_runs([]) == []
    assert len(client.search_runs("0")) == len(client.search_runs(0)) == 7  # type: ignore[arg-type]
    for bad in ({"max_results": 0}, {"max_results": 50_001}, {"page_token": "rubbish"}, {"run_view_type": 9}):
        with pytest.raises(InvalidValueError):
            client.search_runs(["0"], **bad)


def test_deleting_runs(client: Client) -> None:
    run_id = client.create_run("0").info.run_id
    for _ in range(2):  # as in MLflow, the second time changes nothing
        client.delete_run(run_id)
    with pytest.raises(StateError, match="deleted"):
        client.set_terminated(run_id)
    assert [r.info.run_id for r in client.search_runs(["0"], run_view_type=ViewType.DELETED_ONLY)] == [run_id]
    assert [r.info.run_id for r in client.search_runs(["0"], run_view_type=ViewType.ALL)] == [run_id]
    for _ in range(2):
        client.restore_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    with pytest.raises(NotFoundError):
        client.delete_run("0" * 32)


def test_an_experiment_from_start_to_end(client: Client) -> None:
    experiment_id = client.create_experiment("a", artifact_location="s3://bucket/x", tags={"n": 1})
    found = client.get_experiment(experiment_id)
    assert (found.name, found.lifecycle_stage, found.tags) == ("a", "active", {"n": "1"})
    assert found.artifact_location == "s3://bucket/x"
    assert found.creation_time is not None
    with pytest.raises(AlreadyExistsError):
        client.create_experiment("a")
    client.set_experiment_tag(experiment_id, "k", 2)
    client.set_experiment_tag(experiment_id, "n", "x")
    client.delete_experiment_tag(experiment_id, "k")
    with pytest.raises(NotFoundError, match="has no tag `k`"):
        client.delete_experiment_tag(experiment_id, "k")
    assert client.get_experiment(experiment_id).tags == {"n": "x"}
    client.rename_experiment(experiment_id, "b")
    assert client.get_experiment_by_name("a") is None
    renamed = client.get_experiment_by_name("b")
    assert renamed is not None
    assert renamed.experiment_id == experiment_id
    assert client.create_experiment("a") != experiment_id
    with pytest.raises(AlreadyExistsError):
        client.rename_experiment(experiment_id, "a")
    run_id = client.create_run(experiment_id).info.run_id
    client.delete_experiment(experiment_id)
    assert client.get_experiment(experiment_id).lifecycle_stage == "deleted"
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    with pytest.raises(StateError, match="deleted"):
        client.create_run(experiment_id)
    with pytest.raises(AlreadyExistsError):
        client.create_experiment("b")
    client.restore_experiment(experiment_id)
    assert client.get_experiment(experiment_id).lifecycle_stage == "active"
    assert client.get_run(run_id).info.lifecycle_stage == "active"


def test_pages_of_experiments(client: Client) -> None:
    for name in ("a", "ab", "b"):
        client.create_experiment(name)
    page = client.search_experiments(max_results=2, order_by=["name"])
    assert [e.name for e in page] == ["Default", "a"]
    page = client.search_experiments(max_results=2, order_by=["name"], page_token=page.token)
    assert ([e.name for e in page], page.token) == (["ab", "b"], None)
    assert [e.name for e in client.search_experiments(filter_string="name LIKE 'a%'", order_by=["name DESC"])] == [
        "ab",
        "a",
    ]


def test_two_stores_beside_each_other(project: Path, tmp_path: Path) -> None:
    other = Client(tracking_uri=str(tmp_path / "elsewhere"))
    run_id = other.create_run("0", run_name="there").info.run_id
    other.set_terminated(run_id)
    assert other.tracking_uri == str(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError):
        Client().get_run(run_id)
    assert [run.info.run_id for run in other.search_runs(["0"])] == [run_id]
    assert gittrack.artifacts.list_artifacts(run_id=run_id, tracking_uri=other.tracking_uri) == []
