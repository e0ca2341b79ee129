"""Open text files, task files and prediction files; turn the errors of their readers into one line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import datasets
import pyarrow as pa
from datasets.arrow_writer import SchemaInferenceError

from distilkit.errors import DistilkitError
from distilkit.files import NO_SPACE

# What readers of text, JSON, CSV, Parquet and gzip raise on files that are damaged or of another format.
BAD_FILE = (UnicodeDecodeError, json.JSONDecodeError, pa.ArrowInvalid, gzip.BadGzipFile, zlib.error, EOFError)


@contextmanager
def one_line_errors(source: str, remedy: str) -> Iterator[None]:
    """Context manager: turn the errors of readers into one line, also in the middle of a stream.

    The line starts with `source`, which names what is read, and ends with `remedy`, which says what to do.
    """
    cause: BaseException
    try:
        yield
        return
    except datasets.exceptions.DatasetGenerationError as error:
        cause = error.__cause__ or error
    except BAD_FILE as error:
        cause = error
    except ValueError as error:
        if "corresponds to no data" not in str(error):
            raise
        cause = SchemaInferenceError()
    if isinstance(cause, DistilkitError):
        raise cause
    if isinstance(cause, OSError) and cause.errno in NO_SPACE:
        raise cache_unwritable("no space left") from None
    if isinstance(cause, SchemaInferenceError):
        raise DistilkitError(f"{source} has no rows: {remedy}") from None
    if isinstance(cause, UnicodeDecodeError):
        raise DistilkitError(f"{source} is not UTF-8 text: convert it (iconv -t utf-8)") from None
    reason = " ".join(str(cause).split())[:160]
    raise DistilkitError(f"{source} cannot be read ({reason}): {remedy}") from None


@contextmanager
def open_file(path: Path, source: str, remedy: str) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes, unpacked if its name ends in .gz.

    Raises DistilkitError, in the form of one_line_errors(), if it cannot be opened or read.
    """
    try:
        opened = (gzip.open if path.suffix == ".gz" else open)(path, "rb")
    except OSError as error:
        raise DistilkitError(f"{source} cannot be read ({error.strerror}): {remedy}") from None
    with one_line_errors(source, remedy), opened as file:
        yield cast(IO[bytes], file)


def file_type(path: Path) -> str:
    """Return the ending of a file's name, ".jsonl" for "a.jsonl" and "a.jsonl.gz"."""
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def cache_unwritable(reason: str) -> DistilkitError:
    """Return the error for a full disk under datasets' cache, or a cache that may not be written."""
    return DistilkitError(
        f"cannot write to '{datasets.config.HF_DATASETS_CACHE}' ({reason}): free some space, or set HF_DATASETS_CACHE "
        "to another disk (distill: or stream the text with --streaming)"
    )
