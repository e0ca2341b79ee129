"""Which layers to keep: named strategies, and a search that measures candidates."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from distilkit.encoders.forward import Batch, masked_token_logits
from distilkit.encoders.layers import truncate_shared
from distilkit.errors import DistilkitError
from distilkit.progress import track


class Candidate(NamedTuple):
    """A measured choice of layers: its masked-LM loss, and its share of top-1 predictions that equal the teacher's."""

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
            swapped_twice = layers ^ {i, j}
            if i in layers and j not in layers and swapped_twice not in seen:
                seen.add(swapped_twice)
                yield sorted(swapped_twice)


class LayerEvaluator:
    """Measures models with some of a teacher's layers on masked text, in fp32; remembers the results."""

    def __init__(self, teacher: PreTrainedModel, batches: Sequence[Batch]) -> None:
        self.teacher = teacher if _is_fp32(teacher) else copy.deepcopy(teacher).float()
        self.batches = batches
        self.measured: dict[tuple[int, ...], tuple[float, float]] = {}
        self.teacher_predictions = [masked_token_logits(self.teacher, batch)[0].argmax(-1) for batch in batches]

    def measure(self, layers: Sequence[int]) -> tuple[float, float]:
        """Return the masked-LM loss of a model with only these layers, and its agreement with the teacher."""
        key = tuple(layers)
        if key not in self.measured:
            loss = agreed = count = 0.0
            student = truncate_shared(self.teacher, layers)
            for batch, predictions in zip(self.batches, self.teacher_predictions, strict=True):
                logits, labels = masked_token_logits(student, batch)
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
                agreed += float((logits.argmax(-1) == predictions).sum())
                count += len(labels)
            self.measured[key] = (loss / count, agreed / count)
        return self.measured[key]


def _is_fp32(model: PreTrainedModel) -> bool:
    return all(parameter.dtype == torch.float32 for parameter in model.parameters())


def search(evaluator: LayerEvaluator, depth: int, wanted: int) -> list[Candidate]:
    """Measure the named strategies and a greedy search; return them ranked, the closest to the teacher first.

    The search drops one layer at a time: the one without which the model agrees most often with the teacher, and among
    equals the one with the lowest masked-LM loss. Choices that the architecture does not allow are skipped.
    """
    total = len(STRATEGIES) + sum(range(wanted + 1, depth + 1))
    with track("search", total, unit="choices") as advance:

        def try_layers(layers: Sequence[int]) -> tuple[float, float] | None:
            try:
                return evaluator.measure(layers)
            except DistilkitError:
                return None
            finally:
                advance(1)

        named = {name: strategy(depth, wanted) for name, strategy in STRATEGIES.items()}
        ranked = [Candidate(name, layers, *found) for name, layers in named.items() if (found := try_layers(layers))]
        kept = list(range(depth))
        while len(kept) > wanted:
            shorter = [[i for i in kept if i != dropped] for dropped in kept]
            measured = [Candidate("search", layers, *found) for layers in shorter if (found := try_layers(layers))]
            if not measured:
                raise DistilkitError(f"none of the layers {kept} can be dropped in this architecture: give --keep")
            kept = min(measured, key=rank_key).layers
        ranked.append(Candidate("search", kept, *evaluator.measure(kept)))
    return sorted(ranked, key=rank_key)


def rank_key(candidate: Candidate) -> tuple[float, float]:
    """Return the sort key of a candidate: the highest agreement first, then the lowest masked-LM loss."""
    return -candidate.agreement, candidate.loss
