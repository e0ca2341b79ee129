"""How good a student is at text kept apart: its masked-LM loss, and how often it says what its teacher says."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.data.batches import Batches
from distilkit.encoders.forward import masked_lm_logits
from distilkit.training.devices import device


class HeldoutEvaluator:
    """Examines a student on text kept apart, always masked alike; the teacher is asked once, when it is made."""

    def __init__(self, batches: Batches, teacher: PreTrainedModel | None) -> None:
        self.rows, self.batches = batches.rows, [batches[number] for number in range(batches.per_epoch)]
        self.answers = None if teacher is None else self.ask(teacher)

    @property
    def asked(self) -> int:
        """The number of masked tokens."""
        return sum(int((batch["labels"] != -100).sum()) for batch in self.batches)

    def ask(self, teacher: PreTrainedModel) -> Tensor:
        """Return the teacher's first choice at every masked token."""
        return torch.cat([logits.argmax(-1) for logits, _ in self._predict(teacher.eval().to(device()))])

    @torch.no_grad()
    def _predict(self, model: PreTrainedModel) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits (M, V) and labels (M,) of each batch's masked tokens."""
        for batch in self.batches:
            inputs = send_to_device(batch, next(model.parameters()).device)
            labels = inputs.pop("labels").flatten()
            masked = (labels != -100).nonzero().squeeze(-1)
            yield masked_lm_logits(model, inputs, masked)[1].float(), labels[masked]

    def examine(self, student: PreTrainedModel) -> dict[str, float]:
        """Return the mean masked-LM loss and, with a teacher, the share of masked tokens that both predict alike."""
        training = student.training
        student.eval()
        loss, agreed, count = 0.0, 0.0, 0
        for logits, labels in self._predict(student):
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            if self.answers is not None:
                agreed += float((logits.argmax(-1) == self.answers[count : count + len(labels)]).sum())
            count += len(labels)
        student.train(training)
        agreement = {} if self.answers is None else {"heldout_agreement": agreed / count}
        return {"heldout_loss": loss / count} | agreement
