"""The command line: one verb, one file.

A verb's module is named like the verb and holds ``command``, a :class:`gittrack.cli.common.Verb` (or a group of
them).  It parses, makes one call into the layers below and prints through :mod:`gittrack.cli.output`, the only module
that writes to the terminal.  ``main`` loads a verb's module when that verb is called and not before; what a verb needs
beyond click it imports inside its function.
"""
