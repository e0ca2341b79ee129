"""Pack a corpus into training and held-out blocks, as the options say."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from distilkit.data import corpus
from distilkit.data.batches import Batches
from distilkit.data.masking import make_collate
from distilkit.data.packing import Encoder, Ids, Packer, group_texts
from distilkit.data.streaming import RowStream, StreamedBatches, split_stream
from distilkit.data.token_store import Rows, store
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.progress import track, warn
from distilkit.special_tokens import special_id, vocabulary_size

HELDOUT_SHARE, HELDOUT_BLOCKS = 0.02, 256  # of a corpus without --heldout: this share, but no more blocks than this
SAMPLED_ROWS = 10_000  # whose tokens are checked
UNKNOWN_SHARE = 0.05  # of tokens, above which a text hardly fits its tokenizer
SEQ_LENGTH = 128  # tokens per block by default
HELDOUT_BATCH_SIZE = 32  # fixed, so that the held-out loss does not depend on --batch-size


def read_batches(
    options: DistillOptions, tokenizer: PreTrainedTokenizerBase, split_seed: int
) -> tuple[Batches, Batches]:
    """Return the masked batches to train on and the held-out batches.

    If both come from the same text, the held-out blocks are drawn with `split_seed`.
    """
    collate = make_collate(tokenizer, options.mask_probability)
    common = {"batch_size": options.batch_size, "seed": options.seed}
    heldout: Sequence[dict[str, Any]] | None = None
    if options.heldout:  # the smaller text first, so that its errors come soon
        heldout = read_heldout(options, tokenizer)
    if options.streaming:
        packer = make_packer(tokenizer, options.seq_length or SEQ_LENGTH, options.packing)
        column = options.text or "text"
        if heldout is None:
            stream, heldout = split_stream(options.corpus, packer, HELDOUT_BLOCKS, column)
        else:
            stream = RowStream(options.corpus, packer, column=column)
        batches: Batches = StreamedBatches(stream, collate, **common)
    else:
        blocks = pack_corpus(options, options.corpus, tokenizer)
        rows = Rows(blocks)
        if heldout is None:
            rows, heldout = split_blocks(blocks, split_seed)
        batches = Batches(rows, collate, lengths=rows.lengths if options.packing == "documents" else None, **common)
    return batches, Batches(heldout, collate, batch_size=HELDOUT_BATCH_SIZE, seed=0)


def pack_corpus(options: DistillOptions, source: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Read a text and pack it into blocks."""
    with corpus.corpus_errors(source):
        documents = corpus.read_once(source, options.text or "text")
        length = options.seq_length or SEQ_LENGTH
        return pack_documents(documents, tokenizer, length, packing=options.packing, name=f"'{source}'")


def read_heldout(options: DistillOptions, tokenizer: PreTrainedTokenizerBase) -> Rows:
    """Return the first HELDOUT_BLOCKS blocks of --heldout."""
    blocks = pack_corpus(options, str(options.heldout), tokenizer)
    return Rows(blocks, np.arange(min(len(blocks), HELDOUT_BLOCKS)))


def pack_documents(
    documents: corpus.Documents,
    tokenizer: PreTrainedTokenizerBase,
    seq_length: int,
    *,
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
            for texts in group_texts(corpus.texts(documents)):
                yield packer.rows(packer.encoder(texts))
                advance(len(texts))

    packed = store(Hasher.hash((corpus.fingerprint(documents), packer.key)), packer.encoder.dtype, make)
    if not len(packed):
        raise DistilkitError(
            f"{name} does not fill one block of {seq_length} tokens: give more text, or shorter blocks "
            "(--seq-length; eval: --max-length)"
        )
    check_known_tokens([row["input_ids"] for row in islice(Rows(packed), SAMPLED_ROWS)], tokenizer, name)
    return packed


def check_known_tokens(
    rows: Sequence[Any], tokenizer: PreTrainedTokenizerBase, name: str, *, required: bool = True
) -> None:
    """Warn if many tokens of a text are unknown. `rows` are some rows of its token ids.

    Raises DistilkitError if all tokens are unknown or special and others are `required`; else this is a warning, too.
    """
    tokens = np.concatenate([np.asarray(ids) for ids in rows])
    ordinary = tokens[~np.isin(tokens, [n for n in tokenizer.all_special_ids if n != tokenizer.unk_token_id])]
    unknown = 0.0 if tokenizer.unk_token is None else float((ordinary == tokenizer.unk_token_id).sum())
    if unknown < len(ordinary):
        if unknown > UNKNOWN_SHARE * len(ordinary):
            share = f"{unknown / len(ordinary):.0%}"
            warn(f"{share} of the tokens of {name} are unknown to the tokenizer: check its language and encoding")
        return
    problem = f"only special tokens in {name}: give another text"
    if len(ordinary):
        problem = f"only unknown tokens in {name}: give a text in the language and script of the model's tokenizer"
    if required:
        raise DistilkitError(problem)
    warn(problem)


def make_packer(tokenizer: PreTrainedTokenizerBase, seq_length: int, packing: str) -> Packer:
    """Return the packer for a tokenizer.

    Raises DistilkitError if the tokenizer lacks a special token that packing needs.
    """
    if packing == "documents" and tokenizer.pad_token_id is None:
        raise DistilkitError("--packing documents needs a PAD token, which the tokenizer lacks: use --packing blocks")
    cls, sep = special_id(tokenizer, "cls"), special_id(tokenizer, "sep")
    if cls is None or sep is None:
        raise DistilkitError("the tokenizer has no CLS or SEP token: use the tokenizer of a masked-LM checkpoint")
    encoder = Encoder(tokenizer.backend_tokenizer.to_str(), vocabulary_size(tokenizer))
    return Packer(encoder, cls, sep, seq_length, packing)


def split_blocks(blocks: Dataset, seed: int) -> tuple[Rows, Rows]:
    """Split blocks into training and held-out rows, drawn with the seed."""
    training, heldout = split_numbers(len(blocks), seed, HELDOUT_BLOCKS)
    return Rows(blocks, training), Rows(blocks, heldout)


def split_numbers(count: int, seed: int, limit: int) -> tuple[Ids, Ids]:
    """Split the numbers of rows into those to train on and those to hold out: HELDOUT_SHARE, at most `limit`.

    Raises DistilkitError if there is only one row.
    """
    if count < 2:
        raise DistilkitError(
            "the corpus is too small to hold out a block: give more text, or held-out text with --heldout"
        )
    order = np.random.default_rng(seed).permutation(count)
    heldout = min(limit, max(1, int(HELDOUT_SHARE * count)))
    return order[heldout:].astype(np.uint32), order[:heldout]
