"""Turn a task's rows into batches: tokenise, shorten long texts, pad."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.data.blocks import SAMPLED_ROWS, check_known_tokens
from distilkit.encoders import checkpoint
from distilkit.encoders.forward import INPUTS
from distilkit.progress import warn
from distilkit.tasks.catalogue import Task
from distilkit.tasks.labels import label_to_target
from distilkit.tasks.settings import TaskSettings
from distilkit.tasks.tagging import LOST, PLACES, TAGS

TARGETS = ("labels", "start_positions", "end_positions")
WORD_COLUMNS = (PLACES, TAGS)  # with an entry for each word
OWNERS = "owners"  # batch key: the row number of each window
HEAD_TOKENS, TAIL_TOKENS = 128, 382  # of 510, with --long head-tail: Sun et al. 2019, section 5.3.1


def window_length(settings: TaskSettings, *models: PreTrainedModel) -> int:
    """Return the maximum tokens per example: that of the settings, limited to the models' positions."""
    limits = [limit for limit in map(checkpoint.max_tokens, models) if limit is not None]
    return min([settings.max_length, *limits])


def warn_if_shortened(settings: TaskSettings, length: int) -> None:
    """Warn if the model has fewer positions than the requested length."""
    if length < settings.max_length:
        warn(f"--max-length {settings.max_length} exceeds the model's positions: rows are cut to {length} tokens")


def encode(
    rows: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    max_length: int,
    long: str = "head",
) -> Dataset:
    """Tokenise rows of a classification, multi-label or regression task into `inputs` and, if present, `labels`.

    Rows are not padded. `long` is how rows of more than `max_length` tokens are shortened (split_tokens()). With
    "windows", each input of a row is a list of windows.
    """
    windows, truncate = long == "windows", long in (None, "head")
    segments = {"return_token_type_ids": "token_type_ids" in inputs, "return_attention_mask": True}

    def tokenise(batch: dict[str, list[Any]]) -> dict[str, Any]:
        texts = [list(map(str, batch[column])) for column in task.text]
        encoded = tokenizer(
            *texts, truncation=truncate, max_length=max_length if truncate else None, verbose=False, **segments
        )
        fields = dict(encoded)
        if not truncate:
            pieces = [_pieces(encoded, row, max_length, long) for row in range(len(texts[0]))]
            for name, column in encoded.items():
                cut = [
                    [[ids[i] for i in piece] for piece in of_row] for ids, of_row in zip(column, pieces, strict=True)
                ]
                fields[name] = cut if windows else [row[0] for row in cut]
        if task.label in batch:  # test splits have no labels
            fields["labels"] = [label_to_target(task, value) for value in batch[task.label]]
        return fields

    return rows.map(tokenise, batched=True, remove_columns=rows.column_names)


def _pieces(encoded: Any, row: int, max_length: int, long: str) -> list[Sequence[int]]:
    length = len(encoded["input_ids"][row])
    return [range(length)] if length <= max_length else split_tokens(encoded.sequence_ids(row), max_length, long)


def split_tokens(sequence_ids: Sequence[int | None], max_length: int, long: str) -> list[Sequence[int]]:
    """Return the token positions of each piece of a long text; every piece keeps the special tokens (id None).

    "head-tail" gives one piece: 128/510 of it from the beginning, the rest from the end. "windows" gives as few
    pieces of about equal length as hold all tokens, without overlap. Sun et al. 2019 (arXiv 1905.05583, section 5.3.1,
    table 2; BERT, IMDb) report test errors of 5.63 % for the first 510 tokens, 5.42 % for the first 128 and last 382,
    and 5.89 % for the mean over windows; they average hidden states, not logits.
    """
    first, last = sequence_ids.index(0), len(sequence_ids) - sequence_ids[::-1].index(0)
    before, after = range(first), range(last, len(sequence_ids))
    room = max_length - len(before) - len(after)
    if long == "head-tail":
        head = round(room * HEAD_TOKENS / (HEAD_TOKENS + TAIL_TOKENS))
        parts: list[Iterable[int]] = [[*range(first, first + head), *range(last - room + head, last)]]
    else:
        count = math.ceil((last - first) / room)
        bounds = [first + (last - first) * number // count for number in range(count + 1)]
        parts = [range(*pair) for pair in itertools.pairwise(bounds)]
    return [[*before, *part, *after] for part in parts]


def check_tokens(encoded: Dataset, tokenizer: PreTrainedTokenizerBase, name: str, *, required: bool = True) -> None:
    """Warn if many tokens of encoded rows are unknown (check_known_tokens)."""
    sample = encoded[:SAMPLED_ROWS]["input_ids"]
    ids = [window for row in sample for window in (row if row and isinstance(row[0], list) else [row])]
    check_known_tokens(ids, tokenizer, name, required=required)


def lengths(rows: Dataset) -> list[int]:
    """Return the number of tokens of each encoded row, summed over its windows."""
    return [sum(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids) for ids in rows["input_ids"]]


def collator(
    tokenizer: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase | None = None, prefix: str = ""
) -> Callable[..., dict[str, Tensor]]:
    """Return a collate function that pads encoded rows to the longest and stacks their targets.

    Columns that start with `prefix` hold the teacher's tokens and are padded with its tokenizer.
    """

    def collate(rows: list[dict[str, Any]], _: torch.Generator | None = None) -> dict[str, Tensor]:
        batch = _pad(rows, tokenizer, "")
        if teacher is not None:
            batch |= _pad(rows, teacher, prefix)
        batch |= {name: torch.tensor([row[name] for row in rows]) for name in TARGETS if name in rows[0]}
        return batch | {
            name: _pad_words(rows, name) for name in dict.fromkeys((*WORD_COLUMNS, prefix + PLACES)) if name in rows[0]
        }

    return collate


def _pad_words(rows: list[dict[str, Any]], name: str) -> Tensor:
    width = max(len(row[name]) for row in rows)
    return torch.tensor([[*row[name], *[LOST] * (width - len(row[name]))] for row in rows])  # (B, W)


def _pad(rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, prefix: str) -> dict[str, Tensor]:
    inputs = [{name: row[prefix + name] for name in INPUTS if prefix + name in row} for row in rows]
    owners = None
    if isinstance(inputs[0]["input_ids"][0], list):  # each row is a list of windows
        owners = torch.tensor([number for number, row in enumerate(inputs) for _ in row["input_ids"]])  # (W,)
        inputs = [dict(zip(row, window, strict=True)) for row in inputs for window in zip(*row.values(), strict=True)]
    width = max(len(row["input_ids"]) for row in inputs)
    fill = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}
    # Padding goes on the right because answer positions count from the left. tokenizer.pad() takes twice as long.
    batch = {
        prefix + name: torch.tensor([[*row[name], *[fill[name]] * (width - len(row[name]))] for row in inputs])
        for name in inputs[0]
    }  # (B, T) each
    return batch if owners is None else batch | {prefix + OWNERS: owners}
