"""``gittrack diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output, render, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gittrack.track.compare import Comparison, Pair
    from gittrack.types import Artifact, Run


@common.verb()
@click.argument("a", default="@{-2}", shell_complete=common.complete_runs)
@click.argument("b", default="latest", shell_complete=common.complete_runs)
@click.argument("paths", nargs=-1)
@click.option("--stat", "summary", flag_value="--stat", help="For the code: only the files and how much changed.")
@click.option("--name-only", "summary", flag_value="--name-only", help="For the code: only the names of the files.")
@click.option("--no-code", is_flag=True, help="Leave the code out.")
@common.json_option
def command(a: str, b: str, paths: tuple[str, ...], summary: str | None, no_code: bool, as_json: bool) -> None:
    """Show what differs between two runs, code included.

    First parameters, metrics, environment and artifacts, then the code as `git diff` shows it. Without B, A is
    compared with the latest run; without both, the last two runs. PATHS limit the code to these files.
    """
    from gittrack.track import compare

    with common.tracker() as opened:
        runs = [opened.get_run(opened.resolve(one)) for one in (a, b)]
        files = [opened.repo.artifacts(run.info.run_id) for run in runs]
        found = compare.compare(runs[0], runs[1], files[0], files[1])
        code = None
        if not no_code:
            options = [summary] if summary else []
            code = compare.code_diff(opened.repo, runs[0], runs[1], options=options, paths=paths)
    if as_json:
        output.document(_document(runs, found, code))
        return
    titles = [f"{run.info.run_id[: common.SHORT]} {run.info.run_name}" for run in runs]
    output.lines(lines(titles, found, code))
    if code and not output.is_terminal():
        output.raw(code)  # byte for byte, so that `git apply` can read it


def _document(runs: Sequence[Run], found: Comparison, code: bytes | None) -> dict[str, Any]:
    return {
        "a": runs[0].info.run_id,
        "b": runs[1].info.run_id,
        **sides(found),
        "code": None if code is None else code.decode(errors="backslashreplace"),
    }


def sides(found: Comparison) -> dict[str, Any]:
    """What differs, as `--json` prints it: by kind and name, both sides of each."""

    def plain(pairs: Mapping[str, Pair[Any]]) -> dict[str, Any]:
        return {key: {"a": pair.a, "b": pair.b} for key, pair in pairs.items()}

    artifacts = {
        key: {side: None if one is None else render.artifact_json(one) for side, one in (("a", pair.a), ("b", pair.b))}
        for key, pair in found.artifacts.items()
    }
    return {
        "params": plain(found.params),
        "metrics": plain(found.metrics),
        "environment": plain(found.environment),
        "artifacts": artifacts,
    }


def lines(titles: Sequence[str], found: Comparison, code: bytes | None) -> Iterator[str]:
    """What differs, for people; ``titles`` are those of both sides."""
    yield output.style(f"a  {titles[0]}", "red")
    yield output.style(f"b  {titles[1]}", "green")
    plain = [[key, _shown(pair.a), _shown(pair.b)] for key, pair in found.params.items()]
    yield from _section("Parameters", plain, found.same["params"])
    yield from _section("Metrics", [_metric(key, pair) for key, pair in found.metrics.items()], found.same["metrics"])
    plain = [[key, _shown(pair.a), _shown(pair.b)] for key, pair in found.environment.items()]
    yield from _section("Environment", plain, found.same["environment"])
    files = [[key, _file(pair.a), _file(pair.b)] for key, pair in found.artifacts.items()]
    yield from _section("Artifacts", files, found.same["artifacts"])
    if code is not None:
        yield ""
        yield output.style("Code", "bold") + ("" if code else ": the same")
        if output.is_terminal():
            yield from _code(code)


def _section(title: str, rows: list[list[str]], same: int) -> Iterator[str]:
    if not rows and not same:
        return
    yield ""
    yield output.style(title, "bold") + (f" ({same} the same)" if rows and same else "" if rows else ": the same")
    if rows:
        table, long = _apart(rows, output.columns())
        if table:
            headers = ["", "a", "b", "change"][: len(rows[0])]
            yield from ("    " + line for line in output.table(headers, table, cut=False))
        for name, a, b, *_ in long:
            yield f"    {name}"
            yield output.style(f"      a  {a}", "red")
            yield output.style(f"      b  {b}", "green")


def _apart(rows: list[list[str]], limit: int | None) -> tuple[list[list[str]], list[list[str]]]:
    """The rows that fit into a table ``limit`` columns wide, and those too long for it."""
    table, long = list(rows), []
    sizes = {id(row): [text.width(text.clean(cell)) for cell in row] for row in rows}

    def needed() -> int:
        return 4 + sum(max(sizes[id(row)][place] for row in table) + 2 for place in range(len(table[0]))) - 2

    while limit is not None and table and needed() > limit:
        longest = max(table, key=lambda row: sum(sizes[id(row)]))
        table.remove(longest)
        long.append(longest)
    return table, [row for row in rows if any(row is one for one in long)]


def _shown(value: str | None) -> str:
    return "–" if value is None else value


def _metric(key: str, pair: Pair[float]) -> list[str]:
    change = ""
    if pair.a is not None and pair.b is not None:
        change = f"{pair.b - pair.a:+.6g}"
    return [key, *("–" if value is None else text.number(value) for value in (pair.a, pair.b)), change]


def _file(one: Artifact | None) -> str:
    return "–" if one is None else f"{one.digest[: common.SHORT]} {text.size(one.size)}"


_LINE_STYLES = (("diff ", "bold"), ("--- ", "bold"), ("+++ ", "bold"), ("@@", "cyan"), ("+", "green"), ("-", "red"))


def _code(code: bytes) -> Iterator[str]:
    for raw in code.decode(errors="backslashreplace").split("\n")[:-1]:
        line = raw.removesuffix("\r").expandtabs()
        name = next((name for start, name in _LINE_STYLES if line.startswith(start)), None)
        yield output.style(line, name) if name else line
