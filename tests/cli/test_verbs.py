"""What each verb prints and how it ends, on a project with known runs."""

import json

import pytest

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
    "error-gc-no-terminal": "gc --purge {delta} --older-than 0",
}


def _words(line: str, ids: dict[str, str]) -> list[str]:
    return line.format(**ids).replace("+", " ").split() if "order" in line else line.format(**ids).split()


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
