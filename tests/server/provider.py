"""An identity provider that others wrote, and that is certified: npm's `oidc-provider`."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gittrack.store.files import FileLock

PACKAGE = "oidc-provider@9"
SECRET = "a secret of the hub's"
_SCRIPT = Path(__file__).with_name("issuer.mjs")
#: As it is outside of the tests, which have a home of their own each: npm's settings and caches are of the person.
_ENVIRONMENT = dict(os.environ)
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _installed() -> Path:
    """Where it is: GITTRACK_OIDC_PROVIDER, or where npm puts it once for all runs of the tests; skips without npm."""
    if given := os.environ.get("GITTRACK_OIDC_PROVIDER"):
        return Path(given)
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node and npm, which the identity provider is from")
    folder = _CACHE / "gittrack-tests" / PACKAGE
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock", timeout=120):
        if not (folder / "node_modules" / "oidc-provider").is_dir():
            install = [npm, "install", PACKAGE, "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(install, env=_ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)
            if done.returncode:
                pytest.skip(f"npm does not install `{PACKAGE}`: {done.stderr.strip()[-300:]}")
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def provider(folder: Path, redirect: str) -> Iterator[str]:
    """It, for a client `hub` that browsers come back to at ``redirect``; its address.  ``folder`` is for its files."""
    installed = _installed()
    script = folder / "issuer.mjs"
    script.write_bytes(_SCRIPT.read_bytes())
    (folder / "node_modules").symlink_to(installed / "node_modules")
    port = free_port()
    process = subprocess.Popen(
        ["node", str(script), str(port), redirect], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=10)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate(timeout=10)
