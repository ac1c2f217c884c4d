"""What `gittrack help server` tells people to copy is what the programs take that it is for."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import gittrack
from gittrack.cli.server import start

PAGE = (Path(gittrack.__file__).parent / "help/server.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def check_options(line: str) -> None:
    """Fail if `gittrack server` does not take the options of a command line."""
    words = shlex.split(line)
    words = words[words.index("server") + 1 :]
    start.make_context("start", words, resilient_parsing=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd looks at its unit")
def test_the_unit(tmp_path: Path) -> None:
    unit = block("ini")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit.replace("\\\n", ""), re.MULTILINE)
    check_options(command)
    program = shutil.which("true")
    assert program is not None
    text = unit.replace("/opt/gittrack/bin/gittrack", program).replace("User=gittrack", "User=root")
    (tmp_path / "gittrack.service").write_text(text)
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "gittrack.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "gittrack.service" not in found.stderr, found.stderr


def test_the_composition() -> None:
    composed: Any = yaml.safe_load(block("yaml"))
    services = composed["services"]
    check_options(services["server"]["command"])
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in composed["volumes"], volume
        assert set(service.get("depends_on", ())) <= set(services)
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    secrets = re.findall(r"PASSWORD[A-Z_]*: (\S+)", block("yaml"))
    assert secrets
    assert all("${" in one for one in secrets), "a password is written down"


def test_the_settings_are_those_of_the_program() -> None:
    options = {name for one in start.params if isinstance(one, click.Option) for name in one.opts}
    part = PAGE.partition("| Setting | |")[2].partition("\n\n")[0]
    named = set(re.findall(r"--[a-z][a-z-]+", part))
    assert named
    assert named <= options
