"""What changed in a repository since it was looked at last, whoever changed it: runs, and experiments.

Stamps of the journals and of the ledgers are compared with those of the last look, and not with what the index has
seen: another process may have brought that up to date in between.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from gittrack.errors import CorruptError, NotFoundError
from gittrack.store import layout
from gittrack.store.repo import Repo
from gittrack.types import ObjectId

_log = logging.getLogger("gittrack")


class Changes(NamedTuple):
    """What is different.

    Attributes:
        runs: By id, the experiments they are in; None if nobody knows any more.
        experiments: The ids of those that were made or edited.
        complete: False: there may be more, of which it cannot be said what.
    """

    runs: Mapping[str, str | None]
    experiments: frozenset[str]
    complete: bool = True


NOTHING = Changes({}, frozenset())


class Observer:
    """Looks at a repository again and again; one thread at a time.

    Args:
        repo: The repository.
    """

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._live: dict[str, list[list[Any]]] | None = None  # None: it was never looked
        self._ledgers: dict[str, ObjectId] = {}
        self._fingerprint = ""
        self._homes: dict[str, str] = {}  # of runs in progress, the experiments

    def look(self) -> Changes:
        """What changed since the last look; nothing at the first.  The index has it all then.

        Raises:
            StorageError, NetworkError: It cannot be seen.  The next look finds it.
        """
        live, fingerprint = self._repo.stamps()
        before = self._live
        ledgers = self._repo.ledgers() if fingerprint != self._fingerprint else self._ledgers
        found = NOTHING if before is None else self._between(before, live, ledgers)
        self._live, self._ledgers, self._fingerprint = live, ledgers, fingerprint
        self._homes = {run_id: home for run_id, home in self._homes.items() if run_id in live}
        return found

    def _between(self, before: Mapping[str, Any], live: Mapping[str, Any], ledgers: Mapping[str, ObjectId]) -> Changes:
        sealed, experiments, complete = self._moved(ledgers)
        written = {run_id for run_id in {*before, *live} if before.get(run_id) != live.get(run_id)} - set(sealed)
        if not written and not sealed and not experiments and complete:
            return NOTHING
        self._repo.written.update(written)
        self._repo.refresh()
        unknown = written - set(self._homes)
        if unknown:
            runs = self._repo.index.get_runs(unknown)
            self._homes.update((run.info.run_id, run.info.experiment_id) for run in runs)
        return Changes({**{run_id: self._homes.get(run_id) for run_id in written}, **sealed}, experiments, complete)

    def _moved(self, ledgers: Mapping[str, ObjectId]) -> tuple[dict[str, str], frozenset[str], bool]:
        """The runs and the experiments that ledgers tell something else of than before."""
        runs: dict[str, str] = {}
        experiments = set()
        complete = True
        git = self._repo.git
        for ref in {*self._ledgers, *ledgers}:
            old, new = self._ledgers.get(ref), ledgers.get(ref)
            known = layout.parse_ledger_ref(ref)
            if old == new or known is None:
                continue
            try:
                runs.update((run_id, known[0]) for run_id, _, _ in git.ledger_diff(old, new))
                told = [None if oid is None else git.ledger_blob(oid, layout.EXPERIMENT_FILE) for oid in (old, new)]
            except (CorruptError, NotFoundError) as error:  # rewritten by a purge, perhaps: what it was is gone
                _log.debug("what changed in `%s` cannot be told: %s", ref, error)
                complete = False
                continue
            if told[0] != told[1]:
                experiments.add(known[0])
        return runs, frozenset(experiments), complete
