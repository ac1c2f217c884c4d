"""The file of a bundle: a tar archive of a manifest, a git bundle and artifacts by their sha256 (`help storage`).

Stock tools read it: `tar -x`, and `git bundle verify` on the member `git-bundle`.  It is read strictly and in one pass:
a member's header must be, byte for byte, the one that is written here for its name and size, so that there are no
links, devices, owners, extensions or other spellings of a name; order, sizes and amounts are what the manifest says.
Nothing is ever extracted under a name that the file gives.  Memory does not grow with the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import CorruptError, FormatError, shown
from gittrack.store import files, layout
from gittrack.sync.depots import Item
from gittrack.sync.remotes import is_shared
from gittrack.sync.transport import MAX_REFS
from gittrack.types import Digest, ObjectId

if TYPE_CHECKING:
    from gittrack.store.objects import ObjectStore, Part

VERSION: Final = 1
MANIFEST: Final = "gittrack-bundle.json"
GIT: Final = "git-bundle"
OBJECTS: Final = "objects/"

#: Greatest sizes, in bytes: the manifest, and the head of the git bundle (about a million lines).
MAX_MANIFEST: Final = 64 << 20
MAX_HEAD: Final = 128 << 20
#: Commits that a bundle may build on.
MAX_NEEDED: Final = 1_000_000
#: Bytes up to which an object goes through memory.
SMALL: Final = 1 << 20

_BLOCK: Final = 512
_PIECE: Final = 1 << 18
_FORMAT: Final = "gittrack-bundle"
_NAME: Final = 200  #: characters of the name of a former bundle, or of a remote
_MAX_NUMBER: Final = 1 << 53  #: what every reader of JSON can hold
_MAX_TIME: Final = 253_402_300_800_000  #: milliseconds up to the year 10000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NEEDED: Final = re.compile(rb"-([0-9a-f]{40}|[0-9a-f]{64}) needed")
_REF: Final = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) (refs/[^\x00-\x20\x7f]{1,1000})")
_HEADS: Final = {"sha1": b"# v2 git bundle\n", "sha256": b"# v3 git bundle\n@object-format=sha256\n"}

Told = Callable[[int], None]


@dataclass(frozen=True)
class Basis:
    """What a bundle leaves out, because whoever gets it has it.

    Attributes:
        bundle: Name of the file of a former bundle; empty if it was a remote.
        remote: Name of a remote of whoever made the bundle; empty if it was a bundle.
        created: When the former bundle was made, in milliseconds since the epoch; 0 for a remote.
    """

    bundle: str = ""
    remote: str = ""
    created: int = 0


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.  Only what protects the reader is relied on; the rest is for people.

    Attributes:
        writer: The clone that made it.
        created: When, in milliseconds since the epoch.
        object_format: ``sha1`` or ``sha256``.
        git_size: Bytes of the git bundle.
        git_sha256: Their sha256.
        objects: How many objects it has.
        size: Their bytes.
        absent: Objects that its runs name and that whoever made it did not have.
        runs: Runs in it.
        revised: Of those, the ones that were in what it leaves out, and have been changed.
        whole: It lacks no file of its runs, nor do those that it follows.
        partial: Its ledgers list only some of the runs that they have.
        since: What it leaves out.
        before: The refs that it expects where it goes, and where they are there.
    """

    writer: str
    created: int
    object_format: str
    git_size: int
    git_sha256: str
    objects: int
    size: int
    absent: int = 0
    runs: int = 0
    revised: int = 0
    whole: bool = True
    partial: bool = False
    since: tuple[Basis, ...] = ()
    before: dict[str, ObjectId] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Its bytes in a bundle."""
        facts = {"format": _FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps(facts, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """The manifest that these bytes are.  Raises FormatError."""
        raw = _object(_json(data))
        if raw.get("format") != _FORMAT:
            raise FormatError("its manifest is none of gittrack's")
        if raw.get("version") != VERSION:
            raise FormatError(f"its format has version {shown(raw.get('version'))}", hint="update gittrack")
        if wrong := raw.keys() ^ {"format", "version", *cls.__dataclass_fields__}:
            raise FormatError(f"its manifest has, or lacks, {shown(min(wrong))}")
        numbers = {name: _number(raw[name]) for name in _NUMBERS}
        _number(raw["created"], _MAX_TIME)
        if not isinstance(raw["writer"], str) or not layout.is_writer(raw["writer"]):
            raise FormatError("its manifest names no writer")
        if not (
            raw["object_format"] in ("sha1", "sha256")
            and isinstance(raw["whole"], bool)
            and isinstance(raw["partial"], bool)
            and isinstance(raw["git_sha256"], str)
            and _SHA256.fullmatch(raw["git_sha256"])
            and isinstance(raw["since"], list)
        ):
            raise FormatError("its manifest has a value that cannot be")
        return cls(
            writer=raw["writer"],
            object_format=raw["object_format"],
            git_sha256=raw["git_sha256"],
            whole=raw["whole"],
            partial=raw["partial"],
            since=tuple(map(_basis, raw["since"])),
            before=_refs(raw["before"], raw["object_format"]),
            **numbers,
        )


_NUMBERS: Final = ("created", "git_size", "objects", "size", "absent", "runs", "revised")


def _json(data: bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise FormatError("its manifest has a key twice")
        return made

    def none(text: str) -> Any:
        raise FormatError(f"its manifest has the number `{text:.20}`")

    try:
        return json.loads(data.decode(), object_pairs_hook=once, parse_constant=none, parse_float=none)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError too
        raise FormatError("its manifest cannot be read") from error


def _object(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise FormatError("its manifest has a value that cannot be")
    return raw


def _number(raw: Any, end: int = _MAX_NUMBER) -> int:
    if type(raw) is not int or not 0 <= raw < end:
        raise FormatError(f"its manifest has the number {shown(raw)}")
    return raw


def _basis(raw: Any) -> Basis:
    known = _object(raw)
    if known.keys() != {"bundle", "remote", "created"}:
        raise FormatError("its manifest has a value that cannot be")
    for name in ("bundle", "remote"):
        if not isinstance(known[name], str) or len(known[name]) > _NAME:
            raise FormatError("its manifest has a name that cannot be")
    return Basis(known["bundle"], known["remote"], _number(known["created"], _MAX_TIME))


def _refs(raw: Any, object_format: str) -> dict[str, ObjectId]:
    oid = re.compile(r"[0-9a-f]{40}" if object_format == "sha1" else r"[0-9a-f]{64}")
    found = _object(raw)
    if len(found) > MAX_REFS:
        raise FormatError(f"its manifest has {len(found):,} refs")
    for ref, at in found.items():
        if not is_shared(ref) or not isinstance(at, str) or not oid.fullmatch(at):
            raise FormatError(f"its manifest has the ref {shown(ref)}")
    return {ref: ObjectId(at) for ref, at in found.items()}


# -- the git bundle ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """What stands before the pack in a git bundle (git help gitformat-bundle).

    Attributes:
        refs: Where each ref is.
        needed: Commits that are not in it, and that what is in it builds on.
        length: Bytes of it.
    """

    refs: dict[str, ObjectId]
    needed: tuple[ObjectId, ...]
    length: int = 0

    def encode(self, object_format: str) -> bytes:
        """Its bytes."""
        lines = [f"-{oid} needed\n" for oid in self.needed] + [f"{oid} {ref}\n" for ref, oid in self.refs.items()]
        return _HEADS[object_format] + "".join(lines).encode() + b"\n"

    @classmethod
    def read(cls, fd: int, object_format: str) -> Head:
        """The head of an open git bundle, which stands behind it then.

        Raises:
            FormatError: It is not exactly as ``encode`` writes it, or has refs that are none of gittrack's.
        """
        refs: dict[str, ObjectId] = {}
        needed: dict[ObjectId, None] = {}
        begin = _HEADS[object_format]
        at = os.lseek(fd, 0, os.SEEK_CUR)
        with open(fd, "rb", closefd=False) as file, files.reporting("the bundle", "read"):
            if file.read(len(begin)) != begin:
                raise FormatError(f"its `{GIT}` is no git bundle of a repository with {object_format}")
            while (line := file.readline(1100)) != b"\n":
                if file.tell() - at > MAX_HEAD or len(refs) > MAX_REFS or len(needed) > MAX_NEEDED:
                    raise FormatError(f"its `{GIT}` has more refs than there can be")
                commit, ref = _NEEDED.fullmatch(line[:-1]), _REF.fullmatch(line[:-1])
                match = commit or ref
                if match is None or len(match[1]) != {"sha1": 40, "sha256": 64}[object_format]:
                    raise FormatError(f"its `{GIT}` has the line {shown(line[:200].decode('utf-8', 'replace'))}")
                oid = ObjectId(match[1].decode())
                if ref is None:
                    needed[oid] = None
                    continue
                name = ref[2].decode("utf-8", "replace")
                if not is_shared(name) or name in refs:
                    raise FormatError(f"its `{GIT}` has the ref {shown(name)}")
                refs[name] = oid
            length = file.tell() - at
        os.lseek(fd, at + length, os.SEEK_SET)
        return cls(refs, tuple(needed), length)


def empty_pack(object_format: str) -> bytes:
    """A pack without objects."""
    data = b"PACK" + (2).to_bytes(4, "big") + bytes(4)
    return data + hashlib.new(object_format, data, usedforsecurity=False).digest()


# -- writing -----------------------------------------------------------------------------------------------------------


def header(name: str, size: int) -> bytes:
    """The header of a member: a read-only file of nobody's, without a time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o444
    return member.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What follows a member of that size up to the next header."""
    return bytes(-size % _BLOCK)


def length(manifest: Manifest, items: Iterable[Item]) -> int:
    """Bytes of a bundle."""
    sizes = [len(manifest.encode()), manifest.git_size, *(item.size for item in items)]
    return sum(_BLOCK + size + -size % _BLOCK for size in sizes) + 2 * _BLOCK


def write(fd: int, manifest: Manifest, git: int, objects: ObjectStore, items: Iterable[Item], told: Told) -> None:
    """Write a bundle to an open file or a pipe.

    Args:
        fd: Where to.
        manifest: Its manifest.
        git: The git bundle, open at its beginning.
        objects: Where the objects are.
        items: The objects, by sha256 in ascending order.
        told: Hears the bytes of every piece of an object.

    Raises:
        CorruptError, NotFoundError: An object is not what its name says, or is gone.
        BrokenPipeError: Nobody reads any more.
        StorageError: It cannot be written.
    """
    said = manifest.encode()
    _put(fd, header(MANIFEST, len(said)) + said + padding(len(said)) + header(GIT, manifest.git_size))
    _copy(git, fd, manifest.git_size, manifest.git_sha256, lambda _size: None)
    _put(fd, padding(manifest.git_size))
    for digest, size in items:
        begin = header(OBJECTS + digest, size)
        if size <= SMALL:
            data = objects.read(digest)
            if len(data) != size:
                raise CorruptError(f"artifact object `{digest}` has {len(data)} bytes, not {size}")
            _put(fd, begin + data + padding(size))
            told(size)
            continue
        with objects.descriptor(digest) as source:
            _put(fd, begin)
            _copy(source, fd, size, digest, told)
        _put(fd, padding(size))
    _put(fd, bytes(2 * _BLOCK))


def _copy(source: int, fd: int, size: int, digest: str, told: Told) -> None:
    with files.reporting(digest, "read"):
        copied = files.copy_hashing(source, fd, length=size, told=told)
    if copied.failed is not None:
        _refuse(copied.failed)
    if (copied.digest, copied.size) != (digest, size):
        raise CorruptError(f"artifact object `{digest}` has other bytes than its name says",
                           hint="`gittrack fsck --full` lists all such objects")  # fmt: skip


def _put(fd: int, data: bytes) -> None:
    try:
        files.write_all(fd, data)
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> None:
    if isinstance(error, BrokenPipeError):
        raise error
    raise files.failure(error, "the bundle") from error


# -- reading -----------------------------------------------------------------------------------------------------------


class Reader:
    """Reads a bundle in one pass: its manifest at once, then ``git``, then ``objects``.

    Args:
        fd: An open file, or a pipe.

    Attributes:
        manifest: What it says about itself.
        last: True when all of it was read, and nothing follows.

    Raises:
        FormatError: It is no bundle, or not whole.
        StorageError: It cannot be read.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._seekable = _is_file(fd)
        self._left = 0  # bytes of the present member that were not read
        self._pad = 0
        self.last = False
        block = self._take(_BLOCK, "it is no bundle of gittrack's")
        if block.startswith((b"# v2 git bundle\n", b"# v3 git bundle\n")):
            raise FormatError("it is a bundle of git's, not of gittrack's", hint="`git fetch FILE` reads it")
        name, size = _parse(block)
        if name != MANIFEST or size > MAX_MANIFEST:
            raise FormatError("it is no bundle of gittrack's", hint="`gittrack bundle FILE` makes one")
        self._begin(size)
        self.manifest = Manifest.decode(self._data(size))

    def head(self) -> Head:
        """The head of the git bundle, instead of all of it; only of a file.  Raises FormatError."""
        self._find_git()
        return Head.read(self._fd, self.manifest.object_format)

    def _find_git(self) -> None:
        if self._next() != (GIT, self.manifest.git_size):
            raise FormatError(f"its second part is not the `{GIT}` of {self.manifest.git_size:,} bytes that it names")

    def git(self, target: int) -> None:
        """Write the git bundle to an open file.  Raises FormatError, CorruptError, StorageError."""
        self._find_git()
        with files.reporting("the bundle", "read"):
            copied = files.copy_hashing(self._fd, target, length=self._left)
        if copied.failed is not None:
            raise files.failure(copied.failed, "the git objects of the bundle")
        self._left -= copied.size
        if self._left:
            raise _cut_off()
        if copied.digest != self.manifest.git_sha256:
            raise CorruptError(f"its `{GIT}` has other bytes than whoever made it wrote", hint=_ANEW)

    def objects(self) -> Iterator[Item]:
        """The objects; each must be read with ``read``, ``fill`` or ``check``, or is passed over.

        Raises:
            FormatError: Something else is there, they are not in order, or not as many as the manifest says.
        """
        before, count, size = "", 0, 0
        while (found := self._next()) is not None:
            digest = found[0].removeprefix(OBJECTS)
            if digest == found[0] or not _SHA256.fullmatch(digest):
                raise FormatError(f"it has a part {shown(found[0])}")
            if digest <= before:
                raise FormatError(f"its object `{digest[:12]}` is there twice, or not in its place")
            before, count, size = digest, count + 1, size + found[1]
            if count > self.manifest.objects or size > self.manifest.size:
                raise FormatError("it has more objects than it says")
            yield Item(Digest(digest), found[1])
        if (count, size) != (self.manifest.objects, self.manifest.size):
            raise FormatError("it has fewer objects than it says", hint=_ANEW)
        self.last = True

    def read(self) -> bytes:
        """All bytes of a small object.  Raises FormatError."""
        return self._data(self._left)

    def fill(self, part: Part, told: Told) -> None:
        """Make a part an object with the bytes of this one.  Raises CorruptError, FormatError, StorageError."""
        size, have = self._left, 0

        def count(amount: int) -> None:
            nonlocal have
            have += amount
            told(amount)

        try:
            part.take(self._fd, count)
        except CorruptError as error:
            if have < size:
                raise _cut_off() from error
            raise
        finally:
            self._left -= have

    def check(self, item: Item, told: Told) -> None:
        """Read an object and keep nothing.  Raises CorruptError if its bytes are others, FormatError."""
        with files.reporting("the bundle", "read"):
            copied = files.copy_hashing(self._fd, None, length=self._left, told=told)
        self._left -= copied.size
        if self._left:
            raise _cut_off()
        if copied.digest != item.digest:
            raise CorruptError(f"other bytes than those of `{item.digest}` were sent", hint=_ANEW)

    # ------------------------------------------------------------------------------------------------------------

    def _next(self) -> tuple[str, int] | None:
        """Name and size of the next member; None at the end."""
        self._skip()
        block = self._take(_BLOCK)
        if not any(block):
            if any(self._take(_BLOCK)):
                raise FormatError("something follows its end")
            with files.reporting("the bundle", "read"):
                if os.read(self._fd, 1):
                    raise FormatError("something follows its end")
            return None
        name, size = _parse(block)
        self._begin(size)
        return name, size

    def _begin(self, size: int) -> None:
        self._left, self._pad = size, -size % _BLOCK

    def _data(self, size: int) -> bytes:
        data = self._take(size)
        self._left -= size
        return data

    def _skip(self) -> None:
        """Go to the end of the present member."""
        with files.reporting("the bundle", "read"):
            if self._seekable and self._left > _PIECE:
                if self._left > os.fstat(self._fd).st_size - os.lseek(self._fd, 0, os.SEEK_CUR):
                    raise _cut_off()
                os.lseek(self._fd, self._left, os.SEEK_CUR)
                self._left = 0
        while self._left:
            self._left -= len(self._take(min(self._left, _PIECE)))
        if any(self._take(self._pad)):
            raise FormatError("something stands between its parts")
        self._pad = 0

    def _take(self, size: int, why: str | None = None) -> bytes:
        pieces: list[bytes] = []
        with files.reporting("the bundle", "read"):
            while size and (piece := os.read(self._fd, min(size, _PIECE))):
                pieces.append(piece)
                size -= len(piece)
        if size:
            raise _cut_off() if why is None else FormatError(why, hint="`gittrack bundle FILE` makes one")
        return b"".join(pieces)


_ANEW: Final = "get the file anew; what was read until there need not be read again"


def _cut_off() -> FormatError:
    return FormatError("it ends in the middle: the file was cut off", hint=_ANEW)


def _is_file(fd: int) -> bool:
    import stat

    with files.reporting("the bundle", "read"):
        return stat.S_ISREG(os.fstat(fd).st_mode)


def _parse(block: bytes) -> tuple[str, int]:
    """Name and size of the member whose header this is.  Raises FormatError for all but exactly what we write."""
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        same = member.size >= 0 and header(member.name, member.size) == block
    except (tarfile.TarError, ValueError) as error:
        raise FormatError("it has a part that cannot be read", hint=_ANEW) from error
    if not same:
        raise FormatError(f"its part {shown(member.name)} is not a plain file as gittrack writes it")
    return member.name, member.size


__all__ = ["Basis", "Head", "Manifest", "Reader", "empty_pack", "header", "length", "padding", "write"]
