"""Models to serve: small, exact, and each of a kind that is treated in its own way."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gittrack.data.schema import ColSpec, Schema, TensorSpec
from gittrack.models.model import Model
from gittrack.models.signature import ModelSignature, ParamSchema

NAMES = ("a", "b", "c", "d")
WEIGHTS = np.array([1.0, 10.0, 100.0, 1000.0])


def columns(*kinds: str, names: Sequence[str] | None = NAMES, optional: Sequence[str] = ()) -> Schema:
    """A schema of columns of these types."""
    given = [None] * len(kinds) if names is None else list(names)[: len(kinds)]
    return Schema([ColSpec(kind, name, name not in optional) for kind, name in zip(kinds, given, strict=True)])


def tensor(dtype: str, *shape: int, name: str | None = None) -> Schema:
    """A schema of one tensor."""
    return Schema([TensorSpec(dtype, shape, name)])


class Linear:
    """The weighted sum of each row; refuses NaN, as most of scikit-learn does.

    Attributes:
        calls: Rows of each call.
        pause: Seconds that a call takes.
    """

    def __init__(self, weights: Any = WEIGHTS, pause: float = 0.0) -> None:
        self.weights = np.asarray(weights)
        self.pause = pause
        self.calls: list[int] = []
        self.held: threading.Event | None = None

    def predict(self, data: Any, params: Any = None) -> Any:
        self.calls.append(len(data))
        if self.held is not None:
            assert self.held.wait(30)
        time.sleep(self.pause)
        values = np.asarray(data, dtype=np.float64)
        if np.isnan(values).any():
            raise ValueError(f"Input contains NaN: {values}, in /srv/models/secret.py")
        return values @ self.weights[: values.shape[1]]


class Fake:
    """A loaded model: what `Served` asks for, with a predictor of one's own.

    Args:
        predictor: Answers; by default ``Linear``.
        inputs: Schema of the input; None for a model without a signature.
        matrix: It takes matrices, and answers row by row.
    """

    def __init__(
        self,
        predictor: Any = None,
        inputs: Schema | None = None,
        *,
        matrix: bool = True,
        outputs: Schema | None = None,
        params: ParamSchema | None = None,
        from_type_hints: bool = False,
    ) -> None:
        self.predictor: Any = Linear() if predictor is None else predictor
        signature = (
            None
            if inputs is None and params is None
            else ModelSignature(inputs, outputs, params, from_type_hints=from_type_hints)
        )
        self.metadata = Model(flavors={"python_function": {}, "sklearn": {}}, signature=signature)
        self.matrix = matrix

    def matrix_predictor(self) -> Any:
        return self.predictor if self.matrix else None

    def predict(self, data: Any, params: Any = None) -> Any:
        return self.predictor.predict(data, params)


class Echo:
    """Says what it was given."""

    def predict(self, data: Any, params: Any = None) -> Any:
        self.seen, self.params = data, params
        return data if params is None else {"data": data, "params": params}


def iris_like(**more: Any) -> Fake:
    """Four columns of doubles."""
    return Fake(None, columns("double", "double", "double", "double"), **more)
