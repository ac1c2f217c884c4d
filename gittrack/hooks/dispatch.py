"""What a hook does, from its name to its exit status.  Whatever goes wrong here must not stop git: it is said, once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from gittrack import config
from gittrack.errors import GittrackError, UsageError
from gittrack.hooks import NAMES, REFUSED, framework, quick
from gittrack.store import gateway

if TYPE_CHECKING:
    from gittrack.store.gateway import RepoPaths
    from gittrack.track.runs import Tracker


class Said(NamedTuple):
    """What a hook has to say.

    Attributes:
        status: 0, or ``REFUSED``.
        errors: (what is wrong, next step) of each refusal.
        notes: Everything else.
    """

    status: int = 0
    errors: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def run(name: str, arguments: Sequence[str]) -> Said:
    """Do what the hook ``name`` does; never an error for what fails in gittrack itself.

    Args:
        name: One of ``NAMES``.
        arguments: What git calls the hook with.

    Raises:
        UsageError: There is no such hook.
    """
    if name not in NAMES:
        raise UsageError(f"there is no hook `{name:.80}`", hint=f"the hooks are {', '.join(NAMES)}")
    try:
        paths = _place()
        return Said() if paths is None else _HOOKS[name](paths, framework.arguments(name, arguments))
    except GittrackError as error:
        return Said(notes=[f"the {name} hook did nothing: {error.message}"])
    except Exception as error:  # noqa: BLE001 - a bug of ours must not stop a commit
        return Said(notes=[f"the {name} hook failed, which is a bug of gittrack's: {type(error).__name__}: {error}"])


def _place() -> RepoPaths | None:
    """The repository whose hook this is; None if the current folder belongs to another one, or to none."""
    paths = gateway.discover(Path.cwd())
    named = config.environment().get("GIT_DIR")
    if paths is None or paths.work_tree is None or (named and Path(os.path.realpath(named)) != paths.git_dir):
        return None
    return paths


def _tracker(paths: RepoPaths) -> Tracker:
    from gittrack import session

    return session.open_reader(str(paths.work_tree))


def _has_store(paths: RepoPaths) -> bool:
    return (paths.main_root / ".gittrack" / "writer").exists()


def _pre_commit(paths: RepoPaths, _: Sequence[str]) -> Said:
    from gittrack.hooks import pre_commit

    opened = _tracker(paths)
    try:
        refused, said = pre_commit.check(opened, config.current(paths.work_tree).max_staged)
    finally:
        opened.repo.close()
    return Said(REFUSED if refused else 0, refused, said)


def _prepare_commit_msg(paths: RepoPaths, arguments: Sequence[str]) -> Said:
    from gittrack.hooks import prepare_commit_msg

    # git says where the message comes from: those of merges and squashes are made by git, an old one is kept.
    made = len(arguments) > 1 and arguments[1] in ("merge", "squash", "commit")
    if not arguments or made or not _has_store(paths) or not config.current(paths.work_tree).commit_trailer:
        return Said()
    opened = _tracker(paths)
    try:
        prepare_commit_msg.add_trailer(opened, Path(arguments[0]))
    finally:
        opened.repo.close()
    return Said()


def _post_commit(paths: RepoPaths, _: Sequence[str]) -> Said:
    from gittrack.hooks import post_commit

    if not _has_store(paths):
        return Said()
    opened = _tracker(paths)
    try:
        linked = post_commit.link(opened)
    finally:
        opened.close()
    if config.current(paths.work_tree).push_after_commit:
        post_commit.push_in_background(paths)
    return Said(notes=[f"linked {_runs(linked)} to this commit"] if linked else [])


def _post_rewrite(paths: RepoPaths, _: Sequence[str]) -> Said:
    from gittrack.hooks import post_rewrite

    if not _has_store(paths):
        return Said()
    told = quick.standard_input().decode("ascii", "replace") or framework.rewritten(paths)
    opened = _tracker(paths)
    try:
        linked = post_rewrite.follow(opened, told)
    finally:
        opened.close()
    return Said(notes=[f"{_runs(linked)} followed the rewritten commits"] if linked else [])


def _pre_push(paths: RepoPaths, arguments: Sequence[str]) -> Said:
    if not arguments or not _has_store(paths) or not config.current(paths.work_tree).push_runs:
        return Said()
    from gittrack.hooks import pre_push

    told = quick.standard_input().decode("utf-8", "replace") or framework.pushed(paths)
    opened = _tracker(paths)
    try:
        report = pre_push.push_runs(opened, arguments[0], told)
    finally:
        opened.close()
    amount = 0 if report is None else report.runs + report.revised
    return Said(notes=[f"pushed {_count(amount)} to {arguments[0]}"] if amount else [])


def _runs(found: Sequence[str]) -> str:
    return _count(len(set(found)))


def _count(amount: int) -> str:
    return "1 run" if amount == 1 else f"{amount:,} runs"


_HOOKS: Final[dict[str, Callable[[RepoPaths, Sequence[str]], Said]]] = {
    "pre-commit": _pre_commit,
    "prepare-commit-msg": _prepare_commit_msg,
    "post-commit": _post_commit,
    "post-rewrite": _post_rewrite,
    "pre-push": _pre_push,
}
