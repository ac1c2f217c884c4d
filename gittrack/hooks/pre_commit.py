"""pre-commit: run data and big files stay out of commits, and the metric does not get worse unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gittrack import config
from gittrack.errors import GittrackError
from gittrack.hooks import gates
from gittrack.store import gateway, layout
from gittrack.track import links
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.store.gateway import RepoPaths
    from gittrack.track.runs import Tracker

_LINK = b"160000"  #: the mode of a submodule, which is no file
_SHOWN = 5


class Refusal(NamedTuple):
    """Why a commit is stopped, and the next step."""

    message: str
    hint: str


class _Staged(NamedTuple):
    path: str
    size: int


def index_environment(paths: RepoPaths) -> dict[str, str]:
    """The index that git is about to commit: not always its usual one (`git commit FILE`, `git commit -a`)."""
    named = config.environment().get("GIT_INDEX_FILE")
    path = Path(named).absolute() if named else paths.git_dir / "index"
    return {"GIT_INDEX_FILE": str(path)}


def staged_files(paths: RepoPaths) -> list[_Staged]:
    """Path and size of every file that the next commit adds or changes.  Raises GitError."""
    git, env = gateway.Git(paths.git_dir, paths.work_tree), index_environment(paths)
    options = ("--cached", "--raw", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", "--diff-filter=AMT")
    records = git.run("diff", *options, env=env).split(b"\0")
    found = [(head.split(b" "), path) for head, path in zip(records[::2], records[1::2], strict=False)]
    files = {path: head[3] for head, path in found if head[1] != _LINK}
    if not files:
        return []
    answer = git.run("cat-file", "--batch-check=%(objectsize)", input=b"".join(oid + b"\n" for oid in files.values()))
    sizes = answer.split(b"\n")
    return [
        _Staged(path.decode("utf-8", "backslashreplace"), int(size) if size.isdigit() else 0)
        for path, size in zip(files, sizes, strict=False)
    ]


def check_files(paths: RepoPaths, limit: int) -> list[Refusal]:
    """What is wrong with the staged files.  Raises GitError."""
    staged = staged_files(paths)
    ours = [one for one in staged if one.path == layout.FOLDER or one.path.startswith(f"{layout.FOLDER}/")]
    big = [one for one in staged if one.size > limit and one not in ours]
    found = []
    if ours:
        found.append(
            Refusal(
                f"{_listed([one.path for one in ours])} would be committed; runs are kept beside your branches",
                f"`git rm -r --cached {layout.FOLDER}` takes the folder out of the commit and keeps it on the disk",
            )
        )
    if big:
        names = [f"{one.path} ({_size(one.size)})" for one in big]
        found.append(
            Refusal(
                f"{_listed(names)} would be committed, larger than {_size(limit)}",
                f"`git rm --cached {big[0].path}`, and `gittrack.log_artifact({big[0].path!r})` in the run that made it"
                " (or `git lfs track`); `git config gittrack.maxStaged 100m` raises the limit,"
                " `git commit --no-verify` skips the check once",
            )
        )
    return found


def check_gates(tracker: Tracker) -> tuple[list[Refusal], list[str]]:
    """What the project's gates refuse, and what they have to say otherwise.  Raises InvalidValueError, GitError."""
    rules = gates.project_rules(tracker)
    if not rules or not tracker.repo.exists:
        return [], []
    tree, head = index_tree(tracker.repo.paths), tracker.repo.git.head()
    if head is not None and tracker.repo.git.tree_of(head) == tree:
        return [], []  # nothing changes: only the message is amended
    runs = links.runs_of_files(tracker, tree, [] if head is None else [head])
    refused, said = [], []
    for verdict in gates.verdicts(tracker, rules, runs, head):
        line = gates.sentence(verdict)
        if verdict.failed:
            hint = "`gittrack report` shows what changed; `git commit --no-verify` commits all the same"
            refused.append(Refusal(line, hint))
        elif verdict.run is None and verdict.rule.require_run:
            hint = "`gittrack run -- python train.py` makes one; `git commit --no-verify` commits all the same"
            refused.append(Refusal(line, hint))
        elif verdict.run is not None:
            said.append(line)
    return refused, said


def index_tree(paths: RepoPaths) -> ObjectId:
    """The tree that the next commit will have.  Raises GitError."""
    git = gateway.Git(paths.git_dir, paths.work_tree)
    return ObjectId(git.run("-c", "core.fsync=none", "write-tree", env=index_environment(paths)).decode().strip())


def check(tracker: Tracker, max_staged: int) -> tuple[list[Refusal], list[str]]:
    """What the hook refuses, and what it has to say otherwise.

    Args:
        tracker: The clone's.
        max_staged: The largest file that may be committed, in bytes.

    Raises:
        GittrackError: gittrack itself failed, and nothing is to be refused.
    """
    refused = check_files(tracker.repo.paths, max_staged)
    try:
        more, said = check_gates(tracker)
    except GittrackError as error:
        if not refused:
            raise
        more, said = [], [f"the gate was not checked: {error.message}"]
    return refused + more, said


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:_SHOWN]) + more


def _size(amount: int) -> str:
    return f"{amount / (1 << 20):.3g} MiB" if amount >= 1 << 20 else f"{amount / 1024:.3g} KiB"
