"""Artifacts on their way between this clone and the place where a team keeps them.

Only what the other side lacks is moved, and what comes is checked against its sha256 and its size before it counts.
Interrupted at any byte, the next call goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack.errors import InvalidValueError, NotFoundError, UnsupportedError
from gittrack.sync import folder
from gittrack.sync.depots import Count, Depot, Item, Moved, Progress, lost, nobody_has
from gittrack.sync.endpoints import GitSettings, place

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.sync.http import Settings
    from gittrack.track.runs import Tracker
    from gittrack.types import Artifact, ObjectId

#: Kinds of places that a team can choose for everybody.
_SHARED: Final = ("s3", "gs", "gcs", "az", "abfs", "abfss")


def _silent(_done: int, _total: int | None) -> None:
    """No progress wanted."""


def upload(
    tracker: Tracker,
    remote: str | None,
    items: Iterable[Item],
    *,
    progress: Progress | None = None,
    dry_run: bool = False,
    interactive: bool = False,
) -> Moved:
    """Put objects of this clone where the remote keeps them.

    An object that this clone does not have is no trouble if the other side has it; else nothing is sent.

    Args:
        tracker: This clone.
        remote: A git remote by name or address; the default one if None.
        items: The objects.
        progress: Told about bytes.
        dry_run: Only find out what would be sent.
        interactive: The person may be asked for credentials.

    Raises:
        NotFoundError: Objects that the other side lacks are not in this clone either.
        GittrackError: As ``Depot.upload``.
    """
    wanted = list(dict.fromkeys(items))
    if not wanted:
        return Moved(0, 0, 0)
    target = depot(tracker.repo, remote, interactive=interactive)
    lacking = target.lacking(wanted)
    missing = [item for item in lacking if not tracker.repo.objects.has(item.digest, item.size)]
    if missing:
        raise lost(missing, target.name)
    if lacking and not dry_run:
        target.upload(lacking, progress or _silent)
    return Moved(len(lacking), sum(item.size for item in lacking), len(wanted) - len(lacking))


def ensure(
    tracker: Tracker,
    items: Iterable[Item],
    *,
    remote: str | None = None,
    progress: Progress | None = None,
    interactive: bool = False,
) -> Moved:
    """Bring objects here that are not here.  Costs a look at each file if all are.

    What stock git-lfs fetched into this clone is taken from there.

    Args:
        tracker: This clone.
        items: The objects.
        remote: A git remote by name or address; the default one if None.
        progress: Told about bytes.
        interactive: The person may be asked for credentials.

    Raises:
        NotFoundError: Nobody has some of them; the others are here.
        ReadOnlyError, StorageError: They cannot be kept here.
        GittrackError: As ``Depot.download``.
    """
    wanted = list(dict.fromkeys(items))
    missing = absent(tracker.repo, wanted)
    if not missing:
        return Moved(0, 0, len(wanted))
    tracker.repo.require_writable()
    stock = folder.stock_lfs(tracker.repo)
    if near := stock.having(missing):
        stock.download(near, progress or _silent)
    if far := absent(tracker.repo, missing):
        try:
            source = depot(tracker.repo, remote, interactive=interactive)
        except NotFoundError as error:
            raise nobody_has(far, f"not in this clone, and {error.message}", hint=error.hint) from error
        source.download(far, progress or _silent)
    return Moved(len(missing), sum(item.size for item in missing), len(wanted) - len(missing))


@dataclass(frozen=True)
class Sent:
    """What ``send`` has done.

    Attributes:
        moved: What was sent.
        absent: Objects that are neither in this clone nor there.
    """

    moved: Moved
    absent: int


def send(
    tracker: Tracker,
    remote: str,
    commits: Collection[ObjectId],
    *,
    progress: Progress | None = None,
    dry_run: bool = False,
    interactive: bool = False,
) -> Sent:
    """Put the artifacts of runs where the remote keeps them, as far as they are here.

    Args:
        tracker: This clone.
        remote: A git remote.
        commits: Revisions of runs.
        progress: Told about bytes.
        dry_run: Only find out what would be sent.
        interactive: The person may be asked for credentials.

    Raises:
        GittrackError: As ``upload``.
    """
    repo = tracker.repo
    wanted = list(dict.fromkeys(Item.of(repo.artifacts_in(commits))))
    if not wanted:
        return Sent(Moved(0, 0, 0), 0)
    target = depot(repo, remote, interactive=interactive)
    lacking = target.lacking(wanted)
    away = set(absent(repo, lacking))
    here = [item for item in lacking if item not in away]
    if here and not dry_run:
        target.upload(here, progress or _silent)
    return Sent(Moved(len(here), sum(item.size for item in here), len(wanted) - len(lacking)), len(away))


def bring(tracker: Tracker, artifacts: Iterable[Artifact]) -> None:
    """Bring the bytes of artifacts here that are not here, from the default remote.  Raises as ``ensure``."""
    ensure(tracker, Item.of(artifacts))


def read(tracker: Tracker, artifact: Artifact) -> bytes:
    """The bytes of an artifact, verified; fetched first if they are not here.  Raises as ``ensure``, CorruptError."""
    bring(tracker, [artifact])
    return tracker.repo.objects.read(artifact.digest)


def absent(repo: Repo, items: Iterable[Item]) -> list[Item]:
    """Those objects that are not in this clone."""
    return [item for item in items if not repo.objects.has(item.digest, item.size)]


def depot(repo: Repo, remote: str | None, *, interactive: bool = False) -> Depot:
    """Where the artifacts of this clone go: what ``gittrack.artifacts`` names, else the LFS of the git remote.

    Args:
        repo: This clone.
        remote: A git remote by name, address or path; the default one if None.
        interactive: The person may be asked for credentials.

    Raises:
        NotFoundError: There is no such remote, or none at all.
        UnsupportedError, InvalidValueError: An address that nothing here can read.
    """
    chosen = _chosen(repo)
    if chosen is not None:
        return chosen
    settings = GitSettings.read(repo)
    name = remote if remote is not None else settings.default_remote(repo.git.head_branch())
    if name is None:
        raise NotFoundError("there is no remote", hint="`git remote add origin URL` names one")
    source, target = (settings.place(repo, name, push=push) for push in (False, True))
    if isinstance(source, Path) and isinstance(target, Path):
        return folder.remote_repository(repo, target if target != source else source)
    if isinstance(source, Path) or isinstance(target, Path):
        raise UnsupportedError(
            f"the remote `{name}` is fetched from and pushed to in different ways",
            hint="`git config gittrack.artifacts` names one place for artifacts",
        )
    from gittrack.sync.lfs import LfsDepot

    command = settings.get("core.sshcommand")
    return LfsDepot(
        repo,
        source,
        target,
        settings=lambda url: _http_settings(repo, url),
        ssh_command=command,
        interactive=interactive,
    )


def _chosen(repo: Repo) -> Depot | None:
    """What the ``artifacts`` setting names."""
    from gittrack import config

    start = repo.paths.work_tree or repo.paths.main_root
    found = next(one for one in config.values(start) if one.setting.name == "artifacts")
    url: str | None = found.value
    if url is None:
        return None
    scheme = url.partition("://")[0].lower() if "://" in url else "file"
    if found.origin == "pyproject" and scheme not in _SHARED:
        # A file that came with the repository does not say where on this machine, or with this person's keys, to write.
        raise InvalidValueError(
            f"`artifacts` in pyproject.toml names a `{scheme}:` address, which each person decides",
            hint=f"if you want that: git config gittrack.artifacts {url}",
        )
    if scheme != "file":
        from gittrack.sync.bucket import BucketDepot

        return BucketDepot(repo.objects, url)
    where = place(url, repo.paths.main_root, lfs=True)
    if not isinstance(where, Path):
        raise InvalidValueError(f"`{url}` is no folder")
    return folder.plain_folder(repo, where)


def _http_settings(repo: Repo, url: str) -> Settings:
    """How git reaches a server: its ``http.*`` settings for that address, and the proxies of the environment."""
    from gittrack import config
    from gittrack.sync.http import Settings

    found = repo.git.program.call("config", "-z", "--get-urlmatch", "http", url)  # begins with `http`: no option
    values: dict[str, str] = {}
    for entry in found.stdout.decode("utf-8", "replace").split("\0"):
        key, _, value = entry.partition("\n")
        values[key.lower()] = value
    environment = config.environment()
    certificates = environment.get("GIT_SSL_CAINFO") or values.get("http.sslcainfo")
    name, _, header = values.get("http.extraheader", "").partition(":")
    proxy = values.get("http.proxy")
    made = Settings(
        proxy=(config.proxy(url) if proxy is None else proxy) or None,
        verify=values.get("http.sslverify", "true").lower() not in ("false", "0", "no", "off")
        and "GIT_SSL_NO_VERIFY" not in environment,
        certificates=str(Path(certificates).expanduser()) if certificates else None,
    )
    return replace(made, headers={name.strip(): header.strip()}) if name.strip() else made


__all__ = [
    "Count",
    "Depot",
    "Item",
    "Moved",
    "Progress",
    "Sent",
    "absent",
    "bring",
    "depot",
    "ensure",
    "read",
    "send",
    "upload",
]
