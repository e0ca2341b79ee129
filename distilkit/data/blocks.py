"""Pack a corpus into training and held-out blocks, as the options say."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from distilkit.data import corpus
from distilkit.data.batches import Batches
from distilkit.data.corpus import HELDOUT_BLOCKS, HELDOUT_SHARE
from distilkit.data.masking import masked_batch
from distilkit.data.packing import Encoder, Ids, Packer, group
from distilkit.data.readers import readable
from distilkit.data.streaming import RowStream, StreamedBatches, set_aside
from distilkit.data.token_store import Rows, store
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.progress import track

HELDOUT_BATCH = 32  # fixed, so that held-out masks are the same whatever the run


def read_batches(
    config: DistillOptions, tokenizer: PreTrainedTokenizerBase, split_seed: int
) -> tuple[Batches, Batches]:
    """Return the masked batches to train on and the held-out batches.

    If both come from the same text, the held-out blocks are drawn with `split_seed`.
    """
    collate = masked_batch(tokenizer, config.mask_probability)
    shape = {"batch_size": config.batch_size, "seed": config.seed}
    heldout: Sequence[dict[str, Any]]
    if config.streaming:
        packer = make_packer(tokenizer, config.seq_length, config.packing)
        if config.heldout is None:
            stream, heldout = set_aside(config.corpus, packer)
        else:
            stream, heldout = RowStream(config.corpus, packer), read_heldout(config, tokenizer)
        batches: Batches = StreamedBatches(stream, collate, **shape)
    else:
        blocks = pack_corpus(config, config.corpus, tokenizer)
        if config.heldout is None:
            rows, heldout = split(blocks, split_seed)
        else:
            rows, heldout = Rows(blocks), read_heldout(config, tokenizer)
        batches = Batches(rows, collate, lengths=rows.lengths if config.packing == "documents" else None, **shape)
    return batches, Batches(heldout, collate, batch_size=HELDOUT_BATCH, seed=0)


def pack_corpus(config: DistillOptions, source: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Read a text and pack it into blocks."""
    with readable(source):
        documents, fingerprint = corpus.read_once(source)
        return pack_documents(
            documents,
            tokenizer,
            config.seq_length,
            fingerprint=fingerprint,
            packing=config.packing,
            name=f"'{source}'",
        )


def read_heldout(config: DistillOptions, tokenizer: PreTrainedTokenizerBase) -> Sequence[dict[str, Any]]:
    """Return the first blocks of --heldout."""
    blocks = pack_corpus(config, str(config.heldout), tokenizer)
    return Rows(blocks, np.arange(min(len(blocks), corpus.HELDOUT_BLOCKS)))


def pack_documents(
    documents: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    seq_length: int,
    *,
    fingerprint: str = "",
    packing: str = "blocks",
    name: str = "the corpus",
) -> Dataset:
    """Tokenise documents and pack them into rows CLS … SEP of at most `seq_length` tokens (see Packer).

    Returns a memory-mapped data set with one column, `input_ids`: two bytes per token, or four for a vocabulary of more
    than 65,536. It is cached by fingerprint of the documents, tokenizer, length and packing. Memory does not grow with
    the corpus.
    Raises DistilkitError if the text does not fill one block.
    """
    packer = make_packer(tokenizer, seq_length, packing)
    total = len(documents) if isinstance(documents, Dataset) else None

    def make() -> Iterator[list[Ids]]:
        with track("tokenize", total, unit="documents") as advance:
            for texts in _groups(documents):
                yield packer.rows(packer.encoder(texts))
                advance(len(texts))

    fingerprint = fingerprint or documents._fingerprint  # noqa: SLF001 - what datasets names its own cache files by
    packed = store(Hasher.hash((fingerprint, packer.key)), packer.encoder.dtype, make)
    if not len(packed):
        raise DistilkitError(
            f"{name} does not fill one block of {seq_length} tokens: give more text, or shorter blocks "
            "(--seq-length; eval: --max-length)"
        )
    return packed


def _groups(documents: Dataset | IterableDataset) -> Iterator[list[str]]:
    tables = documents.with_format("arrow").iter(1000)
    return group(text.as_py() for table in tables for text in table["text"])


def make_packer(tokenizer: PreTrainedTokenizerBase, seq_length: int, packing: str) -> Packer:
    """Return the packer for a tokenizer.

    Raises DistilkitError if the tokenizer lacks a special token that packing needs.
    """
    if packing == "documents" and tokenizer.pad_token_id is None:
        raise DistilkitError(
            "--packing documents requires a PAD token, which the tokenizer lacks: use --packing blocks"
        )
    encoder = Encoder(tokenizer.backend_tokenizer.to_str(), len(tokenizer))
    return Packer(encoder, *special_ids(tokenizer), seq_length, packing)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids of CLS and SEP, which open and close a row."""
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None or tokenizer.mask_token_id is None:
        raise DistilkitError("the tokenizer lacks CLS, SEP or MASK: use the tokenizer of a masked-LM checkpoint")
    return int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)


def split(blocks: Dataset, seed: int) -> tuple[Rows, Rows]:
    """Split blocks into training and held-out rows, drawn with the seed.

    Raises DistilkitError if there is only one block.
    """
    count = min(HELDOUT_BLOCKS, max(1, int(HELDOUT_SHARE * len(blocks))))
    if len(blocks) < 2:
        raise DistilkitError("the corpus is too small to reserve held-out text: give more text or --heldout")
    order = np.random.default_rng(seed).permutation(len(blocks))
    return Rows(blocks, order[count:].astype(np.uint32)), Rows(blocks, order[:count])
