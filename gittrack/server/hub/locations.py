"""Where the files of runs are, if their experiment says so: its ``artifact_location``.

A location is a place in this server's own tree (``mlflow-artifacts:/team/a``), whose files are kept as those of any
run; or an address that clients reach by themselves (``s3://…``, a folder of theirs), which is remembered, handed out,
and never opened by the server.  Addresses of other servers are refused: MLflow's clients would show them the
credentials that they have for this one.  So are secrets, since locations are for everybody to read.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from gittrack.errors import InvalidValueError
from gittrack.server.hub import records
from gittrack.store import layout
from gittrack.track import limits
from gittrack.track.secrets import redact_url
from gittrack.types import Experiment

#: Where an address of this server has the tree.
_TREE: Final = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts((?:/.*)?)", re.DOTALL)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def taken(location: str, address: Callable[[], str], *, local: bool) -> str | None:
    """What is kept of the location that somebody wants for an experiment; None: nothing, its files are kept as usual.

    Args:
        location: What he says.
        address: Tells how he reaches this server.
        local: He is on this machine, so that a folder means the same to him.

    Raises:
        InvalidValueError: Files cannot be there.
    """
    if not location or location.isspace():
        return None
    limits.check_artifact_location(location)
    if redact_url(location) != location:
        raise InvalidValueError("the location has a secret in it", hint="leave it out: whoever sends files logs in")
    if _SCHEME.match(location) is None:
        if not location.startswith("/") and not local:
            return None  # a folder beside a program that is somewhere else
        return _checked(posixpath.normpath(Path.cwd() / location))  # nothing is looked for there
    parts = urlsplit(location)
    if parts.scheme in ("http", "https", "mlflow-artifacts"):
        return f"{records.ARTIFACTS}{_in_tree(location, address if parts.netloc else _unnamed)}"
    return _checked(location.rstrip("/"))


def taken_root(location: str) -> str | None:
    """``taken`` for whoever starts the server, and need not name it."""
    return taken(location, _unnamed, local=True)


def _unnamed() -> str:
    """The address of a server that was not named: no other has this one."""
    return ""


def _in_tree(location: str, address: Callable[[], str]) -> str:
    """The path of a location in this server's tree.  Raises InvalidValueError."""
    parts, own = urlsplit(location), urlsplit(address())
    if parts.netloc.lower() != own.netloc.lower():
        raise InvalidValueError(
            "files cannot be at another server: clients would show it their credentials for this one",
            hint="mlflow-artifacts:/PATH is a place on this one",
        )
    if parts.query or parts.fragment:
        raise InvalidValueError("a location has neither a query nor a fragment")
    path = unquote(parts.path)
    if parts.scheme != "mlflow-artifacts":
        below = _TREE.fullmatch(path.removeprefix(own.path))
        if below is None or not parts.netloc:
            raise InvalidValueError("this is no place on this server", hint="mlflow-artifacts:/PATH is one")
        path = below[1]
    path = path.strip("/")
    if path:
        path = limits.check_artifact_path(path)
    if layout.is_derived_id(path.partition("/")[0]):
        raise InvalidValueError("this place is that of another experiment")
    return path


def _checked(location: str) -> str:
    if not records.is_elsewhere(location):
        raise InvalidValueError(
            f"clients are not sent to `{location:.200}`", hint="a bucket (s3://…), a folder, or mlflow-artifacts:/PATH"
        )
    return location


def of_experiment(found: Experiment) -> str | None:
    """Where an experiment wants the files of its runs; None: where they usually are."""
    location = found.artifact_location
    return location if records.is_place(location) else None


def of_run(location: str, run_id: str) -> str:
    """Where the files of a run of an experiment with this location are."""
    return f"{location.rstrip('/')}/{run_id}/artifacts"


def of_model(location: str, model_id: str) -> str:
    """Where the files of a logged model of such an experiment are."""
    return f"{location.rstrip('/')}/models/{model_id}/artifacts"
