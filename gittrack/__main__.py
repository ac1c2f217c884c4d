"""``python -m gittrack``: the command line, for where its script is not on the PATH."""

from gittrack.cli import start

start()
