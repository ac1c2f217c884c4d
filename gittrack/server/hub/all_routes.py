"""Every route of the tracking server that needs nothing but the hub."""

from __future__ import annotations

from typing import Final

from gittrack.server.hub import (
    artifacts,
    changes,
    code,
    details,
    experiments,
    graphql,
    journals,
    logged_models,
    login,
    metrics,
    oidc_login,
    pages,
    parts,
    registry,
    registry_views,
    runs,
    settings,
    views,
    watching,
    website,
)

ROUTES: Final = (
    *pages.ROUTES,
    *login.ROUTES,
    *oidc_login.ROUTES,
    *experiments.ROUTES,
    *runs.ROUTES,
    *metrics.ROUTES,
    *logged_models.ROUTES,
    *registry.ROUTES,
    *registry_views.ROUTES,
    *artifacts.ROUTES,
    *graphql.ROUTES,
    *parts.ROUTES,
    *journals.ROUTES,
    *changes.ROUTES,
    *views.ROUTES,
    *details.ROUTES,
    *code.ROUTES,
    *settings.ROUTES,
    *watching.ROUTES,
    *website.ROUTES,
)
