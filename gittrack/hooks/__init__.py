"""Git hooks: what happens to runs when code is committed, rewritten or pushed.

The scripts that git runs are a few lines of shell in the project's `hooks/` folder and call ``gittrack hook NAME``.
``quick`` finds out in a few milliseconds that there is nothing to do; ``dispatch`` does what there is, a module per
hook; ``install`` puts the scripts into a repository.  A hook says no with the status ``REFUSED``, and only where it
means it: whatever goes wrong with gittrack itself is a warning, and git goes on.

Every hook loads this module, so it loads nothing: `typing` alone takes 3 ms.
"""

#: Every hook, in the order in which git runs them.
NAMES = ("pre-commit", "prepare-commit-msg", "post-commit", "post-rewrite", "pre-push")
#: The exit status of ``gittrack hook`` that stops git.  No other does: a Python that does not start exits with 1.
REFUSED = 10
