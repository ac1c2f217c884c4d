"""Push and pull of small runs against git's own of the same objects, and with nothing to do."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from gittrack.store.repo import Repo
from gittrack.store.seal import seal
from tests.benchmarks.measure import Figures, Row, Settings, process, turn_about
from tests.benchmarks.populations import repository, run_git, write_journal

#: Runs of one writer where there are many.
_OF_ONE_WRITER = 250


def _gittrack(settings: Settings, folder: Path, *words: str) -> float:
    return process(settings, [sys.executable, "-m", "gittrack", "-C", str(folder), *words])()


def _git(settings: Settings, folder: Path, *words: str) -> float:
    return process(settings, ["git", "-C", str(folder), *words])()


def share(settings: Settings) -> list[Row]:
    """The runs of one writer to an empty remote, and from there into an empty clone."""
    count = settings.size(1000, 50)
    folder = repository(settings, "sharing")
    _fill(folder, count, count)
    return _both_ways(settings, folder, f"{count:,} small runs", settings.rounds)


def share_many(settings: Settings) -> list[Row]:
    """The runs of many writers, likewise; and the first `gittrack log` after it, which fills the index."""
    count = settings.size(10_000, 500)
    folder = repository(settings, "many")
    _fill(folder, count, _OF_ONE_WRITER)
    return _both_ways(settings, folder, f"{count:,} runs in {count // _OF_ONE_WRITER} ledgers", min(settings.rounds, 3))


def _fill(folder: Path, count: int, each: int) -> None:
    """Put runs into ledgers of ``each`` runs."""
    for writer in range(count // each):
        (folder / ".gittrack" / "writer").write_text(f"writer-{writer}\n")
        repo = Repo.find(folder)
        for number in range(each):
            write_journal(repo, writer * each + number)
        seal(repo)
        repo.close()


def _both_ways(settings: Settings, folder: Path, what: str, rounds: int) -> list[Row]:
    def remote() -> Path:
        path = settings.folder("remote")
        run_git(settings, path, "clone", "-q", "--bare", "--branch=main", str(folder), ".")
        return path

    def cloned() -> Path:
        path = remote()
        run_git(settings, folder, "push", "-q", str(path), "refs/runs/*:refs/runs/*")
        clone = settings.folder("clone")
        run_git(settings, clone, "clone", "-q", f"file://{path}", ".")
        return clone

    def push() -> float:
        run_git(settings, folder, "remote", "add", "here", f"file://{remote()}")
        took = _gittrack(settings, folder, "push", "here")
        run_git(settings, folder, "remote", "remove", "here")
        shutil.rmtree(folder / ".git" / "refs" / "gittrack" / "remotes", ignore_errors=True)
        return took

    def git_push() -> float:
        return _git(settings, folder, "push", "-q", f"file://{remote()}", "refs/runs/*:refs/runs/*")

    logs: list[float] = []

    def pull() -> float:
        clone = cloned()
        took = _gittrack(settings, clone, "pull")
        logs.append(_gittrack(settings, clone, "log", "-n", "1"))
        return took

    def git_fetch() -> float:
        checked = ("-c", "fetch.fsckObjects=true", "fetch", "-q", "origin", "refs/runs/*:refs/runs/*")
        return _git(settings, cloned(), *checked)

    took = turn_about(rounds, push=push, git_push=git_push, pull=pull, git_fetch=git_fetch)
    return [
        Row(f"`gittrack push` of {what}", Figures(tuple(took["push"]), "ms"),
            Figures(tuple(took["git_push"]), "ms"), "`git push` of the same objects", "near `git push`", None,
            "the whole program, which also asks the remote first"),
        Row(f"`gittrack pull` of {what}", Figures(tuple(took["pull"]), "ms"),
            Figures(tuple(took["git_fetch"]), "ms"), "`git fetch` of the same objects", "near `git fetch`", None,
            "ours looks at every run before it counts"),
        Row("the first `gittrack log` after that pull", Figures(tuple(logs[1:]), "ms"), None, "", "–", None,
            "fills the index"),
    ]  # fmt: skip


def nothing_to_share(settings: Settings) -> list[Row]:
    """With many runs on both sides, in ledgers of 250 runs."""
    count = settings.size(50_000, 500)
    folder = repository(settings, "many")
    begun = time.perf_counter()
    _fill(folder, count, _OF_ONE_WRITER)
    settings.say(f"made {count:,} runs in {count // _OF_ONE_WRITER} ledgers in {time.perf_counter() - begun:.1f} s")
    path = settings.folder("many-remote")
    run_git(settings, path, "clone", "-q", "--bare", "--branch=main", str(folder), ".")
    run_git(settings, folder, "remote", "add", "origin", f"file://{path}")
    settings.say(f"first push of all: {_gittrack(settings, folder, 'push'):.1f} s")
    clone = settings.folder("many-clone")
    run_git(settings, clone, "clone", "-q", f"file://{path}", ".")
    settings.say(f"first pull of all: {_gittrack(settings, clone, 'pull'):.1f} s")
    settings.say(f"first log after it: {_gittrack(settings, clone, 'log', '-n', '1'):.1f} s")
    took = turn_about(
        settings.rounds,
        push=lambda: _gittrack(settings, clone, "push"),
        git_push=lambda: _git(settings, clone, "push", "-q", "origin", "refs/runs/*:refs/runs/*"),
        pull=lambda: _gittrack(settings, clone, "pull"),
        git_fetch=lambda: _git(settings, clone, "fetch", "-q", "origin", "refs/runs/*:refs/runs/*"),
    )
    return [
        Row(f"`gittrack {verb}` with nothing to do, {count:,} runs", Figures(tuple(took[verb]), "ms"),
            Figures(tuple(took[theirs]), "ms"), f"`{theirs.replace('_', ' ')}`, nothing to do", "≤ 100 ms over git's",
            None, "a Python program: starting it is most of the difference")
        for verb, theirs in (("push", "git_push"), ("pull", "git_fetch"))
    ]  # fmt: skip
