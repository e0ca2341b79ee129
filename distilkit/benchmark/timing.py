"""Measure latency and throughput of models in turn, so that drift cancels."""

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

Seconds = npt.NDArray[np.float64]


WARM_UP = 3


@dataclass(frozen=True)
class Contender:
    """A checkpoint in the comparison: the whole model, and the module of it that is timed."""

    name: str
    model: PreTrainedModel
    timed: nn.Module


@dataclass(frozen=True)
class Cell:
    """One setting that every contender is measured in."""

    device: str
    precision: str
    batch: int
    length: int

    def __str__(self) -> str:
        return f"{self.device}/{self.precision}/b{self.batch}/l{self.length}"


@contextlib.contextmanager
def threads(wanted: int | None) -> Iterator[int]:
    """Use that many CPU threads for a while; yields how many are in use."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def measure(contenders: Sequence[Contender], cell: Cell, config: BenchOptions, advance: Advance) -> dict[str, float]:
    """Return all models' metrics in a cell."""
    try:
        models = [contender.timed.to(cell.device) for contender in contenders]
        inputs = random_inputs(contenders, cell, config.seed)
        seconds = time_in_turn(models, inputs, config.runs, advance, cell)
        peaks = [peak_memory(model, inputs, cell.device) for model in models]
    except torch.cuda.OutOfMemoryError:
        raise DistilkitError(f"{cell} does not fit in the GPU's memory: lower --batch-sizes or --seq-lengths") from None
    metrics: dict[str, float] = {}
    for i, (taken, peak) in enumerate(zip(seconds, peaks, strict=True)):
        values = {**summarise(taken, cell), "peak_memory_bytes": float(peak)}
        if i:
            values["speedup"] = float(np.median(seconds[0] / taken))
        metrics |= {f"{i}/{cell}/{name}": value for name, value in values.items()}
    return metrics


def random_inputs(contenders: Sequence[Contender], cell: Cell, seed: int) -> dict[str, Tensor]:
    """Draw token ids that every model knows, (B, T), none of them padding."""
    generator = torch.Generator().manual_seed(seed)
    configs = [contender.model.config for contender in contenders]
    padding = {config.pad_token_id for config in configs}
    known = [i for i in range(min(config.vocab_size for config in configs)) if i not in padding]
    ids = torch.tensor(known)[torch.randint(len(known), (cell.batch, cell.length), generator=generator)]
    return {"input_ids": ids.to(cell.device), "attention_mask": torch.ones_like(ids).to(cell.device)}


@torch.inference_mode()
def time_in_turn(
    models: Sequence[nn.Module], inputs: dict[str, Tensor], runs: int, advance: Advance, cell: Cell
) -> Seconds:
    """Time forward passes in turn (A B A B …) after a warm-up; returns seconds, (models, runs)."""
    for model in models:
        for _ in range(WARM_UP):
            model(**inputs)
    seconds = np.empty((len(models), runs))
    for run in range(runs):
        for i, model in enumerate(models):
            _finish(cell.device)
            started = time.perf_counter()
            model(**inputs)
            _finish(cell.device)
            seconds[i, run] = time.perf_counter() - started
        advance(1, str(cell))
    return seconds


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def summarise(seconds: Seconds, cell: Cell) -> dict[str, float]:
    """Turn one model's seconds a forward pass into latency (of the pass) and throughput (of all passes)."""
    rate = cell.batch * len(seconds) / seconds.sum()
    return {
        "latency_ms_p50": float(np.percentile(seconds, 50) * 1e3),
        "latency_ms_p95": float(np.percentile(seconds, 95) * 1e3),
        "throughput_sequences_per_second": float(rate),
        "tokens_per_second": float(rate * cell.length),
    }
