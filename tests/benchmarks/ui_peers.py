"""The same runs and points for MLflow's page and Aim's; runs in the peer's interpreter, which has no gittrack.

``python ui_peers.py mlflow|aim FOLDER small|curves RUNS`` fills a store the fastest way that its library has: MLflow's
by rows of its sqlite tables, through SQLAlchemy's models of the library itself; Aim's by `Run.track`, the only one.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

POINTS = 10_000
METRICS = 10
PARAMS = 10
#: Of so many points one is a spike: 0.2 %.
SPIKE = 500
START = 1_700_000_000_000


def small(number: int) -> tuple[dict[str, str], dict[str, float]]:
    """Params and metrics of the ``number``-th run; the same ones for all."""
    chance = random.Random(number)
    params = {"optimizer": f"adam-{number % 10}", **{f"param_{i}": f"{chance.random():.6f}" for i in range(PARAMS - 1)}}
    return params, {"acc": chance.random(), **{f"metric_{i}": chance.random() for i in range(METRICS - 1)}}


def curve(number: int) -> Iterator[float]:
    """A curve that falls, with spikes."""
    chance = random.Random(number)
    for step in range(POINTS):
        yield math.exp(-step / 3000) + chance.gauss(0, 0.02) + (5.0 if step % SPIKE == 37 + number else 0.0)


def mlflow(folder: Path, kind: str, runs: int) -> None:
    """Rows for MLflow's tables."""
    from mlflow.store.tracking.dbmodels import models
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", str(folder))
    experiment = int(store.create_experiment(kind))
    rows: dict[Any, list[dict[str, Any]]] = {
        model: [] for model in (models.SqlRun, models.SqlTag, models.SqlParam, models.SqlMetric, models.SqlLatestMetric)
    }
    for number in range(runs):
        run_id = uuid.UUID(int=random.Random(f"{kind}{number}").getrandbits(128)).hex
        began = START + number * 1000
        rows[models.SqlRun].append(
            {
                "run_uuid": run_id,
                "name": f"run-{number}",
                "source_type": "LOCAL",
                "entry_point_name": "",
                "status": "FINISHED",
                "user_id": "ana",
                "start_time": began,
                "end_time": began + 900,
                "source_version": "",
                "source_name": "",
                "lifecycle_stage": "active",
                "artifact_uri": f"{folder}/{run_id}",
                "experiment_id": experiment,
            }
        )
        rows[models.SqlTag].append({"run_uuid": run_id, "key": "mlflow.runName", "value": f"run-{number}"})
        if kind == "curves":
            values = {"loss": list(curve(number))}
        else:
            params, metrics = small(number)
            rows[models.SqlParam] += [{"run_uuid": run_id, "key": k, "value": v} for k, v in params.items()]
            values = {key: [value] for key, value in metrics.items()}
        for key, points in values.items():
            facts = [
                {
                    "run_uuid": run_id,
                    "key": key,
                    "value": value,
                    "timestamp": began + step,
                    "step": step,
                    "is_nan": False,
                }
                for step, value in enumerate(points)
            ]
            rows[models.SqlMetric] += facts
            rows[models.SqlLatestMetric].append(facts[-1])
    with store.ManagedSessionMaker() as session:
        for model, values_of in rows.items():
            for at in range(0, len(values_of), 20_000):
                session.execute(model.__table__.insert(), values_of[at : at + 20_000])


def aim(folder: Path, kind: str, runs: int) -> None:
    """Runs of Aim, by two processes at a time."""
    parts = [(folder, kind, at, min(at + 250, runs)) for at in range(0, runs, 250)]
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        pool.starmap(_aim_part, parts, chunksize=1)


def _aim_part(folder: Path, kind: str, start: int, end: int) -> None:
    from aim import Run  # type: ignore[import-not-found]  # there, not here
    from aim.sdk.reporter import RunStatusReporter  # type: ignore[import-not-found]

    # It waits for a thread of its own, which may have told it already: on a busy machine for ever (3.29).
    flush = RunStatusReporter.flush
    RunStatusReporter.flush = lambda self, flag_name=None, block=True: flush(self, flag_name, block=False)
    for number in range(start, end):
        run = Run(repo=str(folder), experiment=kind, system_tracking_interval=None, capture_terminal_logs=False)
        run.name = f"run-{number}"
        if kind == "curves":
            for step, value in enumerate(curve(number)):
                run.track(value, name="loss", step=step)
        else:
            params, metrics = small(number)
            run["hparams"] = params
            for key, value in metrics.items():
                run.track(value, name=key, step=0)
        run.close()


if __name__ == "__main__":
    begun = time.perf_counter()
    {"mlflow": mlflow, "aim": aim}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    sys.stdout.write(f"{time.perf_counter() - begun:.1f}\n")
