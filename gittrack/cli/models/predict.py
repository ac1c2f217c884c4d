"""``gittrack models predict``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gittrack.cli import common, output
from gittrack.cli.models import base
from gittrack.cli.models.environment import enter, option as environment_option
from gittrack.errors import InvalidValueError, NotFoundError

#: By ending of a file's name, and by what people call it.
_KINDS = {"json": "application/json", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}


@common.verb()
@base.model_option
@click.option("-i", "--input", "--input-path", "source", metavar="FILE", default="-", help="The input; - is stdin.")
@click.option(
    "-o", "--output", "--output-path", "target", metavar="FILE", default="-", help="Where to write; - is stdout."
)
@click.option(
    "-t",
    "--content-type",
    type=click.Choice(list(_KINDS)),
    help="What the input is; default: by the ending of its name, and `json` for stdin.",
)
@base.trust_option
@environment_option
def verb(uri: str, source: str, target: str, content_type: str | None, trust: bool, environment: str) -> int:
    """Predict for a file, as the server would for a request.

    The input is a request's body (`gittrack help serving`): JSON such as `{"dataframe_split": …}`, or a table as CSV or
    Parquet. What is written is JSON: `{"predictions": …}`.
    """
    base.fetch_model(uri)
    status = enter(environment, uri, trust=trust)
    if status is not None:
        return status
    from gittrack.models.scoring import Scorer
    from gittrack.server.following import Addressed
    from gittrack.store import files

    kind = content_type or ("json" if source == "-" else Path(source).suffix.removeprefix(".").lower())
    if kind not in _KINDS:
        raise InvalidValueError(f"`{source}` does not end in {', '.join(f'.{one}' for one in _KINDS)}",
                                hint="say what it is with `--content-type`")  # fmt: skip
    if source != "-" and not Path(source).exists():
        raise NotFoundError(f"there is no file `{source}`", hint="`-i FILE` names the input; without it, it is stdin")
    with files.reporting(Path(source), "read"):
        body = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    scorer = Scorer(Addressed(uri, trust=trust).load().model)
    request = scorer.read(body, _KINDS[kind])
    answer = scorer.write(scorer.predict(request), unwrapped=request.unwrapped) + b"\n"
    if target == "-":
        output.raw(answer)
    else:
        files.write_atomic(target, answer)
    return 0
