"""Beside the real MLflow, where it is installed: same arguments, same answers, and its documented examples run here."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack import artifacts
from tests.api.conftest import ROOT

Python = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.peer

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
mlflow: Any = pytest.importorskip("mlflow", reason="the real MLflow is not installed: pip install '.[peers]'")

#: Ours that MLflow has only on the client, or not at all.
OURS = {"bundle", "log_batch", "pull", "push", "unbundle"}
FUNCTIONS = sorted(
    name for name in gittrack.__all__ if inspect.isfunction(getattr(gittrack, name, None)) and name not in OURS
)
METHODS = sorted(
    name for name, _ in inspect.getmembers(gittrack.Client, inspect.isfunction) if not name.startswith("_")
)


def shape(function: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults of the arguments, in order."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_mlflows_arguments(name: str) -> None:
    assert shape(getattr(gittrack, name)) == shape(getattr(mlflow, name))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_mlflows_arguments(name: str) -> None:
    assert shape(getattr(gittrack.Client, name)) == shape(getattr(mlflow.MlflowClient, name))


@pytest.mark.parametrize("name", ["download_artifacts", "list_artifacts", "load_dict", "load_image", "load_text"])
def test_an_artifact_function_has_mlflows_arguments(name: str) -> None:
    assert shape(getattr(artifacts, name)) == shape(getattr(mlflow.artifacts, name))


#: Names of constants; MLflow's are elsewhere.
CONSTANTS = ("LifecycleStage", "ModelVersionStages", "ModelVersionStatus")


@pytest.mark.parametrize("name", [name for name in gittrack.entities.__all__ if name not in CONSTANTS])
def test_an_entity_has_mlflows_attributes(name: str) -> None:
    from mlflow.entities import model_registry

    ours = getattr(gittrack.entities, name)
    theirs = getattr(mlflow.entities, name, None) or getattr(model_registry, name)
    known = {
        attribute
        for attribute in dir(theirs)
        if attribute[0] != "_" and isinstance(inspect.getattr_static(theirs, attribute), property)
    }
    # Traces and workspaces are not ours.
    known -= {"trace_location", "effective_trace_archival_retention", "workspace"}
    if name in ("ModelVersion", "RegisteredModel"):  # of Databricks; and always None without it
        known -= {"deployment_job_id", "deployment_job_state", "params", "metrics"}
    assert known <= set(dir(ours))


# -- its documented examples -----------------------------------------------------------------------------------------

#: Examples that do not run with MLflow either, and why; or that need what gittrack refuses on purpose.
NOT_RUN = {
    "Client.copy_model_version[1]": "migrates from Databricks",
    "Client.create_model_version[0]": "uses inner modules of MLflow",
    "Client.get_model_version_stages[0]": "registers what its run did not log",
    "Client.log_artifact[0]": "uses a variable it does not define",
    "Client.log_artifacts[0]": "does not import what it uses",
    "Client.log_dict[0]": "does not import what it uses",
    "Client.log_figure[0]": "does not define its client",
    "Client.log_figure[1]": "does not define its client",
    "Client.search_experiments[0]": "asks for an SQLite store",
    "Client.update_registered_model[0]": "does not import what it uses",
    "get_registry_uri[0]": "does not import what it uses",
    "log_figure[1]": "needs plotly",
    "log_image[2]": "passes the run id as the image",
    "search_experiments[0]": "asks for an SQLite store",
    "mlflow[1]": "is a fragment",
    "set_active_model[0]": "traces a function",
    "set_registry_uri[0]": "misspells what it imports",
}


def examples() -> dict[str, str]:
    """The Python blocks in the docstrings of what gittrack has, by name."""
    documented = {name: inspect.getdoc(getattr(mlflow, name)) for name in FUNCTIONS if name != "autolog"}
    documented |= {f"Client.{name}": inspect.getdoc(getattr(mlflow.MlflowClient, name)) for name in METHODS}
    documented |= {
        f"artifacts.{name}": inspect.getdoc(getattr(mlflow.artifacts, name))
        for name in ("load_dict", "load_image", "load_text")
    }
    documented["mlflow"] = inspect.getdoc(mlflow)
    found = {}
    for name, text in documented.items():
        for index, block in enumerate(_blocks(text or "")):
            found[f"{name}[{index}]"] = block
    return found


def _blocks(text: str) -> list[str]:
    blocks: list[str] = []
    body: list[str] | None = None
    indent = 0
    for line in [*text.splitlines(), "end"]:
        if body is not None and line.strip() and len(line) - len(line.lstrip()) <= indent:
            blocks.append(textwrap.dedent("\n".join(body)).strip() + "\n")
            body = None
        if match := re.match(r"(\s*)\.\. code(?:-block)?:: python\s*$", line):
            body, indent = [], len(match[1])
        elif body is not None and not re.match(r"\s*:\w+:", line):
            body.append(line)
    return blocks


EXAMPLES = examples()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 80
    assert set(NOT_RUN) <= set(EXAMPLES)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_runs_unchanged(project: Path, name: str) -> None:
    if name in NOT_RUN:
        pytest.skip(f"the example {NOT_RUN[name]}")
    text = re.sub(r"^(\s*)import mlflow$", r"\1import gittrack as mlflow", EXAMPLES[name], flags=re.MULTILINE)
    text = re.sub(
        r"^( *)import mlflow\.([\w.]+)$", r"\1import gittrack.\2\n\1import gittrack as mlflow", text, flags=re.MULTILINE
    )
    text = re.sub(r"^(\s*)from mlflow", r"\1from gittrack", text, flags=re.MULTILINE)
    text = re.sub(r"^ *mlflow\.set_tracking_uri\(\"sqlite:.*\n", "", text, flags=re.MULTILINE)
    (project / "example.py").write_text(text, encoding="utf-8")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "example.py"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


# -- the same program, twice -----------------------------------------------------------------------------------------

PROGRAM = """
import json, math, sys
import {module} as mlflow
from {module}.entities import Metric, Param, RunTag, ViewType
{setup}
client = mlflow.MlflowClient()
out = {{}}
first = mlflow.set_experiment("one")
with mlflow.start_run(run_name="a", tags={{"k": 1}}, description="d") as a:
    mlflow.log_params({{"lr": 0.1, "none": None, "flag": True}})
    for step in (0, 2, 1):
        mlflow.log_metric("loss", 1 / (step + 1), step=step, timestamp=1000 + step)
    mlflow.log_metrics({{"acc": 1, "f1": 0.5}}, step=3, timestamp=5)
    mlflow.log_text("x", "d/t.txt")
    mlflow.log_dict({{"a": 1}}, "d/e/x.json")
    with mlflow.start_run(run_name="b", nested=True) as b:
        mlflow.log_metric("loss", float("nan"))
        mlflow.log_param("lr", 0.01)
try:
    with mlflow.start_run(run_name="c") as c:
        mlflow.set_tags({{"t": "x", "k": 2}})
        mlflow.log_metric("loss", 0.25)
        raise ValueError
except ValueError:
    pass
names = {{run.info.run_id: run.info.run_name for run in (a, b, c)}}
def told(run):
    tags = {{k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")}}
    return [run.info.run_name, run.info.status, run.info.lifecycle_stage, dict(run.data.params),
            {{k: repr(v) for k, v in sorted(run.data.metrics.items())}}, tags,
            run.data.tags.get("mlflow.note.content"), names.get(run.data.tags.get("mlflow.parentRunId"))]
out["runs"] = [told(client.get_run(one)) for one in names]
out["history"] = [[p.key, p.value, p.timestamp, p.step] for p in client.get_metric_history(a.info.run_id, "loss")]
out["listing"] = [[f.path, f.is_dir, f.file_size] for f in client.list_artifacts(a.info.run_id, "d")]
out["text"] = mlflow.artifacts.load_text(a.info.artifact_uri + "/d/t.txt")
queries = ["", "metrics.loss > 0.3", "metrics.loss != 0.25", "params.lr = '0.1'", "tags.k LIKE '%1%'",
           "attributes.status = 'FAILED'", "tags.`mlflow.runName` != 'a'", "params.lr IS NULL",
           "metrics.acc = 1 and tags.k = '1'", "tags.t ILIKE 'X'", "metrics.nothing > 0", "run_id = 'x'"]
orders = [None, ["metrics.loss"], ["metrics.loss DESC"], ["params.lr DESC", "tags.k"], ["attributes.run_name"]]
for query in queries:
    for order in orders:
        try:
            found = [names[r.info.run_id] for r in client.search_runs([first.experiment_id], query, order_by=order)]
        except mlflow.exceptions.MlflowException as error:
            found = error.error_code
        out[f"search {{query}} {{order}}"] = found
errors = {{
    "key": lambda: mlflow.log_metric("a#b", 1, run_id=a.info.run_id),
    "param twice": lambda: client.log_param(a.info.run_id, "lr", 5),
    "no run": lambda: client.get_run("0" * 32),
    "no experiment": lambda: client.get_experiment("123"),
    "taken": lambda: client.create_experiment("one"),
    "filter": lambda: client.search_runs([first.experiment_id], "metrics.loss >"),
    "order": lambda: client.search_runs([first.experiment_id], order_by=["loss"]),
    "page": lambda: client.search_runs([first.experiment_id], max_results=0),
    "tag": lambda: client.delete_tag(a.info.run_id, "missing"),
    "empty name": lambda: client.create_experiment(""),
    "timestamp": lambda: client.log_metric(a.info.run_id, "m", 1, timestamp=-1),
    "none": lambda: client.log_metric(a.info.run_id, "m", None),
}}
for name, call in errors.items():
    try:
        call()
        out["error " + name] = None
    except mlflow.exceptions.MlflowException as error:
        out["error " + name] = error.error_code
frame = mlflow.search_runs([first.experiment_id], order_by=["attributes.run_name"])
out["columns"] = sorted(c for c in frame.columns if not c.startswith("tags.mlflow."))
out["frame"] = frame[["status", "metrics.loss", "params.lr"]].astype(str).values.tolist()
client.delete_run(c.info.run_id)
out["deleted"] = [[r.info.run_name for r in client.search_runs([first.experiment_id], run_view_type=view)]
                  for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)]
print(json.dumps(out))
"""


def test_the_same_program_gives_the_same_answers(project: Path, tmp_path: Path, python: Python) -> None:
    ours = json.loads(python(PROGRAM.format(module="gittrack", setup="")).stdout.splitlines()[-1])
    setup = f"mlflow.set_tracking_uri('sqlite:///{tmp_path / 'peer.db'}')"
    theirs = json.loads(
        python(PROGRAM.format(module="mlflow", setup=setup), HOME=str(tmp_path)).stdout.splitlines()[-1]
    )
    differing = {key: (ours[key], theirs[key]) for key in theirs if ours[key] != theirs[key]}
    assert differing == {}
