"""A project of a user's to harm, and the invariants that must hold after every harm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.tracer import Outcome
from tests.faults.zygote import Zygote

#: Every fault at every point instead of samples: ``GITTRACK_FAULTS=full pytest tests/faults``.
FULL = os.environ.get("GITTRACK_FAULTS") == "full"


def environment(home: Path) -> dict[str, str]:
    """The environment of a user who has a name and nothing else."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "gitconfig").write_text("[user]\n\tname = Ana\n\temail = ana@example.org\n[init]\n\tdefaultBranch = main\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT", "MLFLOW", "XDG"))}
    return {**kept, "HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / "gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    """What a plain git says in ``folder``."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"git {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Project:
    """A git repository with everything in it that gittrack must not touch, and a store with runs.

    Attributes:
        folder: Its work tree.
        promises: What was acknowledged so far, by what it is about; several where the last change was not acknowledged.
    """

    folder: Path
    zygote: Zygote
    promises: dict[tuple[Any, ...], list[list[Any]]] = field(default_factory=dict)
    _user: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, zygote: Zygote) -> Project:
        """A repository with commits, a stash, a staged change, an unstaged one, a new file; and three runs."""
        folder.mkdir(parents=True)
        git(folder, "init", "-q", "-b", "main")
        (folder / "train.py").write_text("print('train')\n")
        (folder / "staged.py").write_text("one\n")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "first")
        (folder / "train.py").write_text("print('stashed')\n")
        git(folder, "stash", "-q")
        (folder / "train.py").write_text("print('dirty')\n")
        (folder / "staged.py").write_text("two\n")
        git(folder, "add", "staged.py")
        (folder / "new.py").write_text("new\n")
        project = cls(folder, zygote)
        project.learn(zygote.run("populate", folder=str(folder)), 0)
        project._user = project.user_state()
        return project

    def copy(self, folder: Path) -> Project:
        """The same project somewhere else."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, self.zygote, {about: list(said) for about, said in self.promises.items()}, self._user)

    def learn(self, outcome: Outcome, status: int | None = None, *, trust: bool = True) -> None:
        """Take in what a program acknowledged.

        Args:
            outcome: How it ended.
            status: What it must have ended with, if that matters.
            trust: False: what comes with or after a warning is no promise.
        """
        assert status is None or outcome.status == status, f"exit status {outcome.status}\n{outcome.stderr}"
        for line in outcome.acks:
            said = json.loads(line)
            if said[0] == "purged":
                self.promises["purged", said[1]] = [said]
                continue
            mark = said.pop(0) if said[0] in ("maybe", "warned") else None
            if mark == "warned" and not trust:
                return
            if mark == "maybe":
                self.promises.setdefault(_subject(said), []).append(said)
            else:
                self.promises[_subject(said)] = [said]

    def forget(self, run_id: str) -> None:
        """Nothing is promised about this run any more."""
        self.promises = {subject: said for subject, said in self.promises.items() if run_id not in subject}

    def runs(self) -> list[str]:
        """Ids of the runs that ``make`` put in, in order; the last one is deleted."""
        return [subject[1] for subject in self.promises if subject[0] == "status"][:3]

    def user_state(self) -> dict[str, str]:
        """Everything of the user's that must stay as it is: HEAD, branches, index, config, stash, work tree."""
        dot_git = self.folder / ".git"
        refs = git(self.folder, "for-each-ref", "refs/heads", "refs/stash", "refs/remotes")
        kept = {"refs": refs, "status": git(self.folder, "--no-optional-locks", "status", "--porcelain=v2")}
        files = [dot_git / "HEAD", dot_git / "index", dot_git / "config", dot_git / "logs" / "HEAD"]
        files += [path for path in sorted(self.folder.iterdir()) if path.is_file()]
        kept.update({str(f.relative_to(self.folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files})
        return kept

    def leftovers(self) -> list[str]:
        """Temporary files, lock files and journals that no operation in progress accounts for."""
        dot_git, store = self.folder / ".git", self.folder / ".gittrack"
        found = [
            path
            for path in dot_git.rglob("*")
            if path.suffix in (".lock", ".keep", ".tmp") or path.name.startswith(("tmp_", ".tmp", "tmp-"))
            if path.name != "gittrack.lock"  # held by flock, never removed
        ]
        found += [path for path in (store / "objects").rglob("*") if path.is_file() and len(path.name) != 64]
        found += list(store.glob("live/*/*"))
        found += [path for path in store.rglob("*") if "tmp" in path.suffix and path not in found]
        return [str(path.relative_to(self.folder)) for path in found]

    def age(self, *patterns: str) -> int:
        """Make files look two days old, so that nobody can be at work on them; how many there were."""
        paths = [path for pattern in patterns for path in self.folder.glob(pattern)]
        for path in paths:
            os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
        return len(paths)

    def verify(self, after: object, *, lost: bool = False) -> None:
        """Every invariant.

        Args:
            after: What was done, for the failure's message.
            lost: Something was damaged beyond repair, and the store's own check may say so.

        Raises:
            AssertionError: With every broken invariant in it.
        """
        wrong: list[str] = []
        folder = str(self.folder)
        self.age(
            ".gittrack/live/**/*.opening",
            ".gittrack/objects/**/.tmp-*",
            ".git/objects/**/.tmp-*",
            ".git/objects/**/*tmp_*",
            ".git/objects/**/*.keep",
        )
        steps = ["check", "go_on", "check", "tidy", "problems", "compare_index"]
        for number, step in enumerate(steps):
            arguments: dict[str, Any] = {}
            if step == "check":
                arguments = {"promises": list(self.promises.values()), "sealed": number > 0}
            outcome = self.zygote.run(step, folder=folder, **arguments)
            if outcome.status != 0:
                wrong.append(f"{step}: exit status {outcome.status}\n{outcome.stderr}")
            elif step == "go_on":
                self.learn(outcome)
                said = [line for line in outcome.stderr.splitlines() if line.startswith("warning: ")]
                wrong += [f"go_on: {line}" for line in said if "left behind" not in line and not lost]
            elif step != "problems" or not lost:
                wrong += [f"{step}: {line}" for line in outcome.acks]
        if self.age(".git/refs/**/*.lock"):  # of a ref that was not written since; young locks may be git's
            self.learn(self.zygote.run("go_on", folder=folder))
        fsck = subprocess.run(
            ["git", "fsck", "--strict", "--no-dangling"], cwd=folder, capture_output=True, text=True, check=False
        )
        if fsck.returncode != 0 or fsck.stdout.strip():
            wrong.append(f"git fsck: {fsck.stdout}{fsck.stderr}")
        now = self.user_state()
        wrong += [f"the user's {key} changed" for key in {*now, *self._user} if now.get(key) != self._user.get(key)]
        wrong += [f"left over: {name}" for name in self.leftovers()]
        assert not wrong, f"after {after}:\n" + "\n".join(wrong)


#: How much of a promise says what it is about; all of those that are not here.
_SUBJECT = {
    "status": 2, "lifecycle": 2, "experiment": 2, "tag": 3, "artifact": 3, "version": 3, "stage": 3, "alias": 3
}  # fmt: skip


def _subject(said: list[Any]) -> tuple[Any, ...]:
    """What a promise is about: a later one about the same replaces it."""
    return tuple(said[: _SUBJECT.get(said[0], len(said))])


def sample(total: int, quick: int, *, most: int | None = None) -> Iterable[int]:
    """Points to try of 1..total, spread evenly with both ends: ``quick``, or ``most`` (all) in a full run."""
    wanted = (most or total) if FULL else quick
    if total <= wanted:
        return range(1, total + 1)
    return sorted({1 + round(i * (total - 1) / (wanted - 1)) for i in range(wanted)})
