"""Pack documents into blocks: checked against the tokenizer called plainly."""

import copy
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from distilkit.data import corpus as corpora
from distilkit.data.blocks import make_packer, pack_documents, split_blocks
from distilkit.data.token_store import store
from distilkit.errors import DistilkitError


def test_pack_loses_and_adds_nothing(corpus: Path, prose: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    """Blocks are CLS … SEP of equal length and contain the documents' tokens in order, joined with SEP."""
    blocks = pack_documents(corpora.read_documents(str(corpus)), tokenizer, 32).with_format("numpy")["input_ids"][:]
    stream = [token for text in prose for token in (*tokenizer(text, add_special_tokens=False)["input_ids"], 3)]

    assert blocks.shape == (len(stream) // 30, 32)
    assert (blocks[:, 0] == 2).all()
    assert (blocks[:, -1] == 3).all()
    assert blocks[:, 1:-1].flatten().tolist() == stream[: blocks.shape[0] * 30]


def test_text_shorter_than_a_block_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The error names --seq-length."""
    (tmp_path / "a.txt").write_text("the first document\na second one\n", encoding="utf-8")
    with pytest.raises(DistilkitError, match="--seq-length"):
        pack_documents(corpora.read_documents(str(tmp_path / "a.txt")), tokenizer, 96)


def test_a_document_a_row_needs_a_pad_token(tokenizer: PreTrainedTokenizerFast) -> None:
    """The error names --packing blocks."""
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    with pytest.raises(DistilkitError, match="--packing blocks"):
        make_packer(bare, 32, "documents")


def test_files_read_once_are_packed_alike(corpus: Path, tokenizer: PreTrainedTokenizerFast, cache: Path) -> None:
    """Files read in place give the same rows as datasets' copy; other content has another fingerprint."""
    documents = corpora.read_once(str(corpus))
    packed = pack_documents(documents, tokenizer, 32)
    first = corpora.fingerprint(documents)

    assert packed[:] == pack_documents(corpora.read_documents(str(corpus)), tokenizer, 32)[:]
    assert corpora.fingerprint(corpora.read_once(str(corpus))) == first
    other = cache / "other.txt"
    other.write_text(corpus.read_text("utf-8") + "one more\n", encoding="utf-8")
    assert corpora.fingerprint(corpora.read_once(str(other))) != first


@pytest.mark.parametrize("count", [2, 10, 400])
def test_heldout_blocks_are_split_off(count: int, cache: Path) -> None:
    """2 %, at least one and at most HELDOUT_BLOCKS; every block is in one of the two parts; the seed decides which."""
    stored = store(f"{count}", np.dtype(np.uint16), lambda: [[np.array([n], dtype=np.uint16) for n in range(count)]])
    training, heldout = split_blocks(stored, 0)
    again, other = split_blocks(stored, 0)[1], split_blocks(stored, 1)[1]

    assert len(heldout) == max(1, count // 50)
    assert sorted(int(row["input_ids"][0]) for part in (training, heldout) for row in part) == list(range(count))
    assert [row["input_ids"].tolist() for row in again] == [row["input_ids"].tolist() for row in heldout]
    assert count < 400 or [row["input_ids"].tolist() for row in other] != [row["input_ids"].tolist() for row in heldout]


def test_one_block_cannot_be_split(cache: Path) -> None:
    """The error names --heldout."""
    stored = store("one", np.dtype(np.uint16), lambda: [[np.array([1], dtype=np.uint16)]])
    with pytest.raises(DistilkitError, match="--heldout"):
        split_blocks(stored, 0)
