"""Measure latency and throughput of several models in alternation, so that drift cancels."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from distilkit.benchmark.contenders import Contender
from distilkit.benchmark.energy import find_counters, joules_per_1000
from distilkit.benchmark.inputs import Batch, Texts, random_inputs, text_batches
from distilkit.benchmark.peak_memory import peak_memory
from distilkit.errors import DistilkitError, is_out_of_memory
from distilkit.options.bench import BenchOptions
from distilkit.progress import Advance
from distilkit.record import BenchSetting
from distilkit.runtimes.exported import RuntimeModel

Seconds = npt.NDArray[np.float64]
STEADY_PASSES = 2  # in a row that are no faster than the fastest before: the warm-up is over
FASTER = 0.95  # of the fastest time before; a smaller gain is noise
MAX_WARM_UP = 50  # passes
SPREAD_PERCENTILES = (2.5, 97.5)  # 95 % of the runs lie between


@contextlib.contextmanager
def cpu_threads(wanted: int | None) -> Iterator[None]:
    """Context manager: use this number of CPU threads, or the current one for None."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        costs = [memory_and_energy(model, [batch[i] for batch in batches], setting) for i, model in enumerate(models)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DistilkitError(f"{setting} does not fit in memory: lower --batch-sizes or --seq-lengths") from None
    metrics: dict[str, float] = {}
    for i, (own, cost) in enumerate(zip(seconds, costs, strict=True)):
        sizes = [(len(batch[i]["input_ids"]), int(batch[i]["attention_mask"].sum())) for batch in batches]
        values = {**summarise(own, *map(sum, zip(*sizes, strict=True))), **cost}
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

    def run(i: int, number: int) -> float:
        inputs = batches[number][i]
        synchronise(setting.device)
        started = time.perf_counter()
        models[i](**inputs)
        synchronise(setting.device)
        return time.perf_counter() - started

    for i in range(len(models)):
        warm_up(partial(run, i, 0))
    seconds = np.empty((len(models), len(batches)))
    for number in range(len(batches)):
        for i in range(len(models)):
            seconds[i, number] = run(i, number)
        advance(1, str(setting))
    return seconds


def warm_up(run: Callable[[], float]) -> None:
    """Run until a few passes in a row are no faster than the fastest before."""
    fastest, steady = run(), 0
    for _ in range(MAX_WARM_UP):
        seconds = run()
        steady = 0 if seconds < FASTER * fastest else steady + 1
        fastest = min(fastest, seconds)
        if steady == STEADY_PASSES:
            return


def synchronise(device: str) -> None:
    """Wait until a GPU has finished its queued work."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


@torch.inference_mode()
def memory_and_energy(model: nn.Module, batches: Sequence[Batch], setting: BenchSetting) -> dict[str, float]:
    """Return the peak memory of a model on its largest batch, and the energy of all batches, if they can be measured.

    Peak memory can be measured only in torch, and not on mps.
    """

    def run() -> int:
        for batch in batches:
            model(**batch)
        synchronise(setting.device)
        return sum(len(batch["input_ids"]) for batch in batches)

    largest = max(batches, key=lambda batch: batch["input_ids"].numel())
    told = setting.device != "mps" and not isinstance(model, RuntimeModel)
    peak = {"peak_memory_bytes": float(peak_memory(model, largest, setting.device))} if told else {}
    return peak | joules_per_1000(run, find_counters(setting.device))


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
