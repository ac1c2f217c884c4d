"""Programs of the person that know secrets: git's credential helpers, and ssh.

Both get what they need through standard input or as single arguments, never through a shell, and may ask the person
only where that was said.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack import config
from gittrack.errors import MissingDependencyError, NetworkError
from gittrack.store.gateway import strip_credentials

if TYPE_CHECKING:
    from gittrack.store.gateway import Git
    from gittrack.sync.endpoints import Ssh

_TYPING_S: Final = 300.0  #: that a person may take to type a password
_SSH_S: Final = 120.0  #: in which the other side must have answered; the person may have to type a passphrase
_MAX_ANSWER: Final = 1 << 20


def credential(git: Git, verb: str, facts: bytes, *, interactive: bool) -> bytes:
    """``git credential VERB``; empty if it knows nothing.

    Raises:
        GitError: It said nothing for too long.
    """
    found = git.over_network("credential", verb, input=facts, interactive=interactive, silence=_TYPING_S)
    return found.stdout if found.status == 0 else b""


def run(place: Ssh, command: Sequence[str], *, interactive: bool, setting: str | None = None) -> bytes:
    """What a command on another machine prints.

    Args:
        place: The machine.
        command: Its words; the shell there gets them quoted.
        interactive: ssh may ask the person for a passphrase.
        setting: What ``core.sshCommand`` says.

    Raises:
        NetworkError: It failed, or took too long; says what ssh said last.
        MissingDependencyError: There is no ssh.
    """
    environment = {name: value for name, value in config.environment().items() if not name.startswith("GIT_")}
    words = _program(config.environment(), setting)
    plink = re.search(r"(?i)plink", Path(words[0]).name)
    port = [] if place.port is None else ["-P" if plink else "-p", str(place.port)]
    target = place.host if place.user is None else f"{place.user}@{place.host}"
    remote = " ".join(shlex.quote(word) for word in command)
    try:
        # In a session of its own it has no terminal to ask on.
        process = subprocess.Popen(
            [*words, *port, target, remote], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, start_new_session=not interactive,
        )  # fmt: skip
    except OSError as error:
        raise MissingDependencyError(f"`{words[0]}` cannot be started: {error.strerror}", hint="install ssh") from error
    with process:
        try:
            out, err = process.communicate(timeout=_SSH_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise NetworkError(f"`{place}` took longer than {_SSH_S:g} s to answer", again=0.0) from error
        except BaseException:
            process.kill()
            raise
    if process.returncode or len(out) > _MAX_ANSWER:
        lines = err.decode("utf-8", "replace").strip().splitlines()
        said = strip_credentials(re.sub(r"[^\x20-\x7e]", "?", lines[-1] if lines else f"status {process.returncode}"))
        if process.returncode == 127:
            raise NetworkError(
                f"`{place}` has no `{command[0]}`, so it keeps no artifacts",
                hint=f"`git config gittrack.artifacts {place}-artifacts` keeps them in a folder there",
            )
        raise NetworkError(f"`{place}`: {said[:200]}", denied=True)
    return out


def _program(environment: Mapping[str, str], setting: str | None) -> list[str]:
    """The ssh that git would use, as words: a command with a shell's expansions in it is taken literally."""
    said = environment.get("GIT_SSH_COMMAND") or setting
    words = shlex.split(said) if said else [environment.get("GIT_SSH") or "ssh"]
    words = [str(Path(word).expanduser()) if word.startswith("~/") else word for word in words]
    if Path(words[0]).is_absolute():
        return words
    folders = [part for part in environment.get("PATH", os.defpath).split(os.pathsep) if Path(part).is_absolute()]
    found = shutil.which(words[0], path=os.pathsep.join(folders))
    if found is None:
        raise MissingDependencyError(f"the program `{words[0]}` was not found", hint="install ssh")
    return [found, *words[1:]]


def is_here(host: str) -> bool:
    """True if that host is this machine, by its loopback address."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:  # an alias of ssh's own configuration
        return False
    return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)


__all__ = ["credential", "is_here", "run"]
