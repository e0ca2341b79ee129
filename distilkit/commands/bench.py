"""`bench`: measure size, speed and memory of models, in alternation so that drift cancels."""

from contextlib import ExitStack, nullcontext
from dataclasses import replace

from distilkit.benchmark.comparison import compare, ratios_first
from distilkit.benchmark.contenders import Contender, open_contenders
from distilkit.benchmark.inputs import read_texts
from distilkit.benchmark.settings import available_devices, choose_settings, metric_names
from distilkit.benchmark.timing import cpu_threads
from distilkit.claims import claim
from distilkit.commands.bench_plan import plan
from distilkit.gates import check_gates
from distilkit.options.bench import BenchOptions
from distilkit.record import Record, keep_record, record, write_biography
from distilkit.reporting.bench_plots import draw_bench
from distilkit.reporting.plots import save
from distilkit.runtimes.loading import measure_loading


def bench(options: BenchOptions) -> Record:
    """Measure models side by side, or with --plan students before they exist; with -o, write the record and plots."""
    with claim(options.output) if options.output else nullcontext() as out:
        done = plan(options) if options.plan else measure_models(options)
        if out:
            for plot in draw_bench(done):
                save(plot, out)
            write_biography(out, [done])
    if not options.plan:
        keep_record(done, options.models)
    return done


def measure_models(options: BenchOptions) -> Record:
    """Measure parameters, size, latency, throughput, memory and speed-up of models, side by side.

    A classifier or question-answering model is timed as a whole. Any other checkpoint is timed as its encoder, because
    a masked-LM head is used in pre-training only; an export is timed as it is. The input is random token ids without
    padding, or the rows of --task or --data. Speed-ups are relative to the first model (see measure()). The overall
    speed-up is the median over settings. With several --runtimes, the record names models `MODEL [RUNTIME]`.
    Raises DistilkitError if a device is absent, or if --seq-lengths exceed a model's positions.
    """
    devices = available_devices(options.devices)
    texts = read_texts(options) if options.task or options.data else []
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(options.threads))
        contenders = list(open_contenders(options, stack))
        settings = choose_settings(options, contenders, devices, texts)
        check_gates(options.require, metric_names(len(contenders), settings))
        sizes = {f"{i}/{name}": size for i, one in enumerate(contenders) for name, size in costs(one, options).items()}
        measured = compare(contenders, settings, options, texts)
    named = replace(options, models=tuple(contender.name for contender in contenders))
    return record("bench", named, ratios_first(measured.metrics, sizes), **measured.environment)


def costs(contender: Contender, options: BenchOptions) -> dict[str, float]:
    """Return a model's sizes and, with --load, the time and memory of loading it (in torch: if its files are local)."""
    loaded: dict[str, float] = {}
    if options.load and contender.files:
        loaded = measure_loading(contender.files, exported=True)
    elif options.load and contender.in_torch and not options.random_weights:
        loaded = measure_loading(contender.source, exported=False)
    return contender.sizes() | loaded
