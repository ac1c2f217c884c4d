"""Very many runs in an index, made by the database: what a table shows of them, and nothing else."""

from __future__ import annotations

from typing import Final

from gittrack.store.index import Index

START: Final = 1_750_000_000_000
#: Primes: all orders are different, and none is that of the rows.
_FACTORS: Final = (7919, 104729, 15485863)
_DRAWN: Final = "SELECT id, (id * :factor % 1000003) / 1000003.0 AS v FROM runs"


def fill(index: Index, runs: int, metrics: int, params: int) -> None:
    """Runs with numbers, newest last, and columns `accuracy_0`…, `param_0`….

    As in life nothing of it repeats: run ids are random, and numbers have all the digits that a double takes.  Only
    `param_0` is one of ten.
    """
    with index.transaction():
        index._execute(
            "INSERT INTO runs (id, run_id, experiment_id, user_id, status, start_time, end_time, lifecycle_stage,"
            " artifact_uri, run_name)"
            " WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :runs)"
            " SELECT i + 1, lower(hex(randomblob(16))), '0', 'ana', 'FINISHED', :start + i * 1000,"
            " :start + i * 1000 + 900, 'active', '', printf('run-%d', i) FROM n",
            {"runs": runs, "start": START},
        )
        for number in range(metrics):
            index._execute(
                f"INSERT INTO metrics (key, owner, value, minimum, maximum) SELECT :key, id, v, v, v FROM ({_DRAWN})",
                {"key": index._name(f"accuracy_{number}"), "factor": _FACTORS[number % 3] + 2 * number},
            )
        for number in range(params):
            said: dict[str, object] = {"key": index._name(f"param_{number}"), "shape": "%d"}
            if number:
                said |= {"shape": "%!.17g", "factor": _FACTORS[number % 3] - 2 * number}
            drawn = _DRAWN if number else "SELECT id, id % 10 AS v FROM runs"
            index._execute(
                f"INSERT INTO params (key, owner, value, number) SELECT :key, id, printf(:shape, v), v FROM ({drawn})",
                said,
            )


def set_apart(index: Index, place: int) -> None:
    """What only all runs tell: the one at a place, from 0, is another's child, took longest, and alone has `b`.

    With `size` every run has a number whose order is another as text.
    """
    with index.transaction():
        index._execute("UPDATE runs SET end_time = end_time + 60000 WHERE id = :id", {"id": place + 1})
        index._execute(
            "INSERT INTO tags (key, owner, value)"
            " SELECT :key, :id, run_id FROM runs WHERE id = (SELECT MAX(id) FROM runs)",
            {"key": index._name("mlflow.parentRunId"), "id": place + 1},
        )
        index._execute(
            "INSERT INTO params (key, owner, value) SELECT :key, id, CASE id WHEN :id THEN 'b' ELSE 'a' END FROM runs",
            {"key": index._name("alone"), "id": place + 1},
        )
        index._execute(
            "INSERT INTO params (key, owner, value, number) SELECT :key, id, printf('%d', id), id FROM runs",
            {"key": index._name("size")},
        )


def first_by(index: Index, metric: str) -> str:
    """The name of the run with the greatest value."""
    found = index._all(
        "SELECT r.run_name FROM metrics AS x JOIN runs AS r ON r.id = x.owner WHERE x.key = :key"
        " ORDER BY x.value DESC, r.start_time DESC LIMIT 1",
        {"key": index._name(metric)},
    )
    return str(found[0][0])
