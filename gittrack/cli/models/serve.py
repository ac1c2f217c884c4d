"""``gittrack models serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output
from gittrack.cli.models import base
from gittrack.cli.models.environment import enter, option as environment_option
from gittrack.errors import UsageError

if TYPE_CHECKING:
    from gittrack.server.serving import ServedModel


@common.verb()
@base.model_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address or name.")
@click.option(
    "-p", "--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="Port; 0 takes a free one."
)
@click.option("-w", "--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Worker processes.")
@base.trust_option
@environment_option
@click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(0.01, 86400),
    default=60.0,
    show_default=True,
    help="Seconds that a prediction may take.",
)
@click.option("--max-body", type=common.Bytes(), default="8m", show_default=True, help="Largest body of a request.")
@click.option(
    "--follow",
    type=click.FloatRange(0.1, 86400),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look whether a stage, an alias or `latest` means another version.",
)
@click.option("--no-follow", is_flag=True, help="Stay with the version that is found at the start.")
@click.option("--batch", type=click.IntRange(1, 65536), default=256, show_default=True, metavar="ROWS",
              help="Join requests that wait up to so many rows; 1 joins none.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True, help="Predictions at a time.")
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Refuse requests whose header Host names none of these; repeatable. On this machine's own address the default "
    "is that address and `localhost`, elsewhere anything.",
)
def verb(
    uri: str,
    host: str,
    port: int,
    workers: int,
    trust: bool,
    environment: str,
    timeout: float,
    max_body: int,
    follow: float,
    no_follow: bool,
    batch: int,
    threads: int,
    hosts: tuple[str, ...],
) -> int:
    """Answer predictions over HTTP.

    The model of MODEL (`models:/NAME/Production`, `NAME@champion`, `runs:/RUN/model`, a folder) is served by MLflow's
    scoring protocol (`/invocations`) and by the Open Inference Protocol (`/v2`). A stage, an alias or `latest` is
    followed: another version is loaded beside the old one and takes its place without a request being lost. There is no
    password: keep it on this machine's own address, or put a gateway before it. `gittrack help serving` says more.
    """
    from gittrack.server.ending import SIGNALS, ending

    with ending() as end:  # before anything that takes long
        base.fetch_model(uri)
        status = enter(environment, uri, trust=trust, waiting=SIGNALS)
        if status is not None:
            return status
        from gittrack.server.following import Addressed, moves
        from gittrack.server.run import LOCAL_HOSTS, Address, Plan, serve, show_log
        from gittrack.server.serving import Options

        address = Address(host, port)
        if hosts and "" in hosts:
            raise UsageError("`--allowed-host` needs a name")
        allowed = frozenset(one.lower() for one in hosts) or (LOCAL_HOSTS | {host} if address.is_loopback else None)
        options = Options(
            max_body=max_body,
            timeout=timeout,
            follow=follow if moves(uri) and not no_follow else None,
            hosts=allowed,
            max_rows=batch,
            threads=threads,
        )

        def said(url: str, model: ServedModel | None) -> None:
            what = uri if model is None or model.version is None else f"{model.name} version {model.version}"
            following = f", following {uri}" if options.follow is not None else ""
            output.message(f"serving {what} at {url}{following} (^C ends it)")
            if not address.is_loopback and not hosts:
                output.warning("whoever can reach this address can ask the model: there is no password")

        show_log()
        return serve(Plan(Addressed(uri, trust=trust), address, options, workers=workers), said, end)
