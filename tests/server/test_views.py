"""What the web page draws, as bytes and columns, beside what MLflow's routes say of the same runs."""

import csv
import gzip
import io
import json
import math
import struct
from array import array
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from gittrack.server.hub import views
from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.store import index
from tests.server.conftest import Answer, Running

AT = "/ajax-api/2.0/gittrack"


def ask(server: Running, path: str, headers: dict[str, str] | None = None, **said: Any) -> Answer:
    return server.get(f"{AT}/{path}?{urlencode(said, doseq=True)}", **(headers or {}))


def columns(server: Running, **said: Any) -> Any:
    return ask(server, "runs/columns", **{"experiment_ids": ["0"], **said}).ok


@pytest.fixture
def runs(server: Running) -> list[str]:
    """Ten runs; the last one has nothing."""
    made = [server.new_run(experiment_id="0", run_name=f"run-{number}", start_time=number) for number in range(10)]
    for number, run_id in enumerate(made[:-1]):
        metrics = [{"key": "acc", "value": number / 10, "timestamp": 1, "step": 0}]
        if number == 3:
            metrics.append({"key": "odd", "value": "NaN", "timestamp": 1, "step": 0})
        params = [{"key": "lr", "value": str(number)}] + ([{"key": "rare", "value": "x"}] if number == 4 else [])
        server.post("runs/log-batch", {"run_id": run_id, "metrics": metrics, "params": params})
    return made


def test_columns_say_what_the_search_says(server: Running, runs: list[str]) -> None:
    for said in (
        {},
        {"filter": "metrics.acc > 0.25"},
        {"order_by": ["metrics.acc ASC"]},
        {"filter": "params.lr = '99'"},
    ):
        found = columns(server, **said)
        searched = server.post("runs/search", {"experiment_ids": ["0"], **said}).ok.get("runs", [])
        facts = found["runs"]
        assert facts["run_id"] == [run["info"]["run_id"] for run in searched]
        assert facts["run_name"] == [run["info"]["run_name"] for run in searched]
        assert facts["status"] == [run["info"]["status"] for run in searched]
        assert found["total"] == len(searched)
        for kind in ("metrics", "params", "tags"):
            for place, run in enumerate(searched):
                told = {one["key"]: one["value"] for one in run["data"].get(kind, ())}
                shown = {key: column[place] for key, column in found[kind].items() if column[place] is not None}
                assert shown == told
    assert found["keys"]["metrics"] == ["acc", "odd"]


def test_pages_and_chosen_columns(server: Running, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = columns(server, max_results=3, offset=4, metrics=["odd", "unknown"], params=["rare"])
    assert page["runs"]["run_name"] == ["run-5", "run-4", "run-3"]
    assert (page["total"], page["metrics"], page["params"]) == (
        10,
        {"odd": [None, None, "NaN"]},
        {"rare": [None, "x", None]},
    )
    assert page["keys"]["params"] == ["lr", "rare"]
    assert columns(server, offset=100)["runs"]["run_id"] == []
    monkeypatch.setattr(index, "_FEW", 1)  # by reading whole tables
    assert columns(server, max_results=3, offset=4, metrics=["odd", "unknown"], params=["rare"]) == page


def test_of_very_many_columns_the_first_that_are_used(server: Running) -> None:
    first, other = server.new_run(experiment_id="0"), server.post("experiments/create", {"name": "other"}).ok
    many = [{"key": f"p{number:03}", "value": "1"} for number in range(100)]
    server.post("runs/log-batch", {"run_id": server.new_run(**other), "params": many})
    server.post("runs/log-batch", {"run_id": first, "params": [{"key": "q", "value": "1"}]})
    assert list(columns(server)["params"]) == ["q"]
    assert len(columns(server)["keys"]["params"]) == 101
    server.post("runs/log-batch", {"run_id": first, "params": many})
    found = columns(server)["params"]
    assert (len(found), list(found)[-1]) == (100, "p099")
    found = columns(server, also=["params.q", "params.p001", "params.unknown", "metrics.q", "nonsense"])
    assert (len(found["params"]), found["params"]["q"], found["metrics"]) == (101, ["1"], {})
    assert "q" not in columns(server, experiment_ids=[other["experiment_id"]], also=["params.q"])["params"]


def test_ranges_of_metrics_among_what_a_search_finds(server: Running, runs: list[str]) -> None:
    infinite = [{"key": "wild", "value": value, "timestamp": 1, "step": 0} for value in ("Infinity", -2.5)]
    for run_id, one in zip(runs, infinite, strict=False):
        server.post("runs/log-batch", {"run_id": run_id, "metrics": [one]})
    other = server.post("experiments/create", {"name": "other"}).ok["experiment_id"]
    elsewhere = {"run_id": server.new_run(experiment_id=other), "key": "acc", "value": 7.0, "timestamp": 1}
    server.post("runs/log-metric", elsewhere)

    def ranges(keys: list[str], **said: Any) -> Any:
        return ask(server, "runs/ranges", **{"experiment_ids": ["0"], "metric_keys": keys, **said}).ok["ranges"]

    assert ranges(["acc", "odd", "wild", "unknown"]) == {"acc": [0.0, 0.8], "wild": [-2.5, -2.5]}  # odd is NaN
    assert ranges(["acc"], filter="metrics.acc < 0.75 and params.lr > 1") == {"acc": [0.2, 0.7]}
    assert ranges(["acc"], experiment_ids=["0", other]) == {"acc": [0.0, 7.0]}
    assert ranges(["acc"], experiment_ids=[]) == {}
    server.post("runs/delete", {"run_id": runs[8]})
    assert ranges(["acc"]) == {"acc": [0.0, 0.7]}
    assert ranges(["acc"], run_view_type="ALL") == {"acc": [0.0, 0.8]}
    assert "column" in ask(server, "runs/ranges", experiment_ids=["0"], metric_keys=["acc"], filter="acc >").json
    assert ask(server, "runs/ranges", experiment_ids=["0"]).status == 400


@pytest.mark.parametrize("few", [2000, 0], ids=["from the runs", "from the keys"])
def test_keys_are_found_by_what_is_in_them(
    server: Running, runs: list[str], monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(index, "_FEW", few)
    many = [{"key": f"Layer{number:03}.size", "value": "1"} for number in range(150)]
    tags = [{"key": "mlflow.note.content", "value": "kept"}, {"key": "layered", "value": "yes"}]
    server.post("runs/log-batch", {"run_id": runs[0], "params": many[:100], "tags": tags})
    server.post("runs/log-batch", {"run_id": runs[1], "params": many[100:]})
    found = ask(server, "runs/keys", experiment_ids=["0"], contains="lAYER").ok
    assert (found["params"]["total"], len(found["params"]["keys"])) == (150, 100)
    assert found["params"]["keys"][-1] == "Layer099.size"
    assert found["metrics"] == {"keys": [], "total": 0}
    assert found["tags"] == {"keys": ["layered"], "total": 1}
    assert ask(server, "runs/keys", experiment_ids=["0"], contains="149").ok["params"]["keys"] == ["Layer149.size"]
    assert ask(server, "runs/keys", experiment_ids=["0"]).ok["params"]["total"] == 152
    other = server.post("experiments/create", {"name": "other"}).ok["experiment_id"]
    server.post("runs/log-parameter", {"run_id": server.new_run(experiment_id=other), "key": "new", "value": "1"})
    assert ask(server, "runs/keys", experiment_ids=[other]).ok["params"] == {"keys": ["new"], "total": 1}
    assert ask(server, "runs/keys", experiment_ids=["0", other]).ok["params"]["total"] == 153
    assert ask(server, "runs/keys").ok["params"] == {"keys": [], "total": 0}
    server.post("runs/delete", {"run_id": runs[1]})
    assert ask(server, "runs/keys", experiment_ids=["0"]).ok["params"]["total"] == 102
    assert ask(server, "runs/keys", experiment_ids=["0"], run_view_type="ALL").ok["params"]["total"] == 152


def test_what_somebody_may_not_see_is_not_counted_and_not_named(server: Running, runs: list[str]) -> None:
    other = server.post("experiments/create", {"name": "other"}).ok["experiment_id"]
    run_id = server.new_run(experiment_id=other)
    server.post("runs/log-parameter", {"run_id": run_id, "key": "secret", "value": "1"})
    server.caller = Caller("ana", (Grant(Role.READER, experiments="Default"),), "user")
    found = columns(server, experiment_ids=["0", other])
    assert found["total"] == 10
    assert "secret" not in json.dumps(found)
    found = ask(server, "runs/keys", experiment_ids=["0", other]).ok
    assert found["params"] == {"keys": ["lr", "rare"], "total": 2}
    assert "secret" not in json.dumps(columns(server, experiment_ids=["0", other], also=["params.secret"]))
    assert ask(server, "metrics/curves", run_ids=[run_id], metric_keys=["m"]).status == 404


def test_an_unchanged_answer_is_not_sent_again(server: Running, runs: list[str]) -> None:
    first = ask(server, "runs/columns", {"accept_encoding": "gzip"}, experiment_ids=["0"])
    assert first.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(first.body)) == columns(server)
    again = ask(server, "runs/columns", {"if_none_match": first.headers["etag"]}, experiment_ids=["0"])
    assert (again.status, again.body) == (304, b"")
    server.post("runs/set-tag", {"run_id": runs[0], "key": "t", "value": "1"})
    assert ask(server, "runs/columns", {"if_none_match": first.headers["etag"]}, experiment_ids=["0"]).status == 200


def test_where_a_filter_cannot_be_read_is_a_number(server: Running, runs: list[str]) -> None:
    answer = ask(server, "runs/columns", experiment_ids=["0"], filter="metrics.acc > 1 and parms.lr = '1'")
    assert (answer.status, answer.json["column"]) == (400, 21)
    answer = ask(server, "runs/columns", experiment_ids=["0"], order_by=["metrics.acc DOWN"])
    assert (answer.status, answer.json["column"]) == (400, 13)
    assert "column" not in ask(server, "runs/columns", max_results=1_000_000).json


# --- curves


def parts(body: bytes) -> Iterator[tuple[dict[str, Any], list[float], list[list[float]]]]:
    """Each chart of an answer: its head, its axis, its columns."""
    start = 0
    while start < len(body):
        (length,) = struct.unpack_from("<I", body, start)
        head = json.loads(body[start + 4 : start + 4 + length])
        start += 4 + length
        assert start % 8 == 0
        places = head["places"]
        axis = array("d", body[start : start + 8 * places])
        start += 8 * places
        each = sum(3 if "group" in curve else 2 if head["smoothed"] else 1 for curve in head["curves"])
        rest = array("f", body[start : start + 4 * each * places])
        assert len(rest) == each * places
        start += -(-4 * len(rest) // 8) * 8
        yield head, list(axis), [list(rest[places * at : places * (at + 1)]) for at in range(each)]


def curves(server: Running, **said: Any) -> tuple[dict[str, Any], list[float], list[list[float]]]:
    answer = ask(server, "metrics/curves", **said)
    assert answer.status == 200, answer.body
    (only,) = parts(answer.body)
    return only


def test_curves_of_several_runs(server: Running, runs: list[str]) -> None:
    for at, run_id in enumerate(runs[:2]):
        points = [{"key": "loss", "value": step + at / 2, "timestamp": 5 + step, "step": step} for step in range(1000)]
        server.post("runs/log-batch", {"run_id": run_id, "metrics": points})
    head, axis, values = curves(server, run_ids=runs[:3], metric_keys=["loss"])
    assert head == {
        "axis": "step", "exact": True, "places": 1000, "low": 0, "high": 999, "smoothed": False,
        "curves": [{"run_id": run_id, "key": "loss", "points": 1000} for run_id in runs[:2]],
    }  # fmt: skip
    assert axis == [float(step) for step in range(1000)]
    assert values == [axis, [step + 0.5 for step in axis]]
    head, axis, values = curves(
        server, run_ids=runs[:1], metric_keys=["loss", "acc"], buckets=10, axis="relative", smoothing=0.5
    )
    assert [curve["key"] for curve in head["curves"]] == ["loss", "acc"]
    assert (head["exact"], len(axis), len(values)) == (False, 20, 4)
    assert (min(values[0]), max(values[0])) == (0, 999)
    zoomed, axis, values = curves(server, run_ids=runs[:1], metric_keys=["loss"], buckets=10, low=5, high=7)
    assert (zoomed["exact"], axis, values) == (True, [5, 6, 7], [[5, 6, 7]])
    nothing, axis, values = curves(server, run_ids=runs[-1:], metric_keys=["loss"])
    assert (nothing["curves"], nothing["low"], axis, values) == ([], None, [], [])


def test_values_that_no_32_bits_hold(server: Running, runs: list[str]) -> None:
    points = [
        {"key": "m", "value": value, "timestamp": 1, "step": at} for at, value in enumerate([1e300, "NaN", 1e-300])
    ]
    server.post("runs/log-batch", {"run_id": runs[0], "metrics": points})
    _, _, (values,) = curves(server, run_ids=runs[:1], metric_keys=["m"])
    assert (values[0], values[2]) == (math.inf, 0.0)
    assert math.isnan(values[1])


@pytest.mark.parametrize(
    "said",
    [
        {"axis": "epoch"},
        {"smoothing": 1},
        {"smoothing": -0.1},
        {"smoothing": "NaN"},
        {"buckets": 0},
        {"buckets": 1_000_000},
        {"low": "NaN"},
        {"high": "Infinity"},
        {"groups": ["a", "b"]},
        {"metric_keys": [f"m{number}" for number in range(1001)]},
    ],
)
def test_curves_that_cannot_be_drawn(server: Running, runs: list[str], said: dict[str, Any]) -> None:
    answer = ask(server, "metrics/curves", **{"run_ids": runs[:1], "metric_keys": ["m"], **said})
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_charts_of_several_metrics_each_on_its_own_axis(server: Running, runs: list[str]) -> None:
    points = [{"key": "loss", "value": step, "timestamp": step, "step": step} for step in range(3)]
    server.post("runs/log-batch", {"run_id": runs[0], "metrics": points})
    keys = ["acc", "loss", "nothing", "loss"]
    together = ask(server, "metrics/curves", run_ids=runs[:2], metric_keys=keys, apart=True).body
    found = list(parts(together))
    assert [axis for _, axis, _ in found] == [[0], [0, 1, 2], [], [0, 1, 2]]
    assert found[1] == curves(server, run_ids=runs[:2], metric_keys=["loss"])
    assert [curve["run_id"] for curve in found[0][0]["curves"]] == runs[:2]


def test_runs_by_group(server: Running, runs: list[str]) -> None:
    for at, run_id in enumerate(runs[:4]):
        points = [{"key": "loss", "value": at, "timestamp": step, "step": step} for step in range(5)]
        server.post("runs/log-batch", {"run_id": run_id, "metrics": points})
    head, axis, columns = curves(
        server, run_ids=runs[:4], metric_keys=["loss"], groups=["a", "b", "a", "a"], smoothing=0.5
    )
    assert [(one["group"], one["runs"], one["points"]) for one in head["curves"]] == [("a", 3, 15), ("b", 1, 5)]
    assert (len(axis), head["smoothed"]) == (5, False)
    assert [column[0] for column in columns] == pytest.approx([5 / 3, 0, 3, 1, 1, 1])


def test_a_metric_by_another(server: Running, runs: list[str]) -> None:
    points = [{"key": "loss", "value": 1 / (step + 1), "timestamp": 1, "step": step} for step in range(4)]
    points += [{"key": "epoch", "value": step / 2, "timestamp": 1, "step": step} for step in range(1, 9)]
    server.post("runs/log-batch", {"run_id": runs[0], "metrics": points})
    head, axis, (values,) = curves(server, run_ids=runs[:2], metric_keys=["loss"], axis="metrics.epoch")
    assert (head["axis"], axis) == ("metrics.epoch", [0.5, 1, 1.5])
    assert values == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert curves(server, run_ids=runs[:2], metric_keys=["loss"], axis="metrics.unknown")[1] == []


def test_every_point_as_csv(server: Running, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_ROWS", 7)
    values = [step / 3 for step in range(20)]
    points = [{"key": "loss", "value": value, "timestamp": 1, "step": step} for step, value in enumerate(values)]
    odd = {"key": "-cmd", "value": "NaN", "timestamp": 1, "step": 0}
    server.post("runs/log-batch", {"run_id": runs[0], "metrics": [*points, odd]})
    answer = ask(server, "metrics/points", run_ids=runs[:2], metric_keys=["loss", "-cmd", "acc"])
    assert answer.headers["content-disposition"].startswith("attachment")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [float(row["value"]) for row in rows if row["key"] == "loss"] == values
    assert [(row["key"], row["value"]) for row in rows if row["key"].startswith("'")] == [("'-cmd", "nan")]
    assert [row["run_id"] for row in rows if row["key"] == "acc"] == runs[:2]


def sparklines(server: Running, **said: Any) -> Any:
    return ask(server, "metrics/sparklines", **said).ok["lines"]


def test_sparklines_have_an_axis_each_and_keep_spikes(server: Running, runs: list[str]) -> None:
    long = [
        {
            "key": "loss",
            "value": 99 if step == 777 else "NaN" if step > 900 else step / 3000,
            "timestamp": 1,
            "step": step,
        }
        for step in range(1000)
    ]
    server.post("runs/log-batch", {"run_id": runs[0], "metrics": long})
    short = [{"key": "loss", "value": value, "timestamp": 1, "step": 10**6 * value} for value in (3, 1, 2)]
    server.post("runs/log-batch", {"run_id": runs[1], "metrics": short})
    found = sparklines(server, run_ids=runs[:3], metric_keys=["loss", "acc"])
    assert set(found) == set(runs[:2])  # of one point there is no line
    assert found[runs[1]] == {"loss": [1, 2, 3]}
    line = found[runs[0]]["loss"]
    assert len(line) == 48
    assert (max(value for value in line if value is not None), line[-1]) == (99, None)
    assert line[1] == 0.01367  # four digits
    many = ask(server, "metrics/sparklines", run_ids=runs, metric_keys=[f"m{number}" for number in range(101)])
    assert (many.status, many.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_sparklines_of_runs_that_somebody_may_not_see(server: Running, runs: list[str]) -> None:
    other = server.new_run(experiment_id=server.post("experiments/create", {"name": "other"}).ok["experiment_id"])
    server.caller = Caller("ana", (Grant(Role.READER, experiments="Default"),), "user")
    assert ask(server, "metrics/sparklines", run_ids=runs[:1], metric_keys=["acc"]).status == 200
    assert ask(server, "metrics/sparklines", run_ids=[runs[0], other], metric_keys=["acc"]).status == 404


def test_the_metrics_of_some_runs(server: Running, runs: list[str]) -> None:
    server.post("runs/log-batch", {"run_id": runs[0], "metrics": [{"key": "z", "value": 1, "timestamp": 1, "step": 0}]})
    assert ask(server, "metrics/keys", run_ids=[runs[0], runs[3]]).ok == {"metric_keys": ["acc", "odd", "z"]}
    assert ask(server, "metrics/keys", run_ids=runs[-1:]).ok == {"metric_keys": []}
