"""What a program ships passes the guard: with a token, as far as that one may, as long as it is good."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.remote.outbox import Outbox
from gittrack.server.hub.roles import Grant, Role
from gittrack.store.repo import Repo
from tests.api.conftest import make_project, project
from tests.remote.test_shipping import TRAIN, nothing_left
from tests.server.team import API, Team, serving

__all__ = ["project"]

#: Whoever may see the code, which runs name, and may record into some experiments.
WRITER = Grant(Role.READER, "*", "*"), Grant(Role.WRITER, "away*")


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with serving(make_project(tmp_path / "served")) as found:
        yield found


def program(team: Team, token: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"GITTRACK_TRACKING_URI": team.url, "GITTRACK_TOKEN": token, "GITTRACK_SHIP_TIMEOUT": "10",
                          "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


def finished(team: Team, process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    team.close()  # the connection was idle meanwhile
    return out.strip(), err


def there(team: Team, run_id: str) -> Any:
    answer = team.ask("GET", f"{API}/runs/get?run_id={run_id}", token=team.admin)
    return answer.json["run"] if answer.status == 200 else None


def steps(team: Team, run_id: str) -> list[int]:
    asked = team.ask("GET", f"{API}/metrics/get-history?run_id={run_id}&metric_key=loss", token=team.admin)
    return [one["step"] for one in asked.ok["metrics"]]


def sync(team: Team, token: str, status: int = 0) -> None:
    finished(team, program(team, token, "-m", "gittrack", "sync"), status)


def test_a_reader_records_here_and_a_writer_there(project: Path, team: Team) -> None:
    """Who may not record at the server is told once, and keeps what he has."""
    text = TRAIN.replace('gittrack.set_experiment("away")', "")
    run_id, said = finished(team, program(team, team.token(Grant(Role.READER, "*", "*")), "-c", text))
    assert there(team, run_id) is None
    assert said.count("the role of a writer") == 1
    assert Outbox.all(Repo.find(project))[0].waiting().runs == [run_id]
    sync(team, team.token(*WRITER), status=1)  # for another experiment
    assert there(team, run_id) is None
    sync(team, team.token(Grant(Role.WRITER, "*", "*")))
    assert there(team, run_id)["info"]["status"] == "FINISHED"
    assert steps(team, run_id) == list(range(200))
    nothing_left(project)


def test_a_token_that_is_revoked_in_the_middle(project: Path, team: Team) -> None:
    """The run goes on here, with one warning, and is shipped with the next token from where it was."""
    text = TRAIN.replace("gittrack.log_params", "print(run.info.run_id, flush=True); gittrack.log_params").replace(
        "step=step)", "step=step); time.sleep(0.02)"
    )
    process = program(team, token := team.token(*WRITER), "-c", text)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    deadline = time.monotonic() + 20
    while there(team, run_id) is None:
        assert time.monotonic() < deadline, "the run does not come"
        time.sleep(0.05)
    team.accounts.revoke_token(token)
    _, said = finished(team, process)
    assert said.count("takes nothing at present") == 1
    assert "was revoked" in said
    assert token not in said
    assert there(team, run_id)["info"]["status"] == "RUNNING"
    before = steps(team, run_id)
    assert before == list(range(len(before)))
    assert len(before) < 200
    sync(team, team.token(*WRITER))
    assert there(team, run_id)["info"]["status"] == "FINISHED"
    assert steps(team, run_id) == list(range(200))
    nothing_left(project)
