"""A folder to build an image from that serves one version of a model.

It has all that it takes: the model's files, what they need, and gittrack itself; no repository, no network to one.
Nothing of the model is executed to write it.  The image runs as a user without rights, says whether it is healthy, and
carries commit and manifest of the model in its labels (https://github.com/opencontainers/image-spec, annotations).
"""

from __future__ import annotations

import json
import platform
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack._version import __version__
from gittrack.errors import AlreadyExistsError
from gittrack.models import environments, requirements
from gittrack.store import files

if TYPE_CHECKING:
    from gittrack.models.addresses import LocalModel

PORT: Final = 8080  #: what SageMaker, Vertex AI and Cloud Run expect
_PACKAGE: Final = Path(__file__).parents[1]

_DOCKERFILE: Final = """\
# Serves {title}.  Build it with: docker build -t NAME .
FROM {base}
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/model
COPY requirements.txt gittrack.txt ./
RUN pip install{binary} -r requirements.txt -r gittrack.txt
COPY gittrack /opt/gittrack/gittrack
COPY model /opt/model/model
ENV PYTHONPATH=/opt/gittrack HOME=/tmp
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin model
USER 10001
EXPOSE {port}
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", "import urllib.request as u; \
u.urlopen('http://127.0.0.1:{port}/ping', timeout=2)"]
{labels}
ENTRYPOINT ["python", "-m", "gittrack", "models", "serve", "-m", "/opt/model/model", "--host", "0.0.0.0", \
"--port", "{port}"{trust}]
"""


def write(local: LocalModel, folder: Path, *, base: str | None = None, port: int = PORT) -> list[str]:
    """Write the build context of a fetched model.

    Args:
        local: The model; if it is trusted, the image runs code that came with it, and may build packages.
        folder: Must be empty or not exist.
        base: The image to start from; Python's slim one of the recorded version if not given.
        port: The port that the image listens on.

    Returns:
        The names in ``folder``.

    Raises:
        AlreadyExistsError: There is something in ``folder``.
        InvalidValueError: A requirement of the model cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExistsError(f"there is something at `{folder}` already", hint="choose another folder")
    lines = requirements.read(local.folder)
    python = environments.recorded_python(local.folder) or platform.python_version()
    files.make_dirs(folder, durable=False)
    shutil.copytree(local.folder, folder / "model")
    shutil.copytree(_PACKAGE, folder / "gittrack", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    _write(folder / "requirements.txt", "\n".join(lines) + "\n")
    _write(folder / "gittrack.txt", "\n".join(requirements.lock(environments.own_requirements())) + "\n")
    _write(folder / ".dockerignore", "**/__pycache__\n**/*.pyc\nDockerfile\n")
    text = _DOCKERFILE.format(
        title=_plain(local.address),
        base=base or f"python:{'.'.join(python.split('.')[:2])}-slim",
        binary="" if local.trusted else " --only-binary :all:",
        port=port,
        labels=_labels(local),
        trust=', "--trust"' if local.trusted else "",
    )
    _write(folder / "Dockerfile", text)
    return sorted(path.name for path in folder.iterdir())


def _labels(local: LocalModel) -> str:
    version = local.version
    facts = {
        "org.opencontainers.image.title": local.address if version is None else version.name,
        "org.opencontainers.image.version": None if version is None else version.version,
        "org.opencontainers.image.revision": None if version is None else version.commit,
        "org.gittrack.manifest": f"sha256:{local.manifest.digest}",
        "org.gittrack.run": None if version is None else version.run_id,
        "org.gittrack.tag": None if version is None else version.tag,
        "org.gittrack.version": __version__,
    }
    told = [f"{key}={json.dumps(_plain(value))}" for key, value in facts.items() if value is not None]
    return "LABEL " + " \\\n      ".join(told)


def _plain(text: str) -> str:
    """Text that ends no line, names no variable and quotes nothing in a Dockerfile."""
    return re.sub(r"[^\w .:/@+=-]", "_", text)


def _write(path: Path, text: str) -> None:
    files.write_atomic(path, text.encode())
