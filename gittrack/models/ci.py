"""The workflow that a promotion starts: pushing the tag of a promotion runs it on the team's own CI.

The steps are plain shell, the same for every host, so that they can be tried anywhere: fetch what the tag needs, verify
signatures, digests and policy, try the model on its input example in an environment of its own, write the build context
of an image, run the team's own command, and note the deployment as a tag of the version (`gittrack models log` shows
it).  They take the tag's name from ``$TAG`` and nothing else from outside; it is checked before it is used.
"""

from __future__ import annotations

from typing import Final, NamedTuple

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
_PARSE: Final = """\
printf '%s\\n' "$TAG" | grep -Eqx 'models/[A-Za-z0-9_.%+-]+/(production|staging)/[1-9][0-9]*' || exit 1
KEY=${TAG#models/}; STAGE=${KEY#*/}; STAGE=${STAGE%/*}; KEY=${KEY%%/*}
VERSION=$(git cat-file tag "refs/tags/$TAG" | sed -n 's/^Gittrack-Version: \\([1-9][0-9]*\\)$/\\1/p')
NAME=$(gittrack models list --json | python -c 'import json, sys
print(next(m["name"] for m in json.load(sys.stdin) if m["key"] == sys.argv[1]))' "$KEY")
MODEL="$NAME@v$VERSION"
"""

STEPS: Final = (
    Step(
        "Fetch the registry and the model's files",
        "git fetch --no-tags origin '+refs/tags/models/*:refs/tags/models/*' \\\n"
        "  '+refs/gittrack/registry/*:refs/gittrack/remotes/origin/registry/*' 'refs/runs/*:refs/runs/*'\n"
        "git config lfs.storage ../.gittrack  # of this clone, which lives as long as the job\n"
        'git lfs fetch origin "refs/tags/$TAG"\n'
        "gittrack init",
    ),
    Step("Verify signatures, digests and policy", _PARSE + 'gittrack models verify "$MODEL" --policy'),
    Step(
        "Try the model where only its requirements are installed",
        _PARSE + 'gittrack models requirements "$MODEL" --verify',
    ),
    Step("Write the build context", _PARSE + 'gittrack models dockerfile -m "models:/$NAME/$VERSION" -o "$CONTEXT"'),
    Step(
        "Deploy",
        _PARSE + 'export NAME VERSION STAGE CONTEXT; ${DEPLOY:?set it to the command that deploys "$CONTEXT"}',
    ),
    Step(
        "Note the deployment",
        _PARSE + 'gittrack models tag "$MODEL" "deployed.$STAGE=$TAG"\n'
        "git push origin 'refs/gittrack/registry/*:refs/gittrack/registry/*'",
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
# DEPLOY is the team's own command (a variable of the repository); it finds NAME, VERSION, STAGE and CONTEXT.
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
      CONTEXT: image
    steps:
      - uses: actions/checkout@v4
        with:
          fetch-depth: 0
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - name: Install gittrack
        run: pip install gittrack
{steps}
"""


def gitlab() -> str:
    """A pipeline for GitLab, as ``.gitlab-ci.yml`` or included from it."""
    lines = "\n".join(f"    - |\n      # {step.name}\n{_indented(step.script, 6)}" for step in STEPS)
    return f"""\
# Written by `gittrack models ci gitlab`.  A promotion is a tag, and pushing it starts this.
# DEPLOY is the team's own command (a variable of the project); it finds NAME, VERSION, STAGE and CONTEXT.
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
    - apt-get update -qq && apt-get install -y -qq git-lfs
    - pip install gittrack
  script:
{lines}
"""


WRITERS: Final = {"github": github, "gitlab": gitlab}


def workflow(host: str) -> str:
    """The workflow for a host.  Raises InvalidValueError for one that is not known."""
    if host not in WRITERS:
        raise InvalidValueError(f"no workflow for `{host:.40}`", hint="one of " + ", ".join(WRITERS))
    return WRITERS[host]()
