"""``gittrack server webhook`` and its verbs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gittrack.cli import common, output
from gittrack.cli.accounts import base
from gittrack.errors import NetworkError

if TYPE_CHECKING:
    from gittrack.server.hub.webhooks import Webhooks

F = TypeVar("F", bound=Callable[..., Any])


def key_option(function: F) -> F:
    """``--webhook-key``: another key than the one in the store."""
    return click.option(
        "--webhook-key",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="GITTRACK_WEBHOOK_KEY",
        metavar="FILE",
        help="The key that webhooks' secrets are locked with, for servers that share a database; also the variable"
        " GITTRACK_WEBHOOK_KEY. The default is a file in `.gittrack/server`, made when it is needed.",
    )(function)


@click.group(cls=common.VerbGroup, default="list")
def command() -> None:
    """Tell other programs of finished runs, new versions, stages and aliases.

    Each webhook is an address that gets a signed POST with JSON. `gittrack help server` says what is in it and how it
    is verified. Without a further word the webhooks are listed.
    """


@contextlib.contextmanager
def _opened(url: str | None, key: Path | None, *, write: bool = False) -> Iterator[tuple[base.Kept, Webhooks]]:
    from gittrack.server.hub.webhooks import KEY_FILE, Keys, Webhooks

    with base.kept(url, write=write) as kept:
        yield kept, Webhooks(kept.accounts, Keys(key or kept.audit.folder / KEY_FILE))


@command.command("add")
@click.argument("address", metavar="URL")
@click.option("--event", "events", multiple=True, metavar="EVENT", help="Only this event; repeatable.")
@click.option("--project", "projects", multiple=True, metavar="NAME", help="Only of this project; repeatable.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Take the first line of this file as the secret, rather than make one up.",
)
@click.option(
    "--private", is_flag=True, help="Let the address be on this machine or in a private network, and without TLS."
)
@key_option
@base.accounts_option
@common.json_option
def add(
    address: str,
    events: Sequence[str],
    projects: Sequence[str],
    secret_file: Path | None,
    private: bool,
    webhook_key: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Send what happens from now on to URL; prints the secret that signs it.

    The secret is not shown again. Events: run.finished, model_version.created, model_version.stage_changed,
    model_version.alias_set, model_version.alias_deleted; all of them without `--event`.
    """  # fmt: skip
    from gittrack.server.hub.notifier import Notifier
    from gittrack.server.hub.projects import Projects
    from gittrack.store.repo import Repo

    given = None if secret_file is None else base.first_line(secret_file)
    with _opened(url, webhook_key, write=True) as (kept, webhooks):
        known = Projects(Repo.find(Path.cwd()))
        try:
            for name in projects:
                known.get(name)  # or it is not there
            notifier = Notifier(known, webhooks)
            notifier.look()  # what happened until now is for those that were there before
            made, secret = webhooks.add(
                address, by=kept.by, events=events, projects=projects, private=private, secret=given
            )
            notifier.look()
            kept.note("webhook.add", f"{made.id}: {made.url}")
        finally:
            known.close()
    if as_json:
        output.document({"id": made.id, "url": made.url, "events": list(made.events), "projects": list(made.projects),
                         "private": made.private, "secret": secret})  # fmt: skip
        return
    if given is None:
        output.lines([secret])
        output.message(f"webhook {made.id} was added; its secret is not shown again")
    else:
        output.message(f"webhook {made.id} was added")


@command.command("list")
@base.accounts_option
@common.json_option
def list_webhooks(url: str | None, as_json: bool) -> None:
    """List the webhooks, with how many deliveries wait, came through or failed."""
    from gittrack.server.hub.webhooks import DEAD, DELIVERED, WAITING

    with _opened(url, None) as (_, webhooks):
        found, counts = webhooks.all(), webhooks.counts()
        troubles = {one.id: webhooks.troubles(one.id) for one in found}
    states = (WAITING, DELIVERED, DEAD)
    if as_json:
        output.array(
            {"id": one.id, "url": one.url, "events": list(one.events), "projects": list(one.projects),
             "private": one.private, "created": one.created, "created_by": one.created_by,
             **{state: counts.get(one.id, {}).get(state, 0) for state in states},
             "failed": [{"id": bad.id, "event": bad.event, "state": bad.state, "tries": bad.tries, "error": bad.error}
                        for bad in troubles[one.id]]}
            for one in found
        )  # fmt: skip
        return
    if not found:
        output.message("no webhooks; `gittrack server webhook add URL` adds one")
        return
    rows = []
    for one in found:
        numbers = [str(counts.get(one.id, {}).get(state, 0)) for state in states]
        last = troubles[one.id][0].error if troubles[one.id] else ""
        about = ", ".join(one.events) or "everything"
        rows.append([output.Cell(one.id, "yellow"), one.url, about, ", ".join(one.projects) or "all", *numbers, last])
    output.lines(output.table(["id", "url", "of", "projects", *states, "last trouble"], rows))


@command.command("test")
@click.argument("which", metavar="ID")
@key_option
@base.accounts_option
def test(which: str, webhook_key: Path | None, url: str | None) -> None:
    """Deliver the event `webhook.test` to the webhook ID now, and say what came of it."""
    import secrets

    from gittrack.server.hub import delivery
    from gittrack.server.hub.accounts import now
    from gittrack.server.hub.notifier import TEST, body_of

    with _opened(url, webhook_key) as (kept, webhooks):
        hook, secret = webhooks.get(which)
        ident = secrets.token_hex(16)
        body = body_of(TEST, ident, now(), kept.by, (hook.projects or ("default",))[0], "", {})
    status, error = delivery.tried(hook.target, secret, TEST, ident, body.encode())
    if error:
        raise NetworkError(f"webhook {which}: {error}", hint="what it has to answer is a status from 200 to 299")
    output.message(f"webhook {which} answered with status {status}")


@command.command("retry")
@click.argument("which", metavar="[ID]", required=False)
@base.accounts_option
def retry(which: str | None, url: str | None) -> None:
    """Deliver anew what is `dead`, to the webhook ID or to all of them.

    A server that runs begins with it within a second, and tries as often as the first time.
    """
    with _opened(url, None) as (kept, webhooks):
        number = webhooks.retry(which)
        kept.note("webhook.retry", f"{which or 'all'}: {number}")
    output.message(f"{number} {'delivery is' if number == 1 else 'deliveries are'} tried again")


@command.command("remove")
@click.argument("which", metavar="ID")
@base.accounts_option
def remove(which: str, url: str | None) -> None:
    """Remove the webhook ID, and what waits for it."""
    with _opened(url, None) as (kept, webhooks):
        webhooks.remove(which)
        kept.note("webhook.remove", which)
    output.message(f"webhook {which} was removed")
