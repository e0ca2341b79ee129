"""Read the documents of a corpus, loaded or streamed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import pyarrow as pa
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher

from distilkit.data.readers import LINE_LIMIT, content_hash, file_type, is_plain, one_line_errors, read_lines
from distilkit.data.tables import bad_row, column_names, read_table
from distilkit.data.token_store import store_table
from distilkit.errors import DistilkitError
from distilkit.hub import hub_errors
from distilkit.progress import warn

ENDINGS = (".txt", ".jsonl", ".json", ".parquet")
REMEDY = "check its files or give another text"
TEXT = pa.schema({"text": pa.string()})

datasets.disable_progress_bars()


class TextFiles:
    """The documents of local files, {"text": …} each, read in place: once or several times, from any position.

    `column` is the column of a table that holds the text.
    state_dict() and load_state_dict() are those of datasets' streams.
    """

    def __init__(self, source: str, column: str = "text") -> None:
        self.source, self.files, self.column = source, _list_files(Path(source)), column
        if column != "text" and file_type(self.files[0]) == ".txt":
            raise DistilkitError(
                f"--text {column} names a column of a table, but corpus '{source}' is .txt: remove --text"
            )
        self.paragraphs = file_type(self.files[0]) == ".txt" and _has_blank_lines(self.files)
        self._start = (0, 0)  # file and document that the next pass starts at
        self._file = self._document = 0
        self._warned = False

    @property
    def fingerprint(self) -> str:
        """A hash of the files' contents."""
        reading = "-paragraphs" * self.paragraphs + f"-{Hasher.hash(self.column)}" * (self.column != "text")
        return content_hash(self.files, REMEDY) + reading

    def __iter__(self) -> Iterator[dict[str, str]]:
        (first, skipped), self._start = self._start, (0, 0)
        for number, file in enumerate(self.files[first:], first):
            self._file, self._document = number, skipped
            for text in islice(self._texts(file), skipped, None):
                self._document += 1
                yield {"text": text}
            skipped = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the text."""
        return {"file": self._file, "document": self._document}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass start at a position."""
        self._start = state["file"], state["document"]

    def _texts(self, file: Path) -> Iterator[str]:
        return self._split(file) if file_type(file) == ".txt" else _text_column(file, self.column)

    def _split(self, file: Path) -> Iterator[str]:
        """Yield the lines of a file, or its paragraphs."""
        gathered, size = list[str](), 0
        for line in chain(read_lines(file, f"'{file}'", REMEDY), [""]):
            if line.strip():
                gathered.append(line)
                size += len(line)
            if gathered and (size >= LINE_LIMIT or not self.paragraphs or not line.strip()):
                if size >= LINE_LIMIT and not self._warned:
                    self._warned = True
                    warn(f"'{file}' has a document of {LINE_LIMIT:,} characters or more: it is cut into several")
                yield "".join(gathered).rstrip("\n")
                gathered, size = [], 0


Documents: TypeAlias = Dataset | IterableDataset | TextFiles


def read_documents(source: str, column: str = "text") -> Dataset:
    """Read a text, in this column, into a data set with one column, `text`, one document per row.

    `source` is a file or folder of .txt, .jsonl or .parquet files (.gz too), or a hub data set `name[:config]`. If a
    text of .txt files has blank lines, which may hold spaces, they separate its documents; otherwise each line is one.
    Raises DistilkitError if there is no text or it cannot be read.
    """
    if not Path(source).exists():
        return checked(_read_hub(source, streaming=False), source, column)
    files = checked(TextFiles(source, column), source, column)
    return store_table(f"documents-{files.fingerprint}", lambda: (TEXT, _record_batches(texts(files))))


def stream_documents(source: str, column: str = "text") -> IterableDataset | TextFiles:
    """Stream the same documents without a copy on disk."""
    if Path(source).exists():
        return checked(TextFiles(source, column), source, column)
    return checked(_read_hub(source, streaming=True), source, column)


def read_once(source: str, column: str = "text") -> Documents:
    """Read the documents for a single pass.

    Local files are read in place: a copy in datasets' cache would take as much disk again and, memory-mapped, as much
    memory. A hub data set is downloaded once.
    """
    return stream_documents(source, column) if Path(source).exists() else read_documents(source, column)


def fingerprint(documents: Documents) -> str:
    """Return a fingerprint of the content of documents."""
    if isinstance(documents, TextFiles):
        return documents.fingerprint
    return str(documents._fingerprint)  # noqa: SLF001 - datasets names its own cache files by it


def texts(documents: Documents) -> Iterator[str]:
    """Yield the texts of documents."""
    if isinstance(documents, TextFiles):
        return (row["text"] for row in documents)
    tables = documents.with_format("arrow").iter(1000)
    return (text.as_py() or "" for table in tables for text in table["text"])


@contextmanager
def corpus_errors(source: str) -> Iterator[None]:
    """Context manager: turn the errors of reading a corpus into one line, also in the middle of a stream."""
    with one_line_errors(f"corpus '{source}'", REMEDY):
        yield


def checked(documents: Any, source: str, column: str) -> Any:
    """Return the documents with only the text column, renamed to `text`; check the first documents.

    Raises DistilkitError if these lack the column, hold something other than text, or are all empty.
    """
    with corpus_errors(source):
        if not isinstance(documents, TextFiles):
            columns = documents.column_names or list(next(iter(documents), {"text": ""}))
            if column not in columns:
                raise no_column(source, column, columns)
            documents = documents.select_columns(column)
            documents = documents if column == "text" else documents.rename_column(column, "text")
        for row in islice(documents, 1000):
            if not isinstance(row["text"], str | None):
                raise DistilkitError(
                    f"corpus '{source}' has values other than text in column '{column}': use plain text"
                )
            if (row["text"] or "").strip():
                return documents
    raise DistilkitError(f"corpus '{source}' contains no text: give another text")


def no_column(source: str | Path, column: str, columns: Sequence[str]) -> DistilkitError:
    """Return the error for a table without the column that holds the text."""
    return DistilkitError(
        f"corpus '{source}' has no column '{column}' (it has {', '.join(columns)}): rename it, or for distill name "
        "another with --text"
    )


def _list_files(path: Path) -> list[Path]:
    found = sorted(p for p in path.rglob("*") if not p.is_dir()) if path.is_dir() else [path]
    files = [p for p in found if file_type(p) in ENDINGS]
    if not files:
        raise DistilkitError(f"corpus '{path}' contains no {', '.join(ENDINGS)} file (.gz too): give another text")
    for file in files:
        if not file.exists() or not is_plain(file):
            what = "a device or a pipe" if file.exists() else "a broken link"
            raise DistilkitError(f"corpus '{path}' has '{file.name}', which is {what}: remove it")
    other = next((p for p in files if file_type(p) != file_type(files[0])), None)
    if other:
        raise DistilkitError(
            f"corpus '{path}' mixes file types ('{files[0].name}', '{other.name}'): give files of one type only"
        )
    return files


def _has_blank_lines(files: list[Path]) -> bool:
    lines = chain.from_iterable(read_lines(file, f"'{file}'", REMEDY) for file in files)
    return any(not line.strip() for line in islice(lines, 10_000))


def _text_column(file: Path, column: str) -> Iterator[str]:
    columns = column_names(file)
    if columns and column not in columns:
        raise no_column(file, column, columns)
    for number, row in enumerate(read_table(file, [column]), 1):
        text = row.get(column)
        if not isinstance(text, str | None):
            raise bad_row(file, f"row {number}", f"has something other than text in '{column}'", "use plain text")
        yield text or ""


def _record_batches(documents: Iterable[str]) -> Iterator[pa.RecordBatch]:
    documents = iter(documents)
    while part := list(islice(documents, 1000)):
        yield pa.record_batch([pa.array(part, pa.string())], schema=TEXT)


def _read_hub(source: str, streaming: bool) -> Any:
    name, _, config = source.partition(":")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).suffix in (*ENDINGS, ".gz"):
        raise DistilkitError(f"no corpus '{source}': check the path")
    with hub_errors(name, what="data set", remedy="give local text"):
        return datasets.load_dataset(name, config or None, split="train", streaming=streaming)
