"""Manifest: the files of a model by path, digest and size; its own digest is what a version's tag vouches for.

git names objects by SHA-1 in most repositories, so a tag's target alone proves little.  The manifest's text is that of
`sha256sum`, sorted by path, so that `sha256sum --check` verifies a folder that was pulled.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gittrack.types import Artifact, Digest


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one model.

    Attributes:
        files: Path below the model's folder (or the name of its only file) to digest and size in bytes.
    """

    files: Mapping[str, tuple[Digest, int]]

    @classmethod
    def of(cls, artifacts: Iterable[Artifact], path: str) -> Manifest:
        """The manifest of what is at ``path`` among a run's artifacts: a folder, a single file, or everything."""
        prefix = f"{path}/" if path else ""
        found = {
            posixpath.basename(path) if one.path == path else one.path[len(prefix) :]: (one.digest, one.size)
            for one in artifacts
            if one.path == path or one.path.startswith(prefix)
        }
        return cls(dict(sorted(found.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape"))))

    def text(self) -> str:
        """What `sha256sum` prints for the files, sorted by the bytes of their paths."""
        return "".join(_line(path, digest) for path, (digest, _) in self.files.items())

    @property
    def digest(self) -> Digest:
        """sha256 of ``text()``."""
        return Digest(hashlib.sha256(self.text().encode("utf-8", "surrogateescape")).hexdigest())

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(size for _, size in self.files.values())


def _line(path: str, digest: Digest) -> str:
    """One line; a backslash before it says, as in GNU coreutils, that the path is escaped."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{digest}  {escaped}\n"
