"""`eval`: score checkpoints on a task; compare them with a teacher and baselines, with confidence intervals."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from pathlib import Path

from distilkit.claims import claim_files
from distilkit.data.own_rows import with_recorded_task
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.evaluation.agreement import SLICE_WORDS, check_files, measure_agreement
from distilkit.evaluation.baseline import check_baseline, check_common, mark_rows, named_marks, read_earlier
from distilkit.evaluation.embeddings import EmbeddingScorer
from distilkit.evaluation.retention import TEACHER, Result, compare
from distilkit.evaluation.scoring import check_checkpoints, is_by_class, metric_names, score_checkpoint, score_file
from distilkit.gates import BASELINE, check_gates, gate_words
from distilkit.next_command import relative
from distilkit.options.evaluate import EvalOptions
from distilkit.options.spec import flag
from distilkit.progress import say, warn
from distilkit.record import (
    Record,
    baselines_by_prefix,
    given_json,
    keep_record,
    read_biography,
    record,
)
from distilkit.tasks import labels
from distilkit.tasks.catalogue import Task, glue_average_tasks, resolve
from distilkit.tasks.rows import SPLIT_ROWS, fingerprint, tasks_scored_on_test
from distilkit.training.devices import device, is_main_process


def evaluate(options: EvalOptions) -> Record:
    """Score checkpoints; save the record next to each checkpoint that distilkit made; --baseline adds its metrics."""
    earlier = read_earlier(options.baseline) if options.baseline else None
    given, options = options, with_task(options)
    if found := found_options(given, options):
        say(f"scored on: {found}")
    done = replace(measure(options, earlier), given=given_json(given))
    if earlier:
        check_common(earlier, done.metrics, options)
        before = {BASELINE + name: earlier.metrics[name] for name in done.metrics if name in earlier.metrics}
        done = replace(done, metrics=done.metrics | before)
    if is_main_process():
        keep_record(done, options.models)
    return done


def with_task(options: EvalOptions) -> EvalOptions:
    """Return the options with the task, rows and columns of the first model where they are needed and not given."""
    if not options.models or (options.agreement and not options.task):
        return options
    return with_recorded_task(options, options.models[0])


def found_options(given: EvalOptions, options: EvalOptions) -> str:
    """Return, as typed, the options that were found in the model's record or guessed from the rows."""
    found = {item.name: getattr(options, item.name) for item in fields(options)}
    return " ".join(
        f"{flag(name)} {','.join(value) if isinstance(value, tuple) else relative(str(value))}"
        for name, value in found.items()
        if value != getattr(given, name)
    )


def warn_if_rows_changed(names: Iterable[str], task: Task, options: EvalOptions) -> None:
    """Warn if the file of rows has changed since a model was trained: held-out rows may be among its training rows."""
    now = fingerprint(task, options.data).get(SPLIT_ROWS)
    for name in names:
        then = [done.environment[SPLIT_ROWS] for done in read_biography(name) if SPLIT_ROWS in done.environment]
        if now and then and then[-1] != now:
            warn(
                f"'{options.data}' has changed since '{name}' was trained: the model may have seen rows that it is "
                "scored on"
            )


def measure(options: EvalOptions, earlier: Record | None = None) -> Record:
    """Score every checkpoint and compare it with --against and --control; or score a SQuAD prediction file.

    With --agreement, also compare it with its teacher on text without labels (agreement.measure_agreement). --task is
    then optional. With several checkpoints, metric names start with the position of the checkpoint. Metrics of the
    teacher and the baselines start with `teacher/` and `control/`. A record of an `earlier` eval is only checked.
    """
    chosen = resolve(options) if options.task or not options.agreement else []
    models, baselines = models_by_prefix(options.models), baselines_by_prefix(options.control)
    others = {TEACHER: options.against} if options.against else {}
    names = models | others | {f"{prefix}/": name for prefix, name in baselines.items()}
    gates = [gate for gate in options.require if not depends_on_rows(gate, options)]
    possible = metric_names(chosen, list(models), list(baselines), options)
    check_gates(gates, possible)
    if chosen and not options.predictions:
        check_comparable(list(dict.fromkeys(names.values())), chosen, options)
    if chosen:
        warn_if_rows_changed(dict.fromkeys(names.values()), chosen[0], options)
    with claim_outputs(options, chosen):
        embeddings = EmbeddingScorer(chosen[0], options) if chosen and chosen[0].zero_shot else None
        marks: dict[str, str] = {}
        if earlier or options.agreement or options.predictions:
            marks = mark_rows(chosen, options, embeddings)
        if earlier:
            check_baseline(earlier, possible, marks, options)
        agreement = measure_agreement(options) if options.agreement else {}
        if not chosen:
            return record("eval", options, agreement, device=str(device()), **marks)
        if options.predictions:
            return record("eval", options, score_file(chosen[0], options), **marks)
        about = {name: " ".join(tasks) for name, tasks in glue_average_tasks(chosen).items()}
        about |= tasks_scored_on_test(chosen, options.data)
        results = score_each(names, models, chosen, options, embeddings)
        about |= marks | named_marks(next(iter(results.values())).rows)
    scores = {prefix + name: value for prefix, result in results.items() for name, value in result.scores.items()}
    if options.against:
        scores |= compare(results, chosen, options.seed, [*models], [f"{prefix}/" for prefix in baselines])
    return record("eval", options, scores | agreement, device=str(device()), **about)


def depends_on_rows(gate: str, options: EvalOptions) -> bool:
    """Return whether a gate may name a metric of a class, an entity type or a slice, which depends on the data."""
    words = gate_words(gate)
    return is_by_class(gate, options) or bool(options.agreement and SLICE_WORDS & words)


def models_by_prefix(models: Sequence[str]) -> dict[str, str]:
    """Return the models to score by the prefix of their metrics: their position, or nothing for a single model."""
    return {f"{i}/" if len(models) > 1 else "": name for i, name in enumerate(models)}


def check_comparable(names: Sequence[str], chosen: Sequence[Task], options: EvalOptions) -> None:
    """Raise DistilkitError if a model cannot be scored, or if scores would not be comparable with each other."""
    if len(chosen) > 1:
        for name in names:
            check_directories(name, chosen)
    if chosen[0].name == "custom":
        check_kinds(names, chosen[0], options)
    if len(names) * len(chosen) > 1 and not chosen[0].zero_shot:  # one model alone is checked when it is scored
        check_checkpoints(names, chosen, options)


def check_directories(name: str, chosen: Sequence[Task]) -> None:
    """Raise DistilkitError if a directory lacks some tasks, because averages over different tasks do not compare."""
    lacking = [task.name for task in chosen if not (Path(name) / task.name).is_dir()]
    if Path(name).is_dir() and lacking:
        raise DistilkitError(
            f"'{name}' has no model for {', '.join(lacking)}, so its average would not be comparable: "
            "fine-tune it on all tasks, or score single tasks"
        )


def check_kinds(names: Sequence[str], task: Task, options: EvalOptions) -> None:
    """Raise DistilkitError if models of a custom task were trained for different label types."""
    kinds = {name: labels.labels_from_model(task, checkpoint.open_config(name), options.kind).kind for name in names}
    for name in names:
        if kinds[name] != kinds[names[0]]:
            both = f"'{names[0]}' was trained for {kinds[names[0]]}, but '{name}' was trained for {kinds[name]}"
            raise DistilkitError(f"{both}: give models of one label type, or give --kind")


def claim_outputs(options: EvalOptions, chosen: Sequence[Task]) -> AbstractContextManager[None]:
    """Lock the files that an eval writes; see claim_files().

    Raises DistilkitError if --examples or --plot cannot be written.
    """
    check_files(options)
    files = {path: flag for flag, path in (("--examples", options.examples), ("--plot", options.plot)) if path}
    if options.write_predictions:
        names = [file for task in chosen for file in task.files]
        files |= {options.write_predictions / file: "--write-predictions" for file in names}
    return claim_files(files) if is_main_process() else nullcontext()


def score_each(
    names: dict[str, str],
    models: dict[str, str],
    chosen: Sequence[Task],
    options: EvalOptions,
    embeddings: EmbeddingScorer | None,
) -> dict[str, Result]:
    """Score each checkpoint once, even if it is also the teacher or a baseline; return the results by prefix.

    `embeddings` scores sentence encoders, None other models. Only the `models` among them write prediction files.
    """
    scored: dict[str, Result] = {}
    for prefix, name in names.items():
        if name not in scored:
            out = options.write_predictions if prefix in models else None
            scored[name] = embeddings.score(name, out) if embeddings else score_checkpoint(name, chosen, options, out)
    return {prefix: scored[name] for prefix, name in names.items()}
