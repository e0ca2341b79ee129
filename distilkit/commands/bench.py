"""`bench`: measure size and speed of checkpoints, interleaved so that drift cancels."""

from collections.abc import Sequence
from itertools import product
from statistics import median

import torch

from distilkit.benchmark.timing import Contender, cpu_threads, measure
from distilkit.encoders import checkpoint
from distilkit.encoders.sizes import model_sizes
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.progress import track
from distilkit.record import BenchSetting, Record, record
from distilkit.training.devices import DTYPES

DEVICES = ("cpu", "cuda")


def bench(config: BenchOptions) -> Record:
    """Measure parameters, size, latency, throughput, memory and speed-up of checkpoints, side by side.

    A classifier or question-answering model is timed as a whole. Any other checkpoint is timed as its encoder, because
    a vocabulary head serves pre-training only. The input is random token ids without padding. Speed-ups are relative to
    the first model: per setting the median ratio over runs, overall the median over settings. For memory see
    peak_memory().
    Raises DistilkitError for an absent device, and for lengths beyond a model's positions.
    """
    devices = present(config.devices)
    contenders = [contend(name) for name in config.models]
    for contender in contenders:
        check_lengths(contender, config.seq_lengths)
    metrics = {
        f"{i}/{name}": size
        for i, entry in enumerate(contenders)
        for name, size in model_sizes(entry.model, entry.name).items()
    }
    options = product(devices, [config.precision], config.batch_sizes, config.seq_lengths)
    settings = [BenchSetting(*values) for values in options]
    for contender in contenders:
        contender.timed.to(DTYPES[config.precision])
    with cpu_threads(config.threads) as used, track("bench", len(settings) * config.runs, unit="runs") as advance:
        for setting in settings:
            metrics |= measure(contenders, setting, config, advance)
    for i in range(1, len(contenders)):
        metrics[f"{i}/speedup"] = median(metrics[f"{i}/{setting}/speedup"] for setting in settings)
    timed = ", ".join(type(contender.timed).__name__ for contender in contenders)
    gpu = {"gpu": torch.cuda.get_device_name()} if "cuda" in devices else {}
    return record("bench", config, metrics, threads=str(used), padding="none", timed=timed, **gpu)


def present(devices: Sequence[str]) -> list[str]:
    """Return the devices to run on: the given ones, or all that exist.

    Raises DistilkitError if one is absent.
    """
    for device in devices:
        if device == "cuda" and not torch.cuda.is_available():
            raise DistilkitError("--devices cuda: torch finds no CUDA device: remove it")
    return list(dict.fromkeys(devices)) or ["cpu", "cuda"][: 1 + torch.cuda.is_available()]


def contend(name: str) -> Contender:
    """Open a checkpoint with the head that its config names."""
    head = checkpoint.head_of(checkpoint.open_config(name))
    model = checkpoint.open_model(name, head)
    return Contender(name, model, model.base_model if head in ("masked-lm", "encoder") else model)


def check_lengths(contender: Contender, lengths: Sequence[int]) -> None:
    """Raise DistilkitError for sequences longer than a model's positions."""
    positions = checkpoint.max_tokens(contender.model)
    if positions is not None and max(lengths) > positions:
        raise DistilkitError(
            f"--seq-lengths {max(lengths)} is longer than the {positions} positions of '{contender.name}': lower it"
        )
