"""``gittrack ui``."""

from __future__ import annotations

import click

from gittrack.cli import common, output


@common.verb()
@click.option("-p", "--port", type=click.IntRange(0, 65535), default=0, help="Port; a free one is taken if not given.")
@click.option("--no-browser", is_flag=True, help="Only say where the page is.")
def command(port: int, no_browser: bool) -> int:
    """See the runs and models of this repository in a browser; ^C ends it.

    The page is served on this machine's own address, to whoever has the link that is printed.
    """
    from gittrack.server.ending import ending

    with ending() as end:  # before anything that takes long
        import webbrowser

        from gittrack import session
        from gittrack.server.hub.start import Plan, serve
        from gittrack.server.run import Address, show_log

        tracker = session.open_server()

        def said(url: str, page: str) -> None:
            output.message(f"the runs and models of {tracker.repo.paths.main_root} are at {page} (^C ends it)")
            if not no_browser and not webbrowser.open(page):
                output.message("no browser could be opened: open the link yourself")

        show_log()
        return serve(tracker, Plan(Address("127.0.0.1", port)), said, end)
