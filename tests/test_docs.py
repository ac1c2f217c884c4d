"""The documentation says what the program does: reference pages, errors, settings, and every command that is named."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import gittrack
from gittrack import errors
from gittrack.cli import common, main, reference, render
from gittrack.cli.help import topic, topics
from gittrack.config import SETTINGS
from gittrack.errors import GittrackError

PACKAGE = Path(gittrack.__file__).parent
HELP = PACKAGE / "help"
ROOT = PACKAGE.parent
PROSE = [
    *sorted(HELP.glob("*.md")),
    *(path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()),
]
#: Pages that must be there; there may be more.
TOPICS = {
    "artifacts", "cli", "config", "errors", "glossary", "mlflow", "models", "quickstart", "registry", "reproduce",
    "requirements", "runs", "search", "serving", "signing", "storage", "tracking",
}  # fmt: skip


def commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """Every command with the words that lead to it."""
    words = tuple(context.command_path.split()[1:])
    yield words, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, common.context_of(found, name, context))


ROOT_COMMAND = main.program()
COMMANDS = {
    words: (command, context)
    for words, command, context in commands(ROOT_COMMAND, common.context_of(ROOT_COMMAND, "gittrack"))
}


def every_error(base: type[GittrackError] = GittrackError) -> list[type[GittrackError]]:
    return [base, *(found for one in base.__subclasses__() for found in every_error(one))]


@pytest.mark.parametrize("page", reference.PAGES)
def test_written_pages_are_fresh(page: str) -> None:
    fresh = reference.PAGES[page]()
    stored = (HELP / f"{page}.md").read_text(encoding="utf-8")
    assert stored == fresh, f"run: python -m gittrack.cli.reference {page} > gittrack/help/{page}.md"


def test_every_command_and_option_is_in_the_reference() -> None:
    page = (HELP / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"(?ms)^##+ (gittrack[^\n]*)\n(.*?)(?=^##|\Z)", page))
    for words, (command, context) in COMMANDS.items():
        section = sections[" ".join(["gittrack", *words])]
        for parameter in command.get_params(context):
            if isinstance(parameter, click.Option) and not parameter.hidden:
                for name in parameter.opts:
                    assert f"{name}" in section
                assert parameter.help, (words, parameter.name)


def test_every_topic_is_there() -> None:
    assert set(topics()) >= TOPICS
    for name in topics():
        assert topic(name).startswith("# "), name


def test_every_error_is_documented_with_its_numbers() -> None:
    page = (HELP / "errors.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"(?ms)^## (\w+Error)\n(.*?)(?=^## |\Z)", page))
    kinds = {kind.__name__: kind for kind in every_error() if kind.__module__ == errors.__name__}
    assert list(sections) == list(kinds)
    for name, kind in kinds.items():
        row = f"- exit status {kind.exit_status}, HTTP {kind.http_status}, code `{kind.code}`"
        assert row in sections[name], f"{name}: {row}"


def test_every_placeholder_is_documented() -> None:
    page = (HELP / "runs.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`%([A-Za-z%])", page))
    assert documented == {*render.PLACEHOLDERS, *render.KEYED, "x"}


def test_every_setting_is_documented() -> None:
    page = (HELP / "config.md").read_text(encoding="utf-8")
    for setting in SETTINGS:
        assert f"## {setting.team_key}\n" in page


# --- commands in prose, hints and docstrings


def mentioned(text: str) -> Iterator[str]:
    """The `gittrack …` command lines in a text: in backticks, and lines of code blocks that start with it."""
    yield from re.findall(r"`(gittrack [^`\n]+)`", text)
    for block in re.findall(r"(?ms)^```\w*\n(.*?)^```", text):
        yield from re.findall(r"(?m)^(?:\$ )?(gittrack [^\n]+)", block)


def check(line: str) -> str | None:
    """What is wrong with a command line; None if it could be run."""
    line = re.sub(r"\s+#.*", "", line)  # a comment behind it
    line = re.sub(r"\s[·|>&].*", "", line)
    line = re.sub(r"\[[A-Z|]+\]", "", line).replace("…", "x").replace("{", "").replace("}", "")
    try:
        words = shlex.split(line)[1:]
    except ValueError:
        words = line.split()[1:]
    return _check_words(words)


def _check_words(words: list[str]) -> str | None:
    while words and words[0] == "-C":
        words = words[2:]
    if not words or words[0] in {"--version", "--help", "-h", "VERB", "x"}:
        return None
    if words[0] == "help":
        known = {*topics(), *(path[0] for path in COMMANDS if path), "VERB", "TOPIC", "-l", "X"}
        return None if len(words) == 1 or words[1] in known else f"no topic {words[1]}"
    if (words[0],) not in COMMANDS and words[0] not in main.HIDDEN:
        return f"no verb {words[0]}"
    path = next((tuple(words[:size]) for size in (3, 2, 1) if tuple(words[:size]) in COMMANDS), None)
    if path is None:
        return None
    command, context = COMMANDS[path]
    called = path
    while isinstance(command, common.VerbGroup):
        called = (*called, command.default)
        command, context = COMMANDS[called]
    options = {name for one in command.get_params(context) for name in (*one.opts, *one.secondary_opts)}
    for word in words[len(path) :]:
        if word == "--":
            break
        name = word.partition("=")[0]
        if name.startswith("--") and name not in options:
            return f"no option {name}"
        if re.fullmatch(r"-[a-zA-Z]\S*", word) and word[:2] not in options:
            return f"no option {word}"
    return None


def test_the_checker_checks() -> None:
    assert check("gittrack log --oneline -n 5 -5") is None
    assert check("gittrack run -q -- python train.py --anything") is None
    assert check("gittrack artifacts RUN") is None
    assert check("gittrack lgo") == "no verb lgo"
    assert check("gittrack log --onelin") == "no option --onelin"
    assert check("gittrack artifacts ls RUN --nothing") == "no option --nothing"
    assert check("gittrack help nothing") == "no topic nothing"
    assert check("gittrack server token create ci --role reader") is None
    assert check("gittrack server token create ci --rolle reader") == "no option --rolle"


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_commands_in_the_guides_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = {line: check(line) for line in mentioned(text)}
    assert {line: wrong for line, wrong in found.items() if wrong} == {}


def texts_in_code() -> list[tuple[str, str]]:
    """Every text in the package that names a gittrack command, with the file it stands in; f-strings `x` for values."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            if "`gittrack " in text:
                found.append((str(path.relative_to(PACKAGE)), text))
    return found


def test_commands_in_hints_and_docstrings_exist() -> None:
    wrong = {}
    seen = 0
    for where, text in texts_in_code():
        for line in re.findall(r"`(gittrack [^`\n]+)`", text):
            seen += 1
            problem = check(line)
            if problem:
                wrong[f"{where}: {line}"] = problem
    assert wrong == {}
    assert seen > 30  # the search itself works


def test_no_guide_is_written_in_lines_that_a_terminal_breaks() -> None:
    for path in HELP.glob("*.md"):
        if path.stem in {"cli", "config"}:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 130 or line.startswith("|"), f"{path.name}: {line}"


def test_every_help_text_says_what_is_done_in_one_line() -> None:
    """First line: imperative, one sentence, short enough to stand beside the verb in 80 columns."""
    for words, (command, _) in COMMANDS.items():
        first = (command.help or "").partition("\n")[0]
        if not words:
            continue  # the program's own line stands alone
        assert first.endswith("."), words
        assert len(first) <= 80, words
        assert first[0].isupper(), words
