"""What a teacher and a student answer to the same text: at its masked tokens, or to each of its documents."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.data.batches import Batches
from distilkit.encoders import checkpoint, vocabulary
from distilkit.encoders.checkpoint import Head
from distilkit.encoders.forward import masked_token_logits, required_inputs
from distilkit.errors import DistilkitError
from distilkit.evaluation import slices
from distilkit.progress import track
from distilkit.record import read_biography, remembered_teacher
from distilkit.tasks import encoding
from distilkit.tasks.catalogue import TASKS
from distilkit.training.devices import device

Array = npt.NDArray[np.float64]
CONTEXT = 12  # tokens that an example shows on either side
ROWS = 256  # distributions over a vocabulary that are compared at a time


class Confidences(NamedTuple):
    """How sure both are, the probability of their own answers, and KL(teacher ‖ student) in nats; (N,) each."""

    teacher: Array
    student: Array
    kl: Array


@dataclass(frozen=True)
class PairedOutputs:
    """What both answer to N items: numbers, or with a belief the places of classes or tokens.

    `families` are the items' slices, `show` gives an item's text and answers, `unit` is what an item is.
    """

    teacher: Array
    student: Array
    belief: Confidences | None
    families: slices.Families
    show: Callable[[int], dict[str, Any]]
    unit: str

    @property
    def misses(self) -> Array:
        """How far the student is from the teacher's answer, (N,): a 1 where it gives another, or the difference."""
        difference = np.abs(self.teacher - self.student)
        return difference if self.belief is None else (difference > 0).astype(np.float64)

    def describe(self, item: int) -> dict[str, Any]:
        """Return an item as JSON holds it: the text, both answers, how sure both are, and KL; or the difference."""
        if self.belief is None:
            return {**self.show(item), "difference": float(self.misses[item])}
        teacher, student, kl = (float(values[item]) for values in self.belief)
        return {**self.show(item), "teacher_confidence": teacher, "student_confidence": student, "kl": kl}


@torch.inference_mode()
def at_masked_tokens(
    student: PreTrainedModel, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batches: Batches
) -> PairedOutputs:
    """Ask both for the masked tokens of one pass over batches of packed blocks."""
    parts, seen, labels = [], [], []
    with track("compare", batches.per_epoch, unit="batches") as advance:
        for number in range(batches.per_epoch):
            batch = batches[number]
            theirs, ours = (masked_token_logits(model, batch)[0] for model in (teacher, student))  # (M, V)
            parts.append(compare(theirs, ours))
            seen.append(batch["input_ids"])
            labels.append(batch["labels"])
            advance(1)
    said_by_teacher, said_by_student, *beliefs = torch.cat(parts).cpu().double().numpy().T
    return PairedOutputs(
        said_by_teacher,
        said_by_student,
        Confidences(*beliefs),
        *_describe_tokens(tokenizer, torch.cat(seen), torch.cat(labels), said_by_teacher, said_by_student),
        unit="tokens",
    )


def _describe_tokens(
    tokenizer: PreTrainedTokenizerBase, seen: Tensor, labels: Tensor, teacher: Array, student: Array
) -> tuple[slices.Families, Callable[[int], dict[str, Any]]]:
    text = seen.where(labels == -100, labels)  # (blocks, T)
    places = (labels != -100).nonzero()  # (N, 2)
    ids = text[places[:, 0], places[:, 1]]  # (N,)
    names = {token: _spell(tokenizer, [token]).removeprefix("##") for token in ids.unique().tolist()}
    families = slices.of_tokens(
        [names[token] for token in ids.tolist()],
        text.flatten().bincount()[ids].tolist(),
        places[:, 1].tolist(),
        text.shape[1],
    )
    shown_ids = seen[places[:, 0], places[:, 1]]
    kept, hidden = shown_ids == ids, shown_ids == tokenizer.mask_token_id
    families["shown"] = ["kept" if k else "masked" if h else "replaced" for k, h in zip(kept, hidden, strict=True)]

    def show(item: int) -> dict[str, Any]:
        row, place = places[item].tolist()
        around = (slice(max(0, place - CONTEXT), place), slice(place, place + 1), slice(place + 1, place + CONTEXT + 1))
        before, at, after = (_spell(tokenizer, seen[row, part].tolist()) for part in around)
        answers = {"token": ids[item], "teacher": teacher[item], "student": student[item]}
        said = {name: tokenizer.convert_ids_to_tokens(int(token)) for name, token in answers.items()}
        return {"text": f"{before} »{at}« {after}".strip(), **said}

    return families, show


def _spell(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids)).strip()


def compare(teacher: Tensor, student: Tensor) -> Tensor:
    """Return, from logits (N, C) each, both answers, both confidences and KL(teacher ‖ student) in nats, (N, 5)."""
    columns = []
    for theirs, ours in zip(teacher.split(ROWS), student.split(ROWS), strict=True):
        log_t, log_s = (F.log_softmax(logits.float(), dim=-1) for logits in (theirs, ours))
        kl = F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(-1).clamp(min=0)  # rounding
        (sure_t, said_t), (sure_s, said_s) = log_t.max(-1), log_s.max(-1)
        columns.append(torch.stack([said_t, said_s, sure_t.exp(), sure_s.exp(), kl], dim=1))
    return torch.cat(columns)


def to_texts(logits: tuple[Tensor, Tensor], texts: Sequence[str], labels: Sequence[str]) -> PairedOutputs:
    """Compare answers to a text each: logits (N, C) of teacher and student, of the classes `labels` or one number."""
    families, regression = slices.of_texts(texts), len(labels) == 1
    if regression:
        teacher, student = (values[:, 0].double().numpy() for values in logits)
        belief = None
    else:
        teacher, student, *beliefs = compare(*logits).double().numpy().T
        belief = Confidences(*beliefs)
        names = [re.sub(r"[\s/<>=]+", "_", label) for label in labels]  # they become a part of a metric's name
        families["answer"] = [names[int(place)] for place in teacher]

    def show(item: int) -> dict[str, Any]:
        said = [float(teacher[item]), float(student[item])]
        answers = said if regression else [labels[int(place)] for place in said]
        return {"text": texts[item], "teacher": answers[0], "student": answers[1]}

    return PairedOutputs(teacher, student, belief, families, show, unit="texts")


@torch.inference_mode()
def classify(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, batch_size: int
) -> Tensor:
    """Return a classifier's logits (N, C) for texts, cut to `length` tokens; of like length, they share batches."""
    inputs = encoding.input_names(model)
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    logits = torch.empty(len(texts), len(model.config.id2label or {}))
    with track("classify", len(texts), unit="texts") as advance:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = tokenizer(
                [texts[place] for place in places],
                truncation=True,
                max_length=length,
                padding=True,
                return_tensors="pt",
                return_attention_mask=True,
                return_token_type_ids="token_type_ids" in inputs,
            ).to(device())
            needed = required_inputs(model, batch["input_ids"])
            logits[places] = model(**{name: batch[name] for name in inputs}, **needed).logits.float().cpu()
            advance(len(places))
    return logits


LENGTH = 128  # tokens, where the biography doesn't say how many a model was trained with


class Opened(NamedTuple):
    """A checkpoint under its name as typed."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class Pair(NamedTuple):
    """The names of a checkpoint and of its teacher, and the head that both have."""

    student: str
    teacher: str
    head: Head

    def open(self) -> tuple[Opened, Opened]:
        """Load both, in this process's memory or on its GPU; a masked-LM teacher with the student's tokens alone."""
        models = [(name, checkpoint.open_model(name, self.head)) for name in (self.student, self.teacher)]
        student, teacher = (
            Opened(name, model.eval().to(device()), checkpoint.open_tokenizer(name, model)) for name, model in models
        )
        if self.head == "masked-lm":
            model = vocabulary.to_vocabulary(teacher.model, teacher.tokenizer, student.tokenizer)
            if student.model.config.vocab_size != model.config.vocab_size:
                raise vocabulary.different_vocabularies()
            teacher = Opened(teacher.name, model.eval().to(device()), student.tokenizer)
        return student, teacher


def find_teacher(name: str, against: str | None) -> Pair:
    """Pair a checkpoint with the teacher given, or with the one that its biography remembers.

    Raises DistilkitError where there is none, and where the two don't give answers that can be compared.
    """
    mine = checkpoint.open_config(name)
    head = checkpoint.head_of(mine)
    if head not in ("masked-lm", "sequence-classification"):
        raise DistilkitError(
            f"'{name}' has the head {head}, but --agreement compares masked-LM models and classifiers: use --task"
        )
    if getattr(mine, "problem_type", None) == "multi_label_classification":
        raise DistilkitError(f"'{name}' gives a text several labels, but --agreement compares one answer: use --task")
    _refuse_two_texts(name)
    teacher = against or remembered_teacher(name, ("init", "distill") if head == "masked-lm" else ("finetune",))
    if teacher is None:
        raise DistilkitError(f"'{name}' does not say which teacher it should be like: name one with --against")
    theirs = checkpoint.head_of(checkpoint.open_config(teacher))
    if theirs != head:
        raise DistilkitError(
            f"'{name}' has the head {head}, but '{teacher}' {theirs}: name a teacher of the same kind with --against"
        )
    return Pair(name, teacher, head)


def _refuse_two_texts(name: str) -> None:
    for entry in read_biography(name):
        task = entry.config.get("task")
        columns = TASKS[task].text if task in TASKS else entry.config.get("text") or ()
        if entry.command == "finetune" and len(columns) > 1:
            raise DistilkitError(
                f"'{name}' was trained on rows of two texts ({task}), but --agreement reads one a row: use --task"
            )


def trained_length(name: str) -> int:
    """Return the tokens a row that a checkpoint was last trained with, 128 where its biography doesn't say."""
    for entry in reversed(read_biography(name)):
        if length := entry.config.get("max_length") or entry.config.get("seq_length"):
            return int(length)
    return LENGTH
