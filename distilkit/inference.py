"""A model run over a task's rows, the longest first, and what it says to each."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders.forward import mean_by_row, required_inputs
from distilkit.errors import DivergedError
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.predictions import Answers, Predictions, Said
from distilkit.progress import track
from distilkit.tasks import encoding, labels, squad
from distilkit.tasks.catalogue import Task
from distilkit.training.devices import device


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
    return Predictions(task, decide(task, logits[:, order or slice(None)]).numpy(), asked)


def decide(task: Task, logits: Tensor) -> Tensor:
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
    texts, odds = squad.answers(rows, windows, spans.numpy())
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
