"""From a task's rows to batches: tokens, what is read of a long text, and padding."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint
from distilkit.options.tasks import TaskOptions
from distilkit.progress import warn
from distilkit.tasks.catalogue import Task
from distilkit.tasks.labels import label_to_target

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TARGETS = ("labels", "start_positions", "end_positions")
OWNERS = "owners"  # the row that each window of a batch was cut from
HEAD, TAIL = 128, 382  # tokens kept of a long text's beginning and end, of 510: Sun et al. 2019, section 5.3.1


def input_names(model: PreTrainedModel) -> tuple[str, ...]:
    """List the tensors that a model takes: token_type_ids only where it tells two segments apart.

    The model is asked, not the tokenizer: since transformers 5 one of no class of its own names no token_type_ids.
    """
    takes = set(inspect.signature(model.forward).parameters)
    if getattr(model.config, "type_vocab_size", None) in (None, 0, 1):
        takes -= {"token_type_ids"}
    return tuple(name for name in INPUTS if name in takes)


def window_length(task: Task, config: TaskOptions, *models: PreTrainedModel) -> int:
    """Return the tokens per example: --max-length or the task's, no more than every model has positions for."""
    limits = [limit for limit in map(checkpoint.max_tokens, models) if limit is not None]
    return min([config.max_length or task.max_length, *limits])


def say_cut(task: Task, config: TaskOptions, length: int) -> None:
    """Warn where a model has positions for fewer tokens than asked for."""
    if length < (wanted := config.max_length or task.max_length):
        warn(f"--max-length {wanted} is more than the model has positions for: rows are cut to {length} tokens")


def encode(
    rows: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    max_length: int,
    long: str | None = "head",
) -> Dataset:
    """Tokenise rows of a classification, multi-label or regression task: `inputs`, and `labels` if any, not padded.

    `long` says what becomes of a row of more than `max_length` tokens (cut()). With "windows" every row's inputs are
    lists, one a window.
    """
    windows, whole = long == "windows", long in (None, "head")
    segments = {"return_token_type_ids": "token_type_ids" in inputs, "return_attention_mask": True}

    def tokenise(batch: dict[str, list[Any]]) -> dict[str, Any]:
        texts = [list(map(str, batch[column])) for column in task.text]
        encoded = tokenizer(
            *texts, truncation=whole, max_length=max_length if whole else None, verbose=False, **segments
        )
        fields = dict(encoded)
        if not whole:
            places = [_places(encoded, row, max_length, str(long)) for row in range(len(texts[0]))]
            for name, column in encoded.items():
                pieces = [[[ids[i] for i in piece] for piece in cuts] for ids, cuts in zip(column, places, strict=True)]
                fields[name] = pieces if windows else [piece[0] for piece in pieces]
        if task.label in batch:  # a test split keeps them to itself
            fields["labels"] = [label_to_target(task, value) for value in batch[task.label]]
        return fields

    return rows.map(tokenise, batched=True, remove_columns=rows.column_names)


def _places(encoded: Any, row: int, max_length: int, long: str) -> list[Sequence[int]]:
    length = len(encoded["input_ids"][row])
    return [range(length)] if length <= max_length else cut(encoded.sequence_ids(row), max_length, long)


def cut(sequence_ids: Sequence[int | None], max_length: int, long: str) -> list[Sequence[int]]:
    """Return which tokens of a text that is too long each piece of it keeps, special tokens (None) round every one.

    "head-tail" keeps one piece, 128 parts of 510 from the beginning and the rest from the end; "windows" as many as it
    takes, of about the same length, sharing nothing. Sun et al. 2019 (arXiv 1905.05583, section 5.3.1, table 2; BERT,
    IMDb) report test errors of 5.63 % for the first 510 tokens alone, 5.42 % for the first 128 and the last 382, and
    5.89 % for the mean over such pieces, which they take of hidden states, not of logits.
    """
    first, last = sequence_ids.index(0), len(sequence_ids) - sequence_ids[::-1].index(0)
    before, after = range(first), range(last, len(sequence_ids))
    room = max_length - len(before) - len(after)
    if long == "head-tail":
        head = round(room * HEAD / (HEAD + TAIL))
        parts: list[Iterable[int]] = [[*range(first, first + head), *range(last - room + head, last)]]
    else:
        count = math.ceil((last - first) / room)
        bounds = [first + (last - first) * number // count for number in range(count + 1)]
        parts = [range(*pair) for pair in itertools.pairwise(bounds)]
    return [[*before, *part, *after] for part in parts]


def lengths(rows: Dataset) -> list[int]:
    """Return the tokens of each encoded row, over all of its windows."""
    return [sum(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids) for ids in rows["input_ids"]]


def collator(
    tokenizer: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase | None = None, prefix: str = ""
) -> Callable[..., dict[str, Tensor]]:
    """Return the collate function that pads encoded rows to the longest and stacks their targets.

    Rows that hold a teacher's tokens too, under names that begin with `prefix`, are padded with its tokenizer.
    """

    def collate(rows: list[dict[str, Any]], _: torch.Generator | None = None) -> dict[str, Tensor]:
        batch = _pad(rows, tokenizer, "")
        if teacher is not None:
            batch |= _pad(rows, teacher, prefix)
        return batch | {name: torch.tensor([row[name] for row in rows]) for name in TARGETS if name in rows[0]}

    return collate


def _pad(rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, prefix: str) -> dict[str, Tensor]:
    inputs = [{name: row[prefix + name] for name in INPUTS if prefix + name in row} for row in rows]
    owners = None
    if isinstance(inputs[0]["input_ids"][0], list):  # a list of windows a row
        owners = torch.tensor([place for place, row in enumerate(inputs) for _ in row["input_ids"]])  # (W,)
        inputs = [dict(zip(row, window, strict=True)) for row in inputs for window in zip(*row.values(), strict=True)]
    width = max(len(row["input_ids"]) for row in inputs)
    fill = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}
    # on the right, because the positions of answers are counted from the left; tokenizer.pad() takes twice as long
    batch = {
        prefix + name: torch.tensor([[*row[name], *[fill[name]] * (width - len(row[name]))] for row in inputs])
        for name in inputs[0]
    }  # (B, T) each
    return batch if owners is None else batch | {prefix + OWNERS: owners}
