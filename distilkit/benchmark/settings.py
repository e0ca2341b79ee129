"""The settings of a comparison: devices, batch sizes and lengths; and the names of the metrics measured in them."""

from collections.abc import Sequence
from itertools import product

import torch

from distilkit.benchmark.contenders import Contender
from distilkit.benchmark.inputs import Texts
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.record import BenchSetting
from distilkit.runtimes.exported import RuntimeModel

SIZES = (
    *("parameters", "encoder_parameters", "parameters_embeddings", "parameters_layers", "parameters_head"),
    *("parameters_other", "bytes", "weights_memory_bytes", "load_seconds", "process_peak_bytes"),
)
MEASURED = (  # from measure()
    *("latency_ms_p50", "latency_ms_p95", "latency_ms_p99", "throughput_sequences_per_second", "tokens_per_second"),
    *("peak_memory_bytes", "energy_joules_per_1000"),
)


def available_devices(devices: Sequence[str]) -> list[str]:
    """Return the given devices, or all that exist if none is given.

    Raises DistilkitError if a given one does not exist.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for device in devices:
        if not present[device]:
            raise DistilkitError(f"--devices {device}: torch finds no {device.upper()} device: remove {device}")
    return list(dict.fromkeys(devices)) or [device for device in present if present[device]]


def choose_settings(
    options: BenchOptions, contenders: Sequence[Contender], devices: Sequence[str], texts: Texts = ()
) -> list[BenchSetting]:
    """Return the settings to measure in.

    Raises DistilkitError for a length that a model does not take, and for a device that a runtime does not use.
    """
    if any(isinstance(contender.timed, RuntimeModel) for contender in contenders):
        if given := [device for device in options.devices if device != "cpu"]:
            raise DistilkitError(f"--devices {given[0]} is for checkpoints in torch: remove it, or the exports")
        devices = ["cpu"]
    lengths = (0,) if texts else options.seq_lengths
    for contender in contenders:
        check_lengths(contender, lengths)
    return [BenchSetting(*each) for each in product(devices, [options.precision], options.batch_sizes, lengths)]


def check_lengths(contender: Contender, lengths: Sequence[int]) -> None:
    """Raise DistilkitError for sequences longer than a model's positions."""
    positions = checkpoint.max_tokens(contender.model)
    if positions is not None and max(lengths) > positions:
        raise DistilkitError(
            f"--seq-lengths {max(lengths)} is longer than the {positions} positions of '{contender.name}': lower it"
        )


def metric_names(models: int, settings: Sequence[BenchSetting]) -> list[str]:
    """Return the names of the metrics that a bench of some models may return."""
    measured = [f"{setting}/{name}" for setting in settings for name in MEASURED]
    ratios = [f"{setting}/speedup{end}" for setting in settings for end in ("", "/low", "/high")]
    return [f"{i}/{name}" for i in range(models) for name in (*SIZES, *measured, *(["speedup", *ratios] if i else ()))]
