"""What the artifacts of a store take: what runs refer to, how much of that is the same, and for each experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gittrack.errors import CorruptError, NotFoundError

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.types import Digest


@dataclass
class Share:
    """What runs refer to.

    Attributes:
        runs: How many runs.
        files: How many files, each as often as a run has it.
        size: Their bytes.
        distinct: Bytes of those with different contents.
    """

    runs: int = 0
    files: int = 0
    size: int = 0
    distinct: int = 0


@dataclass
class Usage:
    """What a store takes.

    Attributes:
        objects: How many objects are kept here.
        size: Their bytes.
        whole: What all runs refer to, whether it is here or not.
        experiments: The same for each experiment, by id.
        unreadable: Runs that cannot be read.
    """

    objects: int = 0
    size: int = 0
    whole: Share = field(default_factory=Share)
    experiments: dict[str, Share] = field(default_factory=dict)
    unreadable: int = 0


def usage(repo: Repo) -> Usage:
    """What the artifacts of a store take; reads what every run has, which takes long where there are many."""
    found = Usage()
    for _, size in repo.objects.iter_digests():
        found.objects += 1
        found.size += size
    repo.refresh()
    seen: set[Digest] = set()
    known: dict[str, set[Digest]] = {}
    for run_id in sorted(repo.all_run_ids()):
        run = repo.index.get_run(run_id)
        try:
            files = repo.artifacts(run_id).values()
        except (CorruptError, NotFoundError):
            found.unreadable += 1
            continue
        if run is None:
            continue
        experiment = run.info.experiment_id
        share = found.experiments.setdefault(experiment, Share())
        for one, digests in ((share, known.setdefault(experiment, set())), (found.whole, seen)):
            one.runs += 1
            for file in files:
                one.files += 1
                one.size += file.size
                if file.digest not in digests:
                    digests.add(file.digest)
                    one.distinct += file.size
    return found
