"""Push and pull in Python: ``gittrack.push()`` and ``gittrack.pull()``, what the verbs of the same names do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gittrack import config, session
from gittrack.registry.registry import Registry
from gittrack.sync import pull as pulling, push as pushing, remotes

if TYPE_CHECKING:
    from gittrack.sync.pull import PullReport
    from gittrack.sync.push import PushReport
    from gittrack.sync.remotes import Remote


def push(remote: str | None = None, *, dry_run: bool = False) -> PushReport:
    """Send what a git remote lacks of this clone's runs and models.

    Runs that are finished go; one that is going on goes when it has ended.

    Args:
        remote: A remote of the clone; the branch's or ``origin`` if not given.
        dry_run: Only say what would be sent.

    Returns:
        What was sent, what was not and why, and what had to be taken over first.

    Raises:
        NotFoundError: There is no such remote, or none at all.
        NetworkError: It cannot be reached, or the connection broke; the same call goes on from there.
        PushRefusedError: It does not take what was sent.
    """
    registry, where = _open(remote)
    registry.tracker.flush()
    return pushing.push(registry, where, dry_run=dry_run)


def pull(remote: str | None = None, *, dry_run: bool = False) -> PullReport:
    """Take runs and models over from a git remote; nothing of this clone's is overwritten.

    Args:
        remote: A remote of the clone; the branch's or ``origin`` if not given.
        dry_run: Only say what would be fetched.

    Returns:
        What has come, and in ``refused`` what does not count because it cannot be right.

    Raises:
        NotFoundError: There is no such remote, or none at all.
        NetworkError: It cannot be reached, or the connection broke; the same call goes on from there.
        RemoteDataError: Nothing of what it sends can be right.
    """
    registry, where = _open(remote)
    return pulling.pull(registry, where, dry_run=dry_run)


def _open(name: str | None) -> tuple[Registry, Remote]:
    registry = Registry(session.open_tracker())
    paths = registry.repo.paths
    settings = config.current(paths.work_tree or paths.main_root)
    return registry, remotes.choose(registry.repo, name, settings.ref_prefix)
