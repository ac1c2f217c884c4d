"""Looking after the registry: every version's files are there and are those that its tag vouches for."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from gittrack.errors import GittrackError
from gittrack.store.check import Problem, Progress, kept_elsewhere

if TYPE_CHECKING:
    from gittrack.registry.registry import Registry
    from gittrack.types import ModelVersion


def fsck(registry: Registry, *, full: bool = False, progress: Progress | None = None) -> list[Problem]:
    """Check what the registry says against what is there.

    Args:
        registry: The registry.
        full: Also compare the index with a fold of what git has.
        progress: Told about versions done.
    """
    catalog = registry.catalog
    found = [Problem("registry", "refs", text) for text in catalog.problems()]
    for model in catalog.models():
        for about in model.conflicts:
            hint = f"`gittrack models resolve '{model.name}' {about}` settles it"
            found.append(Problem("registry", model.name, f"clones disagree about {about}", hint))
    elsewhere = kept_elsewhere(registry.repo)
    versions = sorted(catalog.versions(), key=lambda one: (one.key, int(one.version)))
    for done, version in enumerate(versions, 1):
        found += _check_version(registry, version, elsewhere)
        if progress is not None:
            progress(done, len(versions))
    if full:
        hint = "run `gittrack reindex`"
        found += [Problem("index", key, "the index says something else of this model", hint) for key in catalog.stale()]
    return found


def _check_version(registry: Registry, version: ModelVersion, elsewhere: Collection[str]) -> list[Problem]:
    subject = f"{version.name}@v{version.version}"
    try:
        registry.run_of(version)
        manifest = registry.manifest(version)
    except GittrackError as error:
        return [Problem("registry", subject, error.message, error.hint)]
    return [
        Problem("artifact", digest, f"`{path}` of {subject}: its bytes are not in this clone", "fetch it from a remote")
        for path, (digest, size) in manifest.files.items()
        if not registry.repo.objects.has(digest, size)
        and (version.run_id not in elsewhere or registry.repo.objects.has(digest))
    ]
