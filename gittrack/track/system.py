"""System metrics: a thread that samples processor, memory, disk, network and GPUs while a run is active.

The names are MLflow's (``system/cpu_utilization_percentage`` …), so its charts and queries find them.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from gittrack.errors import InvalidValueError
from gittrack.track import lifecycle
from gittrack.types import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_logger = logging.getLogger("gittrack")

_MEGA: Final = 1e6
_STOP_SECONDS: Final = 5.0  # how long `stop` waits for a sample that hangs in a driver
_SHORTEST_SECONDS: Final = 0.1  # over less time the use of a processor means nothing


class _Source(Protocol):
    """Something that can be measured.  ``mean``: of several samples the mean is logged, else the last."""

    mean: bool

    def sample(self) -> Iterator[tuple[str, float]]: ...


class _Cpu:
    """Use of the processors since the last sample, and memory in use."""

    mean = True

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil
        psutil.cpu_percent()  # starts the interval: the first answer after an import is always 0

    def sample(self) -> Iterator[tuple[str, float]]:
        yield "cpu_utilization_percentage", self._psutil.cpu_percent()
        memory = self._psutil.virtual_memory()
        yield "system_memory_usage_megabytes", memory.used / _MEGA
        yield "system_memory_usage_percentage", memory.used / memory.total * 100


class _Disk:
    """The disk of the root folder, as in MLflow."""

    mean = True

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil

    def sample(self) -> Iterator[tuple[str, float]]:
        disk = self._psutil.disk_usage(os.sep)
        yield "disk_usage_percentage", disk.percent
        yield "disk_usage_megabytes", disk.used / _MEGA
        yield "disk_available_megabytes", disk.free / _MEGA


class _Network:
    """Bytes since the sampler began, over all interfaces."""

    mean = False

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil
        self._start = psutil.net_io_counters()

    def sample(self) -> Iterator[tuple[str, float]]:
        now = self._psutil.net_io_counters()
        if self._start is not None and now is not None:  # None: the machine has no interface
            yield "network_receive_megabytes", (now.bytes_recv - self._start.bytes_recv) / _MEGA
            yield "network_transmit_megabytes", (now.bytes_sent - self._start.bytes_sent) / _MEGA


class _Gpus:
    """NVIDIA's GPUs, in NVML's order."""

    mean = True

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]

    def sample(self) -> Iterator[tuple[str, float]]:
        for i, handle in enumerate(self._handles):
            for measure in (self._memory, self._use, self._power):
                # laptops, and slices of a GPU (MIG), do not know all of these
                with contextlib.suppress(self._nvml.NVMLError_NotSupported):
                    yield from measure(f"gpu_{i}_", handle)

    def _memory(self, gpu: str, handle: Any) -> Iterator[tuple[str, float]]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        yield gpu + "memory_usage_percentage", memory.used / memory.total * 100
        yield gpu + "memory_usage_megabytes", memory.used / _MEGA

    def _use(self, gpu: str, handle: Any) -> Iterator[tuple[str, float]]:
        yield gpu + "utilization_percentage", self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu

    def _power(self, gpu: str, handle: Any) -> Iterator[tuple[str, float]]:
        milliwatts = self._nvml.nvmlDeviceGetPowerUsage(handle)
        yield gpu + "power_usage_watts", milliwatts / 1000
        yield gpu + "power_usage_percentage", milliwatts / self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle) * 100


class SystemSampler:
    """Samples the machine every ``interval_s`` seconds in a daemon thread and hands the metrics to ``log``.

    Nothing in here raises into the training: a source that fails is left out from then on, a failing ``log`` ends the
    sampling, each with one warning on the logger ``gittrack``.  GPUs are sampled if ``pynvml`` (nvidia-ml-py) is
    installed.  A forked child has no such thread, and ``stop`` there does nothing.

    Args:
        log: Gets the metrics of one step, from the thread.
        interval_s: Seconds between two samples.
        samples_before_logging: As many samples are averaged to one step (network counts are totals: the last counts).
        node_id: Tells machines of a distributed job apart: ``system/<node_id>/cpu_…``.
        first_step: Step of the first logging; one more than the last when a run is resumed.

    Raises:
        InvalidValueError: ``interval_s`` is not above 0, or ``samples_before_logging`` is less than 1.
    """

    def __init__(
        self,
        log: Callable[[list[Metric]], None],
        interval_s: float = 10.0,
        samples_before_logging: int = 1,
        *,
        node_id: str | None = None,
        first_step: int = 0,
    ) -> None:
        if not (interval_s > 0 and math.isfinite(interval_s)):
            raise InvalidValueError(f"the sampling interval must be a number of seconds above 0, got {interval_s}")
        if samples_before_logging < 1:
            raise InvalidValueError(f"samples before logging must be 1 or more, got {samples_before_logging}")
        self._log = log
        self._interval = interval_s
        self._batch = samples_before_logging
        self._prefix = f"system/{node_id}/" if node_id else "system/"
        self._step = first_step
        self._sources: list[_Source] = []
        self._values: dict[str, list[float]] = {}  # the samples that are not logged yet; of totals only the last
        self._stopping = threading.Event()
        self._abandoned = False
        self._thread: threading.Thread | None = None
        self._pid = 0

    def start(self) -> None:
        """Start the thread.  A second call does nothing."""
        if self._thread is not None:
            return
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="gittrack-system-metrics", daemon=True)
        try:
            lifecycle.start(self._thread)
        except RuntimeError as error:  # the system's limit of threads
            self._thread = None
            _logger.warning("system metrics are not recorded: %s", error)

    def stop(self) -> None:
        """Take a last sample, log what has not been logged yet, and end the thread.

        Returns when that is done, after five seconds at the latest; from then on ``log`` is not called any more.
        """
        if self._thread is None or self._pid != os.getpid():  # in a forked child the event's lock may never be free
            return
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)
        self._abandoned = True
        self._thread = None

    def _run(self) -> None:
        self._open()
        if not self._sources:
            _logger.warning("system metrics are not recorded: psutil cannot be used")
            return
        taken = 0
        last = time.monotonic()
        stopping = False
        while not stopping and not self._abandoned:
            stopping = self._stopping.wait(self._interval)
            if not stopping or time.monotonic() - last >= _SHORTEST_SECONDS:
                self._sample()
                taken += 1
                last = time.monotonic()
            if taken and (stopping or taken >= self._batch):
                taken = 0
                if not self._publish():
                    return

    def _open(self) -> None:
        for module, source in (("psutil", _Cpu), ("psutil", _Disk), ("psutil", _Network), ("pynvml", _Gpus)):
            try:
                self._sources.append(source(importlib.import_module(module)))
            except ImportError:
                _logger.debug("no system metrics from %s: it is not installed", module)
            except Exception as error:  # noqa: BLE001 - drivers raise classes of their own; training must go on
                _logger.debug("no system metrics from %s: %s", module, error)

    def _sample(self) -> None:
        for source in list(self._sources):
            try:
                for name, value in source.sample():
                    self._values[name] = [*self._values.get(name, ()), value] if source.mean else [value]
            except Exception as error:  # noqa: BLE001 - drivers raise classes of their own; training must go on
                self._sources.remove(source)
                _logger.warning("system metrics: %s cannot be sampled any more: %s", type(source).__name__[1:], error)

    def _publish(self) -> bool:
        """Log the samples so far as one step.  False: there will be no more."""
        now = int(time.time() * 1000)
        metrics = [
            Metric(self._prefix + name, math.fsum(values) / len(values), now, self._step)
            for name, values in self._values.items()
        ]
        self._values.clear()
        self._step += 1
        if self._abandoned or not metrics:
            return False
        try:
            self._log(metrics)
        except Exception as error:  # noqa: BLE001 - whatever the caller's function raises; training must go on
            _logger.warning("system metrics are not recorded any more: %s", error)
            return False
        return True
