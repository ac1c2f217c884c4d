"""A disk that can lose its power: an ext4 file system in a file, mounted through a loop device (Linux, root)."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_FS_IOC_SHUTDOWN: Final = 0x8004587D
_PATIENCE: Final = 10.0  #: seconds
_WITHOUT_FLUSHING: Final = (2).to_bytes(4, sys.byteorder)


def cut_power(mount: Path) -> None:
    """Make the file system at ``mount`` forget what was not synced, and refuse everything until it is mounted anew."""
    fd = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _FS_IOC_SHUTDOWN, _WITHOUT_FLUSHING)
    finally:
        os.close(fd)


class Disk:
    """A mounted file system of its own.

    Attributes:
        mount: Where it is mounted.
    """

    def __init__(self, image: Path, mount: Path) -> None:
        self._image = image
        self.mount = mount
        self._plug_in()

    def cut(self) -> None:
        """Cut the power: what was not synced is lost, every later call on the disk fails until ``restore``."""
        cut_power(self.mount)

    def restore(self) -> None:
        """Switch the power on again: the file system replays its log, as at boot."""
        self._plug_out()
        self._plug_in()

    def eject(self) -> None:
        """Unmount for good."""
        self._plug_out()

    def _plug_in(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.mount))

    def _plug_out(self) -> None:
        """Unmount; a process that is just ending may keep the disk busy for a moment."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                _run("umount", str(self.mount))
            except subprocess.CalledProcessError as error:
                if "busy" not in error.stderr or time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return


@contextmanager
def disk(megabytes: int) -> Iterator[Disk]:
    """A fresh disk of that size; unmounted and deleted afterwards, whatever happened."""
    folder = Path(tempfile.mkdtemp(prefix="gittrack-disk-"))
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    plugged: Disk | None = None
    try:
        with image.open("wb") as out:
            out.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        plugged = Disk(image, mount)
        (mount / "lost+found").rmdir()
        yield plugged
    finally:
        if plugged is not None and os.path.ismount(mount):
            plugged.eject()
        shutil.rmtree(folder)


@contextmanager
def full(disk: Disk, kib: int) -> Iterator[None]:
    """The disk is full but for so many KiB."""
    ballast = disk.mount / "ballast"
    try:
        with ballast.open("wb", buffering=0) as out, suppress(OSError):
            while True:
                out.write(bytes(1 << 16))
        with ballast.open("ab", buffering=0) as out, suppress(OSError):
            while True:
                out.write(bytes(1 << 10))
        os.truncate(ballast, max(0, ballast.stat().st_size - (kib << 10)))
        os.sync()
        yield
    finally:
        ballast.unlink()


def unavailable() -> str | None:
    """Why no disk can be made here, or None if it can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root, to mount a disk image of its own"
    for program in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(program) is None:
            return f"needs the program {program}"
    try:
        with disk(8) as probe:
            probe.cut()
            probe.restore()
    except (OSError, subprocess.CalledProcessError) as error:
        detail = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        return f"a disk image cannot be mounted and cut here: {detail}"
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
