"""SQuAD 1.1 and 2.0: cut contexts into windows; turn logits into answers.

Follows transformers' run_qa.py: a long context becomes overlapping windows, and a window without the answer has the
CLS token (else BOS, else the first token) as its target.
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
    """Turn SQuAD's original nested JSON into rows with the columns of the hub's data set."""
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
    """Cut rows into windows of at most `max_length` tokens; neighbouring windows share `stride` context tokens.

    Training windows have start_positions and end_positions. Other windows have `row`, the row number; `offsets`
    (T, 2), character ranges in the context; and `context`, the first and last token of the context.
    Raises DistilkitError if the stride leaves no room, or if an answer's text is not at its start in the context.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    max_question = (max_length - stride - special) // 2  # tokens; with the defaults, twice SQuAD's longest question
    if max_question < 1:
        raise DistilkitError(f"--stride {stride} leaves no room in windows of {max_length} tokens: lower --stride")

    def cut(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        encoded = tokenizer(
            _shorten(batch["question"], tokenizer, max_question),
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
        contexts = [_context_tokens(encoded.sequence_ids(window)) for window in range(len(owners))]
        if not training:
            return windows | {
                "row": [numbers[owner] for owner in owners],
                "offsets": encoded["offset_mapping"],
                "context": contexts,
            }
        spans = []
        for window, owner in enumerate(owners):
            answer = _answer_characters(batch, owner)
            offsets = np.array(encoded["offset_mapping"][window])
            cls = no_answer_token(encoded["input_ids"][window], tokenizer)
            spans.append(answer_tokens(answer, offsets, contexts[window]) or (cls, cls))
        return windows | {"start_positions": [span[0] for span in spans], "end_positions": [span[1] for span in spans]}

    return rows.map(cut, batched=True, with_indices=True, remove_columns=rows.column_names)


def no_answer_token(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the position in a window that stands for "no answer": that of CLS, else of BOS, else the first."""
    specials = (tokenizer.cls_token_id, tokenizer.bos_token_id)
    return next((ids.index(special) for special in specials if special in ids), 0)


def _shorten(questions: list[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[str]:
    """Cut questions after `max_tokens` tokens: every window holds the whole question."""
    questions = [question.lstrip() for question in questions]  # some of SQuAD's start with many spaces
    offsets = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]
    return [
        question[: tokens[max_tokens - 1][1]] if len(tokens) > max_tokens else question
        for question, tokens in zip(questions, offsets, strict=True)
    ]


def _context_tokens(sequence_ids: list[int | None]) -> tuple[int, int]:
    """Return the first and last token of the context in a window; (1, 0) if there is none."""
    positions = [position for position, sequence in enumerate(sequence_ids) if sequence == 1]
    return (positions[0], positions[-1]) if positions else (1, 0)


def _answer_characters(batch: dict[str, list[Any]], row: int) -> tuple[int, int] | None:
    """Return the character range of a row's first answer; None if the row has no answer."""
    answers, context = batch["answers"][row], batch["context"][row]
    if not answers["text"]:
        return None
    text, start = answers["text"][0], answers["answer_start"][0]
    if context[start : start + len(text)] != text:
        raise DistilkitError(
            f"answer {text!r} of question '{batch['id'][row]}' is not at character {start} of its context: fix --data"
        )
    return start, start + len(text)


def answer_tokens(
    answer: tuple[int, int] | None, offsets: np.ndarray, context: tuple[int, int]
) -> tuple[int, int] | None:
    """Return the first and last token of an answer in a window; None if the window does not contain all of it.

    `answer` is a half-open character range, `offsets` (T, 2) the character range of each token.
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
    """Return the first token, last token and score of each window's best span, each (B,).

    Logits are (B, T); context (B, 2) is the first and last context token. A span starts at one of the window's `n_best`
    starts, ends at one of its `n_best` ends, lies in the context and has at most `max_answer_length` tokens. Its score
    is the sum of both logits; -inf if there is no such span.
    """
    width = start_logits.shape[1]
    positions = torch.arange(width, device=context.device)
    outside = (positions < context[:, :1]) | (positions > context[:, 1:])  # (B, T)
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


def best_answers(rows: Dataset, windows: Dataset, spans: np.ndarray) -> tuple[dict[str, str], dict[str, float]]:
    """Return the answer text and the null odds of each question: {id: text}, {id: odds}.

    `spans` (W, 4) holds first token, last token, score and null score of each window. A question's answer is the best
    span of its windows, "" if there is none. Its odds are the lowest null score of its windows minus the span's score.
    """
    owners = np.asarray(windows["row"][:])
    best = np.lexsort((-spans[:, 2], owners))[np.r_[True, np.diff(np.sort(owners)) > 0]]  # (N,): best window of each
    null = np.full(len(rows), np.inf)
    np.minimum.at(null, owners, spans[:, 3])
    answered = rows.select(owners[best])
    offsets = windows.select_columns("offsets").select(best)
    texts, odds = {}, {}
    for key, context, ranges, (first, last, score, _), row in zip(
        answered["id"], answered["context"], offsets["offsets"], spans[best].tolist(), owners[best], strict=True
    ):
        has_span = score > -np.inf
        texts[key] = context[ranges[int(first)][0] : ranges[int(last)][1]] if has_span else ""
        odds[key] = float(null[row] - score)
    return texts, odds
