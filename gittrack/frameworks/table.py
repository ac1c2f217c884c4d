"""The frameworks gittrack knows: one module each, named here and imported when its library is."""

from __future__ import annotations

from typing import Final

#: Name of the library's package, which is also the framework's name -> the module that logs its trainings.
FRAMEWORKS: Final[dict[str, str]] = {"sklearn": "gittrack.frameworks.sklearn"}
