"""Data of every form that a model takes or gives; the signature tests and those against MLflow share it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

DATA: dict[str, Any] = {
    "frame": pd.DataFrame({"a": [1, 2], "b": [1.5, None], "c": ["x", "y"], "d": [True, False]}),
    "frame-narrow": pd.DataFrame(
        {
            "a": np.array([1, 2], "int32"),
            "b": np.array([1, 2], "float32"),
            "t": pd.to_datetime(["2020", "2021"]),
            "by": [b"1", b"2"],
        }
    ),
    "frame-nested": pd.DataFrame(
        {"l": [[1, 2], [3]], "o": [{"a": 1}, {"a": 2, "b": "x"}], "m": [None, None], "n": [["a"], None]}
    ),
    "frame-small": pd.DataFrame({"a": np.array([1, 2], "int8"), "u": np.array([1, 2], "uint32")}),
    "frame-extension": pd.DataFrame(
        {
            "a": pd.array([1, None], dtype="Int64"),
            "c": pd.Categorical(["x", "y"]),
            "b": pd.array([True, None], dtype="boolean"),
        }
    ),
    "frame-numbers": pd.DataFrame({"a": pd.Series([1, 2.5], dtype=object)}),
    "frame-dates": pd.DataFrame({"a": [dt.date(2020, 1, 1)]}),
    "frame-unnamed": pd.DataFrame([[1.0, 2.0]]),
    "series": pd.Series([1.0, 2.0], name="y"),
    "series-unnamed": pd.Series([1, 2]),
    "matrix": np.zeros((3, 4)),
    "vector": np.zeros(3, "int64"),
    "cube": np.zeros((2, 3, 4), "uint8"),
    "texts": np.array(["a", "bc"]),
    "objects": np.array(["a", 1], dtype=object),
    "arrays": {"a": np.zeros((2, 2)), "b": np.zeros(2, "float32")},
    "dict": {"a": 1, "b": "x", "c": [1, 2], "d": {"z": 1.5, "a": None}},
    "chat": {"a": [{"r": "user", "c": "x"}, {"r": "user"}], "t": 0.5, "n": None, "e": []},
    "rows": [{"a": 1, "b": "x"}, {"a": 2}],
    "list-text": ["a", "b"],
    "list-int": [1, 2],
    "list-list": [[1, 2], [3]],
    "list-empty": [],
    "list-none": [None, 1],
    "list-arrays": [np.array([1.0, 2.0])],
    "text": "hello",
    "int": 1,
    "float": 1.5,
    "bool": True,
    "bytes": b"x",
    "time": dt.datetime(2020, 1, 1),
    "float32": np.float32(1),
    "sparse": sparse.csr_matrix(np.eye(3)),
    "dict-array": {"a": np.array([1, 2]), "b": "x"},
    "nested": [{"a": [{"b": 1}, {"b": None, "c": 2}]}],
}

#: What has no schema, in MLflow neither.
NO_SCHEMA: dict[str, Any] = {
    "frame-mixed": pd.DataFrame({"a": [1, "x"]}),
    "series-missing": pd.Series([1.0, None]),
    "list-mixed": [1, 2.5],
    "array-0d": np.array(1.0),
}
