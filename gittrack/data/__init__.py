"""Datasets as runs record them: name, digest, source, schema and size, never the rows.  MLflow's names and arguments.

    dataset = gittrack.data.from_pandas(frame, source="data/train.csv", targets="label", name="train")
    gittrack.log_input(dataset, context="training")

The data libraries themselves are imported when a dataset of theirs is made.
"""

from __future__ import annotations

from gittrack.data import (
    code_dataset_source,
    dataset,
    dataset_source,
    dataset_source_registry,
    filesystem_dataset_source,
    http_dataset_source,
    meta_dataset,
    numpy_dataset,
    pandas_dataset,
    schema,
)
from gittrack.data.code_dataset_source import CodeDatasetSource
from gittrack.data.dataset import Dataset
from gittrack.data.dataset_source import DatasetSource
from gittrack.data.dataset_source_registry import get_source
from gittrack.data.filesystem_dataset_source import (
    FileSystemDatasetSource,
    LocalArtifactDatasetSource,
    RemoteDatasetSource,
)
from gittrack.data.http_dataset_source import HTTPDatasetSource
from gittrack.data.meta_dataset import MetaDataset
from gittrack.data.numpy_dataset import NumpyDataset, from_numpy
from gittrack.data.pandas_dataset import PandasDataset, from_pandas, from_polars

__all__ = [
    "CodeDatasetSource",
    "Dataset",
    "DatasetSource",
    "FileSystemDatasetSource",
    "HTTPDatasetSource",
    "LocalArtifactDatasetSource",
    "MetaDataset",
    "NumpyDataset",
    "PandasDataset",
    "RemoteDatasetSource",
    "code_dataset_source",
    "dataset",
    "dataset_source",
    "dataset_source_registry",
    "filesystem_dataset_source",
    "from_numpy",
    "from_pandas",
    "from_polars",
    "get_source",
    "http_dataset_source",
    "meta_dataset",
    "numpy_dataset",
    "pandas_dataset",
    "schema",
]
