"""``gittrack server project``."""

import json

import pytest

from tests.cli.conftest import Cli
from tests.conftest import Sandbox


def test_projects_are_made_and_listed(cli: Cli, git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(git_repo.path)
    cli("init")
    assert cli("server", "project").out == "default\n"
    made = cli("server", "project", "create", "team.one")
    assert (made.status, made.out) == (0, "")
    assert "/git/team.one" in made.err
    assert json.loads(cli("server", "project", "list", "--json").out) == [{"name": "default"}, {"name": "team.one"}]
    assert (git_repo.path / ".gittrack/server/projects/team.one/.gittrack/git/HEAD").exists()
    assert git_repo.git("status", "--porcelain") == ""
    again = cli("server", "project", "create", "team.one")
    assert (again.status, again.out) == (1, "")
    for name in ("../x", "A", "x.git"):
        refused = cli("server", "project", "create", name)
        assert refused.status == 2
        assert "hint: lower-case letters" in refused.err
