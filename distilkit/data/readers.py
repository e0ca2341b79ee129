"""Open text files, task files and prediction files; turn the errors of their readers into one line."""

import csv
import gzip
import io
import json
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import xxhash

from distilkit.errors import DistilkitError
from distilkit.files import NO_SPACE

# What readers of text, JSON, CSV, Parquet and gzip raise on files that are damaged or of another format.
BAD_FILE = (
    *(UnicodeError, json.JSONDecodeError, RecursionError, csv.Error),
    *(pa.ArrowException, gzip.BadGzipFile, zlib.error, EOFError),
)
WRAPPER, NO_ROWS = "DatasetGenerationError", "SchemaInferenceError"  # of datasets, which takes a second to import
REASONS: dict[type, str] = {
    RecursionError: "nested too deeply",
    UnicodeEncodeError: "it holds half of a character, such as \\ud83d",
}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LINE_LIMIT = 2**24  # characters; bounds the memory that one line of a (compressed) file takes


@contextmanager
def one_line_errors(source: str, remedy: str) -> Iterator[None]:
    """Context manager: turn the errors of readers into one line, also in the middle of a stream.

    The line starts with `source`, which names what is read, and ends with `remedy`, which says what to do.
    """
    try:
        yield
        return
    except Exception as error:
        wrapped = type(error).__name__ == WRAPPER
        cause = (error.__cause__ or error) if wrapped else error
        no_rows = type(cause).__name__ == NO_ROWS or (isinstance(error, ValueError) and "no data" in str(error))
        if not (wrapped or no_rows or isinstance(error, BAD_FILE)):
            raise
    if isinstance(cause, DistilkitError):
        raise cause
    if isinstance(cause, OSError) and cause.errno in NO_SPACE:
        raise cache_unwritable("no space left") from None
    if no_rows:
        raise DistilkitError(f"{source} has no rows: {remedy}") from None
    if isinstance(cause, UnicodeDecodeError):
        raise DistilkitError(f"{source} is not UTF-8 text: convert it (iconv -t utf-8)") from None
    reason = REASONS.get(type(cause)) or " ".join(str(cause).split())[:160]
    raise DistilkitError(f"{source} cannot be read ({reason}): {remedy}") from None


@contextmanager
def open_file(path: Path, source: str, remedy: str) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes: unpacked if its name ends in .gz, and without a byte order mark.

    Raises DistilkitError, in the form of one_line_errors(), if it cannot be opened or read, or is a device or a pipe.
    """
    try:
        if not is_plain(path):
            raise DistilkitError(f"{source} is a device or a pipe, not a file: {remedy}")
        opened = (gzip.open if path.suffix == ".gz" else open)(path, "rb")
    except OSError as error:
        raise DistilkitError(f"{source} cannot be read ({error.strerror}): {remedy}") from None
    with one_line_errors(source, remedy), opened as file:
        readable = cast(io.BufferedReader, file)
        if readable.peek(3)[:3] == BYTE_ORDER_MARK:
            readable.read(3)
        yield readable


def is_plain(path: Path) -> bool:
    """Say whether a path is a file or folder, not a device, a pipe or a socket. Raises OSError if there is nothing."""
    mode = path.stat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def read_lines(path: Path, source: str, remedy: str, *, newline: str | None = None) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file with their line breaks; a longer line comes in pieces of LINE_LIMIT.

    `newline` is that of open().
    """
    with open_file(path, source, remedy) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline=newline)
        while line := text.readline(LINE_LIMIT):
            yield line


def content_hash(paths: Iterable[Path], remedy: str) -> str:
    """Return a hash of the contents of files, to name what is computed from them."""
    digest = xxhash.xxh3_128()
    for path in paths:
        digest.update(file_type(path).encode() + b"\0")
        with one_line_errors(f"'{path}'", remedy):
            try:
                with path.open("rb") as file:
                    while part := file.read(2**20):
                        digest.update(part)
            except OSError as error:
                raise DistilkitError(f"'{path}' cannot be read ({error.strerror}): {remedy}") from None
        digest.update(b"\0")
    return digest.hexdigest()


def values_hash(values: Iterable[Any]) -> str:
    """Return a hash of values that JSON can hold, for example texts; it is the same on all machines."""
    digest = xxhash.xxh3_128()
    for value in values:
        digest.update(json.dumps(value).encode() + b"\n")
    return digest.hexdigest()


def file_type(path: Path) -> str:
    """Return the ending of a file's name in lower case, ".jsonl" for "a.jsonl" and "a.JSONL.gz"."""
    return (Path(path.stem).suffix if path.suffix == ".gz" else path.suffix).lower()


def cache_unwritable(reason: str) -> DistilkitError:
    """Return the error for a full disk under datasets' cache, or a cache that may not be written."""
    import datasets

    return DistilkitError(
        f"cannot write to '{datasets.config.HF_DATASETS_CACHE}' ({reason}): free some space, or set HF_DATASETS_CACHE "
        "to another disk (distill: or stream the text with --streaming)"
    )
