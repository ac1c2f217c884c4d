"""``gittrack models`` and its verbs, as people and scripts call them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gittrack.registry.registry import Registry
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from tests.cli.conftest import Answer, Cli
from tests.conftest import Sandbox

Said = Callable[..., str]


@pytest.fixture
def said(cli: Cli) -> Said:
    """``said("show", "iris")``: what ``gittrack models show iris`` prints, if it succeeds."""

    def run(*words: str, **options: Any) -> str:
        answer = cli("models", *words, **options)
        assert answer.status == 0, answer.err
        return answer.out

    return run


@pytest.fixture
def iris(project: Sandbox, said: Said) -> Sandbox:
    """A project with two versions of `iris`: notes of alpha and of beta."""
    assert said("register", "alpha", "iris", "-p", "notes", "-d", "the first", "-t", "team=blue") == "iris@v1\n"
    assert said("register", "beta", "iris", "-p", "notes") == "iris@v2\n"
    return project


def failed(answer: Answer, status: int, *words: str) -> None:
    """Check that a command failed, and what it said."""
    assert answer.status == status, answer
    assert answer.out == ""
    for word in words:
        assert word in answer.err


def test_there_are_none_yet(project: Sandbox, cli: Cli) -> None:
    answer = cli("models")
    assert (answer.out, answer.status) == ("", 0)
    assert "gittrack models register" in answer.err
    assert cli("models", "--json").out == "[]\n"


def test_list(iris: Sandbox, said: Said) -> None:
    said("promote", "iris@v1", "production")
    said("alias", "iris@v2", "@champion")
    heading, line = said().splitlines()
    assert heading.split() == ["name", "versions", "production", "staging", "aliases", "changed"]
    assert line.split()[:4] == ["iris", "2", "v1", "@champion=v2"]
    versions = said("iris").splitlines()
    assert [line.split()[0] for line in versions] == ["version", "v2", "v1"]
    assert versions[0].split()[-1] == "description"
    assert "@champion" in versions[1]
    assert "Production" in versions[2]
    assert "the first" in versions[2]
    found = json.loads(said("--json"))
    assert [(one["name"], one["versions"], one["aliases"]) for one in found] == [("iris", 2, {"champion": "2"})]
    assert [one["version"] for one in json.loads(said("list", "iris", "--json"))] == ["2", "1"]
    assert [one["version"] for one in json.loads(said("list", "iris", "-f", "tags.team = 'blue'", "--json"))] == ["1"]
    assert json.loads(said("list", "-f", "name LIKE 'x%'", "--json")) == []


def test_register_says_what_it_needs(project: Sandbox, cli: Cli, said: Said) -> None:
    failed(cli("models", "register", "alpha", "iris"), 2, "model.bin", "notes", "--path")
    failed(cli("models", "register", "alpha", "iris", "-p", "nots"), 1, "no artifact `nots`", "did you mean `notes`?")
    failed(cli("models", "register", "gamma", "iris"), 1, "no artifacts")
    failed(cli("models", "register", "nobody", "iris", "-p", "notes"), 1, "no run")
    failed(cli("models", "register", "delta", "iris", "-p", "notes"), 1)
    failed(cli("models", "register", "beta", "a/b"), 2, "`/`")
    failed(cli("models", "register", "beta", "iris", "-t", "novalue"), 2, "KEY=VALUE")
    assert project.git("tag", "--list", "models/*") == ""
    assert said("register", "beta", "iris") == "iris@v1\n", "there is only one thing that it could be"
    run_id = json.loads(said("show", "iris@v1", "--json"))["run_id"]
    assert json.loads(said("register", f"runs:/{run_id}/notes/a.txt", "file", "--json"))["path"] == "notes/a.txt"


def test_show(iris: Sandbox, said: Said, cli: Cli) -> None:
    said("promote", "iris@v2", "staging", "-m", "to be tried")
    model = said("show", "iris")
    assert "model iris" in model
    assert re.search(r"Staging +v2", model)
    version = said("show", "iris@staging")
    for word in ("iris v2 (Staging)", "Tag:        models/iris/v2", "Lineage", "Name:       beta", "Environment", "lr",
                 "with uncommitted changes", "a.txt", "Manifest:   sha256:"):  # fmt: skip
        assert word in version
    assert "abc123" in said("show", "iris@v1"), "the dataset"
    found = json.loads(said("show", "iris/1", "--json"))
    assert found["run"]["info"]["run_name"] == "alpha"
    assert [one["path"] for one in found["files"]] == ["a.txt"]
    assert json.loads(said("show", "iris", "--json"))["name"] == "iris"
    failed(cli("models", "show", "irs"), 1, "did you mean `iris`?")
    failed(cli("models", "show", "iris@v9"), 1, "it has 1, 2")
    failed(cli("models", "show", "iris@production"), 1, "v2 is Staging")


def test_a_run_that_ended_after_it_was_registered_is_not_shown_as_running(project: Sandbox, said: Said) -> None:
    tracker = Tracker(Repo.find(project.path), strict=True)
    run = tracker.create_run("0", name="long", capture=False)
    run.log_bytes(b"weights", "model/weights")
    version = Registry(tracker).register("iris", run.run_id, "model")
    assert "(RUNNING)" in said("show", f"iris@v{version.version}")
    run.end()
    tracker.close()
    assert "(RUNNING)" not in said("show", "iris@v1")
    assert "(FINISHED)" in said("show", "iris@v1")


def test_log(iris: Sandbox, said: Said) -> None:
    said("promote", "iris@v1", "production", "-m", "baseline")
    said("promote", "iris@v2", "production", "-m", "better")
    said("describe", "iris@v2", "-m", "what it is")
    text = said("log", "iris", "-n", "3")
    assert [line for line in text.splitlines() if line.startswith("iris")] == [
        "iris v2 description: – → what it is",
        "iris v2 stage: None → Production",
        "iris v1 stage: Production → Archived",
    ]
    assert "    better" in text
    assert "Author: Ana Test <ana@example.org>" in text
    found = json.loads(said("log", "iris@v1", "--json"))
    assert {one["version"] for one in found} == {1}
    assert found[0] | {"time": 0, "oid": ""} == {
        "time": 0, "who": "Ana Test <ana@example.org>", "what": "stage", "version": 1, "old": "Production",
        "new": "Archived", "reason": "better", "tag": "models/iris/production/2", "oid": "", "signed": False,
    }  # fmt: skip


def test_promote_and_demote(iris: Sandbox, said: Said, cli: Cli) -> None:
    said("promote", "iris@v1", "Production")
    said("promote", "iris@v2", "production", "--keep")
    stages = {one["version"]: one["current_stage"] for one in json.loads(said("list", "iris", "--json"))}
    assert stages == {"1": "Production", "2": "Production"}
    answer = cli("models", "demote", "iris@production", "-m", "wrong")
    assert "v2 is in stage Archived" in answer.err
    said("demote", "iris@v1", "--to", "none")
    failed(cli("models", "show", "iris@production"), 1, "v2 is Archived")
    failed(cli("models", "promote", "iris", "production"), 2, "no version of it")
    failed(cli("models", "promote", "iris@v1", "live"), 2)
    failed(cli("models", "demote", "iris"), 2)


def test_a_verb_that_there_is_none_of(iris: Sandbox, cli: Cli) -> None:
    lists = "`gittrack models -h` lists the verbs"
    failed(cli("models", "frobnicate"), 1, "no model `frobnicate`", "there is `iris`", lists)
    failed(cli("models", "promot"), 1, "no model `promot`", "did you mean `promote`")
    failed(cli("models", "promot", "iris@v1", "production"), 2, "`promot` is no verb of `gittrack models`", "`promote`")
    failed(cli("models", "frobnicate", "iris@v1"), 2, "`frobnicate` is no verb of `gittrack models`", lists)
    mistyped = cli("models", "irsi")
    failed(mistyped, 1, "did you mean `iris`?")
    assert lists not in mistyped.err
    failed(cli("models", "iris", "--bogus"), 2, "no option `--bogus`")
    failed(cli("artifacts", "lss"), 1, "no run `lss`", "did you mean `ls`?")


def test_empty_lists_are_said(iris: Sandbox, cli: Cli) -> None:
    for words, message in (
        (["models", "tag", "iris@v2"], "`iris` v2 has no tags\n"),
        (["models", "tag", "iris"], "`iris` has no tags\n"),
        (["models", "alias", "iris"], "`iris` has no aliases\n"),
    ):
        answer = cli(*words)
        assert (answer.status, answer.out) == (0, "")
        assert answer.err.endswith(message)
        assert cli(*words, "--json").out == "{}\n"


def test_filters_that_cannot_be_read(iris: Sandbox, cli: Cli) -> None:
    failed(cli("search", "metrics.acc =~ 3"), 2, "unknown operator `=~`", "hint: one of =, !=, <, <=, >, >=")
    failed(cli("search", "(metrics.acc > 3"), 2, "never closed", "hint: `gittrack help search`")
    failed(cli("models", "list", "-f", "name % 'x'"), 2, "unknown operator `%`", "hint: one of =, !=, LIKE")


def test_stages_and_hosts_are_named(iris: Sandbox, cli: Cli, said: Said) -> None:
    stages = "`live` is not one of `staging`, `production`, `archived`, `none`"
    failed(cli("models", "promote", "iris@v1", "live"), 2, stages)
    failed(cli("models", "promote", "iris@v1"), 2, "needs STAGE")
    failed(cli("models", "ci", "hub"), 2, "`hub` is not one of `github`, `gitlab`")
    assert said("ci", "GitHub", "-o", "-") == said("ci", "github", "-o", "-")
    for verb, word in (("promote", "STAGE: staging, production, archived or none"), ("ci", "HOST: github or gitlab")):
        assert word in said(verb, "-h")
        assert "{" not in said(verb, "-h").splitlines()[0]


def test_what_is_so_already_is_said(iris: Sandbox, cli: Cli, said: Said) -> None:
    said("promote", "iris@v1", "production")
    said("demote", "iris@v2")
    said("alias", "iris@v1", "champion")
    tags = iris.git("tag", "--list")
    for words, message in (
        (["promote", "iris@v1", "production"], "`iris` v1 is in stage Production already; nothing was changed\n"),
        (["promote", "iris@v1", "Production", "-k", "-m", "again"], "nothing was changed, nor the reason kept\n"),
        (["demote", "iris@v2"], "`iris` v2 is in stage Archived already; nothing was changed\n"),
        (["alias", "iris@v1", "champion"], "`iris@champion` is v1 already; nothing was changed\n"),
    ):
        answer = cli("models", *words)
        assert (answer.status, answer.out) == (0, "")
        assert answer.err.endswith(message)
    assert iris.git("tag", "--list") == tags


def test_alias(iris: Sandbox, said: Said, cli: Cli) -> None:
    said("alias", "iris@v1", "champion")
    said("alias", "iris@latest", "@newest")
    assert [line.split() for line in said("alias", "iris").splitlines()] == [["@champion", "v1"], ["@newest", "v2"]]
    said("alias", "iris", "-d", "champion")
    assert json.loads(said("alias", "iris", "--json")) == {"newest": "2"}
    failed(cli("models", "alias", "iris", "-d", "champion"), 1, "no alias `champion`")
    failed(cli("models", "alias", "iris", "champion"), 2)
    failed(cli("models", "alias", "iris@v1", "v1"), 2, "reserved")


def test_describe_and_tag(iris: Sandbox, said: Said, cli: Cli) -> None:
    assert said("describe", "iris@v1") == "the first\n"
    assert "no description" in cli("models", "describe", "iris").err
    said("describe", "iris", "-F", "-", stdin="two\nlines\n")
    assert json.loads(said("describe", "iris", "--json")) == {"description": "two\nlines"}
    said("describe", "iris@v1", "-d")
    assert json.loads(said("describe", "iris@v1", "--json")) == {"description": None}
    failed(cli("models", "describe", "iris", "-d", "-m", "x"), 2)
    assert said("tag", "iris@v1").split() == ["team", "blue"]
    said("tag", "iris@v1", "a=b=c", "-d", "team")
    said("tag", "iris", "x=1")
    assert json.loads(said("tag", "iris@v1", "--json")) == {"a": "b=c"}
    assert json.loads(said("tag", "iris", "--json")) == {"x": "1"}


def test_diff(iris: Sandbox, said: Said, cli: Cli) -> None:
    text = said("diff", "iris@v1", "iris@v2")
    for word in ("a  iris v1 (None)", "b  iris v2 (None)", "lr", "packages.numpy", "a.txt"):
        assert word in text
    said("promote", "iris@v2", "production")
    found = json.loads(said("diff", "iris@v1", "--json"))
    assert found["b"]["version"] == "2"
    assert found["params"]["lr"] == {"a": "0.1", "b": "0.01"}
    failed(cli("models", "diff", "iris@v2"), 2, "both are v2")


def test_pull_and_which(iris: Sandbox, said: Said, cli: Cli, tmp_path: Path) -> None:
    assert said("pull", "iris@v1") == "iris-v1\n"
    assert (iris.path / "iris-v1" / "a.txt").read_bytes() == b"first line\nsecond\tline\n"
    failed(cli("models", "pull", "iris@v1"), 2, "not empty")
    failed(cli("models", "pull", "iris@v1", "iris-v1/a.txt/deeper"), 1, "cannot write `iris-v1/a.txt/deeper`")
    said("pull", "iris@v2", str(tmp_path / "out" / "deep"))
    copy = tmp_path / "copy.bin"
    copy.write_bytes((tmp_path / "out" / "deep" / "a.txt").read_bytes())
    lines = said("which", str(copy)).split()
    assert lines[0] == "iris@v2"
    assert lines[-1].endswith("/notes/a.txt")
    found = json.loads(said("which", "iris-v1/a.txt", "--json"))
    assert [one["version"] for one in found["versions"]] == ["1"]
    assert json.loads(said("which", f"sha256:{found['sha256']}", "--json")) == found
    copy.write_bytes(b"unknown")
    failed(cli("models", "which", str(copy)), 1, "sha256")
    failed(cli("models", "which", "no-such-file"), 1, "no file")


def test_pull_refuses_changed_bytes(iris: Sandbox, said: Said, cli: Cli) -> None:
    digest = json.loads(said("show", "iris@v1", "--json"))["files"][0]["sha256"]
    stored = iris.path / ".gittrack" / "objects" / digest[:2] / digest[2:4] / digest
    stored.chmod(0o644)
    stored.write_bytes(b"other line\nsecond\tline\n")
    answer = cli("models", "pull", "iris@v1", "out")
    assert answer.status == 4
    assert not (iris.path / "out" / "a.txt").exists()


def test_rm_restore_and_rename(iris: Sandbox, said: Said, cli: Cli) -> None:
    assert "gittrack models restore iris@v1" in cli("models", "rm", "iris@v1", "-m", "old").err
    failed(cli("models", "show", "iris@v1"), 1, "deleted", "models restore")
    assert "deleted" in said("list", "iris", "--all")
    said("restore", "iris@v1")
    said("rename", "iris", "flowers")
    failed(cli("models", "show", "iris"), 1)
    said("rm", "flowers")
    assert cli("models").out == ""
    assert "deleted" in said("list", "-a")
    failed(cli("models", "rm", "flowers"), 1, "deleted")
    said("restore", "flowers")
    assert "2" in said()


def test_at(iris: Sandbox, said: Said, cli: Cli) -> None:
    said("promote", "iris@v1", "production")
    iris.commit("after")
    assert json.loads(said("list", "iris", "--at", "HEAD", "--json"))[0]["version"] == "2"
    assert "v1" in said("list", "--at", "HEAD")
    assert "iris v1 (Production)" in said("show", "iris@v1", "--at", "HEAD")
    before = cli("models", "list", "--at", "2020-01-01")
    assert before.out == ""
    assert "there were no models then" in before.err
    assert "no model matches the filter" in cli("models", "list", "-f", "name = 'nope'").err
    said("promote", "iris@v2", "staging")
    assert "iris v1 (Production)" in said("show", "iris@production", "--at", "2999-01-01")
    said("rename", "iris", "flowers")
    said("rm", "flowers")
    assert json.loads(said("list", "--at", "2999-01-01", "--json")) == []
    said("restore", "flowers")
    said("rename", "flowers", "iris")
    failed(cli("models", "show", "iris", "--at", "2020-01-01"), 1, "did not exist")
    failed(cli("models", "show", "iris@v9", "--at", "2999-01-01"), 1, "was no version")
    failed(cli("models", "show", "iris@nope", "--at", "2999-01-01"), 1, "was no version")
    failed(cli("models", "list", "--at", "HEAD", "-f", "name = 'iris'"), 2, "use one of them")
    failed(cli("models", "list", "--at", "nonsense"), 1, "no date and no commit")
    failed(cli("models", "list", "--at", "--output=x"), 2)
    assert json.loads(said("show", "iris", "--at", "2999-01-01T00:00", "--json"))["name"] == "iris"


def test_a_conflict_is_shown_and_resolved(iris: Sandbox, said: Said, cli: Cli) -> None:
    said("promote", "iris@v1", "production")
    theirs = iris.git("rev-parse", "refs/tags/models/iris/production/1")
    iris.git("update-ref", "-d", "refs/tags/models/iris/production/1")
    said("promote", "iris@v2", "production")
    iris.git("update-ref", "refs/gittrack/remotes/origin/tags/models/iris/production/1", theirs)
    assert "conflict: Production" in said()
    assert "Conflict:   Production" in said("show", "iris")
    failed(
        cli("models", "pull", "iris@production"), 1, "in conflict", "gittrack models resolve 'iris' Production VERSION"
    )
    assert cli("fsck").status == 4
    failed(cli("models", "resolve", "iris", "production"), 2)
    said("resolve", "iris", "production", "v1", "-m", "agreed")
    assert "conflict" not in said()
    assert "iris v1 (Production)" in said("show", "iris@production")
    assert cli("fsck", "--full").status == 0


def test_what_is_in_no_conflict_is_changed_otherwise(iris: Sandbox, cli: Cli) -> None:
    no = "of model `iris` is in no conflict"
    failed(cli("models", "resolve", "iris", "production", "v1"), 1, f"Production {no}", "promote 'iris@vN' production")
    failed(cli("models", "resolve", "iris", "@best", "v1"), 1, f"@best {no}", "models alias 'iris@vN' best")
    failed(cli("models", "resolve", "iris", "v1"), 1, f"v1 {no}", "marks what is in conflict")


def test_everything_shows_no_control_characters(project: Sandbox, said: Said) -> None:
    registry = Registry(Tracker(Repo.find(project.path), strict=True))
    run_id = registry.tracker.resolve("beta")
    registry.register("m", run_id, "notes", description="\x1b[31mred\x07", tags={"k": "\x1b]0;x\x07"})
    registry.promote("m", 1, "Production", archive_existing=True, reason="\x1b[2Jgone")
    registry.tracker.close()
    for words in (
        ["list"],
        ["m"],
        ["show", "m"],
        ["show", "m@v1"],
        ["log", "m"],
        ["tag", "m@v1"],
        ["describe", "m@v1"],
    ):
        out = said(*words)
        assert "\x1b" not in out
        assert "\x07" not in out


def test_completion_proposes_names_versions_and_aliases(iris: Sandbox, said: Said) -> None:
    import click

    from gittrack.cli.models import base

    said("alias", "iris@v1", "champion")
    context, parameter = click.Context(click.Command("x")), click.Argument(["version"])
    assert [one.value for one in base.complete_versions(context, parameter, "i")] == ["iris"]
    assert [one.value for one in base.complete_versions(context, parameter, "iris@")] == [
        "iris@champion", "iris@v1", "iris@v2", "iris@latest",
    ]  # fmt: skip
    assert base.complete_versions(context, parameter, "nope@") == []


def test_no_store_is_said(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed(cli("models"), 1, "gittrack init")
