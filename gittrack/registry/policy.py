"""Policy: what a model has to fulfil before it may be put somewhere, and before it is loaded from there.

    [tool.gittrack.registry.production]           # in pyproject.toml
    signers = ["ana@lab", "bo@lab"]               # who may; left out: every allowed signer of git
    signatures = 2                                # that many different people
    require = "metrics.val_accuracy >= 0.9"       # the run that made the model matches this filter
    reason = true                                 # whoever puts it there says why

A place is a stage in lower case, an alias (``"@champion"``), or ``versions``: all versions, however they are asked for.
``gittrack.requireSigned`` names places that need at least one signature.  The same rules hold when an event is written,
when a model is loaded, and in `gittrack models verify --policy`.  Without a rule nothing is asked, and nothing read.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from gittrack import config
from gittrack.errors import InvalidValueError, NotFoundError, PolicyError
from gittrack.registry import names, signing
from gittrack.registry.events import AliasTag, Event, StageTag, VersionTag
from gittrack.registry.signing import Verification, Verifier
from gittrack.registry.state import claim
from gittrack.types import ModelVersion, ModelVersionStages, ObjectId, RunId

if TYPE_CHECKING:
    from gittrack.registry.catalog import Catalog
    from gittrack.registry.state import ModelState
    from gittrack.store.repo import Repo
    from gittrack.track.query.tree import Node

#: The place of every version.
VERSIONS: Final = "versions"
_STAGES: Final = tuple(stage.lower() for stage in ModelVersionStages.ALL if stage != ModelVersionStages.NONE)
_KEYS: Final = ("signers", "signatures", "require", "reason")
_MOST_SIGNATURES: Final = 20
_log = logging.getLogger("gittrack")


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of a model in one place.

    Attributes:
        place: A stage as in ``ModelVersionStages``, ``@<alias>``, or ``versions``.
        signatures: By how many different people it must be signed.
        signers: Whose signatures count; empty: those of every allowed signer.
        require: A filter that the run must match.
        reason: Whoever puts a model there says why.
    """

    place: str
    signatures: int = 0
    signers: tuple[str, ...] = ()
    require: str | None = None
    reason: bool = False

    def counts(self, found: Verification) -> bool:
        """True if a signature is good and by somebody who may."""
        return found.valid and (not self.signers or found.is_by(self.signers))


# -- reading -----------------------------------------------------------------------------------------------------------


def load(repo: Repo) -> dict[str, Rule]:
    """The rules of the team and the person, by place.

    Raises:
        InvalidValueError: A setting or a table cannot be read, or has something unknown in it.
    """
    paths = repo.paths
    team = config.team_settings(paths) if paths.work_tree is not None else _team_of_head(repo)
    table = team.get("registry", {})
    if not isinstance(table, Mapping):
        raise InvalidValueError("`tool.gittrack.registry` in pyproject.toml is no table")
    rules = {rule.place: rule for rule in (_rule(str(key), value) for key, value in table.items())}
    for word in config.current(paths.work_tree or paths.git_dir).require_signed:
        place = _place(word)
        known = rules.get(place, Rule(place))
        rules[place] = replace(known, signatures=max(1, known.signatures))
    return rules


def _team_of_head(repo: Repo) -> Mapping[str, Any]:
    """The team's settings of a repository without files: those of the current branch."""
    head = repo.git.head()
    found = None if head is None else repo.git.lookup(repo.git.tree_of(head), "pyproject.toml")
    return {} if found is None else config.read_team(repo.git.read_blob(found[1]), "HEAD:pyproject.toml")


def _place(word: str) -> str:
    """The place that a word of a setting names.  Raises InvalidValueError."""
    if word.startswith("@"):
        return "@" + names.check_alias(word[1:])
    if word.lower() == VERSIONS:
        return VERSIONS
    if word.lower() not in _STAGES:
        raise _unknown(word, (*_STAGES, VERSIONS), "tool.gittrack.registry", "a stage, `versions` or `@ALIAS`")
    return ModelVersionStages.canonical(word)


def _unknown(word: str, known: Iterable[str], where: str, kinds: str) -> InvalidValueError:
    near = difflib.get_close_matches(word.lower(), list(known), n=1)
    return InvalidValueError(
        f"`{where}` has `{word:.80}`, which is unknown",
        hint=f"did you mean `{near[0]}`?" if near else f"it takes {kinds}",
    )


def _rule(key: str, table: object) -> Rule:
    where = f"tool.gittrack.registry.{key:.80}"
    place = _place(key)
    if not isinstance(table, Mapping):
        raise InvalidValueError(f"`{where}` in pyproject.toml is no table", hint=f"write [{where}]")
    for name in table:
        if name not in _KEYS:
            raise _unknown(str(name), _KEYS, where, ", ".join(f"`{one}`" for one in _KEYS))
    signers = table.get("signers", [])
    if not isinstance(signers, list) or not all(isinstance(one, str) and one.strip() for one in signers):
        raise InvalidValueError(f"`{where}.signers` is no list of names", hint='write it as ["ana@lab"]')
    if "signers" in table and not signers:
        raise InvalidValueError(f"`{where}.signers` is empty: nobody could promote", hint="leave it out for everybody")
    signatures = table.get("signatures", 1 if signers else 0)
    most = _MOST_SIGNATURES if place in ModelVersionStages.ALL else 1  # only events of stages can be approved
    if type(signatures) is not int or not 0 <= signatures <= most:
        raise InvalidValueError(
            f"`{where}.signatures` is `{signatures!r:.40}`", hint=f"a whole number from 0 to {most}"
        )
    if signers and not 0 < signatures <= len(set(signers)):
        raise InvalidValueError(f"`{where}` wants {signatures} signatures of {len(set(signers))} signers")
    require = table.get("require")
    if require is not None:
        if not isinstance(require, str) or not require.strip():
            raise InvalidValueError(f"`{where}.require` is no filter", hint='write it as "metrics.accuracy >= 0.9"')
        _filter(require)
    reason = table.get("reason", False)
    if type(reason) is not bool or (reason and place == VERSIONS):
        raise InvalidValueError(
            f"`{where}.reason` is `{reason!r:.40}`", hint="true or false, for a stage or an alias: versions have none"
        )
    return Rule(place, signatures, tuple(signers), require, reason)


def _filter(text: str, metrics: Collection[str] = ()) -> Node:
    """The tree of a filter, for a run with these metrics."""
    from gittrack.track import query

    node = query.parse_filter(text, has_metric=lambda name: name in metrics)
    if node is None:
        raise InvalidValueError("a filter is empty")
    return node


def _asked(rules: Mapping[str, Rule], place: str) -> list[Rule]:
    """The rules of a place; an alias that is called like a stage is asked for all that the stage is asked for."""
    found = [rules[place]] if place in rules else []
    if place[:1] == "@" and place[1:].lower() in _STAGES:
        stage = ModelVersionStages.canonical(place[1:])
        if stage in rules:
            found.append(replace(rules[stage], place=place))
    return found


# -- writing -----------------------------------------------------------------------------------------------------------


class Gate:
    """Lets an event be written, or not.

    Args:
        catalog: Of the registry that it is for.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._rules = load(catalog.repo)

    def require_signing(self, place: str, name: str, *, sign: bool) -> None:
        """Raise PolicyError if what puts a model of that name there must be signed, and is not going to be."""
        for rule in _asked(self._rules, place):
            if rule.signatures and not sign:
                raise PolicyError(f"{_what(rule)} of `{name}` must be signed by {_who(rule)}", hint="`--sign` signs it")

    def before(self, event: Event, *, sign: bool) -> None:
        """Raise PolicyError if an event must not be written, whoever signs it."""
        place = _place_of(event)
        asked = _asked(self._rules, place)
        if not asked:
            return
        self.require_signing(place, self._catalog.state(event.key).name, sign=sign)
        if isinstance(event, (VersionTag, StageTag, AliasTag)):
            for rule in asked:
                if rule.reason and not event.reason:
                    raise PolicyError(f"{_what(rule)} needs a reason", hint="`--message` says why")
                _require_run(self._catalog.repo, rule, event.run_id, event.target)

    def after(self, event: Event, mine: Verification) -> None:
        """Raise PolicyError if an event must not be published with this signature."""
        for rule in _asked(self._rules, _place_of(event)):
            if rule.signatures and not rule.counts(mine):
                why = mine.reason or f"{mine.signer} is none of {_who(rule)}"
                raise PolicyError(f"your signature of `{event.tag}` does not count: {why}", hint=mine.hint)
        if not mine.valid:
            _log.warning("gittrack: your signature of `%s` does not count here: %s", event.tag, mine.reason)
        if isinstance(event, StageTag) and event.approves:
            self._require_somebody_else(event, mine)

    def _require_somebody_else(self, event: StageTag, mine: Verification) -> None:
        state = self._catalog.state(event.key)
        heads = [head for head in state.heads(event.version) if isinstance(head, StageTag)]
        verifier = Verifier(self._catalog)
        there = [verifier.verify(one.tag, state) for one in (*heads, *signing.approvals(state, heads))]
        good = [one for one in there if one.valid]
        if mine.valid and signing.people([*good, mine]) == signing.people(good):
            raise PolicyError(
                f"{mine.signer} has signed v{event.version} in {event.stage} already", hint="somebody else has to"
            )


def _place_of(event: Event) -> str:
    """The place that an event puts a version into; empty: it takes one out."""
    if isinstance(event, VersionTag):
        return VERSIONS
    if isinstance(event, AliasTag):
        return event.slot if event.version is not None else ""
    return event.stage if isinstance(event, StageTag) else ""


def _what(rule: Rule) -> str:
    return "a version" if rule.place == VERSIONS else f"what becomes {rule.place}"


def _who(rule: Rule) -> str:
    return ", ".join(rule.signers) or "an allowed signer"


# -- loading -----------------------------------------------------------------------------------------------------------


def check_load(catalog: Catalog, version: ModelVersion, place: str | None = None) -> None:
    """Refuse a version that does not fulfil what is asked of it.

    Args:
        catalog: Of the registry that it is in.
        version: What is to be loaded.
        place: The stage or ``@<alias>`` that it was asked for by; None: by its number, or as the latest.

    Raises:
        PolicyError: It does not; says which rule, and what is there.
        InvalidValueError: The rules cannot be read.
    """
    rules = load(catalog.repo)
    asked = _asked(rules, VERSIONS)
    if place is not None and place.lower() != "none":
        asked += _asked(rules, _place(place))
    if not asked:
        return
    state, verifier = catalog.state(version.key), Verifier(catalog)
    for rule in asked:
        _require_run(catalog.repo, rule, version.run_id, version.commit)
        if rule.signatures:
            found = [verifier.verify(tag, state) for tag in _signable(state, version, rule.place)]
            _require_signatures(version, rule, found)


def _signable(state: ModelState, version: ModelVersion, place: str) -> Iterator[str]:
    """The tags that say that a version is in a place: the event that holds, and those that approve it."""
    number = int(version.version)
    if place == VERSIONS:
        yield version.tag
        return
    if place.startswith("@"):
        yield from (head.tag for head in state.heads(place) if head.version == number)
        return
    heads = [head for head in state.heads(number) if isinstance(head, StageTag) and claim(head, number) == place]
    approving = [one for one in signing.approvals(state, heads) if (one.version, one.stage) == (number, place)]
    yield from (event.tag for event in (*heads, *approving))


def _require_signatures(version: ModelVersion, rule: Rule, found: list[Verification]) -> None:
    good = [one for one in found if rule.counts(one)]
    have = signing.people(good)
    if have >= rule.signatures:
        return
    where = "" if rule.place == VERSIONS else f" as {rule.place}"
    asked = (
        f"it needs {rule.signatures} signature{'s by different people' if rule.signatures > 1 else ''} of {_who(rule)}"
    )
    there = f"it has {have}" + (f" ({', '.join(sorted(str(one.signer) for one in good))})" if good else "")
    faults = [f"`{one.tag}`: {one.reason or f'{one.signer} does not count'}" for one in found if one not in good]
    hint = next((one.hint for one in found if one.hint and one not in good), None)
    if rule.place in ModelVersionStages.ALL:
        hint = f"`gittrack models promote '{version.name}@v{version.version}' {rule.place.lower()} --sign` adds yours"
    raise PolicyError(
        "; ".join([f"`{version.name}` v{version.version} is not released{where}: {asked}, {there}", *faults[:3]]),
        hint=hint,
    )


# -- the run -----------------------------------------------------------------------------------------------------------


def _require_run(repo: Repo, rule: Rule, run_id: str | None, commit: ObjectId) -> None:
    """Raise PolicyError unless a run, as that commit has it, matches the rule's filter."""
    if rule.require is None or run_id is None or not run_id:
        return
    from gittrack.track.query.python import predicate

    state = repo.stored_state(run_id, [commit])
    if state is None:
        raise NotFoundError(f"commit `{commit}` is not here")
    run = state.to_run(repo.artifact_uri(RunId(run_id)))
    node = _filter(rule.require, run.data.metrics)
    if not predicate(node)(run):
        raise PolicyError(
            f"{_what(rule)} must come from a run with `{rule.require}`; run `{run_id:.8}` has {_shown(node, run)}",
            hint="`[tool.gittrack.registry]` in pyproject.toml asks for it",
        )


def _shown(node: Node, run: Any) -> str:
    """The values that a filter looked at."""
    from gittrack.track import query
    from gittrack.track.query.entities import DATASET
    from gittrack.track.query.python import filter_value

    parts: list[str] = []

    def walk(one: Node) -> None:
        if isinstance(one, query.Comparison):
            key = one.field.key
            value = None if one.field.kind == DATASET else filter_value(run, one.field)
            parts.append(f"no such {key}" if value is None else f"{key} {value}")
        elif isinstance(one, query.Negation):
            walk(one.part)
        else:
            for part in one.parts:
                walk(part)

    walk(node)
    return ", ".join(dict.fromkeys(parts))
