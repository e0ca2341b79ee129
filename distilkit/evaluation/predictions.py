"""Run a model over task rows; score its predictions or write them to files."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.data.readers import open_file
from distilkit.encoders.forward import input_names, mean_over_windows, required_inputs
from distilkit.errors import DistilkitError, DivergedError
from distilkit.evaluation import metrics
from distilkit.evaluation.label_predictions import LabelPredictions
from distilkit.evaluation.ranking import RankingPredictions
from distilkit.evaluation.tags import TagPredictions
from distilkit.files import write_text
from distilkit.progress import track
from distilkit.record import COLLAPSED, json_text
from distilkit.tasks import encoding, labels, squad, tagging
from distilkit.tasks.catalogue import Task
from distilkit.tasks.settings import TaskSettings
from distilkit.training.devices import device


@dataclass(frozen=True)
class SpanPredictions:
    """Predicted texts for SQuAD's questions, {id: text}, and the gold answers of all questions.

    `null_odds` is the score of "no answer" minus the score of the text. Above `null_threshold` the prediction is "".
    """

    task: Task
    texts: dict[str, str]
    golds: dict[str, list[str]]
    null_odds: dict[str, float] = field(default_factory=dict)
    null_threshold: float | None = None

    def final_answers(self) -> dict[str, str]:
        """Return the texts, with "" for questions whose null odds are above the threshold."""
        if self.null_threshold is None:
            return self.texts
        return {
            key: text if self.null_odds.get(key, -math.inf) <= self.null_threshold else ""
            for key, text in self.texts.items()
        }

    def score(self) -> dict[str, float]:
        """Return the metrics from 0 to 100, for SQuAD 2.0 also at the best thresholds, and any COLLAPSED mark."""
        final = self.final_answers()
        values = {COLLAPSED: 1.0} if self._collapsed(final) else {}
        values |= self._compute(final, {})
        if self.null_odds and self.task.name == "squad_v2":
            best = self._compute(self.texts, self.null_odds)
            values |= {name: value for name, value in best.items() if name.startswith("best_")}
        return values

    def _collapsed(self, final: dict[str, str]) -> bool:
        """Return whether all questions get one text that is not right for all of them."""
        texts = set(final.values())
        return len(texts) == 1 < len(final) and not all(texts <= set(golds or [""]) for golds in self.golds.values())

    def _compute(self, texts: dict[str, str], null_odds: dict[str, float]) -> dict[str, float]:
        golds = dict(sorted(self.golds.items(), key=lambda entry: entry[0] not in texts))  # evaluate wants a text first
        predictions: list[dict[str, Any]] = [{"id": key, "prediction_text": texts.get(key)} for key in golds]
        if self.task.name == "squad_v2":
            predictions = [row | {metrics.NULL_ODDS: null_odds.get(row["id"])} for row in predictions]
        references = [
            {"id": key, "answers": {"text": answers, "answer_start": [0] * len(answers)}}
            for key, answers in golds.items()
        ]
        return metrics.compute(self.task.name, predictions, references)

    def write(self, directory: Path) -> None:
        """Write predictions.json and, for SQuAD 2.0, null_odds.json, in the format of the official scripts."""
        write_text(directory / "predictions.json", json_text(self.final_answers()) + "\n")
        if self.task.name == "squad_v2":
            # A question without any valid span has infinite odds, which JSON cannot represent.
            finite = {key: min(odds, sys.float_info.max) for key, odds in self.null_odds.items()}
            write_text(directory / "null_odds.json", json_text(finite) + "\n")


Predictions = LabelPredictions | SpanPredictions | TagPredictions | RankingPredictions


def read_span_predictions(
    task: Task, golds: dict[str, list[str]], path: Path, null_odds: Path | None, null_threshold: float | None = None
) -> SpanPredictions:
    """Read SQuAD's prediction file, {id: text}, and any null odds, {id: number}.

    Raises DistilkitError if a file has another format or has none of the questions.
    """
    texts = _read_entries(path, "--predictions", (str,))
    if not texts.keys() & golds.keys():
        raise DistilkitError(f"--predictions '{path}' has none of the questions in --data: give a matching file")
    numbers = _read_entries(null_odds, "--null-odds", (int, float)) if null_odds else {}
    if null_odds and not texts.keys() & golds.keys() <= numbers.keys():
        raise DistilkitError(
            f"--null-odds '{null_odds}' lacks questions that are in '{path}': give the file of the same run"
        )
    return SpanPredictions(task, texts, golds, numbers, null_threshold)


def _read_entries(path: Path, flag: str, types: tuple[type, ...]) -> dict[str, Any]:
    with open_file(path, f"{flag} '{path}'", "give a JSON file (.gz too)") as file:
        entries = json.load(file)
    if not isinstance(entries, dict) or not all(type(entry) in types for entry in entries.values()):
        values = "texts" if str in types else "numbers"
        raise DistilkitError(f"{flag} '{path}' is not a JSON object of question ids and {values}: use SQuAD's format")
    return entries


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Dataset,
    settings: TaskSettings,
    *,
    order: list[int] | None = None,
    name: str = "the model",
) -> Predictions:
    """Return a model's predictions for rows, with or without labels. Moves the model to the current device.

    `order` gives the model's output for each of the task's labels (labels.label_order).
    Warns if the tokenizer knows few or no tokens of the rows. Raises DivergedError if an output is NaN or infinite.
    """
    model.eval().to(device())
    if task.kind == "span":
        return _predict_spans(model, tokenizer, task, rows, settings, name)
    if task.kind == "tokens":
        return _predict_tags(model, tokenizer, task, rows, settings, order, name)
    inputs = input_names(model)
    length = encoding.window_length(settings, model)
    encoded = encoding.encode(rows, task, tokenizer, inputs, length, settings.long)
    encoding.check_tokens(encoded, tokenizer, f"the rows of {task.title}", required=False)
    logits = torch.empty(len(encoded), len(labels.output_names(model.config)))  # (N, C)
    for numbers, output in forward(model, tokenizer, encoded, inputs, settings.batch_size, task.title):
        logits[numbers] = output["logits"].float().cpu()
    _check_finite(name, logits)
    targets = np.array(encoded["labels"][:]) if "labels" in encoded.column_names else None
    logits = logits[:, order or slice(None)]
    chances = logits_to_probabilities(task, logits)
    return LabelPredictions(
        task, logits_to_predictions(task, logits).numpy(), targets, None if chances is None else chances.numpy()
    )


def logits_to_predictions(task: Task, logits: Tensor) -> Tensor:
    """Return classes (N,), numbers (N,), or 1 for each label with a probability above 1/2 (N, C); logits (N, C)."""
    if task.kind == "regression":
        return logits[:, 0]
    return (logits > 0).int() if task.kind == "multi-label" else logits.argmax(dim=1)


def logits_to_probabilities(task: Task, logits: Tensor) -> Tensor | None:
    """Return the probability of each label, (N, C); of a class they sum to 1. None for numbers."""
    if task.kind == "regression":
        return None
    return logits.sigmoid() if task.kind == "multi-label" else logits.softmax(dim=1)


def _predict_spans(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Dataset,
    settings: TaskSettings,
    name: str,
) -> SpanPredictions:
    inputs = input_names(model)
    length = encoding.window_length(settings, model)
    windows = squad.encode(rows, tokenizer, inputs, length, settings.stride, training=False)
    encoding.check_tokens(windows, tokenizer, f"the rows of {task.title}", required=False)
    limits = {"n_best": settings.n_best, "max_answer_length": settings.max_answer_length}
    spans = torch.empty(len(windows), 4, dtype=torch.float64)  # (W, 4): first, last, score, null score
    contexts = torch.tensor(windows["context"][:])  # (W, 2)
    cls = torch.tensor([squad.no_answer_token(ids, tokenizer) for ids in windows["input_ids"]])  # (W,)
    for numbers, output in forward(model, tokenizer, windows, inputs, settings.batch_size, task.title):
        start, end = output["start_logits"].float().cpu(), output["end_logits"].float().cpu()  # (B, T)
        _check_finite(name, start, end)
        best = squad.best_spans(start, end, contexts[numbers], **limits)
        at = cls[numbers, None]
        null = (start.gather(1, at) + end.gather(1, at)).squeeze(1)
        spans[numbers] = torch.stack([*best, null], dim=1).double()
    texts, odds = squad.best_answers(rows, windows, spans.numpy())
    golds = {row["id"]: row["answers"]["text"] for row in rows.select_columns(["id", "answers"])}
    return SpanPredictions(task, texts, golds, odds, settings.null_threshold if task.name == "squad_v2" else None)


def _predict_tags(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Dataset,
    settings: TaskSettings,
    order: list[int] | None,
    name: str,
) -> TagPredictions:
    inputs = input_names(model)
    encoded = tagging.encode(rows, task, tokenizer, inputs, encoding.window_length(settings, model))
    encoding.check_tokens(encoded, tokenizer, f"the rows of {task.title}", required=False)
    places: list[list[int]] = encoded[tagging.PLACES][:]
    predicted = [list(row) for row in places]
    for numbers, output in forward(model, tokenizer, encoded, inputs, settings.batch_size, task.title):
        logits = output["logits"].float().cpu()
        _check_finite(name, logits)
        best = logits[..., order or slice(None)].argmax(dim=2).tolist()  # (B, T)
        for number, tags in zip(numbers.tolist(), best, strict=True):
            predicted[number] = [tagging.LOST if place == tagging.LOST else tags[place] for place in places[number]]
    tags = encoded[tagging.TAGS][:] if tagging.TAGS in encoded.column_names else []  # new rows have none
    return TagPredictions(task, predicted, tags)


@torch.inference_mode()
def forward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Dataset,
    inputs: Sequence[str],
    batch_size: int,
    label: str,
) -> Iterator[tuple[Tensor, Any]]:
    """Run a model over encoded rows, longest first to save padding; yield row numbers (B,) and outputs.

    The logits of a row with several windows are their mean.
    """
    collate = encoding.collator(tokenizer)
    plain = encoded.select_columns(list(inputs))
    lengths = torch.tensor(encoding.lengths(plain))
    with track(f"score {label}", len(plain), unit="rows") as advance:
        for numbers in torch.split(lengths.argsort(descending=True, stable=True), batch_size):
            batch = send_to_device(collate([plain[number] for number in numbers.tolist()]), model.device)
            owners = batch.pop(encoding.OWNERS, None)
            output = model(**batch, **required_inputs(model, batch["input_ids"]))
            if owners is not None:
                output["logits"] = mean_over_windows(output["logits"].float(), owners, len(numbers))
            yield numbers, output
            advance(len(numbers))


def _check_finite(name: str, *outputs: Tensor) -> None:
    if not all(bool(output.isfinite().all()) for output in outputs):
        raise DivergedError(
            f"'{name}' produces NaN or infinite outputs: its training diverged; retrain with a lower --lr"
        )
