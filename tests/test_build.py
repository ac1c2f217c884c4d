"""The package is built where there is no node: the page is in it all the same, or one message says why not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = "gittrack/server/hub/page/built/index.html"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, as a fresh clone has them."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not in a clone")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def without_node(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a shell on its path, and nothing else."""
    folder = tmp_path_factory.mktemp("path")
    shell = shutil.which("sh")
    assert shell is not None
    (folder / "sh").symlink_to(shell)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GITTRACK_WITHOUT_PAGE")}
    return {**kept, "PATH": str(folder)}


def _wheel(sources: Path, into: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What `pip install .` does before it installs: with a build environment of its own, fetched from PyPI."""
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(into), str(sources)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=800)
    if re.search("NewConnectionError|NameResolutionError|ConnectTimeoutError", done.stderr):
        pytest.skip(f"PyPI cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    return done


def _hatch(sources: Path, into: Path, target: str, environment: dict[str, str]) -> None:
    """The same build in this environment, which has no node either."""
    words = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)]
    subprocess.run(words, cwd=sources, env=environment, check=True, capture_output=True)


@pytest.mark.timeout(900)
def test_with_npms_registry_away(sources: Path, without_node: dict[str, str], tmp_path: Path) -> None:
    away = {"npm_config_registry": "http://127.0.0.1:9/", "npm_config_fetch_retries": "0"}
    cache = {"npm_config_cache": str(tmp_path / "empty")}
    done = _wheel(sources, tmp_path, {**without_node, "PATH": os.environ["PATH"]} | away | cache)  # the machine's node
    assert done.returncode == 1
    assert done.stderr.count("the web page cannot be built: npm error code ECONNREFUSED") == 1, done.stderr
    assert "try again when that can be reached" in done.stderr
    assert "GITTRACK_WITHOUT_PAGE=1" in done.stderr
    assert "Traceback" not in done.stderr

    _hatch(sources, tmp_path, "wheel", without_node | away | cache | {"GITTRACK_WITHOUT_PAGE": "1"})
    (wheel,) = tmp_path.glob("*.whl")
    assert PAGE not in zipfile.ZipFile(wheel).namelist()


@pytest.mark.timeout(900)
def test_without_node(sources: Path, without_node: dict[str, str], tmp_path: Path) -> None:
    done = _wheel(sources, tmp_path / "wheel", without_node)
    if re.search("npm error code (ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET)", done.stderr):
        pytest.skip(f"npm's registry cannot be reached: {done.stderr}")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    assert PAGE in zipfile.ZipFile(wheel).namelist()

    # an sdist has the page, too: who installs from it needs neither node nor npm
    _hatch(sources, tmp_path / "sdist", "sdist", without_node)
    (packed,) = (tmp_path / "sdist").glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", packed, "-C", tmp_path], check=True)  # `tarfile` differs between versions of Python
    (unpacked,) = tmp_path.glob("gittrack-*")
    _hatch(unpacked, tmp_path / "sdist", "wheel", without_node)
    (wheel,) = (tmp_path / "sdist").glob("*.whl")
    assert PAGE in zipfile.ZipFile(wheel).namelist()
