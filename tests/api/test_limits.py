"""Names and limits: MLflow's, with errors that name field, value and limit; the path cases of the threat matrix."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gittrack.errors import InvalidValueError
from gittrack.track import limits
from gittrack.types import Dataset, DatasetInput, InputTag

TRAVERSAL = [
    "../x",
    "..\\x",
    "/etc/passwd",
    "//proc/self/environ",
    "C:x",
    "\\\\?\\x",
    "a/../../x",
    "%2e%2e%2f",
    "%252e%252e%252f",
    "..;/x",
    "x#/../../etc",
    "x?/../../etc",
]
URIS = ["file://./etc", "file:///etc", "dbfs:/", "http:///#/../etc", "models:/m/%2e%2e"]
NAMES = [
    "a\0b",
    "a\nb",
    "a\rb",
    "a\u202eb",
    "x" * 4096,
    "dot.",
    "space ",
    "CON",
    "con.txt",
    "a/nul",
    ".git",
    ".GIT/config",
    "git~1",
    ".gi\u200ct",
    "\udcff",
    "",
    ".",
    "a//b",
    "a/",
    "./a",
    "a/C:x",
    "é" * 200,
]

HUGE = pytest.param(10**5000, id="huge")


@pytest.mark.parametrize("path", [*TRAVERSAL, *URIS, *NAMES])
def test_artifact_paths_that_some_system_would_read_as_another_place_are_refused(path: str) -> None:
    with pytest.raises(InvalidValueError, match="artifact path"):
        limits.check_artifact_path(path)


@pytest.mark.parametrize(
    "path",
    ["a", "model/MLmodel", "a b.txt", "100%.png", "é/ü.txt", ".gitignore", "12:30.png", "a..b", "k+step+0.png", "%41"],
)
def test_ordinary_artifact_paths_stay_as_they_are(path: str) -> None:
    assert limits.check_artifact_path(path) == path


def test_the_two_spellings_of_an_accent_are_one_artifact() -> None:
    assert limits.check_artifact_path("cafe\u0301.txt") == limits.check_artifact_path("caf\u00e9.txt")


@given(st.text(max_size=40))
def test_an_accepted_artifact_path_stays_below_its_folder_however_it_is_decoded(path: str) -> None:
    try:
        accepted = limits.check_artifact_path(path)
    except InvalidValueError:
        return
    from posixpath import normpath
    from urllib.parse import unquote

    for text in (accepted, unquote(accepted), unquote(unquote(accepted))):
        for spelling in (text, text.replace("\\", "/")):
            assert not normpath(f"/top/run/{spelling}/x").startswith(("/top/x", "/x", "/etc")) or ".." not in spelling
            assert ".." not in spelling.split("/")
            assert not spelling.startswith("/")
    assert limits.check_artifact_path(accepted) == accepted


@pytest.mark.parametrize("kind", ["metric", "param", "tag"])
@pytest.mark.parametrize(
    "key", [*(p for p in TRAVERSAL if p != "C:x"), "", ".", "a/", "/a", "a//b", "a\n", "a#b", "a\0", "x" * 251, None, 3]
)
def test_keys_outside_of_the_grammar_are_refused(kind: str, key: Any) -> None:
    # `C:x`, the fifth, is a key of MLflow's grammar; keys never become paths.
    with pytest.raises(InvalidValueError, match=rf"^{kind} name"):
        limits.check_key(kind, key)


@pytest.mark.parametrize("key", ["a", "train/loss", "a b-c_d.e:f", "Genauigkeit é", "損失", "x" * 250])
def test_keys_of_mlflows_grammar_are_taken(key: str) -> None:
    assert limits.check_key("metric", key) == key


def test_a_key_of_numpys_text_type_becomes_plain_text() -> None:
    assert type(limits.check_key("metric", np.str_("loss"))) is str


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (True, 1.0),
        ("0.5", 0.5),
        (np.float32(2), 2.0),
        (np.array([3.0]), 3.0),
        (np.array([[4]]), 4.0),
        (math.inf, math.inf),
    ],
)
def test_metric_values_of_one_number_are_taken(value: Any, expected: float) -> None:
    assert limits.check_metric_value("m", value) == expected
    assert type(limits.check_metric_value("m", value)) is float


def test_a_nan_is_a_metric_value() -> None:
    assert math.isnan(limits.check_metric_value("m", np.float64("nan")))


@pytest.mark.parametrize(
    "value", [None, "high", pytest.param(10**400, id="huge"), 1j, [1], {}, np.array([1, 2]), object()]
)
def test_other_metric_values_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidValueError, match="metric `m` must be one number"):
        limits.check_metric_value("m", value)


@pytest.mark.parametrize("step", [0, -1, 2**63 - 1, -(2**63), 3.0, np.int32(7)])
def test_steps_of_64_bits_are_taken(step: Any) -> None:
    assert limits.check_step(step) == int(step)
    assert type(limits.check_step(step)) is int


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1, HUGE, 1.5, math.nan, math.inf, "3", None, [1]])
def test_other_steps_are_refused(step: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^step "):
        limits.check_step(step)


@pytest.mark.parametrize("timestamp", [-1, 2**63, 0.5, "now"])
def test_a_time_is_not_negative_and_whole(timestamp: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^timestamp "):
        limits.check_timestamp(timestamp)


def test_a_param_that_is_too_long_is_cut_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    limits._warned.clear()
    with caplog.at_level(logging.WARNING, "gittrack"):
        for _ in range(3):
            assert limits.check_param("config", "x" * 6001) == ("config", "x" * 6000)
    (record,) = caplog.records
    assert "param `config`" in record.getMessage()
    assert "6001" in record.getMessage()
    assert "6000" in record.getMessage()


def test_a_param_that_is_too_long_is_refused_if_asked() -> None:
    with pytest.raises(InvalidValueError, match=r"param `config` has a value of 6001 characters, the limit is 6000"):
        limits.check_param("config", "x" * 6001, truncate=False)
    with pytest.raises(InvalidValueError, match=r"tag `t` has a value of 8001 characters, the limit is 8000"):
        limits.check_tag("t", "x" * 8001, truncate=False)


def test_an_experiment_tag_that_is_too_long_is_refused() -> None:
    assert limits.check_experiment_tag("k", "x" * 20000)[1] == "x" * 20000
    with pytest.raises(InvalidValueError, match="20001 characters, the limit is 20000"):
        limits.check_experiment_tag("k", "x" * 20001)


def test_values_become_text_that_utf8_can_hold() -> None:
    assert limits.check_param("n", None) == ("n", "None")
    assert limits.check_param("f", "bad\udcff")[1] == "bad\\udcff"

    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(InvalidValueError, match="param `o` has a value that cannot be turned into text"):
        limits.check_param("o", Odd())
    with pytest.raises(InvalidValueError, match="cannot be turned into text"):
        limits.check_param("o", 10**5000)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[31mb", "a\u202eb", "../x", "a/..\\b", "x" * 501, None, 3])
def test_experiment_names_are_one_printable_line(name: Any) -> None:
    with pytest.raises(InvalidValueError, match="experiment name"):
        limits.check_experiment_name(name)


@pytest.mark.parametrize("name", ["a", "/Users/ana/churn", "Größe 1", "x" * 500])
def test_ordinary_experiment_names_are_taken(name: str) -> None:
    assert limits.check_experiment_name(name) == name


@pytest.mark.parametrize("experiment_id", ["", "a/b", "../0", "-1", "x" * 65, "0\n", None, True, 1.0])
def test_other_experiment_ids_are_refused(experiment_id: Any) -> None:
    with pytest.raises(InvalidValueError, match="experiment id"):
        limits.check_experiment_id(experiment_id)


def test_a_number_is_an_experiment_id() -> None:
    assert limits.check_experiment_id(0) == "0"


def test_datasets_have_mlflows_limits() -> None:
    good = Dataset("iris", "d1", "local", "{}", "{}", "{}")
    assert limits.check_dataset(good) == good
    with pytest.raises(InvalidValueError, match=r"dataset digest .* 37 characters, the limit is 36"):
        limits.check_dataset(Dataset("iris", "d" * 37, "local", "{}"))
    with pytest.raises(InvalidValueError, match="dataset name must be text"):
        limits.check_dataset(Dataset(None, "d", "local", "{}"))  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"dataset tag value .* the limit is 500"):
        limits.check_dataset_input(DatasetInput(good, [InputTag("k", "v" * 501)]))
