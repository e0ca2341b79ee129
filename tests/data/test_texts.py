"""Whole texts as rows: split, cut, cached, batched by length, in the tokens of each reader."""

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from distilkit.data.texts import Reader, read_text_batches, split_texts
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions

DOCUMENT = 'He said "Go." Then 3.5 men left, e.g. Bob.\n\n  It rained!  (So be it.) Why?\n今日は。明日。'


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("documents", [DOCUMENT]),
        ("lines", ['He said "Go." Then 3.5 men left, e.g. Bob.', "It rained!  (So be it.) Why?", "今日は。明日。"]),
        (
            "sentences",
            [
                'He said "Go."',
                "Then 3.5 men left, e.g.",
                "Bob.",
                "It rained!",
                "(So be it.)",
                "Why?",
                "今日は。",
                "明日。",
            ],
        ),
    ],
)
def test_split(split: str, expected: list[str]) -> None:
    """Blank texts are left out. A sentence ends before a space that no small letter follows."""
    assert list(split_texts([DOCUMENT, "", " \n "], split)) == expected


def options(corpus: Path, **changes: object) -> DistillOptions:
    values = {"student": "s", "output": Path("o"), "split": "lines", "batch_size": 8} | changes
    return DistillOptions(corpus=str(corpus), **values)  # type: ignore[arg-type]


def all_rows(batches: object, prefix: str = "") -> list[list[int]]:
    """Return the tokens of each row of an epoch, without padding."""
    rows = []
    for number in range(batches.per_epoch):  # type: ignore[attr-defined]
        batch = batches[number]  # type: ignore[index]
        ids = batch[f"{prefix}input_ids"]
        mask = batch.get(f"{prefix}attention_mask", torch.ones_like(ids))
        rows += [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
    return rows


def test_rows_are_what_the_tokenizer_reads(
    cache: Path, corpus: Path, tokenizer: PreTrainedTokenizerFast, prose: list[str]
) -> None:
    """Every line is a row, in training or held out, cut at the maximum length, with the prompt in front."""
    train, heldout = read_text_batches(options(corpus), [Reader(tokenizer, 20, "query: ")], split_seed=1)
    expected = [tokenizer(f"query: {line}", truncation=True, max_length=20)["input_ids"] for line in prose]
    assert sorted(all_rows(train) + all_rows(heldout)) == sorted(expected)
    assert len(heldout.rows) == max(1, int(0.02 * len(prose)))


def test_batches_hold_texts_of_about_one_length(cache: Path, corpus: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Less than a tenth of the tokens is padding, where batches in random order have more than twice as much."""
    train, _ = read_text_batches(options(corpus), [Reader(tokenizer, 96)], split_seed=1)
    sizes = [train[number]["input_ids"].numel() for number in range(train.per_epoch)]
    tokens = sum(len(row) for row in all_rows(train))
    assert tokens <= sum(sizes) < tokens / 0.9


def test_two_readers_read_the_same_texts(
    cache: Path, corpus: Path, tokenizer: PreTrainedTokenizerFast, prose: list[str]
) -> None:
    """Each row has the same text in the tokens of both; the teacher's columns have its prefix."""
    readers = [Reader(tokenizer, 96), Reader(tokenizer, 12, "a ", "teacher_")]
    train, heldout = read_text_batches(options(corpus), readers, split_seed=1)
    by_tokens = {tuple(tokenizer(line, truncation=True, max_length=96)["input_ids"]): line for line in prose}
    for batches in (train, heldout):
        for ours, theirs in zip(all_rows(batches), all_rows(batches, "teacher_"), strict=True):
            line = by_tokens[tuple(ours)]
            assert theirs == tokenizer(f"a {line}", truncation=True, max_length=12)["input_ids"]


def test_columns_and_heldout_text(cache: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """--text names the column; --heldout is read in full, up to 512 texts."""
    for name, count in (("train", 20), ("heldout", 600)):
        rows = [json.dumps({"body": f"text number {number}. Second one."}) for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    given = options(tmp_path / "train.jsonl", text="body", heldout=str(tmp_path / "heldout.jsonl"), split="sentences")
    train, heldout = read_text_batches(given, [Reader(tokenizer, 96)], split_seed=1)
    assert len(train.rows) == 40
    assert len(heldout.rows) == 512
    with pytest.raises(DistilkitError, match=r"no column 'text' \(it has body\).*--text"):
        read_text_batches(options(tmp_path / "train.jsonl"), [Reader(tokenizer, 96)], split_seed=1)


def test_same_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """Prompt and maximum length count; padding and truncation that a tokenizer was saved with do not."""
    import copy

    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.enable_padding(length=7)
    other.backend_tokenizer.enable_truncation(9)
    assert Reader(tokenizer, 20).same_tokens(Reader(other, 20))
    assert not Reader(tokenizer, 20).same_tokens(Reader(other, 21))
    assert not Reader(tokenizer, 20).same_tokens(Reader(other, 20, "query: "))


def test_text_of_unknown_tokens_is_refused(cache: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    (tmp_path / "foreign.txt").write_text("\u4e2d\u6587\n" * 20, encoding="utf-8")
    with pytest.raises(DistilkitError, match=r"only unknown tokens in '.*foreign.txt'"):
        read_text_batches(options(tmp_path / "foreign.txt"), [Reader(tokenizer, 20)], split_seed=1)
