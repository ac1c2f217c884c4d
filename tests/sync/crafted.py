"""Bundles as gittrack would never write them."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gittrack.sync.bundle_file import GIT, MANIFEST, OBJECTS, header, padding
from gittrack.types import ObjectId


@dataclass
class Crafted:
    """The parts of a bundle, to be changed.

    Attributes:
        manifest: Its manifest; sizes, amounts and sums are put right by ``write`` unless ``honest`` is false.
        git: Its git bundle.
        objects: (name, bytes) of what follows.
        honest: See above.
    """

    manifest: dict[str, Any]
    git: bytes
    objects: list[tuple[str, bytes]] = field(default_factory=list)
    honest: bool = True

    @classmethod
    def read(cls, path: Path) -> Crafted:
        """The parts of a bundle that gittrack wrote."""
        with tarfile.open(path) as archive:
            parts = []
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                parts.append((member.name, file.read()))
        return cls(json.loads(parts[0][1]), parts[1][1], parts[2:])

    @classmethod
    def of(cls, repo: Path, refs: Mapping[str, str], objects: Iterable[bytes] = ()) -> Crafted:
        """A bundle of refs of a repository, whatever they are at."""
        spec = "".join(f"{oid}\n" for oid in refs.values()).encode()
        pack = subprocess.run(["git", "pack-objects", "--revs", "--stdout", "-q"], cwd=repo, input=spec,
                              capture_output=True, check=True).stdout  # fmt: skip
        lines = "".join(f"{oid} {ref}\n" for ref, oid in refs.items())
        manifest: dict[str, Any] = {
            "format": "gittrack-bundle", "version": 1, "writer": "eve", "created": 1, "object_format": "sha1",
            "git_size": 0, "git_sha256": "", "objects": 0, "size": 0, "absent": 0, "runs": 0, "revised": 0,
            "whole": True, "partial": False, "since": [], "before": {},
        }  # fmt: skip
        named = sorted((OBJECTS + hashlib.sha256(data).hexdigest(), data) for data in objects)
        return cls(manifest, f"# v2 git bundle\n{lines}\n".encode() + pack, named)

    def members(self) -> list[bytes]:
        """The archive in pieces: each header with what follows it, and the end."""
        manifest = dict(self.manifest)
        if self.honest:
            manifest |= {
                "git_size": len(self.git),
                "git_sha256": hashlib.sha256(self.git).hexdigest(),
                "objects": len(self.objects),
                "size": sum(len(data) for _, data in self.objects),
            }
        parts = [(MANIFEST, json.dumps(manifest).encode()), (GIT, self.git), *self.objects]
        return [*(member(name, data) for name, data in parts), bytes(1024)]

    def write(self, path: Path, change: Callable[[list[bytes]], Iterable[bytes]] | None = None) -> Path:
        """Write it, after a last change to its pieces."""
        pieces = self.members()
        path.write_bytes(b"".join(pieces if change is None else change(pieces)))
        return path


def member(name: str, data: bytes) -> bytes:
    """A member as gittrack writes it."""
    return header(name, len(data)) + data + padding(len(data))


def odd(name: str, data: bytes = b"", **facts: object) -> bytes:
    """A member with other facts in its header."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o444
    for key, value in facts.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + padding(len(data))


def oid(text: str) -> ObjectId:
    """An object id."""
    return ObjectId(text)


def repacked(path: Path, how: int) -> bytes:
    """The bundle in another format of tar's."""
    out = io.BytesIO()
    with tarfile.open(path) as source, tarfile.open(fileobj=out, mode="w", format=how) as target:
        for info in source:
            target.addfile(info, source.extractfile(info))
    return out.getvalue()
