"""Tokenise texts and pack the token ids into rows."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Ids = npt.NDArray[Any]
PART_CHARACTERS = 2**20  # to tokenise at a time; bounds the memory, however long the documents are


class Encoder:
    """A tokenizer that returns arrays, with two bytes per token if the vocabulary allows it."""

    def __init__(self, definition: str, vocabulary: int) -> None:
        self.dtype = np.dtype(np.uint16 if vocabulary <= 2**16 else np.int32)
        self.tokenizer = Tokenizer.from_str(definition)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True  # a special token that a text spells out is text

    def __call__(self, texts: list[str]) -> list[Ids]:
        """Return the token ids of each text, without special tokens."""
        if len(texts) == 1 and len(texts[0]) > PART_CHARACTERS:
            return [np.concatenate([ids for part in _split_long_text(texts[0]) for ids in self([part])])]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=self.dtype) for encoding in encodings]


def _split_long_text(text: str) -> Iterator[str]:
    """Split a long text before spaces, where a split does not change the tokens."""
    start = 0
    while len(text) - start > PART_CHARACTERS:
        space = text.rfind(" ", start + 1, start + PART_CHARACTERS)
        end = space if space > 0 else start + PART_CHARACTERS
        yield text[start:end]
        start = end
    yield text[start:]


class Packer:
    """Packs tokenised documents into rows CLS … SEP.

    "blocks": documents are joined with SEP, and every row has `seq_length` tokens. Tokens that do not fill a row stay
    in `rest` for the next documents. "documents": a document starts a new row, and its last row may be shorter.
    """

    def __init__(self, encoder: Encoder, cls: int, sep: int, seq_length: int, packing: str) -> None:
        self.encoder, self.content_length, self.packing = encoder, seq_length - 2, packing
        self.cls, self.sep = np.array([[cls], [sep]], dtype=encoder.dtype)
        self.rest = self.cls[:0]
        # Everything that the rows depend on. to_str() does not say how special tokens in the text are read.
        self.key = (encoder.tokenizer.to_str(), "as text", cls, sep, seq_length, packing)

    def rows(self, documents: Iterable[Ids]) -> list[Ids]:
        """Return the rows that these documents complete."""
        documents = [ids for ids in documents if len(ids)]
        if self.packing == "documents":
            contents = [
                ids[at : at + self.content_length]
                for ids in documents
                for at in range(0, len(ids), self.content_length)
            ]
            return [np.concatenate([self.cls, content, self.sep]) for content in contents]
        tokens = np.concatenate([self.rest, *(part for ids in documents for part in (ids, self.sep))])
        count = len(tokens) // self.content_length
        self.rest = tokens[count * self.content_length :].copy()
        rows = np.empty((count, self.content_length + 2), dtype=self.encoder.dtype)
        rows[:, 0], rows[:, -1] = self.cls, self.sep
        rows[:, 1:-1] = tokens[: count * self.content_length].reshape(count, self.content_length)
        return list(rows)


def group_texts(texts: Iterable[str | None]) -> Iterator[list[str]]:
    """Gather texts into groups of about PART_CHARACTERS characters; a group is tokenised at once, on all cores."""
    gathered: list[str] = []
    size = 0
    for text in texts:
        gathered.append(text or "")
        size += len(gathered[-1])
        if size >= PART_CHARACTERS or len(gathered) >= PART_CHARACTERS // 64:  # Empty lines take memory too.
            yield gathered
            gathered, size = [], 0
    if gathered:
        yield gathered
