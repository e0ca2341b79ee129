"""Text to packed rows of tokens to masked batches."""

from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher

from distilkit.data.readers import READERS, _files, _suffix, readable
from distilkit.errors import DistilkitError

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
