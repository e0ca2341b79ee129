"""Turn a file's rows into columns: text as it is written, labels with their type, SQuAD's answers."""

import ast
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Features, List, Value

from distilkit.data.tables import Row, parquet_features
from distilkit.errors import DistilkitError

PART = 10_000  # rows to convert at a time
INT64 = range(-(2**63), 2**63)
LARGEST = 1e18  # number as a label or grade: fp32 holds sums of its squares


def to_table(
    rows: Iterable[Row], path: Path, text: Sequence[str], labels: Sequence[str], *, kind: str = ""
) -> pa.Table:
    """Return a table of the columns `text`, as text, and `labels`, with a type that fits all their values.

    For the kind "span", labels are answers in SQuAD's layout. For "tokens", text and labels are lists of words and of
    tags. A value that a row lacks is null.
    Raises DistilkitError if a value has another layout, and names the row.
    """
    text_array, feature = (_words_array, List(Value("string"))) if kind == "tokens" else (_text_array, Value("string"))
    parts: dict[str, list[pa.Array]] = {name: [] for name in text}
    values: dict[str, list[Any]] = {name: [] for name in labels}
    for start, part in enumerate(_parts(rows)):
        for name in text:
            parts[name].append(text_array([row.get(name) for row in part], path, name, 1 + PART * start))
        for name in labels:
            values[name] += [_words(row.get(name)) if kind == "tokens" else row.get(name) for row in part]
    classes = parquet_features(path)
    typed = {
        name: _answers(column, path) if kind == "span" else _label_array(column, path, name, classes.get(name))
        for name, column in values.items()
    }
    features = Features(dict.fromkeys(text, feature) | {name: kind for name, (_, kind) in typed.items()})
    columns = {name: pa.chunked_array(arrays, features.arrow_schema.field(name).type) for name, arrays in parts.items()}
    columns |= {name: pa.chunked_array([array]) for name, (array, _) in typed.items()}
    return pa.table(columns).cast(features.arrow_schema)


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while part := list(islice(rows, PART)):
        yield part


def _text_array(values: list[Any], path: Path, name: str, first: int) -> pa.Array:
    return pa.array([_text(value, path, name, number) for number, value in enumerate(values, first)], pa.string())


def _text(value: Any, path: Path, name: str, number: int) -> str | None:
    if isinstance(value, (list, tuple, dict)):
        raise _nested(path, name, number)
    return value if value is None or isinstance(value, str) else str(value)


def _words_array(values: list[Any], path: Path, name: str, first: int) -> pa.Array:
    found = [_words(value) for value in values]
    for number, words in enumerate(found, first):
        if words is not None and (not isinstance(words, list) or None in words):
            raise DistilkitError(f"'{path}' has no list of words in '{name}' in row {number}: write […, …]")
        if any(isinstance(word, (list, tuple, dict)) for word in words or ()):
            raise _nested(path, name, number)
    return pa.array([words if words is None else list(map(str, words)) for words in found], pa.list_(pa.string()))


def _words(value: Any) -> Any:
    """Return the words in a cell of text: the entries of a Python list, or else the parts between spaces."""
    if not isinstance(value, str):
        return value
    return parsed[0] if isinstance((parsed := _lists_in_text([value]))[0], list) else value.split()


def _nested(path: Path, name: str, number: int) -> DistilkitError:
    return DistilkitError(
        f"column '{name}' in '{path}' holds nested values (row {number}): use a column of plain text or numbers, or "
        "--kind tokens for words with a tag each"
    )


def _label_array(values: list[Any], path: Path, name: str, feature: Any) -> tuple[pa.Array, Any]:
    """Return a label column as an array with its feature."""
    if isinstance(getattr(feature, "feature", feature), ClassLabel):
        return pa.array(values, pa.list_(pa.int64()) if hasattr(feature, "feature") else pa.int64()), _plain(feature)
    values = _lists_in_text(values)
    is_list = any(isinstance(value, list) for value in values)
    for number, value in enumerate(values, 1):
        entries = value if isinstance(value, list) else [value]
        if any(isinstance(entry, (list, tuple, dict)) for entry in entries):
            raise _nested(path, name, number)
        if is_list and not isinstance(value, list | None):
            raise DistilkitError(f"'{path}' has one value, not a list, in '{name}' in row {number}: use lists")
    scalars = [entry for value in values for entry in (value or () if is_list else (value,)) if entry is not None]
    dtype = _common_type(scalars)

    def convert(entry: Any) -> Any:
        return entry if entry is None or dtype != "string" else label_name(entry)

    if is_list:
        values = [value if value is None else [convert(entry) for entry in value] for value in values]
        feature = List(Value(dtype))
    else:
        values, feature = [convert(value) for value in values], Value(dtype)
    return pa.array(values, Features({name: feature}).arrow_schema.field(0).type), feature


def _plain(feature: Any) -> Any:
    return List(feature.feature) if hasattr(feature, "feature") else feature


def _common_type(values: list[Any]) -> str:
    """Return the type that holds all values: bool, int64, float64, or string for anything else."""
    types = {type(value) for value in values}
    if types == {bool}:
        return "bool"
    if types and all(issubclass(kind, int) and kind is not bool for kind in types):
        return "int64" if all(value in INT64 for value in values) else "string"
    if types and all(issubclass(kind, (int, float)) and kind is not bool for kind in types):
        return "float64"
    return "string"


def label_name(value: Any) -> str:
    """Return the name of a label: text without spaces around it, a whole number without a fraction."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def to_number(value: Any) -> float | None:
    """Return a number, possibly written as text; None for anything else, NaN and infinity."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and "_" not in str(value) else None  # Python reads 1_0 as 10


def _lists_in_text(values: list[Any]) -> list[Any]:
    """Parse a csv column of lists, such as ['a', 'b'] or [1, 0, 1]; return other columns as they are."""
    cells = [value.strip() for value in values if isinstance(value, str)]
    if not cells or len(cells) < len(values) or not all(cell[:1] + cell[-1:] == "[]" for cell in cells):
        return values
    try:
        parsed = [ast.literal_eval(cell) for cell in cells]
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return values
    return parsed if all(isinstance(value, list) for value in parsed) else values


def _answers(values: list[Any], path: Path) -> tuple[pa.Array, Any]:
    features = Features({"answers": {"text": List(Value("string")), "answer_start": List(Value("int64"))}})
    try:
        return pa.array(values, features.arrow_schema.field("answers").type), features["answers"]
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise wrong_answers(str(path)) from None


def wrong_answers(source: str) -> DistilkitError:
    """Return the error for answers that are not in SQuAD's layout."""
    return DistilkitError(
        f"'{source}' has answers in another layout than SQuAD's, {{text: […], answer_start: […]}}: fix the file"
    )
