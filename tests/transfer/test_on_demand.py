"""What reads artifacts fetches those that are not here: Python, the command line, models."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gittrack
from gittrack.errors import NotFoundError
from gittrack.models import addresses, info
from gittrack.registry.registry import Registry
from gittrack.store.repo import Repo
from gittrack.sync import artifacts
from gittrack.sync.artifacts import Item
from gittrack.track.capture import Capturer
from gittrack.track.runs import Tracker
from tests.api.conftest import _forget as forget
from tests.transfer.conftest import LARGE, Clone

MLMODEL = b"artifact_path: model\nflavors:\n  python_function:\n    loader_module: mlflow.sklearn\n"


@pytest.fixture
def shared(ana: Clone, ben: Clone) -> str:
    """A run of Ana's whose commit Ben has, and whose artifacts are only at the remote; its id."""
    capture = Capturer(argv=[], environ={}, cwd=ana.path, mode="full", max_untracked=1 << 20)
    tracker = Tracker(ana.tracker.repo, strict=True, capture=capture)
    run = tracker.create_run(name="shared")
    run.log_bytes(LARGE, "model/weights.bin")
    run.log_bytes(MLMODEL, "model/MLmodel")
    run.log_bytes(b"numpy==1.26.4\n", "model/requirements.txt")
    run.log_bytes(b"some notes\n", "notes.txt")
    run.log_bytes(b'{"a": 1}', "data.json")
    run.end()
    Registry(tracker).register("churn", run.run_id, "model")
    tracker.close()
    artifacts.upload(ana.tracker, None, Item.of(ana.tracker.repo.artifacts(run.run_id).values()))
    ana.git("push", "-q", "origin", "refs/runs/*:refs/runs/*", "refs/tags/models/*:refs/tags/models/*")
    ben.git("fetch", "-q", "origin", "refs/runs/*:refs/runs/*", "refs/tags/models/*:refs/tags/models/*")
    return run.run_id


@pytest.fixture
def in_ben(ben: Clone, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clone]:
    """Ben's clone is the one that the Python API uses."""
    monkeypatch.chdir(ben.path)
    forget()
    yield ben
    forget()


def here(clone: Clone, run_id: str) -> set[str]:
    """The artifacts of a run whose bytes are in a clone."""
    repo = Repo.find(clone.path)
    return {path for path, one in repo.artifacts(run_id).items() if repo.objects.has(one.digest, one.size)}


def run_cli(clone: Clone, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gittrack", *words]
    done = subprocess.run(command, cwd=clone.path, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done


def test_the_client_fetches_what_is_asked_for(ben: Clone, shared: str, tmp_path: Path) -> None:
    client = gittrack.Client(str(ben.path))
    (tmp_path / "out").mkdir()
    got = client.download_artifacts(shared, "notes.txt", tmp_path / "out")
    assert Path(got).read_bytes() == b"some notes\n"
    assert here(ben, shared) == {"notes.txt"}
    client.download_artifacts(shared, "model", tmp_path / "out")
    assert (tmp_path / "out" / "model" / "weights.bin").read_bytes() == LARGE
    assert "data.json" not in here(ben, shared)


def test_readers_of_an_address_fetch(in_ben: Clone, shared: str) -> None:
    assert gittrack.artifacts.load_text(f"runs:/{shared}/notes.txt") == "some notes\n"
    assert gittrack.artifacts.load_dict(f"runs:/{shared}/data.json") == {"a": 1}
    assert here(in_ben, shared) == {"notes.txt", "data.json"}


def test_a_table_that_is_elsewhere_is_added_to_and_not_replaced(ana: Clone, in_ben: Clone) -> None:
    ben, client = in_ben, gittrack.Client(str(ana.path))
    run_id = client.create_run("0").info.run_id
    client.log_table(run_id, {"a": [1]}, "t.json")
    client.set_terminated(run_id)
    forget()
    artifacts.upload(ana.tracker, None, Item.of(ana.tracker.repo.artifacts(run_id).values()))
    ana.git("push", "-q", "origin", "refs/runs/*:refs/runs/*")
    ben.git("fetch", "-q", "origin", "refs/runs/*:refs/runs/*")
    client = gittrack.Client(str(ben.path))
    client.log_table(run_id, {"a": [2]}, "t.json")
    assert list(client.load_table("0", "t.json")["a"]) == [1, 2]


@pytest.mark.parametrize("address", ["models:/churn/1", "churn@v1", "run"])
def test_a_model_is_fetched_when_it_is_loaded(in_ben: Clone, shared: str, address: str) -> None:
    uri = f"runs:/{shared}/model" if address == "run" else address
    assert info.read_model(uri).flavors["python_function"]["loader_module"] == "mlflow.sklearn"
    assert here(in_ben, shared) == {"model/MLmodel"}  # that alone tells
    assert info.get_model_requirements(uri) == ["numpy==1.26.4"]
    local = addresses.fetch(uri)
    assert (local.folder / "weights.bin").read_bytes() == LARGE
    assert here(in_ben, shared) == {"model/MLmodel", "model/requirements.txt", "model/weights.bin"}


def test_the_verbs_fetch(ben: Clone, shared: str, tmp_path: Path) -> None:
    assert run_cli(ben, "artifacts", "cat", shared, "notes.txt").stdout == "some notes\n"
    assert here(ben, shared) == {"notes.txt"}
    done = run_cli(ben, "models", "pull", "churn@v1", str(tmp_path / "m"))
    assert "fetched 3 files" in done.stderr
    assert (tmp_path / "m" / "weights.bin").read_bytes() == LARGE
    assert "data.json" not in here(ben, shared)
    done = run_cli(ben, "artifacts", "get", shared, "-o", str(tmp_path / "all"))
    assert "fetched 1 file, 8 B" in done.stderr
    assert (tmp_path / "all" / "data.json").read_bytes() == b'{"a": 1}'


def test_reproduce_fetches(ben: Clone, shared: str, tmp_path: Path) -> None:
    run_cli(ben, "reproduce", shared, "--artifacts", "--into", str(tmp_path / "again"))
    assert (tmp_path / "again" / "artifacts" / "model" / "weights.bin").read_bytes() == LARGE


def test_fetch_brings_all_of_some_runs(ben: Clone, shared: str, remote: Path) -> None:
    assert "would fetch 5 files, 2.9 MiB" in run_cli(ben, "artifacts", "fetch", shared, "--dry-run").stderr
    assert here(ben, shared) == set()
    assert "fetched 5 files" in run_cli(ben, "artifacts", "fetch", shared, "--from", str(remote)).stderr
    assert len(here(ben, shared)) == 5
    assert "already" in run_cli(ben, "artifacts", "fetch", shared).stderr
    ben.tracker.repo.objects.delete(next(iter(ben.tracker.repo.artifacts(shared).values())).digest)
    assert "no remote `backup`" in run_cli(ben, "artifacts", "fetch", shared, "--from", "backup", status=1).stderr


def test_what_nobody_has_is_one_clear_error(ben: Clone, shared: str, remote: Path, tmp_path: Path) -> None:
    (remote / "lfs").rename(remote / "gone")
    done = run_cli(ben, "artifacts", "get", shared, "notes.txt", "-o", str(tmp_path / "x"), status=1)
    assert "neither in this clone nor at" in done.stderr
    assert "hint: `gittrack push` in the clone that has" in done.stderr
    with pytest.raises(NotFoundError, match="neither in this clone nor at"):
        gittrack.Client(str(ben.path)).download_artifacts(shared, "notes.txt")
    ben.git("remote", "remove", "origin")
    done = run_cli(ben, "artifacts", "cat", shared, "notes.txt", status=1)
    assert "is not in this clone, and there is no remote" in done.stderr


def test_what_is_here_needs_no_remote(ana: Clone) -> None:
    run = ana.tracker.create_run()
    run.log_bytes(b"x", "x.txt")
    run.end()
    ana.tracker.close()
    ana.git("remote", "set-url", "origin", "https://nowhere.invalid/x.git")
    assert run_cli(ana, "artifacts", "cat", run.run_id, "x.txt").stdout == "x"
    assert Tracker(Repo.find(ana.path)).read_artifact(run.run_id, "x.txt") == b"x"
