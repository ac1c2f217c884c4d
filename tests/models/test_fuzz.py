"""Skops files with something changed at random: an error that is ours, or a model that predicts; never a crash."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import estimators
from tests.models.test_malicious import Answers, Loader, answers, change, loading, skops_folder

__all__ = ["answers"]  # the fixture

KINDS = ("forest", "boosting", "hist-boosting", "neighbours", "neighbours-brute", "svc", "isolation-forest", "k-means")
FULL = os.environ.get("GITTRACK_FAULTS") == "full"
CHANGES = 8 if FULL else 3  #: of each kind
NUMBERS = (-1, 0, 1, 2, 3, 7, 255, 1 << 20, 1 << 28, -(1 << 20))


def changed_array(array: np.ndarray[Any, Any], chance: random.Random) -> np.ndarray[Any, Any]:
    """``array`` with another value, another length or another element type."""
    array = array.copy()
    if array.dtype.names:
        field = chance.choice(array.dtype.names)
        value = chance.choice(NUMBERS)
        if array[field].dtype.kind != "f" and not np.can_cast(np.min_scalar_type(value), array[field].dtype):
            value = 1
        array[field][chance.randrange(len(array)) if chance.random() < 0.7 else slice(None)] = value
        return array[: chance.randrange(len(array) + 1)] if chance.random() < 0.2 else array
    if not array.ndim or array.dtype.kind not in "iuf":
        return array
    if chance.random() < 0.4 and array.size:
        array.reshape(-1)[chance.randrange(array.size)] = chance.choice(NUMBERS[1:6])
        return array
    if chance.random() < 0.5:
        return np.resize(array, tuple(max(0, size + chance.choice((-2, -1, 1, 2, 50))) for size in array.shape))
    return array[: chance.randrange(len(array) + 1)].astype(chance.choice((array.dtype.str, "f8", "i4")))


def changed(members: dict[str, bytes], chance: random.Random) -> None:
    """One array or one value of the description is another."""
    names = [name for name in members if name.endswith(".npy")]
    if chance.random() < 0.7:
        name = chance.choice(names)
        made = io.BytesIO()
        np.save(made, changed_array(np.load(io.BytesIO(members[name])), chance))
        members[name] = made.getvalue()
        return
    schema = json.loads(members["schema.json"])
    values, todo = [], [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            values += [part] if part.get("is_json") else []
            todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)
    value = chance.choice(values)
    value |= {"content": json.dumps(chance.choice((*NUMBERS, True, None, "x", 0.5))), "__id__": chance.getrandbits(60)}
    members["schema.json"] = json.dumps(schema).encode()


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    """The program that loads, with one thread for each load."""
    with loading(OMP_NUM_THREADS="1") as ask:
        yield ask


@pytest.mark.parametrize("seed", range(2))
def test_nothing_crashes(seed: int, tmp_path: Path, answers: Answers) -> None:
    chance = random.Random(seed)
    folders = []
    for kind in KINDS:
        model, _ = estimators.fitted(kind)
        for number in range(CHANGES):
            folder = skops_folder(tmp_path / f"{kind}-{number}", model)
            folders.append(change(folder, lambda members: changed(members, chance)))
    said = dict(zip(folders, answers(*folders), strict=True))
    assert {folder.name: one for folder, one in said.items() if one.startswith("killed")} == {}
    refused = [one for one in said.values() if one.startswith(("FormatError", "UntrustedModelError"))]
    assert len(refused) > len(folders) / 10
