"""Commits of code, as branches name them: resolving, walking, comparing.  Asks git; knows no runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gittrack.errors import InvalidValueError
from gittrack.store import gateway, layout
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.store.repo import Repo


def history(repo: Repo, commit: str, limit: int | None = None) -> list[tuple[ObjectId, ObjectId]]:
    """(commit, tree) of a commit and those before it, along first parents, newest first.  Raises GitError."""
    git = _git(repo)
    most = [] if limit is None else [f"--max-count={limit}"]
    out = git.run("rev-list", "--first-parent", "--format=%H %T", *most, "--end-of-options", gateway.rev(commit), "--")
    rows = [line.split() for line in out.decode().splitlines() if not line.startswith("commit ")]
    return [(ObjectId(row[0]), ObjectId(row[1])) for row in rows]


def resolve(repo: Repo, rev: str) -> ObjectId:
    """The commit that a person means.  Raises InvalidValueError for what is no commit."""
    git = _git(repo)
    found = git.call("rev-parse", "--verify", "--quiet", "--end-of-options", f"{gateway.rev(rev)}^{{commit}}")
    oid = found.stdout.decode().strip().splitlines()
    if found.status or not oid:
        raise InvalidValueError(f"`{rev:.80}` is no commit", hint="a branch, a tag or the id of a commit")
    return ObjectId(oid[-1])


def is_merge(repo: Repo, commit: ObjectId) -> bool:
    """True if a commit has several parents."""
    return len(repo.git.read_commit(commit).parents) > 1


def default_base(repo: Repo) -> str | None:
    """The branch that others are compared with: the remote's default, else main or master; None without any."""
    git = _git(repo)
    named = git.call("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD").stdout.decode().strip()
    names = [*filter(None, [named]), "origin/main", "origin/master", "main", "master"]
    for name in names:
        where = "refs/remotes/" if "/" in name else "refs/heads/"
        if repo.git.ref(f"{where}{name}") is not None:
            return name
    return None


def merge_base(repo: Repo, base: str, commit: ObjectId) -> ObjectId | None:
    """Where two histories part; None if they have nothing in common.  Raises InvalidValueError, GitError."""
    git = _git(repo)
    found = git.call("merge-base", "--end-of-options", resolve(repo, base), commit).stdout.decode().split()
    return ObjectId(found[0]) if found else None


def reachable(repo: Repo, revs: str) -> dict[str, str]:
    """Every commit that a branch, or a range such as ``main..topic``, has: its id and its tree's, both to its id.

    Raises:
        InvalidValueError: git does not know the branch, or cannot read the range.
    """
    found = _git(repo).call("rev-list", "--format=%H %T", "--end-of-options", gateway.rev(revs), "--")
    if found.status:
        raise InvalidValueError(f"`{revs:.80}` is no branch, commit or range", hint="`git branch` lists the branches")
    rows = [line.split() for line in found.stdout.decode().splitlines() if not line.startswith("commit ")]
    # The newest commit of several with the same files comes first, and stays.
    return {tree: commit for commit, tree in reversed(rows)} | {commit: commit for commit, _ in rows}


class Subject(NamedTuple):
    """What a commit says of itself: short id, author's name, date (``2026-11-26``), first line of the message."""

    short: str
    author: str
    date: str
    subject: str


def subject(repo: Repo, commit: ObjectId) -> Subject:
    """Who made a commit, when, and what it says.  Raises GitError."""
    form = "--format=%h%x00%an%x00%as%x00%s"
    out = _git(repo).run("show", "--no-patch", form, "--end-of-options", gateway.rev(commit))
    return Subject(*out.decode("utf-8", "replace").rstrip("\n").split("\0", 3))


def stat(repo: Repo, old: ObjectId, new: ObjectId) -> str:
    """Which files differ between two commits, and how much, as `git diff --stat` says it.  Raises GitError."""
    options = ("--stat=100", "--no-ext-diff", "--no-textconv", "--no-color", "--find-renames")
    revs = (gateway.rev(old), gateway.rev(new))
    out = _git(repo).run("diff", *options, "--end-of-options", *revs, "--", ":/", f":(top,exclude){layout.FOLDER}")
    return out.decode("utf-8", "replace").rstrip("\n")


def _git(repo: Repo) -> gateway.Git:
    return gateway.Git(repo.paths.git_dir, repo.paths.work_tree)
