"""Files that native code reads, with something changed at random: an error that is ours, or a model; never a crash.

A child with limits reads them first (``models.rehearsal``); the loads are made in a program of their own all the same,
so that a crash would be an answer and not the end of the tests.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack import config
from gittrack.errors import FormatError
from gittrack.models import pyfunc, rehearsal
from tests.flavours.test_boosters import NAMES, trained
from tests.flavours.test_onnx import linear

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
#: Changed files of each kind: each costs the start of a child.
CHANGES = 60 if FULL else 4

_LOADER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd
from gittrack import pyfunc
from gittrack.errors import GittrackError
for folder in json.load(sys.stdin):
    try:
        model = pyfunc.load_model(folder)
    except GittrackError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
        continue
    names = model.metadata.get_input_schema().input_names()
    for rows in (np.zeros((40, 4)), np.full((40, 4), 3.0), np.random.rand(200, 4) * 8):
        try:
            model.predict(pd.DataFrame(rows, columns=names) if names else rows.astype("float32"))
        except Exception:
            pass  # what a damaged model answers is not looked at
    print(json.dumps("loaded"), flush=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def changed(data: bytes, chance: random.Random) -> bytes:
    """Other bytes, fewer, more, or another number."""
    made, at = bytearray(data), chance.randrange(len(data))
    digits = [index for index, byte in enumerate(data) if 48 <= byte < 58]
    way = chance.randrange(5)
    if way == 0:
        for _ in range(chance.randrange(1, 6)):
            made[chance.randrange(len(made))] = chance.randrange(256)
    elif way == 1:
        del made[at:]
    elif way == 2:
        made[at : at + 4] = b"\xff\xff\xff\x7f"
    elif way == 3 or not digits:
        made[at:at] = chance.randbytes(8)
    else:
        at = chance.choice(digits)
        made[at : at + 1] = chance.choice([b"9", b"-1", b"0", b"99999999", b"2147483647", b"-2"])
    return bytes(made)


def saved(name: str, folder: Path, table: Any, labels: Any) -> Path:
    """A model's folder; its one native file."""
    if name == "onnx":
        pytest.importorskip("onnxruntime", reason="what runs models in ONNX")
        gittrack.onnx.save_model(linear(), folder, input_example=table.to_numpy("float32")[:2])
    else:
        ours, model = trained(name, table, labels)
        ours.save_model(model, folder, input_example=table[:2])
    [file] = [path for path in folder.iterdir() if path.name.startswith("model.")]
    return file


@pytest.mark.timeout(3600 if FULL else 300)
@pytest.mark.parametrize("name", [*NAMES, "onnx"])
def test_nothing_crashes(name: str, tmp_path: Path, table: Any, labels: Any) -> None:
    chance = random.Random(name)
    folders = []
    for number in range(CHANGES):
        file = saved(name, tmp_path / str(number), table, labels)
        file.write_bytes(changed(file.read_bytes(), chance))
        folders.append(str(file.parent))
    before = sorted(path.name for path in tmp_path.iterdir())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", _LOADER],
        input=json.dumps(folders), capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('"')]
    assert len(said) == CHANGES
    assert {one.partition(":")[0] for one in said} <= {"loaded", "FormatError", "UntrustedModelError"}, said
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_file_that_crashes_its_library_is_refused(tmp_path: Path, table: Any, labels: Any) -> None:
    pytest.importorskip("xgboost", reason="a model of xgboost")
    ours, model = trained("xgboost-booster", table, labels)
    ours.save_model(model, tmp_path / "model", input_example=table[:2], model_format="json")
    file = tmp_path / "model" / "model.json"
    document = json.loads(file.read_text())
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        tree["split_indices"] = [2**30] * len(tree["split_indices"])
    file.write_text(json.dumps(document))
    for load in (ours.load_model, pyfunc.load_model):
        with pytest.raises(FormatError, match=r"makes xgboost crash \(signal \d+\)") as info:
            load(tmp_path / "model")
        assert info.value.hint is not None
        assert "trust=True" in info.value.hint


def test_it_is_tried_once_and_never_for_what_was_made_here(
    tmp_path: Path, table: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xgboost", reason="a model of xgboost")
    tried = []
    run = subprocess.run

    def counted(*args: Any, **options: Any) -> Any:
        tried.append(args)
        return run(*args, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    ours, model = trained("xgboost-booster", table, labels)
    ours.save_model(model, tmp_path / "model", input_example=table[:2])
    pyfunc.load_model(tmp_path / "model")
    assert tried == []  # it was written here
    for mark in (config.cache_folder() / "rehearsed").iterdir():
        mark.unlink()
    began = time.monotonic()
    pyfunc.load_model(tmp_path / "model")
    assert len(tried) == 1
    assert time.monotonic() - began < rehearsal.SECONDS
    pyfunc.load_model(tmp_path / "model")
    assert len(tried) == 1
    (config.cache_folder() / "rehearsed").rename(tmp_path / "forgotten")
    pyfunc.load_model(tmp_path / "model", trust=True)
    assert len(tried) == 1


def test_what_the_child_cannot_read_is_not_read_here(
    tmp_path: Path, table: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no limits are, the same file may fill the machine's memory: found by the full form of the test above."""
    xgboost = pytest.importorskip("xgboost", reason="a model of xgboost")
    file = saved("xgboost-booster", tmp_path / "model", table, labels)
    file.write_bytes(b"this is no model")

    def read(self: Any, name: str) -> None:
        raise AssertionError(f"{name} is read in this process")

    monkeypatch.setattr(xgboost.Booster, "load_model", read)
    with pytest.raises(FormatError, match="cannot be read"):
        pyfunc.load_model(tmp_path / "model")
