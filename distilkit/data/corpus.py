"""Read the documents of a corpus, loaded or streamed."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher

from distilkit.data.readers import file_type, one_line_errors
from distilkit.errors import DistilkitError

READERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}

datasets.disable_progress_bars()


def read_documents(source: str, column: str = "text") -> Dataset:
    """Read a text, in this column, into a data set with one column, `text`, one document per row.

    `source` is a file or folder of .txt, .jsonl or .parquet files (.gz too), or a hub data set `name[:config]`. In a
    .txt file with blank lines, documents are separated by them; otherwise each line is a document.
    Raises DistilkitError if there is no text or it cannot be read.
    """
    return _read(source, column, streaming=False)


def stream_documents(source: str, column: str = "text") -> IterableDataset:
    """Stream the same documents without a copy on disk."""
    return _read(source, column, streaming=True)


def read_once(source: str, column: str = "text") -> tuple[Dataset | IterableDataset, str]:
    """Read the documents for a single pass; return them with a fingerprint (for files: of path, size and change time).

    Local files are read in place: a copy in datasets' cache would take as much disk again and, memory-mapped, as much
    memory. A hub data set is downloaded once.
    """
    path = Path(source)
    if not path.exists():
        downloaded = read_documents(source, column)
        return downloaded, downloaded._fingerprint  # noqa: SLF001 - datasets names its own cache files by it
    files = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in _list_files(path)]
    return stream_documents(source, column), Hasher.hash((files, column) if column != "text" else files)


@contextmanager
def corpus_errors(source: str) -> Iterator[None]:
    """Context manager: turn the errors of reading a corpus into one line, also in the middle of a stream."""
    with one_line_errors(f"corpus '{source}'", "check its files or give another text"):
        yield


def _read(source: str, column: str, streaming: bool) -> Any:
    path = Path(source)
    with corpus_errors(source):
        documents = _read_files(_list_files(path), streaming) if path.exists() else _read_hub(source, streaming)
        columns = documents.column_names or list(next(iter(documents), {"text": ""}))
        if column not in columns:
            raise DistilkitError(
                f"corpus '{source}' has no column '{column}' (it has {', '.join(columns)}): rename it, or for distill "
                "name another with --text"
            )
        documents = documents.select_columns(column)
        documents = documents if column == "text" else documents.rename_column(column, "text")
        first = [row["text"] or "" for row in islice(documents, 1000)]
        if not all(isinstance(text, str) for text in first):
            raise DistilkitError(
                f"corpus '{source}' has values other than text in its column '{column}': use plain text"
            )
        if not any(text.strip() for text in first):
            raise DistilkitError(f"corpus '{source}' contains no text: give another text")
    return documents


def _list_files(path: Path) -> list[Path]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    corpus_files = [p for p in files if file_type(p) in READERS]
    if not corpus_files:
        raise DistilkitError(f"corpus '{path}' contains no {', '.join(READERS)} file (.gz too): give another text")
    if len({file_type(p) for p in corpus_files}) > 1:
        raise DistilkitError(f"corpus '{path}' mixes file types: give files of one type only")
    return corpus_files


def _read_files(files: list[Path], streaming: bool) -> Any:
    reader, options = READERS[file_type(files[0])], {}
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
            f"no file '{source}', and no such data set on the hub ({reason}): give local text"
        ) from None
