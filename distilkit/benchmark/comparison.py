"""Measure all models of a comparison in all settings, and watch what else the machine does meanwhile."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import psutil
import torch

from distilkit.benchmark.contenders import Contender
from distilkit.benchmark.energy import find_counters
from distilkit.benchmark.inputs import Texts
from distilkit.benchmark.timing import measure
from distilkit.options.bench import BenchOptions
from distilkit.progress import track, warn
from distilkit.record import BenchSetting

BUSY = 0.1  # share of the CPU time; if other processes use more, it is worth a warning


class Measured(NamedTuple):
    """The metrics of a comparison, and what its record says of the circumstances."""

    metrics: dict[str, float]
    environment: dict[str, str]


class OtherProcesses:
    """Measures how much of the machine's CPU time other processes used, from its creation to share()."""

    def __init__(self) -> None:
        self.started = self._totals()

    @staticmethod
    def _totals() -> tuple[float, float, float]:
        """Return seconds of CPU time in all, idle, and of this process."""
        everything, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = everything.idle + getattr(everything, "iowait", 0.0)
        return sum(everything[:8]), idle, own.user + own.system  # the first 8 do not overlap

    def share(self) -> float:
        """Return the share of all CPU time, from 0 to 1; 0 if the measurement is too short to tell."""
        total, idle, own = (after - before for after, before in zip(self._totals(), self.started, strict=True))
        return max(0.0, (total - idle - own) / total) if total > 0 else 0.0


def compare(
    contenders: Sequence[Contender], settings: Sequence[BenchSetting], options: BenchOptions, texts: Texts = ()
) -> Measured:
    """Measure all models in all settings, and warn if other processes took CPU time.

    The first metrics are `speedup` of each model but the first: the median over settings.
    """
    others = OtherProcesses()
    measured = measure_all(contenders, settings, options, texts)
    busy = others.share()
    if busy > BUSY:
        warn(f"other processes used {busy:.0%} of the CPU time: trust the ratios more than the times")
    overall = {
        f"{i}/speedup": median(measured[f"{i}/{setting}/speedup"] for setting in settings)
        for i in range(1, len(contenders))
    }
    devices = dict.fromkeys(setting.device for setting in settings)
    energy = "; ".join(f"{device}: {find_counters(device).source}" for device in devices)
    facts = {
        "threads": str(torch.get_num_threads()),
        "padding": "to the longest text of a batch" if texts else "none",
        "timed": ", ".join(type(contender.timed).__name__ for contender in contenders),
        "other_processes": f"{busy:.0%} of the CPU time",
        "energy": energy,
    } | ({"gpu": torch.cuda.get_device_name()} if "cuda" in devices else {})
    return Measured(overall | measured, facts)


def measure_all(
    contenders: Sequence[Contender], settings: Sequence[BenchSetting], options: BenchOptions, texts: Texts
) -> dict[str, float]:
    """Return the metrics of all models in all settings."""
    passes = sum(-(-len(texts) // setting.batch_size) if texts else options.runs for setting in settings)
    metrics: dict[str, float] = {}
    with track("bench", passes, unit="runs") as advance:
        for setting in settings:
            metrics |= measure(contenders, setting, options, advance, texts)
    return metrics


def ratios_first(measured: dict[str, float], sizes: dict[str, float]) -> dict[str, float]:
    """Return all metrics in the order of the record: ratios, sizes, and what was measured in each setting."""
    ratios = {name: value for name, value in measured.items() if "/speedup" in name}
    return ratios | sizes | measured
