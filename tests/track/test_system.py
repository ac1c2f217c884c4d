"""The sampler of system metrics: names, steps, means, and that no failure in it reaches the training."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from gittrack.errors import InvalidValueError
from gittrack.track import system
from gittrack.track.system import SystemSampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from gittrack.types import Metric

NAMES = {
    "cpu_utilization_percentage",
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
    "disk_usage_percentage",
    "disk_usage_megabytes",
    "disk_available_megabytes",
    "network_receive_megabytes",
    "network_transmit_megabytes",
}
GPU_NAMES = {
    "gpu_0_memory_usage_percentage",
    "gpu_0_memory_usage_megabytes",
    "gpu_0_utilization_percentage",
    "gpu_0_power_usage_watts",
    "gpu_0_power_usage_percentage",
}


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def no_gpu_and_no_shortest_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it fails
    monkeypatch.setattr(system, "_SHORTEST_SECONDS", 0.0)


class FakeNvml(SimpleNamespace):
    """One GPU with 8 of 32 GB in use, 40 % busy, 150 of 300 W."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818 - the library's name
        pass

    def __init__(self) -> None:
        super().__init__(
            nvmlInit=lambda: None,
            nvmlDeviceGetCount=lambda: 1,
            nvmlDeviceGetHandleByIndex=lambda i: f"handle{i}",
            nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=8e9, total=32e9),
            nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=40),
            nvmlDeviceGetPowerUsage=lambda _: 150_000,
            nvmlDeviceGetEnforcedPowerLimit=lambda _: 300_000,
        )

    def refuse(self, *names: str, error: type[Exception]) -> None:
        def refusing(*_: object) -> Any:
            raise error("no")

        for name in names:
            setattr(self, name, refusing)


def sampled() -> list[list[Metric]]:
    """What a sampler logs that is stopped long before its first sample is due."""
    logged: list[list[Metric]] = []
    sampler = SystemSampler(logged.append, 3600)
    sampler.start()
    sampler.stop()
    return logged


def test_a_short_run_still_gets_one_step_of_every_metric() -> None:
    (metrics,) = sampled()
    assert {m.key for m in metrics} == {"system/" + name for name in NAMES}
    values = {m.key.removeprefix("system/"): m.value for m in metrics}
    assert {m.step for m in metrics} == {0}
    assert abs(metrics[0].timestamp - time.time() * 1000) < 60_000
    assert 0 < values["system_memory_usage_percentage"] < 100
    assert 0 < values["disk_usage_percentage"] <= 100
    assert 0 <= values["cpu_utilization_percentage"] <= 100
    assert values["network_receive_megabytes"] >= 0
    assert values["system_memory_usage_megabytes"] == pytest.approx(psutil.virtual_memory().used / 1e6, rel=0.5)


def test_a_run_of_no_time_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_SHORTEST_SECONDS", 3600.0)
    assert sampled() == []


def test_steps_count_up_from_the_first_one_and_the_node_is_in_the_name() -> None:
    logged: list[list[Metric]] = []
    sampler = SystemSampler(logged.append, 0.01, node_id="node-1", first_step=7)
    sampler.start()
    wait_for(lambda: len(logged) >= 3)
    sampler.stop()
    assert [metrics[0].step for metrics in logged[:3]] == [7, 8, 9]
    assert all(m.key.startswith("system/node-1/") for metrics in logged for m in metrics)


def test_samples_are_averaged_but_totals_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    use, received = iter([0.0, 10.0, 20.0, 60.0]), iter([1_000_000, 2_000_000, 3_000_000, 9_000_000])
    monkeypatch.setattr(psutil, "cpu_percent", lambda: next(use))
    monkeypatch.setattr(psutil, "net_io_counters", lambda: SimpleNamespace(bytes_recv=next(received), bytes_sent=0))
    logged: list[list[Metric]] = []
    sampler = SystemSampler(logged.append, 0.02, 3)
    sampler.start()
    wait_for(lambda: logged)
    sampler.stop()
    values = {m.key: m.value for m in logged[0]}
    assert values["system/cpu_utilization_percentage"] == 30.0
    assert values["system/network_receive_megabytes"] == 8.0


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    (metrics,) = sampled()
    values = {m.key.removeprefix("system/"): m.value for m in metrics}
    assert set(values) == NAMES | GPU_NAMES
    assert [values[name] for name in sorted(GPU_NAMES)] == [8000.0, 25.0, 50.0, 150.0, 40.0]


def test_what_a_gpu_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    nvml.refuse("nvmlDeviceGetUtilizationRates", error=nvml.NVMLError_NotSupported)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    (metrics,) = sampled()
    assert {m.key.removeprefix("system/") for m in metrics} == NAMES | GPU_NAMES - {"gpu_0_utilization_percentage"}


def test_a_source_that_fails_is_left_out_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nvml = FakeNvml()
    nvml.refuse("nvmlDeviceGetMemoryInfo", error=nvml.NVMLError)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    logged: list[list[Metric]] = []
    sampler = SystemSampler(logged.append, 0.01)
    sampler.start()
    wait_for(lambda: len(logged) >= 3)
    sampler.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert {m.key.removeprefix("system/") for m in logged[-1]} == NAMES


def test_a_machine_without_a_working_driver_is_no_reason_to_warn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nvml = FakeNvml()
    nvml.refuse("nvmlInit", error=nvml.NVMLError)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    (metrics,) = sampled()
    assert len(metrics) == len(NAMES)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_failing_log_ends_the_sampling_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def fail(metrics: list[Metric]) -> None:
        calls.append(len(metrics))
        raise OSError("disk full")

    sampler = SystemSampler(fail, 0.01)
    sampler.start()
    thread = sampler._thread
    assert thread is not None
    thread.join(20)
    assert not thread.is_alive()
    sampler.stop()
    assert len(calls) == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.name == "gittrack"
    assert "disk full" in record.getMessage()


def test_without_psutil_there_is_one_warning_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    sampler = SystemSampler(lambda _: None)
    sampler.start()
    wait_for(lambda: caplog.records)
    sampler.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_thread_that_cannot_be_started_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    sampler = SystemSampler(lambda _: None)
    sampler.start()
    sampler.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_stop_waits_for_the_last_sample_and_nothing_is_logged_after_it() -> None:
    logged: list[list[Metric]] = []
    sampler = SystemSampler(logged.append, 0.001)
    sampler.start()
    wait_for(lambda: logged)
    thread = sampler._thread
    assert thread is not None
    assert thread.daemon
    sampler.stop()
    assert not thread.is_alive()
    count = len(logged)
    time.sleep(0.05)
    assert len(logged) == count
    sampler.stop()
    SystemSampler(logged.append).stop()  # never started


def test_stop_does_not_wait_for_a_driver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_STOP_SECONDS", 0.1)
    entered, leave = threading.Event(), threading.Event()

    def hang(_: str) -> Any:
        entered.set()
        leave.wait(60)
        raise OSError

    monkeypatch.setattr(psutil, "disk_usage", hang)
    logged: list[list[Metric]] = []
    sampler = SystemSampler(logged.append, 0.01)
    sampler.start()
    thread = sampler._thread
    assert thread is not None
    entered.wait(20)
    start = time.monotonic()
    sampler.stop()
    assert time.monotonic() - start < 20
    leave.set()
    thread.join(20)
    assert logged == []


@pytest.mark.parametrize(("interval", "samples"), [(0, 1), (-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0)])
def test_limits(interval: float, samples: int) -> None:
    with pytest.raises(InvalidValueError):
        SystemSampler(lambda _: None, interval, samples)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_no_sampler_and_its_stop_returns() -> None:
    code = """
import os, sys, time
from gittrack.track.system import SystemSampler
pids = set()
sampler = SystemSampler(lambda metrics: pids.add(os.getpid()), 0.001)
sampler.start()
while not pids: time.sleep(0.001)
for _ in range(30):
    child = os.fork()
    if child == 0:
        pids.clear()
        sampler.stop()
        time.sleep(0.01)
        os._exit(len(pids))
    assert os.waitpid(child, 0)[1] == 0
pids.clear()
while not pids: time.sleep(0.001)
sampler.stop()
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "fine\n"


def test_a_program_that_ends_without_stop_ends_at_once() -> None:
    code = (
        "from gittrack.track.system import SystemSampler\n"
        "import sys; assert 'psutil' not in sys.modules\n"
        "SystemSampler(lambda metrics: None, 0.001).start()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


def test_start_twice_is_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    real = threading.Thread

    def counted(*args: Any, **kwargs: Any) -> threading.Thread:
        made.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(threading, "Thread", counted)
    sampler = SystemSampler(lambda _: None)
    sampler.start()
    sampler.start()
    sampler.stop()
    assert len(made) == 1
