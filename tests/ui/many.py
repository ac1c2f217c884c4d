"""Very many runs in an index, made by the database: what a table shows of them, and nothing else."""

from __future__ import annotations

from typing import Final

from gittrack.store.index import Index

START: Final = 1_750_000_000_000


def fill(index: Index, runs: int, metrics: int, params: int) -> None:
    """Runs with numbers, newest last, and columns `metric_0`…, `param_0`…; each value is there once or nearly so."""
    with index.transaction():
        index._execute(
            "INSERT INTO runs (id, run_id, experiment_id, user_id, status, start_time, end_time, lifecycle_stage,"
            " artifact_uri, run_name)"
            " WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :runs)"
            " SELECT i + 1, printf('%032x', i), '0', 'ana', 'FINISHED', :start + i * 1000, :start + i * 1000 + 900,"
            " 'active', '', printf('run-%d', i) FROM n",
            {"runs": runs, "start": START},
        )
        for number in range(metrics):
            # A prime as the factor: all orders are different, and none is that of the rows.
            index._execute(
                "INSERT INTO metrics (key, owner, value, minimum, maximum) SELECT :key, id, v, v, v FROM"
                " (SELECT id, round((id * :factor % 1000003) / 1000003.0, 6) AS v FROM runs)",
                {"key": index._name(f"metric_{number}"), "factor": (7919, 104729, 15485863)[number % 3] + 2 * number},
            )
        for number in range(params):
            index._execute(
                "INSERT INTO params (key, owner, value, number)"
                " SELECT :key, id, printf('%d', id % :count), id % :count FROM runs",
                {"key": index._name(f"param_{number}"), "count": 10 + number},
            )


def first_by(index: Index, metric: str) -> str:
    """The name of the run with the greatest value."""
    found = index._all(
        "SELECT r.run_name FROM metrics AS x JOIN runs AS r ON r.id = x.owner WHERE x.key = :key"
        " ORDER BY x.value DESC, r.start_time DESC LIMIT 1",
        {"key": index._name(metric)},
    )
    return str(found[0][0])
