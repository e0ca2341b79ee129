"""`bench`: measure size, speed and memory of models, in alternation so that drift cancels."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from statistics import median

import torch

from distilkit.benchmark.contenders import Contender, open_contenders
from distilkit.benchmark.inputs import Texts, read_texts
from distilkit.benchmark.timing import OtherProcesses, cpu_threads, measure
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.gates import check_gates
from distilkit.options.bench import BenchOptions
from distilkit.progress import track, warn
from distilkit.record import BenchSetting, Record, keep_record, record
from distilkit.runtimes.exported import RuntimeModel
from distilkit.runtimes.loading import measure_loading

SIZES = (  # from costs()
    *("parameters", "encoder_parameters", "parameters_embeddings", "parameters_layers", "parameters_head"),
    *("parameters_other", "bytes", "load_seconds", "process_peak_bytes"),
)
MEASURED = (  # from measure()
    *("latency_ms_p50", "latency_ms_p95", "latency_ms_p99", "throughput_sequences_per_second", "tokens_per_second"),
    "peak_memory_bytes",
)
BUSY = 0.1  # share of the CPU time; if other processes use more, it is worth a warning


def bench(options: BenchOptions) -> Record:
    """Measure parameters, size, latency, throughput, memory and speed-up of models, side by side.

    A classifier or question-answering model is timed as a whole. Any other checkpoint is timed as its encoder, because
    a masked-LM head is used in pre-training only; an export is timed as it is. The input is random token ids without
    padding, or the rows of --task or --data. Speed-ups are relative to the first model: see measure(), overall the
    median over settings. With several --runtimes, the models in the record are named `MODEL [RUNTIME]`.
    Raises DistilkitError if a device is absent, or if --seq-lengths exceed a model's positions.
    """
    devices = available_devices(options.devices)
    texts = read_texts(options) if options.task or options.data else []
    with ExitStack() as stack:
        used = stack.enter_context(cpu_threads(options.threads))
        contenders = list(open_contenders(options, stack))
        settings = choose_settings(options, contenders, devices, texts)
        check_gates(options.require, metric_names(len(contenders), settings))
        sizes = {f"{i}/{name}": size for i, one in enumerate(contenders) for name, size in costs(one, options).items()}
        others = OtherProcesses()
        measured = measure_all(contenders, settings, options, texts)
        busy = others.share()
    if busy > BUSY:
        warn(f"other processes used {busy:.0%} of the CPU time: trust the ratios more than the times")
    overall = {
        f"{i}/speedup": median(measured[f"{i}/{setting}/speedup"] for setting in settings)
        for i in range(1, len(contenders))
    }
    ratios = {name: value for name, value in measured.items() if "/speedup" in name}
    environment = {
        "threads": str(used),
        "padding": "to the longest text of a batch" if texts else "none",
        "timed": ", ".join(type(contender.timed).__name__ for contender in contenders),
        "other_processes": f"{busy:.0%} of the CPU time",
    } | ({"gpu": torch.cuda.get_device_name()} if settings[-1].device == "cuda" else {})
    named = replace(options, models=tuple(contender.name for contender in contenders))
    done = record("bench", named, overall | ratios | sizes | measured, **environment)
    keep_record(done, options.models)
    return done


def metric_names(models: int, settings: Sequence[BenchSetting]) -> list[str]:
    """Return the names of the metrics that a bench of some models may return."""
    measured = [f"{setting}/{name}" for setting in settings for name in MEASURED]
    ratios = [f"{setting}/speedup{end}" for setting in settings for end in ("", "/low", "/high")]
    return [f"{i}/{name}" for i in range(models) for name in (*SIZES, *measured, *(["speedup", *ratios] if i else ()))]


def available_devices(devices: Sequence[str]) -> list[str]:
    """Return the given devices, or all that exist if none is given.

    Raises DistilkitError if a given one does not exist.
    """
    for device in devices:
        if device == "cuda" and not torch.cuda.is_available():
            raise DistilkitError("--devices cuda: torch finds no CUDA device: remove cuda")
    return list(dict.fromkeys(devices)) or ["cpu", "cuda"][: 1 + torch.cuda.is_available()]


def choose_settings(
    options: BenchOptions, contenders: Sequence[Contender], devices: Sequence[str], texts: Texts
) -> list[BenchSetting]:
    """Return the settings to measure in.

    Raises DistilkitError for a length that a model does not take, and for a device that a runtime does not use.
    """
    if any(isinstance(contender.timed, RuntimeModel) for contender in contenders):
        if "cuda" in options.devices:
            raise DistilkitError("--devices cuda is for checkpoints in torch: remove cuda, or the exports")
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


def costs(contender: Contender, options: BenchOptions) -> dict[str, float]:
    """Return a model's sizes and, with --load, what it takes to load it; in torch that needs weights in a file."""
    loaded: dict[str, float] = {}
    if options.load and contender.files:
        loaded = measure_loading(contender.files, exported=True)
    elif options.load and contender.in_torch and not options.random_weights:
        loaded = measure_loading(contender.source, exported=False)
    return contender.sizes() | loaded


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
