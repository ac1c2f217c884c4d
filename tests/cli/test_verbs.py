"""What each verb prints and how it ends, on a project with known runs."""

import json
import re

import pytest

from gittrack.cli.help import topic
from tests.cli.conftest import Cli, Snapshot
from tests.conftest import Sandbox

#: Name of the snapshot, and the command line.
READING = {
    "log": "log",
    "log-oneline": "log --oneline",
    "log-limited": "log --oneline -2",
    "log-none": "log -n 0",
    "log-all-reversed": "log --oneline --all --reverse",
    "log-experiment": "log --oneline -e churn",
    "log-experiment-by-id": "log --oneline -e 0",
    "log-format": "log --format %h|%H|%N|%E|%e|%S|%L|%u|%D|%t|%T|%d|%m(acc)|%p(lr)|%g(team)|%M|%P|%%%x41",
    "log-format-lines": "log -n 1 --format %N%nsecond",
    "log-json": "log --json -e churn",
    "show-latest": "show",
    "show-by-name": "show alpha",
    "show-by-id-with-packages": "show {alpha:.6} --env",
    "show-two": "show alpha @{{-2}}",
    "show-json": "show --json gamma",
    "show-format": "show alpha --format %N:%m(acc)",
    "diff": "diff alpha beta",
    "diff-stat": "diff --stat alpha beta",
    "diff-names": "diff --name-only alpha beta",
    "diff-no-code": "diff --no-code alpha beta",
    "diff-path": "diff --name-only alpha beta train.py",
    "diff-last-two": "diff",
    "diff-itself": "diff alpha alpha",
    "diff-json": "diff --json alpha beta",
    "status": "status",
    "status-json": "status --json",
    "experiments": "experiments",
    "experiments-json": "experiments ls --json",
    "search": "search",
    "search-filter": "search metrics.acc>0.9 -e churn",
    "search-ordered": "search --order-by metrics.acc -n 2",
    "search-columns": "search --columns params.lr,metrics.acc,tags.team -e churn",
    "search-columns-nowhere": "search -c acc,params.lt,team,nothing",
    "artifacts-get-none": "artifacts get gamma",
    "search-oneline": "search --oneline params.lr<0.05",
    "search-nothing": "search params.lr='none'",
    "search-json": "search --json params.lr='0.1'",
    "metrics": "metrics alpha",
    "metrics-points": "metrics alpha loss",
    "metrics-two": "metrics alpha loss acc",
    "metrics-plot": "metrics alpha acc --plot",
    "metrics-plot-nan": "metrics beta --plot",
    "metrics-json": "metrics --json beta",
    "metrics-points-json": "metrics --json beta acc précision",
    "artifacts": "artifacts alpha",
    "artifacts-below": "artifacts ls alpha notes",
    "artifacts-json": "artifacts ls --json alpha",
    "artifacts-none": "artifacts gamma",
    "artifacts-cat": "artifacts cat alpha notes/a.txt",
    "tag": "tag alpha",
    "tag-json": "tag alpha --json",
    "note": "note beta",
    "note-none": "note alpha",
    "note-json": "note beta --json",
    "fsck": "fsck",
    "fsck-json": "fsck --full --json",
    "gc-dry-run": "gc --dry-run",
    "config": "config",
    "config-one": "config sync",
    "config-json": "config max-untracked --json",
    "reindex": "reindex",
}
#: Command lines that are wrong.
ERRORS = {
    "error-no-verb": "lgo",
    "error-verb-from-elsewhere": "list",
    "error-option": "log --onelin",
    "error-option-value": "log -n many",
    "error-missing-argument": "metrics",
    "error-extra-argument": "log churn",
    "error-folder": "-C nowhere log",
    "error-run": "show alhpa",
    "error-run-prefix": "show ffffffff",
    "error-run-latest": "show @{{-99}}",
    "error-experiment": "log -e chrun",
    "error-metric": "metrics alpha ac",
    "error-artifact": "artifacts get alpha notes/b.txt",
    "error-artifact-cat": "artifacts cat alpha nots/a.txt",
    "error-filter": "search metrics.acc=>0.9",
    "error-order": "search --order-by acc+",
    "error-format": "log --format %Q",
    "error-plot-json": "metrics alpha --plot --json",
    "error-tag": "tag alpha blue",
    "error-tag-missing": "tag alpha -d nothing",
    "error-note": "note alpha -m x --delete",
    "error-rm-twice": "rm {delta}",
    "error-restore": "restore alpha",
    "error-setting": "config synk",
    "error-setting-value": "config sync never",
    "error-unset": "config --unset",
    "error-topic": "help quikstart",
    "error-help-verb": "help artifacts gt",
    "error-experiment-exists": "experiments create churn",
    "error-experiment-default": "experiments rm Default",
    "error-metric-without-run": "reproduce alpha --metric acc",
    "error-no-code": "reproduce gamma",
    "error-init": "init nowhere",
    "error-completion": "completion tcsh",
    "error-run-nothing": "run",
    "error-artifact-folder": "artifacts cat alpha notes",
    "error-path": "artifacts get alpha notes -o /dev/null/nowhere",
    "error-demo-path": "demo /dev/null/nowhere",
    "error-purge": "gc --purge alpha",
    "error-note-word": "note alpha words",
    "error-count": "log -n -3",
    "error-run-zero": "show @{{-0}}",
    "error-blank-experiment": "run -e  -- true",
    "error-experiment-restore": "experiments restore churn",
    "error-gc-no-terminal": "gc --purge {delta} --older-than 0",
}


def _words(line: str, ids: dict[str, str]) -> list[str]:
    return line.format(**ids).replace("+", " ").split() if "order" in line else line.format(**ids).split(" ")


@pytest.fixture
def ids(project: Sandbox, cli: Cli) -> dict[str, str]:
    """Ids of the project's runs by name."""
    found = json.loads(cli("log", "--all", "--json").out)
    return {run["info"]["run_name"]: run["info"]["run_id"] for run in found}


@pytest.mark.parametrize("name", READING)
def test_reading(name: str, ids: dict[str, str], cli: Cli, snapshot: Snapshot) -> None:
    snapshot(name, cli(*_words(READING[name], ids)))


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, ids: dict[str, str], cli: Cli, snapshot: Snapshot) -> None:
    answer = cli(*_words(ERRORS[name], ids))
    assert answer.status in {1, 2, 3}
    assert answer.out == ""
    assert answer.err.splitlines()[0].startswith("error: ") or "gc" in name
    snapshot(name, answer)


def test_a_run_by_its_commit(project: Sandbox, ids: dict[str, str], cli: Cli) -> None:
    """What `git log --all` shows is as good as a run's id."""
    for commit in (json.loads(cli("show", "alpha", "--json").out)["commit"],):
        for text in (commit, commit[:9]):
            assert cli("show", text, "--format", "%H").out == f"{ids['alpha']}\n"
    code = project.git("rev-parse", "HEAD")
    answer = cli("show", code[:10])
    assert (answer.status, answer.err.splitlines()[0]) == (1, f"error: `{code[:10]}` is a commit, and none of a run")
    assert f"commit = '{code}'" in answer.err
    assert cli("search", f"commit = '{code}'", "--oneline").out.count("\n") == 2
    assert "no run `abcdef0`" in cli("show", "abcdef0").err


def test_several_runs_fit(project: Sandbox, cli: Cli) -> None:
    for _ in range(2):
        assert cli("run", "--name", "twin", "--", "true").status == 0
    answer = cli("show", "twin")
    assert (answer.status, "hint: say which by its id, for example `" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("line", "unnamed"),
    [
        ("log", 0), ("search", 0), ("show alpha", 0), ("diff alpha beta", 0), ("status", 0), ("experiments", 0),
        ("metrics alpha", 1), ("metrics alpha acc", 1), ("artifacts ls alpha", 0), ("note beta", 0), ("config", 0),
        ("config sync", 0), ("reproduce alpha", 0),
    ],
)  # fmt: skip
def test_what_json_holds_is_documented(line: str, unnamed: int, project: Sandbox, cli: Cli) -> None:
    """``unnamed`` levels have names of the person's own."""
    documented = set(re.findall(r"`(\w+)`", topic("runs")))
    found = json.loads(cli(*line.split(), "--json").out)
    for _ in range(unnamed):
        found = next(iter(found.values()))
    keys = set((found[0] if isinstance(found, list) else found).keys())
    assert keys <= documented
