"""What a run reads: the masked batches to train on and those held out, as the options say."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from distilkit import corpus
from distilkit.options.distill import DistillOptions
from distilkit.rows import Rows
from distilkit.stream import RowStream, StreamedBatches, set_aside
from distilkit.training import Batches

HELDOUT_BATCH = 32  # fixed, so that held-out masks are the same whatever the run


def read_batches(
    config: DistillOptions, tokenizer: PreTrainedTokenizerBase, split_seed: int
) -> tuple[Batches, Batches]:
    """Return the masked batches to train on and those held out, drawn by a seed where they come from the same text."""
    collate = corpus.masked_batch(tokenizer, config.mask_probability)
    shape = {"batch_size": config.batch_size, "seed": config.seed}
    heldout: Sequence[dict[str, Any]]
    if config.streaming:
        packer = corpus.make_packer(tokenizer, config.seq_length, config.packing)
        if config.heldout is None:
            stream, heldout = set_aside(config.corpus, packer)
        else:
            stream, heldout = RowStream(config.corpus, packer), read_heldout(config, tokenizer)
        batches: Batches = StreamedBatches(stream, collate, **shape)
    else:
        blocks = pack_corpus(config, config.corpus, tokenizer)
        if config.heldout is None:
            rows, heldout = corpus.split(blocks, split_seed)
        else:
            rows, heldout = Rows(blocks), read_heldout(config, tokenizer)
        batches = Batches(rows, collate, lengths=rows.lengths if config.packing == "documents" else None, **shape)
    return batches, Batches(heldout, collate, batch_size=HELDOUT_BATCH, seed=0)


def pack_corpus(config: DistillOptions, source: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Read text and pack it as the options say."""
    with corpus.readable(source):
        documents, fingerprint = corpus.read_once(source)
        return corpus.pack_documents(
            documents,
            tokenizer,
            config.seq_length,
            fingerprint=fingerprint,
            packing=config.packing,
            name=f"'{source}'",
        )


def read_heldout(config: DistillOptions, tokenizer: PreTrainedTokenizerBase) -> Sequence[dict[str, Any]]:
    """Return the rows of --heldout, as many as are looked at."""
    blocks = pack_corpus(config, str(config.heldout), tokenizer)
    return Rows(blocks, np.arange(min(len(blocks), corpus.HELDOUT_BLOCKS)))
