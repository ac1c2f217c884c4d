"""``gittrack models verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output, text
from gittrack.cli.models import base
from gittrack.errors import GittrackError, InvalidValueError, PolicyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gittrack.registry.registry import Registry
    from gittrack.registry.signing import Verification

#: The exit status if something is wrong, as for damaged data.
_WRONG = 4
_STYLE = {"good": "green", "unsigned": "dim", "bad": "red"}


@common.verb()
@click.argument("version", default="", metavar="[VERSION]", shell_complete=base.complete_versions)
@click.option("-a", "--all", "everything", is_flag=True, help="Every tag of every model.")
@click.option("--policy", is_flag=True, help="Also ask what `[tool.gittrack.registry]` and `requireSigned` ask for.")
@click.option("--signed", is_flag=True, help="Fail for tags that are not signed, too.")
@common.json_option
def verb(version: str, everything: bool, policy: bool, signed: bool, as_json: bool) -> int:
    """Prove that the tags of a model say the truth, and by whom they are signed.

    VERSION is NAME for all tags of the model, or NAME@v3, NAME@STAGE or NAME@ALIAS. A tag is compared with its own
    name, the commit it points at, the digests of the files and the events it comes after; a signature is git's business
    (`git verify-tag`, with your allowed signers). The exit status is 4 if a tag is wrong, 1 if the policy refuses.
    """
    if bool(version) == everything:
        raise UsageError("name a model or a version, or pass `--all`")
    with base.registry() as opened:
        found = [one for name, number in _asked(opened, version) for one in _tags(opened, name, number)]
        refused = _refusals(opened, version) if policy else []
    if as_json:
        output.document({"tags": [_json(one) for one in found], "policy": [one.message for one in refused]})
    else:
        rows = [[one.tag, output.Cell(one.state, _STYLE[one.state]), one.signer or "", one.reason] for one in found]
        output.lines(output.table(["tag", "state", "signer", "why"], rows, cut=False))
        for one in refused:
            output.error(one.message, one.hint)
    bad = [one for one in found if one.state == "bad" or (signed and not one.valid)]
    if bad and not as_json:
        output.error(f"{text.count(len(bad), 'tag')} of {len(found)} did not pass", bad[0].hint)
    return _WRONG if bad else 1 if refused else 0


def _asked(opened: Registry, version: str) -> Iterator[tuple[str, str | None]]:
    if version:
        yield base.version_of(opened, version)
        return
    for model in common.every(lambda token: opened.search_models(max_results=1000, page_token=token)):
        yield model.name, None


def _tags(opened: Registry, name: str, number: str | None) -> Iterator[Verification]:
    """The tags of a model, or those that are about one version, checked."""
    from gittrack.registry import signing

    state = opened.state(name)
    verifier = signing.Verifier(opened.catalog)
    for tag in verifier.tags(state.key):
        if number is None or tag == f"models/{state.key}/v{number}" or number in _about(state, tag):
            yield verifier.verify(tag, state)


def _about(state: Any, tag: str) -> set[str]:
    """The versions that the events that hold at a tag's name are about."""
    heads = [
        head for about in (*state.versions, *(f"@{alias}" for alias in state.aliases())) for head in state.heads(about)
    ]
    return {str(head.version) for head in heads if head.tag == tag}


def _refusals(opened: Registry, version: str) -> list[GittrackError]:
    """What the policy has against the version, or against what is in each stage of the model or of all models."""
    from gittrack.models.addresses import place_of
    from gittrack.registry import policy
    from gittrack.types import ModelVersionStages

    found: list[GittrackError] = []
    for name, number in _asked(opened, version):
        if number is not None:
            asked = [(opened.resolve(version), place_of(version, opened.resolve(version)))]
        else:
            model = opened.get_model(name)
            asked = [
                (one, one.current_stage)
                for one in model.latest_versions
                if one.current_stage in ModelVersionStages.ACTIVE
            ]
            asked += [(opened.resolve(f"{name}@{alias}"), f"@{alias}") for alias in model.aliases]
        for one, place in asked:
            try:
                policy.check_load(opened.catalog, one, place)
            except (PolicyError, InvalidValueError) as error:
                found.append(error)
    return found


def _json(one: Verification) -> dict[str, Any]:
    return {
        "tag": one.tag, "oid": one.oid, "state": one.state, "signer": one.signer, "key": one.key,
        "method": one.method, "reason": one.reason,
    }  # fmt: skip
