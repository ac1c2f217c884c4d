"""The model at an address, and what is there later: a stage, an alias or `latest` may come to mean another version."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack.errors import InvalidValueError
from gittrack.models.examples import SERVING_EXAMPLE
from gittrack.server.serving import ServedModel

if TYPE_CHECKING:
    from gittrack.track.runs import Tracker

_RETRY_SECONDS: Final = 60.0  #: until what could not be loaded is tried again, if nothing has changed
#: The refs that decide which version an address means: events here, last seen ones of remotes, documents.
_REFS: Final = ("refs/tags/models/", "refs/gittrack/")


def moves(uri: str) -> bool:
    """True for an address that may come to mean another version: a stage, an alias, `latest`."""
    from gittrack.models.addresses import is_model_id
    from gittrack.registry.names import parse_address

    scheme, colon, rest = uri.partition(":")
    if (colon and scheme != "models") or is_model_id(rest.lstrip("/")) or (not colon and "@" not in uri):
        return False
    if is_folder(uri):
        return False
    try:
        found = parse_address(uri)
    except InvalidValueError:
        return False  # loading it says what is wrong
    return found.version is None and not (found.word or "").isdigit()


def is_folder(uri: str) -> bool:
    """True for a model that lies outside of any store."""
    return Path(uri).is_dir() or uri.startswith("file:")


@dataclass
class Addressed:
    """A ``Source``: the model at an address of this machine's store.  May be sent to another process.

    Attributes:
        uri: The address.
        store: A folder of the repository that it is looked up in; empty for the current folder.
        trust: Code that comes with a model may run.
    """

    uri: str
    store: str = ""
    trust: bool = False
    _seen: str = field(default="", repr=False)  # fingerprint of the refs when it was last looked at
    _failed: tuple[str, float] = field(default=("", 0.0), repr=False)  # that of a failure, and when to try again
    _served: str = field(default="", repr=False)  # id of the tag of the version that was loaded last

    def load(self) -> ServedModel:
        """The model.  Raises GittrackError."""
        if moves(self.uri):
            self._seen = self._fingerprint()
        return self._load()

    def newer(self) -> ServedModel | None:
        """Another version that the address means by now.  Raises GittrackError."""
        if not moves(self.uri):
            return None
        seen = self._fingerprint()
        failed, retry_at = self._failed
        if seen == self._seen or (seen == failed and time.monotonic() < retry_at):
            return None
        try:
            found = None if self._meant() == self._served else self._load()
        except Exception:
            self._failed = seen, time.monotonic() + _RETRY_SECONDS
            raise
        self._seen = seen
        return found

    def _load(self) -> ServedModel:
        from gittrack.models import addresses, pyfunc

        # scikit-learn's, for every row: that the columns go by position was seen to by `takes_matrix`.
        warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
        with self._reader() as tracker:
            local = addresses.fetch(self.uri, trust=self.trust, tracker=tracker)
        version = local.version
        self._served = "" if version is None else version.tag_oid
        example = local.folder / SERVING_EXAMPLE
        return ServedModel(
            pyfunc.load_local(local),
            self._folder_name() if version is None else version.name,
            None if version is None else version.version,
            example.read_bytes() if example.is_file() else None,
        )

    def _folder_name(self) -> str:
        return Path(self.uri.partition(":")[2] or self.uri).resolve().name

    def _meant(self) -> str:
        """Id of the tag of the version that the address means now."""
        from gittrack import session
        from gittrack.registry.registry import Registry

        tracker = session.open_reader(self.store or None)
        try:
            return Registry(tracker).resolve(self.uri).tag_oid
        finally:
            tracker.repo.close()

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Tracker | None]:
        """The store, opened anew, since each time another thread may ask; None for a model outside of any."""
        from gittrack import session

        if is_folder(self.uri):
            yield None
            return
        tracker = session.open_reader(self.store or None)
        try:
            yield tracker
        finally:
            tracker.repo.close()

    def _fingerprint(self) -> str:
        """Changes when a ref does that could change what the address means."""
        from gittrack import session
        from gittrack.store.repo import Repo

        git = Repo.find(session.parse_uri(self.store or None).resolve()).git
        return "".join(git.refs_fingerprint(prefix).hex() for prefix in _REFS)
