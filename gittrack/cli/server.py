"""``gittrack server``: the tracking server of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from gittrack.cli import common, output, server_oidc, server_project, server_webhook
from gittrack.cli.accounts import audit, base, token, user
from gittrack.errors import UsageError

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=common.VerbGroup, default="start")
def command() -> None:
    """Serve the runs and models of this repository to every MLflow client.

    Without a further word it starts the server.
    """


@command.command("start")
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address or name.")
@click.option(
    "-p", "--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--backend-store-uri",
    "database",
    metavar="URL",
    help="Have the index and what running runs record in a PostgreSQL database (`postgresql://USER@HOST/NAME`); or the"
    " index in another file than usual (`sqlite:///FILE`).",
)
@click.option(
    "--artifacts-destination",
    "destination",
    metavar="URL",
    help="Keep artifacts in a bucket (`s3://BUCKET/PREFIX`) or in this folder instead of the repository's.",
)
@click.option(
    "--default-artifact-root",
    "artifact_root",
    metavar="URL",
    help="Send clients there with the files of new experiments that do not say where (`s3://BUCKET`, a folder): they"
    " write and read them by themselves.",
)
@click.option(
    "--shared-remote",
    metavar="REMOTE",
    help="Share runs and models through this git remote with servers that have clones of their own.",
)
@click.option("--public-url", metavar="URL", help="How clients reach the server, if there is a proxy before it.")
@click.option(
    "--max-artifact", type=common.Bytes(), metavar="BYTES", help="Largest file that is taken; any if not given."
)
@click.option(
    "--ssl-certfile",
    "certificate",
    type=_FILE,
    help="Speak TLS with the certificate (and those between"
    " it and its authority) in this PEM file; read anew when it changes, or on SIGHUP.",
)
@click.option("--ssl-keyfile", "key", type=_FILE, help="The certificate's private key, PEM.")
@click.option("--ssl-keyfile-password-file", "key_password", type=_FILE, help="A file whose first line opens that key.")
@click.option(
    "--ssl-min-version",
    "tls_version",
    type=click.Choice(("1.2", "1.3")),
    default="1.2",
    show_default=True,
    help="The oldest TLS that clients may speak.",
)
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    help="Write a line for each request, too: for people, or (all of the log) as JSON.",
)
@click.option("--public-metrics", is_flag=True, help="Let everybody read /metrics; otherwise it takes a token.")
@server_webhook.key_option
@server_oidc.options
@base.guard_options
def start(
    host: str,
    port: int,
    database: str | None,
    destination: str | None,
    artifact_root: str | None,
    shared_remote: str | None,
    public_url: str | None,
    max_artifact: int | None,
    webhook_key: Path | None,
    certificate: Path | None,
    key: Path | None,
    key_password: Path | None,
    tls_version: str,
    log_format: str | None,
    public_metrics: bool,
    **asked: Any,
) -> int:
    """Start the server; ^C ends it.

    It answers MLflow's REST API (`MLFLOW_TRACKING_URI=http://127.0.0.1:5000`): what clients record there are runs of
    this repository. It is a git remote with LFS, too: `http://127.0.0.1:5000/git/default`. On this machine's own
    address programs need no password as long as nobody has an account; elsewhere everybody does (`gittrack server token
    create`). `gittrack help server` says more.
    """  # fmt: skip
    from gittrack.server.ending import ending

    with ending() as end:  # before anything that takes long
        from gittrack import session
        from gittrack.server.hub.app import Options
        from gittrack.server.hub.entrance import Asked
        from gittrack.server.hub.locations import taken_root
        from gittrack.server.hub.start import Plan, serve
        from gittrack.server.hub.watching import show_requests
        from gittrack.server.run import Address, show_log
        from gittrack.server.tls import Files
        from gittrack.sync import bucket_store
        from gittrack.sync.exchange import Exchange

        if (certificate is None) != (key is None) or (key_password is not None and key is None):
            raise UsageError("a certificate and its key go together", hint="`--ssl-certfile` and `--ssl-keyfile`")
        tls = None if certificate is None or key is None else Files(certificate, key, key_password, tls_version)
        secure = tls is not None or (public_url or "").startswith("https:")
        named = {name: asked.pop(name) for name in list(asked) if name.startswith("oidc_")}
        oidc = server_oidc.taken(public_url=public_url, **named)
        who = Asked(accounts=asked.pop("url"), secure=secure, oidc=oidc, **asked)
        if shared_remote is not None and (database is None or database.startswith("sqlite:")):
            raise UsageError("servers that share a remote share a database, too", hint="--backend-store-uri URL")
        elsewhere = None if artifact_root is None else taken_root(artifact_root)
        tracker = session.open_server(
            database=database,
            objects=None if destination is None else lambda root: bucket_store.at(root, destination),
            exchange=None if shared_remote is None else lambda repo: Exchange(repo, shared_remote),
        )
        where = tracker.repo.paths.main_root

        def said(url: str, page: str) -> None:
            output.message(f"serving the runs and models of {where} at {url} (^C ends it)")
            if page != url:
                output.message(f"in a browser: {page}")

        show_log()
        show_requests(log_format)
        options = Options(max_artifact=max_artifact, artifact_root=elsewhere)
        plan = Plan(Address(host, port), who, options, public_url, webhook_key, tls, public_metrics)
        return serve(tracker, plan, said, end)


@command.command("openapi")
def openapi() -> None:
    """Print the OpenAPI description of the server's REST API, in JSON.

    A server that runs answers the same at `/api/2.0/gittrack/openapi.json`.
    """
    from gittrack.server.hub.all_routes import ROUTES
    from gittrack.server.hub.openapi import description

    output.document(description(ROUTES))


command.add_command(token.command, "token")
command.add_command(user.command, "user")
command.add_command(server_project.command, "project")
command.add_command(server_webhook.command, "webhook")
command.add_command(audit.command, "audit")
