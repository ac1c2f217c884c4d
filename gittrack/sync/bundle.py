"""Bundles: runs, models and their files in one file, for clones that no network connects.

Making one is a push whose other end is a file; taking it over is a pull.  What differs from a remote is said here:
git's own check of objects does not look into bundles before git 2.46, so the pack is indexed with that check first, and
git then fetches from the head of the bundle alone, which can bring nothing that was not checked.

Write order of ``unbundle``: git objects → ``refs/gittrack/incoming/…`` → looked at → ``refs/gittrack/remotes/…`` →
artifacts → this clone's own refs.  A call that dies leaves what it had finished, and the next one goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack.errors import (
    AlreadyExistsError,
    CorruptError,
    FormatError,
    GitError,
    GittrackError,
    InvalidValueError,
    NotFoundError,
    RemoteDataError,
    StorageError,
    UnsupportedError,
)
from gittrack.store import files, layout, seal
from gittrack.store.objects import Arrivals
from gittrack.store.pack import PackOnDisk, keep_text
from gittrack.store.refs import RefUpdate
from gittrack.sync import bundle_file, publish as publishing
from gittrack.sync.artifacts import absent
from gittrack.sync.bundle_file import Basis, Head, Manifest, Reader
from gittrack.sync.depots import Item
from gittrack.sync.publish import Published
from gittrack.sync.pull import Fetched, bring, lock
from gittrack.sync.push import Plan, code_commits, pin, unpin
from gittrack.sync.remotes import Remote, remotes
from gittrack.sync.select import EVERYTHING, Selection
from gittrack.sync.transport import Progress, Transport, failure, silent
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.registry.registry import Registry
    from gittrack.store.gateway import Result
    from gittrack.store.repo import Repo

#: Told (bytes done, bytes in all).
Bytes = Callable[[int, "int | None"], None]

_FULL: Final = re.compile(r"No space left on device|File too large|Disk quota exceeded|Read-only file system")
#: Names of files that can be shown in a command that somebody may copy.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][\w.+-]{0,99}", re.ASCII)


@dataclass
class BundleReport:
    """What a bundle has in it, or would have.

    Attributes:
        file: Where it is.
        dry_run: It was not written.
        runs: Runs that what it leaves out does not have.
        revised: Runs of which it has a later revision.
        ledgers: Refs of ledgers in it.
        documents: Writers whose registry documents are in it.
        tags: Registry tags in it, below ``refs/tags/``.
        files: Files of runs in it.
        size: Their bytes.
        absent: Files of its runs that are not in this clone.
        code: Commits of code in it.
        needed: Commits that it builds on and leaves out.
        length: Bytes of the whole; 0 if it was not written.
        skipped: Refs that are not in it, and why.
    """

    file: str
    dry_run: bool = False
    runs: int = 0
    revised: int = 0
    ledgers: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    absent: int = 0
    code: int = 0
    needed: int = 0
    length: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass
class UnbundleReport:
    """What came of taking a bundle over.

    Attributes:
        file: The bundle.
        manifest: What it says about itself.
        dry_run: All of it was read and checked, and nothing was changed.
        wanted: Refs in it that are new here, or have moved.
        refused: Refs that do not count, and why.
        published: What has changed here.
        files: Files of runs in it that were not here.
        size: Their bytes.
    """

    file: str
    manifest: Manifest
    dry_run: bool
    wanted: list[str]
    refused: dict[str, str]
    published: Published
    files: int = 0
    size: int = 0


def basis(repo: Repo, said: str, prefix: str = "") -> Path | Remote | None:
    """The remote or the former bundle that somebody means; None if the words name neither.

    Args:
        repo: The clone.
        said: A remote's name, or the path of a bundle.
        prefix: The ``gittrack.refPrefix`` setting.

    Raises:
        NotFoundError: A path without a file.
    """
    known = remotes(repo, prefix)
    if said in known:
        return known[said]
    path = Path(said)
    if path.is_file():
        return path
    if "/" in said or path.suffix:
        raise NotFoundError(f"there is no file `{said:.200}`", hint="the former bundle, or the name of a remote")
    return None


# -- making ------------------------------------------------------------------------------------------------------------


def bundle(
    registry: Registry,
    target: Path | int,
    *,
    select: Selection = EVERYTHING,
    since: Sequence[Path | Remote] = (),
    artifacts: bool = True,
    dry_run: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    writing: Bytes | None = None,
) -> BundleReport:
    """Write runs and models, with their files, into one file.

    Args:
        registry: Runs and models of the clone.
        target: The file; or an open file or pipe, which is not closed.
        select: Only these.
        since: Leave out what these former bundles had, and what these remotes were last seen to have.
        artifacts: Put the files of runs in.
        dry_run: Only say what would be in it.
        overwrite: The file may be there, and is replaced when the new one is whole.
        progress: Told what is done.
        writing: Told about the bytes of files.

    Raises:
        AlreadyExistsError: The file exists.
        NotFoundError: There is nothing to put in, a former bundle is not there, or nothing of it is here.
        InvalidValueError: The file is a folder.
        FormatError: A former bundle is none.
        CorruptError: A file of a run has other bytes than its name says.
        ReadOnlyError, StorageError: It cannot be written.  In all these cases no file is left.
    """
    repo = registry.repo
    repo.require_writable()
    if isinstance(target, Path):
        _check_target(target, overwrite=overwrite)
    seal.seal(repo)
    with lock(repo):
        making = _Making(repo, select, since, artifacts=artifacts)
        making.report.file = "-" if isinstance(target, int) else str(target)
        making.report.dry_run = dry_run
        if not dry_run:
            progress("packing runs", 0, None)
            making.write(target, overwrite=overwrite, writing=writing)
    return making.report


class _Making:
    """Making one bundle: what is to be in it.

    Args:
        repo: The clone.
        select: Only these runs and models.
        since: What to leave out.
        artifacts: Put the files of runs in.

    Attributes:
        report: What is in it.

    Raises:
        NotFoundError: There is nothing to put in.
    """

    def __init__(self, repo: Repo, select: Selection, since: Sequence[Path | Remote], *, artifacts: bool) -> None:
        self._repo = repo
        self._basis = basis = _Basis(repo, since)
        self._plan = plan = Plan(repo, Remote("bundle@", ""), basis.refs, select, {})
        plan.look()
        for ref in plan.unknown:
            plan.skipped[ref] = "what it left out has something else there"
        self._moves = {ref: move.new for ref, move in {**plan.ledgers, **plan.others}.items() if move.new is not None}
        if not self._moves:
            raise _nothing(plan, basis.said)
        wanted = self._wanted()
        away = set(absent(repo, wanted))
        self._items = sorted(wanted - away) if artifacts else []
        self._absent = len(wanted) - len(self._items)
        runs = set().union(*plan.runs.values())
        self.report = BundleReport(
            file="",
            runs=len(runs),
            revised=len(set().union(*plan.revised.values()) - runs),
            ledgers=[ref for ref in self._moves if layout.parse_ledger_ref(ref) is not None],
            documents=[ref.rpartition("/")[2] for ref in self._moves if ref.startswith(layout.DOCUMENT_PREFIX)],
            tags=[ref.removeprefix("refs/tags/") for ref in self._moves if ref.startswith(layout.TAG_PREFIX)],
            files=len(self._items),
            size=sum(size for _, size in self._items),
            absent=len(away) if artifacts else 0,
            code=code_commits(repo, plan, basis.all),
            skipped=plan.skipped,
        )

    def _wanted(self) -> set[Item]:
        """The objects that its runs name and that are not there, as far as that is known."""
        repo, plan, basis = self._repo, self._plan, self._basis
        commits = plan.commits()
        if basis.whole and basis.all:
            spec = "".join(f"{oid}\n" for oid in commits) + "".join(f"^{oid}\n" for oid in basis.all.values())
            new = set(repo.git.program.run("rev-list", "--stdin", input=spec.encode()).decode().split())
            commits = {oid for oid in commits if oid in new}
        found = set(Item.of(repo.artifacts_in(commits)))
        return found - set(Item.of(repo.artifacts_in(plan.earlier))) if basis.whole else found

    def write(self, target: Path | int, *, overwrite: bool, writing: Bytes | None) -> None:
        """Write it; as ``bundle``."""
        if len(self._plan.batch):
            pin(self._repo, self._plan)
        try:
            with _temporary(_scratch(self._repo)) as (git, _):
                needed = _pack(self._repo, git, self._moves, self._basis)
                self.report.needed = len(needed)
                if isinstance(target, int):
                    self._write(target, git, self._manifest(git), writing)
                else:
                    self._write_file(target, git, overwrite=overwrite, writing=writing)
        finally:
            if len(self._plan.batch):
                unpin(self._repo)

    def _write_file(self, target: Path, git: int, *, overwrite: bool, writing: Bytes | None) -> None:
        """Under another name, until it is whole and on disk."""
        manifest = self._manifest(git)
        with _temporary(target.parent, target, mode=0o666) as (fd, temp):
            size = bundle_file.length(manifest, self._items)
            with files.reporting(target):
                if not files.fits(fd, size):
                    raise StorageError(f"there is no room for the {size:,} bytes of `{target}`",
                                       hint="make room, or leave files out: `--no-artifacts`, `--since`")  # fmt: skip
            self._write(fd, git, manifest, writing)
            with files.reporting(target):
                files.sync_file(fd)
            try:
                files.name_new(temp, target, replace=overwrite)
            except AlreadyExistsError as error:
                error.hint = "`--force` replaces it"
                raise

    def _write(self, fd: int, git: int, manifest: Manifest, writing: Bytes | None) -> None:
        done = 0

        def told(size: int) -> None:
            nonlocal done
            done += size
            if writing is not None:
                writing(done, self.report.size)

        self.report.length = bundle_file.length(manifest, self._items)
        os.lseek(git, 0, os.SEEK_SET)
        bundle_file.write(fd, manifest, git, self._repo.objects, self._items, told)

    def _manifest(self, git: int) -> Manifest:
        os.lseek(git, 0, os.SEEK_SET)
        with files.reporting("the git bundle", "read"):
            copied = files.copy_hashing(git, None)
        report = self.report
        return Manifest(
            writer=self._repo.writer,
            created=int(datetime.now(timezone.utc).timestamp() * 1000),
            object_format=self._repo.paths.object_format,
            git_size=copied.size,
            git_sha256=copied.digest,
            objects=report.files,
            size=report.size,
            absent=self._absent,
            runs=report.runs,
            revised=report.revised,
            whole=self._basis.whole and not self._absent,
            partial=len(self._plan.batch) > 0,
            since=tuple(self._basis.said),
            before=self._basis.refs,
        )


def _check_target(path: Path, *, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise NotFoundError(f"there is no folder `{path.parent}`", hint="make it first")
    if path.is_dir():
        raise InvalidValueError(f"`{path}` is a folder", hint="name a file in it")
    if not overwrite and os.path.lexists(path):
        raise AlreadyExistsError(f"`{path}` exists", hint="`--force` replaces it")


def _nothing(plan: Plan, since: Sequence[Basis]) -> NotFoundError:
    if plan.skipped:
        ref, why = next(iter(plan.skipped.items()))
        return NotFoundError(f"there is nothing to put into a bundle; `{ref}` was left out: {why}")
    if since:
        known = ", ".join(f"`{one.bundle or one.remote}`" for one in since)
        return NotFoundError(f"nothing is new since {known}; no bundle was written",
                             hint="without `--since`, a bundle has everything")  # fmt: skip
    return NotFoundError("there is nothing to put into a bundle", hint="`gittrack log` lists the runs")


class _Basis:
    """What whoever gets a bundle has already.

    Attributes:
        refs: Gittrack's refs there, as far as this clone has what they are at.
        all: These, and commits of code that are there.
        said: The same for people.
        whole: The files of runs are there too.
    """

    def __init__(self, repo: Repo, since: Sequence[Path | Remote]) -> None:
        self._repo = repo
        self.refs: dict[str, ObjectId] = {}
        self.all: dict[str, ObjectId] = {}
        self.said: list[Basis] = []
        self.whole = True
        for one in since:
            self._bundle(one) if isinstance(one, Path) else self._remote(one)

    def _bundle(self, path: Path) -> None:
        with _open(path) as fd, _about(path.name):
            reader = Reader(fd)
            manifest = reader.manifest
            _check_format(self._repo, manifest)
            had = (manifest.before, reader.head().refs)
        found = [self._add(refs) for refs in had]
        if not any(found) and not manifest.partial:
            raise NotFoundError(
                f"nothing of `{path.name}` is in this clone", hint=f"if it came from elsewhere: {_command(path.name)}"
            )
        self.whole = self.whole and manifest.whole
        self.said.append(Basis(bundle=path.name[:100], created=manifest.created))

    def _remote(self, remote: Remote) -> None:
        code = self._repo.git.refs(f"refs/remotes/{remote.name}/")
        self.all |= {ref: oid for ref, oid in code.items() if self._repo.git.exists(oid)}
        if not self._add(remote.seen_refs(self._repo)) and not code:
            raise NotFoundError(f"nothing was seen on remote `{remote.name}` yet",
                                hint=f"`gittrack fetch {remote.name}` looks")  # fmt: skip
        self.said.append(Basis(remote=remote.name[:100]))

    def _add(self, refs: Mapping[str, ObjectId]) -> bool:
        here = {ref: oid for ref, oid in refs.items() if self._repo.git.exists(oid)}
        for ref, oid in here.items():
            known = self.refs.get(ref)
            if known is None or not _descends(self._repo, known, oid):
                self.refs[ref] = oid
            self.all[f"{ref} {oid}"] = oid
        return bool(here)


def _descends(repo: Repo, new: ObjectId, old: ObjectId) -> bool:
    """True if one commit has another one in its history."""
    return repo.git.program.call("merge-base", "--is-ancestor", old, new).status == 0


def _pack(repo: Repo, git: int, moves: Mapping[str, ObjectId], basis: _Basis) -> list[ObjectId]:
    """Write the git bundle to an open file; the commits that it needs where it goes.

    Its pack has no deltas to objects that it leaves out: a partial clone may not have those.
    """
    program, store = repo.git.program, repo.git
    tips = "".join(f"{oid}\n" for oid in moves.values())
    there = "".join(f"^{oid}\n" for oid in dict.fromkeys(basis.all.values()))
    said = program.run("rev-list", "--boundary", "--stdin", input=(tips + there).encode()).decode().split()
    listed = {ObjectId(line) for line in said if not line.startswith("-")}
    here = {ObjectId(line[1:]): None for line in said if line.startswith("-")}
    for ref, oid in moves.items():  # what they leave out themselves, such as the run that a new tag is about
        commit = store.read_tag(oid).target if ref.startswith(layout.TAG_PREFIX) else oid
        if commit not in listed:
            here[commit] = None
    needed = sorted({**here, **dict.fromkeys(_cut_off(repo, listed))})
    head = Head(dict(sorted(moves.items())), tuple(needed))
    with files.reporting("the bundle"):
        files.write_all(git, head.encode(repo.paths.object_format))
    spec = tips + "".join(f"^{oid}\n" for oid in here)
    done = program.call(
        "pack-objects", "--revs", "--stdout", "--delta-base-offset", "-q", input=spec.encode(), target=git,
        env={"GIT_NO_LAZY_FETCH": "0"},  # a partial clone gets what it lacks of the code from its remote
    )  # fmt: skip
    if done.status != 0:
        raise _not_packed(done)
    return needed


def _cut_off(repo: Repo, listed: Iterable[ObjectId]) -> set[ObjectId]:
    """In a shallow clone, the commits behind those where its history ends."""
    if not repo.paths.shallow:
        return set()
    ends = {ObjectId(line) for line in (repo.paths.common_dir / "shallow").read_text("ascii").split()}
    return {parent for oid in ends.intersection(listed) for parent in repo.git.read_commit(oid).parents}


def _not_packed(done: Result) -> GittrackError:
    said = done.stderr.decode("utf-8", "replace")
    if full := _no_room(done):
        return StorageError(f"the runs cannot be packed: {full}", hint="make room and try again")
    last = next((line for line in said.splitlines() if line.startswith(("fatal: ", "error: "))), "no word from git")
    return GitError(f"the runs cannot be packed: {last.partition(': ')[2] or last}",
                    hint="`git fsck` says what is missing; a partial clone must reach its remote for it")  # fmt: skip


def _no_room(done: Result) -> str:
    """Why the system did not let git write; empty if that was not it."""
    if hasattr(signal, "SIGXFSZ") and done.status == -signal.SIGXFSZ:
        return "file too large"
    found = _FULL.search(done.stderr.decode("utf-8", "replace"))
    return "" if found is None else found[0].lower()


# -- taking over -------------------------------------------------------------------------------------------------------


def unbundle(
    registry: Registry,
    source: Path | int,
    *,
    dry_run: bool = False,
    progress: Progress = silent,
    reading: Bytes | None = None,
) -> UnbundleReport:
    """Take over what a bundle has; nothing of this clone's is overwritten.

    Args:
        registry: Runs and models of the clone.
        source: The file; or an open file or pipe, which is not closed.
        dry_run: Read and check all of it, and change nothing.
        progress: Told what is done.
        reading: Told about the bytes of files.

    Raises:
        NotFoundError: There is no such file; or the bundle builds on what is not in this clone.
        FormatError: It is no bundle, or not exactly as gittrack writes one.
        CorruptError: Some of its bytes are others than they were.
        RemoteDataError: git refuses its objects.  In all these cases no run or model has come.
        UnsupportedError: It is of a repository with other object ids.
        ConflictError, LockedError, ReadOnlyError, StorageError: What was done until then stays; call again.
    """
    repo = registry.repo
    name = "-" if isinstance(source, int) else str(source)
    if not dry_run:
        repo.require_writable()
        seal.seal(repo)
    with _open(source) as fd, _about(name):
        progress("reading", 0, None)
        taking = _Taking(registry, Reader(fd), name, progress, reading)
        if dry_run:
            return taking.look()
        with lock(repo):
            repo.git.heal_locks()
            return taking.take()


class _Taking:
    """Taking over one bundle.

    Args:
        registry: Runs and models of the clone.
        reader: The bundle.
        name: What it is called.
        progress: Told what is done.
        reading: Told about the bytes of files.
    """

    def __init__(
        self, registry: Registry, reader: Reader, name: str, progress: Progress, reading: Bytes | None
    ) -> None:
        self._registry = registry
        self._repo = registry.repo
        self._reader = reader
        self._manifest = reader.manifest
        self._progress = progress
        self._reading = reading
        self._read = 0
        # `@` is in no name of a remote; each clone that makes bundles is one of its own.
        self._remote = Remote(f"bundle@{self._manifest.writer}", name)
        self._report = UnbundleReport(name, self._manifest, False, [], {}, Published())
        _check_format(self._repo, self._manifest)

    def look(self) -> UnbundleReport:
        """Check everything and change nothing."""
        import tempfile

        report = self._report
        report.dry_run = True
        with tempfile.TemporaryDirectory(prefix="gittrack-") as folder, _temporary(Path(folder)) as (git, _):
            head = self._git(git)
            report.wanted = self._wanted(head)
            (Path(folder) / "pack").mkdir()
            self._index(git, head, Path(folder))
        for item in self._reader.objects():
            if not self._repo.objects.has(item.digest, item.size):
                report.files, report.size = report.files + 1, report.size + item.size
            self._reader.check(item, self._told)
        return report

    def take(self) -> UnbundleReport:
        """Take it over."""
        repo, report, remote = self._repo, self._report, self._remote
        with _temporary(_scratch(repo)) as (git, _):
            head = self._git(git)
            found = Fetched(dict(head.refs), dict(head.refs), self._wanted(head))
            report.wanted = found.wanted
            pack = None
            try:
                if found.wanted:
                    self._progress("looking at git objects", 0, None)
                    pack = self._index(git, head)
                self._bring(found, head)
            finally:
                if pack is not None:
                    pack.release()
        report.refused = found.refused
        good = {ref: oid for ref, oid in head.refs.items() if ref not in found.refused}
        self._objects(head, good, strict=not found.refused)
        report.published = publishing.publish(self._registry, remote, partial=self._manifest.partial)
        self._forget()
        return report

    def _git(self, git: int) -> Head:
        """The head of the git bundle, which is in an open file then, looked at and with all that it needs."""
        self._reader.git(git)
        os.lseek(git, 0, os.SEEK_SET)
        head = Head.read(git, self._manifest.object_format)
        kinds = self._repo.git.headers(head.needed)
        missing = [oid for oid in head.needed if oid not in kinds or kinds[oid].kind != "commit"]
        if missing:
            raise _not_here(self._report.file, self._manifest, missing)
        return head

    def _wanted(self, head: Head) -> list[str]:
        """The refs that are new here, or have moved, and were not looked at yet."""
        git, seen = self._repo.git, self._remote.seen_refs(self._repo)
        wanted = []
        for ref, oid in head.refs.items():
            mine = git.ref(ref)
            if oid in (mine, seen.get(ref)):
                continue
            moves = mine is not None and not ref.startswith(layout.TAG_PREFIX) and git.exists(oid)
            if not (moves and _descends(self._repo, ObjectId(str(mine)), oid)):
                wanted.append(ref)
        return wanted

    def _index(self, git: int, head: Head, objects: Path | None = None) -> PackOnDisk | None:
        """Put the pack among this clone's, after git's check of every object; None if it has no object.

        Args:
            git: The git bundle.
            head: Its head.
            objects: Put it there instead.
        """
        os.lseek(git, head.length, os.SEEK_SET)
        if os.read(git, 12)[8:] == bytes(4):
            return None
        os.lseek(git, head.length, os.SEEK_SET)
        done = self._repo.git.program.call(
            "index-pack", "--stdin", "--fsck-objects", f"--keep={keep_text()}",
            f"--max-input-size={self._manifest.git_size}", source=git,
            env=None if objects is None else {"GIT_OBJECT_DIRECTORY": str(objects)},
        )  # fmt: skip
        if done.status != 0:
            raise _not_indexed(done)
        kind, _, oid = done.stdout.decode("ascii", "replace").strip().partition("\t")
        folder = (objects or self._repo.paths.common_dir / "objects") / "pack"
        files.sync_dir(folder)
        pack = PackOnDisk(folder / f"pack-{oid}")
        os.lseek(git, -(len(oid) // 2), os.SEEK_END)
        if os.read(git, 1 << 10).hex() != oid:  # its sum, which is the last of it
            pack.release()
            raise FormatError(f"something follows the pack in its `{bundle_file.GIT}`")
        return pack if kind == "keep" else None

    def _bring(self, found: Fetched, head: Head) -> None:
        """Fetch into quarantine from the head of the bundle and an empty pack, and look at everything."""
        object_format = self._manifest.object_format
        with _temporary(_scratch(self._repo)) as (fd, path):
            with files.reporting(path):
                alone = Head(head.refs, ()).encode(object_format) + bundle_file.empty_pack(object_format)
                files.write_all(fd, alone)
            transport = Transport(self._repo, self._remote, progress=self._progress, bundle=path)
            bring(self._registry, transport, found, whole=False)

    def _named(self, head: Head, good: Mapping[str, ObjectId]) -> dict[str, int]:
        """The objects that the bundle's runs name, and their sizes."""
        git, before = self._repo.git, self._manifest.before
        commits: set[ObjectId] = set()
        for ref, oid in good.items():
            if layout.parse_ledger_ref(ref) is not None:
                old = before.get(ref)
                base = old if old in head.needed else None
                commits.update(new for _, _, new in git.ledger_diff(base, oid) if new is not None)
            elif ref.startswith(layout.TAG_PREFIX):
                commits.add(git.read_tag(oid).target)
        return {item.digest: item.size for item in Item.of(self._repo.artifacts_in(commits))}

    def _objects(self, head: Head, good: Mapping[str, ObjectId], *, strict: bool) -> None:
        """Keep the objects that runs name and that are not here."""
        store, report, unknown = self._repo.objects, self._report, 0
        named: dict[str, int] | None = None  # asked for when the first object is not here
        with Arrivals(store, self._manifest.objects) as arrivals:
            for item in self._reader.objects():
                if store.has(item.digest, item.size):
                    self._told(item.size)
                    continue
                named = self._named(head, good) if named is None else named
                if named.get(item.digest) != item.size:
                    unknown += 1
                    continue
                if item.size <= bundle_file.SMALL:
                    arrivals.add(self._reader.read(), item.digest)
                    self._told(item.size)
                else:
                    with arrivals.part(item.digest, item.size) as part:
                        if part is not None:
                            self._reader.fill(part, self._told)
                report.files, report.size = report.files + 1, report.size + item.size
        if unknown and strict:
            raise FormatError(f"it has {unknown:,} objects that none of its runs names")

    def _told(self, size: int) -> None:
        self._read += size
        if self._reading is not None:
            self._reading(self._read, self._manifest.size)

    def _forget(self) -> None:
        """A bundle is no place to ask again: but for the numbers of tags, nothing of it has to be remembered."""
        git, remote = self._repo.git, self._remote
        gone = [
            RefUpdate(remote.seen(ref), oid, None)
            for ref, oid in remote.seen_refs(self._repo).items()
            if not ref.startswith(layout.TAG_PREFIX)
        ]
        if gone:
            git.publish(git.batch(), gone)


def _not_indexed(done: Result) -> GittrackError:
    said = done.stderr.decode("utf-8", "replace")
    if full := _no_room(done):
        return StorageError(f"the git objects of the bundle cannot be written: {full}",
                            hint="make room; the same command again goes on from there")  # fmt: skip
    known = failure(said, done.status, "the bundle", "")
    if isinstance(known, RemoteDataError):
        return known
    last = next((line for line in said.splitlines() if line.startswith(("fatal: ", "error: "))), "no word from git")
    return RemoteDataError(f"git refuses its objects: {last.partition(': ')[2] or last}")


def _not_here(name: str, manifest: Manifest, missing: Sequence[ObjectId]) -> NotFoundError:
    """The error about commits that a bundle builds on."""
    shown = ", ".join(f"`{oid[:10]}`" for oid in missing[:3]) + (" …" if len(missing) > 3 else "")
    what = f"commit {shown}" if len(missing) == 1 else f"{len(missing):,} commits, {shown}"
    text = f"bundle `{name:.200}` builds on {what}, not in this clone"
    former = [one for one in manifest.since if one.bundle]
    if former:
        day = datetime.fromtimestamp(former[-1].created / 1000, timezone.utc).date()
        text += f"; it was made to follow `{former[-1].bundle:.100}` of {day}"
        return NotFoundError(text, hint=f"first {_command(former[-1].bundle)}; or ask for one made without `--since`")
    if manifest.since:
        remote = manifest.since[-1].remote
        text += f"; it leaves out what remote `{remote:.100}` of whoever made it has"
        return NotFoundError(text, hint="pull from there first, or ask for one made without `--since`")
    return NotFoundError(text, hint="it comes from a shallow clone: fetch the code's history with git first")


def _command(name: str) -> str:
    return f"`gittrack unbundle {name}`" if _PLAIN.fullmatch(name) else "`gittrack unbundle` that one"


def _check_format(repo: Repo, manifest: Manifest) -> None:
    if manifest.object_format != repo.paths.object_format:
        raise UnsupportedError(
            f"it is of a repository with {manifest.object_format} object ids, this one has {repo.paths.object_format}",
            hint=f"`git init --object-format={manifest.object_format}` makes a repository that can take it",
        )


# -- files -------------------------------------------------------------------------------------------------------------


def _scratch(repo: Repo) -> Path:
    """A folder for what is on its way; what a crash leaves there goes with time."""
    folder = repo.objects.root / "tmp"
    files.make_dirs(folder)
    return folder


@contextlib.contextmanager
def _temporary(folder: Path, about: Path | None = None, *, mode: int = 0o600) -> Iterator[tuple[int, Path]]:
    """A file that goes when the block ends, unless it has got another name."""
    fd, path = files.create_temp(folder, mode, about=about)
    try:
        yield fd, path
    finally:
        os.close(fd)
        files.discard(path)


@contextlib.contextmanager
def _open(source: Path | int) -> Iterator[int]:
    if isinstance(source, int):
        yield source
        return
    if not source.exists():
        raise NotFoundError(f"there is no file `{source}`", hint="`gittrack bundle FILE` makes one")
    try:
        fd = files.open_source(source.resolve())  # a link that the person names is followed
    except InvalidValueError as error:
        error.hint = "name a file; `-` is standard input"
        raise
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Says of errors about what a bundle has in it which one it is."""
    try:
        yield
    except (CorruptError, UnsupportedError) as error:
        error.message = f"bundle `{name:.200}`: {error.message}"
        raise


__all__ = ["BundleReport", "UnbundleReport", "basis", "bundle", "unbundle"]
