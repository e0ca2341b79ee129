"""Read the rows of a csv, tsv, JSON or parquet file: only the wanted columns, as they are written."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from distilkit.data.readers import LINE_LIMIT, file_type, one_line_errors, open_file, read_lines
from distilkit.errors import DistilkitError

if TYPE_CHECKING:
    from datasets import Features

ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
SEPARATORS = (",", ";", "\t", "|")
REMEDY = "fix the file, or give another"
ONE_LINE = str.maketrans({"\n": " ", "\r": " ", "\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})
NEXT_OBJECT = re.compile(r"(?:[\s,\[]|null)*\{")
Row = dict[str, Any]

csv.field_size_limit(LINE_LIMIT)


class WrittenFloat(float):
    """A number of a JSON file that prints as it is written there."""

    def __init__(self, written: str) -> None:
        self.written = written

    def __str__(self) -> str:
        return self.written


def read_table(path: Path, columns: Sequence[str] | None = None, *, quoted: bool = True) -> Iterator[Row]:
    """Yield the rows of a file, as {column: value}; a JSON row has only the keys of its object.

    Values of csv and tsv files are text. If `columns` is given, others are not read where the format allows that. With
    `quoted` off, quotes in a tsv file are text, as in GLUE's files.
    Raises DistilkitError with the row if one cannot be read, possibly after other rows were yielded.
    """
    readers = {".csv": _csv_rows, ".tsv": _tsv_rows, ".parquet": _parquet_rows}
    with one_line_errors(f"'{path}'", REMEDY):
        if file_type(path) == ".tsv" and not quoted:
            yield from _separated_rows(path, "\t", csv.QUOTE_NONE)
        else:
            yield from readers.get(file_type(path), _json_rows)(path, columns)


def column_names(path: Path, *, quoted: bool = True) -> list[str]:
    """Return the columns of a file: of its header, its schema, or its first JSON rows."""
    if file_type(path) == ".parquet":
        with one_line_errors(f"'{path}'", REMEDY):
            return list(_open_parquet(path).schema_arrow.names)
    return list(dict.fromkeys(name for row in islice(read_table(path, (), quoted=quoted), 1000) for name in row))


def parquet_features(path: Path) -> "Features":
    """Return the features that datasets keeps in a parquet file's schema; empty for other files."""
    from datasets import Features  # takes a second to import

    with suppress(Exception):  # written by another tool, so it has no class names
        return Features.from_arrow_schema(_open_parquet(path).schema_arrow) if path.suffix == ".parquet" else Features()
    return Features()


def bad_row(path: Path, place: str, reason: str, remedy: str = REMEDY) -> DistilkitError:
    """Return the error for a row that cannot be read."""
    return DistilkitError(f"'{path}' cannot be read ({place} {reason}): {remedy}")


def _csv_rows(path: Path, _: Sequence[str] | None) -> Iterator[Row]:
    header = next(_lines(path), "")
    separator = max(SEPARATORS, key=lambda sign: len(next(csv.reader([header], delimiter=sign), [])))
    return _separated_rows(path, separator, csv.QUOTE_MINIMAL)


def _tsv_rows(path: Path, _: Sequence[str] | None) -> Iterator[Row]:
    return _separated_rows(path, "\t", csv.QUOTE_MINIMAL if _has_quoted_cells(path) else csv.QUOTE_NONE)


def _has_quoted_cells(path: Path) -> bool:
    """Say whether quotes in a tsv file enclose cells, as pandas and spreadsheets write it, or are text."""
    try:
        rows = _separated_rows(path, "\t", csv.QUOTE_MINIMAL)
        return not any("\n" in value and "\t" in value for row in rows for value in row.values())
    except (csv.Error, DistilkitError):
        return False


def _separated_rows(path: Path, separator: str, quoting: Any) -> Iterator[Row]:
    rows = csv.reader(_lines(path), delimiter=separator, quoting=quoting, strict=True)
    header: list[str] = []
    number = 0
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise bad_row(path, f"line {rows.line_num}:", str(error)) from None
        if row is None:
            return
        if not row:  # a blank line
            continue
        if not header:
            header = _checked_header(path, row)
            continue
        number += 1
        if len(row) != len(header):
            place = f"row {number}, line {rows.line_num}"
            hint = " (quote cells that contain it)" if len(row) > len(header) else ""
            found = f"has {len(row)} fields, but the header has {len(header)}"
            raise bad_row(path, place, found, f"fix its separators{hint}")
        yield dict(zip(header, row, strict=True))


def _checked_header(path: Path, row: list[str]) -> list[str]:
    header = [name.strip() for name in row]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise bad_row(path, "the header", f"has the column '{twice}' twice", "rename one")
    return header


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file with their own line breaks. Raises DistilkitError if one is too long."""
    for number, line in enumerate(read_lines(path, f"'{path}'", REMEDY, newline=""), 1):
        if len(line) >= LINE_LIMIT:
            raise bad_row(path, f"line {number}", f"has more than {LINE_LIMIT:,} characters")
        yield line


def _json_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    """Yield the objects of a file: a list of them, or one on each line."""
    with open_file(path, f"'{path}'", REMEDY) as file:
        is_list = file.read(4096).lstrip()[:1] == b"["
    place = "row" if is_list else "line"
    for number, row in enumerate(_json_list(path) if is_list else _json_lines(path), 1):
        if row is None:
            continue
        if not isinstance(row, dict):
            raise bad_row(path, f"{place} {number}", "is not an object {column: value}")
        wanted = row if columns is None else {name: row[name] for name in columns if name in row}
        try:
            json.dumps(wanted, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise bad_row(path, f"{place} {number}", "holds half of a character, such as \\ud83d") from None
        yield row


def is_json(path: Path) -> bool:
    """Say whether read_table() reads a file as JSON."""
    return file_type(path) not in (".csv", ".tsv", ".parquet")


def json_objects(path: Path) -> Iterator[str | None]:
    """Yield the text of each object of a JSON file that read_table() can read: on one line, else as it is written.

    Yields None for an object that holds NaN or infinity, which JSON does not have.
    """
    with open_file(path, f"'{path}'", REMEDY) as file:
        text = file.read().decode()
    constants: list[str] = []
    decoder, end = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=constants.append), 0
    while found := NEXT_OBJECT.match(text, end):
        start, known = found.end() - 1, len(constants)
        end = decoder.raw_decode(text, start)[1]
        yield text[start:end].translate(ONE_LINE) if len(constants) == known else None


def _json_list(path: Path) -> Any:
    with open_file(path, f"'{path}'", REMEDY) as file:
        return parse_json(file.read())


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            yield None
            continue
        try:
            row = parse_json(line)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise bad_row(path, f"line {number}:", reason[:120]) from None
        if row is None:
            raise bad_row(path, f"line {number}", "is not an object {column: value}")
        yield row


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; numbers print as they are written, and integers of more than 18 digits stay text."""
    return json.loads(
        text, parse_float=WrittenFloat, parse_int=lambda digits: digits if len(digits) > 18 else int(digits)
    )


def _open_parquet(path: Path) -> pq.ParquetFile:
    with open_file(path, f"'{path}'", REMEDY):
        pass
    try:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except OSError as error:
        raise bad_row(path, "parquet:", " ".join(str(error).split())[:120]) from None


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    file = _open_parquet(path)
    names = [name for name in file.schema_arrow.names if columns is None or name in columns]
    batches = file.iter_batches(batch_size=1000, columns=names)
    number = 0
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate(full=True)
            values = [
                [_decoded(value, strict=columns is not None) for value in batch.column(name).to_pylist()]
                for name in names
            ]
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())[:120]
            if isinstance(error, UnicodeDecodeError):
                reason = "bytes that are not UTF-8 text"
            raise bad_row(path, f"after row {number}:", reason) from None
        number += len(batch)
        for row in zip(*values, strict=True):
            yield dict(zip(names, row, strict=True))


def _decoded(value: Any, *, strict: bool) -> Any:
    """Return a value with its bytes as text; bytes that are no text, such as an image, stay unless `strict`."""
    if isinstance(value, list):
        return [_decoded(entry, strict=strict) for entry in value]
    if isinstance(value, dict):
        return {name: _decoded(entry, strict=strict) for name, entry in value.items()}
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        if strict:
            raise
        return value
