"""The same calls to the real MLflow and to gittrack: the same answers, and errors of the same kind.

Needs the ``mlflow`` package; its store is SQLite in a temporary folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gittrack
from tests.api.conftest import project as project  # noqa: PLC0414 - the fixture

mlflow: Any = pytest.importorskip("mlflow", reason="compares with the real MLflow, which is not installed here")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

Call = Callable[[Any], Any]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A module's worth of MLflow: its tables take seconds to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    yield mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/mlflow.db")
    logging.getLogger("alembic").setLevel(logging.NOTSET)


@pytest.fixture
def both(peer: Any, project: Path) -> tuple[Any, Any]:
    """MLflow's client and ours, without models; each has a run called ``run``, whose id is in its ``run_id``."""
    for model in peer.search_registered_models(max_results=1000):
        peer.delete_registered_model(model.name)
    ours: Any = gittrack.MlflowClient()
    for client in (peer, ours):
        client.run_id = client.create_run("0", run_name="run").info.run_id
    ours.log_text(ours.run_id, "w", "model/w.txt")
    ours.set_terminated(ours.run_id)
    return peer, ours


def told(value: Any) -> Any:
    """An answer as plain data, without what must differ: times, users, sources, run ids; versions as text."""
    if isinstance(value, list):
        return sorted((told(one) for one in value), key=repr)
    if type(value).__name__ == "ModelVersion":
        names = ("name", "description", "current_stage", "status", "tags")
        return {"version": str(value.version)} | {name: getattr(value, name) for name in names}
    if type(value).__name__ == "RegisteredModel":
        aliases = {alias: str(version) for alias, version in value.aliases.items()}
        latest = told(list(value.latest_versions))
        return {
            "name": value.name,
            "description": value.description,
            "tags": value.tags,
            "aliases": aliases,
            "latest": latest,
        }
    return value


def same(theirs: Any, ours: Any) -> bool:
    """True for equal answers; where MLflow gives an error without a code, ours may have any code."""
    return bool(theirs == ours) or (theirs == "INTERNAL_ERROR" and isinstance(ours, str) and ours.isupper())


def answer(client: Any, call: Call) -> Any:
    """What a call returns, or the code of its error."""
    try:
        return told(call(client))
    except (gittrack.MlflowException, mlflow.MlflowException) as error:
        return error.error_code


def source(client: Any) -> str:
    return f"runs:/{client.run_id}/model"


SETUP: list[Call] = [
    lambda c: c.create_registered_model("iris", {"team": "a"}, "flowers"),
    lambda c: c.create_registered_model("churn", {"team": "b"}),
    lambda c: c.create_registered_model("a model", None),
    lambda c: c.create_model_version("iris", source(c), c.run_id, {"k": "x"}, None, "first"),
    lambda c: c.create_model_version("iris", source(c), c.run_id, {"k": "y"}),
    lambda c: c.create_model_version("iris", source(c), c.run_id),
    lambda c: c.create_model_version("churn", source(c), c.run_id),
    lambda c: c.transition_model_version_stage("iris", "1", "Production"),
    lambda c: c.transition_model_version_stage("iris", 2, "staging"),
    lambda c: c.transition_model_version_stage("iris", "3", "Production", archive_existing_versions=True),
    lambda c: c.set_registered_model_alias("iris", "champion", "3"),
    lambda c: c.set_registered_model_alias("iris", "other", 1),
]

CALLS: list[Call] = [
    lambda c: c.get_registered_model("iris"),
    lambda c: c.get_registered_model("nope"),
    lambda c: c.get_model_version("iris", "1"),
    lambda c: c.get_model_version("iris", 9),
    lambda c: c.get_model_version("nope", 1),
    lambda c: c.get_model_version("iris", "x"),
    lambda c: c.get_latest_versions("iris"),
    lambda c: c.get_latest_versions("iris", ["Production", "none"]),
    lambda c: c.get_latest_versions("iris", ["Prod"]),
    lambda c: c.get_latest_versions("nope"),
    lambda c: c.create_registered_model("iris"),
    lambda c: c.create_registered_model(""),
    lambda c: c.create_registered_model("a/b"),
    lambda c: c.create_registered_model("a:b"),
    lambda c: c.create_registered_model("x" * 251, {"k" * 251: "v"}),
    lambda c: c.create_registered_model("long", {"k": "v" * 100_001}),
    lambda c: c.create_registered_model("key", {"k" * 251: "v"}),
    lambda c: c.create_registered_model("fine key", {"a b/c.d-e_f:g": "v" * 100_000}),
    lambda c: c.get_registered_model("fine key").tags.keys() == {"a b/c.d-e_f:g"},
    lambda c: c.create_registered_model("bad key", {"a?b": "v"}),
    lambda c: c.rename_registered_model("iris", "flowers") and None,  # MLflow gives nothing back
    lambda c: c.get_registered_model("iris"),
    lambda c: c.get_model_version_by_alias("flowers", "champion"),
    lambda c: c.rename_registered_model("flowers", "churn"),
    lambda c: c.rename_registered_model("nope", "new"),
    lambda c: c.rename_registered_model("flowers", " "),
    lambda c: c.rename_registered_model("flowers", "iris") and None,  # MLflow gives nothing back
    lambda c: c.update_registered_model("iris", "better"),
    lambda c: c.update_registered_model("nope", "better"),
    lambda c: c.update_model_version("iris", "1", "text"),
    lambda c: c.update_model_version("iris", "9", "text"),
    lambda c: c.set_registered_model_tag("iris", "n", 5),
    lambda c: c.get_registered_model("iris"),
    lambda c: c.set_registered_model_tag("nope", "n", 5),
    lambda c: c.delete_registered_model_tag("iris", "n"),
    lambda c: c.delete_registered_model_tag("iris", "n"),
    lambda c: c.set_model_version_tag("iris", "1", "n", True),
    lambda c: c.set_model_version_tag("iris", key="m", value=1, stage="Staging"),
    lambda c: c.set_model_version_tag("iris", "9", "n", 1),
    lambda c: c.set_model_version_tag("iris", "1", "n", 1, "Staging"),
    lambda c: c.set_model_version_tag("iris", None, "n", 1),
    lambda c: c.get_model_version("iris", "2"),
    lambda c: c.delete_model_version_tag("iris", "1", "n"),
    lambda c: c.delete_model_version_tag("iris", "1", "never"),
    lambda c: c.delete_model_version_tag("iris", "9", "n"),
    lambda c: c.transition_model_version_stage("iris", "1", "Prod"),
    lambda c: c.transition_model_version_stage("iris", "9", "Production"),
    lambda c: c.transition_model_version_stage("nope", "1", "Production"),
    lambda c: c.transition_model_version_stage("iris", "1", "None"),
    lambda c: c.transition_model_version_stage("iris", "1", "ARCHIVED"),
    lambda c: c.transition_model_version_stage("iris", "1", "Production"),
    lambda c: c.get_latest_versions("iris", ["Production"]),
    lambda c: c.get_model_version_by_alias("iris", "champion"),
    lambda c: c.get_model_version_by_alias("iris", "latest"),
    lambda c: c.get_model_version_by_alias("iris", "nope"),
    lambda c: c.get_model_version_by_alias("nope", "champion"),
    lambda c: c.set_registered_model_alias("iris", "v1", "1"),
    lambda c: c.set_registered_model_alias("iris", "latest", "1"),
    lambda c: c.set_registered_model_alias("iris", "a b", "1"),
    lambda c: c.set_registered_model_alias("iris", "", "1"),
    lambda c: c.set_registered_model_alias("iris", "x" * 256, "1"),
    lambda c: c.set_registered_model_alias("iris", "x", "9"),
    lambda c: c.set_registered_model_alias("iris", "champion", "1"),
    lambda c: c.get_registered_model("iris"),
    lambda c: c.delete_registered_model_alias("iris", "champion"),
    lambda c: c.delete_registered_model_alias("iris", "champion"),
    lambda c: c.delete_registered_model_alias("nope", "champion"),
    lambda c: c.get_registered_model("iris"),
    lambda c: c.copy_model_version("models:/iris/1", "copied"),
    lambda c: c.copy_model_version("models:/iris@other", "copied"),
    lambda c: c.create_model_version("nope", source(c), c.run_id),
    lambda c: c.get_model_version_stages("iris", "1"),
    lambda c: c.delete_model_version("iris", "1"),
    lambda c: c.get_registered_model("iris"),
    lambda c: c.get_model_version("iris", "1"),
    lambda c: c.delete_model_version("iris", "1"),
    lambda c: c.set_model_version_tag("iris", "1", "n", 1),
    lambda c: c.transition_model_version_stage("iris", "1", "Staging"),
    lambda c: c.create_model_version("iris", source(c), c.run_id).version in (4, "4"),
    lambda c: c.delete_registered_model("iris"),
    lambda c: c.get_registered_model("iris"),
    lambda c: c.delete_registered_model("iris"),
    lambda c: c.get_latest_versions("iris"),
    lambda c: c.create_registered_model("iris"),
    lambda c: list(c.search_registered_models()),
    lambda c: list(c.search_model_versions()),
]  # fmt: skip


def test_the_same_calls_give_the_same_answers(both: tuple[Any, Any]) -> None:
    different = {}
    for number, call in enumerate([*SETUP, *CALLS]):
        theirs, ours = (answer(client, call) for client in both)
        if not same(theirs, ours):
            different[number - len(SETUP)] = (theirs, ours)
    assert different == {}, "\n".join(f"{at}: {theirs}\n    {ours}" for at, (theirs, ours) in different.items())


MODEL_FILTERS = [
    "", "name = 'iris'", "name != 'iris'", "name LIKE '%i%'", "name ILIKE 'IR%'", "name IN ('iris', 'churn')",
    "name NOT IN ('iris')", "tags.team = 'a'", "tag.team != 'a'", "tags.`team` LIKE '%'", "tags.team ILIKE 'A'",
    "name = 'iris' AND tags.team = 'b'", "name='a model'", "name = iris", "name > 'a'", "nope = 'a'",
    "name = 'iris' OR 1",
    "tags.team = 5", "params.a = 'b'", "attribute.name = 'iris'", "name =", "= 'iris'",
]  # fmt: skip
VERSION_FILTERS = [
    "", "name = 'iris'", "name LIKE 'i%'", "name IN ('iris')", "version_number = 2", "version_number > 1",
    "version_number >= 2 AND name = 'iris'", "version_number != 1", "version_number = '2'", "version_number = 1.5",
    "version_number LIKE '1'", "tags.k = 'x'", "tags.k != 'x'", "tags.k LIKE '%'", "source_path LIKE 'runs:%'",
    "source_path LIKE '%/model'", "source_path IN ('x')", "run_id LIKE '%'", "run_id = ''", "run_id IN ('x')",
    "run_id NOT IN ('x')", "name = 'iris' and tags.k = 'x' and version_number = 1", "status = 'READY'", "name = 1",
]  # fmt: skip
#: What MLflow refuses and gittrack, whose language is wider (`gittrack help search`), does not.
WIDER = {"version_number = 1.5", "source_path IN ('x')"}
#: What MLflow takes although its documentation says that numbers are not quoted.
STRICTER = {"version_number = '2'"}


@pytest.mark.parametrize("kind", ["models", "versions"])
def test_the_same_filters_find_the_same(both: tuple[Any, Any], kind: str) -> None:
    for call in SETUP:
        for client in both:
            call(client)
    different = {}
    for text in MODEL_FILTERS if kind == "models" else VERSION_FILTERS:

        def search(client: Any, text: str = text) -> Any:
            if kind == "models":
                return [model.name for model in client.search_registered_models(text)]
            return [(version.name, str(version.version)) for version in client.search_model_versions(text)]

        theirs, ours = (answer(client, search) for client in both)
        if theirs != ours and text not in WIDER | STRICTER:
            different[text] = (theirs, ours)
    assert different == {}


def test_the_same_orders_and_pages(both: tuple[Any, Any]) -> None:
    for call in SETUP:
        for client in both:
            call(client)
    different = {}

    def paged(search: Callable[..., Any], name: Callable[[Any], Any], size: int, order: list[str] | None) -> list[Any]:
        found, token = [], None
        while True:
            page = search("", size, order, token)
            found.append([name(one) for one in page])
            token = page.token
            if not token:
                return found

    for order in (None, ["name DESC"], ["name ASC"], ["last_updated_timestamp"], ["nope"], ["name", "name DESC"]):
        for size in (1, 2, 100):

            def models(client: Any, size: int = size, order: list[str] | None = order) -> Any:
                return str(paged(client.search_registered_models, lambda one: one.name, size, order))

            theirs, ours = (answer(client, models) for client in both)
            if not same(theirs, ours):
                different["models", size, str(order)] = (theirs, ours)
    for order in (
        None,
        ["version_number ASC"],
        ["name DESC", "version_number ASC"],
        ["last_updated_timestamp DESC"],
        ["nope"],
    ):
        for size in (1, 3, 100):

            def versions(client: Any, size: int = size, order: list[str] | None = order) -> Any:
                return str(paged(client.search_model_versions, lambda one: (one.name, int(one.version)), size, order))

            theirs, ours = (answer(client, versions) for client in both)
            if not same(theirs, ours):
                different["versions", size, str(order)] = (theirs, ours)
    assert different == {}
