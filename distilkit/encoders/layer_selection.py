"""Which layers to keep: named strategies, and a search that measures candidates."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.encoders.forward import Batch, masked_lm_logits
from distilkit.encoders.layers import truncate_shared
from distilkit.errors import DistilkitError
from distilkit.progress import track


class Candidate(NamedTuple):
    """A measured choice of layers: masked-LM loss, and share of masked tokens at which it predicts what the teacher
    predicts.
    """

    strategy: str
    layers: list[int]
    loss: float
    agreement: float


def spread(teacher_layers: int, student_layers: int) -> list[int]:
    """Space the kept layers evenly from the first to the last: 12, 6 -> [0, 2, 4, 7, 9, 11], as DistilBERT does."""
    if student_layers == 1:
        return [0]
    return [round(i * (teacher_layers - 1) / (student_layers - 1)) for i in range(student_layers)]


def alternate(teacher_layers: int, student_layers: int) -> list[int]:
    """Keep every n-th layer from the first on: 12, 6 -> [0, 2, 4, 6, 8, 10]."""
    step = teacher_layers // student_layers
    return [i * step for i in range(student_layers)]


def first(teacher_layers: int, student_layers: int) -> list[int]:
    """Keep the first layers."""
    return list(range(min(teacher_layers, student_layers)))


def last(teacher_layers: int, student_layers: int) -> list[int]:
    """Keep the last layers."""
    return list(range(teacher_layers - student_layers, teacher_layers))


STRATEGIES: dict[str, Callable[[int, int], list[int]]] = {
    "spread": spread, "alternate": alternate, "first": first, "last": last,
}  # fmt: skip


def neighbouring_choices(choice: Sequence[int], depth: int) -> Iterator[list[int]]:
    """Yield other choices of the same size: one layer exchanged, nearest first, then two."""
    kept, others = list(choice), [i for i in range(depth) if i not in choice]
    swaps = sorted(((i, j) for i in kept for j in others), key=lambda swap: abs(swap[0] - swap[1]))
    exchanged = [frozenset(kept) ^ {*swap} for swap in swaps]
    yield from (sorted(layers) for layers in exchanged)
    seen = set(exchanged)
    for layers in exchanged:
        for i, j in swaps:
            twice = layers ^ {i, j}
            if i in layers and j not in layers and twice not in seen:
                seen.add(twice)
                yield sorted(twice)


class LayerEvaluator:
    """Measures choices of a teacher's layers on masked text, against the text and against the whole teacher."""

    def __init__(self, teacher: PreTrainedModel, batches: Sequence[Batch]) -> None:
        self.teacher = teacher if teacher.dtype == torch.float32 else copy.deepcopy(teacher).float()
        self.batches = batches
        self.known: dict[tuple[int, ...], tuple[float, float]] = {}
        self.answers = [logits.argmax(-1) for logits, _ in self._logits(self.teacher)]

    def _logits(self, model: PreTrainedModel) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits (M, V) and labels (M,) at the masked tokens of each batch."""
        for batch in self.batches:
            labels = batch["labels"].flatten()
            masked = (labels != -100).nonzero().squeeze(-1)
            with torch.inference_mode():
                yield masked_lm_logits(model, {"input_ids": batch["input_ids"]}, masked)[1].float(), labels[masked]

    def measure(self, layers: Sequence[int]) -> tuple[float, float]:
        """Return the masked-LM loss and the agreement with the teacher of a model with only these layers."""
        key = tuple(layers)
        if key not in self.known:
            loss = agreed = count = 0.0
            student = truncate_shared(self.teacher, layers)
            for (logits, labels), answers in zip(self._logits(student), self.answers, strict=True):
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
                agreed += float((logits.argmax(-1) == answers).sum())
                count += len(labels)
            self.known[key] = (loss / count, agreed / count)
        return self.known[key]


def search(gauge: LayerEvaluator, depth: int, wanted: int) -> list[Candidate]:
    """Measure the named strategies and a greedy search; return them ranked, the closest to the teacher first.

    The search drops one layer at a time: the one without which the model agrees most often with the teacher, and among
    equals the one with the lowest masked-LM loss. Choices that the architecture does not allow are skipped.
    """
    total = len(STRATEGIES) + sum(range(wanted + 1, depth + 1))
    with track("search", total, unit="choices") as advance:

        def tried(layers: Sequence[int]) -> tuple[float, float] | None:
            try:
                return gauge.measure(layers)
            except DistilkitError:
                return None
            finally:
                advance(1)

        named = {name: strategy(depth, wanted) for name, strategy in STRATEGIES.items()}
        ranked = [Candidate(name, layers, *found) for name, layers in named.items() if (found := tried(layers))]
        kept = list(range(depth))
        while len(kept) > wanted:
            shorter = [[i for i in kept if i != dropped] for dropped in kept]
            measured = [Candidate("search", layers, *found) for layers in shorter if (found := tried(layers))]
            if not measured:
                raise DistilkitError(f"none of the layers {kept} can be dropped in this architecture: give --keep")
            kept = min(measured, key=distance).layers
        ranked.append(Candidate("search", kept, *gauge.measure(kept)))
    return sorted(ranked, key=distance)


def distance(candidate: Candidate) -> tuple[float, float]:
    """Return the sort key of candidates: disagreement with the teacher, then masked-LM loss."""
    return -candidate.agreement, candidate.loss
