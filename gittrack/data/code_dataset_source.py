"""The program itself as a source, for data that it makes or that nobody named the source of."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gittrack.data.dataset_source import DatasetSource
from gittrack.errors import GittrackError, InvalidValueError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


class CodeDatasetSource(DatasetSource):
    """The code that the data came from, as MLflow's tags: user, program, commit."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._tags = dict(tags)

    @classmethod
    def here(cls) -> Self:
        """The running program, and the commit that is checked out where it runs."""
        from gittrack.track.environment import user_name

        tags = {
            "mlflow.user": user_name(),
            "mlflow.source.name": (sys.argv[0] if sys.argv else "") or "<console>",
            "mlflow.source.type": "LOCAL",
        }
        commit = _head(Path.cwd())
        return cls(tags | ({"mlflow.source.git.commit": commit} if commit else {}))

    @property
    def tags(self) -> dict[str, str]:
        """MLflow's tags of a program."""
        return dict(self._tags)

    @staticmethod
    def _get_source_type() -> str:
        return "code"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    def load(self) -> Any:
        """Raises UnsupportedError: running the code again is `gittrack reproduce`."""
        raise UnsupportedError("data that came from code cannot be loaded", hint="run the code again")

    def to_dict(self) -> dict[str, Any]:
        """``tags``."""
        return {"tags": self.tags}

    @classmethod
    def from_dict(cls, source_dict: Mapping[str, Any]) -> Self:
        """From ``tags``."""
        tags = source_dict.get("tags")
        if not isinstance(tags, dict):
            raise InvalidValueError("the source of a dataset has no `tags`")
        return cls(tags)


def _head(folder: Path) -> str | None:
    from gittrack.store.gateway import discover
    from gittrack.store.git import GitStore

    try:
        paths = discover(folder)
        return GitStore(paths).head() if paths is not None else None
    except GittrackError:  # a repository that git would not trust either: the data are described without it
        return None
