"""The same work done by MLflow's sqlite store; runs in the peer's interpreter, which has no gittrack.

``python mlflow_side.py ROW '{"json": "arguments"}'`` in an empty folder prints a JSON object of lists of seconds.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import sqlite3
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


def _store(uri: str = "") -> Any:  # a module that may be missing where this file is checked
    import mlflow

    mlflow.set_tracking_uri(uri or f"sqlite:///{os.getcwd()}/mlflow.db")
    mlflow.set_experiment("benchmark")
    return mlflow


def log_metric(calls: int, rounds: int) -> dict[str, list[float]]:
    """One call at a time, per call."""
    mlflow = _store()
    seconds = []
    with mlflow.start_run():
        mlflow.log_metric("loss", 0.0)
        for _ in range(rounds):
            start = time.perf_counter()
            for step in range(calls):
                mlflow.log_metric("loss", step / 3, step=step)
            seconds.append((time.perf_counter() - start) / calls)
    return {"call": seconds}


def small_runs(runs: list[list[dict[str, Any]]]) -> dict[str, list[float]]:
    """A run with params, metrics and tags, from start to end."""
    mlflow = _store()
    seconds = []
    for params, metrics, tags in runs:
        start = time.perf_counter()
        with mlflow.start_run():
            mlflow.log_params(params)
            mlflow.log_metrics(metrics)
            mlflow.set_tags(tags)
        seconds.append(time.perf_counter() - start)
    return {"run": seconds[1:]}


def points(count: int, chunk: int, back: int, rounds: int) -> dict[str, list[float]]:
    """A batch of points, and one history read back."""
    mlflow = _store()
    from mlflow.entities import Metric

    client = mlflow.MlflowClient()
    written, read = [], []
    for _ in range(rounds):
        with mlflow.start_run() as run:
            metrics = [Metric("loss", step / 3, 1_750_000_000_000 + step, step) for step in range(count)]
            start = time.perf_counter()
            for first in range(0, count, chunk):
                client.log_batch(run.info.run_id, metrics[first : first + chunk])
            written.append((time.perf_counter() - start) / count)
            start = time.perf_counter()
            assert len(client.get_metric_history(run.info.run_id, "loss")) == count
            read.append((time.perf_counter() - start) * back / count)
    return {"point": written, "history": read}


def artifact(path: str, rounds: int) -> dict[str, list[float]]:
    """One big file, and the same one again."""
    mlflow = _store()
    first, again = [], []
    for _ in range(rounds):
        with mlflow.start_run():
            start = time.perf_counter()
            mlflow.log_artifact(path)
            first.append(time.perf_counter() - start)
            start = time.perf_counter()
            mlflow.log_artifact(path)
            again.append(time.perf_counter() - start)
    return {"first": first, "again": again}


def log_model(shapes: list[tuple[int, int]], rounds: int) -> dict[str, list[float]]:
    """A random forest with an input example, in a process that has logged one before."""
    mlflow = _store()
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    seconds: dict[str, list[float]] = {}
    for rows, columns in shapes:
        features, target = make_classification(rows, columns, n_informative=columns // 2, n_redundant=0, random_state=0)
        forest = RandomForestClassifier(100, random_state=0, n_jobs=2).fit(features, target)
        took = []
        for _ in range(rounds + 1):
            with mlflow.start_run():
                start = time.perf_counter()
                mlflow.sklearn.log_model(
                    forest, name="model", input_example=features[:5], serialization_format="cloudpickle"
                )
                took.append(time.perf_counter() - start)
        seconds[f"{rows}x{columns}"] = took[1:]
    return seconds


def search(runs: int, filter_string: str, order_by: list[str], rounds: int) -> dict[str, list[float]]:
    """Search among many runs."""
    mlflow = _store()
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("benchmark").experiment_id
    _fill(sqlite3.connect("mlflow.db"), runs, int(experiment), _as_mlflow)
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        found = client.search_runs([experiment], filter_string, max_results=50, order_by=order_by)
        seconds.append(time.perf_counter() - start)
        assert len(found) == min(50, runs // 20), len(found)
    return {"search": seconds[1:]}


def _rows(experiment: int, first: int, stop: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of MLflow's tables for runs of these numbers."""
    for number in range(first, stop):
        chance = random.Random(number)
        run, now = {"run_uuid": uuid.uuid4().hex}, 1_750_000_000_000 + number * 1000
        yield (
            "runs",
            run
            | {"name": f"run-{number}", "user_id": "ana", "status": "FINISHED", "start_time": now}
            | {"end_time": now + 900, "lifecycle_stage": "active", "experiment_id": experiment},
        )
        yield "params", run | {"key": "optimizer", "value": f"adam-{number % 10}"}
        for at in range(9):
            yield "params", run | {"key": f"param_{at}", "value": f"{chance.random():.6f}"}
        for key in ("acc", *(f"metric_{at}" for at in range(9))):
            point = {"key": key, "value": chance.random(), "timestamp": now, "step": 0, "is_nan": False}
            yield "metrics", run | point
            yield "latest_metrics", run | point
        yield "tags", run | {"key": "team", "value": f"t{number % 7}"}
        yield "tags", run | {"key": "mlflow.runName", "value": f"run-{number}"}


def _fill(database: Any, runs: int, experiment: int, own: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
    """Put runs straight into the tables of an open database: through any API they would take hours.

    Args:
        database: A connection of `sqlite3` or of `psycopg`.
        runs: How many.
        experiment: Whose.
        own: A row as the tables of that program have it.
    """
    for first in range(0, runs, 10_000):
        tables: dict[str, list[dict[str, Any]]] = {}
        for table, row in _rows(experiment, first, min(runs, first + 10_000)):
            tables.setdefault(table, []).append(own(table, row))
        for table, rows in tables.items():
            columns = ", ".join(rows[0])
            if isinstance(database, sqlite3.Connection):
                marks = ", ".join(f":{name}" for name in rows[0])
                database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
            else:
                with database.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(tuple(row.values()))
    database.execute("ANALYZE")
    database.commit()
    database.close()


def _as_mlflow(table: str, row: dict[str, Any]) -> dict[str, Any]:
    return row


def _as_fasttrackml(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Its schema is MLflow's, with a few columns of its own."""
    if table == "params":
        return {"value_str" if name == "value" else name: value for name, value in row.items()}
    if table == "metrics":
        return row | {"iter": 1, "context_id": 1}
    if table == "latest_metrics":
        return row | {"last_iter": 1, "context_id": 1}
    if table == "runs":
        return row | {"row_num": row["start_time"]}
    return row


def _crowd_member(run_id: str, calls: int, gate: Any) -> None:
    mlflow = _store()
    client = mlflow.MlflowClient()
    client.get_run(run_id)
    gate.wait()
    for step in range(calls):
        client.log_metric(run_id, "loss", step / 3, step=step)
    gate.wait()


def crowd(processes: int, calls: int, rounds: int) -> dict[str, list[float]]:
    """Several processes log into one store; seconds of all of them."""
    mlflow = _store()
    context = multiprocessing.get_context("spawn")
    seconds = []
    for _ in range(rounds):
        ids = [mlflow.MlflowClient().create_run("0").info.run_id for _ in range(processes)]
        gate = context.Barrier(processes + 1)
        members = [context.Process(target=_crowd_member, args=(run_id, calls, gate)) for run_id in ids]
        for member in members:
            member.start()
        gate.wait()
        start = time.perf_counter()
        gate.wait()
        seconds.append((time.perf_counter() - start) / (processes * calls))
        for member in members:
            member.join()
        assert all(member.exitcode == 0 for member in members)
    return {"call": seconds}


def client_run(uri: str, points: int) -> dict[str, list[float]]:
    """A stock client's run with so many points: seconds, and CPU seconds; the client is warm."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    client.log_metric(client.create_run("0").info.run_id, "loss", 0.0)
    found = {}
    for what in ("log_metric", "log_batch"):
        wall, cpu = time.perf_counter(), time.process_time()
        run_id = client.create_run("0").info.run_id
        if what == "log_metric":
            for step in range(points):
                client.log_metric(run_id, "loss", step / 3, step=step)
        else:
            now = int(time.time() * 1000)
            client.log_batch(run_id, [mlflow.entities.Metric("loss", step / 3, now, step) for step in range(points)])
        client.set_terminated(run_id)
        found[f"{points} points by {what}"] = [time.perf_counter() - wall, time.process_time() - cpu]
    return found


def empty_schema(uri: str) -> dict[str, list[float]]:
    """Empty a database."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP SCHEMA public CASCADE"))
        connection.execute(sqlalchemy.text("CREATE SCHEMA public"))
    engine.dispose()
    return {}


def _connected(uri: str) -> Any:
    if not uri:
        return sqlite3.connect("mlflow.db")
    import psycopg

    return psycopg.connect(uri)


def many_runs(runs: int, uri: str = "") -> dict[str, list[float]]:
    """Only fill the store in this folder, or the one at that address, for a command line or a server to list."""
    mlflow = _store(uri)
    experiment = mlflow.MlflowClient().get_experiment_by_name("benchmark").experiment_id
    _fill(_connected(uri), runs, int(experiment), _as_mlflow)
    return {"experiment": [float(experiment)]}


def many_runs_fasttrackml(runs: int) -> dict[str, list[float]]:
    """Fill the store that FastTrackML made in this folder."""
    _fill(sqlite3.connect("fml.db"), runs, 0, _as_fasttrackml)
    return {}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))) + "\n")
