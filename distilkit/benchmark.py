"""`bench`: how big checkpoints are and how fast they run, measured in turn so that drift cancels."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from distilkit.encoders import checkpoint
from distilkit.encoders.sizes import model_sizes
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.options.declare import flag
from distilkit.progress import Advance, track
from distilkit.record import Record, record

Seconds = npt.NDArray[np.float64]
DEVICES = ("cpu", "cuda")
WARM_UP = 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler talks on stderr


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


def bench(config: BenchOptions) -> Record:
    """Measure parameters, size, latency, throughput, memory and speed-up of checkpoints, side by side.

    A classifier or question answerer is timed as a whole. Any other checkpoint is timed as its encoder: a vocabulary
    head serves pre-training. The input is random token ids without padding. A speed-up is against the first model:
    in a cell the median of the runs' ratios, overall the median of the cells. For memory see peak_memory().
    Raises DistilkitError for a device that isn't there and lengths that a model has no positions for.
    """
    for name in ("batch_sizes", "seq_lengths"):
        if min(getattr(config, name), default=0) < 1:
            raise DistilkitError(f"{flag(name)} takes numbers from 1 on: give one or more")
    devices = present(config.devices)
    contenders = [contend(name) for name in config.models]
    for contender in contenders:
        check_lengths(contender, config.seq_lengths)
    metrics = {
        f"{i}/{name}": size
        for i, entry in enumerate(contenders)
        for name, size in model_sizes(entry.model, entry.name).items()
    }
    cells = [Cell(*cell) for cell in product(devices, [config.precision], config.batch_sizes, config.seq_lengths)]
    for contender in contenders:
        contender.timed.to(DTYPES[config.precision])
    with threads(config.threads) as used, track("bench", len(cells) * config.runs, unit="runs") as advance:
        for cell in cells:
            metrics |= measure(contenders, cell, config, advance)
    for i in range(1, len(contenders)):
        metrics[f"{i}/speedup"] = median(metrics[f"{i}/{cell}/speedup"] for cell in cells)
    timed = ", ".join(type(contender.timed).__name__ for contender in contenders)
    gpu = {"gpu": torch.cuda.get_device_name()} if "cuda" in devices else {}
    return record("bench", config, metrics, threads=str(used), padding="none", timed=timed, **gpu)


def present(devices: Sequence[str]) -> list[str]:
    """Return the devices to run on: those asked for, or all there are.

    Raises DistilkitError for one that is unknown or absent.
    """
    for device in devices:
        if device not in DEVICES:
            raise DistilkitError(f"--devices '{device}' is unknown: give one or both of {', '.join(DEVICES)}")
        if device == "cuda" and not torch.cuda.is_available():
            raise DistilkitError("--devices cuda: torch finds no CUDA device here: leave it out")
    return list(dict.fromkeys(devices)) or ["cpu", "cuda"][: 1 + torch.cuda.is_available()]


def contend(name: str) -> Contender:
    """Open a checkpoint as its config's `architectures` says."""
    head = checkpoint.head_of(checkpoint.open_config(name))
    model = checkpoint.open_model(name, head)
    return Contender(name, model, model.base_model if head in ("masked-lm", "encoder") else model)


def check_lengths(contender: Contender, lengths: Sequence[int]) -> None:
    """Refuse sequences that are longer than a model's positions."""
    positions = checkpoint.max_tokens(contender.model)
    if positions is not None and max(lengths) > positions:
        raise DistilkitError(
            f"--seq-lengths {max(lengths)} is longer than the {positions} positions of '{contender.name}': lower it"
        )


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


@torch.inference_mode()
def peak_memory(model: nn.Module, inputs: dict[str, Tensor], device: str) -> int:
    """Return the bytes of a model's weights and of what a (warm) forward pass adds to them at its peak.

    That is what torch's allocators hand out for tensors: not the interpreter, hundreds of megabytes whatever the
    model, and not the scratch space of BLAS.
    """
    weights = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    rise = _rise_on_cuda(model, inputs) if device == "cuda" else _rise_on_cpu(model, inputs)
    return sum(weights.values()) + rise


def _rise_on_cuda(model: nn.Module, inputs: dict[str, Tensor]) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model(**inputs)
    return torch.cuda.max_memory_allocated() - before


def _rise_on_cpu(model: nn.Module, inputs: dict[str, Tensor]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model(**inputs)
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    memory = sorted(
        (event for event in events if event.get("name") == "[memory]"), key=lambda event: float(event["ts"])
    )
    return max(accumulate((int(event["args"]["Bytes"]) for event in memory), initial=0))
