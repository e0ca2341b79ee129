"""`bench`: measure size, speed and memory of checkpoints, in alternation so that drift cancels."""

from collections.abc import Sequence
from itertools import product
from statistics import median

import torch

from distilkit.benchmark.timing import Contender, cpu_threads, measure
from distilkit.encoders import checkpoint
from distilkit.encoders.sizes import model_sizes
from distilkit.errors import DistilkitError
from distilkit.gates import check_gates
from distilkit.options.bench import BenchOptions
from distilkit.progress import track
from distilkit.record import BenchSetting, Record, keep_record, record
from distilkit.training.devices import DTYPES

SIZES = ("parameters", "encoder_parameters", "bytes")  # from model_sizes()
MEASURED = (  # from measure()
    "latency_ms_p50", "latency_ms_p95", "throughput_sequences_per_second", "tokens_per_second", "peak_memory_bytes",
)  # fmt: skip


def bench(options: BenchOptions) -> Record:
    """Measure parameters, size, latency, throughput, memory and speed-up of checkpoints, side by side.

    A classifier or question-answering model is timed as a whole. Any other checkpoint is timed as its encoder, because
    a masked-LM head is used in pre-training only. The input is random token ids without padding. Speed-ups are relative
    to the first model: per setting the median ratio over runs, overall the median over settings. For memory see
    peak_memory().
    Raises DistilkitError if a device is absent, or if --seq-lengths exceed a model's positions.
    """
    devices = available_devices(options.devices)
    contenders = [open_contender(name) for name in options.models]
    for contender in contenders:
        check_lengths(contender, options.seq_lengths)
    grid = product(devices, [options.precision], options.batch_sizes, options.seq_lengths)
    settings = [BenchSetting(*values) for values in grid]
    check_gates(options.require, metric_names(len(contenders), settings))
    metrics = {
        f"{i}/{name}": size
        for i, entry in enumerate(contenders)
        for name, size in model_sizes(entry.model, entry.name).items()
    }
    for contender in contenders:
        contender.timed.to(DTYPES[options.precision])
    with cpu_threads(options.threads) as used, track("bench", len(settings) * options.runs, unit="runs") as advance:
        for setting in settings:
            metrics |= measure(contenders, setting, options, advance)
    for i in range(1, len(contenders)):
        metrics[f"{i}/speedup"] = median(metrics[f"{i}/{setting}/speedup"] for setting in settings)
    timed = ", ".join(type(contender.timed).__name__ for contender in contenders)
    gpu = {"gpu": torch.cuda.get_device_name()} if "cuda" in devices else {}
    done = record("bench", options, metrics, threads=str(used), padding="none", timed=timed, **gpu)
    keep_record(done, options.models)
    return done


def metric_names(models: int, settings: Sequence[BenchSetting]) -> list[str]:
    """Return the names of the metrics that a bench of some models returns."""
    measured = [f"{setting}/{name}" for setting in settings for name in MEASURED]
    speedups = ["speedup", *(f"{setting}/speedup" for setting in settings)]
    return [f"{i}/{name}" for i in range(models) for name in (*SIZES, *measured, *(speedups if i else ()))]


def available_devices(devices: Sequence[str]) -> list[str]:
    """Return the given devices, or all that exist if none is given.

    Raises DistilkitError if a given one does not exist.
    """
    for device in devices:
        if device == "cuda" and not torch.cuda.is_available():
            raise DistilkitError("--devices cuda: torch finds no CUDA device: remove cuda")
    return list(dict.fromkeys(devices)) or ["cpu", "cuda"][: 1 + torch.cuda.is_available()]


def open_contender(name: str) -> Contender:
    """Open a checkpoint with the head that its weights hold."""
    model = checkpoint.open_model(name)
    return Contender(
        name, model, model.base_model if checkpoint.head_of_model(model) in ("masked-lm", "encoder") else model
    )


def check_lengths(contender: Contender, lengths: Sequence[int]) -> None:
    """Raise DistilkitError for sequences longer than a model's positions."""
    positions = checkpoint.max_tokens(contender.model)
    if positions is not None and max(lengths) > positions:
        raise DistilkitError(
            f"--seq-lengths {max(lengths)} is longer than the {positions} positions of '{contender.name}': lower it"
        )
