"""Where the servers of tests have their index and their artifacts: as pytest's `--database` and `--objects` say."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gittrack.store.objects import ObjectStore
from gittrack.store.repo import Repo
from gittrack.sync import bucket_store
from gittrack.types import Digest


@dataclass
class Backend:
    """What the servers of this process's tests share.

    Attributes:
        database: The address of a PostgreSQL database; None: SQLite.
        bucket: That of a bucket; None: folders.
    """

    database: str | None = None
    bucket: str | None = None

    def place(self, folder: Path) -> str | None:
        """The address of the artifacts of the repository in ``folder``, of which each has a place of its own."""
        if self.bucket is None:
            return None
        return f"{self.bucket}/{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}"

    def words(self, folder: Path, before: Iterable[str] = ()) -> list[str]:
        """The options of `gittrack server` for the repository in ``folder``, unless ``before`` says it otherwise."""
        said = {word.partition("=")[0] for word in before}
        found = {"--backend-store-uri": self.database, "--artifacts-destination": self.place(folder)}
        return [f"{name}={value}" for name, value in found.items() if value is not None and name not in said]


#: The one in use, which the fixture `backend` fills in.
BACKEND = Backend()


def damage(objects: ObjectStore, digest: Digest, data: bytes) -> None:
    """Have other bytes where an object is."""
    if isinstance(objects, bucket_store.BucketStore):
        objects._bucket._fs.pipe_file(objects._bucket._path(digest), data)
        return
    path = objects.path(digest)
    path.chmod(0o644)
    path.write_bytes(data)


def open_repo(folder: Path, database: str | None = None, bucket: str | None = None) -> Repo:
    """The repository in ``folder`` as a server has it, made if need be; what is not given is as the options say."""
    repo = Repo.find(folder, create=True, database=database or BACKEND.database)
    place = bucket or BACKEND.place(folder)
    if place is not None:
        repo.objects = bucket_store.at(repo.objects.root, place)
    return repo
