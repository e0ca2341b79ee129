"""Evaluate a student on held-out text: masked-LM loss, and top-1 agreement with its teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.data.batches import Batches
from distilkit.encoders.forward import masked_token_logits
from distilkit.errors import DistilkitError
from distilkit.training.devices import device


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
