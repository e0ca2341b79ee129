"""Rows of token ids on disk: complete or absent."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from distilkit.data import corpus as corpora
from distilkit.data import packing
from distilkit.data.blocks import pack_documents
from distilkit.data.token_store import Rows, store
from distilkit.errors import DistilkitError

UINT16 = np.dtype(np.uint16)
BATCHES = [[[1, 2, 3], [4]], [[5, 6]], [], [[7, 8, 9], [10], [11, 12]]]
FLAT = [row for batch in BATCHES for row in batch]


def batches() -> Iterator[list[np.ndarray]]:
    for batch in BATCHES:
        yield [np.array(row, dtype=np.uint16) for row in batch]


def never() -> Iterator[list[np.ndarray]]:
    raise AssertionError("it was made before")


def test_rows_come_back_as_they_were_written(cache: Path) -> None:
    """All rows or a selection, across batches, with their lengths. The second time, the file is only opened."""
    rows = Rows(store("key", UINT16, batches))
    chosen = Rows(store("key", UINT16, never), np.array([5, 0, 2]))

    assert [row["input_ids"].tolist() for row in rows] == FLAT
    assert [chosen[i]["input_ids"].tolist() for i in range(3)] == [FLAT[5], FLAT[0], FLAT[2]]
    assert rows.lengths.tolist() == [3, 1, 2, 3, 1, 2]
    assert chosen.lengths.tolist() == [2, 3, 2]
    assert (len(rows), len(chosen)) == (6, 3)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing_behind(cache: Path, error: type[BaseException]) -> None:
    """An interrupted write leaves no file, and the next run writes it completely."""

    def broken() -> Iterator[list[np.ndarray]]:
        yield from list(batches())[:2]
        raise error

    with pytest.raises(error):
        store("key", UINT16, broken)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]

    assert len(store("key", UINT16, batches)) == 6


def test_what_a_kill_left_is_not_taken_for_the_whole(cache: Path) -> None:
    """An incomplete file under a temporary name is ignored."""
    (cache / "distilkit").mkdir()
    (cache / "distilkit/.abc.partial").write_bytes(b"half")

    assert len(store("key", UINT16, batches)) == 6


def test_a_full_disk_is_one_line(cache: Path) -> None:
    """The error names HF_DATASETS_CACHE and --streaming, and no file is left."""

    def full() -> Iterator[list[Any]]:
        yield from batches()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DistilkitError, match=r"HF_DATASETS_CACHE .* --streaming") as caught:
        store("key", UINT16, full)

    assert "\n" not in str(caught.value)
    assert [path.suffix for path in cache.glob("distilkit/*")] == [".lock"]


def test_a_text_is_tokenised_once(
    corpus: Path, tokenizer: PreTrainedTokenizerFast, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same text, tokenizer, length and packing are found in the cache, even after the tokenizer was used with
    other settings.
    """
    first = pack_documents(corpora.read_documents(str(corpus)), tokenizer, 32)
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=8)
    made = []
    monkeypatch.setattr(packing.Encoder, "__call__", lambda self, texts: made.append(1) or [])
    again = pack_documents(corpora.read_documents(str(corpus)), tokenizer, 32)

    assert again[:] == first[:]
    assert not made
    for length, layout in ((48, "blocks"), (32, "documents")):
        with pytest.raises(DistilkitError, match="--seq-length"):
            pack_documents(corpora.read_documents(str(corpus)), tokenizer, length, packing=layout)
        assert made.pop()
