"""Whole texts as rows: a document, a line or a sentence each, as an encoder reads it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distilkit.data import corpus
from distilkit.data.batches import Batches
from distilkit.data.blocks import HELDOUT_BATCH_SIZE, SAMPLED_ROWS, check_known_tokens, split_numbers
from distilkit.data.masking import pad_rows
from distilkit.data.packing import Ids, group_texts
from distilkit.data.token_store import Rows, store
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.progress import track
from distilkit.special_tokens import vocabulary_size

HELDOUT_TEXTS = 512  # at most: enough for each to have neighbours among the others
# A space after . ! or ? (and a closing quote) that no small letter follows, or the place after 。！？. An abbreviation
# before a name ends a sentence, too: training texts may be cut there.
SENTENCE_END = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?]["'”’)\]]))\s+(?=[^\sa-z])|(?<=[。！？])""")


class Reader(NamedTuple):
    """How a model reads a text: its tokenizer, what it puts in front, and where it cuts. `prefix` names its columns."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int  # tokens
    prompt: str = ""
    prefix: str = ""

    def same_tokens(self, other: "Reader") -> bool:
        """Say whether both read any text as the same token ids."""
        return TextEncoder(self).key == TextEncoder(other).key


class TextEncoder:
    """Turns texts into token ids with special tokens, cut at a maximum length."""

    def __init__(self, reader: Reader) -> None:
        self.prompt, tokenizer = reader.prompt, reader.tokenizer
        self.dtype = np.dtype(np.uint16 if vocabulary_size(tokenizer) <= 2**16 else np.int32)
        self.core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self.core.no_padding()
        self.core.encode_special_tokens = True  # a special token that a text spells out is text
        self.core.enable_truncation(reader.max_length)
        self.key = (self.core.to_str(), self.prompt)

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Return the token ids of each text."""
        encodings = self.core.encode_batch_fast([self.prompt + text for text in texts])
        return [np.array(encoding.ids, dtype=self.dtype) for encoding in encodings]


class TextRows(Sequence[dict[str, Ids]]):
    """The token ids of each text, in a column for each reader."""

    def __init__(self, columns: dict[str, Rows]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, number: Any) -> Any:
        return {name: rows[number]["input_ids"] for name, rows in self.columns.items()}

    @property
    def lengths(self) -> Ids:
        """The number of tokens of each row, for the first reader."""
        return next(iter(self.columns.values())).lengths


def read_text_batches(options: DistillOptions, readers: Sequence[Reader], split_seed: int) -> tuple[Batches, Batches]:
    """Return the batches to train on and the held-out batches, of texts of about one length each.

    If both come from the same text, the held-out texts are drawn with `split_seed`.
    """
    # the smaller text first, so that its errors come soon
    other = read_texts(options, options.heldout, readers) if options.heldout else None
    stored = read_texts(options, options.corpus, readers)
    count = len(next(iter(stored.values())))
    if other is None:
        training, heldout = split_numbers(count, split_seed, HELDOUT_TEXTS)
        held = select(stored, heldout)
    else:
        training = np.arange(count, dtype=np.uint32)
        held = select(other, np.arange(min(HELDOUT_TEXTS, len(next(iter(other.values()))))))
    rows = select(stored, training)

    def collate(rows: list[dict[str, Ids]], _: list[torch.Generator]) -> dict[str, Tensor]:
        padded = {reader.prefix: pad_rows([row[reader.prefix] for row in rows], reader.tokenizer) for reader in readers}
        return {prefix + name: tensor for prefix, batch in padded.items() for name, tensor in batch.items()}

    return (
        Batches(rows, collate, batch_size=options.batch_size, seed=options.seed, lengths=rows.lengths),
        Batches(held, collate, batch_size=HELDOUT_BATCH_SIZE, seed=0, lengths=held.lengths),
    )


def select(stored: dict[str, Dataset], numbers: Ids) -> TextRows:
    """Return the rows of these numbers."""
    return TextRows({name: Rows(data, numbers) for name, data in stored.items()})


def read_texts(options: DistillOptions, source: str, readers: Sequence[Reader]) -> dict[str, Dataset]:
    """Read a corpus, split it as --split says, and return the token ids of its texts for each reader, by prefix.

    The token ids are cached by fingerprint of the documents and tokenizer, and memory-mapped.
    Raises DistilkitError if there is no text, or none that a reader's tokenizer knows.
    """
    stored = {}
    for reader in readers:
        with corpus.corpus_errors(source):
            documents = corpus.read_once(source, options.text or "text")
            encoder = TextEncoder(reader)
            stored[reader.prefix] = store(
                Hasher.hash((corpus.fingerprint(documents), options.split, encoder.key)),
                encoder.dtype,
                partial(_encode, documents, str(options.split), encoder),
            )
        if not len(stored[reader.prefix]):
            raise DistilkitError(f"corpus '{source}' contains no text: give another text")
        sample = islice(Rows(stored[reader.prefix]), SAMPLED_ROWS)
        check_known_tokens([row["input_ids"] for row in sample], reader.tokenizer, f"'{source}'")
    return stored


def _encode(documents: corpus.Documents, split: str, encoder: TextEncoder) -> Iterator[list[Ids]]:
    total = len(documents) if isinstance(documents, Dataset) else None
    with track("tokenize", total, unit="documents") as advance:
        for group in group_texts(corpus.texts(documents)):
            texts = list(split_texts(group, split))
            yield encoder(texts) if texts else []
            advance(len(group))


def split_texts(documents: Iterable[str], split: str) -> Iterator[str]:
    """Yield the texts of documents that are not blank: whole documents, their lines, or their sentences."""
    for document in documents:
        parts = [document] if split == "documents" else document.splitlines()
        if split == "sentences":
            parts = [sentence for line in parts for sentence in SENTENCE_END.split(line)]
        yield from (part.strip() for part in parts if part.strip())
