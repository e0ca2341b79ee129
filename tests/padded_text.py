"""A batch of masked text with padding."""

import torch
from torch import Tensor


def padded_batch(seed: int) -> dict[str, Tensor]:
    """Return three sequences of 12, 9 and 5 tokens with about one token in three to predict."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 400, (3, 12), generator=generator)
    mask = (torch.arange(12) < torch.tensor([[12], [9], [5]])).long()
    chosen = (torch.rand(3, 12, generator=generator) < 0.35) & mask.bool()
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.where(chosen, ids, -100)}
