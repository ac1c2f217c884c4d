"""``gittrack demo``."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output
from gittrack.errors import AlreadyExistsError, GittrackError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gittrack.store.gateway import Git
    from gittrack.types import Run

_METRIC = "metrics.accuracy_score_X_test"
#: The uncommitted change: what is replaced in train.py, and by what.
_CHANGES = {
    "from sklearn.svm": "from sklearn.preprocessing import StandardScaler\nfrom sklearn.svm",
    "\ngittrack.set_experiment": (
        "scaler = StandardScaler().fit(X_train)\n"
        "X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)\n\n"
        "gittrack.set_experiment"
    ),
}
_NOBODY = {
    "GIT_AUTHOR_NAME": "gittrack demo",
    "GIT_AUTHOR_EMAIL": "demo@example.invalid",
    "GIT_COMMITTER_NAME": "gittrack demo",
    "GIT_COMMITTER_EMAIL": "demo@example.invalid",
}


@common.verb()
@click.argument("folder", metavar="[DIR]", default="gittrack-demo", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Make a small project, train real models in it, and put the best into production.

    DIR (`gittrack-demo` if not given) becomes a git repository with a plain train.py. It trains on two datasets that
    come with scikit-learn, once with a change that is not committed and once with an error. Every command is shown, so
    that you can repeat it. Takes less than a minute; nothing outside DIR is touched.
    """
    started = time.monotonic()
    for package, purpose in {"sklearn": "trains with scikit-learn", "skops": "keeps models with skops"}.items():
        if find_spec(package) is None:
            raise MissingDependencyError(
                f"the demo {purpose}, which is not installed", hint="pip install 'gittrack[demo]'"
            )
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise AlreadyExistsError(
            f"`{folder}` is not empty", hint="`gittrack demo DIR` takes another folder, or delete this one"
        )
    demo = _Demo(folder)
    demo.make_project()
    demo.train()
    demo.look()
    demo.release()
    demo.say_what_next(time.monotonic() - started)


class _Demo:
    """The steps, and the folder they happen in."""

    def __init__(self, folder: Path) -> None:
        from gittrack import config

        self._folder = folder
        # The store of the demo is in its folder, whatever the person's own settings say.
        self._environment = {
            name: value
            for name, value in config.environment().items()
            if not name.startswith(("GITTRACK_", "MLFLOW_", "GIT_"))
        }

    def make_project(self) -> None:
        """A git repository with train.py and a first commit."""
        (self._folder / ".git").mkdir(parents=True)
        _heading(f"A small project in {self._folder}")
        source = Path(__file__).parent.parent / "demo" / "train.py"
        (self._folder / "train.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        git = _git(self._folder)
        _show_command(f"cd {shlex.quote(str(self._folder))}")
        _show_command("git init")
        git.run("init", "--quiet")
        _show_command("git add train.py")
        git.run("add", "--", "train.py")
        _show_command("git commit -m 'train classifiers'")
        known = git.call("var", "GIT_COMMITTER_IDENT").status == 0
        git.run("commit", "--quiet", "--no-gpg-sign", "-m", "train classifiers", env=None if known else _NOBODY)
        self._gittrack("init")

    def train(self) -> None:
        """Eight runs of committed code, two with a change that is not committed, one that fails."""
        _heading("Eight models; train.py is plain scikit-learn plus `gittrack.autolog()`")
        for dataset in ("wine", "breast_cancer"):
            self._python("--dataset", dataset, "--model", "knn", "tree", "forest", "svc")
        _heading("A change that is not committed: scale the features first")
        path = self._folder / "train.py"
        text = path.read_text(encoding="utf-8")
        for before, after in _CHANGES.items():
            text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")
        _show_command("git diff")
        changes = _git(self._folder).run("diff", "--no-ext-diff", "--no-textconv", "--unified=0", "--", "train.py")
        output.lines(
            line for line in changes.decode().splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
        )
        self._python("--dataset", "wine", "--model", "knn", "svc")
        _heading("And one that fails, on purpose: no neighbours")
        self._python("--dataset", "wine", "--model", "knn", "--neighbors", "0", fails=True)

    def look(self) -> None:
        """What was recorded: all runs, the best, and what made the difference."""
        _heading("Every run is a commit, with the code that made it")
        self._gittrack("log", "--oneline")
        _heading("The best on wine")
        best = f"{_METRIC} > 0.9"
        columns = f"{_METRIC},params.C,params.n_neighbors"
        self._gittrack("search", best, "-e", "wine", "-o", f"{_METRIC} DESC", "-c", columns)
        _heading("Why did svc get so much better? Two runs compared: results and code")
        self._gittrack("diff", *(run.info.run_id[: common.SHORT] for run in self._two_runs()))

    def release(self) -> None:
        """Give the best model of committed code a name, put it into production, and predict with it by name."""
        from sklearn.datasets import load_wine

        _heading("The best model gets a name and goes into production: two annotated tags")
        best = self._best().info.run_id[: common.SHORT]
        self._gittrack("models", "register", best, "wine")
        self._gittrack("models", "promote", "wine@v1", "production", "-m", "the best accuracy on wine")
        _show_command("git tag -n1 --list 'models/*'")
        output.lines(_git(self._folder).run("tag", "-n1", "--list", "models/*").decode().splitlines())
        _heading("It is asked for by name: a wine of the first kind, and one of the third")
        features, _ = load_wine(return_X_y=True)
        request = json.dumps({"inputs": features[[0, -1]].tolist()})
        (self._folder / "wines.json").write_text(request, encoding="utf-8")
        _show_command("cat wines.json")
        output.lines([request])
        self._gittrack("models", "predict", "-m", "models:/wine/Production", "-i", "wines.json")

    def _best(self) -> Run:
        """The best run on wine whose code was committed."""
        from gittrack import session

        opened = session.open_reader(str(self._folder))
        try:
            experiment = opened.get_experiment_by_name("wine")
            ids = [experiment.experiment_id] if experiment else []
            found = opened.search_runs(ids, f"{_METRIC} > 0", order_by=[f"{_METRIC} DESC"])
            return next(run for run in found if not run.code.get("dirty"))
        finally:
            opened.repo.close()

    def _two_runs(self) -> tuple[Run, Run]:
        """The svc on wine as committed, and the one with the change."""
        from gittrack import session

        opened = session.open_reader(str(self._folder))
        try:
            experiment = opened.get_experiment_by_name("wine")
            ids = [experiment.experiment_id] if experiment else []
            before, after = opened.search_runs(
                ids, "attributes.run_name = 'svc'", order_by=["attributes.start_time ASC"]
            )
            return before, after
        finally:
            opened.repo.close()

    def say_what_next(self, seconds: float) -> None:
        """The next commands to try."""
        _, after = self._two_runs()
        run = after.info.run_id[: common.SHORT]
        _heading(f"That was gittrack, in {seconds:.0f} seconds. To try next:")
        output.lines([f"  cd {shlex.quote(str(self._folder))}"])
        commands = {
            f"gittrack show {run}": "everything about a run",
            f"gittrack artifacts ls {run}": "its files",
            f"git show {(after.commit or 'HEAD')[: common.SHORT]}": "the same run in plain git",
            f"gittrack reproduce {run} --run": "its code, rerun and compared",
            "gittrack log -n 3": "the latest runs in full",
            "gittrack models show wine@production": "where that model comes from",
            "gittrack models serve -m models:/wine/Production": "the same as a server",
            "gittrack help": "all the rest",
        }
        width = max(map(len, commands))
        output.lines(f"  {line.ljust(width)}  {output.style(what, 'dim')}" for line, what in commands.items())

    def _python(self, *arguments: str, fails: bool = False) -> None:
        """Run train.py, in a process of its own as a person would."""
        _show_command(shlex.join(["python", "train.py", *arguments]))
        done = self._run([sys.executable, "train.py", *arguments], capture=fails)
        if (done.returncode != 0) is not fails:
            raise GittrackError(f"train.py ended with status {done.returncode}", hint=f"look at it in `{self._folder}`")
        if fails:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1]
            output.lines([f"… {last}"])

    def _gittrack(self, *arguments: str) -> None:
        """Run a command of gittrack, in a process of its own as a person would."""
        _show_command(shlex.join(["gittrack", *arguments]))
        done = self._run([sys.executable, "-m", "gittrack", "--no-pager", *arguments])
        if done.returncode != 0:
            raise GittrackError(f"`gittrack {arguments[0]}` ended with status {done.returncode}")

    def _run(self, words: Sequence[str], *, capture: bool = False) -> subprocess.CompletedProcess[bytes]:
        sys.stdout.flush()
        stderr = subprocess.PIPE if capture else None
        return subprocess.run(words, cwd=self._folder, env=self._environment, stderr=stderr, check=False)


def _git(folder: Path) -> Git:
    from gittrack.store.gateway import Git

    return Git(folder / ".git", folder)


def _heading(line: str) -> None:
    output.lines(["", output.style(f"# {line}", "bold")])


def _show_command(line: str) -> None:
    output.lines([output.style(f"$ {line}", "cyan")])
