"""``gittrack init``."""

from __future__ import annotations

from pathlib import Path

import click

from gittrack.cli import common, output


@common.verb()
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Make the store for the git repository that FOLDER lies in.

    The store is the folder `.gittrack`, which git ignores. In a folder that is in no git repository, a private
    store is made inside it. Recording makes the store by itself where it is missing; what only `init` does is to
    teach plain `git show` and `git diff` to print runs as text, by a setting in this clone's git configuration.
    Running it again is harmless.
    """
    from gittrack.store import gateway
    from gittrack.store.repo import Repo
    from gittrack.track.setup import teach_git

    paths = gateway.discover(folder.resolve())
    new = paths is None or not Repo(paths).exists
    repo = Repo.find(folder.resolve(), create=True)
    repo.require_writable()
    output.message(f"{'made the store' if new else 'the store is there already'}: {repo.root}")
    if repo.paths.private:
        output.message("there is no git repository here, so runs are kept in a private one; code is not recorded")
    for line in teach_git(repo, common.program()):
        output.message(f"set {line}")
    if new:
        output.message("next: `gittrack run -- python train.py` records a run; `gittrack help quickstart` says more")
