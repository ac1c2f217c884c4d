"""Images and workflows: written from verified files, parsed, and tried in everything but a container engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import gittrack
from gittrack.errors import AlreadyExistsError, InvalidValueError
from gittrack.models import addresses, ci, dockerfile
from tests.conftest import run_git

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registered(project: Path, iris: tuple[Any, Any]) -> Path:
    """A repository with iris v1 in production."""
    from sklearn.linear_model import LogisticRegression

    rows, labels = iris
    run_git(project, "config", "user.name", "Ana")
    run_git(project, "config", "user.email", "ana@example.org")
    run_git(project, "commit", "-q", "--allow-empty", "-m", "first")
    with gittrack.start_run():
        model = LogisticRegression(max_iter=500).fit(rows, labels)
        gittrack.sklearn.log_model(model, name="model", input_example=rows[:2], registered_model_name="iris")
    gittrack.Client().transition_model_version_stage("iris", "1", "Production")
    return project


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines joined, comments left out."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line and not line.startswith("#")]


def test_the_build_context(registered: Path, tmp_path: Path) -> None:
    local = addresses.fetch("models:/iris/Production")
    written = dockerfile.write(local, tmp_path / "image", port=9000)
    assert written == [".dockerignore", "Dockerfile", "gittrack", "gittrack.txt", "model", "requirements.txt"]
    found = instructions((tmp_path / "image" / "Dockerfile").read_text())
    steps = [name for name, _ in found]
    assert steps[0] == "FROM"
    assert steps.index("USER") < steps.index("ENTRYPOINT")
    known = dict(found)
    assert known["USER"] == "10001"
    assert known["EXPOSE"] == "9000"
    assert "--only-binary :all:" in next(text for name, text in found if name == "RUN")
    entry = json.loads(known["ENTRYPOINT"])
    assert entry[-1] == "9000"
    assert "--trust" not in entry
    check = known["HEALTHCHECK"].partition("CMD ")[2]
    compile(json.loads(check)[2], "healthcheck", "exec")
    version = gittrack.Client().get_model_version("iris", "1")
    assert f'org.opencontainers.image.revision="{version.commit}"' in known["LABEL"]
    assert f'org.gittrack.manifest="sha256:{version.manifest}"' in known["LABEL"]
    for path, (digest, _) in local.manifest.files.items():
        copied = (tmp_path / "image" / "model" / path).read_bytes()
        assert __import__("hashlib").sha256(copied).hexdigest() == digest
    pins = (tmp_path / "image" / "gittrack.txt").read_text().splitlines()
    assert any(line.startswith("uvicorn==") for line in pins)
    with pytest.raises(AlreadyExistsError):
        dockerfile.write(local, tmp_path / "image")


def test_what_the_entrypoint_runs_predicts_without_the_repository(registered: Path, tmp_path: Path) -> None:
    dockerfile.write(addresses.fetch("iris@production"), tmp_path / "image")
    entry = json.loads(dict(instructions((tmp_path / "image" / "Dockerfile").read_text()))["ENTRYPOINT"])
    assert entry[:6] == ["python", "-m", "gittrack", "models", "serve", "-m"]
    # The same program and the same folder, predicting once instead of listening.
    example = tmp_path / "image" / "model" / "serving_input_example.json"
    words = [sys.executable, "-m", "gittrack", "models", "predict", "-m", "model", "-i", str(example)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "image"), "HOME": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path / "image", env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {"predictions": [0, 0]}


def test_nothing_of_a_model_can_leave_its_line(registered: Path) -> None:
    assert dockerfile._plain('x"\nRUN evil $HOME `id`') == "x__RUN evil _HOME _id_"


@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_the_workflows_are_yaml_with_every_step(host: str) -> None:
    document = yaml.safe_load(ci.workflow(host))
    if host == "github":
        assert document[True]["push"]["tags"] == ["models/*/production/*"]  # `on` is a truth value in YAML
        scripts = [step["run"] for step in document["jobs"]["deploy"]["steps"] if "run" in step][1:]
        scripts = [script.removeprefix("set -eu\n") for script in scripts]
    else:
        scripts = [script.partition("\n")[2] for script in document["deploy-model"]["script"]]
    assert [script.rstrip("\n") for script in scripts] == [step.script.rstrip("\n") for step in ci.STEPS]
    with pytest.raises(InvalidValueError, match="no workflow"):
        ci.workflow("elsewhere")


@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")
def test_the_steps_deploy_a_promotion_that_was_pushed(registered: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    run_git(tmp_path, "init", "-q", "--bare", str(remote))
    run_git(registered, "remote", "add", "origin", remote.as_uri())
    run_git(registered, "config", "lfs.storage", "../.gittrack")
    oids = [line.split()[0] for line in run_git(registered, "lfs", "ls-files", "-l", "models/iris/v1").splitlines()]
    run_git(registered, "lfs", "push", "origin", "--object-id", *oids)
    run_git(
        registered, "push", "-q", "origin", "HEAD:refs/heads/main", "refs/tags/*:refs/tags/*", "refs/runs/*:refs/runs/*"
    )
    run_git(remote, "symbolic-ref", "HEAD", "refs/heads/main")
    run_git(tmp_path, "clone", "-q", remote.as_uri(), "job")
    program = tmp_path / "bin"
    program.mkdir()
    for name, words in {"gittrack": f'{sys.executable} -m gittrack "$@"', "python": f'{sys.executable} "$@"'}.items():
        (program / name).write_text(f"#!/bin/sh\nexec {words}\n")
        (program / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TAG": "models/iris/production/1",
        "CONTEXT": "image",
    }
    deploy = tmp_path / "deploy"
    deploy.write_text(
        f'#!/bin/sh\ntest -f "$CONTEXT/Dockerfile" && echo "$NAME $VERSION $STAGE" > "{tmp_path}/deployed"\n'
    )
    deploy.chmod(0o755)
    environment["DEPLOY"] = str(deploy)
    for step in ci.STEPS:
        if "--verify" in step.script:  # has tests of its own, and needs a package index
            continue
        done = subprocess.run(
            ["sh", "-c", "set -eu\n" + step.script],
            cwd=tmp_path / "job", env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (step.name, done.stderr)
    assert (tmp_path / "deployed").read_text() == "iris 1 production\n"
    assert "refs/gittrack/registry/" in run_git(remote, "for-each-ref")
    refused = {**environment, "TAG": "models/iris/production/1; touch PWNED"}
    check = ["sh", "-c", "set -eu\n" + ci.STEPS[1].script]
    assert subprocess.run(check, cwd=tmp_path / "job", env=refused, check=False).returncode != 0
    assert not (tmp_path / "job" / "PWNED").exists()
