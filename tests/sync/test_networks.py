"""The same over ssh and http: a real sshd, a real web server; stock git reads what arrives."""

from __future__ import annotations

from pathlib import Path

import pytest

from gittrack.errors import NetworkError
from tests.conftest import Sandbox, run_git
from tests.sync.conftest import Desk, Join, assert_clean
from tests.sync.servers import free_port, ssh_server, web_server


def there_and_back(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    """Runs and models go from one to the other and back."""
    ana.model()
    ana.registry.promote("iris", 1, "Production", archive_existing=True)
    assert ana.push(files=False).runs == 1
    assert bo.pull().published.runs == set(ana.names())
    assert bo.stages() == ana.stages()
    bo.run("of bo")
    bo.push(files=False)
    ana.pull()
    assert ana.log() == bo.log()
    assert bo.pull().wanted == []
    assert_clean(hub.path)
    commit = ana.tracker.search_runs()[0].commit
    assert "Gittrack-Run" in run_git(hub.path, "show", "--no-patch", str(commit))


def test_over_ssh(join: Join, hub: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ssh_server(tmp_path / "sshd", monkeypatch) as address:
        there_and_back(join("ana", url=f"{address}{hub.path}"), join("bo", url=f"{address}{hub.path}"), hub)


def test_over_http(join: Join, hub: Sandbox, tmp_path: Path) -> None:
    with web_server(tmp_path / "web", hub.path.parent) as address:
        url = f"{address}/{hub.path.name}"
        there_and_back(join("ana", url=url), join("bo", url=url), hub)


def test_http_with_a_password_from_the_persons_credential_helper(
    join: Join, hub: Sandbox, tmp_path: Path, sealed_environment: Path
) -> None:
    with web_server(tmp_path / "web", hub.path.parent, password="s3cret") as address:
        ana = join("ana")
        ana.sandbox.git("remote", "set-url", "origin", f"{address}/{hub.path.name}")
        ana.run()
        with pytest.raises(NetworkError, match="does not let you in") as refused:
            ana.push(files=False)
        assert "s3cret" not in str(refused.value)
        (sealed_environment / "credentials").write_text(
            f"{address.replace('://', '://ana:s3cret@').removesuffix('/git')}\n"
        )
        ana.sandbox.git("config", "--global", "credential.helper", f"store --file={sealed_environment}/credentials")
        assert ana.push(files=False).runs == 1


def test_nobody_there(ana: Desk) -> None:
    ana.sandbox.git("remote", "set-url", "origin", f"http://127.0.0.1:{free_port()}/x.git")
    run = ana.run()
    for call in (ana.push, ana.pull):
        with pytest.raises(NetworkError, match="cannot be reached") as failed:
            call()
        assert "nothing was transferred" in failed.value.message
        assert failed.value.hint
    assert set(ana.names()) == {run}
