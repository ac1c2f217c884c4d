"""Metrics, params, tags, batches and inputs, as logged and as read back."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack
from gittrack.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
)
from gittrack.errors import InvalidValueError, NotFoundError, StorageError


def history(run: gittrack.ActiveRun, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in gittrack.Client().get_metric_history(run.info.run_id, key)]


def test_metrics_of_every_kind(project: Path) -> None:
    values: list[Any] = [1, 2.5, True, np.float32(3), np.array([4.0]), "5", math.inf, -math.inf]
    with gittrack.start_run() as run:
        for step, value in enumerate(values):
            assert gittrack.log_metric("m", value, step=step) is None
        gittrack.log_metric("nan", math.nan)
        gittrack.log_metric("far", 1.0, step=2**63 - 1)
        gittrack.log_metric("far", 2.0, step=-(2**63))
        gittrack.log_metric("Größe/損失 1", 7)
    assert history(run, "m") == list(enumerate([1.0, 2.5, 1.0, 3.0, 4.0, 5.0, math.inf, -math.inf]))
    assert math.isnan(history(run, "nan")[0][1])
    assert {step for step, _ in history(run, "far")} == {2**63 - 1, -(2**63)}
    found = gittrack.get_run(run.info.run_id).data.metrics
    assert found["far"] == 1.0  # the last point is that of the greatest step
    assert found["Größe/損失 1"] == 7.0
    assert history(run, "no such metric") == []


def test_times_are_now_unless_given(project: Path) -> None:
    before = int(time.time() * 1000)
    with gittrack.start_run() as run:
        gittrack.log_metric("m", 1)
        gittrack.log_metric("m", 2, step=1, timestamp=12345)
    first, second = gittrack.Client().get_metric_history(run.info.run_id, "m")
    assert first.timestamp == 12345
    assert before <= second.timestamp <= int(time.time() * 1000)


@pytest.mark.parametrize(
    "call",
    [
        lambda: gittrack.log_metric("", 1),
        lambda: gittrack.log_metric("a", None),  # type: ignore[arg-type]
        lambda: gittrack.log_metric("a", 1, step=2**63),
        lambda: gittrack.log_metric("a", 1, step="x"),  # type: ignore[arg-type]
        lambda: gittrack.log_metric("a", 1, timestamp=-1),
        lambda: gittrack.log_metric("a", 1, timestamp=2**63),
        lambda: gittrack.log_metrics({"good": 1}, timestamp=2**63),
        lambda: gittrack.log_batch([Metric("good", 1.0, 0), Metric("late", 1.0, 2**64)]),
        lambda: gittrack.log_metrics({"good": 1, "a/../b": 2}),
        lambda: gittrack.log_param("x" * 251, 1),
        lambda: gittrack.log_params({"good": 1, "bad#": 2}),
        lambda: gittrack.set_tag("/a", 1),
        lambda: gittrack.set_tags({"good": 1, "": 2}),
        lambda: gittrack.log_batch([Metric("good", 1.0, 0)], [Param("p", "1")], [RunTag("", "x")]),
        lambda: gittrack.log_batch(params=[Param("p", "1"), Param("p", "1")]),
        lambda: gittrack.log_text("t", "../t.txt"),
        lambda: gittrack.log_input(Dataset("d" * 501, "1", "local", "{}")),
        lambda: gittrack.log_input(object()),  # type: ignore[arg-type]
        lambda: gittrack.log_input(context="training"),
        lambda: gittrack.log_metric("a", 1, model_id=5),  # type: ignore[arg-type]
        lambda: gittrack.log_metric("a", 1, dataset=Dataset("d", "1" * 37, "local", "{}")),
        lambda: gittrack.log_input(Dataset("d", "1", "local", "{}"), model=LoggedModelInput("")),
        lambda: gittrack.log_outputs([LoggedModelOutput("m-1", 1), LoggedModelOutput("m-2", 2**63)]),
        lambda: gittrack.log_inputs([Dataset("d", "1", "local", "{}")], [None]),
    ],
)
def test_what_is_not_valid_raises_and_writes_nothing(project: Path, call: Any) -> None:
    with gittrack.start_run() as run:
        before = gittrack.get_run(run.info.run_id)
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
        assert isinstance(caught.value, gittrack.MlflowException)
        after = gittrack.get_run(run.info.run_id)
    assert (after.data, after.inputs, after.outputs) == (before.data, before.inputs, before.outputs)


def test_params_are_written_once(project: Path) -> None:
    with gittrack.start_run() as run:
        assert gittrack.log_param("lr", 0.1) == 0.1
        gittrack.log_param("lr", 0.1)
        gittrack.log_params({"none": None, "list": [1, 2], "text": "é"})
        with pytest.raises(InvalidValueError, match=r"'lr' .* is `0.1`, not `0.2`"):
            gittrack.log_params({"new": 1, "lr": 0.2})
    assert gittrack.get_run(run.info.run_id).data.params == {
        "lr": "0.1",
        "none": "None",
        "list": "[1, 2]",
        "text": "é",
    }


def test_ten_thousand_params(project: Path) -> None:
    many = {f"p{i}": i for i in range(10_000)}
    with gittrack.start_run() as run:
        gittrack.log_params(many)
    gittrack.flush_async_logging()
    assert gittrack.get_run(run.info.run_id).data.params == {key: str(value) for key, value in many.items()}


def test_tags_change_and_go(project: Path) -> None:
    with gittrack.start_run(run_name="old") as run:
        gittrack.set_tag("a", 1)
        gittrack.set_tags({"a": 2, "b": None, "mlflow.runName": "new"})
        gittrack.delete_tag("b")
        with pytest.raises(NotFoundError, match="has no tag `b`"):
            gittrack.delete_tag("b")
    found = gittrack.get_run(run.info.run_id)
    assert found.data.tags["a"] == "2"
    assert "b" not in found.data.tags
    assert found.info.run_name == found.data.tags["mlflow.runName"] == "new"


def test_a_batch_of_everything(project: Path) -> None:
    points = [Metric("m", float(i), 1000 + i, i) for i in range(2500)]
    with gittrack.start_run() as run:
        gittrack.log_batch(points, [Param("p", "1")], [RunTag("t", "2")])
        gittrack.log_metrics({"x": 1, "y": np.float64(2)}, step=5, timestamp=77)
    found = gittrack.get_run(run.info.run_id)
    assert history(run, "m") == [(i, float(i)) for i in range(2500)]
    assert found.data.metrics == {"m": 2499.0, "x": 1.0, "y": 2.0}
    assert found.data.params == {"p": "1"}
    assert found.data.tags["t"] == "2"
    assert found.data.summaries["x"].step == 5
    assert found.data.summaries["x"].timestamp == 77


def test_another_run_by_its_id(project: Path) -> None:
    other = gittrack.Client().create_run("0")
    with gittrack.start_run() as run:
        gittrack.log_metric("m", 1, run_id=other.info.run_id)
        gittrack.log_metrics({"n": 2}, run_id=other.info.run_id)
        gittrack.log_params({"p": 3}, run_id=other.info.run_id)
    found = gittrack.get_run(other.info.run_id)
    assert (found.data.metrics, found.data.params) == ({"m": 1.0, "n": 2.0}, {"p": "3"})
    assert gittrack.get_run(run.info.run_id).data.metrics == {}
    with pytest.raises(NotFoundError, match="no run"):
        gittrack.log_metric("m", 1, run_id="f" * 32)


def test_calls_that_ask_for_something_to_wait_on(project: Path) -> None:
    with gittrack.start_run() as run:
        waiting = [
            gittrack.log_metric("m", 1, synchronous=False),
            gittrack.log_metrics({"n": 1}, synchronous=False),
            gittrack.log_param("p", 1, synchronous=False),
            gittrack.log_params({"q": 1}, synchronous=False),
            gittrack.set_tag("t", 1, synchronous=False),
            gittrack.set_tags({"u": 1}, synchronous=False),
        ]
        for one in waiting:
            assert isinstance(one, gittrack.RunOperations)
            one.wait()
        refused = gittrack.log_param("p", 2, synchronous=False)  # as in MLflow, it is told when one waits
        with pytest.raises(InvalidValueError, match="params are written once"):
            refused.wait()
        assert gittrack.log_metric("m", 1, synchronous=True) is None
        assert gittrack.log_param("p", 1, synchronous=True) == 1
    assert set(gittrack.get_run(run.info.run_id).data.params) == {"p", "q"}


def test_datasets_and_models_that_a_run_used(project: Path) -> None:
    train, test = Dataset("iris", "d1", "local", "{}", "{}", "{}"), Dataset("iris", "d2", "local", "{}")
    with gittrack.start_run() as run:
        gittrack.log_input(train, context="training", tags={"k": "v"})
        gittrack.log_input(train, context="training", tags={"k": "v"})
        gittrack.log_inputs([test, None], ["eval", None], [None, None], models=[LoggedModelInput("m-1")])
        gittrack.log_metric("acc", 0.9, dataset=test, model_id="m-2", step=3)
        gittrack.log_outputs([LoggedModelOutput("m-3", 7)])
    inputs = gittrack.get_run(run.info.run_id).inputs
    assert inputs.dataset_inputs[0] == DatasetInput(
        train, [InputTag("k", "v"), InputTag("mlflow.data.context", "training")]
    )
    assert inputs.dataset_inputs[1] == DatasetInput(test, [InputTag("mlflow.data.context", "eval")])
    assert [model.model_id for model in inputs.model_inputs] == ["m-1", "m-2"]
    assert gittrack.get_run(run.info.run_id).outputs.model_outputs == [LoggedModelOutput("m-3", 7)]
    assert gittrack.get_run(run.info.run_id).data.metrics == {"acc": 0.9}


def test_a_dataset_of_mlflows_shape_is_taken(project: Path) -> None:
    class Entity:
        name, digest, source_type, source, schema, profile = "d", "1", "local", "{}", None, None

    class Theirs:
        def _to_mlflow_entity(self) -> Entity:
            return Entity()

    with gittrack.start_run() as run:
        gittrack.log_input(Theirs())  # type: ignore[arg-type]
    (entry,) = gittrack.get_run(run.info.run_id).inputs.dataset_inputs
    assert entry.dataset == Dataset("d", "1", "local", "{}")


def test_trouble_with_the_disk_does_not_stop_the_training(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gittrack.store import journal

    def full(*_: object) -> None:
        raise StorageError("cannot write `x`: No space left on device")

    with gittrack.start_run() as run:
        gittrack.log_metric("m", 1, step=0)
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "gittrack"):
            patch.setattr(journal.JournalWriter, "append", full)
            for step in range(1, 20):
                gittrack.log_metric("m", step, step=step)
            gittrack.log_param("p", 1)
        time.sleep(1.1)  # it tries again after a second
        gittrack.log_metric("m", 20, step=20)
    assert len([record for record in caplog.records if "No space left" in record.getMessage()]) == 1
    assert [step for step, _ in history(run, "m")] == list(range(21))
    assert gittrack.get_run(run.info.run_id).data.params == {"p": "1"}


def test_system_metrics_are_sampled_if_asked(project: Path) -> None:
    gittrack.set_system_metrics_sampling_interval(0.05)
    gittrack.set_system_metrics_samples_before_logging(2)
    gittrack.set_system_metrics_node_id("n1")
    gittrack.enable_system_metrics_logging()
    with gittrack.start_run() as sampled:
        time.sleep(0.5)
    first = history(sampled, "system/n1/cpu_utilization_percentage")
    with gittrack.start_run(run_id=sampled.info.run_id):
        time.sleep(0.3)
    points = history(sampled, "system/n1/cpu_utilization_percentage")
    assert len(points) > len(first) > 1
    assert [step for step, _ in points] == list(range(len(points)))
    gittrack.disable_system_metrics_logging()
    with gittrack.start_run() as other:
        time.sleep(0.2)
    assert gittrack.get_run(other.info.run_id).data.metrics == {}
    with pytest.raises(InvalidValueError, match="sampling interval"):
        gittrack.set_system_metrics_sampling_interval(0)
    with pytest.raises(InvalidValueError, match="samples"):
        gittrack.set_system_metrics_samples_before_logging(0)
