"""Logged models: where they are kept, what can be said of them, and that the index tells what the runs do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from gittrack.errors import AlreadyExistsError, InvalidValueError, NotFoundError, StateError
from gittrack.store import check, record, rewrite
from gittrack.store.repo import Repo
from gittrack.track.logged_models import LoggedModels
from gittrack.track.runs import Tracker
from gittrack.types import LifecycleStage, LoggedModel, LoggedModelStatus, Metric, ModelOutput, ViewType
from tests.conftest import Sandbox


@pytest.fixture
def tracker(git_repo: Sandbox) -> Tracker:
    return Tracker(Repo.find(git_repo.path, create=True), strict=True)


@pytest.fixture
def models(tracker: Tracker) -> LoggedModels:
    return LoggedModels(tracker)


def names(models: LoggedModels, text: str = "", view: int = ViewType.ACTIVE_ONLY) -> list[str]:
    return [model.name for model in models.search(["0"], text, view=view)]


def everything(models: LoggedModels) -> str:
    return repr(sorted(models.search(["0"], view=ViewType.ALL, max_results=1000), key=lambda model: model.model_id))


def test_a_model_of_a_run_is_the_same_live_stored_and_indexed_anew(tracker: Tracker, models: LoggedModels) -> None:
    run = tracker.create_run(name="train")
    made = models.create(
        "0", "forest", source_run_id=run.run_id, tags={"stage": 1}, params={"depth": 3}, model_type="tree"
    )
    assert made.status == LoggedModelStatus.PENDING
    assert made.artifact_location == f"runs:/{run.run_id}/models/{made.model_id}"
    assert (made.tags, made.params, made.model_type) == ({"stage": "1"}, {"depth": "3"}, "tree")
    run.log_metrics([Metric("acc", 0.9, 5, 1, made.model_id, "test", "d1"), Metric("acc", math.nan, 6, 2, "m-other")])
    models.log_params(made.model_id, {"leaves": 9, "depth": "3"})
    models.set_tags(made.model_id, {"stage": "2", "gone": "x"})
    models.delete_tag(made.model_id, "gone")
    done = models.finalize(made.model_id, "FAILED", "no room")
    assert (done.status, done.status_message, done.tags) == (LoggedModelStatus.FAILED, "no room", {"stage": "2"})
    assert done.params == {"depth": "3", "leaves": "9"}
    assert done.metrics == [Metric("acc", 0.9, 5, 1, made.model_id, "test", "d1", run.run_id)]
    assert done.last_updated_timestamp >= done.creation_timestamp
    live = everything(models)
    run.end()
    tracker.close()
    assert everything(models) == live
    tracker.repo.reindex()
    assert everything(models) == live
    assert not check.fsck(tracker.repo, full=True)


def test_a_model_that_no_run_made_is_kept_by_a_run_that_no_search_finds(tracker: Tracker, models: LoggedModels) -> None:
    made = models.create("0", "alone", created=1234)
    assert (made.source_run_id, made.creation_timestamp) == (None, 1234)
    keeper = made.run_id
    place = models.files(made.model_id)
    assert place == (keeper, f"models/{made.model_id}")
    tracker.writer(keeper).log_bytes(b"x", f"{place.folder}/MLmodel")
    assert tracker.get_run(keeper).info.status == "RUNNING"
    assert tracker.repo.index.get_runs([keeper], keepers=False) == []
    models.finalize(made.model_id, "READY")
    tracker.close()
    for _ in range(2):
        assert tracker.get_run(keeper).info.status == "FINISHED"
        assert tracker.get_run(keeper).outputs.model_outputs == [ModelOutput(made.model_id, 0, place.folder)]
        assert tracker.search_runs(view=ViewType.ALL) == []
        assert tracker.repo.index.count_runs() == 0
        assert names(models) == ["alone"]
        tracker.repo.reindex()
    assert not check.fsck(tracker.repo, full=True)
    models.set_tags(made.model_id, {"later": "1"})
    tracker.close()
    assert names(models, "tags.later = '1'") == ["alone"]
    models.delete(made.model_id)
    models.delete(made.model_id)
    with pytest.raises(NotFoundError):
        models.files(made.model_id)
    assert names(models) == []
    models.restore(made.model_id)
    models.restore(made.model_id)
    assert names(models) == ["alone"]
    models.delete(made.model_id)
    tracker.flush()
    tracker.close()
    assert rewrite.purge(tracker.repo, keeper) > 0
    with pytest.raises(NotFoundError):
        models.get(made.model_id, deleted=True)


def test_a_model_that_nobody_finished_is_committed_when_its_process_ends(
    tracker: Tracker, models: LoggedModels
) -> None:
    made = models.create("0", "waits")
    assert tracker.get_run(made.run_id).commit is None
    tracker.shutdown("FINISHED", hurry=False)
    assert tracker.get_run(made.run_id).commit is not None
    assert models.get(made.model_id).status == LoggedModelStatus.PENDING
    tracker.writer(made.run_id).log_bytes(b"late", f"{made.path}/late")
    assert models.finalize(made.model_id, "READY").status == LoggedModelStatus.READY
    tracker.close()
    assert list(tracker.repo.artifacts(made.run_id)) == [f"{made.path}/late"]
    assert tracker.repo.journals(made.run_id) == []


def test_a_purged_run_takes_its_models_along(tracker: Tracker, models: LoggedModels) -> None:
    run, judge = tracker.create_run(), tracker.create_run()
    made = models.create("0", "gone", source_run_id=run.run_id)
    judge.log_metrics([Metric("acc", 0.5, 1, 0, made.model_id)])
    run.end()
    judge.end()
    tracker.delete_run(run.run_id)
    tracker.close()
    assert names(models, "metrics.acc = 0.5") == ["gone"]  # as in MLflow: deleting the run does not delete it
    rewrite.purge(tracker.repo, run.run_id)
    assert names(models, view=ViewType.ALL) == []
    again = models.create("0", "again", model_id=made.model_id)
    assert [point.value for point in again.metrics] == [0.5]


def test_any_run_can_measure_a_model(tracker: Tracker, models: LoggedModels) -> None:
    maker = tracker.create_run()
    made = models.create("0", "m", source_run_id=maker.run_id)
    maker.end()
    for number, on in enumerate(("train", "test", "test")):
        judge = tracker.create_run()
        judge.log_metrics([Metric("acc", number / 10, number, 0, made.model_id, on, f"d{number}")])
        judge.end()
        tracker.close()
    assert [(point.value, point.dataset_name) for point in models.get(made.model_id).metrics] == [
        (0.0, "train"), (0.1, "test"), (0.2, "test"),
    ]  # fmt: skip
    on_train = [{"dataset_name": "train"}]
    assert models.search(["0"], "metrics.acc = 0.2")
    assert not models.search(["0"], "metrics.acc = 0.2", datasets=on_train)
    assert models.search(["0"], datasets=on_train)
    assert not models.search(["0"], datasets=[{"dataset_name": "train", "dataset_digest": "d1"}])


def test_what_is_measured_later_is_added(tracker: Tracker, models: LoggedModels) -> None:
    run = tracker.create_run()
    made = models.create("0", "m", source_run_id=run.run_id)
    run.log_outputs([ModelOutput(made.model_id, 4)])
    for step in range(4):
        run.log_metrics([Metric("acc", math.nan if step == 2 else step / 10, step, step, made.model_id)])
        assert [point.step for point in models.get(made.model_id).metrics] == list(range(step + 1))
    assert tracker.get_run(run.run_id).outputs.model_outputs == [ModelOutput(made.model_id, 4, made.path)]
    assert [model.name for model in models.search(["0"], order_by=[{"field_name": "metrics.acc"}])] == ["m"]


def test_ids_of_elsewhere(tracker: Tracker, models: LoggedModels) -> None:
    made = models.create("0", model_id="From_elsewhere-1")
    assert made.model_id == "From_elsewhere-1"
    assert made.name
    with pytest.raises(AlreadyExistsError):
        models.create("0", model_id="From_elsewhere-1")
    for bad in ("a/b", "../a", "a.b", "-a", "", "a" * 256, "ä", 7):
        with pytest.raises(InvalidValueError):
            models.create("0", model_id=bad)  # type: ignore[arg-type]
    assert len(models.search(["0"])) == 1


def test_two_runs_that_claim_one_id_agree_on_whose_it_is(tracker: Tracker, models: LoggedModels) -> None:
    runs = sorted((tracker.create_run() for _ in range(2)), key=lambda run: run.run_id)
    for run in reversed(runs):
        run.keep_model({"model_id": "m-1", "name": run.run_id}, {"status": "READY"})
        assert [model.name for model in models.search(["0"])][-1:]
    for _ in range(2):
        assert names(models) == [runs[0].run_id]
        tracker.repo.reindex()


def test_what_is_refused_makes_nothing(tracker: Tracker, models: LoggedModels) -> None:
    gone = tracker.create_run()
    gone.end()
    tracker.delete_run(gone.run_id)
    refused: list[tuple[type[Exception], dict[str, object]]] = [
        (InvalidValueError, {"name": "a/b"}),
        (InvalidValueError, {"name": ""}),
        (InvalidValueError, {"name": "x" * 501}),
        (InvalidValueError, {"tags": {"../x": 1}}),
        (InvalidValueError, {"params": {"": 1}}),
        (InvalidValueError, {"model_type": "x" * 501}),
        (InvalidValueError, {"created": -1}),
        (NotFoundError, {"source_run_id": "nobody"}),
        (StateError, {"source_run_id": gone.run_id}),
    ]
    for error, arguments in refused:
        with pytest.raises(error):
            models.create("0", **arguments)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        models.create("7")
    assert models.search(["0"], view=ViewType.ALL) == []
    made = models.create("0", "a", params={"p": "1"})
    with pytest.raises(InvalidValueError, match="is `1`, not `2`"):
        models.log_params(made.model_id, {"new": "1", "p": "2"})
    with pytest.raises(InvalidValueError, match="READY or FAILED"):
        models.finalize(made.model_id, "PENDING")
    with pytest.raises(InvalidValueError, match="unknown status"):
        models.finalize(made.model_id, "DONE")
    with pytest.raises(NotFoundError):
        models.delete_tag(made.model_id, "nothing")
    assert models.get(made.model_id) == made
    wrong: list[dict[str, object]] = [
        {"datasets": [{}]}, {"datasets": ["d"]}, {"max_results": -1}, {"max_results": 10**9}, {"page_token": "x"},
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(InvalidValueError):
            models.search(["0"], **arguments)  # type: ignore[arg-type]


def test_the_run_of_a_model_may_be_one_that_is_not_here(tracker: Tracker, models: LoggedModels) -> None:
    """Its id is a fact like its name: nothing looks for that run."""
    made = models.create("0", "far", absent_run_id="123")
    assert (made.source_run_id, made.is_alone) == ("123", True)
    assert models.finalize(made.model_id, "READY").source_run_id == "123"
    tracker.close()
    assert tracker.get_run(made.run_id).info.status == "FINISHED"
    for _ in range(2):
        assert names(models, "source_run_id = '123'") == ["far"]
        assert tracker.search_runs(view=ViewType.ALL) == []
        assert not check.fsck(tracker.repo, full=True)
        tracker.repo.reindex()
    models.delete(made.model_id)
    assert tracker.get_run(made.run_id).info.lifecycle_stage == LifecycleStage.DELETED
    models.restore(made.model_id)
    assert names(models) == ["far"]


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", "a\nb", "a\0", "-a", "x" * 257, 5])
def test_what_can_be_no_id_of_a_run_is_kept_nowhere(tracker: Tracker, models: LoggedModels, run_id: Any) -> None:
    with pytest.raises(InvalidValueError, match="invalid run id"):
        models.create("0", absent_run_id=run_id)
    with pytest.raises(InvalidValueError, match="invalid run id"):
        record.check_event([record.MODEL, {"model_id": "m-1", "source_run_id": run_id}])
    assert models.search(["0"], view=ViewType.ALL) == []


def test_a_run_that_made_a_model_is_not_another_one(tracker: Tracker, models: LoggedModels) -> None:
    run = tracker.create_run()
    run.keep_model({"model_id": "m-1", "source_run_id": "123"}, {})
    assert models.get("m-1").source_run_id == run.run_id


def test_a_model_in_another_experiment_than_its_run(tracker: Tracker, models: LoggedModels) -> None:
    other = tracker.create_experiment("other")
    run = tracker.create_run()
    made = models.create(other, "m", source_run_id=run.run_id)
    run.end()
    tracker.close()
    assert (made.experiment_id, made.source_run_id) == (other, run.run_id)
    assert [model.model_id for model in models.search([other])] == [made.model_id]
    assert models.search(["0"]) == []


def test_pages(tracker: Tracker, models: LoggedModels) -> None:
    run = tracker.create_run()
    for number in range(5):
        models.create("0", f"m{number}", source_run_id=run.run_id, created=number)
    found: list[str] = []
    token: str | None = None
    while True:
        page = models.search(["0"], max_results=2, page_token=token)
        found += [model.name for model in page]
        token = page.token
        if token is None:
            break
    assert found == ["m4", "m3", "m2", "m1", "m0"]


def test_secrets_of_models_are_not_kept(tracker: Tracker, models: LoggedModels) -> None:
    made = models.create("0", params={"api_key": "sk-12345678901234567890"})
    models.log_params(made.model_id, {"password": "hunter2hunter2"})
    assert set(models.get(made.model_id).params.values()) == {"[redacted]"}


def test_a_model_of_an_earlier_version_is_known_by_its_files(tracker: Tracker, models: LoggedModels) -> None:
    """Runs of before had an output with a path, and links without values."""
    run = tracker.create_run(start_time=1000)
    run.log_bytes(b"flavors: {}", "old/MLmodel")
    run.log_outputs([ModelOutput("m-1", 2, "old")])
    run.log_metric("acc", 0.25, 2, 7)
    run.write_event([record.LINK, "acc", 2, 7, {"model_id": "m-1"}])
    run.write_event([record.LINK, "acc", 1, 7, {"model_id": "m-1"}])  # of a value that nobody knows any more
    run.end()
    tracker.close()
    (found,) = models.search(["0"], "status = 'READY'")
    assert (found.name, found.path, found.creation_timestamp) == ("old", "old", 1000)
    assert [(point.value, point.step) for point in found.metrics] == [(0.25, 2)]


def test_two_clones_edits_of_a_model_merge(tracker: Tracker, models: LoggedModels) -> None:
    run = tracker.create_run()
    made = models.create("0", "m", source_run_id=run.run_id, tags={"a": "1"}, params={"p": "1"})
    run.end()
    tracker.close()
    base = tracker.repo.state(run.run_id).record()

    def edited(writer: str, changes: dict[str, str | None], params: dict[str, str]) -> record.RunState:
        state = record.RunState.decode(base)
        edits = {f"models.{made.model_id}.{name}": value for name, value in changes.items()}
        state.apply([record.FIELDS, state.next_counter, writer, edits])
        state.apply([record.MODEL, {"model_id": made.model_id, "params": params}])
        link = {"model_id": made.model_id, "value": "0.5"}
        state.apply([record.LINK, writer, 0, 0, link])
        return state

    def merged(one: str, other: str) -> LoggedModel:
        clones = {
            "ana": edited("ana", {"tags.a": "ana", "tags.b": "new", "status": "READY"}, {"q": "2", "x": "1"}),
            "bo": edited("bo", {"tags.a": "bo", "lifecycle": "deleted"}, {"q": "1", "y": "1"}),
        }
        clones[one].merge(clones[other])
        again = record.RunState.decode(clones[one].record())
        assert again.record() == clones[one].record()
        assert {point.key for point in again.measured()} == {"ana", "bo"}
        (model,) = again.logged_models("runs:/x")
        return model

    both = merged("ana", "bo")
    assert both == merged("bo", "ana")
    assert both.tags == {"a": "bo", "b": "new"}
    assert both.params == {"p": "1", "q": "1", "x": "1", "y": "1"}
    assert (both.status, both.lifecycle_stage) == (LoggedModelStatus.READY, "deleted")


def test_records_of_models_from_outside_are_checked() -> None:
    for facts in (
        {},
        {"model_id": "a/b"},
        {"model_id": "m-1", "path": "../x"},
        {"model_id": "m-1", "name": 7},
        {"model_id": "m-1", "created": 2**63},
        {"model_id": "m-1", "params": {"a": 1}},
        {"model_id": "m-1", "flavors": "sklearn"},
        {"model_id": "m-1", "flavors": [1]},
    ):
        with pytest.raises(InvalidValueError):
            record.check_event([record.MODEL, facts])
    state = record.RunState("r")
    state.apply([record.MODEL, {"model_id": "m-1", "later": {"x": [1]}}])
    assert record.RunState.decode(record.RunState.decode(state.record()).record()).models["m-1"]["later"] == {"x": [1]}


def test_reading_is_enough_for_who_may_not_write(tracker: Tracker, models: LoggedModels, tmp_path: Path) -> None:
    run = tracker.create_run()
    models.create("0", "m", source_run_id=run.run_id)
    run.end()
    tracker.close()
    reader = Tracker(Repo(tracker.repo.paths, read_only=True))
    assert names(LoggedModels(reader)) == ["m"]
    reader.close()
