"""`gittrack export site` on the command line: which runs, what it says, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from gittrack.server.hub import website
from tests.cli.conftest import Cli
from tests.conftest import Sandbox

pytestmark = pytest.mark.skipif(not website.is_built(), reason="the page was not built")


def chosen(folder: Path) -> list[str]:
    index = json.loads((folder / "data" / "index.json").read_bytes())
    return sorted(row for row in index["columns"]["runs"]["run_name"])


def test_it_says_what_it_wrote_and_how_to_look_at_it(project: Sandbox, cli: Cli, tmp_path: Path) -> None:
    site = tmp_path / "a site"
    told = cli("export", "site", str(site), "--max-artifact-size", "10")
    assert told.status == 0, told.err
    files = [path for path in site.rglob("*") if path.is_file()]
    first, left_out, how = told.err.splitlines()
    assert first.startswith(f"exported {len(chosen(site))} runs into `{site}`: {len(files)} files, ")
    assert left_out.endswith("left out: larger than `--max-artifact-size`")
    assert how == f"`python -m http.server -d '{site}'` shows it at http://localhost:8000"
    every = chosen(site)
    assert cli("export", "site", str(site), "--no-artifacts", "--no-code", "-f", "status = 'FINISHED'").status == 0
    assert set(chosen(site)) < set(every)
    assert not any((site / "files").iterdir())
    shutil.rmtree(project.path / ".gittrack" / "objects")
    told = cli("export", "site", str(site), "beta", "alpha")
    assert told.status == 0
    assert "left out: not in this clone (`gittrack artifacts fetch`)" in told.err
    assert chosen(site) == ["alpha", "beta"]


def test_what_it_refuses(project: Sandbox, cli: Cli, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    told = cli("export", "site", str(mine))
    assert told.status == 1
    assert "is no site that was exported before: `thesis.tex` is in it" in told.err
    assert "is no folder" in cli("export", "site", str(mine / "thesis.tex")).err
    assert "there is no such run" in cli("export", "site", str(tmp_path / "new"), "-f", "params.x = 'y'").err
    assert cli("export", "site", str(tmp_path / "new"), "-e", "churn", "alpha").status == 2
    assert not (tmp_path / "new").exists()
