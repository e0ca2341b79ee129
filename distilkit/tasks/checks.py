"""Check the columns, labels and SQuAD answers of a task's rows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, List, Value

from distilkit.errors import DistilkitError
from distilkit.tasks.catalogue import Task
from distilkit.tasks.columns import wrong_answers
from distilkit.tasks.labels import describe_labels, label_id, label_to_target

TEXT_DTYPES = ("string", "large_string")


def require_columns(columns: Iterable[str], names: Sequence[str], task: Task, source: str) -> None:
    """Raise DistilkitError if a column is not among the names of a file's columns."""
    missing = [column for column in columns if column not in names]
    if missing:
        hint = "check --text and --label" if task.name == "custom" else f"--task {task.name} requires it"
        listed = ", ".join(f"'{column}'" for column in missing)
        raise DistilkitError(f"no column {listed} in '{source}' (it has {', '.join(names)}): {hint}")


def check_columns(rows: Dataset, task: Task, source: str, *, labelled: bool = True) -> None:
    """Raise DistilkitError if a column is missing, has empty cells or holds anything but text, numbers or classes."""
    label = (task.label,) if labelled else ()
    required = (*task.text, *label, *(("id",) if task.kind == "span" else ()))
    require_columns(required, rows.column_names, task, source)
    for column in required:
        if rows.data.column(column).null_count:
            number = next(n for n, value in enumerate(rows[column], 1) if value is None)
            raise _empty_cell(source, column, number)
    for column in task.text if task.kind == "span" else (*task.text, *label):
        feature = rows.features[column]
        is_list = (
            task.name == "custom" and isinstance(feature, List) and (column == task.label or task.kind == "tokens")
        )
        if not isinstance(feature.feature if is_list else feature, (Value, ClassLabel)):
            raise DistilkitError(
                f"column '{column}' in '{source}' holds nested values: use a column of plain text or numbers"
            )
    if task.name == "custom" and labelled:
        for number, value in enumerate(rows[task.label], 1):
            if any(map(_is_blank, value if isinstance(value, list) else [value])):
                raise _empty_cell(source, task.label, number)


def _is_blank(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # noqa: PLR0124 - nan


def _empty_cell(source: str, column: str, number: int) -> DistilkitError:
    return DistilkitError(f"'{source}' has no '{column}' in row {number}: fill it in or delete the row")


def check_questions(rows: Dataset, source: str) -> Dataset:
    """Return SQuAD's rows with ids as text.

    Raises DistilkitError if answers, questions or contexts have another layout, or if two rows share an id.
    """
    answers = rows.features["answers"]
    parts = dict(answers) if isinstance(answers, dict) else {}
    dtypes = {name: parts[name].feature.dtype for name in parts if isinstance(parts[name], List)}
    if dtypes.get("text") not in TEXT_DTYPES or not str(dtypes.get("answer_start")).startswith("int"):
        raise wrong_answers(source)
    _check_answers(rows, source)
    rows = rows if rows.features["id"] == Value("string") else rows.cast_column("id", Value("string"))
    [(most_common, times)] = Counter(rows["id"][:]).most_common(1)
    if times > 1:
        raise DistilkitError(f"'{source}' has several rows with the id '{most_common}': make ids unique")
    return rows


def _check_answers(rows: Dataset, source: str) -> None:
    """Raise DistilkitError if an answer has no text or no start."""
    # Arrow scans all rows in one pass; the loop below runs only to find the row to name in the error.
    texts, starts = (pc.struct_field(rows.data.column("answers"), name) for name in ("text", "answer_start"))
    nulls = sum(pc.list_flatten(values).null_count for values in (texts, starts))
    unequal = pc.not_equal(*map(pc.list_value_length, (texts, starts)))  # null if a list is missing
    if not nulls and not pc.any(pc.fill_null(unequal, True)).as_py():
        return
    for key, answer in zip(rows["id"], rows["answers"], strict=True):
        text, start = answer["text"], answer["answer_start"]
        if text is None or start is None or len(text) != len(start) or None in (*text, *start):
            raise DistilkitError(f"'{source}' has an answer without text or start in question '{key}': fix the file")


def check_words(rows: Dataset, task: Task, source: str) -> None:
    """Raise DistilkitError if a sentence is not a list of words, or does not have one tag per word."""
    (words,) = task.text
    for column in (words, task.label):
        if not isinstance(rows.features[column], List):
            raise DistilkitError(
                f"'{source}' has no lists in '{column}', but --kind tokens requires them: check --text and --label"
            )
    lengths = (pc.list_value_length(rows.data.column(column)).to_pylist() for column in (words, task.label))
    for number, (count, tags) in enumerate(zip(*lengths, strict=True), 1):
        if count != tags:
            raise DistilkitError(
                f"'{source}' has {count} words but {tags} tags in row {number}: give each word a tag in {task.label}"
            )


def check_labels(rows: Dataset, task: Task, source: str) -> None:
    """Raise DistilkitError if a row has a label that the task does not have."""
    if task.kind == "span":
        return
    is_list = isinstance(rows.features[task.label], List)
    if is_list != (task.kind in ("multi-label", "tokens")):
        found = "lists" if is_list else "single values"
        raise DistilkitError(
            f"'{source}' has {found} in {task.label}, which does not fit {task.kind}: check --label and --kind"
        )
    # Lists are unhashable; single values are checked once per distinct value.
    valid = (
        None if is_list else {value for value in rows.unique(task.label) if label_to_target(task, value) is not None}
    )
    for number, value in enumerate(rows[task.label], 1):
        if value in valid if valid is not None else label_to_target(task, value) is not None:
            continue
        shown = next(tag for tag in value if label_id(task, tag) is None) if task.kind == "tokens" else value
        # Data sets mark hidden labels of a test split with -1.
        hint = "use a split with labels" if str(shown).startswith("-1") else "fix the row"
        raise DistilkitError(
            f"'{source}' has {task.label} {shown!r} in row {number}, but {task.title} has "
            f"{describe_labels(task)}: {hint}"
        )
