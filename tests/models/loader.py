"""A program that loads the model folders named on its input, each in a child of its own, and predicts with them.

A line of its input has the folder, how it is loaded, the current folder and the environment.  Prints one JSON line for
each: what the load said, or which signal killed the child.  The children do nothing but load:
what else happens is the model's doing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings

import numpy as np
import pandas as pd
import sklearn.ensemble
import sklearn.neighbors
import sklearn.svm
import skops.io
import yaml

import gittrack.sklearn
from gittrack import pyfunc
from gittrack.errors import GittrackError

IMPORTED = (pd, sklearn.ensemble, sklearn.neighbors, sklearn.svm, skops.io, yaml)  # once, and not in every child


def load(folder: str, native: bool) -> str:
    """What loading says."""
    warnings.simplefilter("ignore")
    try:
        model = gittrack.sklearn.load_model(folder) if native else pyfunc.load_model(folder)
    except GittrackError as error:
        return f"{type(error).__name__}: {error}"
    for rows in (np.zeros((50, 4)), np.full((50, 4), 3.0), np.full((50, 4), -3.0), np.random.rand(500, 4) * 8):
        model.predict(rows)
    return "loaded"


def main() -> None:
    for line in sys.stdin:
        folder, native, current, environment = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os.chdir(current)
            os.environ.clear()
            os.environ.update(environment)
            try:
                said = load(folder, native)
            except BaseException as error:  # noqa: BLE001 - what it is, is the answer
                said = f"not typed: {type(error).__name__}: {error}"
            os.write(writing, said.encode()[:4000])
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read().decode()
        _, status = os.waitpid(child, 0)
        print(json.dumps(f"killed by signal {status & 127}" if status & 127 else said), flush=True)


main()
