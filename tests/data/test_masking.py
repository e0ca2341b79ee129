"""Mask tokens in the published proportions, independently of the batch."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from distilkit.data.masking import make_collate, mask_tokens


def generators(count: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * seed + row) for row in range(count)]


def test_masking_is_80_10_10_of_exactly_15_percent(tokenizer: PreTrainedTokenizerFast) -> None:
    """Over 200,000 tokens, the number of targets is exact, and the three outcomes lie within 4 standard deviations."""
    ids = torch.randint(5, 400, (1000, 200), generator=torch.Generator().manual_seed(3))
    ids[:, 0], ids[:, -1] = 2, 3
    corrupted, labels = mask_tokens(ids, tokenizer, 0.15, generators(1000, seed=4))
    targets = labels != -100
    count = int(targets.sum())

    assert count == 30_000
    assert not targets[:, 0].any()
    assert not targets[:, -1].any()
    assert torch.equal(labels[targets], ids[targets])
    assert torch.equal(corrupted[~targets], ids[~targets])
    masked, kept = (corrupted[targets] == 4).sum().item(), (corrupted[targets] == ids[targets]).sum().item()
    assert masked == pytest.approx(0.8 * count, abs=4 * (0.8 * 0.2 * count) ** 0.5)
    assert kept == pytest.approx(0.1 * count, abs=4 * (0.1 * 0.9 * count) ** 0.5 + 0.1 * count / 400)
    assert (targets.sum(1) == 30).all()
    assert targets.sum(0)[1:-1].float().std().item() < 1.2 * (1000 * 30 / 198) ** 0.5  # evenly over the places


def test_masks_belong_to_the_row(tokenizer: PreTrainedTokenizerFast) -> None:
    """Equal seeds give equal masks, other seeds others, whatever the batch and its padding. Padding is never masked."""
    ids = torch.randint(5, 400, (4, 50), generator=torch.Generator().manual_seed(0))
    ids[:, 25:] = 0
    first, again, other = (mask_tokens(ids, tokenizer, 0.2, generators(4, seed=seed)) for seed in (1, 1, 2))
    alone = mask_tokens(ids[2:3, :25], tokenizer, 0.2, generators(4, seed=1)[2:3])

    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(first[0][2:3, :25], alone[0])
    assert torch.equal(first[1][2:3, :25], alone[1])
    assert (first[1] != -100).sum(1).tolist() == [5, 5, 5, 5]
    assert (first[0][:, 25:] == 0).all()


def test_rows_of_one_length_have_no_attention_mask(tokenizer: PreTrainedTokenizerFast) -> None:
    """Without padding there is no attention_mask, whether rows are lists or arrays."""
    collate = make_collate(tokenizer, 0.15)
    rows = [{"input_ids": [2, 10 + n, 20 + n, 3]} for n in range(3)]
    batch = collate(rows, generators(3, 0))

    assert batch.keys() == {"input_ids", "labels"}
    assert batch["input_ids"].shape == (3, 4)


def test_rows_are_padded_to_the_longest_of_their_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    """Hand-computed: the attention_mask covers each row's tokens. PAD, CLS and SEP are never targets; all other
    tokens can be.
    """
    rows = [{"input_ids": np.array([2, *range(10, 10 + n), 3], dtype=np.uint16)} for n in (4, 1, 7)]
    targets = torch.zeros(3, 9)
    for seed in range(200):
        batch = make_collate(tokenizer, 0.3)(rows, generators(3, seed))
        assert batch["attention_mask"].tolist() == [[1] * 6 + [0] * 3, [1] * 3 + [0] * 6, [1] * 9]
        assert (batch["labels"] != -100).sum(1).tolist() == [2, 1, 3]  # 0.3 of 6, 3 and 9 tokens, rounded up
        assert all(batch["input_ids"][i, n + 2 :].eq(0).all() for i, n in enumerate((4, 1, 7)))
        targets += batch["labels"] != -100

    content = torch.tensor([[0, *[1] * n, 0, *[0] * (7 - n)] for n in (4, 1, 7)])
    assert torch.equal(targets > 0, content > 0)
