"""Settings: who wins, what is refused, and what tracking addresses mean."""

from pathlib import Path

import pytest

from gittrack import config, session
from gittrack.errors import InvalidValueError, NotFoundError, UnsupportedError
from tests.conftest import Sandbox


def value(name: str, start: Path) -> tuple[object, str]:
    found = {v.setting.name: v for v in config.values(start)}[name]
    return found.value, found.origin


def test_process_beats_person_beats_team_beats_default(
    git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch, sealed_environment: Path
) -> None:
    here = git_repo.path
    assert value("sync", here) == (1.0, "default")
    git_repo.write("pyproject.toml", "[tool.gittrack]\nsync = 2\nstrict = true\n")
    assert value("sync", here) == (2.0, "pyproject")
    assert value("strict", here) == (True, "pyproject")
    (sealed_environment / ".gitconfig").write_text("[gittrack]\n\tsync = 3\n")
    assert value("sync", here) == (3.0, "git")
    config.store("sync", "4", here)
    assert git_repo.git("config", "gittrack.sync") == "4"
    assert value("sync", here) == (4.0, "git")
    monkeypatch.setenv("GITTRACK_SYNC", "5")
    assert value("sync", here) == (5.0, "environment")
    config.store("sync", None, here)
    assert git_repo.git("config", "--local", "gittrack.sync", check=False) == ""


def test_mlflow_names_are_read_after_ours(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert config.current(git_repo.path).experiment_name == "theirs"
    monkeypatch.setenv("GITTRACK_EXPERIMENT_NAME", "ours")
    assert config.current(git_repo.path).experiment_name == "ours"
    config.export(experiment_name=None)
    assert config.current(git_repo.path).experiment_name is None


def test_an_included_git_config_counts(git_repo: Sandbox, sealed_environment: Path) -> None:
    (sealed_environment / "team.gitconfig").write_text("[gittrack]\n\tmaxUntracked = 2k\n")
    (sealed_environment / ".gitconfig").write_text(f"[include]\n\tpath = {sealed_environment / 'team.gitconfig'}\n")
    assert config.current(git_repo.path).max_untracked == 2048


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("GITTRACK_SYNC", "never", "number of seconds"),
        ("GITTRACK_SYNC", "nan", "number of seconds"),
        ("GITTRACK_CODE", "some", "`full`, `commit` or `none`"),
        ("GITTRACK_STRICT", "maybe", "true or false"),
        ("GITTRACK_MAX_UNTRACKED", "-1", "number of bytes"),
        ("GITTRACK_MAX_UNTRACKED", "", ""),
    ],
)
def test_a_setting_that_cannot_be_read_names_its_place(
    git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, says: str
) -> None:
    monkeypatch.setenv(variable, text)
    if not says:  # an empty variable is an unset one
        assert config.current(git_repo.path).max_untracked == 1 << 20
        return
    with pytest.raises(InvalidValueError, match=says) as info:
        config.current(git_repo.path)
    assert variable in info.value.message


def test_an_unknown_setting_gets_a_suggestion(git_repo: Sandbox) -> None:
    with pytest.raises(NotFoundError) as info:
        config.store("max-untraked", "1", git_repo.path)
    assert info.value.hint == "did you mean `max-untracked`?"
    assert config.setting("gittrack.maxUntracked") is config.setting("max_untracked")


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "databricks", "s3://bucket/x"])
def test_databases_and_buckets_are_refused_with_a_hint(uri: str) -> None:
    with pytest.raises(UnsupportedError) as info:
        session.parse_uri(uri)
    assert info.value.hint


@pytest.mark.parametrize("uri", ["file://host/x", "gittrack:///x?y", "gittrack:///x#y", "a\0b"])
def test_addresses_that_are_more_than_a_folder_are_refused(uri: str) -> None:
    with pytest.raises(InvalidValueError):
        session.parse_uri(uri)


def test_addresses_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert session.parse_uri(None) == tmp_path
    assert session.parse_uri("gittrack:///a/b%20c") == Path("/a/b c")
    assert session.parse_uri("file:///a/b") == Path("/a/b")
    assert session.parse_uri("rel/path") == Path("rel/path")


def test_two_work_trees_of_one_repository_have_trackers_of_their_own(git_repo: Sandbox, tmp_path: Path) -> None:
    git_repo.git("worktree", "add", "-q", str(tmp_path / "second"))
    one, two = session.open_tracker(str(git_repo.path)), session.open_tracker(str(tmp_path / "second"))
    assert one is not two
    assert one.repo.root == two.repo.root
    assert session.open_tracker(str(git_repo.path / "lib")) is one


def test_a_repository_does_not_decide_what_a_person_trusts(
    git_repo: Sandbox, sealed_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = git_repo.path
    git_repo.git("config", "gittrack.trust", "always")  # as in a repository that was unpacked
    assert value("trust", here) == ("signed", "default")
    (sealed_environment / ".gitconfig").write_text("[gittrack]\n\ttrust = never\n")
    assert value("trust", here) == ("never", "git")
    config.store("trust", "signed", here)
    assert value("trust", here) == ("signed", "git")
    assert git_repo.git("config", "--global", "gittrack.trust") == "signed"
    monkeypatch.setenv("GITTRACK_TRUST", "always")
    assert value("trust", here) == ("always", "environment")
    monkeypatch.delenv("GITTRACK_TRUST")
    config.store("trust", None, here)
    assert value("trust", here) == ("signed", "default")
    git_repo.write("pyproject.toml", '[tool.gittrack]\ntrust = "always"\n')
    with pytest.raises(InvalidValueError, match="each person decides it"):
        config.current(here)
