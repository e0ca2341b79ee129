"""`eval`: score checkpoints on a task, and say how much of a teacher's score they keep."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit import checkpoint, metrics, squad, task_data, tasks
from distilkit.agreement import agree
from distilkit.config import EvalConfig, FinetuneConfig
from distilkit.errors import DistilkitError
from distilkit.progress import track
from distilkit.record import Record, record
from distilkit.tasks import Task

HEADS: dict[str, checkpoint.Head] = {
    "classification": "sequence-classification",
    "regression": "sequence-classification",
    "span": "question-answering",
}


def evaluate(config: EvalConfig) -> Record:
    """Score every checkpoint, or compare it with its teacher on plain text (agreement.agree), or both.

    With several checkpoints, a metric's name begins with the checkpoint's position.
    """
    if not config.agreement and (config.examples or config.plot):
        raise DistilkitError("--examples and --plot go with --agreement: give it a text")
    agreed = agree(config) if config.agreement else {}
    scores = score_checkpoints(config) if config.task else {}
    return record("eval", config, scores | agreed, device=str(PartialState().device))


def score_checkpoints(config: EvalConfig) -> dict[str, float]:
    """Score every checkpoint on the task, with its retention where there is a teacher."""
    chosen = tasks.resolve(config)
    teacher = score_checkpoint(config.against, chosen, config) if config.against else None
    merged: dict[str, float] = {}
    for position, name in enumerate(config.models):
        scores = score_checkpoint(name, chosen, config)
        if teacher is not None:
            scores |= retention(scores, teacher, chosen)
        prefix = f"{position}/" if len(config.models) > 1 else ""
        merged |= {prefix + metric: value for metric, value in scores.items()}
    return merged


def score_checkpoint(name: str, chosen: Sequence[Task], config: EvalConfig) -> dict[str, float]:
    """Score a checkpoint on a task, or the directory name/<task> on each of several, with their averages."""
    scores: dict[str, float] = {}
    for task in chosen:
        place = name if len(chosen) == 1 else f"{name}/{task.name}"
        data = config.data / task.name if config.data and len(chosen) > 1 else config.data
        model, tokenizer = checkpoint.open_model(place, HEADS[task.kind]), checkpoint.open_tokenizer(place)
        labelled = replace(task, labels=tasks.output_names(model.config)) if task.name == "custom" else task
        order = tasks.label_order(labelled, model.config, place)
        splits = task_data.read_validation(labelled, data)
        scores |= score(model, tokenizer, labelled, splits, config, order=order, name=place)
    return scores | averages(scores, chosen)


def averages(scores: dict[str, float], chosen: Sequence[Task]) -> dict[str, float]:
    """Return the GLUE averages of all nine tasks: a task counts the mean of its metrics, MNLI that of matched."""
    if len(chosen) == 1:
        return {}
    means = {task.name: fmean(scores[f"{task.name}/{metric}"] for metric in task.metrics) for task in chosen}
    without = [mean for name, mean in means.items() if name != "wnli"]
    return {"glue/average": fmean(means.values()), "glue/average_without_wnli": fmean(without)}


def retention(scores: dict[str, float], teacher: dict[str, float], chosen: Sequence[Task]) -> dict[str, float]:
    """Return each task's headline score as a share of the teacher's; none where the teacher's is 0 or less."""
    headlines = {task.name: headline(task) for task in chosen}
    if len(chosen) > 1:
        headlines["glue"] = "glue/average"
    return {
        f"retention/{name}": scores[metric] / teacher[metric]
        for name, metric in headlines.items()
        if teacher[metric] > 0
    }


def headline(task: Task) -> str:
    """Return the name of a task's first metric."""
    return f"{task.name}/{task.metrics[0]}"


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    splits: dict[str, Dataset],
    config: EvalConfig | FinetuneConfig,
    *,
    order: list[int] | None = None,
    name: str = "the model",
) -> dict[str, float]:
    """Score a model on splits of a task, {metric prefix: rows}: {"mnli/accuracy": 0.8, …}, SQuAD's from 0 to 100.

    `order` says which output stands for each label (tasks.label_order). Moves the model to the accelerator's device.
    Raises DistilkitError where the outputs aren't finite.
    """
    model.to(PartialState().device)
    model.eval()
    scores: dict[str, float] = {}
    for prefix, rows in splits.items():
        if task.kind == "span":
            values = _score_spans(model, tokenizer, task, rows, config, name)
        else:
            values = _score_rows(model, tokenizer, task, rows, config, order, name)
        scores |= {f"{prefix}/{metric}": value for metric, value in values.items()}
    return scores


def _score_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Dataset,
    config: EvalConfig | FinetuneConfig,
    order: list[int] | None,
    name: str,
) -> dict[str, float]:
    inputs = tasks.input_names(model)
    encoded = tasks.encode(rows, task, tokenizer, inputs, tasks.window_length(task, config, model))
    logits = torch.empty(len(encoded), len(tasks.output_names(model.config)))  # (N, C)
    for places, output in forward(model, tokenizer, encoded, inputs, config.batch_size, task.name):
        logits[places] = output["logits"].float().cpu()
    _refuse_nan(name, logits)
    predictions = logits[:, 0] if task.kind == "regression" else logits[:, order or slice(None)].argmax(dim=1)
    values: dict[str, float] = {}
    for metric in task.metrics:
        values |= metrics.compute(metric, predictions.tolist(), encoded["labels"][:])
    return values


def _score_spans(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Dataset,
    config: EvalConfig | FinetuneConfig,
    name: str,
) -> dict[str, float]:
    inputs = tasks.input_names(model)
    length = tasks.window_length(task, config, model)
    windows = squad.encode(rows, tokenizer, inputs, length, config.stride, training=False)
    limits = {"n_best": config.n_best, "max_answer_length": config.max_answer_length}
    spans = torch.empty(len(windows), 4, dtype=torch.float64)  # (W, 4): first, last, score, null score
    contexts = torch.tensor(windows["context"][:])  # (W, 2)
    cls = torch.tensor([ids.index(tokenizer.cls_token_id) for ids in windows["input_ids"]])  # (W,)
    for places, output in forward(model, tokenizer, windows, inputs, config.batch_size, task.name):
        start, end = output["start_logits"].float().cpu(), output["end_logits"].float().cpu()  # (B, T)
        _refuse_nan(name, start, end)
        best = squad.best_spans(start, end, contexts[places], **limits)
        at = cls[places, None]
        null = (start.gather(1, at) + end.gather(1, at)).squeeze(1)
        spans[places] = torch.stack([*best, null], dim=1).double()
    threshold = config.null_threshold if task.name == "squad_v2" else None
    found = [(int(first), int(last), best, null) for first, last, best, null in spans.tolist()]
    texts = squad.answers(rows, windows, found, threshold)
    predictions = [{"id": key, "prediction_text": text} for key, text in texts.items()]
    return metrics.compute(task.name, predictions, rows.select_columns(["id", "answers"]).to_list())


@torch.inference_mode()
def forward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Dataset,
    inputs: Sequence[str],
    batch_size: int,
    label: str,
) -> Iterator[tuple[Tensor, Any]]:
    """Run a model over encoded rows, the longest first, so that little is padded; yields (places (B,), output)."""
    collate = tasks.collator(tokenizer)
    plain = encoded.select_columns(list(inputs))
    lengths = torch.tensor([len(ids) for ids in plain["input_ids"]])
    quiet = not PartialState().is_main_process
    with track(f"score {label}", len(plain), unit="rows", quiet=quiet) as advance:
        for places in torch.split(lengths.argsort(descending=True, stable=True), batch_size):
            batch = collate([plain[place] for place in places.tolist()])
            yield places, model(**send_to_device(batch, model.device))
            advance(len(places))


def _refuse_nan(name: str, *outputs: Tensor) -> None:
    if not all(bool(output.isfinite().all()) for output in outputs):
        raise DistilkitError(
            f"'{name}' gives outputs that are no numbers: its training diverged, train it with a lower --lr"
        )
