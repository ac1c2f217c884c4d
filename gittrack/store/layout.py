"""Where things lie inside a run commit, a ledger and `.gittrack/`: every name and its parser, side by side.

Design sections 2 to 4; `gittrack help storage` is the public description.  Knows names and bytes, no files, no git.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from gittrack.errors import FormatError
from gittrack.types import Artifact, Digest, ObjectId

FOLDER: Final = ".gittrack"
RECORD: Final = "run.msgpack"
METRICS: Final = "metrics"
ARTIFACTS: Final = "artifacts"
EXPERIMENT_FILE: Final = "experiment.msgpack"
TOMBSTONES: Final = "tombstones.msgpack"
FOLDED: Final = "folded.msgpack"

#: Below it the ledgers; `gittrack.refPrefix` moves it for hosts that refuse refs outside heads and tags.
LEDGER_PREFIX: Final = "refs/runs/"
#: Annotated tags at run commits, which keep those alive whatever becomes of the ledgers.
TAG_PREFIX: Final = "refs/tags/models/"
#: One ref of editable documents per writer.
DOCUMENT_PREFIX: Final = "refs/gittrack/registry/"
#: What was last seen on a remote: ``<remote>/runs/…``, ``<remote>/registry/…``, ``<remote>/tags/models/…``.
REMOTE_PREFIX: Final = "refs/gittrack/remotes/"
#: What is being fetched and was not looked at yet, likewise.
INCOMING_PREFIX: Final = "refs/gittrack/incoming/"
#: Derived: the metrics under each commit of code, for `git log --notes=gittrack`.
NOTES_REF: Final = "refs/notes/gittrack"

DEFAULT_EXPERIMENT_ID: Final = "0"
DEFAULT_EXPERIMENT_NAME: Final = "Default"
#: The run that keeps the files that are of no run, and where it is: no name of an experiment leads to this id.
TREE_EXPERIMENT_ID: Final = "1"
TREE_RUN_ID: Final = "artifacts"

_WRITER = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LEDGER = re.compile(r"refs/runs/([0-9]{1,19})/([a-z0-9][a-z0-9-]{0,62})")
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n"
)
_DERIVED = re.compile(r"[1-9][0-9]{17}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: A pointer is three short lines; anything longer is no pointer and is not read.
MAX_POINTER: Final = 200


def ledger_ref(experiment_id: str, writer: str) -> str:
    """The ref of one writer's ledger of one experiment."""
    return f"{LEDGER_PREFIX}{experiment_id}/{writer}"


def is_writer(text: str) -> bool:
    """True for what can be a clone's writer id."""
    return _WRITER.fullmatch(text) is not None


def parse_ledger_ref(ref: str) -> tuple[str, str] | None:
    """(experiment id, writer) of a ledger ref; None for any other ref."""
    match = _LEDGER.fullmatch(ref)
    return None if match is None else (match[1], match[2])


def tombstone(run_id: str) -> str:
    """What a ledger keeps of a purged run: enough to recognise it, not enough to name it."""
    return hashlib.sha256(f"gittrack-purged:{run_id}".encode()).hexdigest()


def check_tombstones(raw: object) -> frozenset[str]:
    """The tombstones of a ledger, from its file unpacked.  Raises FormatError."""
    if not isinstance(raw, list) or not all(isinstance(item, str) and _SHA256.fullmatch(item) for item in raw):
        raise FormatError("tombstones are not a list of sha256")
    return frozenset(raw)


def check_folded(raw: object) -> dict[str, ObjectId]:
    """The ledgers that were folded into one: writer to the commit it was at, from the file unpacked.

    Raises:
        FormatError: It is no such map.
    """
    if not isinstance(raw, dict) or not all(
        _WRITER.fullmatch(writer) and isinstance(oid, str) and _OID.fullmatch(oid) for writer, oid in raw.items()
    ):
        raise FormatError("folded ledgers are not a map of writers to commits")
    return {writer: ObjectId(oid) for writer, oid in raw.items()}


def experiment_id_of(name: str, attempt: int = 0) -> str:
    """The id that an experiment of this name gets in every clone: 18 decimal digits of the name's sha256.

    Args:
        name: The experiment's name.
        attempt: Counts up when the id belongs to an experiment that was renamed since.
    """
    if name == DEFAULT_EXPERIMENT_NAME and attempt == 0:
        return DEFAULT_EXPERIMENT_ID
    text = name if attempt == 0 else f"{name}\0{attempt}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return str(10**17 + number % (9 * 10**17))


def is_derived_id(text: str) -> bool:
    """True for what ``experiment_id_of`` makes of some name."""
    return text == DEFAULT_EXPERIMENT_ID or _DERIVED.fullmatch(text) is not None


def pointer(digest: Digest, size: int) -> bytes:
    """A git-lfs pointer file (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()


def parse_pointer(path: str, data: bytes) -> Artifact:
    """The artifact that the pointer file at ``path`` stands for.

    Raises:
        FormatError: Not exactly a pointer as ``pointer`` writes it.
    """
    match = _POINTER.fullmatch(data)
    if match is None:
        raise FormatError(f"artifact `{path}` is not a git-lfs pointer")
    return Artifact(path, Digest(match[1].decode()), int(match[2]))


def check_part(name: str) -> None:
    """Refuse a tree entry that would leave its folder when it is written out.  Raises FormatError.

    git's own checks pass backslashes and, unless asked, dots; a commit may come from anywhere.
    """
    if name in ("", ".", "..") or any(c in name for c in "/\\\0") or name.lower() == ".git":
        raise FormatError(f"artifact folder has an entry named `{name!r:.80}`")


def check_path(path: object) -> None:
    """Refuse what is no path of an artifact: relative, with ``/``, no part leaving its folder.  Raises FormatError."""
    if not isinstance(path, str):
        raise FormatError("the path of an artifact is not text")
    for name in path.split("/"):
        check_part(name)


def check_digest(digest: object) -> Digest:
    """``digest`` if it is a sha256 in lower-case hex.  Raises FormatError."""
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise FormatError(f"`{digest!s:.80}` is not a sha256")
    return Digest(digest)


def overlay(found: dict[str, Artifact], changes: Mapping[str, Artifact | None]) -> None:
    """Change a run's artifacts by path, in the order of the changes; None removes.

    One name cannot be a file and a folder: as on a disk where one is put in the place of the other, the later stays.
    """
    folders = Counter(folder for path in found for folder in folders_of(path))

    def drop(path: str) -> None:
        if found.pop(path, None) is not None:
            folders.subtract(folders_of(path))

    for path, artifact in changes.items():
        drop(path)
        if artifact is None:
            continue
        for folder in folders_of(path):
            drop(folder)
        if folders[path]:
            for inside in [other for other in found if other.startswith(f"{path}/")]:
                drop(inside)
        found[path] = artifact
        folders.update(folders_of(path))


def folders_of(path: str) -> list[str]:
    """The folders that ``path`` lies in: ``a`` and ``a/b`` for ``a/b/c``."""
    return [path[:at] for at, char in enumerate(path) if char == "/"]
