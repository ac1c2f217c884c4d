"""The command line: one verb, one file.

A verb's module is named like the verb and holds ``command``, a :class:`gittrack.cli.common.Verb` (or a group of
them).  It parses, makes one call into the layers below and prints through :mod:`gittrack.cli.output`, the only module
that writes to the terminal.  ``main`` loads a verb's module when that verb is called and not before; what a verb needs
beyond click it imports inside its function.
"""

import gc as garbage  # the verb of that name becomes an attribute of this package
import sys


def start() -> None:
    """Entry point of both programs: what has nothing to do, a hook or a push or a pull, ends before click is loaded."""
    # Most of what a verb makes it keeps: looking for garbage took a tenth of each long one.
    garbage.set_threshold(50_000)
    if sys.argv[1:2] == ["hook"]:
        from gittrack.hooks.quick import idle

        if idle(sys.argv[2:]):
            sys.exit(0)
    elif not {"push", "pull", "fetch"}.isdisjoint(sys.argv[1:4:2]):
        _share()
    from gittrack.cli.main import main

    main()


def _share() -> None:
    from gittrack.sync import idle

    try:
        said = idle.idle(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    if said is not None:
        from gittrack.cli import output

        output.message(said)
        sys.exit(0)
