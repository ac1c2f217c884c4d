"""Small stores in the formats of other trackers, written by hand as their documentation has them."""

import sqlite3
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from gittrack.convert.tensorboard import masked_crc

T0 = 1_700_000_000_000
RUN_A, RUN_B = "a" * 32, "b" * 32
MODEL = "m-" + "1" * 32

#: The tables of MLflow 3.17 that are read, without their constraints.
_SCHEMA = """
CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT, artifact_location TEXT, lifecycle_stage TEXT,
  creation_time INTEGER, last_update_time INTEGER);
CREATE TABLE experiment_tags (key TEXT, value TEXT, experiment_id INTEGER);
CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, user_id TEXT, status TEXT, start_time INTEGER,
  end_time INTEGER, lifecycle_stage TEXT, artifact_uri TEXT, experiment_id INTEGER);
CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE metrics (key TEXT, value REAL, timestamp INTEGER, run_uuid TEXT, step INTEGER, is_nan INTEGER);
"""
_LATER = """
CREATE TABLE inputs (input_uuid TEXT, source_type TEXT, source_id TEXT, destination_type TEXT, destination_id TEXT,
  step INTEGER);
CREATE TABLE input_tags (input_uuid TEXT, name TEXT, value TEXT);
CREATE TABLE datasets (dataset_uuid TEXT, experiment_id INTEGER, name TEXT, digest TEXT, dataset_source_type TEXT,
  dataset_source TEXT, dataset_schema TEXT, dataset_profile TEXT);
CREATE TABLE logged_models (model_id TEXT, experiment_id INTEGER, name TEXT, artifact_location TEXT,
  creation_timestamp_ms INTEGER, last_updated_timestamp_ms INTEGER, status INTEGER, lifecycle_stage TEXT,
  model_type TEXT, source_run_id TEXT, status_message TEXT);
CREATE TABLE logged_model_params (model_id TEXT, experiment_id INTEGER, param_key TEXT, param_value TEXT);
CREATE TABLE logged_model_tags (model_id TEXT, experiment_id INTEGER, tag_key TEXT, tag_value TEXT);
CREATE TABLE logged_model_metrics (model_id TEXT, metric_name TEXT, metric_timestamp_ms INTEGER, metric_step INTEGER,
  metric_value REAL, experiment_id INTEGER, run_id TEXT, dataset_name TEXT, dataset_digest TEXT);
CREATE TABLE registered_models (name TEXT, creation_time INTEGER, last_updated_time INTEGER, description TEXT);
CREATE TABLE registered_model_tags (key TEXT, value TEXT, name TEXT);
CREATE TABLE registered_model_aliases (alias TEXT, version INTEGER, name TEXT);
CREATE TABLE model_versions (name TEXT, version INTEGER, creation_time INTEGER, last_updated_time INTEGER,
  description TEXT, user_id TEXT, current_stage TEXT, source TEXT, run_id TEXT, status TEXT, run_link TEXT,
  storage_location TEXT);
CREATE TABLE model_version_tags (key TEXT, value TEXT, name TEXT, version INTEGER);
"""


class Database:
    """A database of MLflow's, to be filled.

    Args:
        path: Where.
        old: Only with the tables and columns that MLflow had from the start.
    """

    def __init__(self, path: Path, *, old: bool = False) -> None:
        self.path = path
        self._db = sqlite3.connect(path)
        self._db.executescript(_SCHEMA + ("" if old else _LATER))

    def add(self, table: str, **values: object) -> "Database":
        """Add a row."""
        marks = ", ".join("?" * len(values))
        self._db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))
        return self

    def experiment(self, number: int = 1, name: str = "exp", stage: str = "active") -> "Database":
        """Add an experiment."""
        return self.add("experiments", experiment_id=number, name=name, lifecycle_stage=stage, creation_time=T0)

    def run(self, run_id: str = RUN_A, *, artifacts: object = None, **more: object) -> "Database":
        """Add a run."""
        facts: dict[str, object] = {
            "run_uuid": run_id, "name": f"run {run_id[:1]}", "user_id": "ana", "status": "FINISHED", "start_time": T0,
            "end_time": T0 + 1000, "lifecycle_stage": "active", "experiment_id": 1,
            "artifact_uri": None if artifacts is None else str(artifacts),
        }  # fmt: skip
        return self.add("runs", **(facts | more))

    def metric(self, key: str, points: Iterable[tuple[float, int]], run_id: str = RUN_A) -> "Database":
        """Add points (value, step)."""
        for value, step in points:
            odd = value != value
            self.add(
                "metrics", key=key, value=0.0 if odd else value, timestamp=T0 + step, run_uuid=run_id, step=step,
                is_nan=odd,
            )  # fmt: skip
        return self

    def execute(self, statement: str) -> "Database":
        """Run any statement."""
        self._db.execute(statement)
        return self

    def done(self) -> Path:
        """Close it."""
        self._db.commit()
        self._db.close()
        return self.path


# -- protocol buffers --------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """A varint; a negative number as 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, Any]) -> bytes:
    """A message: ints as varints, floats as doubles, text and bytes as such."""
    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 1) + struct.pack("<d", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


# -- TensorBoard -------------------------------------------------------------------------------------------------------


def tf_record(data: bytes) -> bytes:
    """A record of an event file."""
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", masked_crc(size)) + data + struct.pack("<I", masked_crc(data))


def scalar(tag: str, value: float, step: int, seconds: float) -> bytes:
    """An event with a scalar, as TensorFlow 1 and torch write it."""
    number = varint(2 << 3 | 5) + struct.pack("<f", value)
    return tf_record(message((1, seconds), (2, step), (5, message((1, message((1, tag)) + number)))))


def tensor(tag: str, plugin: str, content: bytes, step: int, seconds: float) -> bytes:
    """An event with a tensor, as TensorFlow 2 writes it; ``content`` is the TensorProto."""
    about = message((1, message((1, plugin))))
    return tf_record(message((1, seconds), (2, step), (5, message((1, message((1, tag), (9, about), (8, content)))))))


# -- wandb -------------------------------------------------------------------------------------------------------------


def wandb_log(records: Iterable[bytes]) -> bytes:
    """A ``.wandb`` file."""
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        left, first = record, True
        while first or left:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                room = 32768
            part, left = left[: room - 7], left[room - 7 :]
            kind = (1 if first else 4) if not left else (2 if first else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return bytes(out)


def items(values: Mapping[str, object], field: int = 1) -> bytes:
    """Key and JSON of a history, configuration or summary."""
    return b"".join(message((field, message((1, key), (16, orjson.dumps(value))))) for key, value in values.items())
