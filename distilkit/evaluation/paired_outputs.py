"""Run a teacher and a student on the same text and compare their outputs.

Masked-LM models are compared at masked tokens, classifiers and regression models on whole texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.class_scores import names_of_labels, note_numbered
from distilkit.data.batches import Batches
from distilkit.encoders import checkpoint, vocabulary
from distilkit.encoders.contents import Head
from distilkit.encoders.forward import input_names, masked_token_logits, required_inputs
from distilkit.errors import DistilkitError
from distilkit.evaluation.slices import Slices, slice_texts, slice_tokens
from distilkit.progress import track
from distilkit.record import read_biography, remembered_teacher
from distilkit.special_tokens import Special
from distilkit.tasks.catalogue import task_of_pairs
from distilkit.training.devices import device

Array = npt.NDArray[np.float64]
CONTEXT_TOKENS = 12  # shown on either side of a masked token in an example
COMPARED_ROWS = 256  # distributions over the vocabulary in memory at once
DEFAULT_LENGTH = 128  # tokens, if a checkpoint's history has no training length


class Confidences(NamedTuple):
    """The probabilities of both models' predictions, and KL(teacher ‖ student) in nats; (N,) each."""

    teacher: Array
    student: Array
    kl: Array


@dataclass(frozen=True)
class PairedOutputs:
    """The predictions of both models for N items: ids of classes or tokens, or numbers (without confidences).

    `slices` are the items' slices. `show` returns the text and the predictions of an item. `unit` names the items.
    """

    teacher: Array
    student: Array
    confidences: Confidences | None
    slices: Slices
    show: Callable[[int], dict[str, Any]]
    unit: str
    overall: dict[str, float] = field(default_factory=dict)  # metrics over all items

    @property
    def disagreements(self) -> Array:
        """The distance of both predictions, (N,): 0 or 1 for classes and tokens, |difference| for numbers."""
        difference = np.abs(self.teacher - self.student)
        return difference if self.confidences is None else (difference > 0).astype(np.float64)

    def describe(self, item: int) -> dict[str, Any]:
        """Return an item for JSON: text, predictions, and confidences and KL, or the difference of two numbers."""
        if self.confidences is None:
            return {**self.show(item), "difference": float(self.disagreements[item])}
        teacher, student, kl = (float(values[item]) for values in self.confidences)
        return {**self.show(item), "teacher_confidence": teacher, "student_confidence": student, "kl": kl}


@torch.inference_mode()
def compare_at_masked_tokens(
    student: PreTrainedModel, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batches: Batches
) -> PairedOutputs:
    """Compare the predictions of both models at the masked tokens of one epoch of batches."""
    parts, seen, labels = [], [], []
    with track("compare", batches.per_epoch, unit="batches") as advance:
        for number in range(batches.per_epoch):
            batch = batches[number]
            theirs, ours = (masked_token_logits(model, batch)[0] for model in (teacher, student))  # (M, V)
            parts.append(compare_logits(theirs, ours))
            seen.append(batch["input_ids"])
            labels.append(batch["labels"])
            advance(1)
    predicted_by_teacher, predicted_by_student, *confidences = torch.cat(parts).cpu().double().numpy().T
    return PairedOutputs(
        predicted_by_teacher,
        predicted_by_student,
        Confidences(*confidences),
        *_describe_tokens(tokenizer, torch.cat(seen), torch.cat(labels), predicted_by_teacher, predicted_by_student),
        unit="tokens",
    )


def _describe_tokens(
    tokenizer: PreTrainedTokenizerBase, seen: Tensor, labels: Tensor, teacher: Array, student: Array
) -> tuple[Slices, Callable[[int], dict[str, Any]]]:
    """Return the slices of masked tokens, and a function that shows one with its context."""
    text = seen.where(labels == -100, labels)  # (blocks, T)
    positions = (labels != -100).nonzero()  # (N, 2)
    ids = text[positions[:, 0], positions[:, 1]]  # (N,)
    names = {token: _decode(tokenizer, [token]).removeprefix("##") for token in ids.unique().tolist()}
    slices = slice_tokens(
        [names[token] for token in ids.tolist()],
        text.flatten().bincount()[ids].tolist(),
        positions[:, 1].tolist(),
        text.shape[1],
    )
    shown_ids = seen[positions[:, 0], positions[:, 1]]
    kept, masked = shown_ids == ids, shown_ids == tokenizer.mask_token_id
    slices["shown"] = ["kept" if k else "masked" if m else "replaced" for k, m in zip(kept, masked, strict=True)]

    def show(item: int) -> dict[str, Any]:
        row, position = positions[item].tolist()
        start, end = max(0, position - CONTEXT_TOKENS), position + CONTEXT_TOKENS + 1
        around = (slice(start, position), slice(position, position + 1), slice(position + 1, end))
        before, at, after = (_decode(tokenizer, seen[row, span].tolist()) for span in around)
        tokens = {"token": ids[item], "teacher": teacher[item], "student": student[item]}
        names = {name: tokenizer.convert_ids_to_tokens(int(token)) for name, token in tokens.items()}
        return {"text": f"{before} »{at}« {after}".strip(), **names}

    return slices, show


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids)).strip()


def compare_logits(teacher: Tensor, student: Tensor) -> Tensor:
    """Return predictions and confidences of both, and KL(teacher ‖ student) in nats, (N, 5), from logits (N, C)."""
    columns = []
    for theirs, ours in zip(teacher.split(COMPARED_ROWS), student.split(COMPARED_ROWS), strict=True):
        log_t, log_s = (F.log_softmax(logits.float(), dim=-1) for logits in (theirs, ours))
        kl = (
            F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(-1).clamp(min=0)
        )  # rounding errors can be negative
        (max_t, predicted_t), (max_s, predicted_s) = log_t.max(-1), log_s.max(-1)
        columns.append(torch.stack([predicted_t, predicted_s, max_t.exp(), max_s.exp(), kl], dim=1))
    return torch.cat(columns)


def compare_on_texts(logits: tuple[Tensor, Tensor], texts: Sequence[str], labels: Sequence[str]) -> PairedOutputs:
    """Compare predictions for whole texts: logits (N, C) of teacher and student for these labels, or C = 1 number."""
    slices, regression = slice_texts(texts), len(labels) == 1
    confidences = None
    if regression:
        teacher, student = (values[:, 0].double().numpy() for values in logits)
    else:
        teacher, student, *columns = compare_logits(*logits).double().numpy().T
        confidences = Confidences(*columns)
        names = names_of_labels(labels)
        note_numbered(labels)
        slices["answer"] = [names[int(label)] for label in teacher]

    def show(item: int) -> dict[str, Any]:
        values = [float(teacher[item]), float(student[item])]
        predictions = values if regression else [labels[int(value)] for value in values]
        return {"text": texts[item], "teacher": predictions[0], "student": predictions[1]}

    return PairedOutputs(teacher, student, confidences, slices, show, unit="texts")


@torch.inference_mode()
def classify(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, batch_size: int
) -> Tensor:
    """Return a classifier's logits (N, C) for texts, truncated to `length` tokens and batched by length."""
    inputs = input_names(model)
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    logits = torch.empty(len(texts), len(model.config.id2label or {}))
    with track("classify", len(texts), unit="texts") as advance:
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = tokenizer(
                [texts[number] for number in numbers],
                truncation=True,
                max_length=length,
                padding=True,
                return_tensors="pt",
                return_attention_mask=True,
                return_token_type_ids="token_type_ids" in inputs,
            ).to(device())
            required = required_inputs(model, batch["input_ids"])
            logits[numbers] = model(**{name: batch[name] for name in inputs}, **required).logits.float().cpu()
            advance(len(numbers))
    return logits


class Opened(NamedTuple):
    """An open checkpoint and its name on the command line."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class Pair(NamedTuple):
    """A checkpoint and its teacher by name, and the kind of head of both."""

    student: str
    teacher: str
    head: Head

    def open(self) -> tuple[Opened, Opened]:
        """Open both on the current device. A masked-LM teacher is pruned to the student's vocabulary."""
        models = [(name, checkpoint.open_model(name, self.head)) for name in (self.student, self.teacher)]
        needs: list[Special] = ["cls", "sep", "mask"] if self.head == "masked-lm" else ["pad"]
        student, teacher = (
            Opened(name, model.eval().to(device()), checkpoint.open_tokenizer(name, model, needs=needs))
            for name, model in models
        )
        if self.head == "masked-lm":
            model = vocabulary.to_vocabulary(teacher.model, teacher.tokenizer, student.tokenizer)
            if student.model.config.vocab_size != model.config.vocab_size:
                raise vocabulary.different_vocabularies()
            teacher = Opened(teacher.name, model.eval().to(device()), student.tokenizer)
        return student, teacher


def find_teacher(name: str, against: str | None) -> Pair:
    """Pair a checkpoint with the given teacher, or with the one recorded in its history.

    Raises DistilkitError if there is none, or if the outputs of the two cannot be compared.
    """
    mine = checkpoint.open_config(name)
    head = checkpoint.head_of(name)
    if head not in ("masked-lm", "sequence-classification", "encoder"):
        raise DistilkitError(
            f"'{name}' has the head {head}, but --agreement compares masked-LM models, classifiers and sentence "
            "encoders: use --task"
        )
    if getattr(mine, "problem_type", None) == "multi_label_classification":
        raise DistilkitError(
            f"'{name}' predicts several labels per text, but --agreement compares a single one: use --task"
        )
    _check_single_text(name)
    teacher = against or remembered_teacher(
        name, ("finetune",) if head == "sequence-classification" else ("init", "distill")
    )
    if teacher is None:
        raise DistilkitError(f"'{name}' has no recorded teacher: specify one with --against")
    theirs = checkpoint.head_of(teacher)
    if theirs != head:
        raise DistilkitError(
            f"'{name}' has the head {head}, but '{teacher}' has {theirs}: "
            "specify a teacher with the same head with --against"
        )
    return Pair(name, teacher, head)


def _check_single_text(name: str) -> None:
    """Raise DistilkitError if a checkpoint was fine-tuned on rows of two texts."""
    if task := task_of_pairs(name):
        raise DistilkitError(
            f"'{name}' was trained on pairs of texts ({task}), but --agreement reads single texts: use --task"
        )


def trained_length(name: str) -> int:
    """Return the tokens per row of a checkpoint's last training, 128 if its history has none."""
    for entry in reversed(read_biography(name)):
        if length := entry.config.get("max_length") or entry.config.get("seq_length"):
            return int(length)
    return DEFAULT_LENGTH
