"""``gittrack completion``."""

from __future__ import annotations

import click

from gittrack.cli import common, output


@common.verb()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for a shell.

    bash, in ~/.bashrc: eval "$(gittrack completion bash)"

    zsh, in ~/.zshrc: eval "$(gittrack completion zsh)"

    fish: gittrack completion fish > ~/.config/fish/completions/gittrack.fish

    Verbs, options, runs and experiments complete.
    """
    from click.shell_completion import get_completion_class

    from gittrack.cli.main import COMPLETE, program

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the three shells above are click's own
    output.raw((kind(program(), {}, "gittrack", COMPLETE).source() + "\n").encode())
