"""The environment of a run: complete, cheap, free of secrets, and storable whatever the machine says."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from gittrack.track import environment
from gittrack.track.environment import capture
from gittrack.track.secrets import REDACTED


def test_what_is_captured_here() -> None:
    record = capture(["python", "train.py"], {"USER": "mira"}, Path("/repo/sub/dir"), root=Path("/repo"))
    assert record["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert record["python"]["executable"] == sys.executable
    assert record["command"] == ["python", "train.py"]
    assert record["directory"] == "sub/dir"
    assert record["user"] == "mira"
    assert record["cpu"]["count"] == os.cpu_count()
    assert record["memory_bytes"] > 1 << 27
    assert record["platform"]["system"]
    assert record["host"]
    assert record["variables"] == {}
    assert "distributed" not in record
    assert msgpack.unpackb(msgpack.packb(record)) == record


def test_packages_are_those_of_importlib_metadata() -> None:
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    expected: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        expected.setdefault(normal(found.metadata["Name"]), found.version)
    packages = environment.packages(sys.path)
    assert packages == expected
    assert list(packages) == sorted(packages)
    assert packages["msgpack"] == importlib.metadata.version("msgpack")


def test_every_form_of_an_installed_package(tmp_path: Path) -> None:
    first, second, developed = tmp_path / "1", tmp_path / "2", tmp_path / "src"
    installed = (
        "Ruamel_Yaml-0.18.6.dist-info old-1.2-py3.11.egg-info x-2.0+cu121.dist-info ext-1-py3.8-linux-x86_64.egg-info"
    )
    for name in installed.split():
        (first / name).mkdir(parents=True)
    (first / "not_a_package").mkdir()
    (second / "old-9.9.dist-info").mkdir(parents=True)
    (developed / "mine.egg-info").mkdir(parents=True)
    (developed / "mine.egg-info/PKG-INFO").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 0.3\n")
    (developed / "bare.egg-info").mkdir()
    paths = [str(tmp_path / "gone"), str(first), str(second), str(developed), __file__]
    assert environment.packages(paths) == {
        "bare": "", "ext": "1", "mine": "0.3", "old": "1.2", "ruamel-yaml": "0.18.6", "x": "2.0+cu121",
    }  # fmt: skip


def test_secrets_stay_out() -> None:
    environ = {
        "OPENAI_API_KEY": "sk-1",
        "XLA_FLAGS": "--x=1 token=abc",
        "RANK": "3",
        "SLURM_JOB_ID": "77",
        "MASTER_ADDR": "10.0.0.1",
    }
    record = capture(["t.py", "--password", "hunter2", "API_KEY=abc"], environ, Path("/"))
    assert record["command"] == ["t.py", "--password", REDACTED, f"API_KEY={REDACTED}"]
    assert record["variables"] == {"XLA_FLAGS": f"--x=1 token={REDACTED}"}
    assert record["distributed"] == {"RANK": "3", "MASTER_ADDR": "10.0.0.1", "SLURM_JOB_ID": "77"}
    assert "sk-1" not in str(record)


def test_sizes_are_bounded_and_odd_bytes_are_kept_readable() -> None:
    environ = {"PYTHONPATH": "x" * 10**6, "TF_CONFIG": "\udcff" * 10**6, "USER": "u" * 10**6}
    record = capture(["a" * 10**6] * 10**4 + ["\udcff\x00"], environ, Path("/b/\udcfe"))
    assert len(msgpack.packb(record)) < 600_000
    assert record["directory"] == r"/b/\udcfe"
    assert all(len(arg) <= environment.MAX_TEXT for arg in record["command"])
    assert len(record["command"]) == environment.MAX_ARGUMENTS


def test_a_secret_that_is_cut_stays_redacted() -> None:
    command = capture(["--token=" + "s3cr3t" * 10**4], {}, Path("/"))["command"]
    assert command == [f"--token={REDACTED}"]


def test_directory_outside_of_the_repository_is_absolute() -> None:
    assert capture([], {}, Path("/elsewhere"), root=Path("/repo"))["directory"] == "/elsewhere"
    assert capture([], {}, Path("/repo"), root=Path("/repo"))["directory"] == "."


def test_user_name_falls_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    pwd = pytest.importorskip("pwd")
    assert environment.user_name({"LOGNAME": "", "USER": "a", "USERNAME": "b"}) == "a"
    assert environment.user_name() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a number without a name, as in containers
    assert environment.user_name({}) == "unknown"


def test_seeds_of_imported_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    np.random.seed(1234)
    assert environment.seeds({"PYTHONHASHSEED": "0"}) == {"python_hash": "0", "numpy": 1234}
    np.random.random()
    assert environment.seeds({}) == {}
    np.random.seed(None)
    assert environment.seeds({}) == {}
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(initial_seed=lambda: 2**64 - 1))
    assert environment.seeds({}) == {"torch": 2**64 - 1}
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())  # half imported
    assert environment.seeds({}) == {}


def test_nvidia_from_the_kernel(tmp_path: Path) -> None:
    driver = tmp_path / "driver/nvidia"
    for bus, model in (("0000:01:00.0", "NVIDIA H100 80GB HBM3"), ("0000:02:00.0", "NVIDIA T4")):
        (driver / "gpus" / bus).mkdir(parents=True)
        (driver / "gpus" / bus / "information").write_text(
            f"Model: \t\t {model}\nIRQ:   \t\t 57\nGPU UUID: \t GPU-{bus[5:7]}-ab\nVideo BIOS: \t 96.00\n"
        )
    (driver / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12\n"
    )
    assert environment._nvidia_of_kernel(tmp_path) == {
        "gpus": [
            {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-01-ab"},
            {"name": "NVIDIA T4", "uuid": "GPU-02-ab"},
        ],
        "gpu_driver": "550.54.15",
    }
    (driver / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n"
    )
    assert environment._nvidia_of_kernel(tmp_path)["gpu_driver"] == "570.86.10"
    assert environment._nvidia_of_kernel(tmp_path / "none") == {}


def test_nvidia_from_its_program() -> None:
    table = "NVIDIA A100, GPU-1, 40536, 535.1\nNVIDIA A100, GPU-2, [N/A], 535.1\n"
    assert environment._parse_nvidia_smi(table) == {
        "gpus": [
            {"name": "NVIDIA A100", "uuid": "GPU-1", "memory_bytes": 40536 << 20},
            {"name": "NVIDIA A100", "uuid": "GPU-2"},
        ],
        "gpu_driver": "535.1",
    }
    assert environment._parse_nvidia_smi("NVIDIA-SMI has failed\n") == {}


def test_amd_from_the_kernel(tmp_path: Path) -> None:
    for card, vendor in (("card0", "0x1002"), ("card1", "0x8086"), ("card2", "0x1002")):
        device = tmp_path / "class/drm" / card / "device"
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")
        (device / "device").write_text("0x74a1\n")
    (tmp_path / "class/drm/card0/device/product_name").write_text("AMD Instinct MI300X\n")
    (tmp_path / "class/drm/card0/device/mem_info_vram_total").write_text("206141652992\n")
    assert environment._amd(tmp_path) == {
        "gpus": [{"name": "AMD Instinct MI300X", "memory_bytes": 206141652992}, {"name": "AMD 0x74a1"}]
    }


def test_a_program_that_hangs_fails_or_is_missing_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_PROGRAM_SECONDS", 0.3)
    start = time.monotonic()
    assert environment._ask(sys.executable, "-c", "import time; time.sleep(60)") == ""
    assert time.monotonic() - start < 20
    monkeypatch.undo()
    assert environment._ask(sys.executable, "-c", "print('x'); raise SystemExit(3)") == ""
    assert environment._ask("/nonexistent/nvidia-smi") == ""
    assert environment._ask(sys.executable, "-c", "print('x')").strip() == "x"


def test_importing_and_capturing_loads_nothing_heavy() -> None:
    code = (
        "import sys, pathlib; from gittrack.track import environment\n"
        "environment.capture(['x'], {}, pathlib.Path.cwd())\n"
        "print(sorted({'numpy','pandas','torch','psutil','dulwich','git','importlib.metadata'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_capture_beside_the_training_costs_little_of_the_processor() -> None:
    """It runs in a thread and shares Python's lock with the training: milliseconds, with room for a busy machine."""
    capture([], {}, Path.cwd())  # the first call compiles patterns
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(capture([], dict(os.environ), Path.cwd())))
    start = time.process_time()
    thread.start()
    thread.join()
    assert result[0]["packages"]
    assert time.process_time() - start < 0.1
