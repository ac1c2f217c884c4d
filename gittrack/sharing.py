"""Sharing in Python: ``gittrack.push()``, ``pull()``, ``bundle()`` and ``unbundle()``, what the verbs do."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gittrack import config, session
from gittrack.errors import InvalidValueError
from gittrack.registry.registry import Registry
from gittrack.sync import pull as pulling, push as pushing, remotes
from gittrack.sync.select import Selection

if TYPE_CHECKING:
    from gittrack.sync.bundle import BundleReport, UnbundleReport
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


def bundle(
    file: str | os.PathLike[str],
    *,
    since: str | os.PathLike[str] | datetime | None = None,
    artifacts: bool = True,
    dry_run: bool = False,
    overwrite: bool = False,
) -> BundleReport:
    """Write this clone's runs and models, with their files, into one file for a clone without a network.

    Args:
        file: The new file.
        since: Leave out what a former bundle (its path) had or a remote (its name) has, or runs that began before a
            date.
        artifacts: Put the files of runs in.
        dry_run: Only say what would be in it.
        overwrite: The file may be there, and is replaced.

    Returns:
        What is in it.

    Raises:
        AlreadyExistsError: The file exists.
        NotFoundError: There is nothing to put in, or no such remote or former bundle.
        StorageError: It cannot be written; no file is left.
    """
    from gittrack.sync import bundle as bundling

    registry = Registry(session.open_tracker())
    registry.tracker.flush()
    select, leave = Selection(), []
    if isinstance(since, datetime):
        select = Selection(since=int(since.timestamp() * 1000))
    elif since is not None:
        found = bundling.basis(registry.repo, os.fspath(since), _prefix(registry))
        if found is None:
            raise InvalidValueError(f"`{since!s:.200}` is neither a remote nor a bundle")
        leave = [found]
    return bundling.bundle(
        registry, Path(file), select=select, since=leave, artifacts=artifacts, dry_run=dry_run, overwrite=overwrite
    )


def unbundle(file: str | os.PathLike[str], *, dry_run: bool = False) -> UnbundleReport:
    """Take over what a bundle has; nothing of this clone's is overwritten.

    Args:
        file: The bundle.
        dry_run: Read and check all of it, and change nothing.

    Returns:
        What has come, and in ``refused`` what does not count because it cannot be right.

    Raises:
        NotFoundError: There is no such file, or it builds on what is not in this clone.
        CorruptError: It is no bundle, or has other bytes than it had; no run has come.
        StorageError: There is no room; the same call goes on from there.
    """
    from gittrack.sync import bundle as bundling

    return bundling.unbundle(Registry(session.open_tracker()), Path(file), dry_run=dry_run)


def _open(name: str | None) -> tuple[Registry, Remote]:
    registry = Registry(session.open_tracker())
    return registry, remotes.choose(registry.repo, name, _prefix(registry))


def _prefix(registry: Registry) -> str:
    paths = registry.repo.paths
    return config.current(paths.work_tree or paths.main_root).ref_prefix
