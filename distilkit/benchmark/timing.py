"""Measure latency and throughput of several models in alternation, so that drift cancels."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilkit.benchmark.peak_memory import peak_memory
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.progress import Advance
from distilkit.record import BenchSetting
from distilkit.training.memory import is_out_of_memory

Seconds = npt.NDArray[np.float64]
WARM_UP_PASSES = 3


@dataclass(frozen=True)
class Contender:
    """A checkpoint in the comparison: the whole model, and its module that is timed."""

    name: str
    model: PreTrainedModel
    timed: nn.Module


@contextlib.contextmanager
def cpu_threads(wanted: int | None) -> Iterator[int]:
    """Context manager: use this number of CPU threads, or the current one for None; yield the number in use."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def measure(
    contenders: Sequence[Contender], setting: BenchSetting, options: BenchOptions, advance: Advance
) -> dict[str, float]:
    """Return the metrics of all models in a setting. `speedup` is relative to the first model.

    Raises DistilkitError if memory runs out.
    """
    try:
        models = [contender.timed.to(setting.device) for contender in contenders]
        inputs = random_inputs(contenders, setting, options.seed)
        seconds = time_interleaved(models, inputs, options.runs, advance, setting)
        peaks = [peak_memory(model, inputs, setting.device) for model in models]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DistilkitError(f"{setting} does not fit in memory: lower --batch-sizes or --seq-lengths") from None
    metrics: dict[str, float] = {}
    for i, (own, peak) in enumerate(zip(seconds, peaks, strict=True)):
        values = {**summarise(own, setting), "peak_memory_bytes": float(peak)}
        if i:
            values["speedup"] = float(np.median(seconds[0] / own))
        metrics |= {f"{i}/{setting}/{name}": value for name, value in values.items()}
    return metrics


def random_inputs(contenders: Sequence[Contender], setting: BenchSetting, seed: int) -> dict[str, Tensor]:
    """Draw random token ids (B, T) that are in every model's vocabulary and are not padding."""
    generator = torch.Generator().manual_seed(seed)
    configs = [contender.model.config for contender in contenders]
    padding = {config.pad_token_id for config in configs}
    known = [i for i in range(min(config.vocab_size for config in configs)) if i not in padding]
    ids = torch.tensor(known)[torch.randint(len(known), (setting.batch_size, setting.length), generator=generator)]
    return {"input_ids": ids.to(setting.device), "attention_mask": torch.ones_like(ids).to(setting.device)}


@torch.inference_mode()
def time_interleaved(
    models: Sequence[nn.Module], inputs: dict[str, Tensor], runs: int, advance: Advance, setting: BenchSetting
) -> Seconds:
    """Time forward passes in alternation (A B A B …) after a warm-up; return seconds (models, runs)."""
    for model in models:
        for _ in range(WARM_UP_PASSES):
            model(**inputs)
    seconds = np.empty((len(models), runs))
    for run in range(runs):
        for i, model in enumerate(models):
            _synchronise(setting.device)
            started = time.perf_counter()
            model(**inputs)
            _synchronise(setting.device)
            seconds[i, run] = time.perf_counter() - started
        advance(1, str(setting))
    return seconds


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def summarise(seconds: Seconds, setting: BenchSetting) -> dict[str, float]:
    """Return latency percentiles and throughput from one model's seconds per forward pass (runs,)."""
    rate = setting.batch_size * len(seconds) / seconds.sum()
    return {
        "latency_ms_p50": float(np.percentile(seconds, 50) * 1e3),
        "latency_ms_p95": float(np.percentile(seconds, 95) * 1e3),
        "throughput_sequences_per_second": float(rate),
        "tokens_per_second": float(rate * setting.length),
    }
