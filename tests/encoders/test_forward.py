"""Logits at masked tokens only, and logits averaged over windows."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM

from distilkit.encoders.forward import masked_token_logits, mean_over_windows


def test_mean_over_windows() -> None:
    """Each row gets the mean of its own windows, whatever their order."""
    logits, owners = torch.tensor([[1.0, 0.0], [5.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0, 1])

    assert mean_over_windows(logits, owners, 2).tolist() == [[5.0, 2.0], [2.0, 2.0]]


def test_logits_at_masked_tokens_are_those_of_the_whole_model(make_checkpoint: Callable[..., Path]) -> None:
    """Logits and labels equal those of a plain forward pass at the same tokens, with padding too; no gradient."""
    model = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 2)).eval()
    generator = torch.Generator().manual_seed(0)
    ids, mask = torch.randint(5, 400, (3, 16), generator=generator), torch.ones(3, 16, dtype=torch.long)
    mask[1, 9:] = 0
    labels = torch.where((torch.rand(3, 16, generator=generator) < 0.3) & mask.bool(), ids, -100)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    logits, targets = masked_token_logits(model, batch)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits[labels != -100]

    torch.testing.assert_close(logits, expected)
    assert torch.equal(targets, labels[labels != -100])
    assert not logits.requires_grad
    assert "labels" in batch
