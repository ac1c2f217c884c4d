"""schemathesis against the server's own OpenAPI description, over a socket: it finds nothing.

Half of the texts that name something are replaced by what is there, so that requests get further than "not found".
The short form takes some of the operations, and is the same every time, so that a change fails by what it does; with
``GITTRACK_FAULTS=full`` all of them, different every time, for as many seconds as ``GITTRACK_SCHEMATHESIS_SECONDS``
says.
"""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Sandbox
from tests.server.team import Team, serving

pytestmark = pytest.mark.any_backend  # takes long, and tries what messages may say
pytest.importorskip("schemathesis", reason="schemathesis is not installed")

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
SEED = 7  #: of the short form
SECONDS = int(os.environ.get("GITTRACK_SCHEMATHESIS_SECONDS", "60"))
OPERATIONS = 8  #: of the short form
HOOKS = """
import json, os, random
random.seed(os.environ.get("SEED"))
import schemathesis

KNOWN = json.loads(os.environ["KNOWN"])

def known(found):
    if isinstance(found, dict):
        return {name: told(name, value) for name, value in found.items()}
    return [known(one) for one in found] if isinstance(found, list) else found

def told(name, value):
    if isinstance(value, str) and value and name in KNOWN and random.random() < 0.5:
        return KNOWN[name]
    return known(value)

@schemathesis.hook
def map_body(context, body):
    return known(body)

@schemathesis.hook
def map_query(context, query):
    return known(query)

@schemathesis.hook
def map_path_parameters(context, found):
    return known(found)
"""
#: What a description cannot say (a filter's grammar, which tokens are there) is refused with status 400 by MLflow, too.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "415"]
"""


def _run(team: Team, folder: Path, *options: str, token: str | None) -> subprocess.CompletedProcess[str]:
    (folder / "hooks_of_ours.py").write_text(HOOKS)
    (folder / "schemathesis.toml").write_text(CONFIG)
    (folder / "openapi.json").write_bytes(team.ask("GET", "/api/2.0/gittrack/openapi.json").body)
    known = team.things(f"x{random.randrange(10**9) if FULL else 1}")
    credentials = [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    return subprocess.run(
        [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", "openapi.json",
         "--url", team.url, "--checks", "all", "--warnings", "off", "--no-color", *credentials, *options],
        cwd=folder, check=False, capture_output=True, text=True, timeout=SECONDS * 3 + 240,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks_of_ours", "KNOWN": json.dumps(known), "PYTHONPATH": str(folder),
             "PYTHONWARNINGS": "ignore", **({} if FULL else {"SEED": str(SEED)})},
    )  # fmt: skip


def _found_nothing(ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2000:]
    tested = re.search(r"(\d+) generated", ran.stdout)
    assert tested is not None, ran.stdout[-2000:]
    assert int(tested[1]) > 50


def test_it_finds_nothing(git_repo: Sandbox, tmp_path: Path) -> None:
    with serving(git_repo.path, failures=10**9) as team:
        described = team.ask("GET", "/api/2.0/gittrack/openapi.json").ok
        names = [one["operationId"] for item in described["paths"].values() for one in item.values()]
        some = random.Random(SEED).sample(sorted(names), OPERATIONS)
        chosen = [word for name in some for word in ("--include-operation-id", name)]
        options = ["--max-examples=3", "--phases=coverage,fuzzing", f"--seed={SEED}", *chosen]
        _found_nothing(_run(team, tmp_path, *options, token=team.admin))


@pytest.mark.skipif(not FULL, reason="the long form runs with GITTRACK_FAULTS=full")
@pytest.mark.timeout(SECONDS * 6 + 600)
@pytest.mark.parametrize("who", ["admin", "writer", "nobody"])
def test_it_finds_nothing_in_a_long_time(git_repo: Sandbox, tmp_path: Path, who: str) -> None:
    from gittrack.server.hub.roles import Grant, Role

    with serving(git_repo.path, failures=10**9) as team:
        writer = team.token(Grant(Role.WRITER, "x*", "x*"))
        token = {"admin": team.admin, "writer": writer, "nobody": None}[who]
        checks = [] if who == "admin" else ["--exclude-checks=ignored_auth"]  # which needs all to be allowed
        _found_nothing(_run(team, tmp_path, f"--max-time={SECONDS}", *checks, token=token))
