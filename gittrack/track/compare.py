"""What differs between two runs: parameters, metrics, environment, artifacts and code."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from gittrack.store import gateway, layout

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.types import Artifact, Run

T = TypeVar("T")

#: The tree without entries; git knows it without storing it.
_EMPTY_TREE: Final = {
    "sha1": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "sha256": "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}


@dataclass(frozen=True, slots=True)
class Pair(Generic[T]):
    """One fact in both runs; None where a run does not have it."""

    a: T | None
    b: T | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Only what differs, by name, sorted; equal facts are counted in ``same``."""

    params: dict[str, Pair[str]]
    metrics: dict[str, Pair[float]]
    environment: dict[str, Pair[str]]
    artifacts: dict[str, Pair[Artifact]]
    same: dict[str, int]


def compare(a: Run, b: Run, artifacts_a: Mapping[str, Artifact], artifacts_b: Mapping[str, Artifact]) -> Comparison:
    """What differs between the runs ``a`` and ``b``; two metrics that are both NaN are equal."""
    environments = [dict(flattened("", run.environment)) for run in (a, b)]
    params = _pairs(a.data.params, b.data.params)
    metrics = _pairs(a.data.metrics, b.data.metrics)
    environment = _pairs(*environments)
    artifacts = _pairs(artifacts_a, artifacts_b)
    different_metrics = {key: pair for key, pair in metrics.items() if not _same_number(pair)}
    different_artifacts = {
        key: pair
        for key, pair in artifacts.items()
        if pair.a is None or pair.b is None or pair.a.digest != pair.b.digest
    }
    different_params, different_environment = _different(params), _different(environment)
    return Comparison(
        different_params,
        different_metrics,
        different_environment,
        different_artifacts,
        {
            "params": len(params) - len(different_params),
            "metrics": len(metrics) - len(different_metrics),
            "environment": len(environment) - len(different_environment),
            "artifacts": len(artifacts) - len(different_artifacts),
        },
    )


def _pairs(a: Mapping[str, T], b: Mapping[str, T]) -> dict[str, Pair[T]]:
    return {key: Pair(a.get(key), b.get(key)) for key in sorted({*a, *b})}


def _different(pairs: Mapping[str, Pair[T]]) -> dict[str, Pair[T]]:
    return {key: pair for key, pair in pairs.items() if pair.a != pair.b}


def _same_number(pair: Pair[float]) -> bool:
    if pair.a is None or pair.b is None:
        return False
    return pair.a == pair.b or (math.isnan(pair.a) and math.isnan(pair.b))


def flattened(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The facts in a nested record as (dotted name, text); a list is one fact."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from flattened(f"{name}.{key}" if name else str(key), value[key])
    elif isinstance(value, list | tuple):
        yield name, shlex.join(str(item) for item in value)
    elif value is not None:
        yield name, str(value)


def code_tree(run: Run) -> str | None:
    """The tree-ish that holds the code of a run (a run commit's tree also holds `.gittrack`); None if it has none."""
    if not (run.code.get("tree") or run.code.get("commit")):
        return None
    found = run.commit or run.code.get("tree") or run.code["commit"]
    return gateway.rev(str(found))


def code_diff(repo: Repo, a: Run, b: Run, *, options: Sequence[str] = (), paths: Sequence[str] = ()) -> bytes:
    """`git diff` of the two runs' code, without what gittrack added; a run without code is an empty tree.

    Args:
        repo: Where both runs are.
        a: The run on the left.
        b: The run on the right.
        options: Options of `git diff`, from the program and not from a person.
        paths: Only these files and folders, relative to the top of the work tree.

    Raises:
        GitError: git cannot read one of the trees.
    """
    trees = [code_tree(run) or empty_tree(repo) for run in (a, b)]
    return tree_diff(repo, trees[0], trees[1], options=options, paths=paths)


def empty_tree(repo: Repo) -> str:
    """The tree that has no files."""
    return _EMPTY_TREE[repo.paths.object_format]


def tree_diff(
    repo: Repo, a: str, b: str, *, options: Sequence[str] = (), paths: Sequence[str] = (), timeout: float | None = None
) -> bytes:
    """`git diff` of two tree-ishes, as ``code_diff``; git is stopped after ``timeout`` seconds."""
    if a == b:
        return b""
    git = gateway.Git(repo.paths.git_dir, repo.paths.work_tree)
    pathspec = [f":(top,literal){path}" for path in paths] or [":/"]
    return git.run(
        *("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--find-renames", *options, "--end-of-options"),
        *(a, b, "--", *pathspec, f":(top,exclude){layout.FOLDER}"),
        timeout=timeout,
    )
