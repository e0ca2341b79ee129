"""SQuAD: windows compared with the characters they cover, spans with an exhaustive search."""

from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.tasks import squad

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def rows(prose: list[str]) -> Dataset:
    """Three questions about a long context: an early answer, a late answer, no answer."""
    context = " ".join(prose[:12])
    words = context.split()
    early, late = " ".join(words[3:5]), " ".join(words[-4:-2])
    spots = [(early, context.index(early)), (late, context.rindex(late))]
    answers = [{"text": [text], "answer_start": [start]} for text, start in spots]
    nothing = {"text": [], "answer_start": []}
    return Dataset.from_list(
        [
            {"id": f"q{n}", "question": f"  what is it {n}?", "context": context, "answers": answer}
            for n, answer in enumerate([*answers, nothing])
        ]
    )


def test_windows_cover_the_context(rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    """The windows of a row cover its whole context; neighbours share `stride` tokens."""
    windows = squad.encode(rows, tokenizer, INPUTS, 64, 16, training=False)
    mine = [window for window in windows if window["row"] == 1]
    parts = [window["offsets"][window["context"][0] : window["context"][1] + 1] for window in mine]
    assert len(mine) > 2
    assert all(len(window["input_ids"]) <= 64 for window in mine)
    assert all(left[-16:] == right[:16] for left, right in pairwise(parts))
    covered = parts[0] + [token for part in parts[1:] for token in part[16:]]
    whole = tokenizer(rows[1]["context"], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    assert [tuple(token) for token in covered] == whole["offset_mapping"]


def test_training_positions_are_the_answer(rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    """The positions mark the answer if the window contains it, otherwise the CLS token."""
    trained = squad.encode(rows, tokenizer, INPUTS, 64, 16, training=True)
    windows = squad.encode(rows, tokenizer, INPUTS, 64, 16, training=False)
    found = {0: [], 1: [], 2: []}
    for window, positions in zip(windows, trained, strict=True):
        first, last = positions["start_positions"], positions["end_positions"]
        if (first, last) != (0, 0):
            offsets = window["offsets"]
            text = rows[window["row"]]["context"][offsets[first][0] : offsets[last][1]]
            found[window["row"]].append(text)
    for row in (0, 1):
        assert set(found[row]) == set(rows[row]["answers"]["text"])
    assert found[2] == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((2, 5), (1, 1)),
        ((2, 9), (1, 2)),
        ((3, 4), (1, 1)),
        ((0, 5), None),
        ((10, 14), None),
        ((10, 12), (3, 3)),
        (None, None),
    ],
)
def test_answer_tokens(answer: tuple[int, int] | None, expected: tuple[int, int] | None) -> None:
    """The span is the tokens that contain the answer's characters; an answer partly outside the window has none."""
    offsets = np.array([(0, 0), (2, 5), (6, 9), (10, 12), (0, 0)])
    assert squad.answer_tokens(answer, offsets, (1, 3)) == expected


def test_best_spans_agree_with_a_search_of_every_pair() -> None:
    """With n_best as large as the window, the best span is that of an exhaustive search."""
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(8, 12, generator=generator), torch.randn(8, 12, generator=generator)
    context = torch.tensor([(2 + n % 3, 11 - n % 4) for n in range(8)])
    first, last, score = squad.best_spans(start, end, context, n_best=12, max_answer_length=3)
    for row in range(8):
        low, high = context[row].tolist()
        pairs = [(a, b) for a, b in product(range(low, high + 1), repeat=2) if 0 <= b - a < 3]
        best = max(pairs, key=lambda pair: float(start[row, pair[0]] + end[row, pair[1]]))
        assert (int(first[row]), int(last[row])) == best
        assert float(score[row]) == pytest.approx(float(start[row, best[0]] + end[row, best[1]]))


def test_best_spans_combine_only_the_n_best() -> None:
    """With n_best 1, there is a span only if the best start and the best end form one."""
    start, end = torch.tensor([[0.0, 1.0, 5.0, 0.0]]), torch.tensor([[0.0, 4.0, 1.0, 0.0]])
    limits = {"max_answer_length": 4}
    assert squad.best_spans(start, end, torch.tensor([[1, 3]]), n_best=1, **limits)[2].item() == -torch.inf
    first, last, score = squad.best_spans(start, end, torch.tensor([[1, 3]]), n_best=2, **limits)
    assert (first.item(), last.item(), score.item()) == (2, 2, 6.0)


def test_best_spans_of_a_window_without_context() -> None:
    """A window without context has no span."""
    logits = torch.zeros(1, 4)
    assert (
        squad.best_spans(logits, logits, torch.tensor([[1, 0]]), n_best=4, max_answer_length=4)[2].item() == -torch.inf
    )


def test_best_answers() -> None:
    """The answer is that of the best window, the first if scores are equal; windows may come in any order.

    The null odds use the lowest null score of a question's windows.
    """
    rows = Dataset.from_list([{"id": "p", "context": "one two"}, {"id": "q", "context": "a red fox"}])
    fox, one = [[0, 0], [0, 1], [2, 5], [6, 9]], [[0, 0], [0, 3], [4, 7]]
    windows = Dataset.from_list([{"row": row, "offsets": offsets} for row, offsets in ((1, fox), (0, one), (1, fox))])
    spans = np.array([(2, 3, 4.0, 5.0), (1, 1, 2.0, 0.5), (1, 1, 4.0, 4.5)])
    assert squad.best_answers(rows, windows, spans) == ({"p": "one", "q": "red fox"}, {"p": -1.5, "q": 0.5})


def test_the_answer_is_empty_without_a_span() -> None:
    """If none of a question's windows has a span, the answer is empty, in SQuAD 1.1 too."""
    rows = Dataset.from_list([{"id": "q", "context": "a"}])
    windows = Dataset.from_list([{"row": 0, "offsets": [[0, 0]]}])
    assert squad.best_answers(rows, windows, np.array([(0, 0, -np.inf, 1.0)])) == ({"q": ""}, {"q": np.inf})


def test_flatten() -> None:
    """The original nested JSON becomes rows with the hub's columns; SQuAD 2.0's questions may have no answer."""
    qas = [
        {"id": "1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 0}]},
        {"id": "2", "question": "why?", "answers": [], "is_impossible": True, "plausible_answers": []},
    ]
    document = {"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"context": "Ann left.", "qas": qas}]}]}
    shared = {"title": "T", "context": "Ann left."}
    assert squad.flatten(document) == [
        {"id": "1", "question": "who?", "answers": {"text": ["Ann"], "answer_start": [0]}, **shared},
        {"id": "2", "question": "why?", "answers": {"text": [], "answer_start": []}, **shared},
    ]


def test_long_question_leaves_room_for_the_context(tokenizer: PreTrainedTokenizerFast, prose: list[str]) -> None:
    """A question longer than the window is cut, so that the window still holds the context."""
    row = {
        "id": "q",
        "question": " ".join(prose),
        "context": "a value",
        "answers": {"text": ["a"], "answer_start": [0]},
    }
    windows = squad.encode(Dataset.from_list([row]), tokenizer, INPUTS, 32, 8, training=False)
    assert len(windows) == 1
    first, last = windows[0]["context"]
    assert (windows[0]["offsets"][first][0], windows[0]["offsets"][last][1]) == (0, len("a value"))


def test_bad_strides_and_answers_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    """A stride as long as the window, and an answer whose text is not at its start, give a one-line error."""
    row = {"id": "q7", "question": "who?", "context": "Ann left", "answers": {"text": ["Bob"], "answer_start": [0]}}
    with pytest.raises(DistilkitError, match="--stride 32 "):
        squad.encode(Dataset.from_list([row]), tokenizer, INPUTS, 32, 32, training=True)
    with pytest.raises(DistilkitError, match="'Bob' of question 'q7'"):
        squad.encode(Dataset.from_list([row]), tokenizer, INPUTS, 32, 8, training=True)


@pytest.mark.parametrize(
    ("cls", "bos", "ids", "position"),
    [
        (7, 1, [1, 7, 5], 1),
        (7, 1, [1, 5, 6], 0),
        (None, 1, [5, 1, 6], 1),
        (None, None, [5, 6], 0),
        (7, None, [5, 6], 0),
    ],
)
def test_no_answer_is_at_cls_else_at_bos_else_at_the_first_token(
    cls: int | None, bos: int | None, ids: list[int], position: int
) -> None:
    """As transformers' run_qa.py does."""
    tokenizer = SimpleNamespace(cls_token_id=cls, bos_token_id=bos)
    assert squad.no_answer_token(ids, tokenizer) == position  # type: ignore[arg-type]


def test_special_tokens_in_a_context_are_text(
    rows: Dataset, tokenizer: PreTrainedTokenizerFast, make_checkpoint: Callable[..., Path]
) -> None:
    """A window has one CLS and two SEP, whatever the context spells out."""
    opened = checkpoint.open_tokenizer(str(make_checkpoint("bert", 1)))
    spelled = rows.map(lambda row: {"context": row["context"] + " [CLS] old [SEP] [MASK]"})
    windows = squad.encode(spelled, opened, INPUTS, 64, 16, training=False)

    assert windows
    assert all(ids.count(2) == 1 and ids.count(3) == 2 and 4 not in ids for ids in windows["input_ids"])
