"""What the pre-commit framework (https://pre-commit.com) tells a hook, in the words of git.

It keeps git's arguments and standard input to itself and sets variables instead: `PRE_COMMIT_REMOTE_NAME` and the like.
Which commits were rewritten it does not tell; git's own records say that while post-rewrite is going on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from gittrack import config
from gittrack.errors import GitError
from gittrack.store import gateway

if TYPE_CHECKING:
    from gittrack.store.gateway import RepoPaths


def arguments(name: str, given: Sequence[str]) -> list[str]:
    """The arguments that git gave the hook ``name``, as far as they are known: ``given`` ones are left as they are."""
    env = config.environment()
    if not env.get("PRE_COMMIT"):
        return list(given)
    if name == "pre-push" and not given:
        return [one for one in (env.get("PRE_COMMIT_REMOTE_NAME"), env.get("PRE_COMMIT_REMOTE_URL")) if one]
    if name == "prepare-commit-msg" and len(given) == 1 and env.get("PRE_COMMIT_COMMIT_MSG_SOURCE"):
        return [*given, env["PRE_COMMIT_COMMIT_MSG_SOURCE"]]
    return list(given)


def pushed(paths: RepoPaths) -> str:
    """What git told pre-push: here it is one ref; empty if the framework is not there."""
    env = config.environment()
    branch = env.get("PRE_COMMIT_LOCAL_BRANCH")
    if not env.get("PRE_COMMIT") or not branch:
        return ""
    with suppress(GitError):
        git = gateway.Git(paths.git_dir, paths.work_tree)
        named = env.get("PRE_COMMIT_TO_REF") or branch  # the commit is missing where all of the history is new
        tip = git.run("rev-parse", "--verify", "--end-of-options", f"{named}^{{commit}}").decode().strip()
        return f"{branch} {tip} {env.get('PRE_COMMIT_REMOTE_BRANCH') or branch} {'0' * len(tip)}\n"
    return ""


def rewritten(paths: RepoPaths) -> str:
    """What git told post-rewrite: old and new ids in lines; empty if the framework is not there."""
    command = config.environment().get("PRE_COMMIT_REWRITE_COMMAND")
    if command == "rebase":  # by either of git's two ways
        for record in ("rebase-merge/rewritten-list", "rebase-apply/rewritten"):
            with suppress(OSError):
                return (paths.git_dir / record).read_text("ascii", "replace")
    if command == "amend":
        return _amended(paths)
    return ""


def _amended(paths: RepoPaths) -> str:
    """The newest line of HEAD's reflog: old id, new id, who and when, a tab, `commit (amend): SUBJECT`."""
    with suppress(OSError):
        last = (paths.git_dir / "logs" / "HEAD").read_bytes().rstrip(b"\n").rpartition(b"\n")[2]
        ids, _, what = last.partition(b"\t")
        if what.startswith(b"commit (amend)"):
            return b" ".join(ids.split(b" ")[:2]).decode("ascii", "replace") + "\n"
    return ""
