"""``gittrack completion``."""

from __future__ import annotations

import click

from gittrack.cli import common, output

#: `git track <TAB>`: git's own completion calls a function of this name, and leaves the space after a word to it.
_GIT_TRACK = """\
_git_track() {
    local words=("${COMP_WORDS[@]:2}") at=$((COMP_CWORD - 1))
    local COMP_WORDS=(gittrack "${words[@]}") COMP_CWORD=$at
    _gittrack_completion gittrack
    COMPREPLY=("${COMPREPLY[@]/%/ }")
}
complete -o nosort -F _gittrack_completion git-track
"""


@common.verb()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for a shell.

    bash, in ~/.bashrc: eval "$(gittrack completion bash)"

    zsh, in ~/.zshrc: eval "$(gittrack completion zsh)"

    fish: gittrack completion fish > ~/.config/fish/completions/gittrack.fish

    Verbs, options, runs and experiments complete; in bash after `git track` too.
    """
    from click.shell_completion import get_completion_class

    from gittrack.cli.main import COMPLETE, program

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the three shells above are click's own
    script = kind(program(), {}, "gittrack", COMPLETE).source() + "\n"
    output.raw((script + (_GIT_TRACK if shell == "bash" else "")).encode())
