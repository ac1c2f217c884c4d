"""MLflow's module of this name: artifacts read by their address, ``runs:/<run id>/<path>``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gittrack import stores
from gittrack.client import Client
from gittrack.errors import InvalidValueError, UnsupportedError
from gittrack.media import require
from gittrack.types import check_run_id

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from gittrack.types import FileInfo


def download_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    dst_path: str | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
) -> str:
    """Copy an artifact, or a folder of them, out of the store; every byte is verified on the way.

    Args:
        artifact_uri: Its address, ``runs:/<run id>/<path>``; or give
        run_id: the run, and
        artifact_path: file or folder below the run's artifact root; everything if not given.
        dst_path: Folder to copy to, made if need be; a new one among the temporary files if not given.
        tracking_uri: The store; the one in use if not given.
        registry_uri: Taken for MLflow's sake.

    Returns:
        Where it is now.

    Raises:
        NotFoundError: No such run or artifact.
        UnsupportedError: An address of another kind.
        CorruptError: The stored bytes are not what was logged.
    """
    run_id, path = _place(artifact_uri, run_id, artifact_path)
    if dst_path is not None:
        Path(dst_path).mkdir(parents=True, exist_ok=True)
    return Client(tracking_uri, registry_uri).download_artifacts(run_id, path, dst_path)


def list_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    tracking_uri: str | None = None,
) -> list[FileInfo]:
    """Files and folders directly below an address, or below ``artifact_path`` of a run; empty for a file."""
    run_id, path = _place(artifact_uri, run_id, artifact_path)
    return Client(tracking_uri).list_artifacts(run_id, path)


def load_text(artifact_uri: str) -> str:
    """The artifact at an address as text.  Raises InvalidValueError if it is not UTF-8."""
    try:
        return _read(artifact_uri).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValueError(
            f"artifact `{artifact_uri}` is not text in UTF-8", hint="use download_artifacts and open the file"
        ) from error


def load_dict(artifact_uri: str) -> dict[str, Any]:
    """The JSON artifact at an address as a dict.  Raises InvalidValueError if it is not JSON."""
    try:
        value: dict[str, Any] = json.loads(load_text(artifact_uri))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidValueError(f"artifact `{artifact_uri}` is not JSON: {error}") from error
    return value


def load_image(artifact_uri: str) -> PILImage.Image:
    """The picture at an address as a PIL image.  Raises InvalidValueError if it is none."""
    pil = require("PIL.Image", "load_image", "Pillow")
    try:
        image: PILImage.Image = pil.open(io.BytesIO(_read(artifact_uri)))
        image.load()
    except (OSError, ValueError, SyntaxError, pil.DecompressionBombError) as error:  # what PIL raises for bad bytes
        raise InvalidValueError(f"artifact `{artifact_uri}` is not an image: {error}") from error
    return image


def _read(artifact_uri: str) -> bytes:
    run_id, path = parse_uri(artifact_uri)
    if not path:
        raise InvalidValueError(f"`{artifact_uri}` names no artifact", hint="runs:/<run id>/<path>")
    return stores.read_artifact(stores.tracker(), run_id, path)


def _place(artifact_uri: str | None, run_id: str | None, artifact_path: str | None) -> tuple[str, str]:
    if (artifact_uri is None) == (run_id is None):
        raise InvalidValueError("give either `artifact_uri` or `run_id`")
    if artifact_uri is not None:
        if artifact_path is not None:
            raise InvalidValueError("`artifact_path` goes with `run_id`, not with `artifact_uri`")
        return parse_uri(artifact_uri)
    return check_run_id(str(run_id)), artifact_path or ""


def parse_uri(artifact_uri: str) -> tuple[str, str]:
    """Run id and path of ``runs:/<run id>/<path>``; the path is not checked here.

    Raises:
        UnsupportedError: An address of another kind.
        InvalidValueError: No run id where one is due.
    """
    scheme, colon, rest = str(artifact_uri).partition(":")
    if not colon or scheme != "runs":
        raise UnsupportedError(
            f"artifacts at `{scheme if colon else 'a plain path'}` cannot be read", hint="use runs:/<run id>/<path>"
        )
    run_id, _, path = rest.removeprefix("/").partition("/")
    return check_run_id(run_id), path
