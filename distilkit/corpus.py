"""Text to packed rows of tokens to masked batches."""

import errno
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, IterableDataset
from datasets.arrow_writer import SchemaInferenceError
from datasets.fingerprint import Hasher
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distilkit.errors import DistilkitError
from distilkit.packing import Encoder, Ids, Packer, group
from distilkit.progress import track
from distilkit.rows import Rows, no_space, store

READERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
HELDOUT_SHARE, HELDOUT_BLOCKS = 0.02, 256

datasets.disable_progress_bars()


def read_documents(source: str) -> Dataset:
    """Read text into a data set with one column `text`, a document a row.

    `source` is a file or folder of .txt, .jsonl or .parquet (.gz too), or a hub data set `name[:config]`. A .txt with
    blank lines holds a document between two of them, one without holds a document a line.
    Raises DistilkitError where there is no text or it can't be read.
    """
    return _read(source, streaming=False)


def stream_documents(source: str) -> IterableDataset:
    """Read the same documents from the same sources as they are asked for, without a copy on the disk."""
    return _read(source, streaming=True)


def read_once(source: str) -> tuple[Dataset | IterableDataset, str]:
    """Read the documents for a single pass; returns them with a fingerprint.

    Files are read where they lie: datasets' copy of them would take as much disk again, and mapped, as much memory. A
    hub data set is downloaded once.
    """
    path = Path(source)
    if not path.exists():
        downloaded = read_documents(source)
        return downloaded, downloaded._fingerprint  # noqa: SLF001 - what datasets names its own cache files by
    files = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path)]
    return stream_documents(source), Hasher.hash(files)


def _read(source: str, streaming: bool) -> Any:
    path = Path(source)
    with readable(source):
        documents = _read_files(_files(path), streaming) if path.exists() else _read_hub(source, streaming)
        columns = documents.column_names or list(next(iter(documents), {"text": ""}))
        if "text" not in columns:
            raise DistilkitError(f"corpus '{source}' has no column 'text' (it has {', '.join(columns)}): rename it")
        documents = documents.select_columns("text")
        first = [row["text"] or "" for row in islice(documents, 1000)]
        if not all(isinstance(text, str) for text in first):
            raise DistilkitError(f"corpus '{source}' holds more than text in its column 'text': give plain text")
        if not any(text.strip() for text in first):
            raise DistilkitError(f"corpus '{source}' holds no text: give other text")
    return documents


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Turn what datasets' readers raise, at once or in the middle of a stream, into one line."""
    try:
        yield
        return
    except datasets.exceptions.DatasetGenerationError as error:
        cause = error.__cause__ or error
    except (UnicodeDecodeError, json.JSONDecodeError, pa.ArrowInvalid, gzip.BadGzipFile, EOFError) as error:
        cause = error
    if isinstance(cause, DistilkitError):
        raise cause
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        raise no_space() from None
    if isinstance(cause, SchemaInferenceError):  # not a single row
        raise DistilkitError(f"corpus '{source}' holds no text: give other text") from None
    if isinstance(cause, UnicodeDecodeError):
        raise DistilkitError(f"corpus '{source}' is not UTF-8 text: convert it (iconv -t utf-8)") from None
    raise DistilkitError(f"corpus '{source}' cannot be read ({cause}): check its files") from None


def _files(path: Path) -> list[Path]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    readable = [p for p in files if _suffix(p) in READERS]
    if not readable:
        raise DistilkitError(f"corpus '{path}' holds no {', '.join(READERS)} file (.gz too): give other text")
    if len({_suffix(p) for p in readable}) > 1:
        raise DistilkitError(f"corpus '{path}' mixes file types: give files of one type")
    return readable


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _read_files(files: list[Path], streaming: bool) -> Any:
    reader, options = READERS[_suffix(files[0])], {}
    names = [str(file) for file in files]
    if reader == "text":
        lines = datasets.load_dataset("text", data_files=names, split="train", streaming=True)
        if any(not row["text"].strip() for row in islice(lines, 10_000)):
            options = {"sample_by": "paragraph"}
    return datasets.load_dataset(reader, data_files=names, split="train", streaming=streaming, **options)


def _read_hub(source: str, streaming: bool) -> Any:
    name, _, config = source.partition(":")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).suffix in (*READERS, ".gz"):
        raise DistilkitError(f"no corpus '{source}': check the path")
    try:
        return datasets.load_dataset(name, config or None, split="train", streaming=streaming)
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:
        reason = str(error).splitlines()[0][:120]
        raise DistilkitError(
            f"no file '{source}', and the hub gives no such data set ({reason}): give local text"
        ) from None


def pack_documents(
    documents: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    seq_length: int,
    *,
    fingerprint: str = "",
    packing: str = "blocks",
    name: str = "the corpus",
) -> Dataset:
    """Tokenise documents and lay them out in rows CLS … SEP of at most `seq_length` tokens, as Packer says.

    Returns a memory-mapped data set with a column `input_ids`, two bytes a token (four where the vocabulary has more
    than 65,536), cached by the documents' fingerprint, tokenizer, length and packing.
    Memory does not grow with the corpus.
    Raises DistilkitError where the text doesn't fill one block.
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
    """Return what turns texts into rows of this tokenizer's ids."""
    if packing == "documents" and tokenizer.pad_token_id is None:
        raise DistilkitError("the tokenizer has no PAD token, which --packing documents needs: use --packing blocks")
    encoder = Encoder(tokenizer.backend_tokenizer.to_str(), len(tokenizer))
    return Packer(encoder, *special_ids(tokenizer), seq_length, packing)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids that open and close a sequence (CLS and SEP)."""
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None or tokenizer.mask_token_id is None:
        raise DistilkitError("the tokenizer has no CLS, SEP or MASK token: give a masked-LM checkpoint's tokenizer")
    return int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)


def split(blocks: Dataset, seed: int) -> tuple[Rows, Rows]:
    """Set aside a few rows, drawn by the seed, for the held-out loss; returns (training, held out)."""
    count = min(HELDOUT_BLOCKS, max(1, int(HELDOUT_SHARE * len(blocks))))
    if len(blocks) < 2:
        raise DistilkitError(
            "the corpus is too small to set text aside for the held-out loss: give more text or --heldout"
        )
    order = np.random.default_rng(seed).permutation(len(blocks))
    return Rows(blocks, order[count:].astype(np.uint32)), Rows(blocks, order[:count])


def mask_tokens(
    input_ids: Tensor, tokenizer: PreTrainedTokenizerBase, probability: float, generators: list[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Mask a batch anew (Devlin et al. 2018, section 3.1): returns (corrupted ids, labels), (B, T) each.

    In every row exactly ⌈probability · tokens⌉ of those that are not special become targets, drawn evenly by the row's
    own generator, so that masks don't depend on how rows lie in batches; of the targets 80 % turn into MASK, 10 % into
    a random id and 10 % stay. Labels are -100 elsewhere.
    """
    length = input_ids.shape[1]
    draws = torch.stack([torch.rand(length, 3, generator=generator) for generator in generators])  # (B, T, 3)
    special = torch.isin(input_ids, torch.tensor(tokenizer.all_special_ids))
    tokens = (input_ids != (-1 if tokenizer.pad_token_id is None else tokenizer.pad_token_id)).sum(1)  # (B,)
    counts = torch.minimum((probability * tokens - 1e-6).ceil(), (~special).sum(1))  # (B,)
    order, fate, word = draws.masked_fill(special.unsqueeze(-1), -1.0).unbind(-1)
    rank = order.argsort(1, descending=True).argsort(1)  # (B, T): place of each token in its row's draw
    target = rank < counts.unsqueeze(1)
    labels = input_ids.where(target, -100)
    corrupted = input_ids.masked_fill(target & (fate < 0.8), int(tokenizer.mask_token_id))
    words = (word.double() * len(tokenizer)).long()
    return words.where(target & (fate >= 0.9), corrupted), labels


def masked_batch(
    tokenizer: PreTrainedTokenizerBase, probability: float
) -> Callable[[list[dict[str, Any]], list[torch.Generator]], dict[str, Tensor]]:
    """Return the collate function that stacks packed rows and masks them.

    Where rows differ in length they are padded to the longest, and there is an attention_mask.
    """

    def collate(rows: list[dict[str, Any]], generators: list[torch.Generator]) -> dict[str, Tensor]:
        tokens = [row["input_ids"] for row in rows]
        lengths = np.array([len(ids) for ids in tokens])
        ids = np.concatenate(tokens).astype(np.int64)
        batch = {}
        if (lengths == lengths[0]).all():
            ids = ids.reshape(len(rows), -1)  # (B, T)
        else:
            present = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
            padded = np.full(present.shape, tokenizer.pad_token_id)
            padded[present] = ids
            ids, batch = padded, {"attention_mask": torch.from_numpy(present.astype(np.int64))}
        corrupted, labels = mask_tokens(torch.from_numpy(ids), tokenizer, probability, generators)
        return {"input_ids": corrupted, "labels": labels} | batch

    return collate
