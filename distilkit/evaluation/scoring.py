"""Score a checkpoint on tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint
from distilkit.evaluation.predictions import Predictions, SpanPredictions, predict, read_span_predictions
from distilkit.evaluation.retention import Result
from distilkit.files import is_exported
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.progress import is_first_process, warn
from distilkit.record import COLLAPSED, MetricName
from distilkit.runtimes.exported import open_model
from distilkit.tasks import encoding, labels
from distilkit.tasks.catalogue import HEADS, Task, averages, with_training_settings
from distilkit.tasks.rows import read_tests, read_validation


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

    Prediction files are written to the directory `out`, if given. The settings of the training are those of `trained`,
    if given, instead of the checkpoint's.
    """
    predictions: dict[str, Predictions] = {}
    scores: dict[str, float] = {}
    for task in chosen:
        path = name if len(chosen) == 1 else f"{name}/{task.name}"
        data = options.data / task.name if options.data and len(chosen) > 1 else options.data
        model = open_model(path, HEADS[task.kind])
        tokenizer = checkpoint.open_tokenizer(path, None if is_exported(path) else model)
        labelled = labels.labels_from_model(task, model.config, options.kind) if task.name == "custom" else task
        order = labels.label_order(labelled, model.config, path)
        splits = read_validation(labelled, data)
        tests = read_tests(task, data) if out else {}
        used = with_training_settings(task, options, trained or path)
        encoding.warn_if_shortened(task, used, encoding.window_length(task, used, model))
        found = {
            prefix: predict(model, tokenizer, labelled, rows, used, order=order, name=path)
            for prefix, rows in splits.items()
        }
        predictions, scores = predictions | found, scores | metrics_of(found)
        if f"{task.name}/{COLLAPSED}" in scores:
            warn(f"'{path}' predicts the same label for every row of {task.name}")
        if out and is_first_process():
            write_predictions(out, labelled, found)
        for file, rows in tests.items():
            predicted = predict(model, tokenizer, labelled, rows, used, order=order, name=path)
            numbers = rows["idx"][:] if "idx" in rows.column_names else range(len(rows))
            if out and not isinstance(predicted, SpanPredictions) and is_first_process():
                predicted.write(out, file, numbers)
    scores = {metric: value for metric, value in scores.items() if MetricName.parse(metric).metric != COLLAPSED}
    return Result(predictions, scores | averages(scores, chosen))


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
    options: EvalOptions | FinetuneOptions,
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
            prefix: predict(model, tokenizer, task, rows, options, order=order, name=name)
            for prefix, rows in splits.items()
        }
    )


def metrics_of(predictions: Mapping[str, Predictions]) -> dict[str, float]:
    """Return the metrics of each split's predictions, with the split's prefix."""
    return {f"{prefix}/{name}": value for prefix, found in predictions.items() for name, value in found.score().items()}


def headline_metric(task: Task) -> str:
    """Return the name of a task's headline metric."""
    return f"{task.name}/{task.metrics[0]}"
