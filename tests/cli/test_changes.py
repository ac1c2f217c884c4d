"""The verbs that change something: what they change, and what they say."""

import json
import subprocess
from pathlib import Path

import pytest

from gittrack.store.repo import Repo
from gittrack.track.logged_models import LoggedModels
from gittrack.types import ModelOutput, ViewType
from tests.cli.conftest import Cli, open_tracker
from tests.conftest import MakeRepo, Sandbox


def tags(cli: Cli, run: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(cli("tag", run, "--json").out)
    return found


def test_init_teaches_git_to_print_runs(make_repo: MakeRepo, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make_repo("ordinary")
    monkeypatch.chdir(sandbox.path)
    before = sandbox.git("status", "--porcelain=v2")

    first = cli("init")
    again = cli("init")

    assert (first.status, first.out) == (0, "")
    assert "made the store" in first.err
    assert first.err.count("\nset ") == 2
    assert "there already" in again.err
    assert "\nset " not in again.err  # nothing was
    assert sandbox.git("status", "--porcelain=v2") == before
    assert (sandbox.path / ".git/info/attributes").read_text().count("run.msgpack") == 1
    assert sandbox.git("config", "--get-all", "diff.gittrack.textconv").count("textconv") == 2  # one line, two tries


def test_init_keeps_attributes_of_the_user(make_repo: MakeRepo, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make_repo("ordinary")
    monkeypatch.chdir(sandbox.path)
    sandbox.write(".git/info/attributes", "*.png binary")  # without a line end
    cli("init")
    assert (sandbox.path / ".git/info/attributes").read_text().splitlines()[0] == "*.png binary"


def test_init_outside_of_git(make_repo: MakeRepo, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make_repo("plain")
    monkeypatch.chdir(sandbox.path)
    answer = cli("init")
    assert answer.status == 0
    assert "no git repository here" in answer.err
    assert cli("status").status == 0


def test_init_of_another_folder(make_repo: MakeRepo, cli: Cli) -> None:
    sandbox = make_repo("ordinary")
    assert cli("init", str(sandbox.path / "lib")).status == 0
    assert Repo.find(sandbox.path).exists


def test_tag(project: Sandbox, cli: Cli) -> None:
    assert cli("tag", "alpha", "team=red", "with=a=b", "empty=").status == 0
    assert tags(cli, "alpha") == {"mlflow.runName": "alpha", "team": "red", "with": "a=b", "empty": ""}
    assert cli("tag", "alpha", "-d", "with", "-d", "empty").status == 0
    assert tags(cli, "alpha") == {"mlflow.runName": "alpha", "team": "red"}


def test_a_wrong_tag_changes_nothing(project: Sandbox, cli: Cli) -> None:
    assert cli("tag", "alpha", "team=red", "blue").status == 2
    assert tags(cli, "alpha")["team"] == "blue"


def test_an_edit_is_committed_on_top_of_the_run(project: Sandbox, cli: Cli) -> None:
    before = json.loads(cli("show", "alpha", "--json").out)["commit"]
    cli("tag", "alpha", "team=red")
    after = json.loads(cli("show", "alpha", "--json").out)["commit"]
    assert project.git("rev-parse", f"{after}^") == before
    assert list((project.path / ".gittrack/live").iterdir()) == []


def test_note(project: Sandbox, cli: Cli) -> None:
    assert cli("note", "alpha", "-m", "one", "-m", "two").status == 0
    assert cli("note", "alpha").out == "one\n\ntwo\n"
    assert cli("note", "alpha", "-F", "-", stdin="from a pipe\n").status == 0
    assert cli("note", "alpha").out == "from a pipe\n"
    assert cli("note", "alpha", "--delete").status == 0
    assert json.loads(cli("note", "alpha", "--json").out) == {"note": None}


def test_note_in_an_editor(project: Sandbox, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "sh -c 'printf edited > \"$0\"'")
    assert cli("note", "beta", "--edit").status == 0
    assert cli("note", "beta").out == "edited\n"


def test_rm_and_restore(project: Sandbox, cli: Cli) -> None:
    answer = cli("rm", "alpha", "gamma")
    assert answer.status == 0
    assert "deleted 2 runs; `gittrack restore " in answer.err
    assert "alpha" not in cli("log", "--oneline").out
    undo = answer.err.split("`")[1].split()[1:]
    assert cli(*undo).status == 0
    assert "alpha" in cli("log", "--oneline").out


def test_rm_and_restore_of_a_logged_model(project: Sandbox, cli: Cli) -> None:
    tracker = open_tracker(project.path)
    model = LoggedModels(tracker).create("0", "m")
    LoggedModels(tracker).finalize(model.model_id, "READY")
    tracker.close()
    answer = cli("rm", "alpha", model.model_id)
    assert "deleted 1 run and 1 logged model; `gittrack restore " in answer.err
    assert LoggedModels(tracker).search(["0"]) == []
    assert "restored 1 run and 1 logged model" in cli(*answer.err.split("`")[1].split()[1:]).err
    assert [one.model_id for one in LoggedModels(tracker).search(["0"])] == [model.model_id]
    assert cli("rm", "m-nobody").status == 1
    run = tracker.create_run(name="maker", capture=False)
    theirs = LoggedModels(tracker).create("0", "n", source_run_id=run.run_id)
    run.log_outputs([ModelOutput(theirs.model_id, 7)])
    run.end()
    tracker.close()
    assert f"Models\n    {theirs.model_id}  models/{theirs.model_id}  step 7" in cli("show", "maker").out
    assert "is not deleted" in cli("gc", "--yes", "--purge", model.model_id).err
    assert f"--purge {run.run_id[:8]}" in cli("gc", "--yes", "--purge", theirs.model_id).err
    cli("rm", model.model_id)
    assert cli("gc", "--yes", "--purge", model.model_id).status == 0
    assert [one.name for one in LoggedModels(tracker).search(["0"], view=ViewType.ALL)] == ["n"]
    tracker.close()


def test_rm_of_a_wrong_name_deletes_nothing(project: Sandbox, cli: Cli) -> None:
    assert cli("rm", "alpha", "nobody").status == 1
    assert "alpha" in cli("log", "--oneline").out


def test_experiments(project: Sandbox, cli: Cli) -> None:
    created = cli("experiments", "create", "fraud")
    assert created.out.strip().isdigit()
    assert cli("experiments", "rename", "fraud", "fraud 2").status == 0
    assert "fraud 2" in cli("experiments").out
    assert cli("experiments", "rm", "fraud 2").status == 0
    assert "fraud 2" not in cli("experiments").out
    assert "deleted" in cli("experiments", "ls", "--all").out
    assert cli("experiments", "restore", "fraud 2").status == 0
    assert "fraud 2" in cli("experiments").out


def test_config(project: Sandbox, cli: Cli) -> None:
    assert cli("config", "sync", "2.5").status == 0
    assert cli("config", "sync").out == "2.5\n"
    assert project.git("config", "gittrack.sync") == "2.5"
    assert cli("config", "sync", "never").status == 2
    assert cli("config", "sync").out == "2.5\n"
    assert cli("config", "--unset", "sync").status == 0
    assert cli("config", "sync").out == "1\n"


def test_artifacts_get(project: Sandbox, cli: Cli, tmp_path: Path) -> None:
    assert cli("artifacts", "get", "alpha", "-o", str(tmp_path / "all")).status == 0
    assert (tmp_path / "all/notes/a.txt").read_bytes() == b"first line\nsecond\tline\n"
    assert (tmp_path / "all/model.bin").read_bytes() == b"\x00\x01binary"
    assert cli("artifacts", "get", "alpha", "notes", "-o", str(tmp_path / "some")).status == 0
    assert [path.name for path in (tmp_path / "some").rglob("*.*")] == ["a.txt"]


def test_artifacts_get_overwrites_nothing(project: Sandbox, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("mine")
    answer = cli("artifacts", "get", "alpha", "-o", str(tmp_path))
    assert answer.status == 2
    assert (tmp_path / "model.bin").read_text() == "mine"
    assert not (tmp_path / "notes").exists()


def test_artifacts_cat_is_byte_for_byte(project: Sandbox, cli: Cli) -> None:
    answer = cli("artifacts", "cat", "alpha", "model.bin")
    assert (answer.out, answer.status) == ("\x00\x01binary", 0)


def test_a_damaged_artifact_is_told_and_found(project: Sandbox, cli: Cli) -> None:
    (digest,) = (row["sha256"] for row in json.loads(cli("artifacts", "ls", "alpha", "model.bin", "--json").out))
    stored = project.path / ".gittrack/objects" / digest[:2] / digest[2:4] / digest
    stored.chmod(0o644)
    stored.write_bytes(b"\x00\x01Binary")
    assert cli("artifacts", "cat", "alpha", "model.bin").status == 4
    checked = cli("fsck", "--full")
    assert checked.status == 4
    assert digest in checked.out
    assert "error: 1 problem found" in checked.err


def test_gc_asks_and_removes_what_nothing_refers_to(project: Sandbox, cli: Cli) -> None:
    tracker = open_tracker(project.path)
    run = tracker.create_run(name="short-lived", capture=False)
    run.log_bytes(b"x" * 3000, "big.txt")
    run.end()
    tracker.close()
    objects = project.path / ".gittrack/objects"
    before = {path for path in objects.rglob("*") if path.is_file()}

    assert "nothing to remove" in cli("gc", "--older-than", "0").err
    cli("rm", "short-lived")
    assert "nothing to remove" in cli("gc", "--older-than", "0").err  # a deleted run keeps what it has
    ids = json.loads(cli("log", "--all", "--json", "-n", "1").out)[0]["info"]["run_id"]
    assert cli("gc", "--older-than", "0", "--purge", ids).status == 2  # nobody to ask
    assert {path for path in objects.rglob("*") if path.is_file()} == before

    answer = cli("gc", "--older-than", "0", "--purge", ids, "--yes")
    assert answer.status == 0
    assert len({path for path in objects.rglob("*") if path.is_file()}) == len(before) - 1
    assert "short-lived" not in cli("log", "--oneline", "--all").out
    assert cli("fsck", "--full").status == 0


def test_reading_verbs_write_nothing(project: Sandbox, cli: Cli) -> None:
    def state() -> tuple[str, set[str]]:
        files = {str(path) for path in project.path.rglob("*") if "index.db" not in path.name and path.is_file()}
        return project.git("for-each-ref"), files

    before = state()
    for line in (
        "log",
        "show",
        "diff",
        "status",
        "experiments",
        "search",
        "metrics alpha",
        "artifacts alpha",
        "note beta",
    ):
        assert cli(*line.split()).status == 0
    assert state() == before


@pytest.mark.parametrize("kind", ["linked", "bare", "shallow", "unborn", "sha256", "plain"])
def test_every_kind_of_repository(kind: str, make_repo: MakeRepo, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make_repo(kind)
    monkeypatch.chdir(sandbox.path)
    tracker = open_tracker(sandbox.path)
    for value in (1, 2):
        run = tracker.create_run(name=f"run {value}")
        run.log_metric("acc", value)
        run.log_bytes(b"hello", "a.txt")
        run.end()
    tracker.close()
    for line in ("log", "show", "diff", "status", "search", "artifacts latest", "fsck --full", "reindex", "init"):
        answer = cli(*line.split())
        assert (answer.status, "error" in answer.err) == (0, False), (line, answer)
    assert "acc" in cli("diff").out


def test_reading_where_nothing_can_be_written(make_repo: MakeRepo, cli: Cli) -> None:
    folder = str(make_repo("read-only").path)
    assert cli("-C", folder, "log").status == 0
    assert cli("-C", folder, "status").status == 0
    refused = cli("-C", folder, "init")
    assert refused.status == 1
    assert refused.err.startswith("error: ")


def test_plain_git_prints_a_run_as_text(project: Sandbox, program: Path) -> None:
    """The text conversion that ``init`` sets up, called by git itself."""
    subprocess.run([program, "init"], cwd=project.path, check=True, capture_output=True)
    commits = project.git("log", "--format=%H", "--grep=alpha", "--all").split()
    shown = project.git("show", "--textconv", commits[0])
    assert "+params.lr: 0.1" in shown
    assert "+name: alpha" in shown
    assert "+tags.team: blue" in shown
    assert "absorbed" not in shown
    assert "+acc: 10 points, steps 0 to 9, last 0.909091, 0.5 to 0.909091" in shown


def test_git_show_works_where_gittrack_is_gone(project: Sandbox, cli: Cli) -> None:
    cli("init")
    driver = project.git("config", "diff.gittrack.textconv")
    project.git("config", "diff.gittrack.textconv", driver.replace("gittrack", "gone-1234"))
    commits = project.git("log", "--format=%H", "--grep=alpha", "--all").split()
    assert "install gone-1234 to see" in project.git("show", "--textconv", commits[0])
