"""Runs that are too many, or too long, to be recorded one call at a time: their journals are written, and committed."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence

from gittrack.store import codec, files, journal, record
from gittrack.store.repo import Repo
from tests.benchmarks.ui_peers import START


def write_run(
    repo: Repo,
    number: int,
    curves: Mapping[str, Sequence[float]],
    *,
    experiment: str = "0",
    params: Mapping[str, str] | None = None,
) -> str:
    """The journal of a finished run, not synced; its id.  `seal` and `refresh` do the rest.

    Args:
        repo: Where.
        number: Of the run: its name, and its start in seconds.
        curves: Of each metric the values, one a step and millisecond.
        experiment: The id of its experiment.
        params: Its params.
    """
    run_id = f"{random.Random(f'{experiment} {number}').getrandbits(128):032x}"
    began = START + number * 1000
    folder = repo.live / run_id
    files.make_dirs(folder, durable=False)
    process = files.process_identity().to_list()
    opening = {"version": record.VERSION, "run_id": run_id, "process": process, "opened": began}
    writer = journal.JournalWriter(folder / "1.journal", codec.pack([record.OPEN, opening]))
    facts = {"run_id": run_id, "experiment_id": experiment, "name": f"run-{number}", "user_id": "ana",
             "start_time": began, "parent_run_id": None, "tags": {}}  # fmt: skip
    columns = {
        key: (array("q", range(len(values))), array("q", range(began, began + len(values))), array("d", values))
        for key, values in curves.items()
    }
    for event in (
        [record.CREATE, facts],
        [record.PARAMS, dict(params or {})],
        [record.COLUMNS, codec.pack_points(columns)],
        [record.STATUS, "FINISHED", began + 900],
        [record.CLOSE],
    ):
        writer.append(codec.pack(event))
    writer.close()
    return run_id
