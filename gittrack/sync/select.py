"""Selection: which runs and models a push or a pull is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gittrack.store import layout

if TYPE_CHECKING:
    from gittrack.types import RunInfo


@dataclass(frozen=True)
class Selection:
    """What is meant; empty parts mean everything.

    Attributes:
        experiments: Ids of experiments.
        runs: Ids of runs.
        models: Keys of models.
        author: Part of the name of whoever made a run, or of the writer of a ledger, in any case.
        since: Runs that began then or later; milliseconds since the epoch.
    """

    experiments: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    author: str = ""
    since: int | None = None

    def ref(self, ref: str) -> bool:
        """True if a ref, by its name here, can hold something that is meant."""
        parsed = layout.parse_ledger_ref(ref)
        if parsed is not None:
            if self.models and not self.by_run:
                return False
            return not self.experiments or parsed[0] in self.experiments
        if ref.startswith(layout.TAG_PREFIX):
            key = ref[len(layout.TAG_PREFIX) :].partition("/")[0]
            return key in self.models if self.models else not self.by_run
        return bool(self.models) or not self.by_run

    @property
    def by_run(self) -> bool:
        """True if single runs are meant rather than models."""
        return bool(self.experiments or self.picks)

    @property
    def picks(self) -> bool:
        """True if not every run of a ledger is meant."""
        return bool(self.runs or self.author or self.since is not None)

    def run(self, info: RunInfo, who: str) -> bool:
        """True if a run of a ledger that is meant is meant itself; ``who`` is the author of its commit."""
        if self.runs and info.run_id not in self.runs:
            return False
        if self.since is not None and info.start_time < self.since:
            return False
        wanted = self.author.casefold()
        return wanted in info.user_id.casefold() or wanted in who.casefold()


EVERYTHING: Final = Selection()
