"""``gittrack remote`` and its verbs."""

from __future__ import annotations

from typing import Any

import click

from gittrack.cli import common, output, sharing, text


@click.group(cls=common.VerbGroup, default="list")
def command() -> None:
    """List the git remotes to share with; add, remove or check one.

    They are git's own: what `git remote` shows. Without a further word it lists them.
    """


@command.command("list")
@common.json_option
def list_remotes(as_json: bool) -> None:
    """List the remotes, and what was last seen of runs and models there."""
    from gittrack.store import gateway
    from gittrack.sync import remotes

    with sharing.registry() as opened:
        default = gateway.default_remote(opened.repo.paths, opened.repo.git.head_branch())
        rows: list[dict[str, Any]] = []
        for name, remote in remotes.remotes(opened.repo).items():
            seen = remote.seen_refs(opened.repo)
            rows.append({
                "name": name,
                "url": remote.url,
                "default": name == default,
                "ledgers": sum(ref.startswith("refs/runs/") for ref in seen),
                "tags": sum(ref.startswith("refs/tags/") for ref in seen),
            })  # fmt: skip
    if as_json:
        output.array(rows)
    elif rows:
        cells = [
            [output.Cell(str(row["name"]), "yellow"), "default" if row["default"] else "", str(row["url"]),
             text.count(row["ledgers"], "ledger"), text.count(row["tags"], "registry tag")]
            for row in rows
        ]  # fmt: skip
        output.lines(output.table(["name", "", "where", "runs seen", "models seen"], cells))
    else:
        output.message("no remotes; `gittrack remote add origin URL` names one")


@command.command("add")
@click.argument("name")
@click.argument("url")
def add(name: str, url: str) -> None:
    """Call the repository at URL by NAME, as `git remote add` does."""
    from gittrack.sync import remotes

    with sharing.registry() as opened:
        found = remotes.add(opened.repo, name, url)
    output.message(f"`{found.name}` is `{found.url}`; `gittrack sync {found.name}` shares with it")


@command.command("remove")
@sharing.remote_argument
def remove(remote: str) -> None:
    """Forget REMOTE and what was seen there; nothing of this clone's own goes."""
    from gittrack.sync import remotes

    with sharing.registry() as opened:
        remotes.remove(opened.repo, sharing.open_remote(opened, remote).name)
    output.message(f"forgot remote `{remote}`")


@command.command("check")
@sharing.remote_argument
@common.json_option
def check(remote: str | None, as_json: bool) -> None:
    """Find out whether REMOTE can be read and written, and which refs it takes.

    To find that out a ref is made there, and removed again. Some hosts take branches and tags only; then it is said
    which setting makes runs travel all the same.
    """
    from gittrack.sync import probe

    with sharing.registry() as opened:
        where = sharing.open_remote(opened, remote)
        with output.Progress(f"asking {where.name}") as progress:
            found = probe.check(opened.repo, where, progress=progress.tell, interactive=sharing.interactive())
    if as_json:
        output.document(found._asdict())
        return
    output.message(f"`{where.name}` can be read: {text.count(found.refs, 'ref')}, {found.shared:,} of them gittrack's")
    if found.writable:
        output.message(f"it takes runs{' and models' if found.tags else ''}"
                       + (f" below `{found.prefix}`" if found.prefix else ""))  # fmt: skip
    if found.suggestion:
        output.message(f"it takes runs below `{found.suggestion}` only: `gittrack config ref-prefix {found.suggestion}`"
                       " makes them go there (for all of a team, in pyproject.toml)")  # fmt: skip
    if found.why:
        output.warning(f"it refuses: {found.why}")
    if not found.atomic:
        output.message("it does not move several refs at once or none: it gets one kind after the other, tags last")
