"""What a model says to a task's rows: how it is scored, and the files that leaderboards take."""

import gzip
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

from distilkit.encoders.forward import mean_by_row, required_inputs
from distilkit.errors import DistilkitError, DivergedError
from distilkit.evaluation import metrics
from distilkit.files import write_text
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.progress import track
from distilkit.record import COLLAPSED, json_text
from distilkit.tasks import encoding, labels, squad
from distilkit.tasks.catalogue import Task
from distilkit.training.devices import device


@dataclass(frozen=True)
class Predictions:
    """What is said to rows, in their order, and what is asked for: classes or numbers (N,), or 0 and 1 (N, C)."""

    task: Task
    said: np.ndarray
    asked: np.ndarray | None = None  # a test split keeps it to itself

    def score(self) -> dict[str, float]:
        """Return the task's metrics, and the mark `collapsed` where it applies."""
        assert self.asked is not None
        values = {COLLAPSED: 1.0} if collapsed(self.said, self.asked) else {}
        for metric in self.task.metrics:
            values |= metrics.compute(metric, self.said.tolist(), self.asked.tolist())
        return values

    def write(self, directory: Path, name: str, numbers: Sequence[int]) -> None:
        """Write NAME.tsv as GLUE's leaderboard takes it: a line a row, its number and what is said to it."""
        lines = [f"{number}\t{_spell(self.task, value)}\n" for number, value in zip(numbers, self.said, strict=True)]
        write_text(directory / f"{name}.tsv", "".join(["index\tprediction\n", *lines]))


@dataclass(frozen=True)
class Answers:
    """What is said to SQuAD's questions: {id: text}, with the right answers to them all.

    `odds` is by how much the score of no answer exceeds the text's; above `threshold` the answer is "".
    """

    task: Task
    texts: dict[str, str]
    golds: dict[str, list[str]]
    odds: dict[str, float] = field(default_factory=dict)
    threshold: float | None = None

    def final(self) -> dict[str, str]:
        """Return the texts, "" where no answer is the better one."""
        if self.threshold is None:
            return self.texts
        return {
            key: text if self.odds.get(key, -math.inf) <= self.threshold else "" for key, text in self.texts.items()
        }

    def score(self) -> dict[str, float]:
        """Return the scores from 0 to 100, for 2.0 with the best thresholds, and the mark `collapsed`."""
        final = self.final()
        values = {COLLAPSED: 1.0} if self._collapsed(final) else {}
        values |= self._compute(final, {})
        if self.odds and self.task.name == "squad_v2":
            tried = self._compute(self.texts, self.odds)
            values |= {name: value for name, value in tried.items() if name.startswith("best_")}
        return values

    def _collapsed(self, final: dict[str, str]) -> bool:
        said = set(final.values())
        return len(said) == 1 < len(final) and not all(said <= set(golds or [""]) for golds in self.golds.values())

    def _compute(self, texts: dict[str, str], odds: dict[str, float]) -> dict[str, float]:
        predictions: list[dict[str, Any]] = [{"id": key, "prediction_text": texts.get(key)} for key in self.golds]
        if self.task.name == "squad_v2":
            predictions = [row | {metrics.ODDS: odds.get(row["id"])} for row in predictions]
        references = [
            {"id": key, "answers": {"text": answers, "answer_start": [0] * len(answers)}}
            for key, answers in self.golds.items()
        ]
        return metrics.compute(self.task.name, predictions, references)

    def write(self, directory: Path) -> None:
        """Write predictions.json, and for 2.0 null_odds.json, as the official scripts take them."""
        write_text(directory / "predictions.json", json_text(self.final()) + "\n")
        if self.task.name == "squad_v2":
            most = sys.float_info.max  # JSON has no infinity, the odds where a question has no span at all
            write_text(
                directory / "null_odds.json",
                json_text({key: min(odds, most) for key, odds in self.odds.items()}) + "\n",
            )


Said = Predictions | Answers


def collapsed(said: np.ndarray, asked: np.ndarray) -> bool:
    """Say whether predictions (N,) or (N, C) are the same for every row though what was asked for is not.

    Numbers count as the same where they differ by less than a hundredth of what the right ones do.
    """
    mine, right = (values.astype(float).std(axis=0).max() for values in (said, asked))
    return bool(right > 0 and mine < 0.01 * right)


def _spell(task: Task, value: Any) -> str:
    """Spell a prediction as the leaderboard does; a custom task's and IMDb's by name."""
    if task.kind == "regression":
        if task.scale is None:
            return f"{value:.9g}"  # all that fp32 holds
        low, high = task.scale
        return f"{min(max(float(value), low), high):.3f}"
    if task.kind == "multi-label":
        return ",".join(label for label, flag in zip(task.labels, value, strict=True) if flag)
    return task.labels[value] if task.leaderboard_names or not task.tests else str(int(value))


def read_answers(
    task: Task, golds: dict[str, list[str]], path: Path, odds: Path | None, threshold: float | None = None
) -> Answers:
    """Read a prediction file of SQuAD's, {id: text}, and its null odds, {id: number}; `threshold` as in Answers.

    Raises DistilkitError where a file isn't that, or answers none of the questions.
    """
    texts = _read(path, "--predictions", (str,))
    if not texts.keys() & golds.keys():
        raise DistilkitError(f"--predictions '{path}' answers no question of --data: give the file that belongs to it")
    numbers = _read(odds, "--null-odds", (int, float)) if odds else {}
    if odds and not texts.keys() & golds.keys() <= numbers.keys():
        raise DistilkitError(
            f"--null-odds '{odds}' lacks questions that '{path}' answers: give the file of the same run"
        )
    return Answers(task, texts, golds, numbers, threshold)


def _read(path: Path, flag: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            entries = json.load(file)
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DistilkitError(f"{flag} '{path}' cannot be read ({error}): give a JSON file (.gz too)") from None
    if not isinstance(entries, dict) or not all(type(entry) in kinds for entry in entries.values()):
        held = "texts" if str in kinds else "numbers"
        raise DistilkitError(f"{flag} '{path}' holds no object of question ids and {held}: give SQuAD's layout")
    return entries


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Dataset,
    config: EvalOptions | FinetuneOptions,
    *,
    order: list[int] | None = None,
    name: str = "the model",
) -> Said:
    """Return what a model says to rows, which may lack their labels; moves it to the accelerator's device.

    `order` says which output stands for each label (labels.label_order).
    Raises DivergedError where the outputs aren't finite.
    """
    model.eval().to(device())
    if task.kind == "span":
        return _predict_spans(model, tokenizer, task, rows, config, name)
    inputs = encoding.input_names(model)
    length = encoding.window_length(task, config, model)
    encoded = encoding.encode(rows, task, tokenizer, inputs, length, config.long)
    logits = torch.empty(len(encoded), len(labels.output_names(model.config)))  # (N, C)
    for places, output in forward(model, tokenizer, encoded, inputs, config.batch_size, task.name):
        logits[places] = output["logits"].float().cpu()
    _refuse_nan(name, logits)
    asked = np.array(encoded["labels"][:]) if "labels" in encoded.column_names else None
    return Predictions(task, logits_to_predictions(task, logits[:, order or slice(None)]).numpy(), asked)


def logits_to_predictions(task: Task, logits: Tensor) -> Tensor:
    """Return what logits (N, C) say: a number (N,), a 1 for each label that is likelier than not (N, C), or a class."""
    if task.kind == "regression":
        return logits[:, 0]
    return (logits > 0).int() if task.kind == "multi-label" else logits.argmax(dim=1)


def _predict_spans(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Dataset,
    config: EvalOptions | FinetuneOptions,
    name: str,
) -> Answers:
    inputs = encoding.input_names(model)
    length = encoding.window_length(task, config, model)
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
    texts, odds = squad.best_answers(rows, windows, spans.numpy())
    golds = {row["id"]: row["answers"]["text"] for row in rows.select_columns(["id", "answers"])}
    return Answers(task, texts, golds, odds, config.null_threshold if task.name == "squad_v2" else None)


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
    collate = encoding.collator(tokenizer)
    plain = encoded.select_columns(list(inputs))
    lengths = torch.tensor(encoding.lengths(plain))
    with track(f"score {label}", len(plain), unit="rows") as advance:
        for places in torch.split(lengths.argsort(descending=True, stable=True), batch_size):
            batch = send_to_device(collate([plain[place] for place in places.tolist()]), model.device)
            owners = batch.pop(encoding.OWNERS, None)
            output = model(**batch, **required_inputs(model, batch["input_ids"]))
            if owners is not None:
                output["logits"] = mean_by_row(output["logits"].float(), owners, len(places))
            yield places, output
            advance(len(places))


def _refuse_nan(name: str, *outputs: Tensor) -> None:
    if not all(bool(output.isfinite().all()) for output in outputs):
        raise DivergedError(
            f"'{name}' gives outputs that are no numbers: its training diverged, train it with a lower --lr"
        )
