"""The README's example runs as it is printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gittrack
from tests.cli.conftest import Cli
from tests.conftest import Sandbox

README = Path(gittrack.__file__).parents[1] / "README.md"


@pytest.mark.skipif(not README.exists(), reason="an installed package has no README beside it")
def test_the_example_of_the_readme(git_repo: Sandbox, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("pandas")
    (example,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert sum(bool(line.strip()) for line in example.splitlines()) <= 20
    git_repo.write("example.py", example)
    monkeypatch.chdir(git_repo.path)
    monkeypatch.setenv("PYTHONPATH", str(README.parent))

    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "example.py"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "metrics.test_accuracy" in done.stdout
    found = cli("search", "metrics.test_accuracy > 0.9", "-e", "wine", "--format", "%N %p(C)")
    assert {"C=0.1 0.1", "C=1.0 1.0"} <= set(found.out.splitlines())
    assert cli("log", "--oneline").out.count("(wine, dirty)") == 3  # the example itself is not committed
    assert "params.json" in cli("artifacts", "latest").out


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
