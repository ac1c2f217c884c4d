"""MLflow's SQLite store, read without MLflow.

The file is opened read-only; every statement is constant, with its values bound.  Columns and tables came with time, so
rows are read by name, and what an older MLflow did not have is empty.  Layout: ``mlflow/store/db_migrations`` and
``mlflow/store/{tracking,model_registry}/dbmodels`` of MLflow 3.17; a file of an older one reads the same.
"""

from __future__ import annotations

import math
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from gittrack.convert import mlflow
from gittrack.convert.folders import Roots
from gittrack.convert.source import SourceExperiment, SourceModel, SourceRegistered, SourceRun, SourceVersion
from gittrack.errors import CorruptError, FormatError, GittrackError, NotFoundError
from gittrack.types import DatasetInput, LifecycleStage, Metric, ModelVersionStages

#: Bytes of one value.
MAX_VALUE: Final = 64 << 20
_MAGIC: Final = b"SQLite format 3\x00"
_PAGE: Final = 1000
#: The tables that are read.
_TABLES: Final = frozenset(
    "experiments experiment_tags runs params tags metrics inputs input_tags datasets logged_models logged_model_params"
    " logged_model_tags logged_model_metrics registered_models registered_model_tags registered_model_aliases"
    " model_versions model_version_tags trace_info evaluation_datasets scorers".split()
)
_Row = Mapping[str, Any]


class SqliteStore:
    """A file such as ``mlflow.db``.

    Args:
        path: The file.
        roots: Folders that artifacts may be read from, besides `mlruns` and `mlartifacts` beside the file.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is none of SQLite, or none of MLflow.
    """

    kind = "mlflow"

    def __init__(self, path: Path, roots: Sequence[Path] = ()) -> None:
        self.problems: list[str] = []
        self.passed: Counter[str] = Counter()
        self._path = path
        if not path.is_file():
            raise NotFoundError(
                f"there is no file `{path}`", hint="name MLflow's database, such as sqlite:///mlflow.db"
            )
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise FormatError(f"`{path}` is no SQLite database")
        self._roots = Roots(path.parent, roots)
        self._names = mlflow.Names()
        self._db = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
        try:
            self._prepare()
        except GittrackError:
            self.close()
            raise

    def _prepare(self) -> None:
        self._db.row_factory = sqlite3.Row
        self._db.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
        if sys.version_info >= (3, 11):
            self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON"):
            list(self._rows(f"PRAGMA {pragma}"))
        # A view or a virtual table of that name could compute anything.
        known = self._rows("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'")
        self._tables = _TABLES & {row["name"] for row in known}
        if not {"experiments", "runs", "params", "tags", "metrics"} <= self._tables:
            raise FormatError(f"`{self._path}` is no database of MLflow", hint="it has not got its tables")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _rows(self, statement: str, *values: object) -> Iterator[_Row]:
        """The rows of a constant statement.  Raises CorruptError."""
        try:
            for row in self._db.execute(statement, values):
                yield dict(zip(row.keys(), row, strict=True))
        except sqlite3.Error as error:
            raise CorruptError(f"`{self._path}` cannot be read: {error}") from error

    def _table(self, name: str, statement: str, *values: object) -> Iterator[_Row]:
        """``_rows`` of a table that an older MLflow may not have made."""
        return self._rows(statement, *values) if name in self._tables else iter(())

    # -- tracking ----------------------------------------------------------------------------------------------------

    def experiments(self) -> Iterable[SourceExperiment]:
        """Every experiment, by id."""
        for row in list(self._rows("SELECT * FROM experiments ORDER BY experiment_id")):
            key = row["experiment_id"]
            tags = self._table("experiment_tags", "SELECT key, value FROM experiment_tags WHERE experiment_id = ?", key)
            yield SourceExperiment(
                key=str(key),
                name=mlflow.text(row["name"]),
                lifecycle_stage=mlflow.stage_of_life(row["lifecycle_stage"]),
                tags=_pairs(tags),
                creation_time=mlflow.number(row.get("creation_time")) or None,
            )

    def count(self, experiment: SourceExperiment) -> int:
        """How many runs it has."""
        rows = self._rows("SELECT count(*) AS n FROM runs WHERE experiment_id = ?", experiment.key)
        return sum(row["n"] for row in rows)

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Its runs, oldest first; read in pages, so that whoever writes meanwhile need not wait for long."""
        models: dict[str, list[SourceModel]] = {}
        for model in self._logged_models(experiment):
            if model.run_key is not None:
                models.setdefault(model.run_key, []).append(model)
        traces = "SELECT count(*) AS n FROM trace_info WHERE experiment_id = ?"
        self.passed["traces"] += sum(row["n"] for row in self._table("trace_info", traces, experiment.key))
        noted = self._rows("SELECT run_uuid, value FROM tags WHERE key = ?", mlflow.RUN_TAG)
        self._names.learn((mlflow.text(row["run_uuid"]), mlflow.text(row["value"])) for row in noted)
        offset = 0
        while page := list(
            self._rows(
                "SELECT * FROM runs WHERE experiment_id = ? ORDER BY start_time, run_uuid LIMIT ? OFFSET ?",
                experiment.key, _PAGE, offset,
            )
        ):  # fmt: skip
            offset += len(page)
            for row in page:
                yield self._run(row, models.get(row["run_uuid"], []))

    def _run(self, row: _Row, models: list[SourceModel]) -> SourceRun:
        key = mlflow.text(row["run_uuid"])
        tags = _pairs(self._rows("SELECT key, value FROM tags WHERE run_uuid = ?", key))
        made = self._table(
            "inputs",
            "SELECT destination_id, step FROM inputs WHERE source_type = 'RUN_OUTPUT' AND source_id = ?"
            " AND destination_type = 'MODEL_OUTPUT'",
            key,
        )
        read = self._table(
            "inputs",
            "SELECT destination_id FROM inputs WHERE source_type = 'RUN_INPUT' AND source_id = ?"
            " AND destination_type = 'MODEL_INPUT'",
            key,
        )
        return self._names.run(
            key=key,
            tags=tags,
            name=mlflow.text(row.get("name")) or None,
            user_id=mlflow.text(row["user_id"]),
            status=mlflow.text(row["status"]),
            start_time=mlflow.number(row["start_time"]),
            end_time=row["end_time"],
            lifecycle_stage=row["lifecycle_stage"],
            params=_pairs(self._rows("SELECT key, value FROM params WHERE run_uuid = ?", key)),
            datasets=self._datasets(key),
            model_inputs=[mlflow.text(item["destination_id"]) for item in read],
            models=models,
            steps={mlflow.text(item["destination_id"]): mlflow.number(item.get("step")) for item in made},
            metrics=lambda: self._metrics(key),
            files=lambda: mlflow.folder_files(self, self._roots, f"run `{key}`", row["artifact_uri"]),
            location=row["artifact_uri"],
        )

    def _metrics(self, key: str) -> Iterator[Metric]:
        links: dict[tuple[str, int, int], list[_Row]] = {}
        for row in self._table("logged_model_metrics", "SELECT * FROM logged_model_metrics WHERE run_id = ?", key):
            place = (row["metric_name"], row["metric_timestamp_ms"], row["metric_step"])
            links.setdefault(place, []).append(row)
        for row in self._rows("SELECT * FROM metrics WHERE run_uuid = ?", key):
            value = math.nan if row.get("is_nan") else mlflow.value_of(row["value"])
            name, timestamp, step = mlflow.text(row["key"]), mlflow.number(row["timestamp"]), mlflow.number(row["step"])
            for link in links.get((name, timestamp, step), [{}]):
                about = (link.get("model_id"), link.get("dataset_name"), link.get("dataset_digest"))
                yield Metric(name, value, timestamp, step, *about)

    def _datasets(self, key: str) -> list[DatasetInput]:
        found = []
        rows = self._table(
            "inputs",
            "SELECT inputs.input_uuid, datasets.* FROM inputs JOIN datasets ON datasets.dataset_uuid = inputs.source_id"
            " WHERE inputs.source_type = 'DATASET' AND inputs.destination_type = 'RUN' AND inputs.destination_id = ?"
            " ORDER BY inputs.rowid",
            key,
        )
        for row in list(rows):
            tags = self._rows("SELECT name, value FROM input_tags WHERE input_uuid = ?", row["input_uuid"])
            names = ("name", "digest", "dataset_source_type", "dataset_source", "dataset_schema", "dataset_profile")
            facts = {name.removeprefix("dataset_"): row[name] for name in names}
            said = {mlflow.text(tag["name"]): mlflow.text(tag["value"]) for tag in tags}
            found.append(mlflow.dataset(facts, said))
        return found

    def _logged_models(self, experiment: SourceExperiment) -> Iterator[SourceModel]:
        statement = "SELECT * FROM logged_models WHERE experiment_id = ? ORDER BY creation_timestamp_ms, model_id"
        for row in list(self._table("logged_models", statement, experiment.key)):
            if row["lifecycle_stage"] == LifecycleStage.DELETED:
                continue
            model_id = mlflow.text(row["model_id"])
            params = self._rows("SELECT * FROM logged_model_params WHERE model_id = ?", model_id)
            tags = self._rows("SELECT * FROM logged_model_tags WHERE model_id = ?", model_id)
            yield mlflow.logged_model(
                model_id=model_id,
                name=mlflow.text(row["name"]),
                run_key=row["source_run_id"],
                created=mlflow.number(row["creation_timestamp_ms"]),
                updated=mlflow.number(row["last_updated_timestamp_ms"]),
                status=mlflow.MODEL_STATUS.get(row["status"], "READY"),
                model_type=row["model_type"],
                params={mlflow.text(item["param_key"]): mlflow.text(item["param_value"]) for item in params},
                tags={mlflow.text(item["tag_key"]): mlflow.text(item["tag_value"]) for item in tags},
                files=partial(mlflow.folder_files, self, self._roots, f"model `{model_id}`", row["artifact_location"]),
            )

    def loose_models(self, experiment: SourceExperiment) -> Iterable[SourceModel]:
        """Its logged models that no run made, or one that is no longer there."""
        for model in self._logged_models(experiment):
            known = self._rows("SELECT run_uuid FROM runs WHERE run_uuid = ?", model.run_key)
            if not list(known):
                yield model

    # -- the registry ------------------------------------------------------------------------------------------------

    def registered(self) -> Iterable[SourceRegistered]:
        """Every registered model; prompts are some, too."""
        for table in ("evaluation_datasets", "scorers"):
            for row in self._table(table, f"SELECT count(*) AS n FROM {table}"):  # noqa: S608 - one of two words
                self.passed[table.replace("_", " ")] += row["n"]
        for row in list(self._table("registered_models", "SELECT * FROM registered_models ORDER BY name")):
            name = row["name"]
            tags = _pairs(
                self._table("registered_model_tags", "SELECT * FROM registered_model_tags WHERE name = ?", name)
            )
            aliases = self._table(
                "registered_model_aliases", "SELECT * FROM registered_model_aliases WHERE name = ?", name
            )
            yield SourceRegistered(
                name=mlflow.text(name),
                description=row["description"],
                tags=tags,
                aliases={mlflow.text(item["alias"]): mlflow.number(item["version"]) for item in aliases},
                created=mlflow.number(row["creation_time"]),
                updated=mlflow.number(row["last_updated_time"]),
                versions=list(self._versions(name)),
            )

    def _versions(self, name: str) -> Iterator[SourceVersion]:
        for row in list(self._rows("SELECT * FROM model_versions WHERE name = ? ORDER BY version", name)):
            if row["current_stage"] == "Deleted_Internal":
                continue  # what is left of a version that was deleted
            tags = self._table(
                "model_version_tags",
                "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", name, row["version"],
            )  # fmt: skip
            yield mlflow.version(
                number=mlflow.number(row["version"]),
                source=mlflow.text(row["source"]),
                location=row.get("storage_location"),
                run_key=row["run_id"],
                description=row["description"],
                stage=row["current_stage"] or ModelVersionStages.NONE,
                tags=_pairs(tags),
                run_link=row.get("run_link"),
                created=mlflow.number(row["creation_time"]),
                updated=mlflow.number(row["last_updated_time"]),
                roots=self._roots,
            )


def _pairs(rows: Iterable[_Row]) -> dict[str, str]:
    return {mlflow.text(row["key"]): mlflow.text(row["value"]) for row in rows}
