"""Energy of inputs, from the counters of the processor (RAPL) or of an NVIDIA GPU (NVML), where there are any."""

import contextlib
import importlib
import importlib.util
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

POWERCAP = Path("/sys/class/powercap")
PACKAGE_DOMAIN = re.compile(r"intel-rapl:\d+")  # a processor with its caches; AMD's have the same name
MIN_SECONDS = 2.0  # GPUs bring their counter up to date some ten times a second
NOT_AVAILABLE = "not available"


class Counter(NamedTuple):
    """An energy counter. Its unit is `joules` joules; it starts again from 0 after its largest value."""

    read: Callable[[], int]
    joules: float
    largest: int | None = None

    def since(self, before: int) -> float:
        """Return the joules since it read `before`."""
        passed = self.read() - before
        if passed < 0 and self.largest is not None:
            passed += self.largest + 1
        return passed * self.joules


class Counters(NamedTuple):
    """The counters of a device, and where they come from."""

    source: str
    counters: tuple[Counter, ...]


def find_counters(device: str, powercap: Path = POWERCAP) -> Counters:
    """Return the energy counters of a device that this process may read; none where there are none."""
    if device == "cuda":
        found = tuple(_gpu_counters())
        return Counters("GPU (NVML)" if found else NOT_AVAILABLE, found)
    domains = sorted(powercap.glob("intel-rapl:*")) if device == "cpu" else []
    found = tuple(counter for path in domains if PACKAGE_DOMAIN.fullmatch(path.name) for counter in _package(path))
    return Counters("processor packages (RAPL)" if found else NOT_AVAILABLE, found)


def _package(path: Path) -> list[Counter]:
    """Return the counter of a processor package; most systems let only root read it."""

    def read() -> int:
        return int((path / "energy_uj").read_text(encoding="ascii"))

    with contextlib.suppress(OSError, ValueError):
        read()
        return [Counter(read, 1e-6, int((path / "max_energy_range_uj").read_text(encoding="ascii")))]
    return []


def _gpu_counters() -> list[Counter]:
    """Return the counter of torch's current GPU, if the package nvidia-ml-py is installed and the GPU has one."""
    if importlib.util.find_spec("pynvml") is None:
        return []
    nvml: Any = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:
        return []
    return [Counter(lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)), 1e-3)]


def joules_per_1000(run: Callable[[], int], found: Counters, seconds: float = MIN_SECONDS) -> dict[str, float]:
    """Return the joules per 1,000 inputs of run(), which returns how many it took; {} without counters.

    It runs for some seconds, alone, because the counters are too coarse for a single pass. They count all that the
    processor or GPU does meanwhile, idling included.
    """
    if not found.counters:
        return {}
    before, inputs, started = [counter.read() for counter in found.counters], 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        inputs += run()
    joules = sum(counter.since(value) for counter, value in zip(found.counters, before, strict=True))
    return {"energy_joules_per_1000": 1000 * joules / inputs}
