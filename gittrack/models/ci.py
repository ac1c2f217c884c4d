"""The workflow that a promotion starts: pushing the tag of a promotion runs it on the team's own CI.

The steps are plain shell, the same for every host, so that they can be tried anywhere: fetch what the tag needs, verify
signatures, digests and policy, try the model on its input example in an environment of its own, write the build context
of an image, run the team's own command, and note the deployment as a tag of the version (`gittrack models log` shows
it).  They take the tag's name from ``$TAG`` and the allowed signers from ``$ALLOWED_SIGNERS``, and nothing else from
outside; the name is checked before it is used.

A promotion's tag points at a run, whose files are whatever was there when it ran.  So the team's rules are read from
the default branch, which is what is checked out, and never from the run.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gittrack._version import __version__
from gittrack.errors import InvalidValueError


class Step(NamedTuple):
    """One step of the workflow.

    Attributes:
        name: For people.
        script: For sh, with ``set -eu``.
    """

    name: str
    script: str


#: What a promotion's tag looks like; a name has only these characters in a ref, so that none needs quoting.
_CHECK: Final = """\
case "$TAG" in *[!A-Za-z0-9_.%+/-]*) exit 1 ;; esac
printf '%s\\n' "$TAG" | grep -Eqx 'models/[^/]+/(production|staging)/[1-9][0-9]*'
"""

#: What was verified, for the steps after it.
_FACTS: Final = ".gittrack/verified.json"

_READ: Final = f"""\
fact() {{ python -c 'import json, sys; print(json.load(open("{_FACTS}"))[sys.argv[1]])' "$1"; }}
NAME=$(fact model); VERSION=$(fact version); STAGE=$(fact place | tr '[:upper:]' '[:lower:]')
"""

STEPS: Final = (
    Step(
        "Fetch the registry and the model's files",
        _CHECK + "git fetch --no-tags origin '+refs/tags/models/*:refs/tags/models/*' \\\n"
        "  '+refs/gittrack/registry/*:refs/gittrack/registry/*'\n"
        "git config lfs.storage ../.gittrack  # of this clone, which lives as long as the job\n"
        'git lfs fetch origin "refs/tags/$TAG"\n'
        "gittrack init",
    ),
    Step(
        "Verify signatures, digests and policy",
        _CHECK + "printf '%s\\n' \"${ALLOWED_SIGNERS:-}\" >.gittrack/allowed_signers\n"
        'git config gpg.ssh.allowedSignersFile "$PWD/.gittrack/allowed_signers"\n'
        f'gittrack models verify "$TAG" --policy --json >{_FACTS}',
    ),
    Step(
        "Try the model where only its requirements are installed",
        _READ + 'gittrack models requirements "$NAME@v$VERSION" --verify',
    ),
    Step("Write the build context", _READ + 'gittrack models dockerfile -m "models:/$NAME/$VERSION" -o "$CONTEXT"'),
    Step(
        "Deploy",
        _READ + 'export NAME VERSION STAGE CONTEXT\n${DEPLOY:?set it to the command that deploys "$CONTEXT"}',
    ),
    Step(
        "Note the deployment",
        _READ + 'gittrack models tag "$NAME@v$VERSION" "deployed.$STAGE=$TAG"\n'
        'git push origin "refs/gittrack/registry/$(cat .gittrack/writer)"',
    ),
)


def _indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line if line else line for line in text.splitlines())


def github() -> str:
    """A workflow for GitHub, as ``.github/workflows/deploy-model.yml``."""
    steps = "\n".join(
        f"      - name: {step.name}\n        run: |\n          set -eu\n{_indented(step.script, 10)}" for step in STEPS
    )
    return f"""\
# Written by `gittrack models ci github`.  A promotion is a tag, and pushing it starts this.
# Two variables of the repository: GITTRACK_DEPLOY is the team's own command; it finds NAME, VERSION, STAGE and CONTEXT.
# GITTRACK_ALLOWED_SIGNERS lists whose signatures count, as ssh-keygen(1) has it.
name: deploy model
on:
  push:
    tags:
      - models/*/production/*
permissions:
  contents: write
concurrency: deploy-${{{{ github.ref_name }}}}
jobs:
  deploy:
    runs-on: ubuntu-latest
    env:
      TAG: ${{{{ github.ref_name }}}}
      DEPLOY: ${{{{ vars.GITTRACK_DEPLOY }}}}
      ALLOWED_SIGNERS: ${{{{ vars.GITTRACK_ALLOWED_SIGNERS }}}}
      CONTEXT: image
    steps:
      - uses: actions/checkout@v4
        with:
          ref: ${{{{ github.event.repository.default_branch }}}}
          fetch-depth: 0
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - name: Install gittrack
        run: pip install gittrack=={__version__}
{steps}
"""


def gitlab() -> str:
    """A pipeline for GitLab, as ``.gitlab-ci.yml`` or included from it."""
    lines = "\n".join(f"    - |\n      # {step.name}\n{_indented(step.script, 6)}" for step in STEPS)
    return f"""\
# Written by `gittrack models ci gitlab`.  A promotion is a tag, and pushing it starts this.
# Two variables of the project: DEPLOY is the team's own command; it finds NAME, VERSION, STAGE and CONTEXT.
# ALLOWED_SIGNERS lists whose signatures count, as ssh-keygen(1) has it.
deploy-model:
  image: python:3.12
  rules:
    - if: $CI_COMMIT_TAG =~ /^models\\/[^\\/]+\\/production\\/[0-9]+$/
  resource_group: models
  variables:
    GIT_DEPTH: "0"
    TAG: $CI_COMMIT_TAG
    CONTEXT: image
  before_script:
    - apt-get update -qq && apt-get install -y -qq git-lfs openssh-client
    - pip install gittrack=={__version__}
    - git fetch origin "$CI_DEFAULT_BRANCH"
    - git checkout --force --detach FETCH_HEAD
  script:
{lines}
"""


WRITERS: Final = {"github": github, "gitlab": gitlab}


def workflow(host: str) -> str:
    """The workflow for a host.  Raises InvalidValueError for one that is not known."""
    if host not in WRITERS:
        raise InvalidValueError(f"no workflow for `{host:.40}`", hint="one of " + ", ".join(WRITERS))
    return WRITERS[host]()
