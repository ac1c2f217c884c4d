"""``gittrack gate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output, text
from gittrack.errors import PolicyError, UsageError

if TYPE_CHECKING:
    from gittrack.track.gate import Verdict


@common.verb()
@click.argument("commit", default="HEAD")
@click.option("--base", metavar="BRANCH", help="Compare with this branch; default: the remote's, or main or master.")
@click.option("-m", "--metric", metavar="KEY", help="The metric, in the place of the gates in pyproject.toml.")
@click.option("--direction", type=click.Choice(["max", "min"]), help="For `--metric`: is more better, or less?")
@click.option(
    "--tolerance", default="0", metavar="AMOUNT", help="For `--metric`: how much worse is allowed, `1%` or 0.01."
)
@click.option("--where", default="", metavar="FILTER", help="For `--metric`: only runs that match count.")
@common.one_experiment_option
@common.json_option
def command(
    commit: str,
    base: str | None,
    metric: str | None,
    direction: str | None,
    tolerance: str,
    where: str,
    experiment: str | None,
    as_json: bool,
) -> int:
    """Fail if a metric got worse than on the branch that COMMIT goes to.

    For CI. The best run of COMMIT (HEAD if left out) is compared with the best run of the merge base with the other
    branch, or of the nearest commit before it that has a run. The gates are those of `[tool.gittrack.gate]` in
    pyproject.toml, or the one that the options describe. Exit status: 0 all is well (also if nothing can be compared
    with), 1 a metric is worse or COMMIT has no run.
    """
    from gittrack.hooks import gates
    from gittrack.track import commits, gate, links

    with common.tracker() as opened:
        if metric is not None:
            way, room = gate.direction(direction, metric), gate.amount(tolerance)
            rules = [gate.Rule(metric, way, room, where=where, experiment=experiment)]
        else:
            rules = gates.project_rules(opened)
        if not rules:
            raise UsageError(
                "there is no gate", hint="`--metric KEY`, or a table `[tool.gittrack.gate]` in pyproject.toml"
            )
        oid = commits.resolve(opened.repo, commit)
        runs = [one.run for one in links.runs_of(opened, oid) if one.how in links.TRIED]
        found = gates.verdicts(opened, rules, runs, oid, base)
    bad = [one for one in found if one.failed or one.run is None]
    if as_json:
        output.document([_plain(one) for one in found])
    else:
        output.lines(_line(gates.sentence(one), one) for one in found)
    if bad:
        hint = "`gittrack report` shows what changed"
        if bad[0].run is None:
            close = text.suggest(bad[0].rule.metric, {key for run in runs for key in run.data.metrics})
            hint = close or "`gittrack run -- python train.py` on this commit makes a run, `gittrack which` lists them"
        raise PolicyError(f"{text.count(len(bad), 'gate')} of {len(found)} not passed", hint=hint)
    return 0


def _line(sentence: str, one: Verdict) -> str:
    word = output.style("worse", "red") if one.failed else output.style("good ", "green")
    return f"{output.style('none ', 'yellow') if one.run is None else word}  {sentence}"


def _plain(one: Verdict) -> dict[str, Any]:
    return {
        "metric": one.rule.metric,
        "direction": one.rule.direction,
        "tolerance": str(one.rule.tolerance),
        "passed": not one.failed and one.run is not None,
        "value": one.value,
        "run": None if one.run is None else one.run.info.run_id,
        "baseline": one.before,
        "baseline_run": None if one.baseline is None else one.baseline.info.run_id,
        "baseline_commit": one.commit,
    }
