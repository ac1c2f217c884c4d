"""The index: runs and experiments in SQLite, made to be searched, derived from what git and the journals hold.

Delete the file and nothing is lost: whoever opens it next finds it empty and fills it again.  A file of another schema
or one that is no database is replaced on opening.  The statements are plain SQL with named parameters, which
``store.postgres`` runs on PostgreSQL; what only SQLite has (pragmas, ``WITHOUT ROWID``) is below "SQLite".

Text of a run (names, keys, values) never becomes part of a statement, only of its parameters.
"""

# ruff: noqa: S608 — statements are put together from the constants of this module and of track.query, never from values

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar, cast
from zlib import crc32

from gittrack.errors import CorruptError, GittrackError, InvalidValueError, LockedError, ReadOnlyError, StorageError
from gittrack.store.codec import pack, packer, unpack
from gittrack.types import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    Metric,
    MetricSummary,
    ModelInput,
    ModelOutput,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    ViewType,
)

if TYPE_CHECKING:
    import sqlite3

    from gittrack.types import LoggedModel

T = TypeVar("T")

_APPLICATION: Final = int.from_bytes(b"gttk", "big")  #: in the head of an SQLite file: whose it is
SCHEMA_VERSION: Final = 6  #: another number in the file: the file is emptied and filled again
CONTEXT_TAG: Final = "mlflow.data.context"  #: the tag of a dataset input that says what the dataset was used for

TABLES: Final = ("meta", "names", "shared", "experiments", "experiment_tags", "runs", "docs", "metrics", "params",
                  "tags", "inputs", "models", "model_tags", "model_versions", "model_version_tags",
                  "logged_models", "logged_model_params", "logged_model_tags", "logged_model_metrics",
                  "parsed")  # fmt: skip

# A number of an index entry is one byte or two, a name is many: keys of metrics, params and tags are interned in
# `names`.  What a search does not look at is in `docs`, away from the rows that it walks over.  Large parts that many
# runs have in common (package lists, dataset schemas) are in `shared`.  A metric that is NaN has the value NULL.
# `parsed` keeps what was read out of git objects, which never change, by their ids.  A run that is there only to keep a
# logged model has a lifecycle stage of its own, which no search looks for.  The number of a logged model is that of its
# id in `names`: runs measure models that may be indexed later.
SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE shared (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX shared_crc ON shared (crc);
CREATE TABLE experiments (
    id INTEGER PRIMARY KEY, experiment_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, artifact_location TEXT NOT NULL,
    lifecycle_stage TEXT NOT NULL, creation_time INTEGER, last_update_time INTEGER, doc BLOB NOT NULL);
CREATE TABLE experiment_tags (
    key INTEGER NOT NULL, owner INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, owner)) WITHOUT ROWID;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, experiment_id TEXT NOT NULL, user_id TEXT NOT NULL,
    status TEXT NOT NULL, start_time INTEGER NOT NULL, end_time INTEGER, lifecycle_stage TEXT NOT NULL,
    artifact_uri TEXT NOT NULL, run_name TEXT NOT NULL,
    code_commit TEXT, code_tree TEXT, code_branch TEXT, code_dirty TEXT);
CREATE INDEX runs_time ON runs (start_time DESC, run_id);
CREATE INDEX runs_experiment ON runs (experiment_id, lifecycle_stage, start_time DESC, run_id);
CREATE INDEX runs_name ON runs (run_name);
CREATE INDEX runs_status ON runs (status);
CREATE INDEX runs_commit ON runs (code_commit);
CREATE INDEX runs_tree ON runs (code_tree);
CREATE TABLE docs (id INTEGER PRIMARY KEY, doc BLOB NOT NULL);
CREATE TABLE metrics (
    key INTEGER NOT NULL, owner INTEGER NOT NULL, value REAL, minimum REAL, maximum REAL,
    PRIMARY KEY (key, owner)) WITHOUT ROWID;
CREATE INDEX metrics_value ON metrics (key, value);
CREATE INDEX metrics_minimum ON metrics (key, minimum);
CREATE INDEX metrics_maximum ON metrics (key, maximum);
CREATE TABLE params (
    key INTEGER NOT NULL, owner INTEGER NOT NULL, value TEXT NOT NULL, number REAL,
    PRIMARY KEY (key, owner)) WITHOUT ROWID;
CREATE INDEX params_value ON params (key, value);
CREATE INDEX params_number ON params (key, number) WHERE number IS NOT NULL;
CREATE TABLE tags (
    key INTEGER NOT NULL, owner INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, owner)) WITHOUT ROWID;
CREATE INDEX tags_value ON tags (key, value);
CREATE TABLE inputs (
    owner INTEGER NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, context TEXT,
    PRIMARY KEY (owner, position)) WITHOUT ROWID;
CREATE INDEX inputs_name ON inputs (name);
CREATE INDEX inputs_digest ON inputs (digest);
CREATE TABLE models (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, lifecycle_stage TEXT NOT NULL,
    creation_timestamp INTEGER NOT NULL, last_updated_timestamp INTEGER NOT NULL, doc BLOB NOT NULL);
CREATE INDEX models_name ON models (name);
CREATE TABLE model_tags (
    key INTEGER NOT NULL, owner INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, owner)) WITHOUT ROWID;
CREATE TABLE model_versions (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, version_number INTEGER NOT NULL, name TEXT NOT NULL,
    lifecycle_stage TEXT NOT NULL, current_stage TEXT NOT NULL, run_id TEXT, source TEXT NOT NULL,
    manifest TEXT NOT NULL, creation_timestamp INTEGER NOT NULL, last_updated_timestamp INTEGER NOT NULL,
    doc BLOB NOT NULL, UNIQUE (key, version_number));
CREATE INDEX model_versions_name ON model_versions (name);
CREATE INDEX model_versions_run ON model_versions (run_id);
CREATE INDEX model_versions_time ON model_versions (last_updated_timestamp DESC, name, version_number DESC);
CREATE TABLE model_version_tags (
    key INTEGER NOT NULL, owner INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, owner)) WITHOUT ROWID;
CREATE TABLE logged_models (
    id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, model_id TEXT NOT NULL, experiment_id TEXT NOT NULL,
    name TEXT NOT NULL, model_type TEXT, source_run_id TEXT, status TEXT NOT NULL, status_message TEXT,
    artifact_location TEXT NOT NULL, lifecycle_stage TEXT NOT NULL, creation_timestamp INTEGER NOT NULL,
    last_updated_timestamp INTEGER NOT NULL, doc BLOB NOT NULL);
CREATE INDEX logged_models_run ON logged_models (run_id);
CREATE INDEX logged_models_model ON logged_models (model_id);
CREATE INDEX logged_models_name ON logged_models (name);
CREATE INDEX logged_models_time ON logged_models (creation_timestamp DESC, model_id);
CREATE INDEX logged_models_experiment
    ON logged_models (experiment_id, lifecycle_stage, creation_timestamp DESC, model_id);
CREATE TABLE logged_model_params (
    key INTEGER NOT NULL, owner INTEGER NOT NULL, value TEXT NOT NULL, number REAL,
    PRIMARY KEY (key, owner)) WITHOUT ROWID;
CREATE INDEX logged_model_params_owner ON logged_model_params (owner);
CREATE TABLE logged_model_tags (
    key INTEGER NOT NULL, owner INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, owner)) WITHOUT ROWID;
CREATE INDEX logged_model_tags_owner ON logged_model_tags (owner);
CREATE TABLE logged_model_metrics (
    id INTEGER PRIMARY KEY, key INTEGER NOT NULL, owner INTEGER NOT NULL, run_id TEXT NOT NULL, value REAL,
    timestamp INTEGER NOT NULL, step INTEGER NOT NULL, dataset_name TEXT, dataset_digest TEXT);
CREATE INDEX logged_model_metrics_key ON logged_model_metrics (key, owner, timestamp DESC, step DESC, run_id);
CREATE INDEX logged_model_metrics_owner ON logged_model_metrics (owner);
CREATE INDEX logged_model_metrics_run ON logged_model_metrics (run_id);
CREATE TABLE parsed (oid TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
"""

#: The indexes of a run's tables, but those that adding a run needs.
_ORDERS: Final = [
    (match[1], match[0])
    for match in re.finditer(r"CREATE INDEX (\w+) ON (?:runs|metrics|params|tags|inputs) [^;]+", SCHEMA)
]
_ENTITIES: Final = ("runs", "experiments", "models", "model_versions", "logged_models")  # tables with one row per thing

#: Of the table `runs`, for whoever shows many runs.
RUN_FACTS: Final = (
    "run_id", "experiment_id", "run_name", "status", "user_id", "start_time", "end_time", "lifecycle_stage",
    "code_commit", "code_branch", "code_dirty",
)  # fmt: skip
COLUMN_KINDS: Final = ("metrics", "params", "tags")
MOST_COLUMNS: Final = 100  #: of each kind, unless somebody names those he wants

_CHUNK: Final = 500  # rows or ids of one statement: below the parameter limit of every SQLite
_FEW: Final = 2000  # runs that can be sorted in a few milliseconds
_JOINED: Final = 12  # conditions that PostgreSQL may join in any order
_SAMPLE: Final = 500  # rows looked at to guess how many meet a condition
_SHARE_ITEMS: Final = 8  # containers of the environment with more entries are shared between runs
_SHARE_CHARS: Final = 256  # and so is longer text

# ---------------------------------------------------------------- queries


class RunColumns(NamedTuple):
    """Runs, column by column; every column has a value for each run.

    Attributes:
        facts: `RUN_FACTS`, by name.
        values: By kind (`COLUMN_KINDS`) and key; None where a run has no such key.
        names: Every key that any run has, by kind.
    """

    facts: dict[str, list[Any]]
    values: dict[str, dict[str, list[Any]]]
    names: dict[str, list[str]]


class Condition(NamedTuple):
    """One of the conditions that all must hold.

    Attributes:
        sql: A Boolean over the entity's row ``r``; true or false, never NULL.
        params: The values of its named parameters; names are unique in a query.
        table: If not empty, the condition is "a row ``x`` of ``table`` that belongs to ``r`` meets ``row``".
        row: That Boolean over ``x``.
        key: The metric, param or tag that ``row`` is about; empty if it is about no single one.
        column: The column of ``x`` that ``row`` is about; empty if it is about no single one.
        indexed: Finding the rows ``x`` by ``row`` takes an index, not a walk over the table.
    """

    sql: str
    params: Mapping[str, Any]
    table: str = ""
    row: str = ""
    key: str = ""
    column: str = ""
    indexed: bool = False


class Table(NamedTuple):
    """A table of things that its caller describes: searchable columns, tags, and a document that it gives back.

    Attributes:
        name: Of the table.
        columns: Its columns, but ``id`` and ``doc``; the first names the group that ``put_rows`` replaces.
        unique: The column that tells the rows of a group apart; the first one again if a group is a single row.
        tags: The table of its tags.
        params: The table of its params; empty if it has none.
        named: If not empty, a column by whose value, as a number of ``names``, the rows are numbered.  Of two groups
            that have the same one, that whose name is smaller keeps it.
    """

    name: str
    columns: tuple[str, ...]
    unique: str
    tags: str
    params: str = ""
    named: str = ""


_TIMES: Final = ("creation_timestamp", "last_updated_timestamp")
MODELS: Final = Table("models", ("key", "name", "lifecycle_stage", *_TIMES), "key", "model_tags")
MODEL_VERSIONS: Final = Table(
    "model_versions",
    ("key", "version_number", "name", "lifecycle_stage", "current_stage", "run_id", "source", "manifest", *_TIMES),
    "version_number",
    "model_version_tags",
)
LOGGED_MODELS: Final = Table(
    "logged_models",
    ("run_id", "model_id", "experiment_id", "name", "model_type", "source_run_id", "status", "status_message",
     "artifact_location", "lifecycle_stage", *_TIMES),
    "model_id",
    "logged_model_tags",
    params="logged_model_params",
    named="model_id",
)  # fmt: skip
_KEEPER: Final = "keeper"  #: in the place of a lifecycle stage: the run only keeps what no run made


class Row(NamedTuple):
    """A row of a ``Table``: the values of its columns, its tags, a document that ``codec.pack`` takes, its params."""

    values: Mapping[str, Any]
    tags: Mapping[str, str]
    doc: Any
    params: Mapping[str, str] = {}


class RunModels(NamedTuple):
    """What a run has to do with logged models.

    Attributes:
        models: Those that it keeps.
        points: What it measured of them, or of those of other runs; each names its model.
        keeper: It is there for nothing else, and no search finds it.
    """

    models: Sequence[LoggedModel] = ()
    points: Sequence[Metric] = ()
    keeper: bool = False


class Order(NamedTuple):
    """One key of an order.

    Attributes:
        column: A column: of the row of ``table`` if that is set, otherwise an expression over the entity's row ``r``.
        ascending: Smallest first; what is missing comes last either way, and NaN just before it.
        table: ``metrics``, ``params``, ``tags``, or empty.
        key: The metric, param or tag.
        nullable: ``column`` can be NULL although there is a row.
        indexed: There is an index in this order.
        among: Of several rows for a key the newest counts, of those in which these columns have these values; None:
            there is one row at most.
    """

    column: str
    ascending: bool = True
    table: str = ""
    key: str = ""
    nullable: bool = False
    indexed: bool = False
    among: Mapping[str, str] | None = None

    @property
    def direction(self) -> str:
        """SQL's word for it."""
        return "ASC" if self.ascending else "DESC"


class CompiledQuery(NamedTuple):
    """A filter and an order, ready for the index.  ``order`` is total: its last key is unique."""

    conditions: tuple[Condition, ...]
    order: tuple[Order, ...]


def exists(table: str, row: str) -> str:
    """SQL for "a row ``x`` of ``table`` that belongs to ``r`` meets ``row``"."""
    own = "x.id" if table in _ENTITIES else "x.owner"
    return f"EXISTS (SELECT 1 FROM {table} AS x WHERE {own} = r.id AND {row})"


def key_is(parameter: str, alias: str = "x") -> str:
    """SQL for "the row is about the metric, param or tag whose name is the value of ``parameter``"."""
    return f"{alias}.key = (SELECT n.id FROM names AS n WHERE n.name = :{parameter})"


_NUMBER = re.compile(r"\s*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)\s*", re.ASCII | re.IGNORECASE)


def number_of(text: str) -> float | None:
    """The number that a parameter's text is, or None: decimal, ASCII, exponent allowed, infinities too, NaN not."""
    return float(text) if _NUMBER.fullmatch(text) else None


# ---------------------------------------------------------------- the index


class Cursor(Protocol):
    """What a statement found."""

    def fetchall(self) -> list[Any]:
        """All rows, as tuples."""
        ...


class Connection(Protocol):
    """What the index needs of a connection to its database; an ``sqlite3.Connection`` is one.

    Parameters are named (``:name``).  A float that is NaN is stored as NULL, text comes back as it was put in and is
    ordered by code points, and ``fold_text`` is ``str.casefold``.
    """

    @property
    def in_transaction(self) -> bool:
        """True from ``BEGIN`` to its end."""
        ...

    def execute(self, sql: str, params: Mapping[str, Any], /) -> Cursor:
        """Run a statement."""
        ...

    def executemany(self, sql: str, rows: Sequence[Mapping[str, Any]], /) -> Any:
        """Run a statement for each row."""
        ...

    def rollback(self) -> None:
        """End the transaction without a trace of it."""
        ...

    def close(self) -> None:
        """The connection cannot be used afterwards."""
        ...


class Index:
    """The searchable copy of all runs and experiments of a repository.

    Safe to use from several threads (one at a time is inside) and, with a file, from several processes: a reader sees
    what was there before or after another's transaction, never half of it.

    Args:
        path: The file; made if it is missing.  None keeps everything in memory.
        read_only: Never changes the file (SQLite may put its two helper files beside it).  It is read if that is
            possible; the first write copies it to memory and goes on there.  If it cannot be read the index starts
            empty in memory, and the caller fills it.
        timeout: Seconds to wait for another process that writes.

    Raises:
        StorageError, ReadOnlyError, LockedError: The file cannot be opened or made.
    """

    def __init__(self, path: Path | None, *, read_only: bool = False, timeout: float = 30.0) -> None:
        self.path = path
        self._read_only = read_only
        self._timeout = timeout
        self._lock = threading.RLock()
        self._writing = False  # inside `transaction`
        self._names: dict[str, int] = {}  # of this transaction: another process may empty the file between two
        self._shared: dict[bytes, int] = {}  # of this transaction
        self._pack = packer()  # of values that were packed strictly when they were recorded
        self._pid = os.getpid()
        self._connection: Connection = self._open()

    # -- transactions ------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are seen by others together or, if an exception leaves the block, not at all.

        Nested blocks are part of the outermost one.  The lock is taken at the start: at most one process is inside.

        Raises:
            LockedError: Another process is inside for longer than the timeout.
        """
        with self._using():
            if self._writing:
                yield
                return
            if self._read_only and self.path is not None:
                self._to_memory()
            self._begin(write=True)
            self._writing = True
            self._names.clear()
            self._shared.clear()
            try:
                yield
                self._execute("COMMIT")
            finally:
                self._writing = False
                if self._connection.in_transaction:
                    self._connection.rollback()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """All reads inside see one state."""
        with self._using() as connection:
            if connection.in_transaction:
                yield
                return
            self._begin(write=False)
            try:
                yield
            finally:
                if connection.in_transaction:
                    connection.rollback()

    def close(self) -> None:
        """Close the file.  The index cannot be used afterwards."""
        with self._using() as connection:
            connection.close()

    # -- runs --------------------------------------------------------------------------------------------------------

    def put_runs(self, runs: Iterable[Run], about: Mapping[str, RunModels] | None = None) -> None:
        """Add runs, or replace what is known of them.

        Args:
            runs: The runs.
            about: What those of them have to do with logged models that have, by run id.
        """
        about = about or {}
        with self.transaction():
            rest = iter(runs)
            while chunk := list({run.info.run_id: run for run in islice(rest, _CHUNK)}.values()):
                ids = [run.info.run_id for run in chunk]
                known = self._remove(ids)
                self._add(chunk, known, {run_id for run_id in ids if run_id in about and about[run_id].keeper})
                had = self._with_models(list(known))
                for run_id in ids:
                    if run_id in about or run_id in had:
                        self._put_models(run_id, about.get(run_id, RunModels()))

    @contextmanager
    def filling(self) -> Iterator[None]:
        """For putting very many runs into an index that has none: what finds them by value is made at the end."""
        with self.transaction():
            for name, _ in _ORDERS:
                self._execute(f"DROP INDEX {name}")
            yield
            for _, statement in _ORDERS:
                self._execute(statement)

    def drop_runs(self, run_ids: Iterable[str]) -> None:
        """Forget runs; unknown ids are ignored."""
        with self.transaction():
            for chunk in _chunks(run_ids):
                for run_id in self._with_models(list(self._remove(chunk))):
                    self._put_models(run_id, RunModels())

    def get_run(self, run_id: str) -> Run | None:
        """The run of that id, deleted or not."""
        return next(iter(self.get_runs([run_id])), None)

    def get_runs(self, run_ids: Iterable[str], *, keepers: bool = True) -> list[Run]:
        """The runs of these ids that are known, deleted or not, in the order asked for.

        Without ``keepers``, those that are there only to keep a logged model are left out.
        """
        only = "" if keepers else f" AND r.lifecycle_stage <> '{_KEEPER}'"
        found: dict[str, Run] = {}
        wanted = [run_id for run_id in run_ids if _is_text(run_id)]
        with self._reading():
            for chunk in _chunks(wanted):
                marks, params = _expand("i", chunk)
                rows = self._all(f"SELECT r.id FROM runs AS r WHERE r.run_id IN ({marks}){only}", params)
                found.update((run.info.run_id, run) for run in self._hydrate([row[0] for row in rows]))
        return [found[run_id] for run_id in wanted if run_id in found]

    def search_runs(
        self,
        query: CompiledQuery,
        experiment_ids: Sequence[str] | None,
        view: int = ViewType.ACTIVE_ONLY,
        limit: int = 1000,
        offset: int = 0,
    ) -> list[Run]:
        """The runs that meet ``query``, in its order.

        Args:
            query: What to look for.
            experiment_ids: Only runs of these; None: of all.
            view: Which lifecycle stages, a number of ViewType.
            limit: At most so many.
            offset: Leave out so many at the start.
        """
        with self._reading():
            return self._hydrate(self._search(query, experiment_ids, view, limit, offset))

    def search_run_ids(
        self,
        query: CompiledQuery,
        experiment_ids: Sequence[str] | None,
        view: int = ViewType.ACTIVE_ONLY,
        limit: int = 1000,
        offset: int = 0,
    ) -> list[str]:
        """As ``search_runs``, but only their ids."""
        with self._reading():
            ids = self._search(query, experiment_ids, view, limit, offset)
            names: dict[int, str] = {}
            for chunk in _chunks(ids):
                marks, params = _expand("i", chunk)
                names.update(self._all(f"SELECT r.id, r.run_id FROM runs AS r WHERE r.id IN ({marks})", params))
        return [names[row_id] for row_id in ids]

    def search_columns(
        self,
        query: CompiledQuery,
        experiment_ids: Sequence[str] | None,
        view: int = ViewType.ACTIVE_ONLY,
        limit: int = 1000,
        offset: int = 0,
        wanted: Mapping[str, Collection[str]] | None = None,
        also: Mapping[str, Collection[str]] | None = None,
    ) -> RunColumns:
        """As ``search_runs``, but column by column: for a table of many runs a tenth of the time.

        Args:
            query: As there, like the next four.
            experiment_ids: Likewise.
            view: Likewise.
            limit: Likewise.
            offset: Likewise.
            wanted: Which metrics, params and tags, by kind; of a kind that is not named the first that any of the runs
                has, `MOST_COLUMNS` at most.
            also: Besides these first, those of these that any of the runs has.
        """
        with self._reading():
            ids = self._search(query, experiment_ids, view, limit, offset)
            facts: list[dict[int, Any]] = [{} for _ in RUN_FACTS]
            for chunk in _chunks(ids):
                marks, params = _expand("i", chunk)
                listed = ", ".join(f"r.{name}" for name in RUN_FACTS)
                for row_id, *row in self._all(f"SELECT r.id, {listed} FROM runs AS r WHERE r.id IN ({marks})", params):
                    for fact, value in zip(facts, row, strict=True):
                        fact[row_id] = value
            places = {row_id: place for place, row_id in enumerate(ids)}
            found: dict[str, dict[str, list[Any]]] = {}
            names: dict[str, list[str]] = {}
            for kind in COLUMN_KINDS:
                keys = dict(
                    self._all(
                        f"SELECT n.name, n.id FROM names AS n WHERE EXISTS (SELECT 1 FROM {kind} AS x"
                        " WHERE x.key = n.id) ORDER BY n.name"
                    )
                )
                names[kind] = list(keys)
                columns = found.setdefault(kind, {})
                if wanted is not None and kind in wanted:
                    columns.update((key, self._column(kind, keys[key], places)) for key in wanted[kind] if key in keys)
                    continue
                for key in names[kind][: 10 * MOST_COLUMNS]:
                    if len(columns) == MOST_COLUMNS:
                        break
                    column = self._column(kind, keys[key], places)
                    if any(value is not None for value in column):
                        columns[key] = column
                for key in (also or {}).get(kind, ()):
                    column = self._column(kind, keys[key], places) if key in keys and key not in columns else []
                    if any(value is not None for value in column):
                        columns[key] = column
        return RunColumns(
            {name: [fact[row_id] for row_id in ids] for name, fact in zip(RUN_FACTS, facts, strict=True)},
            found,
            names,
        )

    def run_keys(self, experiment_ids: Sequence[str] | None, view: int = ViewType.ACTIVE_ONLY) -> dict[str, list[str]]:
        """The keys that any run of some experiments has, by kind (`COLUMN_KINDS`), in order.

        Args:
            experiment_ids: Only runs of these; None: of all.
            view: Which lifecycle stages, a number of ViewType.
        """
        found: dict[str, list[str]] = {kind: [] for kind in COLUMN_KINDS}
        with self._reading():
            scope = self._scope(experiment_ids)
            if scope is None:
                return found
            runs = (*_stages(view), *scope)
            # Of a key that no run of a small experiment has, all runs that have it would be looked at, and not its few.
            few = len(set(experiment_ids or ())) == 1 and self._count(_Statement("", "runs AS r", runs)) <= _FEW
            for kind in COLUMN_KINDS:
                from_ = f"runs AS r CROSS JOIN {kind} AS x" if few else f"{kind} AS x CROSS JOIN runs AS r"
                inner = _Statement("", from_, (Condition("x.key = n.id AND x.owner = r.id", {}), *runs))
                sql, params = inner.select("1", None, 0)
                rows = self._all(f"SELECT n.name FROM names AS n WHERE EXISTS ({sql})", params)
                found[kind] = sorted(row[0] for row in rows)
        return found

    def metric_ranges(
        self,
        keys: Iterable[str],
        query: CompiledQuery,
        experiment_ids: Sequence[str] | None,
        view: int = ViewType.ACTIVE_ONLY,
    ) -> dict[str, tuple[float, float]]:
        """The least and the greatest finite value of metrics among the runs that meet ``query``.

        Args:
            keys: Which metrics; one of which no run has a finite value is left out.
            query: As for ``search_runs``, like the next two; its order does not matter.
            experiment_ids: Likewise.
            view: Likewise.
        """
        found: dict[str, tuple[float, float]] = {}
        with self._reading():
            scope = self._scope(experiment_ids)
            if scope is None:
                return found
            for chunk in _chunks(filter(_is_text, keys)):
                marks, params = _expand("k", chunk)
                own = Condition(
                    f"n.name IN ({marks}) AND x.key = n.id AND x.owner = r.id"
                    " AND x.value > :below AND x.value < :above",
                    {**params, "below": -math.inf, "above": math.inf},
                )
                source = "names AS n CROSS JOIN metrics AS x CROSS JOIN runs AS r"
                statement = _Statement("", source, (own, *_stages(view), *scope, *query.conditions))
                sql, params = statement.select("n.name, MIN(x.value), MAX(x.value)", None, 0)
                for name, least, greatest in self._all(f"{sql} GROUP BY n.name", params):
                    found[name] = (least, greatest)
        return found

    def _column(self, table: str, key: int, places: Mapping[int, int]) -> list[Any]:
        """The values that the rows in ``places`` have under one key, in their places; None: none; NaN is NaN."""
        column: list[Any] = [None] * len(places)
        sql = f"SELECT x.owner, x.value FROM {table} AS x WHERE x.key = :key"
        nothing = math.nan if table == "metrics" else None
        if len(places) > _FEW:  # most of the table: all of it is read faster than so many places of it are found
            for owner, value in self._all(sql, {"key": key}):
                place = places.get(owner)
                if place is not None:
                    column[place] = nothing if value is None else value
            return column
        for chunk in _chunks(places):
            marks, params = _expand("i", chunk)
            for owner, value in self._all(f"{sql} AND x.owner IN ({marks})", {**params, "key": key}):
                column[places[owner]] = nothing if value is None else value
        return column

    def count_runs(
        self,
        query: CompiledQuery | None = None,
        experiment_ids: Sequence[str] | None = None,
        view: int | None = ViewType.ALL,
    ) -> int:
        """How many runs ``search_runs`` would find without a limit; all runs if nothing is given.

        With None as ``view``, those count too that only keep a logged model.
        """
        conditions = query.conditions if query else ()
        with self._reading():
            scope = self._scope(experiment_ids)
            if scope is None:
                return 0
            stages = () if view is None else _stages(view)
            return self._count(_Statement("", "runs AS r", (*stages, *scope, *conditions)))

    def has_metric(self, key: str) -> bool:
        """True if any run has a metric of exactly this name."""
        sql = f"SELECT EXISTS (SELECT 1 FROM metrics AS x WHERE {key_is('key')})"
        with self._reading():
            return _is_text(key) and bool(self._all(sql, {"key": key})[0][0])

    def find_run_prefix(self, prefix: str, limit: int = 100) -> list[tuple[str, str]]:
        """``(run id, run name)`` of the runs whose id starts with ``prefix``, by id, at most ``limit``."""
        if not _is_text(prefix):
            return []
        with self._reading():
            # Ids are ASCII, so what follows the prefix is below any character that is not.
            return self._all(
                "SELECT r.run_id, r.run_name FROM runs AS r WHERE r.run_id >= :low AND r.run_id < :high"
                " ORDER BY r.run_id LIMIT :limit",
                {"low": prefix, "high": prefix + "\x7f", "limit": limit},
            )

    def find_run_name(self, name: str, limit: int = 100) -> list[tuple[str, str]]:
        """``(run id, run name)`` of the runs of that very name that are not deleted, newest first."""
        if not _is_text(name):
            return []
        with self._reading():
            return self._all(
                "SELECT r.run_id, r.run_name FROM runs AS r WHERE r.run_name = :name AND r.lifecycle_stage = 'active'"
                " ORDER BY r.start_time DESC, r.run_id LIMIT :limit",
                {"name": name, "limit": limit},
            )

    def run_names(self, limit: int = 5000) -> list[str]:
        """Names of the newest runs that are not deleted: what somebody who mistyped one may have meant."""
        with self._reading():
            rows = self._all(
                "SELECT r.run_name FROM runs AS r WHERE r.lifecycle_stage = 'active'"
                " ORDER BY r.start_time DESC, r.run_id LIMIT :limit",
                {"limit": limit},
            )
        return sorted({row[0] for row in rows})

    def code_ids(self) -> set[str]:
        """The id of every commit and tree that a run started from."""
        with self._reading():
            rows = self._all("SELECT DISTINCT code_commit FROM runs UNION SELECT DISTINCT code_tree FROM runs")
        return {row[0] for row in rows if row[0] is not None}

    def changed_commits(self) -> set[str]:
        """The id of every commit on which a run with uncommitted changes started."""
        with self._reading():
            rows = self._all("SELECT DISTINCT code_commit FROM runs WHERE code_dirty = 'true'")
        return {row[0] for row in rows if row[0] is not None}

    def tag_keys(self, prefix: str) -> list[str]:
        """The keys beginning with ``prefix`` under which a run has, or once had, a tag, metric or parameter."""
        sql = "SELECT name FROM names WHERE substr(name, 1, :size) = :prefix"
        with self._reading():
            return [row[0] for row in self._all(sql, {"size": len(prefix), "prefix": prefix})]

    # -- experiments -------------------------------------------------------------------------------------------------

    def put_experiments(self, experiments: Iterable[Experiment]) -> None:
        """Add experiments, or replace what is known of them."""
        with self.transaction():
            for experiment in experiments:
                self._put_experiment(experiment)

    def drop_experiments(self, experiment_ids: Iterable[str]) -> None:
        """Forget experiments, not their runs; unknown ids are ignored."""
        with self.transaction():
            for experiment_id in experiment_ids:
                self._remove_experiment(experiment_id)

    def get_experiments(self, experiment_ids: Iterable[str] | None = None) -> list[Experiment]:
        """The experiments of these ids that are known, deleted or not, in the order asked for; None: all, by id."""
        sql = "SELECT e.doc FROM experiments AS e"
        with self._reading():
            if experiment_ids is None:
                rows = self._all(f"{sql} ORDER BY LENGTH(e.experiment_id), e.experiment_id")
                return [_experiment(row) for row in rows]
            wanted = [experiment_id for experiment_id in experiment_ids if _is_text(experiment_id)]
            known: dict[str, Experiment] = {}
            for chunk in _chunks(wanted):
                marks, params = _expand("i", chunk)
                rows = self._all(f"{sql} WHERE e.experiment_id IN ({marks})", params)
                known.update((found.experiment_id, found) for found in map(_experiment, rows))
        return [known[experiment_id] for experiment_id in wanted if experiment_id in known]

    def search_experiments(
        self, query: CompiledQuery, view: int = ViewType.ACTIVE_ONLY, limit: int = 1000, offset: int = 0
    ) -> list[Experiment]:
        """The experiments that meet ``query``, in its order; arguments as for ``search_runs``."""
        from_, order, params = _plain_order("experiments AS r", query.order)
        conditions = (*_stages(view), *query.conditions)
        statement = _Statement(order, from_, conditions, params)
        with self._reading():
            rows = self._all(*statement.select("r.doc", limit, offset))
        return [_experiment(row) for row in rows]

    # -- logged models -----------------------------------------------------------------------------------------------

    def get_logged_model(self, model_id: str) -> LoggedModel | None:
        """The logged model of that id, deleted or not, with all that was measured of it."""
        if not _is_text(model_id):
            return None
        with self._reading():
            sql = "SELECT r.id, r.doc FROM logged_models AS r WHERE r.model_id = :model_id"
            return next(iter(self._logged_models(self._all(sql, {"model_id": model_id}))), None)

    def search_logged_models(
        self,
        query: CompiledQuery,
        experiment_ids: Sequence[str] | None,
        view: int = ViewType.ACTIVE_ONLY,
        limit: int = 100,
        offset: int = 0,
    ) -> list[LoggedModel]:
        """The logged models that meet ``query``, in its order; arguments as for ``search_runs``."""
        with self._reading():
            scope = self._scope(experiment_ids, "logged_models")
            if scope is None:
                return []
            from_, order, params = _plain_order("logged_models AS r", query.order)
            statement = _Statement(order, from_, (*_stages(view), *scope, *query.conditions), params)
            return self._logged_models(self._all(*statement.select("r.id, r.doc", limit, offset)))

    def _logged_models(self, rows: Sequence[tuple[int, bytes]]) -> list[LoggedModel]:
        points: dict[int, list[Metric]] = {}
        for chunk in _chunks([row_id for row_id, _ in rows]):
            marks, params = _expand("i", chunk)
            found = self._all(
                "SELECT x.owner, n.name, x.value, x.timestamp, x.step, m.name, x.dataset_name, x.dataset_digest,"
                " x.run_id FROM logged_model_metrics AS x JOIN names AS n ON n.id = x.key"
                f" JOIN names AS m ON m.id = x.owner WHERE x.owner IN ({marks})"
                " ORDER BY n.name, x.timestamp, x.step, x.run_id, x.id",
                params,
            )
            for owner, key, value, *rest in found:
                points.setdefault(owner, []).append(Metric(key, math.nan if value is None else value, *rest))
        return [_logged_model(unpack(doc), points.get(row_id, [])) for row_id, doc in rows]

    def _with_models(self, run_ids: Sequence[str]) -> set[str]:
        """Those of a few runs that have to do with logged models, as far as the index knows."""
        marks, params = _expand("i", run_ids)
        sql = f"SELECT m.run_id FROM logged_models AS m WHERE m.run_id IN ({marks})"
        rows = (
            self._all(f"{sql} UNION {sql.replace('logged_models', 'logged_model_metrics')}", params) if run_ids else ()
        )
        return {row[0] for row in rows}

    def _put_models(self, run_id: str, about: RunModels) -> None:
        """Make this all that a run has to do with logged models."""
        self.put_rows(LOGGED_MODELS, run_id, map(_logged_model_row, about.models))
        rows = [
            (self._name(point.key), self._name(str(point.model_id)), None if math.isnan(point.value) else point.value,
             point.timestamp, point.step, point.dataset_name, point.dataset_digest)
            for point in about.points
        ]  # fmt: skip
        columns = ("key", "owner", "value", "timestamp", "step", "dataset_name", "dataset_digest")
        sql = f"SELECT {', '.join(columns)} FROM logged_model_metrics WHERE run_id = :run_id ORDER BY id"
        known = self._all(sql, {"run_id": run_id})
        if known != rows[: len(known)]:  # else there are only more of them, as while a run goes on
            self._execute("DELETE FROM logged_model_metrics WHERE run_id = :run_id", {"run_id": run_id})
            known = []
        self._many(
            f"INSERT INTO logged_model_metrics (run_id, {', '.join(columns)})"
            f" VALUES (:run_id, {', '.join(f':{column}' for column in columns)})",
            [{"run_id": run_id, **dict(zip(columns, row, strict=True))} for row in rows[len(known) :]],
        )

    # -- other things ------------------------------------------------------------------------------------------------

    def put_rows(self, table: Table, group: str, rows: Iterable[Row], kept: Collection[Any] = ()) -> None:
        """Make ``rows`` all there is of a group; what is there already is not written again.

        Args:
            table: Where.
            group: The value of the table's first column in all of them.
            rows: The group's rows.
            kept: What tells other rows of the group apart, which stay as they are.
        """
        with self.transaction():
            sql = f"SELECT t.id, t.{table.unique}, t.doc FROM {table.name} AS t WHERE t.{table.columns[0]} = :group"
            known = {one: (row_id, doc) for row_id, one, doc in self._all(sql, {"group": group}) if one not in kept}
            free = self._next(table.name)
            for row in rows:
                row_id, old = known.pop(row.values[table.unique], (free, None))
                doc = pack(row.doc)
                if old == doc:
                    continue
                if old is not None:
                    self._drop_row(table, row_id)
                elif not table.named:
                    free += 1
                else:
                    row_id = self._name(row.values[table.named])
                    if not self._take_over(table, row_id, group):
                        continue
                self._put_row(table, row_id, row, doc)
            for row_id, _ in known.values():
                self._drop_row(table, row_id)

    def _take_over(self, table: Table, row_id: int, group: str) -> bool:
        """Make room for a row of ``group`` where another group may have one; False if that one stays."""
        others = self._all(f"SELECT t.{table.columns[0]} FROM {table.name} AS t WHERE t.id = :id", {"id": row_id})
        if others and others[0][0] < group:
            return False
        self._drop_row(table, row_id)
        return True

    def _put_row(self, table: Table, row_id: int, row: Row, doc: bytes) -> None:
        columns = ", ".join(table.columns)
        marks = ", ".join(f":{name}" for name in table.columns)
        self._execute(
            f"INSERT INTO {table.name} (id, {columns}, doc) VALUES (:id, {marks}, :doc)",
            {**row.values, "id": row_id, "doc": doc},
        )
        self._many(
            f"INSERT INTO {table.tags} (key, owner, value) VALUES (:key, :owner, :value)",
            [{"key": self._name(key), "owner": row_id, "value": value} for key, value in row.tags.items()],
        )
        if row.params:
            self._many(
                f"INSERT INTO {table.params} (key, owner, value, number) VALUES (:key, :owner, :value, :number)",
                [
                    {"key": self._name(key), "owner": row_id, "value": value, "number": number_of(value)}
                    for key, value in row.params.items()
                ],
            )

    def _drop_row(self, table: Table, row_id: int) -> None:
        for side in filter(None, (table.tags, table.params)):
            self._execute(f"DELETE FROM {side} WHERE owner = :id", {"id": row_id})
        self._execute(f"DELETE FROM {table.name} WHERE id = :id", {"id": row_id})

    def find_rows(self, table: Table, **equal: str | int) -> list[Any]:
        """The documents of the rows whose columns have these values, in no order; all of them without any."""
        sql = f"SELECT t.doc FROM {table.name} AS t{_where(table, equal)}"
        if not all(_is_text(value) for value in equal.values() if isinstance(value, str)):
            return []
        with self._reading():
            return [unpack(row[0]) for row in self._all(sql, equal)]

    def count_rows(self, table: Table, **equal: str | int) -> int:
        """How many documents ``find_rows`` would find."""
        with self._reading():
            return int(self._all(f"SELECT COUNT(*) FROM {table.name} AS t{_where(table, equal)}", equal)[0][0])

    def search_rows(
        self,
        table: Table,
        query: CompiledQuery,
        view: int = ViewType.ACTIVE_ONLY,
        limit: int = 1000,
        offset: int = 0,
    ) -> list[Any]:
        """The documents of the rows that meet ``query``, in its order; arguments as for ``search_runs``."""
        from_, order, params = _plain_order(f"{table.name} AS r", query.order)
        statement = _Statement(order, from_, (*_stages(view), *query.conditions), params)
        with self._reading():
            rows = self._all(*statement.select("r.doc", limit, offset))
        return [unpack(row[0]) for row in rows]

    def parsed_get(self, oids: Iterable[str]) -> dict[str, Any]:
        """What ``parsed_set`` stored for these git objects, by id; those without are left out."""
        found: dict[str, Any] = {}
        with self._reading():
            for chunk in _chunks(oids):
                marks, params = _expand("i", chunk)
                rows = self._all(f"SELECT p.oid, p.data FROM parsed AS p WHERE p.oid IN ({marks})", params)
                found.update((oid, unpack(data)) for oid, data in rows)
        return found

    def parsed_lacks(self, oids: Collection[str]) -> set[str]:
        """Those of these git objects that ``parsed_get`` would leave out."""
        lacking = set(oids)
        with self._reading():
            for chunk in _chunks(oids):
                marks, params = _expand("i", chunk)
                rows = self._all(f"SELECT p.oid FROM parsed AS p WHERE p.oid IN ({marks})", params)
                lacking.difference_update(row[0] for row in rows)
        return lacking

    def parsed_set(self, values: Mapping[str, Any]) -> None:
        """Store what was read out of git objects, which never change, by their ids."""
        with self.transaction():
            self._many(
                "INSERT INTO parsed (oid, data) VALUES (:oid, :data)"
                " ON CONFLICT (oid) DO UPDATE SET data = excluded.data",
                [{"oid": oid, "data": pack(value)} for oid, value in values.items()],
            )

    # -- meta --------------------------------------------------------------------------------------------------------

    def meta_get(self, key: str) -> Any:
        """What ``meta_set`` stored under ``key``; None if nothing.  Tuples come back as lists."""
        with self._reading():
            rows = self._all("SELECT m.value FROM meta AS m WHERE m.key = :key", {"key": key})
        return unpack(rows[0][0]) if rows else None

    def meta_set(self, key: str, value: Any) -> None:
        """Store a value that ``codec.pack`` takes; None removes it."""
        with self.transaction():
            self._execute("DELETE FROM meta WHERE key = :key", {"key": key})
            if value is not None:
                self._execute("INSERT INTO meta (key, value) VALUES (:key, :value)", {"key": key, "value": pack(value)})

    def clear(self) -> None:
        """Forget everything, ``meta`` included.  Also mends a damaged file, unless inside a transaction."""
        try:
            with self.transaction():
                self._create()
        except CorruptError:
            if self.path is None or self._writing:
                raise
            with self._using() as connection:
                connection.close()
                _unlink(self.path)
                self._connection = self._open()

    # -- searching ---------------------------------------------------------------------------------------------------

    def _search(
        self, query: CompiledQuery, experiment_ids: Sequence[str] | None, view: int, limit: int, offset: int
    ) -> list[int]:
        scope = self._scope(experiment_ids)
        found: list[int] = []
        if scope is None:
            return found
        for statement in self._segments(_stages(view), (*scope, *query.conditions), query.order, limit + offset):
            if len(found) >= limit:
                break
            rows = self._all(*statement.select("r.id", limit - len(found), offset))
            found.extend(row[0] for row in rows)
            if rows:
                offset = 0
            elif offset:
                offset -= min(offset, self._count(statement))
        return found

    def _count(self, statement: _Statement) -> int:
        sql, params = statement.select("r.id", None, 0)
        return int(self._all(f"SELECT COUNT(*) FROM ({sql}) AS s", params)[0][0])

    def _scope(self, experiment_ids: Sequence[str] | None, table: str = "runs") -> tuple[Condition, ...] | None:
        """Conditions for the experiments; None if they leave nothing."""
        if experiment_ids is None:
            return ()
        wanted = {experiment_id for experiment_id in experiment_ids if _is_text(experiment_id)}
        if len(wanted) > _CHUNK:  # all of them, as a client says it that must name each; or more than can be bound
            known = {row[0] for row in self._all(f"SELECT DISTINCT r.experiment_id FROM {table} AS r")}
            wanted &= known
            if wanted == known:
                return ()
        if not wanted:
            return None
        marks, params = _expand("e", sorted(wanted))
        # For one experiment an index has its runs in order.  For several it has not, and the empty text keeps SQL from
        # preferring it to the one that has all runs in order.
        column = "r.experiment_id" if len(wanted) == 1 else "r.experiment_id || ''"
        row = f"x.experiment_id IN ({marks})"
        return (Condition(f"{column} IN ({marks})", params, table=table, row=row, indexed=True),)

    def _segments(
        self, stages: tuple[Condition, ...], conditions: tuple[Condition, ...], order: Sequence[Order], wanted: int
    ) -> Iterator[_Statement]:
        """Statements whose results, one after the other, are the runs in order.

        Where a search starts decides how long it takes.  If few runs meet one of the conditions: there, and sort them.
        Otherwise, where the index gives the first key's order: then it can stop when it has ``wanted``.
        """
        first, *rest = order
        start = self._start(conditions, first, wanted)
        conditions = (*stages, *conditions)
        if start is not None or not first.table:
            yield _plain(conditions, order, start)
            return
        about = [c for c in conditions if (c.table, c.key) == (first.table, first.key)]
        # These go to the row that the walk is over; one about another column would tempt SQL to another index.
        own = [c for c in about if c.column in ("", first.column)]
        others = [c for c in conditions if c not in own]

        def having(row: str) -> _Statement:
            """Those with a row ``x`` of the first key that meets ``row``."""
            from_, by, params = _plain_order(f"{first.table} AS x CROSS JOIN runs AS r", rest)
            here = Condition(f"r.id = x.owner AND {key_is('first')} AND {row}", {"first": first.key})
            return _Statement(by, from_, (here, *(Condition(c.row, c.params) for c in own), *others), params)

        column = f"x.{first.column}"
        numbers = having(f"{column} IS NOT NULL")
        yield numbers._replace(order=f"{column} {first.direction}, {numbers.order}")
        if first.table == "metrics":
            yield having(f"{column} IS NULL")
        if not about:
            missing = Condition(f"NOT {exists(first.table, key_is('first'))}", {"first": first.key})
            yield _plain((missing, *conditions), rest, None)

    def _start(self, conditions: Iterable[Condition], first: Order, wanted: int) -> Condition | None:
        """The condition to start from; None to walk over the runs in order.

        An estimate, in rows looked at: as if conditions were independent of each other, and as if half of the runs met
        each of which nothing better is known.
        """
        runs = self._next("runs")
        many = max(_FEW, runs // 8)
        best, least, share = None, float(runs), 1.0
        for condition in conditions:
            cost, part = float(runs), 0.5
            if condition.indexed:
                count = self._count_up_to(many, condition)
                if count < many:
                    cost, part = count, count / runs
            elif condition.key:
                part = self._sample(condition)
                cost = runs * (0.25 + part)  # rows of one key lie together
            share *= part
            if cost < least:
                best, least = condition, cost
        if first.indexed and share * runs > wanted:
            return best if least < wanted / share else None
        return best

    def _count_up_to(self, many: int, condition: Condition) -> int:
        sql = f"SELECT COUNT(*) FROM (SELECT 1 FROM {condition.table} AS x WHERE {condition.row} LIMIT :many) AS s"
        return int(self._all(sql, {**condition.params, "many": many})[0][0])

    def _sample(self, condition: Condition) -> float:
        """The share of a key's newest rows that meet a condition, never quite none."""
        sql = (
            f"SELECT COUNT(*) FROM (SELECT CASE WHEN {condition.row} THEN 1 ELSE 0 END AS hit FROM {condition.table}"
            f" AS x WHERE {key_is('sampled')} ORDER BY x.owner DESC LIMIT {_SAMPLE}) AS s WHERE s.hit = 1"
        )
        hits = self._all(sql, {**condition.params, "sampled": condition.key})[0][0]
        return float(max(hits, 0.5) / _SAMPLE)

    def _hydrate(self, ids: Sequence[int]) -> list[Run]:
        """The runs of these rows, in this order."""
        docs: dict[int, list[Any]] = {}
        for chunk in _chunks(ids):
            marks, params = _expand("i", chunk)
            rows = self._all(f"SELECT d.id, d.doc FROM docs AS d WHERE d.id IN ({marks})", params)
            docs.update((row_id, unpack(doc)) for row_id, doc in rows)
        wanted = {number for doc in docs.values() for number in (*doc[_SHARED].values(), *(i for i, _ in doc[_INPUTS]))}
        shared: dict[int, Any] = {}
        for part in _chunks(wanted):
            marks, params = _expand("i", part)
            rows = self._all(f"SELECT s.id, s.data FROM shared AS s WHERE s.id IN ({marks})", params)
            shared.update((row_id, unpack(data)) for row_id, data in rows)
        return [_run(docs[row_id], shared) for row_id in ids]

    # -- writing -----------------------------------------------------------------------------------------------------

    def _remove(self, run_ids: Sequence[str]) -> dict[str, int]:
        """Delete the rows of these runs; the row ids of those there were."""
        marks, params = _expand("i", run_ids)
        rows = self._all(
            f"SELECT r.run_id, r.id, d.doc FROM runs AS r JOIN docs AS d ON d.id = r.id WHERE r.run_id IN ({marks})",
            params,
        )
        docs = [(row_id, unpack(data)) for _, row_id, data in rows]
        for table, place in (("metrics", _METRICS), ("params", _PARAMS), ("tags", _TAGS)):
            self._many(
                f"DELETE FROM {table} WHERE key = :key AND owner = :owner",
                [{"key": self._name(key), "owner": row_id} for row_id, doc in docs for key in doc[place]],
            )
        for sql in (
            "DELETE FROM inputs WHERE owner = :id",
            "DELETE FROM docs WHERE id = :id",
            "DELETE FROM runs WHERE id = :id",
        ):
            self._many(sql, [{"id": row[1]} for row in rows])
        return {run_id: row_id for run_id, row_id, _ in rows}

    def _add(self, runs: Iterable[Run], known: Mapping[str, int], keepers: Collection[str] = ()) -> None:
        free = max([self._next("runs"), *(row_id + 1 for row_id in known.values())])
        tables: dict[str, list[dict[str, Any]]] = {name: [] for name in _INSERT}
        name = self._name
        for run in runs:
            row_id = known.get(run.info.run_id)
            if row_id is None:
                row_id, free = free, free + 1
            info, code, data = run.info, run.code, run.data
            row = {field: getattr(info, field) for field in RunInfo.__slots__}
            row.update(start_time=_int64(info.start_time), end_time=_int64(info.end_time))
            dirty = code.get("dirty")
            row.update(
                id=row_id,
                code_commit=_text_or_none(code.get("commit")),
                code_tree=_text_or_none(code.get("tree")),
                code_branch=_text_or_none(code.get("branch")),
                code_dirty=None if dirty is None else str(bool(dirty)).lower(),
            )
            if info.run_id in keepers:
                row["lifecycle_stage"] = _KEEPER
            tables["runs"].append(row)
            tables["docs"].append({"id": row_id, "doc": self._doc(run)})
            for key, value in data.metrics.items():
                summary = data.summaries.get(key)
                low, high = (value, value) if summary is None else (summary.minimum, summary.maximum)
                tables["metrics"].append(
                    {"key": name(key), "owner": row_id, "value": value, "minimum": low, "maximum": high}
                )
            for key, text in data.params.items():
                tables["params"].append({"key": name(key), "owner": row_id, "value": text, "number": number_of(text)})
            for key, text in data.tags.items():
                tables["tags"].append({"key": name(key), "owner": row_id, "value": text})
            tables["inputs"].extend(_input_rows(row_id, run.inputs.dataset_inputs))
        for table, rows in tables.items():
            self._many(_INSERT[table], rows)

    def _doc(self, run: Run) -> bytes:
        """Everything about a run, for ``_run`` to read back."""
        summaries = run.data.summaries
        metrics: dict[str, list[Any]] = {}
        for key, value in run.data.metrics.items():
            s = summaries.get(key)
            metrics[key] = [value] if s is None else [s.value, s.timestamp, s.step, s.minimum, s.maximum, s.count]
        environment = dict(run.environment)
        large: dict[str, int] = {}
        for key, value in environment.items():
            if (isinstance(value, str) and len(value) > _SHARE_CHARS) or (
                isinstance(value, (list, tuple, dict)) and len(value) > _SHARE_ITEMS
            ):
                large[key] = self._share(value)
                environment[key] = None
        doc = [
            [getattr(run.info, field) for field in RunInfo.__slots__],
            metrics,
            dict(run.data.params),
            dict(run.data.tags),
            [
                [
                    self._share([getattr(use.dataset, field) for field in Dataset.__slots__]),
                    [[tag.key, tag.value] for tag in use.tags],
                ]
                for use in run.inputs.dataset_inputs
            ],
            [model.model_id for model in run.inputs.model_inputs],
            [[model.model_id, model.step, model.path] for model in run.outputs.model_outputs],
            dict(run.code),
            environment,
            large,
            run.commit,
        ]
        return self._pack(doc)

    def _share(self, value: Any) -> int:
        """The row of ``shared`` that holds ``value``."""
        data = self._pack(value)
        number = self._shared.get(data)
        if number is None:
            crc = crc32(data)
            rows = self._all("SELECT s.id, s.data FROM shared AS s WHERE s.crc = :crc", {"crc": crc})
            number = next((row_id for row_id, known in rows if known == data), None)
            if number is None:
                number = self._next("shared")
                sql = "INSERT INTO shared (id, crc, data) VALUES (:id, :crc, :data)"
                self._execute(sql, {"id": number, "crc": crc, "data": data})
            self._shared[data] = number
        return number

    def _name(self, name: str) -> int:
        """The row of ``names`` for a key, made if it is new."""
        number = self._names.get(name)
        if number is None:
            rows = self._all("SELECT n.id FROM names AS n WHERE n.name = :name", {"name": name})
            number = int(rows[0][0]) if rows else self._next("names")
            if not rows:
                self._execute("INSERT INTO names (id, name) VALUES (:id, :name)", {"id": number, "name": name})
            self._names[name] = number
        return number

    def _next(self, table: str) -> int:
        """The number of the next row of ``table``."""
        return int(self._all(f"SELECT COALESCE(MAX(t.id), 0) + 1 FROM {table} AS t")[0][0])

    def _put_experiment(self, experiment: Experiment) -> None:
        self._remove_experiment(experiment.experiment_id)
        fields = [getattr(experiment, field) for field in Experiment.__slots__]
        row = dict(zip(Experiment.__slots__, fields, strict=True))
        row["doc"] = pack(fields)
        row.update(creation_time=_int64(experiment.creation_time), last_update_time=_int64(experiment.last_update_time))
        row["id"] = owner = self._next("experiments")
        tags = row.pop("tags")
        self._execute(
            "INSERT INTO experiments (id, experiment_id, name, artifact_location, lifecycle_stage, creation_time,"
            " last_update_time, doc) VALUES (:id, :experiment_id, :name, :artifact_location, :lifecycle_stage,"
            " :creation_time, :last_update_time, :doc)",
            row,
        )
        self._many(
            "INSERT INTO experiment_tags (key, owner, value) VALUES (:key, :owner, :value)",
            [{"key": self._name(key), "owner": owner, "value": value} for key, value in tags.items()],
        )

    def _remove_experiment(self, experiment_id: str) -> None:
        own = "(SELECT e.id FROM experiments AS e WHERE e.experiment_id = :id)"
        self._execute(f"DELETE FROM experiment_tags WHERE owner = {own}", {"id": experiment_id})
        self._execute("DELETE FROM experiments WHERE experiment_id = :id", {"id": experiment_id})

    # -- SQLite ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _using(self) -> Iterator[Connection]:
        """The connection, for one thread at a time; a new one in a forked child, whose parent goes on with the old."""
        if self._pid != os.getpid():
            # Closing it here could release the parent's locks, so it is kept open until the child ends.
            _inherited.append(self._connection)
            self._lock = threading.RLock()  # a thread that held it does not exist here
            self._writing = False
            self._pid = os.getpid()
            self._connection = self._open()
        with self._lock:
            yield self._connection

    def _open(self) -> Connection:
        """A connection to a file of this schema, or to memory."""
        if self.path is None:
            return self._prepare(self._connect(":memory:"))
        if self._read_only:
            for options in ("mode=ro", "mode=ro&immutable=1"):
                connection = self._open_read_only(self.path, options)
                if connection is not None:
                    return connection
            self.path = None
            return self._prepare(self._connect(":memory:"))
        try:
            return self._prepare(self._connect(self.path))
        except CorruptError:
            _unlink(self.path)
            return self._prepare(self._connect(self.path))

    def _open_read_only(self, path: Path, options: str) -> sqlite3.Connection | None:
        """A connection to the file as it is; None if it is not there, cannot be read or has another schema."""
        wal = Path(f"{path}-wal")
        if "immutable" in options and wal.exists() and wal.stat().st_size:
            return None  # SQLite would leave out what is only in the log
        try:
            connection = self._connect(f"{path.absolute().as_uri()}?{options}", uri=True)
        except GittrackError:
            return None
        with suppress(connection.Error):
            if connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
                connection.execute("SELECT COUNT(*) FROM meta").fetchone()
                return connection
        connection.close()
        return None

    def _connect(self, target: str | Path, *, uri: bool = False) -> sqlite3.Connection:
        import sqlite3  # takes 5 ms, and not every verb reads the index

        try:
            connection = sqlite3.connect(
                target, timeout=self._timeout, isolation_level=None, check_same_thread=False, uri=uri
            )
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error
        connection.execute("PRAGMA case_sensitive_like = ON")
        connection.create_function("fold_text", 1, _fold, deterministic=True)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Make the tables if they are not there, or not these."""
        try:
            # A checkpoint is the only fsync that is left, and it keeps the file whole when the power fails.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA cache_size = -65536")  # KiB
            connection.execute("PRAGMA journal_size_limit = 67108864")  # bytes that stay in the log after a large fill
            if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                connection.execute("BEGIN IMMEDIATE")
                if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                    _create(connection)
                connection.execute("COMMIT")
            _use_wal(connection)
        except connection.Error as error:
            connection.close()
            raise _translated(error, self.path) from error
        return connection

    def _begin(self, *, write: bool) -> None:
        self._execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def _create(self) -> None:
        with self._translating():
            _create(self._connection)
        self._names.clear()
        self._shared.clear()

    def _to_memory(self) -> None:
        """Go on with a copy in memory."""
        old, new = cast("sqlite3.Connection", self._connection), self._connect(":memory:")
        with self._translating():
            old.backup(new)
        self._connection = new
        old.close()
        self.path = None

    def _failure(self, error: Exception) -> GittrackError | None:
        """The database's error as ours; None if it is none of the database's."""
        import sqlite3

        return _translated(error, self.path) if isinstance(error, sqlite3.Error) else None

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            failure = self._failure(error)
            if failure is None:
                raise
            raise failure from error

    def _execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        with self._translating():
            self._connection.execute(sql, params or {})

    def _all(self, sql: str, params: Mapping[str, Any] | None = None) -> list[Any]:
        with self._translating():
            return self._connection.execute(sql, params or {}).fetchall()

    def _many(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            with self._translating():
                self._connection.executemany(sql, rows)


# ---------------------------------------------------------------- statements


class _Statement(NamedTuple):
    order: str
    from_: str
    conditions: tuple[Condition, ...]
    params: Mapping[str, Any] | None = None

    def select(self, what: str, limit: int | None, offset: int) -> tuple[str, dict[str, Any]]:
        sql = f"SELECT {what} FROM {self.from_}"
        params = dict(self.params or {})
        if self.conditions:
            # "IS TRUE" keeps PostgreSQL from planning a join for each, which takes longer than any of them.
            apart = " IS TRUE" if len(self.conditions) > _JOINED else ""
            sql += " WHERE " + " AND ".join(f"({c.sql}){apart if 'EXISTS' in c.sql else ''}" for c in self.conditions)
        for condition in self.conditions:
            params.update(condition.params)
        if limit is not None:
            sql += f" ORDER BY {self.order} LIMIT :limit OFFSET :offset"
            params.update(limit=limit, offset=offset)
        return sql, params


def _plain(conditions: tuple[Condition, ...], order: Iterable[Order], start: Condition | None) -> _Statement:
    """One statement, sorted by SQL; from the few runs that meet ``start``."""
    source = "runs AS r"
    if start is not None:
        own = "x.id" if start.table == "runs" else "x.owner"
        source = f"(SELECT DISTINCT {own} AS owner FROM {start.table} AS x WHERE {start.row}) AS d CROSS JOIN {source}"
        others = tuple(c for c in conditions if c is not start)
        conditions = (Condition("r.id = d.owner", start.params), *others)
    from_, by, params = _plain_order(source, order)
    return _Statement(by, from_, conditions, params)


def _plain_order(source: str, order: Iterable[Order]) -> tuple[str, str, dict[str, Any]]:
    """FROM, ORDER BY and parameters for rows of ``source`` in ``order``: numbers, NaN, missing, in both directions."""
    by: list[str] = []
    params: dict[str, Any] = {}
    for number, key in enumerate(order):
        if not key.table:
            if key.nullable:
                by.append(f"CASE WHEN {key.column} IS NULL THEN 1 ELSE 0 END")
            by.append(f"{key.column} {key.direction}")
            continue
        alias, name = f"o{number}", f"order{number}"
        params[name] = key.key
        if key.among is None:
            source += f" LEFT JOIN {key.table} AS {alias} ON {alias}.owner = r.id AND {key_is(name, alias)}"
        else:
            where = " AND ".join(f"x.{column} = :{name}{column}" for column in key.among)
            params.update({f"{name}{column}": value for column, value in key.among.items()})
            source += (
                f" LEFT JOIN {key.table} AS {alias} ON {alias}.id = (SELECT x.id FROM {key.table} AS x"
                f" WHERE x.owner = r.id AND {key_is(name)}{where and ' AND '}{where}"
                " ORDER BY x.timestamp DESC, x.step DESC, x.run_id, x.id LIMIT 1)"
            )
        column = f"{alias}.{key.column}"
        by.append(f"CASE WHEN {alias}.owner IS NULL THEN 2 WHEN {column} IS NULL THEN 1 ELSE 0 END")
        by.append(f"{column} {key.direction}")
    return source, ", ".join(by), params


def _where(table: Table, equal: Mapping[str, Any]) -> str:
    """A condition that columns have the values of the parameters that are called as they are; empty if there are none.

    Raises:
        InvalidValueError: There is no such column.
    """
    if not equal.keys() <= set(table.columns):
        raise InvalidValueError(f"`{table.name}` has no such column")
    return (" WHERE " if equal else "") + " AND ".join(f"t.{column} = :{column}" for column in equal)


def _stages(view: int) -> tuple[Condition, ...]:
    stages = ViewType.stages(view)
    if len(stages) > 1:
        return (Condition(f"r.lifecycle_stage <> '{_KEEPER}'", {}),)
    return (Condition("r.lifecycle_stage = :stage", {"stage": stages[0]}),)


def _expand(prefix: str, values: Iterable[Any]) -> tuple[str, dict[str, Any]]:
    """The inside of ``IN (…)`` and its parameters."""
    params = {f"{prefix}{number}": value for number, value in enumerate(values)}
    return ", ".join(f":{name}" for name in params), params


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(values)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


# ---------------------------------------------------------------- rows

_INSERT: Final = {
    "runs": (
        "INSERT INTO runs (id, run_id, experiment_id, user_id, status, start_time, end_time, lifecycle_stage,"
        " artifact_uri, run_name, code_commit, code_tree, code_branch, code_dirty) VALUES (:id, :run_id,"
        " :experiment_id, :user_id, :status, :start_time, :end_time, :lifecycle_stage, :artifact_uri, :run_name,"
        " :code_commit, :code_tree, :code_branch, :code_dirty)"
    ),
    "docs": "INSERT INTO docs (id, doc) VALUES (:id, :doc)",
    "metrics": (
        "INSERT INTO metrics (key, owner, value, minimum, maximum) VALUES (:key, :owner, :value, :minimum, :maximum)"
    ),
    "params": "INSERT INTO params (key, owner, value, number) VALUES (:key, :owner, :value, :number)",
    "tags": "INSERT INTO tags (key, owner, value) VALUES (:key, :owner, :value)",
    "inputs": (
        "INSERT INTO inputs (owner, position, name, digest, context)"
        " VALUES (:owner, :position, :name, :digest, :context)"
    ),
}

# Places in a run's document.
_METRICS, _PARAMS, _TAGS, _INPUTS, _SHARED = 1, 2, 3, 4, 9


def _input_rows(owner: int, uses: Iterable[DatasetInput]) -> Iterator[dict[str, Any]]:
    position = 0
    for use in uses:
        contexts: list[str | None] = [tag.value for tag in use.tags if tag.key == CONTEXT_TAG]
        for context in contexts or [None]:
            yield {
                "owner": owner,
                "position": position,
                "name": use.dataset.name,
                "digest": use.dataset.digest,
                "context": context,
            }
            position += 1


def _run(doc: list[Any], shared: Mapping[int, Any]) -> Run:
    info, metrics, params, tags, uses, models, outputs, code, environment, large, commit = doc
    return Run(
        RunInfo(*info),
        RunData(
            {key: numbers[0] for key, numbers in metrics.items()},
            params,
            tags,
            {key: MetricSummary(*numbers) for key, numbers in metrics.items() if len(numbers) > 1},
        ),
        RunInputs(
            [
                DatasetInput(Dataset(*shared[number]), [InputTag(key, value) for key, value in tags_])
                for number, tags_ in uses
            ],
            [ModelInput(model_id) for model_id in models],
        ),
        RunOutputs([ModelOutput(*output) for output in outputs]),
        code,
        {**environment, **{key: shared[number] for key, number in large.items()}},
        commit,
    )


def _logged_model_row(model: LoggedModel) -> Row:
    values = {column: getattr(model, column) for column in LOGGED_MODELS.columns} | {"status": model.status.value}
    doc = [
        *(values[column] for column in LOGGED_MODELS.columns), dict(model.tags), dict(model.params), model.path,
        list(model.flavors),
    ]  # fmt: skip
    values.update({name: _int64(values[name]) for name in _TIMES})
    return Row(values, model.tags, doc, model.params)


def _logged_model(doc: list[Any], metrics: list[Metric]) -> LoggedModel:
    from gittrack.model_types import LoggedModel, LoggedModelStatus

    *values, tags, params, path, flavors = doc
    facts = dict(zip(LOGGED_MODELS.columns, values, strict=True))
    facts["status"] = LoggedModelStatus(facts["status"])
    return LoggedModel(**facts, tags=tags, params=params, metrics=metrics, path=path, flavors=tuple(flavors))


def _experiment(row: tuple[bytes]) -> Experiment:
    return Experiment(*unpack(row[0]))


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def _int64(value: int | None) -> int | None:
    """The nearest integer that SQL has: what others recorded may be beyond."""
    return None if value is None else max(-(1 << 63), min(value, (1 << 63) - 1))


def _is_text(value: str) -> bool:
    """False for lone surrogates, which no database takes and no stored text has."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


# ---------------------------------------------------------------- SQLite only

_inherited: list[Connection] = []


def _create(connection: Connection) -> None:
    """Empty tables in place of whatever there is; inside a transaction."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", {})
    for (name,) in rows.fetchall():
        if name in TABLES:
            connection.execute(f"DROP TABLE {name}", {})
    for statement in filter(str.strip, SCHEMA.split(";")):
        connection.execute(statement, {})
    connection.execute(f"PRAGMA application_id = {_APPLICATION}", {})
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}", {})


def is_index(path: Path) -> bool:
    """True for a file that was made as an index, of whatever version.  Raises OSError.

    SQLite's format has room for this in its header: https://www.sqlite.org/fileformat.html, bytes 68 to 71.
    """
    with path.open("rb") as file:
        head = file.read(72)
    return head.startswith(b"SQLite format 3\0") and int.from_bytes(head[68:72], "big") == _APPLICATION


def _fold(text: str | None) -> str | None:
    return None if text is None else text.casefold()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let others read while one writes."""
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except connection.OperationalError as error:
        # Another process has the file open in the old mode: then they wait for each other until a later opening.
        if "locked" not in str(error):
            raise


def _unlink(path: Path) -> None:
    try:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot replace the damaged index `{path}`: {error.strerror}") from error


def _translated(error: Exception, path: Path | None) -> GittrackError:
    """SQLite's errors as ours, by their texts: Python has their codes only since 3.11."""
    text = str(error)
    where = f"index `{path}`" if path else "index in memory"
    rebuild = "run `gittrack reindex`, or delete the file: nothing is lost with it"
    if "locked" in text or "busy" in text:
        return LockedError(f"another process is writing the {where}", hint="try again")
    if "malformed" in text or "not a database" in text or "no such table" in text or "no such column" in text:
        return CorruptError(f"damaged {where}: {text}", hint=rebuild)
    if "readonly" in text or "read-only" in text:
        return ReadOnlyError(f"cannot write the {where}")
    if "too many SQL variables" in text or "too large" in text or "too big" in text:
        return InvalidValueError(f"too large a query: {text}", hint="search for less at once")
    return StorageError(f"cannot use the {where}: {text}", hint="free some space or check the permissions")
