"""Runs as text: git-log-like blocks, one line each, or from a template of placeholders."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from gittrack.cli import output, text
from gittrack.cli.common import SHORT
from gittrack.errors import UsageError
from gittrack.types import Artifact, LifecycleStage, Run

NOTE_TAG: Final = "mlflow.note.content"
PARENT_TAG: Final = "mlflow.parentRunId"
_STATUS_STYLE: Final = {
    "FINISHED": "green",
    "FAILED": "red",
    "KILLED": "red",
    "RUNNING": "yellow",
    "SCHEDULED": "yellow",
}
#: Metrics and parameters shown for a run in a log entry; `gittrack show` has them all.
_IN_LOG: Final = 12
#: Characters of a parameter's value in a log entry.
_VALUE: Final = 60

#: `--format` placeholders without an argument.  `gittrack help runs` describes them; a test keeps the two in step.
PLACEHOLDERS: Final[dict[str, Callable[[Run, Mapping[str, str]], str]]] = {
    "H": lambda run, names: run.info.run_id,
    "h": lambda run, names: run.info.run_id[:SHORT],
    "N": lambda run, names: run.info.run_name,
    "E": lambda run, names: names.get(run.info.experiment_id, run.info.experiment_id),
    "e": lambda run, names: run.info.experiment_id,
    "S": lambda run, names: run.info.status,
    "L": lambda run, names: run.info.lifecycle_stage,
    "u": lambda run, names: run.info.user_id,
    "D": lambda run, names: text.date(run.info.start_time, iso=True),
    "r": lambda run, names: text.ago(run.info.start_time),
    "t": lambda run, names: str(run.info.start_time),
    "T": lambda run, names: "" if run.info.end_time is None else str(run.info.end_time),
    "d": lambda run, names: elapsed(run),
    "C": lambda run, names: run.commit or "",
    "c": lambda run, names: (run.commit or "")[:SHORT],
    "B": lambda run, names: str(run.code.get("commit") or ""),
    "b": lambda run, names: str(run.code.get("commit") or "")[:SHORT],
    "M": lambda run, names: pairs(metrics(run)),
    "P": lambda run, names: pairs(run.data.params.items()),
    "n": lambda run, names: "\n",
    "%": lambda run, names: "%",
}
#: Placeholders that take a name in brackets: `%m(acc)`.
KEYED: Final[dict[str, Callable[[Run, str], str]]] = {
    "m": lambda run, key: repr(run.data.metrics[key]) if key in run.data.metrics else "",
    "p": lambda run, key: run.data.params.get(key, ""),
    "g": lambda run, key: run.data.tags.get(key, ""),
}
_PLACEHOLDER: Final = re.compile(r"%(?:([mpg])\(([^)]*)\)|x([0-9a-fA-F]{2})|(.?))", re.DOTALL)


def elapsed(run: Run) -> str:
    """How long the run took, or has been running."""
    if run.info.end_time is not None:
        return text.duration(run.info.end_time - run.info.start_time)
    if run.info.status == "RUNNING":
        return text.duration(time.time() * 1000 - run.info.start_time)
    return ""


def status(run: Run) -> str:
    """The status word, in its colour."""
    return output.style(run.info.status, status_style(run.info.status))


def status_style(name: str) -> str:
    """The colour of a status word."""
    return _STATUS_STYLE.get(name, "bold")


def pairs(items: Iterable[tuple[str, str]]) -> str:
    """``key=value key=value``."""
    return " ".join(f"{key}={value}" for key, value in items)


def metrics(run: Run) -> Iterator[tuple[str, str]]:
    """The metrics worth a place in a summary; what a model does on the data it was trained on matters least."""
    shown = [key for key in run.data.metrics if not key.startswith("system/")]
    shown.sort(key=lambda key: (key.startswith("training_"), key))
    return ((key, text.number(run.data.metrics[key])) for key in shown)


def oneline(run: Run, names: Mapping[str, str]) -> str:
    """One line: short id, name, experiment, what is unusual about the run, and the metrics that fit."""
    about = names.get(run.info.experiment_id, run.info.experiment_id) + (", dirty" if run.code.get("dirty") else "")
    unusual = [] if run.info.status == "FINISHED" else [run.info.status]
    if run.info.lifecycle_stage == LifecycleStage.DELETED:
        unusual.append("deleted")
    plain = f"{run.info.run_id[:SHORT]} {run.info.run_name} ({about})" + "".join(f" {word}" for word in unusual)
    parts = [
        output.style(run.info.run_id[:SHORT], "yellow"),
        run.info.run_name,
        output.style(f"({about})", "cyan"),
        *(output.style(word, status_style(word) if word in _STATUS_STYLE else "red") for word in unusual),
    ]
    limit, used = output.columns(), text.width(text.clean(plain))
    for key, value in list(metrics(run))[:_IN_LOG]:
        metric = f"{key}={value}"
        used += 1 + text.width(text.clean(metric))
        if limit is not None and used > limit:
            break
        parts.append(metric)
    return " ".join(parts)


def code(run: Run) -> str:
    """The code that ran: ``1a2b3c4d on main, with uncommitted changes``; empty if none was recorded."""
    commit = run.code.get("commit")
    if not commit and not run.code.get("tree"):
        return ""
    where = str(commit)[:SHORT] if commit else "no commit yet"
    branch = run.code.get("branch")
    return where + (f" on {branch}" if branch else "") + (", with uncommitted changes" if run.code.get("dirty") else "")


def heading(run: Run, names: Mapping[str, str]) -> Iterator[str]:
    """What `gittrack log` and `gittrack show` say first: id, state, name, who, when, which code."""
    states = [status(run)]
    if run.info.lifecycle_stage == LifecycleStage.DELETED:
        states.append(output.style("deleted", "red"))
    yield f"{output.style('run ' + run.info.run_id, 'yellow')} ({', '.join(states)})"
    yield f"Name:       {run.info.run_name}"
    yield f"Experiment: {names.get(run.info.experiment_id, run.info.experiment_id)}"
    yield f"Author:     {run.info.user_id}"
    took = elapsed(run)
    yield f"Date:       {text.date(run.info.start_time)}" + (f" ({took})" if took else "")
    if code(run):
        yield f"Code:       {code(run)}"
    if PARENT_TAG in run.data.tags:
        yield f"Parent:     {run.data.tags[PARENT_TAG]}"


def block(run: Run, names: Mapping[str, str]) -> Iterator[str]:
    """An entry of `gittrack log`."""
    yield from heading(run, names)
    note = run.data.tags.get(NOTE_TAG, "")
    body = [text.clean_lines(note)[0]] if note else []
    limit = output.columns()
    for items in (list(metrics(run)), sorted(run.data.params.items())):
        shown = [f"{key}={value if len(value) <= _VALUE else value[: _VALUE - 1] + '…'}" for key, value in items]
        more = [f"… and {len(items) - _IN_LOG} more"] if len(items) > _IN_LOG else []
        body += text.wrapped([*shown[:_IN_LOG], *more], None if limit is None else limit - 4)
    if body:
        yield ""
        yield from ("    " + line for line in body)
    yield ""


def filled(template: str) -> Callable[[Run, Mapping[str, str]], list[str]]:
    """A function that fills ``template`` with a run's facts, as lines (``%n`` ends one).

    Raises:
        UsageError: An unknown placeholder; found before the first run is printed.
    """
    for match in _PLACEHOLDER.finditer(template):
        plain = match[4]
        if plain is not None and plain not in PLACEHOLDERS:
            raise UsageError(
                f"unknown placeholder `{match.group()}` in the format",
                hint="`gittrack help runs` lists the placeholders",
            )

    def fill(run: Run, names: Mapping[str, str]) -> list[str]:
        def value(match: re.Match[str]) -> str:
            keyed, key, code_point, plain = match.groups()
            if keyed:
                return text.clean(KEYED[keyed](run, key))
            if code_point:
                return chr(int(code_point, 16))
            return "\n" if plain == "n" else text.clean(PLACEHOLDERS[plain](run, names))

        return _PLACEHOLDER.sub(value, template).split("\n")

    return fill


def as_json(run: Run, names: Mapping[str, str]) -> dict[str, Any]:
    """A run as `--json` prints it: :meth:`Run.to_dictionary`, and the experiment's name."""
    plain = run.to_dictionary()
    plain["info"]["experiment_name"] = names.get(run.info.experiment_id)
    return plain


def metric_table(run: Run, heading: str) -> Iterator[str]:
    """The metrics of a run: last value and, of more than one point, least, greatest, last step and number."""
    if all(one.count <= 1 for one in run.data.summaries.values()):
        plain = [[key, text.number(value)] for key, value in sorted(run.data.metrics.items())]
        return output.table([heading, "value" if heading else ""], plain, right=[1], cut=False)
    rows = []
    for key, value in sorted(run.data.metrics.items()):
        one = run.data.summaries.get(key)
        more = ["", "", "", ""]
        if one is not None and one.count > 1:
            more = [text.number(one.minimum), text.number(one.maximum), str(one.step), f"{one.count:,}"]
        rows.append([key, text.number(value), *more])
    return output.table([heading, "last", "min", "max", "step", "points"], rows, right=[1, 2, 3, 4, 5], cut=False)


def artifact_json(one: Artifact) -> dict[str, Any]:
    """An artifact as `--json` prints it."""
    return {"path": one.path, "size": one.size, "sha256": one.digest}


def environment(run: Run, *, packages: bool) -> Iterator[str]:
    """The recorded environment, a fact a line; packages are counted unless ``packages`` asks for all of them."""
    from gittrack.track.compare import flattened

    for key, value in run.environment.items():
        if key == "packages" and isinstance(value, Mapping):
            yield f"packages: {len(value)}" + ("" if packages else " (`--env` lists them)")
            if packages:
                yield from (f"    {name} {version}" for name, version in sorted(value.items()))
        else:
            yield from (f"{name}: {fact}" for name, fact in flattened(key, value))
