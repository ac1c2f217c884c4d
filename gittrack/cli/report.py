"""``gittrack report``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from gittrack.cli import common, diff, output, text

if TYPE_CHECKING:
    from gittrack.track.compare import Comparison
    from gittrack.track.gate import Rule, Verdict
    from gittrack.track.runs import Tracker
    from gittrack.types import ObjectId, Run

_ROWS: Final = 40  # of a table; what is beyond it is counted
_VALUE: Final = 80  # characters of a value
#: How far back from either end a commit with a run is looked for.
_REACH: Final = 200


@dataclass(frozen=True)
class _Side:
    """One end of the comparison: a name for it, its commit, its run and the commit of that."""

    name: str
    commit: ObjectId
    run: Run | None
    of: ObjectId | None


@common.verb()
@click.argument("commit", default="HEAD")
@click.option("--base", metavar="BRANCH", help="Compare with this branch; default: the remote's, or main or master.")
@click.option("-m", "--metric", metavar="KEY", help="Compare the best runs by this metric, in the place of the newest.")
@click.option("--direction", type=click.Choice(["max", "min"]), help="For `--metric`: is more better, or less?")
@click.option("--where", default="", metavar="FILTER", help="Only runs that match count; see `gittrack help search`.")
@common.one_experiment_option
@common.json_option
def command(
    commit: str,
    base: str | None,
    metric: str | None,
    direction: str | None,
    where: str,
    experiment: str | None,
    as_json: bool,
) -> None:
    """Write a report for a pull request.

    Markdown: what became of metrics, parameters and code. COMMIT (HEAD if left out) is compared with its merge base
    with the other branch. Of each side the newest run speaks, or the best by the metric of `--metric` or of the first
    gate in pyproject.toml; where the commit itself has no run, that of the nearest commit before it.
    """
    from gittrack.errors import InvalidValueError
    from gittrack.hooks import gates
    from gittrack.track import commits, compare, gate, links

    with common.tracker() as opened:
        rules = gates.project_rules(opened)
        rule = rules[0] if rules else None
        if metric is not None:
            rule = gate.Rule(metric, gate.direction(direction, metric))
        head = commits.resolve(opened.repo, commit)
        name = base or (rule and rule.base) or commits.default_base(opened.repo)
        if name is None:
            raise InvalidValueError("there is no branch to compare with", hint="name one with `--base`")
        parting = commits.merge_base(opened.repo, name, head)
        if parting is None:
            raise InvalidValueError(f"`{name}` and `{commit}` have no history in common", hint="name another `--base`")
        label = (opened.repo.git.head_branch() or "HEAD") if commit == "HEAD" else commit
        only = links.matching(opened, where, experiment)
        sides = (_side(opened, name, parting, rule, only), _side(opened, label, head, rule, only))
        runs = [one.run for one in links.runs_of(opened, head) if one.how in links.TRIED]
        verdicts = gates.verdicts(opened, rules, runs, head, base)
        found = None
        if sides[0].run is not None and sides[1].run is not None:
            a, b = (opened.repo.artifacts(one.run.info.run_id) for one in sides if one.run is not None)
            found = compare.compare(sides[0].run, sides[1].run, a, b)
        stat = commits.stat(opened.repo, parting, head)
    if as_json:
        output.document(_document(sides, found, verdicts))
        return
    if parting == head:
        output.message(
            f"all of `{label}` is in `{name}`: `--base {label}~1`, for instance, compares with something else"
        )
    words = [gates.sentence(one) for one in verdicts]
    output.lines(_markdown(sides, found, verdicts, words, stat))


def _side(opened: Tracker, name: str, commit: ObjectId, rule: Rule | None, only: Collection[str] | None) -> _Side:
    """The run that speaks for a commit: its own, else that of the nearest commit before it."""
    from gittrack.track import commits, gate, links

    for one, _ in commits.history(opened.repo, commit, _REACH):
        runs = [link.run for link in links.runs_of(opened, one) if link.how in links.TRIED]
        runs = [run for run in runs if only is None or run.info.run_id in only]
        run = gate.best(rule, runs) if rule is not None else None
        run = run or next((run for run in runs if run.info.status == "FINISHED"), None)
        if run is not None:
            return _Side(name, commit, run, one)
    return _Side(name, commit, None, None)


def _document(sides: Sequence[_Side], found: Comparison | None, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    def plain(side: _Side) -> dict[str, Any]:
        run = None if side.run is None else side.run.info.run_id
        return {"name": side.name, "commit": side.commit, "run": run, "run_commit": side.of}

    return {
        "base": plain(sides[0]),
        "head": plain(sides[1]),
        "changes": None if found is None else diff.sides(found),
        "gates": [
            {"metric": one.rule.metric, "passed": not one.failed and one.run is not None, "value": one.value,
             "baseline": one.before}
            for one in verdicts
        ],
    }  # fmt: skip


# --- Markdown


def _markdown(
    sides: Sequence[_Side], found: Comparison | None, verdicts: Sequence[Verdict], words: Sequence[str], stat: str
) -> Iterator[str]:
    base, head = sides
    yield f"## {md(head.name)} compared with {md(base.name)}"
    yield ""
    for side in sides:
        yield f"- {md(side.name)}: {_about(side)}"
    if verdicts:
        yield ""
        for verdict, sentence in zip(verdicts, words, strict=True):
            sign = "❌" if verdict.failed else "⚠️" if verdict.run is None else "✅"
            yield f"- {sign} {md(sentence)}"
    if found is not None:
        metrics = [
            [md(key), *(_number(value) for value in (pair.a, pair.b)), _change(pair.a, pair.b)]
            for key, pair in found.metrics.items()
        ]
        headers = [md(base.name), md(head.name)]
        yield from _table("Metrics", ["metric", *headers, "change"], metrics, found.same["metrics"])
        params = [[md(key), _text(pair.a), _text(pair.b)] for key, pair in found.params.items()]
        yield from _table("Parameters", ["parameter", *headers], params, found.same["params"])
        packages = [
            [md(key.removeprefix("packages.")), _text(pair.a), _text(pair.b)]
            for key, pair in found.environment.items()
            if key.startswith("packages.") or key == "python.version"
        ]
        yield from _table("Packages", ["package", *headers], packages, 0)
    yield ""
    yield "### Code"
    yield ""
    if stat:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", stat)), default=0))
        yield fence
        yield from text.clean_lines(stat)
        yield fence
    else:
        yield "The same."


def _about(side: _Side) -> str:
    if side.run is None:
        return f"{side.commit[: common.SHORT]}, no run"
    info = side.run.info
    where = "" if side.of == side.commit else f", of {str(side.of)[: common.SHORT]} before it"
    state = "" if info.status == "FINISHED" else f", {info.status.lower()}"
    name = f"{info.run_id[: common.SHORT]} {info.run_name}"
    return f"{side.commit[: common.SHORT]}, run {md(name)}{where}{state}, by {md(info.user_id)}"


def _table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], same: int) -> Iterator[str]:
    if not rows and not same:
        return
    yield ""
    yield f"### {title}"
    yield ""
    if rows:
        yield "| " + " | ".join(headers) + " |"
        yield "|" + "|".join([" --- ", *[" ---: "] * (len(headers) - 1)]) + "|"
        yield from ("| " + " | ".join(row) + " |" for row in rows[:_ROWS])
        if len(rows) > _ROWS:
            yield ""
            yield f"And {len(rows) - _ROWS} more."
    if same:
        yield from ([""] if rows else [])
        yield f"{same} the same."


def _number(value: float | None) -> str:
    return "–" if value is None else text.number(value)


def _text(value: str | None) -> str:
    return "–" if value is None else md(value if len(value) <= _VALUE else value[: _VALUE - 1] + "…")


def _change(a: float | None, b: float | None) -> str:
    if a is None or b is None:
        return ""
    share = f" ({(b - a) / abs(a):+.1%})" if a and abs(a) != float("inf") else ""
    return f"{b - a:+.6g}{share}"


_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]()#+!|~])")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", ":": "&#58;"}


def md(value: str) -> str:
    """``value`` as text of a Markdown line: no mark-up, no link, no mention of a person, no second line."""
    plain = "".join(_ENTITIES.get(char, char) for char in text.clean(value))
    return _SPECIAL.sub(r"\\\1", plain).replace("&\\#", "&#")
