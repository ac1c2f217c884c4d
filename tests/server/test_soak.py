"""The short form of the soak; ``python -m tests.server.soak`` is the long one."""

import os
from pathlib import Path

import pytest

from tests.server import soak

pytestmark = pytest.mark.any_backend  # takes long
FULL = os.environ.get("GITTRACK_FAULTS") == "full"


@pytest.mark.timeout(1000 if FULL else 120)
def test_a_server_under_mixed_load_answers_everything_and_does_not_grow(tmp_path: Path) -> None:
    report = soak.soak(tmp_path / "hub", 600 if FULL else 5, 16 if FULL else 4)
    assert report.problems() == []
    assert set(report.calls) >= {"runs/log-metric", "runs/log-batch", "runs/search", "upload", "download"}
    assert report.requests > 300
    assert len(report.settled) > 10
