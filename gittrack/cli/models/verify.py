"""``gittrack models verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from gittrack.cli import common, output, text
from gittrack.cli.models import base
from gittrack.errors import GittrackError, PolicyError, StateError, UsageError

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

    VERSION is NAME for all tags of the model; NAME@v3, NAME@STAGE or NAME@ALIAS for those that say what holds of a
    version; or the name of a tag, such as models/iris/production/4, which has to be one that holds: that is what CI
    asks. A tag is compared with its own name, the commit it points at, the digests of the files and the events it
    comes after; a signature is git's business (`git verify-tag`, with your allowed signers).

    The exit status is 4 if a tag is wrong, 1 if the policy refuses or the tag named holds no more.
    """
    if bool(version) == everything:
        raise UsageError("name a model or a version, or pass `--all`")
    with base.registry() as opened:
        asked = list(_asked(opened, version))
        found = [one for question in asked for one in _verified(opened, question)]
        bad = [one for one in found if one.state == "bad" or (signed and not one.valid)]
        if not bad:
            for question in asked:
                _require_holding(question)
        refused = [error for question in asked for error in _refusals(opened, question)] if policy else []
    if as_json:
        about = {"model": asked[0].name, "version": asked[0].number, "place": asked[0].place} if version else {}
        output.document({**about, "tags": [_json(one) for one in found], "policy": [one.message for one in refused]})
    else:
        rows = [[one.tag, output.Cell(one.state, _STYLE[one.state]), one.signer or "", one.reason] for one in found]
        output.lines(output.table(["tag", "state", "signer", "why"], rows, cut=False))
    for one in refused:
        output.error(one.message, one.hint)
    if bad:
        output.error(f"{text.count(len(bad), 'tag')} of {len(found)} did not pass", bad[0].hint)
    return _WRONG if bad else 1 if refused else 0


class _Question(NamedTuple):
    """What is asked about one model.

    Attributes:
        name: The model's.
        number: The version's; None: all of them, or none that the tag is known to be about.
        place: The stage or ``@<alias>`` by which it was asked for.
        tags: The tags to look at.
        tag: The tag that was named, if one was.
    """

    name: str
    number: str | None
    place: str | None
    tags: list[str]
    tag: str | None = None


def _asked(opened: Registry, version: str) -> Iterator[_Question]:
    from gittrack.models.addresses import place_of
    from gittrack.registry import signing

    if version.startswith("models/") and version.count("/") > 1:
        yield _about_tag(opened, version)
        return
    if version:
        asked = [base.version_of(opened, version)]
    else:
        models = common.every(lambda token: opened.search_models(max_results=1000, page_token=token))
        asked = [(model.name, None) for model in models]
    for name, number in asked:
        state = opened.state(name)
        if number is None:
            yield _Question(name, None, None, signing.Verifier(opened.catalog).tags(state.key))
            continue
        record = opened.get_version(name, number)
        events = signing.holding(state, int(number))
        tags = [record.tag, *sorted({event.tag for event in events})]
        yield _Question(name, number, place_of(version, record), tags)


def _about_tag(opened: Registry, tag: str) -> _Question:
    """The question about a tag: it, and the version that it is about.  Raises ConflictError if clones disagree."""
    from gittrack.registry import names, signing
    from gittrack.registry.events import StageTag

    parsed = names.parse_tag(tag)
    state = opened.catalog.state(parsed.key)
    if parsed.slot == "v" and parsed.number in state.visible:
        return _Question(state.name, str(parsed.number), None, [tag], tag)
    for number in state.visible:
        for event in signing.holding(state, number):
            if event.tag == tag and event.version == number:
                place = event.stage if isinstance(event, StageTag) else event.slot
                state.require_agreement(place)
                return _Question(state.name, str(number), place, [state.versions[number].tag, tag], tag)
    return _Question(state.name, None, None, [tag], tag)


def _verified(opened: Registry, question: _Question) -> Iterator[Verification]:
    from gittrack.registry import names, signing

    verifier = signing.Verifier(opened.catalog)
    for tag in question.tags:
        yield verifier.verify(tag, opened.catalog.state(names.parse_tag(tag).key))


def _require_holding(question: _Question) -> None:
    """Raise StateError if a tag was named that says what is not so any more."""
    if question.tag is not None and question.number is None:
        raise StateError(
            f"`{question.tag}` holds no more: something came after it",
            hint=f"`gittrack models log '{question.name}'` shows what",
        )


def _refusals(opened: Registry, question: _Question) -> list[GittrackError]:
    """What the policy has against the version, or against what is in each stage and has each alias."""
    from gittrack.registry import policy
    from gittrack.types import ModelVersionStages

    if question.number is not None:
        asked = [(opened.get_version(question.name, question.number), question.place)]
    elif question.tag is not None:
        asked = []  # it is no event that counts
    else:
        model = opened.get_model(question.name)
        used = [one for one in model.latest_versions if one.current_stage in ModelVersionStages.ACTIVE]
        asked = [(one, one.current_stage) for one in used]
        asked += [(opened.get_version(model.name, number), f"@{alias}") for alias, number in model.aliases.items()]
    found: list[GittrackError] = []
    for one, place in asked:
        try:
            policy.check_load(opened.catalog, one, place)
        except PolicyError as error:
            found.append(error)
    return found


def _json(one: Verification) -> dict[str, Any]:
    return {
        "tag": one.tag, "oid": one.oid, "state": one.state, "signer": one.signer, "key": one.key,
        "method": one.method, "reason": one.reason,
    }  # fmt: skip
