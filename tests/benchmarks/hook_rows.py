"""What the hooks add to a commit, when there is nothing to do and when a run is linked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gittrack.hooks import NAMES, install
from gittrack.store import gateway
from tests.benchmarks.measure import Figures, Row, Settings, turn_about
from tests.benchmarks.populations import populated, run_git

#: As pip writes it.
_PROGRAM = """\
#!{python}
import sys
from gittrack.cli import start
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit(start())
"""


def hooks(settings: Settings) -> list[Row]:
    """Each script alone and all of them around a commit, among 10,000 runs."""
    runs = settings.size(10_000, 500)
    folder = settings.folder("hooks") / "repo"
    shutil.copytree(populated(settings, runs), folder, symlinks=True)
    program = settings.folder("bin") / "gittrack"
    program.write_text(_PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    env = {**settings.environment(), "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    paths = gateway.discover(folder)
    assert paths is not None
    install.install(paths)
    count = 0

    def prepare() -> None:
        nonlocal count
        count += 1
        (folder / "notes.txt").write_text(f"{count}\n")
        run_git(settings, folder, "add", "notes.txt")

    def commit(*options: str) -> Callable[[], float]:
        def one() -> float:
            prepare()
            begun = time.perf_counter()
            subprocess.run(["git", *options, "commit", "-qm", "x"], cwd=folder, env=env, check=True)
            return time.perf_counter() - begun

        return one

    def script(name: str, *arguments: str, told: str = "") -> Callable[[], float]:
        path = folder / ".git" / "hooks" / name
        return _program([str(path), *arguments], folder, env, told)

    first = commit()()  # looks at every run once, and writes the notes
    head = run_git(settings, folder, "rev-parse", "HEAD").decode().strip()
    prepare()
    rounds = max(settings.rounds, settings.size(15, 3))
    took = turn_about(
        rounds,
        bare=_program([sys.executable, "-c", "pass"], folder, env, ""),
        pre_commit=script("pre-commit"),
        prepare_commit_msg=script("prepare-commit-msg", ".git/COMMIT_EDITMSG", "message"),
        post_commit=script("post-commit"),
        post_rewrite=script("post-rewrite", "amend", told=f"{'1' * 40} {head}\n"),
        pre_push=script("pre-push", "origin", "/nowhere", told=f"refs/heads/main {head} refs/heads/main {'0' * 40}\n"),
        plain=commit("-c", f"core.hooksPath={os.devnull}"),
        hooked=commit(),
    )
    figures = {name: Figures(tuple(values), "ms") for name, values in took.items()}
    names = [name for name in NAMES if name.replace("-", "_") in figures]
    note = f"{runs:,} runs; the first commit after they came took {first * 1e3:.0f} ms"
    return [
        *[
            Row(f"hook `{name}`, nothing to do", figures[name.replace("-", "_")], figures["bare"],
                "`python -c pass`", "≤ 50 ms")
            for name in names
        ],
        Row("`git commit` with all hooks, nothing to do", figures["hooked"], figures["plain"],
            "`git commit` without hooks", "", note=note),
    ]  # fmt: skip


def _program(command: list[str], folder: Path, env: dict[str, str], told: str) -> Callable[[], float]:
    def one() -> float:
        begun = time.perf_counter()
        subprocess.run(command, cwd=folder, env=env, input=told.encode(), check=True, capture_output=True)
        return time.perf_counter() - begun

    return one
