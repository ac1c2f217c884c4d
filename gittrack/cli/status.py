"""``gittrack status``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gittrack.cli import common, output, render, text

if TYPE_CHECKING:
    from gittrack.remote.outbox import Waiting
    from gittrack.store.repo import Repo
    from gittrack.track.runs import Tracker


@common.verb()
@common.json_option
def command(as_json: bool) -> None:
    """Show the runs going on and the state of the store.

    Also says which runs wait to be committed, or to be shipped to a tracking server, where the store is, and on which
    commit a run would start now.
    """
    with common.tracker() as opened:
        facts = _facts(opened)
        names = common.experiment_names(opened)
        if as_json:
            runs = {
                key: [render.as_json(run, names) for run in facts[key]] for key in ("running", "uncommitted", "latest")
            }
            facts["unshipped"] = [one._asdict() for one in facts["unshipped"]]
            output.document(facts | runs | {"latest": runs["latest"][0] if runs["latest"] else None})
        else:
            output.lines(_lines(facts, names))


def _facts(opened: Tracker) -> dict[str, Any]:
    from gittrack.types import ViewType

    repo = opened.repo
    repo.refresh()
    live = repo.index.get_runs(sorted(repo.live_runs()), keepers=False)
    return {
        "store": str(repo.root),
        "writable": not repo.read_only,
        "branch": repo.git.head_branch(),
        "commit": repo.git.head(),
        "experiments": len(common.all_experiments(opened)),
        "runs": repo.index.count_runs(view=ViewType.ACTIVE_ONLY),
        "deleted": repo.index.count_runs(view=ViewType.DELETED_ONLY),
        "running": [run for run in live if run.info.status == "RUNNING"],
        "uncommitted": [run for run in live if run.info.status != "RUNNING"],
        "latest": list(opened.search_runs(max_results=1)),
        "unshipped": _unshipped(repo),
    }


def _unshipped(repo: Repo) -> list[Waiting]:
    from gittrack import config
    from gittrack.remote.address import is_server

    if not (repo.root / "outbox").is_dir() and not is_server(config.current().tracking_uri):
        return []  # and nothing more is loaded to find out
    from gittrack.cli import shipping

    return shipping.waiting(repo)


def _lines(facts: dict[str, Any], names: dict[str, str]) -> Iterator[str]:
    yield f"Store:  {facts['store']}" + ("" if facts["writable"] else " (read-only)")
    commit = f"commit {facts['commit'][: common.SHORT]}" if facts["commit"] else "no commit yet"
    yield f"Code:   {commit}" + (f" on {facts['branch']}" if facts["branch"] else "")
    deleted = f", and {facts['deleted']:,} deleted" if facts["deleted"] else ""
    yield f"Runs:   {facts['runs']:,} in {text.count(facts['experiments'], 'experiment')}{deleted}"
    for title, key in (
        ("Going on", "running"),
        ("Over, and not committed yet (the next command that writes does it)", "uncommitted"),
        ("Latest run", "latest"),
    ):
        if facts[key]:
            yield ""
            yield output.style(title, "bold")
            yield from ("    " + render.oneline(run, names) for run in facts[key])
    if facts["unshipped"]:
        yield ""
        yield output.style("Not at the server yet (`gittrack sync` ships it)", "bold")
        from gittrack.cli import shipping

        yield from shipping.lines(facts["unshipped"])
    if not facts["runs"]:
        yield ""
        yield "no runs yet; `gittrack run -- python train.py` records one"
