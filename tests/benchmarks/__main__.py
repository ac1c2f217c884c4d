"""Prints every figure beside its bound, measured in the same run, and beside MLflow's where it is installed."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.benchmarks.measure import Row, Settings, table
from tests.benchmarks.rows import ROWS, measure_alone


def main() -> int:
    """Measure the rows that were asked for; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast it is")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each thing (default 5)")
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="an interpreter with mlflow, to compare with")
    parser.add_argument("--fasttrackml", type=Path, metavar="FML", help="FastTrackML's program, to compare with")
    parser.add_argument("--aim", type=Path, metavar="PYTHON", help="an interpreter with aim, to compare pages with")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep populated repositories here for the next time")
    options = parser.parse_args()
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"no row `{unknown[0]}`; there are {', '.join(ROWS)}")
    home = Path(tempfile.mkdtemp(prefix="gittrack-benchmarks-"))
    failed = []
    try:
        settings = _settings(options, home)
        print(_machine())
        results: list[Row] = []
        for name in options.rows or ROWS:
            try:
                results += _alone(name, settings)
            except Exception:  # noqa: BLE001 - one row that fails must not cost the figures of the others
                traceback.print_exc()
                failed.append(name)
        print(table(results))
        print("\nMedian of repeated measurements, turn about with the bound (lowest–highest in brackets).")
        print("\n".join(f"- {line}" for line in settings.log))
    finally:
        os.chdir("/")
        shutil.rmtree(home)
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def _alone(name: str, settings: Settings) -> list[Row]:
    """The rows of one group, measured in a process of their own."""
    begun = time.perf_counter()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        rows, said = pool.submit(measure_alone, name, settings).result()
    settings.log += said
    settings.say(f"{name} took {time.perf_counter() - begun:.0f} s")
    return rows


def _settings(options: argparse.Namespace, home: Path) -> Settings:
    (home / "gitconfig").write_text("[user]\n\tname = Ana\n\temail = ana@example.org\n[init]\n\tdefaultBranch = main\n")
    (home / "scratch").mkdir()
    settings = Settings(
        quick=options.quick,
        peer=options.peer and options.peer.absolute(),
        fasttrackml=options.fasttrackml and options.fasttrackml.absolute(),
        aim=options.aim and options.aim.absolute(),
        cache=(options.cache or home / "cache").absolute(),
        scratch=home / "scratch",
        home=home,
        rounds=options.rounds,
    )
    # Python must keep the code it compiles, as it does for everybody else: MLflow's was compiled by its installation.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in list(os.environ):
        if name.startswith(("GIT", "MLFLOW")):
            del os.environ[name]
    os.environ.update(
        {key: settings.environment()[key] for key in ("HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM")}
    )
    return settings


def _machine() -> str:
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    cpu = platform.processor() or platform.machine()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} × {cpu}, {python}, {git}, load {load}\n"


if __name__ == "__main__":
    sys.exit(main())
