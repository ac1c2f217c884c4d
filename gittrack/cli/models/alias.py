"""``gittrack models alias``."""

from __future__ import annotations

import click

from gittrack.cli import common, output
from gittrack.cli.models import base
from gittrack.errors import NotFoundError, UsageError


@common.verb()
@base.version_argument
@click.argument("alias", default="")
@click.option("-d", "--delete", "removed", metavar="ALIAS", help="Take this alias away.")
@base.reason_option
@base.sign_option
@common.json_option
def verb(version: str, alias: str, removed: str | None, reason: str, sign: bool, as_json: bool) -> None:
    """List the aliases of a model, or give ALIAS to VERSION.

    An alias stands for one version at a time; giving it to another one takes it from the first.
    """
    if alias and removed is not None:
        raise UsageError("an alias is given and another taken away", hint="do one after the other")
    alias, removed = alias.removeprefix("@"), None if removed is None else removed.removeprefix("@")
    with base.registry(write=bool(alias or removed)) as opened:
        name, number = base.version_of(opened, version)
        known = opened.get_model(name).aliases
        if removed is not None:
            if removed not in known:
                raise NotFoundError(f"model `{name}` has no alias `{removed}`", hint=f"`gittrack models alias {name}`")
            opened.delete_alias(name, removed, reason, sign=sign)
            output.message(f"`{name}@{removed}` is no version any more; it was v{known[removed]}")
        elif alias:
            if number is None:
                raise UsageError(f"`{version}` is a model and no version of it", hint=f"write `{version}@v1`")
            opened.set_alias(name, alias, number, reason, sign=sign)
            same = known.get(alias) == number and not sign
            output.message(f"`{name}@{alias}` is v{number} {'already; nothing was changed' if same else 'now'}")
        elif as_json:
            output.document(dict(sorted(known.items())))
        elif not known:
            output.message(f"`{name}` has no aliases")
        else:
            output.lines(output.table(["", ""], [[f"@{one}", f"v{of}"] for one, of in sorted(known.items())]))
