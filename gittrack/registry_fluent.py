"""The registry's functions of ``import gittrack``: MLflow's fluent API for registered models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gittrack.client import Client, all_pages
from gittrack.errors import UnsupportedError
from gittrack.registry_client import DEFAULT_AWAIT_MAX_SLEEP_SECONDS

if TYPE_CHECKING:
    from gittrack.types import ModelVersion, RegisteredModel

#: Models on a page at most, as in MLflow.
_MODELS_PAGE = 1000


def register_model(
    model_uri: str,
    name: str,
    await_registration_for: int | None = DEFAULT_AWAIT_MAX_SLEEP_SECONDS,
    *,
    tags: dict[str, Any] | None = None,
    env_pack: Any = None,
) -> ModelVersion:
    """Register a model as the next version of ``name``, which is made if there is none.

    The run that made it may still be active: what it has logged so far is committed, and that is the version.

    Args:
        model_uri: ``runs:/<run id>/<path>``, ``models:/<name>/<version or stage>``, ``models:/<name>@<alias>``, or a
            local folder, which is logged into a run of its own.
        name: The registered model's name, without `/` and `:`.
        await_registration_for: Taken for MLflow's sake; the version is ready when the call returns.
        tags: Of the version; the values become text.
        env_pack: A thing of Databricks; refused.

    Raises:
        NotFoundError: There is no such run, artifact or version; says what exists, and nothing was made.
        AlreadyExistsError: The name differs from another model's only by upper and lower case.
        InvalidValueError: A bad name, tag or source.
    """
    if env_pack is not None:
        raise UnsupportedError("packed environments are a thing of Databricks", hint="leave `env_pack` out")
    return Client()._register_source(model_uri, name, tags=tags)


def search_registered_models(
    max_results: int | None = None, filter_string: str | None = None, order_by: list[str] | None = None
) -> list[RegisteredModel]:
    """Every registered model that matches, by name.

    Args:
        max_results: Most models to return; all if not given.
        filter_string: Over ``name`` and ``tags.<key>``, as in ``gittrack help search``.
        order_by: Over ``name``, ``creation_timestamp`` and ``last_updated_timestamp``.
    """
    client = Client()
    return all_pages(
        lambda size, token: client.search_registered_models(filter_string, size, order_by, token),
        max_results,
        _MODELS_PAGE,
    )


def search_model_versions(
    max_results: int | None = None, filter_string: str | None = None, order_by: list[str] | None = None
) -> list[ModelVersion]:
    """Every version of a model that matches, last changed first.

    Args:
        max_results: Most versions to return; all if not given.
        filter_string: Over ``name``, ``run_id``, ``source_path``, ``version_number``, ``stage`` and ``tags.<key>``.
        order_by: Over ``name``, ``version_number``, ``creation_timestamp`` and ``last_updated_timestamp``.
    """
    client = Client()
    return all_pages(
        lambda size, token: client.search_model_versions(filter_string, size, order_by, token), max_results
    )


def set_model_version_tag(name: str, version: str | None = None, key: str | None = None, value: Any = None) -> None:
    """Set a tag of a version of a model; the value becomes text.  Raises NotFoundError."""
    Client().set_model_version_tag(name, version, key, value)
