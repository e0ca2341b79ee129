"""Open text files and hub data sets; turn their errors into one line."""

import errno
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa
from datasets.arrow_writer import SchemaInferenceError

from distilkit.errors import DistilkitError

READERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Turn the errors of datasets' readers into one line, also in the middle of a stream."""
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
    if isinstance(cause, SchemaInferenceError):  # no rows at all
        raise DistilkitError(f"corpus '{source}' contains no text: give another text") from None
    if isinstance(cause, UnicodeDecodeError):
        raise DistilkitError(f"corpus '{source}' is not UTF-8 text: convert it (iconv -t utf-8)") from None
    raise DistilkitError(f"corpus '{source}' cannot be read ({cause}): check its files") from None


def _files(path: Path) -> list[Path]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    readable = [p for p in files if _suffix(p) in READERS]
    if not readable:
        raise DistilkitError(f"corpus '{path}' contains no {', '.join(READERS)} file (.gz too): give another text")
    if len({_suffix(p) for p in readable}) > 1:
        raise DistilkitError(f"corpus '{path}' mixes file types: give files of one type only")
    return readable


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def no_space() -> DistilkitError:
    """Return the error for a full disk under datasets' cache."""
    return DistilkitError(
        f"no space left for the tokens in '{datasets.config.HF_DATASETS_CACHE}': "
        "free some, set HF_DATASETS_CACHE to another disk, or read the text with --streaming"
    )
