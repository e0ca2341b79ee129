"""Pack texts into rows: checked against the tokenizer called plainly, and against hand-computed rows."""

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from distilkit.data import packing
from distilkit.data.packing import Encoder, Packer, group_texts

CLS, SEP = 2, 3


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer.backend_tokenizer.to_str(), len(tokenizer))


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.uint16)


def test_documents_lie_end_to_end(encoder: Encoder) -> None:
    """Hand-computed: rows of 4 tokens out of 3 + SEP and 6 + SEP; the rest waits for the next call; an empty
    document adds nothing.
    """
    packer = Packer(encoder, CLS, SEP, 6, "blocks")
    first = packer.rows([ids(11, 12, 13), ids(), ids(21, 22, 23, 24, 25, 26)])
    second = packer.rows([ids(31)])

    assert [row.tolist() for row in first] == [[CLS, 11, 12, 13, SEP, SEP], [CLS, 21, 22, 23, 24, SEP]]
    assert [row.tolist() for row in second] == [[CLS, 25, 26, SEP, 31, SEP]]
    assert packer.rest.tolist() == [SEP]


def test_a_document_a_row(encoder: Encoder) -> None:
    """Hand-computed: 3 tokens fill one row of 5, 9 tokens are split into 4 + 4 + 1, an empty document has no row."""
    rows = Packer(encoder, CLS, SEP, 6, "documents").rows([ids(11, 12, 13), ids(), ids(*range(20, 29))])

    assert [row.tolist() for row in rows] == [
        [CLS, 11, 12, 13, SEP],
        [CLS, 20, 21, 22, 23, SEP],
        [CLS, 24, 25, 26, 27, SEP],
        [CLS, 28, SEP],
    ]


def test_a_long_text_is_tokenised_in_parts(
    encoder: Encoder, prose: list[str], tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Split before spaces, a text has the same ids as in one piece. Without spaces it is split anywhere, and nothing
    is lost.
    """
    book = " ".join(prose)
    monkeypatch.setattr(packing, "PART_CHARACTERS", 300)

    assert encoder([book])[0].tolist() == tokenizer(book, add_special_tokens=False, verbose=False)["input_ids"]
    assert "".join(packing._split_long_text("a" * 1000)) == "a" * 1000
    assert max(len(part) for part in packing._split_long_text(book)) <= 300


def test_two_bytes_a_token_where_they_do(tokenizer: PreTrainedTokenizerFast) -> None:
    """A vocabulary of 65,536 fits into two bytes per token; one more token needs four."""
    definition = tokenizer.backend_tokenizer.to_str()

    assert [Encoder(definition, size).dtype for size in (400, 65_536, 65_537)] == [np.uint16, np.uint16, np.int32]


def test_groups_are_bounded_whatever_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """For long, short and empty documents, a group has at most PART_CHARACTERS characters plus one document, in
    order.
    """
    monkeypatch.setattr(packing, "PART_CHARACTERS", 6400)
    for length, documents in ((5000, 50), (20, 5000), (0, 1000)):
        texts = [str(number).rjust(length, "x")[:length] for number in range(documents)]
        groups = list(group_texts(texts))

        assert [text for texts_of_group in groups for text in texts_of_group] == texts
        assert max(sum(map(len, texts_of_group)) for texts_of_group in groups) < 6400 + max(length, 1)
        assert max(map(len, groups)) <= 6400 // 64


def test_a_special_token_that_a_text_spells_out_is_text(encoder: Encoder) -> None:
    """[SEP] and [MASK] in a document never become the ids that structure a row."""
    found = encoder(["the [SEP] value [MASK] of it [CLS]"])[0].tolist()

    assert not set(found) & {CLS, SEP, 4}
    assert len(found) > 7  # brackets and letters instead
