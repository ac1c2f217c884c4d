"""``gittrack fetch``."""

from __future__ import annotations

from gittrack.cli import common, output, sharing


@common.verb()
@sharing.remote_argument
@sharing.dry_run_option
@common.json_option
def command(remote: str | None, dry_run: bool, as_json: bool) -> None:
    """Bring what a git remote has, and change nothing of this clone's own.

    Conflicts about models show in `gittrack models` from then on; `gittrack pull` takes everything over.
    """
    from gittrack.sync.pull import pull

    with sharing.registry() as opened:
        where = sharing.open_remote(opened, remote)
        with output.Progress(f"fetching from {where.name}") as progress:
            report = pull(opened, where, dry_run=dry_run, take_over=False, progress=progress.tell,
                          interactive=sharing.interactive())  # fmt: skip
    if as_json:
        output.document(sharing.pull_json(report))
        sharing.refuse(report.refused, report.remote)
    else:
        sharing.tell_fetch(report)
