"""Held-out loss and agreement against full logits."""

import pytest
import torch
import torch.nn.functional as F
from padded_text import padded_batch
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.distillation.heldout import HeldoutEvaluator


class TwoBatches:
    """Two batches of padded text."""

    rows = range(6)
    per_epoch = 2

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return padded_batch(number)


def test_loss_and_agreement_by_hand(berts: tuple[tuple[PreTrainedModel, PreTrainedModel], ...]) -> None:
    """Both are means over the masked tokens of all batches; the student stays in training mode."""
    (student, teacher), _ = berts
    student.train()
    evaluator = HeldoutEvaluator(TwoBatches(), teacher)  # type: ignore[arg-type]
    found = evaluator.evaluate(student)
    assert student.training

    student.eval()
    batches = [padded_batch(number) for number in range(2)]
    masked = [batch["labels"] != -100 for batch in batches]
    inputs = [{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in batches]
    with torch.no_grad():
        mine, theirs = (
            torch.cat([model(**given).logits[where] for given, where in zip(inputs, masked, strict=True)])
            for model in (student, teacher)
        )
    labels = torch.cat([batch["labels"][where] for batch, where in zip(batches, masked, strict=True)])
    assert evaluator.masked_tokens == len(labels)
    assert found["heldout_loss"] == pytest.approx(F.cross_entropy(mine, labels).item(), rel=1e-5)
    assert found["heldout_agreement"] == pytest.approx((mine.argmax(-1) == theirs.argmax(-1)).float().mean().item())


def test_no_agreement_without_a_teacher(berts: tuple[tuple[PreTrainedModel, PreTrainedModel], ...]) -> None:
    """Masked LM alone has a held-out loss only."""
    (student, _), _ = berts

    assert set(HeldoutEvaluator(TwoBatches(), None).evaluate(student)) == {"heldout_loss"}  # type: ignore[arg-type]
