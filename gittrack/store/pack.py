"""Git objects that are made in memory and written as one pack: what a commit of many runs costs a few syncs.

The pack lies beside a ``.keep`` file until the refs that name its objects are on disk, so that a ``git gc --prune=now``
or ``git repack -ad`` in between does not take it for garbage.  Its name is random, not its checksum: two processes that
make equal packs must never share (and clean up) each other's files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack.errors import InvalidValueError
from gittrack.store import files
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from dulwich.object_format import ObjectFormat

COMMIT_TYPE: Final = 1
TREE_TYPE: Final = 2
BLOB_TYPE: Final = 3
TAG_TYPE: Final = 4

_KEEP: Final = "gittrack "
#: After that long nobody is about to write into an empty ``.keep`` without a pack.
EMPTY_KEEP_SECONDS: Final = 60.0
#: Names that git refuses in a tree, or that a file system could take for `.git` (`git fsck --strict` is the judge).
_FORBIDDEN: Final = {b"", b".", b"..", b".git", b"git~1"}


class Batch:
    """Objects to be published together; each ``add_…`` returns the id the object will have.

    Not thread-safe.  Memory: the raw bytes of everything added.
    """

    def __init__(self, object_format: ObjectFormat) -> None:
        self._format = object_format
        self._objects: dict[bytes, tuple[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, oid: object) -> bool:
        return isinstance(oid, str) and bytes.fromhex(oid) in self._objects

    def add_raw(self, type_number: int, data: bytes) -> ObjectId:
        """Add an object by its type number and its content without header."""
        from dulwich.objects import object_header

        digest = self._format.new_hash()
        digest.update(object_header(type_number, len(data)))
        digest.update(data)
        self._objects[digest.digest()] = (type_number, data)
        return ObjectId(digest.hexdigest())

    def add_blob(self, data: bytes) -> ObjectId:
        """Add a file's content."""
        return self.add_raw(BLOB_TYPE, data)

    def add_tree(self, entries: Iterable[tuple[str, int, ObjectId]]) -> ObjectId:
        """Add a folder of (name, mode, id), in any order.

        Raises:
            InvalidValueError: A name is there twice, or git forbids it.
        """
        from dulwich.objects import ObjectID as DulwichId, serialize_tree, sorted_tree_items

        table: dict[bytes, tuple[int, DulwichId]] = {}
        for name, mode, oid in entries:
            raw = encode_name(name)
            if raw in table or raw.lower() in _FORBIDDEN or b"/" in raw or b"\0" in raw:
                why = "is there twice" if raw in table else "is not allowed in git"
                raise InvalidValueError(f"the file name `{name!r:.80}` {why}")
            table[raw] = (mode, DulwichId(oid.encode("ascii")))
        ordered = sorted_tree_items(table, False)
        return self.add_raw(TREE_TYPE, b"".join(serialize_tree((e.path, e.mode, e.sha) for e in ordered)))

    def add_commit(
        self,
        tree: ObjectId,
        parents: Iterable[ObjectId],
        message: str,
        author: str,
        time_s: int,
        tz: int = 0,
    ) -> ObjectId:
        """Add a commit.

        Args:
            tree: Its files.
            parents: Earlier commits.
            message: Text; NUL characters, which git cannot store, are dropped.
            author: ``Name <mail>``, for author and committer alike.
            time_s: Seconds since the epoch; negative counts as 0.
            tz: Seconds east of UTC, a multiple of 60.
        """
        from dulwich.objects import Commit, ObjectID as DulwichId

        commit = Commit()
        commit.object_format = self._format
        commit.tree = DulwichId(tree.encode("ascii"))
        commit.parents = [DulwichId(parent.encode("ascii")) for parent in parents]
        commit.author = commit.committer = clean_identity(author)
        commit.author_time = commit.commit_time = max(0, int(time_s))
        commit.author_timezone = commit.commit_timezone = tz
        commit.message = _clean_text(message)
        return self.add_raw(COMMIT_TYPE, commit.as_raw_string())

    def add_tag(
        self, name: str, target: ObjectId, message: str, tagger: str, time_s: int, *, target_type: str = "commit"
    ) -> ObjectId:
        """Add an annotated tag object; ``name`` is the part behind ``refs/tags/``.  Times as in ``add_commit``."""
        head = f"object {target}\ntype {target_type}\ntag {name}\n".encode() + b"tagger %s %d +0000\n\n" % (
            clean_identity(tagger),
            max(0, int(time_s)),
        )
        return self.add_raw(TAG_TYPE, head + _clean_text(message))

    def write(self, pack_dir: Path) -> PackOnDisk:
        """Write everything as one pack, on disk and safe from git's housekeeping until ``release``.

        Raises:
            ReadOnlyError, StorageError: Nothing that counts was left behind.
        """
        from io import BytesIO

        from dulwich.pack import UnpackedObject, write_pack_data, write_pack_index_v2

        records = (
            UnpackedObject(kind, sha=sha, decomp_chunks=[data], decomp_len=len(data))
            for sha, (kind, data) in self._objects.items()
        )
        chunks: list[bytes] = []
        entries, checksum = write_pack_data(
            chunks.append, records, num_records=len(self._objects), object_format=self._format
        )
        index = BytesIO()
        write_pack_index_v2(index, sorted((sha, *where) for sha, where in entries.items()), checksum)
        files.make_dirs(pack_dir)
        pack = PackOnDisk(pack_dir / f"pack-{os.urandom(self._format.oid_length).hex()}")
        try:
            pack.keep()
            _write(pack.path(".pack"), chunks)
            _write(pack.path(".idx"), [index.getvalue()])  # git looks for packs by their index: last
            files.sync_dir(pack_dir)
        except BaseException:
            pack.discard()
            raise
        return pack


class PackOnDisk:
    """A pack that ``Batch.write`` wrote, under its name without suffix."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem

    def path(self, suffix: str) -> Path:
        """The path of one of its files."""
        return self._stem.with_name(self._stem.name + suffix)

    def keep(self) -> None:
        """Tell git's housekeeping to leave the pack alone.

        On disk with what it says: after a power cut an empty one would never be recognised as ours and never go.
        """
        fd = files.create_append(self.path(".keep"))
        with files.reporting(self.path(".keep")):
            try:
                files.write_all(fd, keep_text().encode())
                files.sync_file(fd)
            finally:
                os.close(fd)

    def release(self) -> None:
        """Let git's housekeeping have the pack: its objects are reachable now."""
        files.discard(self.path(".keep"))

    def discard(self) -> None:
        """Remove the pack: nothing names it."""
        for suffix in (".idx", ".pack", ".keep"):
            files.discard(self.path(suffix))

    def is_whole(self) -> bool:
        """True while its files are there."""
        return self.path(".idx").exists() and self.path(".pack").exists()


def _write(path: Path, chunks: list[bytes]) -> None:
    """Like ``files.write_atomic``, from pieces and without the sync of the folder, which comes once for all files."""
    fd, temp = files.create_temp(path.parent, 0o444)
    try:
        with files.reporting(path):
            try:
                for start in range(0, len(chunks), 4096):  # a pack has three pieces per object: join them to few writes
                    files.write_all(fd, b"".join(chunks[start : start + 4096]))
                files.sync_file(fd)
            finally:
                os.close(fd)
            temp.replace(path)
    except BaseException:
        files.discard(temp)
        raise


def keep_text() -> str:
    """What stands in a ``.keep`` file of this process; ``stale_keeps`` finds it when the process is gone."""
    import json

    return _KEEP + json.dumps(files.process_identity().to_list())


def stale_keeps(pack_dir: Path) -> Iterator[Path]:
    """The ``.keep`` files of gittrack processes that died before they could remove them."""
    for path in pack_dir.glob("pack-*.keep"):
        with suppress(FileNotFoundError):
            text = path.read_text("utf-8", "replace")
            if text.startswith(_KEEP):
                stale = not _owner_lives(text[len(_KEEP) :])
            else:  # one that died before it wrote its name has no pack yet; git's and people's keeps have one
                old = path.stat().st_mtime < time.time() - EMPTY_KEEP_SECONDS
                stale = not text and old and not path.with_suffix(".pack").exists()
            if stale:
                yield path


def _owner_lives(text: str) -> bool:
    import json

    try:
        owner = files.ProcessId.from_list(json.loads(text))
    except ValueError:  # a torn write of a process that died, or one that is writing it just now
        return False
    return files.is_alive(owner) is not False


def encode_name(name: str) -> bytes:
    """A name as git stores it; names that are not UTF-8 come back as they were."""
    return name.encode("utf-8", "surrogateescape")


def decode_name(raw: bytes) -> str:
    """The inverse of ``encode_name``."""
    return raw.decode("utf-8", "surrogateescape")


def clean_identity(text: str) -> bytes:
    """``Name <mail>`` as bytes that git accepts, whatever ``text`` holds."""
    name, _, mail = text.partition("<")
    forbidden = dict.fromkeys(map(ord, "<>\n\r\0"))
    name = name.translate(forbidden).strip(" .,:;\"'\\") or "unknown"
    mail = mail.translate(forbidden).strip() or "unknown"
    return f"{name} <{mail}>".encode("utf-8", "replace")


def _clean_text(text: str) -> bytes:
    return text.replace("\0", "").encode("utf-8", "replace")
