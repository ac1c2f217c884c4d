"""``gittrack models`` and its verbs: one file each, named as the verb."""

from __future__ import annotations

import click

from gittrack.cli import common
from gittrack.cli.models import (
    alias,
    ci,
    demote,
    describe,
    diff,
    dockerfile,
    list as list_,
    log,
    predict,
    promote,
    pull,
    register,
    rename,
    requirements,
    resolve,
    restore,
    rm,
    serve,
    show,
    tag,
    verify,
    which,
)


@click.group(cls=common.VerbGroup, default="list")
def command() -> None:
    """Register, promote and fetch models by name.

    `gittrack models` lists the models, `gittrack models NAME` the versions of one. A version is written NAME@v3 or
    NAME/3; NAME@champion (an alias), NAME@production (a stage) and NAME@latest stand for one, too. `gittrack help
    registry` explains all of it.
    """


for _name, _verb in {
    "list": list_.verb,
    "register": register.verb,
    "show": show.verb,
    "log": log.verb,
    "diff": diff.verb,
    "promote": promote.verb,
    "demote": demote.verb,
    "alias": alias.verb,
    "describe": describe.verb,
    "tag": tag.verb,
    "pull": pull.verb,
    "serve": serve.verb,
    "predict": predict.verb,
    "verify": verify.verb,
    "dockerfile": dockerfile.verb,
    "ci": ci.verb,
    "which": which.verb,
    "requirements": requirements.verb,
    "resolve": resolve.verb,
    "rename": rename.verb,
    "rm": rm.verb,
    "restore": restore.verb,
}.items():
    command.add_command(_verb, _name)
