"""SQuAD 1.1 and 2.0: windows in, best spans out.

Follows transformers' run_qa.py: a long context becomes overlapping windows; where a window lacks the answer, CLS is it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distilkit.errors import DistilkitError

FEATURES = Features(
    {
        "id": Value("string"),
        "title": Value("string"),
        "context": Value("string"),
        "question": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
)


def flatten(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Turn SQuAD's original nested JSON into rows with the hub's columns."""
    return [
        {
            "id": question["id"],
            "title": article.get("title", ""),
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {
                "text": [answer["text"] for answer in question["answers"]],
                "answer_start": [answer["answer_start"] for answer in question["answers"]],
            },
        }
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def encode(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    max_length: int,
    stride: int,
    *,
    training: bool,
) -> Dataset:
    """Cut rows into windows of at most `max_length` tokens, neighbours sharing `stride` tokens of the context.

    Training windows carry start_positions and end_positions; the others carry `row`, `offsets` (T, 2) into the
    context, and `context`, the first and last token that belongs to it.
    Raises DistilkitError where the stride leaves no room, and where an answer isn't where its row says.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    longest = (max_length - stride - special) // 2  # tokens of a question; SQuAD's longest has half of that
    if longest < 1:
        raise DistilkitError(f"--stride {stride} leaves no room in windows of {max_length} tokens: give a smaller one")

    def cut(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        encoded = tokenizer(
            _shorten(batch["question"], tokenizer, longest),
            batch["context"],
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids="token_type_ids" in inputs,
            return_attention_mask=True,
        )
        windows = {name: encoded[name] for name in inputs}
        owners = encoded["overflow_to_sample_mapping"]
        contexts = [_context(encoded.sequence_ids(window)) for window in range(len(owners))]
        if not training:
            return windows | {
                "row": [numbers[owner] for owner in owners],
                "offsets": encoded["offset_mapping"],
                "context": contexts,
            }
        spans = []
        for window, owner in enumerate(owners):
            answer = _answer(batch, owner)
            offsets = np.array(encoded["offset_mapping"][window])
            cls = encoded["input_ids"][window].index(tokenizer.cls_token_id)
            spans.append(find(answer, offsets, contexts[window]) or (cls, cls))
        return windows | {"start_positions": [span[0] for span in spans], "end_positions": [span[1] for span in spans]}

    return rows.map(cut, batched=True, with_indices=True, remove_columns=rows.column_names)


def _shorten(questions: list[str], tokenizer: PreTrainedTokenizerBase, longest: int) -> list[str]:
    """Cut questions after `longest` tokens: only contexts go over several windows."""
    questions = [question.lstrip() for question in questions]  # some have blanks that would fill a window
    offsets = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]
    return [
        question[: tokens[longest - 1][1]] if len(tokens) > longest else question
        for question, tokens in zip(questions, offsets, strict=True)
    ]


def _context(sequence_ids: list[int | None]) -> tuple[int, int]:
    """Return the first and last token of the context, (1, 0) where a window holds none of it."""
    places = [place for place, sequence in enumerate(sequence_ids) if sequence == 1]
    return (places[0], places[-1]) if places else (1, 0)


def _answer(batch: dict[str, list[Any]], row: int) -> tuple[int, int] | None:
    """Return the characters of a row's first answer, None where it has none."""
    answers, context = batch["answers"][row], batch["context"][row]
    if not answers["text"]:
        return None
    text, start = answers["text"][0], answers["answer_start"][0]
    if context[start : start + len(text)] != text:
        raise DistilkitError(
            f"answer {text!r} of question '{batch['id'][row]}' is not at character {start} of its context: mend --data"
        )
    return start, start + len(text)


def find(answer: tuple[int, int] | None, offsets: np.ndarray, context: tuple[int, int]) -> tuple[int, int] | None:
    """Return the first and last token of an answer in a window, None where it isn't wholly inside.

    `answer` is a half-open range of characters, `offsets` (T, 2) are each token's.
    """
    first, last = context
    if answer is None or first > last or offsets[first, 0] > answer[0] or offsets[last, 1] < answer[1]:
        return None
    starts, ends = offsets[first : last + 1].T
    return (
        first + int(np.searchsorted(starts, answer[0], side="right")) - 1,
        first + int(np.searchsorted(ends, answer[1], side="left")),
    )


def best_spans(
    start_logits: Tensor, end_logits: Tensor, context: Tensor, *, n_best: int, max_answer_length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return first token, last token and score (B,) of each window's best span; logits (B, T), context (B, 2).

    A span starts at one of the window's `n_best` starts, ends at one of its `n_best` ends, lies in the context and has
    at most `max_answer_length` tokens; its score is the sum of two logits, -inf where there is no such span.
    """
    width = start_logits.shape[1]
    places = torch.arange(width, device=context.device)
    outside = (places < context[:, :1]) | (places > context[:, 1:])  # (B, T)
    starts = start_logits.float().masked_fill(outside, -torch.inf).topk(min(n_best, width))  # (B, N) each
    ends = end_logits.float().masked_fill(outside, -torch.inf).topk(min(n_best, width))
    length = ends.indices[:, None, :] - starts.indices[:, :, None] + 1  # (B, N, N)
    score = starts.values[:, :, None] + ends.values[:, None, :]
    score = score.masked_fill((length < 1) | (length > max_answer_length), -torch.inf).flatten(1)
    best = score.max(dim=1)
    count = ends.indices.shape[1]
    first = starts.indices.gather(1, best.indices[:, None] // count).squeeze(1)
    last = ends.indices.gather(1, best.indices[:, None] % count).squeeze(1)
    return first, last, best.values


def answers(rows: Dataset, windows: Dataset, spans: np.ndarray) -> tuple[dict[str, str], dict[str, float]]:
    """Turn each window's (first, last, score, null score), spans (W, 4), into a text a question and its null odds.

    The best span over a question's windows wins, "" where there is none; the odds are by how much the lowest null score
    over its windows exceeds the span's. Returns {id: text}, {id: odds}.
    """
    owners = np.asarray(windows["row"][:])
    best = np.lexsort((-spans[:, 2], owners))[np.r_[True, np.diff(np.sort(owners)) > 0]]  # (N,): a window a question
    null = np.full(len(rows), np.inf)
    np.minimum.at(null, owners, spans[:, 3])
    picked = rows.select(owners[best])
    offsets = windows.select_columns("offsets").select(best)
    texts, odds = {}, {}
    for key, context, places, (first, last, score, _), row in zip(
        picked["id"], picked["context"], offsets["offsets"], spans[best].tolist(), owners[best], strict=True
    ):
        there = score > -np.inf
        texts[key] = context[places[int(first)][0] : places[int(last)][1]] if there else ""
        odds[key] = float(null[row] - score)
    return texts, odds
