"""Tokenise texts and pack the token ids into rows."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Ids = npt.NDArray[Any]
PART = 2**20  # characters to tokenise at a time, whatever the documents' length; bounds the memory


class Encoder:
    """A tokenizer that returns arrays, with two bytes per token if the vocabulary allows it."""

    def __init__(self, definition: str, vocabulary: int) -> None:
        self.dtype = np.dtype(np.uint16 if vocabulary <= 2**16 else np.int32)
        self.tokenizer = Tokenizer.from_str(definition)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def __call__(self, texts: list[str]) -> list[Ids]:
        """Return the token ids of each text, without special tokens."""
        if len(texts) == 1 and len(texts[0]) > PART:
            return [np.concatenate([ids for part in _parts(texts[0]) for ids in self([part])])]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=self.dtype) for encoding in encodings]


def _parts(text: str) -> Iterator[str]:
    """Split a long text before spaces, where a split does not change the tokens."""
    start = 0
    while len(text) - start > PART:
        space = text.rfind(" ", start + 1, start + PART)
        end = space if space > 0 else start + PART
        yield text[start:end]
        start = end
    yield text[start:]


class Packer:
    """Packs tokenised documents into rows CLS … SEP.

    "blocks": documents are joined with SEP, and every row has `seq_length` tokens. Tokens that do not fill a row stay
    in `rest` for the next documents. "documents": each document has its own rows, and the last one may be shorter.
    """

    def __init__(self, encoder: Encoder, cls: int, sep: int, seq_length: int, packing: str) -> None:
        self.encoder, self.body, self.packing = encoder, seq_length - 2, packing
        self.cls, self.sep = np.array([[cls], [sep]], dtype=encoder.dtype)
        self.rest = self.cls[:0]
        self.key = (encoder.tokenizer.to_str(), cls, sep, seq_length, packing)  # all that the rows depend on

    def rows(self, documents: Iterable[Ids]) -> list[Ids]:
        """Return the rows that these documents complete."""
        documents = [ids for ids in documents if len(ids)]
        if self.packing == "documents":
            bodies = [ids[at : at + self.body] for ids in documents for at in range(0, len(ids), self.body)]
            return [np.concatenate([self.cls, body, self.sep]) for body in bodies]
        tokens = np.concatenate([self.rest, *(part for ids in documents for part in (ids, self.sep))])
        count = len(tokens) // self.body
        self.rest = tokens[count * self.body :].copy()
        rows = np.empty((count, self.body + 2), dtype=self.encoder.dtype)
        rows[:, 0], rows[:, -1] = self.cls, self.sep
        rows[:, 1:-1] = tokens[: count * self.body].reshape(count, self.body)
        return list(rows)


def group(texts: Iterable[str | None]) -> Iterator[list[str]]:
    """Gather texts into groups of about PART characters, each of which is tokenised at once on all cores."""
    gathered: list[str] = []
    size = 0
    for text in texts:
        gathered.append(text or "")
        size += len(gathered[-1])
        if size >= PART or len(gathered) >= PART // 64:  # empty lines take memory too
            yield gathered
            gathered, size = [], 0
    if gathered:
        yield gathered
