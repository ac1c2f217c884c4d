"""TLS of a server: certificate and key, looked at before anything is listened on, read anew when they are renewed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gittrack.errors import GittrackError, InvalidValueError, StorageError

VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_SECONDS: Final = 10.0  #: between two looks at the files

_log = logging.getLogger("gittrack.server")


@dataclass(frozen=True)
class Files:
    """What TLS is made of.

    Attributes:
        certificate: The server's certificate and those between it and its authority, PEM.
        key: Its private key, PEM.
        password: A file whose first line opens the key; None if it is not encrypted.
        minimum: The oldest version of TLS that clients may speak: a key of ``VERSIONS``.
    """

    certificate: Path
    key: Path
    password: Path | None = None
    minimum: str = "1.2"

    def load(self) -> ssl.SSLContext:
        """The files, read.

        Raises:
            StorageError: One cannot be read.
            InvalidValueError: They do not hold what they should, or do not go together.
        """
        for file in (self.certificate, self.key, *([self.password] if self.password else [])):
            try:
                file.read_bytes()
            except OSError as error:
                raise StorageError(f"`{file}` cannot be read: {error.strerror}", hint="see `--ssl-certfile`") from error
        password = "" if self.password is None else (self.password.read_text().splitlines() or [""])[0]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[self.minimum]
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key, lambda: password)
        except ssl.SSLError as error:
            raise InvalidValueError(self._why(error), hint="both are PEM files") from error
        except OSError as error:
            raise StorageError(f"the certificate cannot be read: {error.strerror}") from error
        return context

    def _why(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key `{self.key}` is not that of the certificate `{self.certificate}`"
        if "BEGIN CERTIFICATE" not in self.certificate.read_text("latin-1"):
            return f"`{self.certificate}` holds no certificate"
        if "ENCRYPTED" in self.key.read_text("latin-1"):
            return f"the key `{self.key}` is encrypted, and the password is missing or wrong"
        return f"`{self.certificate}` and `{self.key}` cannot be used: {error.reason or error}"

    def stamp(self) -> list[tuple[int, int, int]]:
        """What changes when a file does."""
        found = []
        for file in (self.certificate, self.key):
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return found


class Tls:
    """The TLS of a server that runs.

    Args:
        made_of: The files.

    Attributes:
        context: What connections are made with; it hands each to the certificate that is the newest then.

    Raises:
        StorageError, InvalidValueError: As ``Files.load``.
    """

    def __init__(self, made_of: Files) -> None:
        self._files = made_of
        self._stamp = made_of.stamp()
        self._newest = made_of.load()
        self._wake = threading.Event()
        self._stopping = False
        self.context = made_of.load()
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def renew(self) -> None:
        """Take the files as they are now; if that does not work, what is there stays."""
        stamp = self._files.stamp()
        try:
            self._newest = self._files.load()
        except GittrackError as error:
            _log.error("the certificate could not be renewed, the old one is used further on: %s", error)
        else:
            _log.info("the certificate was read anew")
        self._stamp = stamp

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, the files are read anew when they change, or SIGHUP comes.  For the main thread."""
        thread = threading.Thread(target=self._watch, name="certificate", daemon=True)
        thread.start()
        before = None
        if os.name == "posix":
            before = signal.signal(signal.SIGHUP, lambda *_: self.poke())
        try:
            yield
        finally:
            self._stopping = True
            self._wake.set()
            if before is not None:
                signal.signal(signal.SIGHUP, before)
            thread.join()

    def poke(self) -> None:
        """Read the files anew soon, changed or not."""
        self._stamp = []
        self._wake.set()

    def _watch(self) -> None:
        while not self._stopping:
            if self._files.stamp() != self._stamp:
                self.renew()
            self._wake.wait(_SECONDS)
            self._wake.clear()
