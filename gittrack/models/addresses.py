"""From a model's address to a private folder with its files, every byte of which was verified.

Addresses are ``models:/name/3``, ``models:/name/Production``, ``models:/name@champion``, ``models:/name/latest``,
``models:/m-<id>``, the same as ``name@v3``, ``name@production``, ``name@champion``, ``runs:/<run id>/<path>``, a folder
as a path or a ``file:`` address.  What is in the folder is loaded from there and from nowhere else, so that nobody can
put other bytes in between.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from gittrack import config, stores
from gittrack.errors import FormatError, InvalidValueError, NotFoundError, PolicyError, UnsupportedError
from gittrack.models import requirements
from gittrack.models.model import Model
from gittrack.models.trust import Trust, decide
from gittrack.registry import names
from gittrack.registry.manifest import Manifest
from gittrack.store import files
from gittrack.sync import artifacts
from gittrack.track import limits
from gittrack.track.logged_models import LoggedModels
from gittrack.types import Artifact, Digest, ModelVersion, check_run_id

if TYPE_CHECKING:
    from gittrack.remote.folders import Folder
    from gittrack.remote.tracking import RemoteTracker
    from gittrack.track.runs import Tracker

_MODEL_ID: Final = re.compile(r"m-[A-Za-z0-9_-]{1,253}")
_MAX_FILES: Final = 100_000
_MAX_READ: Final = 64 << 20
#: Of a file whose digest is not known before it is here.
_UNKNOWN: Final = Digest("")


def is_model_id(text: object) -> bool:
    """True for ``m-`` and what an id can have: 32 hex digits, if it was made here."""
    return isinstance(text, str) and _MODEL_ID.fullmatch(text) is not None


def model_id_of(address: str) -> str | None:
    """The logged model that ``models:/m-…`` names; None if it is another address."""
    scheme, colon, rest = address.partition(":")
    return rest.lstrip("/") if colon and scheme == "models" and is_model_id(rest.lstrip("/")) else None


@dataclass(frozen=True)
class Source:
    """Where a model's files are.

    Attributes:
        run_id: The run that logged it; None for a folder outside of any store.
        path: Its folder among the run's artifacts; as a path of this machine if there is no run.
        files: Path below that folder -> the artifact.  Empty if there is no run; without digests for a server's.
        version: The registered version, if the address names one.
        folder: The files on a server, if they are there.
    """

    run_id: str | None
    path: str
    files: Mapping[str, Artifact]
    version: ModelVersion | None = None
    folder: Folder | None = None

    def read(self, name: str, tracker: Tracker) -> bytes:
        """The bytes of one of the files.  Raises NotFoundError, CorruptError, NetworkError."""
        if self.folder is not None:
            return self.folder.read(name, _MAX_READ)
        return artifacts.read(tracker, self.files[name])

    def write(self, name: str, data: bytes, tracker: Tracker) -> None:
        """Put other bytes in the place of one of the files, of a model that is no registered version."""
        if self.folder is not None:
            with tempfile.TemporaryDirectory(prefix="gittrack-") as scratch:
                path = Path(scratch, "data")
                path.write_bytes(data)
                self.folder.send(name, path)
        elif self.run_id is not None:
            tracker.active_writer(self.run_id).log_bytes(data, f"{self.path}/{name}" if self.path else name)

    def remove(self, name: str, tracker: Tracker) -> None:
        """Drop one of the files."""
        if self.folder is not None:
            self.folder.remove(name)
        elif self.run_id is not None:
            path = f"{self.path}/{name}" if self.path else name
            tracker.active_writer(self.run_id).remove_artifacts([path])

    @property
    def local(self) -> bool:
        """Whether it is a folder outside of any store."""
        return self.run_id is None and self.folder is None


class LocalModel:
    """The verified files of a model in a folder of its own.

    The folder is removed with this object, unless ``keep`` was called or the caller chose the folder.

    Attributes:
        address: What was asked for.
        folder: Where the files are.
        model: What MLmodel says.
        manifest: The files with their digests.
        trust: Whether code that came with it may run.
        version: The registered version, if the address names one.
    """

    def __init__(
        self, address: str, folder: Path, manifest: Manifest, trust: Trust, version: ModelVersion | None, *, own: bool
    ) -> None:
        self.address = address
        self.folder = folder
        self.manifest = manifest
        self.trust = trust
        self.version = version
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True) if own else None
        self.model = Model.load(folder)

    @property
    def trusted(self) -> bool:
        """True if code that came with it may run."""
        return self.trust.granted

    def keep(self) -> None:
        """Let the folder stay for as long as the process runs: code in it was made importable."""
        if self._remove is not None and self._remove.detach():
            import atexit

            atexit.register(shutil.rmtree, self.folder, ignore_errors=True)


def fetch(
    uri: str | os.PathLike[str],
    *,
    trust: bool = False,
    dst: str | os.PathLike[str] | None = None,
    tracker: Tracker | None = None,
) -> LocalModel:
    """The model at an address, copied and verified; what is not in this clone is fetched from the remote.

    Args:
        uri: The address; see the module.
        trust: Code that came with the model may run.
        dst: A folder to copy into, which stays; else a private one is made, and removed when it is of no more use.
        tracker: The store; the one in use if not given.

    Raises:
        NotFoundError: No such model, version, stage, alias, run or path; says what exists.  Or nobody has its bytes.
        NetworkError: They cannot be fetched.
        ConflictError: Clones disagree about the stage or the alias.
        InvalidValueError, UnsupportedError: Not an address of a model.
        CorruptError: The bytes are not those that were logged or registered.
        FormatError: It is no model, or has links or names that lead out of it.
        PolicyError: The version does not fulfil what the team, or ``gittrack.requireSigned``, asks of it.
    """
    address = os.fspath(uri)
    source = locate(address, tracker=tracker)
    own = dst is None
    folder = Path(tempfile.mkdtemp(prefix="gittrack-model-")) if dst is None else Path(dst)
    try:
        if own:
            folder = folder.resolve()
        elif not folder.is_dir():
            raise NotFoundError(f"there is no folder `{folder}` to copy the model into")
        elif any(folder.iterdir()):
            folder = Path(tempfile.mkdtemp(prefix="model-", dir=folder))
        if source.local:
            manifest = _copy_folder(Path(source.path), folder)
        elif source.folder is not None:
            manifest = _fetch_files(source, source.folder, folder)
            _override_requirements(source, folder, tracker or stores.tracker())
        else:
            manifest = _copy_artifacts(source, folder, tracker or stores.tracker())
            _override_requirements(source, folder, tracker or stores.tracker())
        trusted = _trust(address, source, tracker, trust=trust)
        return LocalModel(address, folder, manifest, trusted, source.version, own=own)
    except BaseException:
        if own:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _override_requirements(source: Source, folder: Path, tracker: Tracker) -> None:
    """Let the copy ask for what was decided since the version was registered, if anything was."""
    if source.version is not None:
        text = stores.registry(tracker).requirements(source.version.name, source.version.version)
        if text is not None and (
            source.folder is None or requirements.check(text.splitlines()) != requirements.read(folder)
        ):
            requirements.override(folder, text)


def _trust(address: str, source: Source, tracker: Tracker | None, *, trust: bool) -> Trust:
    version = source.version

    def signed() -> str | None:
        from gittrack.registry import signing
        from gittrack.registry.registry import Registry

        if version is None:
            return "it is no registered version, which could be signed"
        if source.folder is not None:
            return f"v{version.version} comes from a server, which shows no signatures"
        found = signing.verify_version(Registry(tracker or stores.tracker()).catalog, version)
        return None if found.valid else f"v{version.version} is not signed by anybody who may: {found.reason}"

    return decide(f"`{address}`", trust=trust, setting=config.current().trust, signed=signed)


# --- finding


def locate(address: str, *, tracker: Tracker | None = None) -> Source:
    """Where the model at an address is.  Raises as ``fetch``, but for the bytes."""
    scheme, colon, rest = address.partition(":")
    if (colon and scheme in ("models", "runs")) or ("@" in address and not colon and not Path(address).exists()):
        server = stores.server_of(tracker or stores.tracker())
        if server is not None:
            return _there(address, server)
    logged = model_id_of(address)
    if logged is not None:
        return _logged(logged, tracker or stores.tracker())
    if colon and scheme == "models":
        return _registered(rest.lstrip("/"), tracker or stores.tracker())
    if colon and scheme == "runs":
        run_id, _, path = rest.lstrip("/").partition("/")
        return _of_run(check_run_id(run_id), path, tracker or stores.tracker())
    if colon and scheme == "file":
        return _folder(_file_path(address))
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.\-]+:", address):
        raise UnsupportedError(
            f"models at `{scheme}:` addresses cannot be loaded",
            hint="models:/NAME/VERSION, NAME@ALIAS, runs:/RUN/PATH, or a folder",
        )
    if "@" in address and not Path(address).exists():
        return _registered(address, tracker or stores.tracker())
    return _folder(Path(address))


def _there(address: str, server: RemoteTracker) -> Source:
    """The model at an address on a server."""
    from gittrack.remote import addresses as remote

    found = remote.locate(server, address)
    version = found.version
    if version is not None:
        place = place_of(address, version)
        asked = [one for one in config.current().require_signed if one.lower() in (names_of(place), "versions")]
        if asked:
            raise PolicyError(
                f"`{asked[0]}` must be signed, and the server shows no signatures of `{address}`",
                hint="`gittrack pull` brings models with their signatures from a git remote",
            )
    listed = {one.path: Artifact(one.path, _UNKNOWN, one.file_size or 0) for one in found.folder.walk()}
    if "MLmodel" not in listed:
        raise NotFoundError(f"there is no model at `{address}`", hint="`log_model` logs one")
    return Source(found.run_id, found.folder.path, listed, version, found.folder)


def names_of(place: str | None) -> str:
    """A stage or ``@alias`` as settings name it."""
    return "" if place is None else place.lower()


def _file_path(address: str) -> Path:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path.startswith("/"):
        raise InvalidValueError(f"`{address:.200}` is no address of a folder here", hint="file:///PATH")
    return Path(unquote(parts.path))


def _folder(path: Path) -> Source:
    if not path.is_dir():
        raise NotFoundError(
            f"there is no folder `{path}`",
            hint="a registered model is NAME@ALIAS or models:/NAME/VERSION, a logged one runs:/RUN/PATH",
        )
    return Source(None, str(path), {})


def _registered(address: str, tracker: Tracker) -> Source:
    from gittrack.registry import policy
    from gittrack.registry.registry import Registry, require_here

    registry = Registry(tracker)
    version = registry.resolve(address)
    require_here(version)
    policy.check_load(registry.catalog, version, place_of(address, version))
    manifest = registry.manifest(version)
    found = {path: Artifact(path, digest, size) for path, (digest, size) in manifest.files.items()}
    return Source(version.run_id, version.path, found, version)


def place_of(address: str, version: ModelVersion) -> str | None:
    """The stage or alias that a version was asked for by; None if it was by its number, or as the latest."""
    wanted = names.parse_address(address)
    if wanted.word is not None and wanted.word in version.aliases:
        return f"@{wanted.word}"
    if wanted.word is not None and wanted.word.lower() == version.current_stage.lower():
        return version.current_stage
    return wanted.stage


def _of_run(run_id: str, path: str, tracker: Tracker) -> Source:
    path = limits.check_artifact_path(path) if path else ""
    path = place_in(tracker, run_id, path)
    kept = tracker.repo.artifacts(run_id)
    prefix = f"{path}/" if path else ""
    found = {name[len(prefix) :]: one for name, one in kept.items() if name.startswith(prefix)}
    if "MLmodel" not in found:
        models = sorted({name.removesuffix("/MLmodel") for name in kept if name.endswith("/MLmodel")})
        raise NotFoundError(
            f"run `{run_id}` has no model `{path}`",
            hint=f"it has {', '.join(models)}" if models else "it has no models; `log_model` logs one",
        )
    return Source(run_id, path, found)


def place_in(tracker: Tracker, run_id: str, path: str) -> str:
    """The folder that ``path`` of a run's artifacts means: itself, or that of the newest model of that name.

    A model that was logged through MLflow has a folder of another name.
    """
    if not path or tracker.repo.artifacts(run_id, path):
        return path
    models = tracker.repo.state(run_id).logged_models("")
    named = [model for model in models if model.name == path and model.path and model.lifecycle_stage == "active"]
    return max(named, key=lambda model: (model.creation_timestamp, model.model_id)).path if named else path


def _logged(model_id: str, tracker: Tracker) -> Source:
    run_id, folder = LoggedModels(tracker).files(model_id)
    return _of_run(run_id, folder, tracker)


# --- copying


def _copy_artifacts(source: Source, folder: Path, tracker: Tracker) -> Manifest:
    artifacts.bring(tracker, source.files.values())
    for name, artifact in source.files.items():
        tracker.repo.objects.copy_out(artifact.digest, folder / name, root=folder)
    found = {name: replace(artifact, path=name) for name, artifact in source.files.items()}
    return Manifest.of(found.values(), "")


def _fetch_files(source: Source, there: Folder, folder: Path) -> Manifest:
    """Fetch the files of a server, hashing what came; those that are not named plainly were refused before."""
    found = [
        Artifact(name, Digest(there.fetch(name, folder / name, size=one.size)), one.size)
        for name, one in source.files.items()
    ]
    return Manifest.of(found, "")


def _copy_folder(source: Path, target: Path) -> Manifest:
    """Copy a folder without following links, hashing what was copied."""
    found: list[Artifact] = []
    todo = [""]
    while todo:
        below = todo.pop()
        for entry in _entries(source / below):
            name = f"{below}{entry.name}"
            if entry.is_symlink():
                raise FormatError(f"`{name}` of the model is a link: only files of its own are loaded")
            if entry.is_dir(follow_symlinks=False):
                (target / name).mkdir()
                todo.append(f"{name}/")
            else:
                found.append(_copy_file(source / name, target / name, name))
        if len(found) > _MAX_FILES:
            raise FormatError(f"`{source}` has more than {_MAX_FILES} files")
    return Manifest.of(found, "")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with files.reporting(folder, "read"), os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)


def _copy_file(source: Path, target: Path, name: str) -> Artifact:
    try:
        fd = files.open_source(source)
    except InvalidValueError as error:
        raise FormatError(f"`{name}` of the model is no regular file") from error
    try:
        with files.reporting(target):
            out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with files.reporting(source, "read"):
                copied = files.copy_hashing(fd, out)
        finally:
            os.close(out)
        if copied.failed:
            raise files.failure(copied.failed, target)
        return Artifact(name, Digest(copied.digest), copied.size)
    finally:
        os.close(fd)
