"""How good a student is at text kept apart: its masked-LM loss, and how often it says what its teacher says."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.processes import device
from distilkit.states import logits_at
from distilkit.training import Batches


class Examiner:
    """Examines a student on text kept apart, always masked alike; the teacher is asked once, when it is made."""

    def __init__(self, batches: Batches, teacher: PreTrainedModel | None) -> None:
        self.batches = [batches[number] for number in range(batches.per_epoch)]
        self.answers: list[Tensor] = []
        if teacher is not None:
            teacher.eval().to(device())
            self.answers = [logits.argmax(-1) for logits, _ in self._predict(teacher)]

    @torch.no_grad()
    def _predict(self, model: PreTrainedModel) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits (M, V) and labels (M,) of each batch's masked tokens."""
        for batch in self.batches:
            inputs = send_to_device(batch, next(model.parameters()).device)
            labels = inputs.pop("labels").flatten()
            masked = (labels != -100).nonzero().squeeze(-1)
            yield logits_at(model, inputs, masked)[1].float(), labels[masked]

    def examine(self, student: PreTrainedModel) -> dict[str, float]:
        """Return the mean masked-LM loss and, with a teacher, the share of masked tokens that both predict alike."""
        training = student.training
        student.eval()
        loss = agreed = count = 0.0
        for number, (logits, labels) in enumerate(self._predict(student)):
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            agreed += float((logits.argmax(-1) == self.answers[number]).sum()) if self.answers else 0.0
            count += len(labels)
        student.train(training)
        return {"heldout_loss": loss / count} | ({"heldout_agreement": agreed / count} if self.answers else {})
