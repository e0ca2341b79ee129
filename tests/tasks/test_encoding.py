"""Rows to batches: a model's inputs, long texts, padding."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from distilkit.encoders import checkpoint
from distilkit.encoders.forward import INPUTS, input_names
from distilkit.options.evaluate import EvalOptions
from distilkit.tasks import encoding
from distilkit.tasks.catalogue import TASKS
from distilkit.tasks.settings import with_task_defaults

SST2, MNLI, IMDB = (TASKS[name] for name in ("sst2", "mnli", "imdb"))


def eval_options(**options: object) -> EvalOptions:
    return EvalOptions(models=("m",), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "inputs", "positions"),
    [
        (BertConfig(type_vocab_size=2), INPUTS, 40),
        (RobertaConfig(type_vocab_size=1, pad_token_id=1), INPUTS[:2], 38),
        (DistilBertConfig(), INPUTS[:2], 40),
    ],
)
def test_inputs_and_positions_of_a_model(family: object, inputs: tuple[str, ...], positions: int) -> None:
    """Only models with two segments take token_type_ids. Two of RoBERTa's positions are reserved for padding."""
    small = {"vocab_size": 50, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    for name, value in (small | {"max_position_embeddings": 40}).items():
        setattr(family, name, value)
    model = AutoModelForSequenceClassification.from_config(family)
    assert input_names(model) == inputs
    assert checkpoint.max_tokens(model) == positions
    assert encoding.window_length(with_task_defaults(SST2, eval_options(task="sst2")), model) == positions
    assert encoding.window_length(with_task_defaults(SST2, eval_options(task="sst2", max_length=16)), model) == 16


def test_positions_are_enough(make_checkpoint: Callable[..., Path]) -> None:
    """A RoBERTa runs on exactly as many tokens as max_tokens() returns."""
    directory = make_checkpoint("roberta", 1, AutoModelForSequenceClassification)
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    limit = checkpoint.max_tokens(model)
    assert limit == 97
    assert model(input_ids=torch.full((1, limit), 7)).logits.shape == (1, 2)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 7))


def test_encode_and_collate(tokenizer: PreTrainedTokenizerFast) -> None:
    """Pairs become one sequence with two segments, cut to the maximum length and padded on the right."""
    rows = [
        {"premise": "a value", "hypothesis": "is returned", "label": "neutral"},
        {"premise": "the value " * 20, "hypothesis": "the", "label": "contradiction"},
    ]
    short, long = encoding.encode(Dataset.from_list(rows), MNLI, tokenizer, INPUTS, 16)
    expected = tokenizer("a value", "is returned")["input_ids"]
    assert short["input_ids"] == expected
    assert len(long["input_ids"]) == 16
    batch = encoding.collator(tokenizer)([short, long], torch.Generator())
    pads = 16 - len(expected)
    assert batch["input_ids"][0].tolist() == expected + [0] * pads
    assert batch["attention_mask"][0].tolist() == [1] * len(expected) + [0] * pads
    assert batch["token_type_ids"][0].tolist() == short["token_type_ids"] + [0] * pads
    assert set(short["token_type_ids"]) == {0, 1}
    assert batch["labels"].tolist() == [1, 2]


def test_head_tail_keeps_the_tokens_of_the_paper() -> None:
    """With 510 tokens and two special ones, it keeps the first 128 and the last 382 (Sun et al. 2019, 5.3.1)."""
    sequence = [None, *[0] * 1000, None]
    [piece] = encoding.split_tokens(sequence, 512, "head-tail")
    assert list(piece) == [0, *range(1, 129), *range(1001 - 382, 1001), 1001]


@pytest.mark.parametrize(("length", "sizes"), [(511, [255, 256]), (1020, [510, 510]), (1021, [340, 340, 341])])
def test_windows_hold_every_token_once(length: int, sizes: list[int]) -> None:
    """A text becomes as few windows as possible, of about equal length, each with the special tokens."""
    pieces = encoding.split_tokens([None, *[0] * length, None], 512, "windows")
    assert [len(piece) - 2 for piece in pieces] == sizes
    assert all(piece[0] == 0 and piece[-1] == length + 1 for piece in pieces)
    assert [place for piece in pieces for place in piece[1:-1]] == list(range(1, length + 1))


def test_long_texts(tokenizer: PreTrainedTokenizerFast) -> None:
    """Each value of --long keeps the expected tokens of a long text. Short texts are the same with all of them."""
    text = "the value is returned unless an error is raised " * 9
    rows = Dataset.from_list([{"text": "the value", "label": 0}, {"text": text, "label": 1}])
    whole = tokenizer(text)["input_ids"]
    head, tail, windows = (
        encoding.encode(rows, IMDB, tokenizer, INPUTS, 32, long) for long in ("head", "head-tail", "windows")
    )
    assert head["input_ids"][1] == [*whole[:31], whole[-1]]
    assert tail["input_ids"][1] == [*whole[: 1 + 8], *whole[-1 - 22 :]]  # 30 · 128 / 510 = 7.53
    inner = [token for window in windows["input_ids"][1] for token in window[1:-1]]
    assert inner == whole[1:-1]
    assert (
        head["input_ids"][0]
        == tail["input_ids"][0]
        == windows["input_ids"][0][0]
        == tokenizer("the value")["input_ids"]
    )
    assert encoding.lengths(head) == [len(ids) for ids in head["input_ids"]]
    assert encoding.lengths(windows) == [len(head["input_ids"][0]), sum(map(len, windows["input_ids"][1]))]


def test_windows_know_their_row(tokenizer: PreTrainedTokenizerFast) -> None:
    """Windows are padded together; a batch has one label a row and the row number of each window."""
    rows = [
        {"input_ids": [[2, 7, 3]], "attention_mask": [[1, 1, 1]], "labels": 1},
        {"input_ids": [[2, 8, 9, 3], [2, 3]], "attention_mask": [[1] * 4, [1] * 2], "labels": 0},
    ]
    batch = encoding.collator(tokenizer)(rows)
    assert batch["input_ids"].tolist() == [[2, 7, 3, 0], [2, 8, 9, 3], [2, 3, 0, 0]]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 4, 2]
    assert batch["owners"].tolist() == [0, 1, 1]
    assert batch["labels"].tolist() == [1, 0]


def test_a_teachers_own_tokens_are_padded_by_its_own_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    """A batch holds each row twice: in the student's tokens and, with a prefix, in the teacher's."""
    other = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[MASK]")
    rows = [
        {"input_ids": [2, 3], "attention_mask": [1, 1], "teacher_input_ids": [5] * n, "teacher_attention_mask": [1] * n}
        for n in (1, 3)
    ]
    batch = encoding.collator(tokenizer, other, "teacher_")([row | {"labels": 0} for row in rows])
    assert batch["input_ids"].tolist() == [[2, 3], [2, 3]]
    assert batch["teacher_input_ids"].tolist() == [[5, 4, 4], [5, 5, 5]]
    assert batch["teacher_attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
