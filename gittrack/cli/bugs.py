"""A bug of gittrack's, written down so that it can be reported as it is."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence

from gittrack._version import __version__


def report(error: BaseException, command: Sequence[str]) -> str:
    """Write a report of ``error`` into the folder for temporary files; its path.

    The file is readable by its owner only: a command line and a traceback can name private things.
    """
    lines = [
        "### What happened",
        "",
        "(what you did, and what you expected)",
        "",
        f"    $ {shlex.join(command)}",
        "",
        "### Versions",
        "",
        f"- gittrack {__version__}",
        f"- Python {platform.python_version()} ({sys.executable})",
        f"- {platform.platform()}",
        "",
        "### Traceback",
        "",
        "```",
        *"".join(traceback.format_exception(error)).splitlines(),
        "```",
    ]
    handle, path = tempfile.mkstemp(prefix="gittrack-bug-", suffix=".md", text=True)
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n".join(lines) + "\n")
    return path
