"""Measure latency and throughput of several models in alternation, so that drift cancels."""

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import nn

from distilkit.benchmark.contenders import Contender
from distilkit.benchmark.inputs import Batch, Texts, random_inputs, text_batches
from distilkit.benchmark.peak_memory import peak_memory
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.progress import Advance
from distilkit.record import BenchSetting
from distilkit.runtimes.exported import RuntimeModel
from distilkit.training.memory import is_out_of_memory

Seconds = npt.NDArray[np.float64]
WARM_UP_PASSES = 3
SPREAD_PERCENTILES = (2.5, 97.5)  # 95 % of the runs lie between


@contextlib.contextmanager
def cpu_threads(wanted: int | None) -> Iterator[int]:
    """Context manager: use this number of CPU threads, or the current one for None; yield the number in use."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


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


def measure(
    contenders: Sequence[Contender], setting: BenchSetting, options: BenchOptions, advance: Advance, texts: Texts = ()
) -> dict[str, float]:
    """Return the metrics of all models in a setting, on random tokens or on `texts`.

    `speedup` is relative to the first model: the median of the ratios of neighbouring runs; over texts, the ratio of
    the total times. `speedup/low` and `speedup/high` are the range that 95 % of the ratios are in.
    Raises DistilkitError if memory runs out.
    """
    try:
        models = [contender.timed.to(setting.device) for contender in contenders]
        if texts:
            batches = list(zip(*(text_batches(contender, texts, setting) for contender in contenders), strict=True))
        else:
            batches = [random_inputs(contenders, setting, options.seed)] * options.runs
        seconds = time_interleaved(models, batches, advance, setting)
        peaks = [peak_of(model, batches, i, setting) for i, model in enumerate(models)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DistilkitError(f"{setting} does not fit in memory: lower --batch-sizes or --seq-lengths") from None
    metrics: dict[str, float] = {}
    for i, (own, peak) in enumerate(zip(seconds, peaks, strict=True)):
        sizes = [(len(batch[i]["input_ids"]), int(batch[i]["attention_mask"].sum())) for batch in batches]
        values = {**summarise(own, *map(sum, zip(*sizes, strict=True))), **peak}
        if i:
            values |= speedup(seconds[0], own, total=bool(texts))
        metrics |= {f"{i}/{setting}/{name}": value for name, value in values.items()}
    return metrics


@torch.inference_mode()
def time_interleaved(
    models: Sequence[nn.Module], batches: Sequence[Sequence[Batch]], advance: Advance, setting: BenchSetting
) -> Seconds:
    """Time forward passes in alternation (A B A B …) after a warm-up; return seconds (models, runs).

    `batches` has the input of each model for each run.
    """
    for i, model in enumerate(models):
        for _ in range(WARM_UP_PASSES):
            model(**batches[0][i])
    seconds = np.empty((len(models), len(batches)))
    for run, inputs in enumerate(batches):
        for i, model in enumerate(models):
            _synchronise(setting.device)
            started = time.perf_counter()
            model(**inputs[i])
            _synchronise(setting.device)
            seconds[i, run] = time.perf_counter() - started
        advance(1, str(setting))
    return seconds


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_of(model: nn.Module, batches: Sequence[Sequence[Batch]], i: int, setting: BenchSetting) -> dict[str, float]:
    """Return the peak memory of a model on its largest batch, in torch only: it cannot be told for other runtimes."""
    if isinstance(model, RuntimeModel):
        return {}
    largest = max((batch[i] for batch in batches), key=lambda batch: batch["input_ids"].numel())
    return {"peak_memory_bytes": float(peak_memory(model, largest, setting.device))}


def summarise(seconds: Seconds, sequences: int, tokens: int) -> dict[str, float]:
    """Return latency percentiles and throughput from one model's seconds per forward pass (runs,).

    `sequences` and `tokens`, without padding, are those of all runs together.
    """
    return {
        **{f"latency_ms_p{rank}": float(np.percentile(seconds, rank) * 1e3) for rank in (50, 95, 99)},
        "throughput_sequences_per_second": float(sequences / seconds.sum()),
        "tokens_per_second": float(tokens / seconds.sum()),
    }


def speedup(first: Seconds, own: Seconds, *, total: bool) -> dict[str, float]:
    """Return how many times as fast a model is as the first, with its spread over the runs (runs,)."""
    ratios = first / own
    low, high = np.percentile(ratios, SPREAD_PERCENTILES)
    value = first.sum() / own.sum() if total else np.median(ratios)
    return {"speedup": float(value), "speedup/low": float(low), "speedup/high": float(high)}
