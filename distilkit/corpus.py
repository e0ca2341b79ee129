"""Text to packed token blocks to masked batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import SchemaInferenceError
from datasets.fingerprint import Hasher
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distilkit.errors import DistilkitError

READERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
HELDOUT_SHARE, HELDOUT_BLOCKS = 0.02, 256

datasets.disable_progress_bars()


def read_documents(source: str) -> Dataset:
    """Read text into a data set with one column `text`, a document a row.

    `source` is a file or folder of .txt, .jsonl or .parquet (.gz too), or a hub data set `name[:config]`. A .txt with
    blank lines holds a document between two of them, one without holds a document a line.
    Raises DistilkitError where there is no text or it can't be read.
    """
    path = Path(source)
    documents = _read_files(source, _files(path)) if path.exists() else _read_hub(source)
    if "text" not in documents.column_names:
        raise DistilkitError(
            f"corpus '{source}' has no column 'text' (it has {', '.join(documents.column_names)}): rename it"
        )
    if not any(text and text.strip() for text in documents[:1000]["text"]):
        raise DistilkitError(f"corpus '{source}' holds no text: give other text")
    return documents.select_columns("text")


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


def _read_files(source: str, files: list[Path]) -> Dataset:
    reader = READERS[_suffix(files[0])]
    names = [str(file) for file in files]
    try:
        if reader != "text":
            return datasets.load_dataset(reader, data_files=names, split="train")
        lines = datasets.load_dataset("text", data_files=names, split="train")
        if any(not line.strip() for line in lines[:10_000]["text"]):
            return datasets.load_dataset("text", data_files=names, split="train", sample_by="paragraph")
        return lines
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, SchemaInferenceError):  # not a single row
            raise DistilkitError(f"corpus '{source}' holds no text: give other text") from None
        if isinstance(error.__cause__, UnicodeDecodeError):
            raise DistilkitError(f"corpus '{source}' is not UTF-8 text: convert it (iconv -t utf-8)") from None
        raise DistilkitError(f"corpus '{source}' cannot be read ({error.__cause__}): check its files") from None


def _read_hub(source: str) -> Dataset:
    name, _, config = source.partition(":")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).suffix in (*READERS, ".gz"):
        raise DistilkitError(f"no corpus '{source}': check the path")
    try:
        return datasets.load_dataset(name, config or None, split="train")
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:
        reason = str(error).splitlines()[0][:120]
        raise DistilkitError(
            f"no file '{source}', and the hub gives no such data set ({reason}): give local text"
        ) from None


def pack(documents: Dataset, tokenizer: PreTrainedTokenizerBase, seq_length: int) -> Dataset:
    """Tokenise documents and lay them end to end in blocks of exactly `seq_length` tokens, nothing padded.

    Every block is CLS … SEP with SEP between documents. Returns a memory-mapped data set with a column `input_ids`
    (N, seq_length), cached by corpus, tokenizer and length.
    Raises DistilkitError where the text doesn't fill one block.
    """
    cls, sep = special_ids(tokenizer)

    def blocks(batch: dict[str, list[str]]) -> dict[str, Any]:
        encoded = tokenizer([text or "" for text in batch["text"]], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        stream = np.array([token for ids in encoded if ids for token in (*ids, sep)], dtype=np.int32)
        body = seq_length - 2
        rows = stream[: len(stream) // body * body].reshape(-1, body)  # (N, body)
        return {"input_ids": np.pad(rows, ((0, 0), (1, 1)), constant_values=((0, 0), (cls, sep)))}

    corpus = documents._fingerprint  # noqa: SLF001 - what datasets names its own cache files by
    fingerprint = Hasher.hash((corpus, tokenizer.backend_tokenizer.to_str(), seq_length))
    packed = documents.map(
        blocks,
        batched=True,
        batch_size=2000,
        remove_columns=documents.column_names,
        features=Features({"input_ids": List(Value("int32"))}),
        new_fingerprint=fingerprint,
    )
    if not len(packed):
        raise DistilkitError(
            f"the corpus does not fill one block of {seq_length} tokens: give more text or a lower --seq-length"
        )
    return packed


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids that open and close a sequence (CLS and SEP)."""
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None or tokenizer.mask_token_id is None:
        raise DistilkitError("the tokenizer has no CLS, SEP or MASK token: give a masked-LM checkpoint's tokenizer")
    return int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)


def split(blocks: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Set aside a few blocks, drawn by the seed, for the held-out loss; returns (training, held out)."""
    count = min(HELDOUT_BLOCKS, max(1, int(HELDOUT_SHARE * len(blocks))))
    if len(blocks) < 2:
        raise DistilkitError(
            "the corpus is too small to set text aside for the held-out loss: give more text or --heldout"
        )
    parts = blocks.train_test_split(test_size=count, seed=seed)
    return parts["train"], parts["test"]


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
    """Return the collate function that stacks packed blocks and masks them."""

    def collate(rows: list[dict[str, Any]], generators: list[torch.Generator]) -> dict[str, Tensor]:
        ids = torch.tensor(np.array([row["input_ids"] for row in rows]), dtype=torch.long)  # (B, T)
        corrupted, labels = mask_tokens(ids, tokenizer, probability, generators)
        return {"input_ids": corrupted, "labels": labels}

    return collate
