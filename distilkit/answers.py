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

from distilkit import slices
from distilkit.data.batches import Batches
from distilkit.encoders.forward import masked_lm_logits, required_inputs
from distilkit.progress import track
from distilkit.tasks import encoding
from distilkit.training.devices import device

Array = npt.NDArray[np.float64]
CONTEXT = 12  # tokens that an example shows on either side
ROWS = 256  # distributions over a vocabulary that are compared at a time


class Belief(NamedTuple):
    """How sure both are, the probability of their own answers, and KL(teacher ‖ student) in nats; (N,) each."""

    teacher: Array
    student: Array
    kl: Array


@dataclass(frozen=True)
class Answers:
    """What both answer to N items: numbers, or with a belief the places of classes or tokens.

    `families` are the items' slices, `show` gives an item's text and answers, `unit` is what an item is.
    """

    teacher: Array
    student: Array
    belief: Belief | None
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
) -> Answers:
    """Ask both for the masked tokens of one pass over batches of packed blocks."""
    parts, seen, labels = [], [], []
    with track("compare", batches.per_epoch, unit="batches") as advance:
        for number in range(batches.per_epoch):
            batch = batches[number]
            masked = (batch["labels"].flatten() != -100).nonzero().squeeze(-1).to(device())  # (M,)
            inputs = {"input_ids": batch["input_ids"].to(device())}
            theirs, ours = (masked_lm_logits(model, inputs, masked)[1] for model in (teacher, student))  # (M, V)
            parts.append(compare(theirs, ours))
            seen.append(batch["input_ids"])
            labels.append(batch["labels"])
            advance(1)
    said_by_teacher, said_by_student, *beliefs = torch.cat(parts).cpu().double().numpy().T
    return Answers(
        said_by_teacher,
        said_by_student,
        Belief(*beliefs),
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


def to_texts(logits: tuple[Tensor, Tensor], texts: Sequence[str], labels: Sequence[str]) -> Answers:
    """Compare answers to a text each: logits (N, C) of teacher and student, of the classes `labels` or one number."""
    families, regression = slices.of_texts(texts), len(labels) == 1
    if regression:
        teacher, student = (values[:, 0].double().numpy() for values in logits)
        belief = None
    else:
        teacher, student, *beliefs = compare(*logits).double().numpy().T
        belief = Belief(*beliefs)
        names = [re.sub(r"[\s/<>=]+", "_", label) for label in labels]  # they become a part of a metric's name
        families["answer"] = [names[int(place)] for place in teacher]

    def show(item: int) -> dict[str, Any]:
        said = [float(teacher[item]), float(student[item])]
        answers = said if regression else [labels[int(place)] for place in said]
        return {"text": texts[item], "teacher": answers[0], "student": answers[1]}

    return Answers(teacher, student, belief, families, show, unit="texts")


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
