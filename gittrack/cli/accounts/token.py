"""``gittrack server token`` and its verbs."""

from __future__ import annotations

from collections.abc import Sequence

import click

from gittrack.cli import common, output
from gittrack.cli.accounts import base


@click.group(cls=common.VerbGroup, default="list")
def command() -> None:
    """Make, list and revoke the tokens that clients log in with.

    A client shows a token as MLFLOW_TRACKING_TOKEN, or as the password of any name. Without a further word this lists
    them.
    """


@command.command("create")
@click.argument("name")
@base.grant_options(required=True)
@click.option("--expires", metavar="WHEN", help="When it ends: 12h, 90d, 8w or a date; the default is never.")
@base.accounts_option
@common.json_option
def create(
    name: str,
    role: str,
    experiments: Sequence[str],
    models: Sequence[str],
    no_experiments: Sequence[str],
    no_models: Sequence[str],
    expires: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Make a token called NAME, and print it.

    It cannot be shown again: only its hash is kept. `gittrack server token create ci --role writer --experiment 'ci-*'`
    makes one that records into some experiments only.
    """
    asked = base.grants(role, experiments, models, no_experiments, no_models)
    with base.kept(url, write=True) as opened:
        record, token = opened.accounts.create_token(name, asked, by=opened.by, expires=base.until(expires))
        opened.note("token.create", f"{record.name} ({record.id}): {base.said(asked)}")
    if as_json:
        output.document({"id": record.id, "name": name, "token": str(token), "expires": record.expires,
                         "grants": base.written(asked)})  # fmt: skip
        return
    output.lines([str(token)])
    output.message(f"`{name}` is {base.said(asked)}; the token is not shown again")


@command.command("list")
@base.accounts_option
@common.json_option
def list_tokens(url: str | None, as_json: bool) -> None:
    """List the tokens, with those that have ended."""
    from gittrack.server.hub.accounts import now

    with base.kept(url) as opened:
        found = opened.accounts.tokens()
    if as_json:
        output.array(
            {"id": one.id, "name": one.name, "grants": base.written(one.grants), "created": one.created,
             "created_by": one.created_by, "expires": one.expires, "last_used": one.last_used, "revoked": one.revoked}
            for one in found
        )  # fmt: skip
        return
    if not found:
        output.message("no tokens; `gittrack server token create NAME --role writer` makes one")
        return
    rows = []
    for one in found:
        if one.revoked is not None:
            state = f"revoked {base.day(one.revoked)}"
        elif one.expires is None:
            state = ""
        else:
            state = f"{'ended' if one.expires <= now() else 'until'} {base.day(one.expires)}"
        rows.append([output.Cell(one.name, "yellow"), one.id, base.said(one.grants), base.day(one.created),
                     one.created_by, base.day(one.last_used), state])  # fmt: skip
    output.lines(output.table(["name", "id", "is", "made", "by", "last used", ""], rows))


@command.command("revoke")
@click.argument("which", metavar="NAME_OR_ID")
@base.accounts_option
def revoke(which: str, url: str | None) -> None:
    """End a token, by its name or its id; servers that run know within a second."""
    with base.kept(url, write=True) as opened:
        record = opened.accounts.revoke_token(which)
        opened.note("token.revoke", f"{record.name} ({record.id})")
    output.message(f"`{record.name}` ({record.id}) was revoked")
