"""Images and workflows: written from verified files, parsed, and tried in everything but a container engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import gittrack
from gittrack import stores
from gittrack.errors import AlreadyExistsError, InvalidValueError
from gittrack.models import addresses, ci, dockerfile
from gittrack.registry.registry import Registry
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


@dataclass
class Job:
    """A clone of a remote, in which the steps of a workflow run as on the host.

    Attributes:
        folder: The clone.
        environment: What the host sets.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, step: ci.Step, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run one step."""
        words = ["sh", "-c", "set -eu\n" + step.script]
        environment = {**self.environment, **variables}
        return subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def until_verified(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the steps that fetch and verify."""
        fetched = self.run(ci.STEPS[0], **variables)
        assert fetched.returncode == 0, fetched.stderr
        return self.run(ci.STEPS[1], **variables)


def push(project: Path) -> None:
    """Push what a promotion needs on the other side, as people do it with stock git and git-lfs."""
    oids = [line.split()[0] for line in run_git(project, "lfs", "ls-files", "-l", "models/iris/v1").splitlines()]
    run_git(project, "lfs", "push", "origin", "--object-id", *oids)
    run_git(project, "push", "-q", "origin", "HEAD:refs/heads/main", "refs/tags/*:refs/tags/*")


@pytest.fixture
def job(registered: Path, tmp_path: Path) -> Job:
    """The job that the promotion of iris v1 starts."""
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")
    remote = tmp_path / "remote.git"
    run_git(tmp_path, "init", "-q", "--bare", str(remote))
    run_git(registered, "remote", "add", "origin", remote.as_uri())
    run_git(registered, "config", "lfs.storage", "../.gittrack")
    push(registered)
    run_git(remote, "symbolic-ref", "HEAD", "refs/heads/main")
    run_git(tmp_path, "clone", "-q", remote.as_uri(), "job")
    program = tmp_path / "bin"
    program.mkdir()
    for name, words in {"gittrack": f'{sys.executable} -m gittrack "$@"', "python": f'{sys.executable} "$@"'}.items():
        (program / name).write_text(f"#!/bin/sh\nexec {words}\n")
        (program / name).chmod(0o755)
    deploy = tmp_path / "deploy"
    deploy.write_text(
        f'#!/bin/sh\ntest -f "$CONTEXT/Dockerfile" && echo "$1 $NAME $VERSION $STAGE" > "{tmp_path}/deployed"\n'
    )
    deploy.chmod(0o755)
    return Job(
        tmp_path / "job",
        {
            **os.environ,
            "PATH": f"{program}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TAG": "models/iris/production/1",
            "CONTEXT": "image",
            "DEPLOY": f"{deploy} now",
        },
    )


@pytest.mark.timeout(600)
def test_the_steps_deploy_a_promotion_that_was_pushed(job: Job, tmp_path: Path) -> None:
    for step in ci.STEPS:
        if "--verify" in step.script:  # has tests of its own, and needs a package index
            continue
        done = job.run(step)
        assert done.returncode == 0, (step.name, done.stderr)
    assert (tmp_path / "deployed").read_text() == "now iris 1 production\n"
    assert "refs/gittrack/registry/" in run_git(tmp_path / "remote.git", "for-each-ref")
    log = subprocess.run(
        ["gittrack", "models", "log", "iris"],
        cwd=job.folder, env=job.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "deployed.production" in log.stdout


@pytest.mark.parametrize(
    "tag", ["models/iris/production/1; touch PWNED", "models/iris/production/1\nx", "models/iris/v1"]
)
def test_the_steps_refuse_what_is_no_promotion(job: Job, tag: str) -> None:
    for step in ci.STEPS[:2]:
        assert job.run(step, TAG=tag).returncode != 0
    assert not (job.folder / "PWNED").exists()


def test_a_promotion_that_was_replaced_is_not_deployed(job: Job, registered: Path) -> None:
    gittrack.Client().transition_model_version_stage("iris", "1", "Archived")
    push(registered)
    done = job.until_verified()
    assert (done.returncode, "holds no more" in done.stderr) == (1, True), done.stderr


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_the_team_s_rules_are_those_of_the_default_branch(job: Job, registered: Path, tmp_path: Path) -> None:
    """Production needs a signature: an unsigned promotion is refused, one by a stranger too, and Ana's is deployed."""
    (registered / "pyproject.toml").write_text('[tool.gittrack.registry.production]\nsigners = ["ana@lab"]\n')
    run_git(registered, "add", "pyproject.toml")
    run_git(registered, "commit", "-q", "-m", "production needs a signature")
    push(registered)
    run_git(job.folder, "pull", "-q")
    done = job.until_verified()
    assert (done.returncode, "it needs 1 signature of ana@lab" in done.stderr) == (1, True), done.stderr

    for name in ("ana", "eve"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    allowed = "ana@lab " + " ".join((tmp_path / "ana.pub").read_text().split()[:2])
    (tmp_path / "allowed").write_text(allowed + "\n")
    for key, value in {
        "gpg.format": "ssh",
        "user.signingKey": str(tmp_path / "ana"),
        "gpg.ssh.allowedSignersFile": str(tmp_path / "allowed"),
    }.items():
        run_git(registered, "config", key, value)
    Registry(stores.tracker()).promote("iris", 1, "Production", archive_existing=True, sign=True)
    push(registered)
    assert job.until_verified(TAG="models/iris/production/2").returncode == 4  # nobody is allowed yet
    done = job.until_verified(TAG="models/iris/production/2", ALLOWED_SIGNERS=allowed)
    assert done.returncode == 0, done.stderr
    facts = json.loads((job.folder / ".gittrack" / "verified.json").read_text())
    assert (facts["model"], facts["version"], facts["place"]) == ("iris", "1", "Production")
    stranger = "ana@lab " + " ".join((tmp_path / "eve.pub").read_text().split()[:2])
    assert job.until_verified(TAG="models/iris/production/2", ALLOWED_SIGNERS=stranger).returncode == 4
