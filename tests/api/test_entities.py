"""Records and errors in the shapes that code written for MLflow takes them in."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

import gittrack
from gittrack.entities import Dataset, Metric, Param, RunTag, ViewType
from gittrack.errors import GittrackError, InvalidValueError, NotFoundError


def test_a_record_becomes_a_dict(project: Path) -> None:
    with gittrack.start_run(run_name="r") as run:
        gittrack.log_metric("m", 1, step=2, timestamp=3)
        gittrack.log_param("p", 1)
        gittrack.log_input(Dataset("d", "1", "local", "{}"), "training")
        gittrack.log_outputs([gittrack.entities.LoggedModelOutput("m-1", 4)])
    found = gittrack.get_run(run.info.run_id)
    assert dict(Param("a", "b")) == Param("a", "b").to_dictionary() == {"key": "a", "value": "b"}
    assert dict(found.info)["run_name"] == "r"
    assert dict(gittrack.get_experiment("0"))["name"] == "Default"
    assert set(dict(found)) >= {"info", "data", "inputs", "outputs"}
    (point,) = gittrack.Client().get_metric_history(run.info.run_id, "m")
    assert point.to_dictionary() == {
        "key": "m",
        "value": 1.0,
        "timestamp": 3,
        "step": 2,
        **dict.fromkeys(("model_id", "dataset_name", "dataset_digest", "run_id")),
    }
    assert dict(point) == {**point.to_dictionary()} == {**point}
    assert (point["value"], point[1], point[:2]) == (1.0, 1.0, ("m", 1.0))
    for record in (point, Param("a", "b"), Dataset("d", "1", "local", "{}")):
        assert record.from_dictionary({**record.to_dictionary(), "unknown": 1}) == record
    told = found.to_dictionary()
    assert told["info"]["status"] == "FINISHED"
    assert (told["data"]["metrics"], told["data"]["params"]) == ({"m": 1.0}, {"p": "1"})
    (entry,) = told["inputs"]["dataset_inputs"]
    assert (entry["dataset"]["name"], entry["tags"]) == ("d", {"mlflow.data.context": "training"})
    assert told["inputs"]["model_inputs"] == []
    assert told["outputs"]["model_outputs"][0]["model_id"] == "m-1"
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize("record", [Metric("m", 1.0, 2, 3), Param("a", "b"), RunTag("a", "b")])
def test_records_are_values(record: Metric | Param | RunTag) -> None:
    assert record == copy.deepcopy(record) == pickle.loads(pickle.dumps(record))
    assert len({record, copy.copy(record)}) == 1


def test_views_have_names() -> None:
    for number, name in ((1, "active_only"), (2, "deleted_only"), (3, "all")):
        assert (ViewType.to_string(number), ViewType.from_string(name)) == (name, number)
    with pytest.raises(InvalidValueError, match="unknown view type `ACTIVE`"):
        ViewType.from_string("ACTIVE")
    with pytest.raises(InvalidValueError, match="unknown view type `4`"):
        ViewType.to_string(4)


def test_an_error_tells_what_mlflows_does(project: Path) -> None:
    with pytest.raises(gittrack.exceptions.MlflowException) as caught:
        gittrack.get_run("0" * 32)
    error = caught.value
    assert isinstance(error, NotFoundError)
    assert (error.error_code, error.get_http_status_code()) == ("RESOURCE_DOES_NOT_EXIST", 404)
    assert json.loads(error.serialize_as_json()) == {"error_code": error.error_code, "message": str(error)}


def test_a_message_is_one_line_of_text() -> None:
    error = GittrackError("no `a\nb\x1b[31m\u202e` in `ü`")
    assert error.message == str(error) == r"no `a\nb\x1b[31m\u202e` in `ü`"
