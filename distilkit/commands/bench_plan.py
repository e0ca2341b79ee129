"""`bench --plan`: estimate what students of a teacher would cost to train and to run, before one exists."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.benchmark.comparison import compare, ratios_first
from distilkit.benchmark.contenders import require_compiler
from distilkit.benchmark.planner import open_shape, prune_shape, random_contender, student_shapes
from distilkit.benchmark.settings import available_devices, choose_settings, metric_names
from distilkit.benchmark.timing import cpu_threads
from distilkit.data.batches import Batches
from distilkit.data.blocks import SEQ_LENGTH
from distilkit.distillation.layer_matching import map_layers
from distilkit.distillation.presets import BY_KIND, WEIGHTS
from distilkit.distillation.text_objective import Distillation
from distilkit.encoders import checkpoint
from distilkit.encoders.sizes import shape_sizes
from distilkit.encoders.surgery import reinitialise
from distilkit.gates import check_gates, choose_largest
from distilkit.options.bench import BenchOptions
from distilkit.options.training import TrainOptions
from distilkit.record import BenchSetting, Record, record
from distilkit.training.devices import check_precision, temporary_directory
from distilkit.training.plan import measure_speed

TIMED_SECONDS = 6.0  # of training each student
MASKED = 0.15  # share of the tokens


def plan(options: BenchOptions) -> Record:
    """Measure a teacher and the students that `init` could make of it, all with random weights.

    Model 0 is the teacher, the others are its students in the order of --layers. `distill_seconds` is the time that
    `distill` would take for --tokens; `latency_ms` is the median latency in the first setting. `chosen` is the number
    of the largest student within --budget.
    Raises DistilkitError for students that the teacher cannot have, and for a limit that names no metric.
    """
    devices = available_devices(options.devices)
    check_precision(options.precision)
    if options.compile:
        require_compiler()
    teacher = open_shape(options.models[0])
    shapes = [prune_shape(model, options.vocabulary) for model in (teacher, *student_shapes(teacher, options))]
    sizes = [shape_sizes(model) for model in (teacher, *shapes[1:])]
    with cpu_threads(options.threads):
        names = [options.models[0], *(f"{size['layers']:.0f} layers" for size in sizes[1:])]
        contenders = [random_contender(name, shape, options) for name, shape in zip(names, shapes, strict=True)]
        settings = choose_settings(options, contenders, devices)
        check_names(options, sizes, settings)
        measured = compare(contenders, settings, options)
        del contenders
        speeds = [distill_speed(shapes[0], student, options) for student in shapes[1:]]
    counted = {f"{i}/{name}": value for i, size in enumerate(sizes) for name, value in size.items()}
    for i in range(len(shapes)):
        counted[f"{i}/latency_ms"] = measured.metrics[f"{i}/{settings[0]}/latency_ms_p50"]
    for i, speed in enumerate(speeds, 1):
        counted |= {f"{i}/distill_tokens_per_second": speed, f"{i}/distill_seconds": options.tokens / speed}
    metrics = ratios_first(measured.metrics, counted)
    if options.budget and (chosen := choose_largest(options.budget, metrics)):
        metrics["chosen"] = float(chosen)
    return record("bench", options, metrics, **measured.environment)


def check_names(options: BenchOptions, sizes: Sequence[dict[str, float]], settings: Sequence[BenchSetting]) -> None:
    """Raise DistilkitError for a gate or a limit that names none of the metrics that a plan may return."""
    counted = [f"{i}/{name}" for i, size in enumerate(sizes) for name in (*size, "latency_ms")]
    training = [
        f"{i}/{name}" for i in range(1, len(sizes)) for name in ("distill_tokens_per_second", "distill_seconds")
    ]
    names = [*metric_names(len(sizes), settings), *counted, *training]
    check_gates(options.require, names)
    of_students = dict.fromkeys(name.removeprefix("1/") for name in names if name.startswith("1/"))
    check_gates(options.budget, of_students, "--budget")


def distill_speed(teacher: PreTrainedModel, student: PreTrainedModel, options: BenchOptions) -> float:
    """Return the tokens per second of `distill` with its defaults, from a few updates on random tokens.

    For a masked-LM head, the loss is distill's default. For any other checkpoint, it is the loss on hidden states: this
    costs about as much as the checkpoint's own objective, because most of the time goes into the encoders.
    """
    ours, theirs = (reinitialise(shape, options.seed).float() for shape in (student, teacher))
    default, _ = BY_KIND[checkpoint.head_of_model(student)]
    weights = WEIGHTS[default if default == "triple" else "hidden"]
    objective = Distillation(ours, theirs, weights, layer_map=map_layers(None, ours, theirs))
    settings = TrainOptions(precision=options.precision, seed=options.seed)
    batches = random_batches(ours, settings)
    label = f"distill, {student.config.num_hidden_layers} layers"
    with temporary_directory() as out:
        return measure_speed(objective, batches, settings, out, seconds=TIMED_SECONDS, label=label)


def random_batches(model: PreTrainedModel, options: TrainOptions) -> Batches:
    """Return batches of blocks of random tokens, as `distill` packs and masks them."""
    length = min(SEQ_LENGTH, checkpoint.max_tokens(model) or SEQ_LENGTH)
    generator = torch.Generator().manual_seed(options.seed)
    rows = torch.randint(model.config.vocab_size, (options.batch_size, length), generator=generator)
    masked = torch.rand(rows.shape, generator=generator) < MASKED

    def collate(chosen: list[dict[str, Tensor]], _: list[torch.Generator]) -> dict[str, Tensor]:
        return {name: torch.stack([row[name] for row in chosen]) for name in chosen[0]}

    labels = rows.where(masked, -100)
    pairs = [{"input_ids": ids, "labels": label} for ids, label in zip(rows, labels, strict=True)]
    return Batches(pairs, collate, batch_size=options.batch_size, seed=options.seed)
