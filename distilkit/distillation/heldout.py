"""Evaluate a student on held-out text: masked-LM loss and agreement, loss terms, or its outputs for whole texts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.data.batches import Batches
from distilkit.distillation.text_objective import Distillation
from distilkit.distillation.whole_text_objective import WholeTextDistillation
from distilkit.encoders.forward import masked_token_logits
from distilkit.errors import DistilkitError
from distilkit.training.devices import autocast_dtype, device
from distilkit.training.objective import Objective


class HeldoutEvaluator:
    """Evaluate a student on held-out batches, with the same masks every time.

    The teacher runs once, on creation. Its predictions are stored in `teacher_predictions`, None without a teacher.
    """

    def __init__(self, batches: Batches, teacher: PreTrainedModel | None) -> None:
        self.rows, self.batches = batches.rows, [batches[number] for number in range(batches.per_epoch)]
        if not self.masked_tokens:
            raise DistilkitError("the held-out text has only unknown tokens: give another one with --heldout")
        self.teacher_predictions = None if teacher is None else self.predict(teacher)

    @property
    def masked_tokens(self) -> int:
        """The number of masked tokens in the held-out text."""
        return sum(int((batch["labels"] != -100).sum()) for batch in self.batches)

    def predict(self, model: PreTrainedModel) -> Tensor:
        """Return a model's most likely token at every masked token, (masked_tokens,)."""
        model.eval().to(device())
        return torch.cat([masked_token_logits(model, batch)[0].argmax(-1) for batch in self.batches])

    def evaluate(self, student: PreTrainedModel) -> dict[str, float]:
        """Return heldout_loss and, with a teacher, heldout_agreement: the share of equal top-1 predictions."""
        training = student.training
        student.eval()
        loss, agreed, count = 0.0, 0.0, 0
        for batch in self.batches:
            logits, labels = masked_token_logits(student, batch)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            if self.teacher_predictions is not None:
                predicted = self.teacher_predictions[count : count + len(labels)]
                agreed += float((logits.argmax(-1) == predicted).sum())
            count += len(labels)
        student.train(training)
        agreement = {} if self.teacher_predictions is None else {"heldout_agreement": agreed / count}
        return {"heldout_loss": loss / count} | agreement


class WholeTextEvaluator:
    """Compare the outputs of student and teacher for held-out texts. The teacher runs once, on creation."""

    def __init__(self, batches: Batches, objective: WholeTextDistillation) -> None:
        self.objective, self.batches = objective, [batches[number] for number in range(batches.per_epoch)]
        objective.place_teacher(device(), None)
        self.theirs = self._outputs(1)

    def evaluate(self, student: PreTrainedModel) -> dict[str, float]:
        """Return the held-out metrics of the objective (see WholeTextDistillation.readings)."""
        with evaluating(self.objective, student):
            return self.objective.readings(self._outputs(0), self.theirs)

    @torch.no_grad()
    def _outputs(self, side: int) -> Tensor:
        moved = ({name: t.to(device()) for name, t in self.objective.prepare(b).items()} for b in self.batches)
        return torch.cat([self.objective.outputs(side, batch).float() for batch in moved])


class LossEvaluator:
    """Compute the loss terms on held-out blocks, for objectives without a vocabulary head."""

    def __init__(self, batches: Batches, objective: Distillation, precision: str) -> None:
        self.objective, self.dtype = objective, autocast_dtype(precision)
        self.batches = [objective.prepare(batches[number]) for number in range(batches.per_epoch)]

    @torch.no_grad()
    def evaluate(self, student: PreTrainedModel) -> dict[str, float]:
        """Return the mean of each loss term over the held-out tokens, as heldout_hidden and the like."""
        totals, counts = dict.fromkeys(self.objective.weights, 0.0), dict.fromkeys(self.objective.weights, 0.0)
        with evaluating(self.objective, student):
            for batch in self.batches:
                with torch.autocast(device().type, self.dtype, enabled=self.dtype is not None):
                    terms = self.objective({name: tensor.to(device()) for name, tensor in batch.items()})
                for term, count in self.objective.token_counts(batch).items():
                    totals[term] += float(terms[term]) * float(count)
                    counts[term] += float(count)
        return {f"heldout_{term}": total / max(counts[term], 1.0) for term, total in totals.items()}


@contextmanager
def evaluating(objective: Objective, student: PreTrainedModel) -> Iterator[None]:
    """Context manager: put an objective in evaluation mode, with this student (under FSDP it trains a copy)."""
    trained, training = objective.student, objective.training
    objective.student = student
    objective.eval()
    try:
        yield
    finally:
        objective.student = trained
        objective.train(training)
