"""What a program sees of a server that does not let it in, or is not there: one clear error, soon."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gittrack
from gittrack import Client, errors
from gittrack.server.hub.accounts import Accounts
from gittrack.server.hub.roles import Grant, Role
from tests.api.conftest import make_project
from tests.cli.test_server import started


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A server with accounts: its address, and a token for each role."""
    folder = make_project(tmp_path_factory.mktemp("guarded"))
    gittrack.session.open_tracker(str(folder)).close()
    accounts = Accounts.in_store(folder / ".gittrack")
    tokens = {
        role.name: str(accounts.create_token(role.name.lower(), [Grant(role, "*", "*")], by="test")[1])
        for role in (Role.READER, Role.WRITER)
    }
    accounts.close()
    with started(folder) as server:
        yield f"http://127.0.0.1:{server.port}", tokens


def test_a_token_opens_and_a_wrong_one_is_told(
    guarded: tuple[str, dict[str, str]], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, tokens = guarded
    for token in (None, "gtk_0000000000_" + "A" * 43):
        if token is not None:
            monkeypatch.setenv("GITTRACK_TOKEN", token)
        with pytest.raises(errors.UnauthenticatedError, match="GITTRACK_TOKEN") as caught:
            Client(url).search_experiments()
        assert token is None or token not in str(caught.value)
        gittrack.stores._process.trackers.clear()
    monkeypatch.setenv("GITTRACK_TOKEN", tokens["READER"])
    assert [one.name for one in Client(url).search_experiments()] == ["Default"]
    with pytest.raises(errors.PermissionDeniedError):
        Client(url).create_experiment("mine")
    gittrack.stores._process.trackers.clear()
    monkeypatch.delenv("GITTRACK_TOKEN")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "writer")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", tokens["WRITER"])
    assert Client(url).create_experiment("mine")


def test_a_project_cannot_send_credentials_to_its_server(
    guarded: tuple[str, dict[str, str]], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, tokens = guarded
    monkeypatch.setenv("GITTRACK_TOKEN", tokens["READER"])
    (project / "pyproject.toml").write_text(f'[tool.gittrack]\ntracking-uri = "{url}"\n')
    with pytest.raises(errors.UnauthenticatedError, match="you name yourself"):
        gittrack.search_experiments()
    gittrack.set_tracking_uri(url)
    assert gittrack.search_experiments()


def test_a_server_that_is_away_is_one_error_soon(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gittrack.set_tracking_uri(f"http://127.0.0.1:{taken.getsockname()[1]}")
        for call in (
            lambda: gittrack.get_run("0" * 32),
            lambda: gittrack.search_runs(["0"]),
            lambda: gittrack.pyfunc.load_model("models:/nothing@here"),
            lambda: gittrack.register_model("runs:/" + "0" * 32 + "/m", "name"),
        ):
            began = time.monotonic()
            with pytest.raises(errors.NetworkError, match="is the server running"):
                call()
            assert time.monotonic() - began < 10
