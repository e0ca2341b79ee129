"""Score a checkpoint on tasks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.class_scores import note_numbered
from distilkit.encoders import checkpoint
from distilkit.evaluation.agreement import AGREEMENT_METRICS
from distilkit.evaluation.metrics import CLASS_METRICS, entity_types
from distilkit.evaluation.predictions import Predictions, SpanPredictions, predict, read_span_predictions
from distilkit.evaluation.retention import Result
from distilkit.evaluation.tags import TagPredictions
from distilkit.files import is_exported
from distilkit.gates import gate_words
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.progress import is_first_process, warn
from distilkit.record import COLLAPSED
from distilkit.runtimes.exported import open_model
from distilkit.tasks import encoding, labels, tagging
from distilkit.tasks.catalogue import (
    HEADS,
    METRICS,
    MORE_METRICS,
    WORD_METRICS,
    Task,
    averages,
    glue_average_tasks,
)
from distilkit.tasks.rows import hash_rows, read_tests, read_validation
from distilkit.tasks.settings import TaskSettings, with_training_settings


def score_file(task: Task, options: EvalOptions) -> dict[str, float]:
    """Score a prediction file without a model."""
    rows = read_validation(task, options.data)[task.name]
    golds = {row["id"]: row["answers"]["text"] for row in rows.select_columns(["id", "answers"])}
    predictions = read_span_predictions(
        task, golds, Path(str(options.predictions)), options.null_odds, options.null_threshold
    )
    if missing := len(golds.keys() - predictions.texts.keys()):
        warn(f"'{options.predictions}' lacks {missing} of {len(golds)} questions: they count as wrong")
    return {f"{task.name}/{name}": value for name, value in predictions.score().items() if name != COLLAPSED}


def score_checkpoint(
    name: str, chosen: Sequence[Task], options: EvalOptions, out: Path | None = None, trained: str | None = None
) -> Result:
    """Score a checkpoint on a task. For several tasks, score the directories name/<task> and compute averages.

    Prediction files are written to the directory `out`, if given. The task settings are those with which the model was
    trained, read from `trained` if it is given and from the checkpoint otherwise.
    """
    predictions: dict[str, Predictions] = {}
    scores: dict[str, float] = {}
    hashes: dict[str, str] = {}
    for task in chosen:
        path, data = places(name, task, chosen, options)
        model, tokenizer, labelled, order, used = open_for_task(path, task, options, trained)
        splits = read_validation(labelled, data)
        tests = read_tests(task, data) if out else {}
        encoding.warn_if_shortened(used, encoding.window_length(used, model))
        found = {
            prefix: predict(model, tokenizer, labelled, rows, used, order=order, name=path)
            for prefix, rows in splits.items()
        }
        hashes |= {prefix: hash_rows(rows, labelled) for prefix, rows in splits.items()}
        predictions, scores = predictions | found, scores | metrics_of(found)
        if f"{task.name}/{COLLAPSED}" in scores:
            warn(f"'{path}' predicts the same label for every row of {task.title}")
        for each in found.values():
            if isinstance(each, TagPredictions):
                tagging.warn_if_lost(each.predicted, task.title, tagging.SCORED)
        if out and is_first_process():
            write_predictions(out, labelled, found)
        for file, rows in tests.items():
            predicted = predict(model, tokenizer, labelled, rows, used, order=order, name=path)
            numbers = rows["idx"][:] if "idx" in rows.column_names else range(len(rows))
            if out and not isinstance(predicted, SpanPredictions) and is_first_process():
                predicted.write(out, file, numbers)
    return Result(predictions, scores | averages(scores, chosen), hashes)


def metric_names(
    chosen: Sequence[Task], models: Sequence[str], baselines: Sequence[str], options: EvalOptions
) -> list[str]:
    """Return the names of all metrics that an eval can return, to check gates before the work; some may be missing.

    `models` and `baselines` are prefixes of metric names.
    """
    scores = score_names(chosen)
    compared = [
        *(prefix for task in chosen for prefix, _ in task.splits),
        *(name.replace("/average", "") for name in scores),
    ]
    others = [*(["teacher"] if options.against else []), *baselines]
    ours = [
        *scores,
        *(AGREEMENT_METRICS if options.agreement else ()),
        *(f"retention/{name}" for name in compared if options.against),
    ]
    ours += [f"difference/{name}/{other}" for name in compared for other in others]
    names = [prefix + name for prefix in models or [""] for name in ours]
    names += [f"{other}/{name}" for other in others for name in scores]
    names += [f"{other}/retention/{name}" for other in baselines for name in compared]
    return names + [f"{name}/{end}" for name in names for end in ("low", "high")]


def score_names(chosen: Sequence[Task]) -> list[str]:
    """Return the names of the scores of some tasks, and of their averages."""
    prefixes = [(prefix, task) for task in chosen for prefix, _ in task.splits]
    scores = [f"{prefix}/{metric}" for prefix, task in prefixes for metric in possible_metrics(task)]
    return [*scores, *glue_average_tasks(chosen)]


def possible_metrics(task: Task) -> Iterable[str]:
    """Return the metrics that a task can have; for a custom task, those of every kind of labels."""
    if task.name == "custom":
        known = (*METRICS.values(), WORD_METRICS, *MORE_METRICS.values())
        return dict.fromkeys(metric for metrics in known for metric in metrics)
    if task.name != "squad_v2":
        return task.metrics
    parts = [f"{part}_{metric}" for part in ("has_answer", "no_answer", "best") for metric in task.metrics]
    return (*task.metrics, *parts, *(f"best_{metric}_threshold" for metric in task.metrics))


def is_by_class(gate: str, options: EvalOptions | FinetuneOptions) -> bool:
    """Return whether a gate may be on a metric of one class or type of entity: their names depend on the rows."""
    words = gate_words(gate)
    return options.task == "custom" and len(words) > 1 and bool({*CLASS_METRICS, "confusion", "accuracy"} & words)


def scored_classes(task: Task) -> Sequence[str]:
    """Return the classes or types of entity that have scores of their own: those of a custom task."""
    if task.name != "custom" or task.kind != "tokens":
        return task.labels if task.name == "custom" else ()
    return entity_types(task.labels) if labels.marks_entities(task.labels) else ()


def check_checkpoints(names: Sequence[str], chosen: Sequence[Task], options: EvalOptions) -> None:
    """Open every checkpoint for every task, and all rows of several tasks, before the first one is scored.

    Raises DistilkitError as score_checkpoint() does.
    """
    for task in chosen:
        for name in names:
            path, data = places(name, task, chosen, options)
            opened = open_for_task(path, task, options)
            if len(chosen) > 1 and name == names[0]:
                read_validation(opened.task, data)


def places(name: str, task: Task, chosen: Sequence[Task], options: EvalOptions) -> tuple[str, Path | None]:
    """Return the places of a checkpoint and of a task's rows. With several tasks, each task has its own folder."""
    if len(chosen) == 1:
        return name, options.data
    return f"{name}/{task.name}", options.data / task.name if options.data else None


class Opened(NamedTuple):
    """A checkpoint that is open for a task."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task  # with the checkpoint's labels, if it is a custom one
    order: list[int]  # the model's output for each of these labels
    settings: TaskSettings  # those of its training, where no others are given


def open_for_task(path: str, task: Task, options: EvalOptions, trained: str | None = None) -> Opened:
    """Open a checkpoint or an exported model and check that it fits a task.

    The task settings are read from the training record of `trained` if it is given, else from the checkpoint's.
    """
    labelled = task
    if task.name == "custom":
        labelled = labels.labels_from_model(task, checkpoint.open_config(path), options.kind)
    note_numbered(scored_classes(labelled))
    model = open_model(path, HEADS[labelled.kind])
    tokenizer = checkpoint.open_tokenizer(path, None if is_exported(path) else model, needs=["pad"])
    order = labels.label_order(labelled, model.config, path)
    return Opened(model, tokenizer, labelled, order, with_training_settings(labelled, options, trained or path))


def write_predictions(out: Path, task: Task, predictions: Mapping[str, Predictions]) -> None:
    """Write the predictions for the scored rows. GLUE tasks write none here: their files are for the test rows."""
    for prefix, found in predictions.items():
        if isinstance(found, SpanPredictions):
            found.write(out)
        elif not task.tests:
            found.write(out, prefix, range(len(found.predicted)))


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    splits: dict[str, Dataset],
    settings: TaskSettings,
    *,
    order: list[int] | None = None,
    name: str = "the model",
) -> dict[str, float]:
    """Score a model on splits of a task, {metric prefix: rows}; return for example {"mnli/accuracy": 0.8}.

    SQuAD's metrics are from 0 to 100. `{prefix}/collapsed` is 1.0 if the predictions of a split are the same for every
    row although the labels are not, and absent otherwise. For the arguments and errors see predict().
    """
    return metrics_of(
        {
            prefix: predict(model, tokenizer, task, rows, settings, order=order, name=name)
            for prefix, rows in splits.items()
        }
    )


def metrics_of(predictions: Mapping[str, Predictions]) -> dict[str, float]:
    """Return the metrics of each split's predictions, with the split's prefix."""
    return {f"{prefix}/{name}": value for prefix, found in predictions.items() for name, value in found.score().items()}


def headline_metric(task: Task) -> str:
    """Return the name of a task's headline metric."""
    return f"{task.name}/{task.metrics[0]}"
