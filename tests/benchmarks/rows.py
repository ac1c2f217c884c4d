"""Every row of the table by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.benchmarks import (
    artifact_rows,
    hook_rows,
    logging_rows,
    model_rows,
    reading_rows,
    run_rows,
    server_rows,
    serving_rows,
    sharing_rows,
    transfer_rows,
    ui_rows,
)
from tests.benchmarks.measure import Row, Settings

ROWS: Final[dict[str, Callable[[Settings], list[Row]]]] = {
    "log_metric": logging_rows.log_metric,
    "start-up": reading_rows.start_up,
    "small-runs": run_rows.small_runs,
    "batches": run_rows.batches,
    "search": reading_rows.search,
    "artifact": artifact_rows.one_file,
    "folder": artifact_rows.folder_of_files,
    "transfer": transfer_rows.transfer,
    "log_model": model_rows.log_model,
    "share": sharing_rows.share,
    "share-many": sharing_rows.share_many,
    "share-nothing": sharing_rows.nothing_to_share,
    "points": logging_rows.points,
    "crowd": logging_rows.crowd,
    "hooks": hook_rows.hooks,
    "server": server_rows.server,
    "server-search": server_rows.server_search,
    "serving": serving_rows.serving,
    "serving-mixed": serving_rows.serving_mixed,
    "ui": ui_rows.ui,
    "ui-live": ui_rows.ui_live,
}


def measure_alone(name: str, settings: Settings) -> tuple[list[Row], list[str]]:
    """One group of rows, and what it said meanwhile; for a process that does nothing else."""
    settings.log.clear()
    return ROWS[name](settings), settings.log
