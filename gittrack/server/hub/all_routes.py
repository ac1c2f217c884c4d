"""Every route of the tracking server, and which of them everybody may ask without saying who he is."""

from __future__ import annotations

from typing import Final

from gittrack.server.hub import artifacts, experiments, logged_models, metrics, pages, registry, runs

ROUTES: Final = (
    *pages.ROUTES,
    *experiments.ROUTES,
    *runs.ROUTES,
    *metrics.ROUTES,
    *logged_models.ROUTES,
    *registry.ROUTES,
    *artifacts.ROUTES,
)

#: The paths that need no credentials.  A route that has no role and is not here is a mistake.
PUBLIC: Final = frozenset(("/health", "/ready"))
