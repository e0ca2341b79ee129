"""Mask tokens and build the labels of masked language modelling."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distilkit.data.packing import Ids


def mask_tokens(
    input_ids: Tensor, tokenizer: PreTrainedTokenizerBase, probability: float, generators: list[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Mask a batch (Devlin et al. 2018, section 3.1); return (corrupted ids, labels), each (B, T).

    In each row, ⌈probability · tokens⌉ non-special tokens become targets, none with probability 0. They are drawn
    uniformly with the row's own generator, so masks do not depend on the batch size. Of the targets, 80 % become MASK,
    10 % a random id, and 10 % stay. All other labels are -100.
    """
    if not probability:
        return input_ids, torch.full_like(input_ids, -100)
    length = input_ids.shape[1]
    draws = torch.stack([torch.rand(length, 3, generator=generator) for generator in generators])  # (B, T, 3)
    special = torch.isin(input_ids, torch.tensor(tokenizer.all_special_ids))
    tokens = (input_ids != (-1 if tokenizer.pad_token_id is None else tokenizer.pad_token_id)).sum(1)  # (B,)
    counts = torch.minimum((probability * tokens - 1e-6).ceil(), (~special).sum(1))  # (B,)
    order, fate, word = draws.masked_fill(special.unsqueeze(-1), -1.0).unbind(-1)
    rank = order.argsort(1, descending=True).argsort(1)  # (B, T): place of each token in its row's draw
    target = rank < counts.unsqueeze(1)
    labels = input_ids.where(target, -100)
    corrupted = input_ids.masked_fill(target & (fate < 0.8), int(tokenizer.mask_token_id))
    words = (word.double() * len(tokenizer)).long()
    return words.where(target & (fate >= 0.9), corrupted), labels


def make_collate(
    tokenizer: PreTrainedTokenizerBase, probability: float
) -> Callable[[list[dict[str, Any]], list[torch.Generator]], dict[str, Tensor]]:
    """Return the collate function that stacks packed rows and masks them.

    Rows of different lengths are padded to the longest, and the batch then has an attention_mask.
    """

    def collate(rows: list[dict[str, Any]], generators: list[torch.Generator]) -> dict[str, Tensor]:
        batch = pad_rows([row["input_ids"] for row in rows], tokenizer)
        corrupted, labels = mask_tokens(batch["input_ids"], tokenizer, probability, generators)
        return batch | {"input_ids": corrupted, "labels": labels}

    return collate


def pad_rows(rows: list[Ids], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Stack rows of token ids (B, T). Rows of different lengths are padded, with an attention_mask."""
    lengths = np.array([len(ids) for ids in rows])
    ids = np.concatenate(rows).astype(np.int64)
    if (lengths == lengths[0]).all():
        return {"input_ids": torch.from_numpy(ids.reshape(len(rows), -1))}
    present = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
    padded = np.full(present.shape, tokenizer.pad_token_id)
    padded[present] = ids
    return {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(present.astype(np.int64))}
