"""Check that columns, labels and answers are what a task needs."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, List, Value

from distilkit.errors import DistilkitError
from distilkit.tasks.catalogue import Task
from distilkit.tasks.labels import allowed, label_to_target

TEXTS = ("string", "large_string")


FLAGS = {0: False, 1: True, "0": False, "1": True}  # False and True are 0 and 1


def _require(columns: Iterable[str], rows: Dataset, task: Task, source: str) -> None:
    for column in columns:
        if column not in rows.column_names:
            hint = "check --text and --label" if task.name == "custom" else f"--task {task.name} needs it"
            raise DistilkitError(f"no column '{column}' in '{source}' (it has {', '.join(rows.column_names)}): {hint}")


def _check_columns(rows: Dataset, task: Task, source: str, *, labelled: bool = True) -> None:
    label = (task.label,) if labelled else ()
    wanted = (*task.text, *label, *(("id",) if task.kind == "span" else ()))
    _require(wanted, rows, task, source)
    for column in wanted:
        if rows.data.column(column).null_count:
            number = next(n for n, value in enumerate(rows[column], 1) if value is None)
            raise _empty(source, column, number)
    for column in task.text if task.kind == "span" else (*task.text, *label):
        feature = rows.features[column]
        listed = task.name == "custom" and column == task.label and isinstance(feature, List)
        if not isinstance(feature.feature if listed else feature, (Value, ClassLabel)):
            raise DistilkitError(
                f"column '{column}' in '{source}' holds more than text or numbers: give a plain column"
            )
    if task.name == "custom" and labelled:
        for number, value in enumerate(rows[task.label], 1):
            if any(map(_is_blank, value if isinstance(value, list) else [value])):
                raise _empty(source, task.label, number)


def _is_blank(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # noqa: PLR0124 - nan


def _empty(source: str, column: str, number: int) -> DistilkitError:
    return DistilkitError(f"'{source}' has no '{column}' in row {number}: fill it in or drop the row")


def check_questions(rows: Dataset, source: str) -> Dataset:
    """Return SQuAD's rows with text for ids.

    Raises DistilkitError for answers in another layout, and for two rows with one id, whose answers would get mixed up.
    """
    answers = rows.features["answers"]
    parts = dict(answers) if isinstance(answers, dict) else {}
    kinds = {name: parts[name].feature.dtype for name in parts if isinstance(parts[name], List)}
    if kinds.get("text") not in TEXTS or not str(kinds.get("answer_start")).startswith("int"):
        raise DistilkitError(
            f"'{source}' has answers that aren't laid out like SQuAD's, {{text: […], answer_start: […]}}: mend it"
        )
    for column in ("question", "context"):
        if getattr(rows.features[column], "dtype", None) not in TEXTS:
            raise DistilkitError(f"'{source}' has a column '{column}' that is no text: mend it")
    _check_answers(rows, source)
    rows = rows if rows.features["id"] == Value("string") else rows.cast_column("id", Value("string"))
    [(commonest, times)] = Counter(rows["id"][:]).most_common(1)
    if times > 1:
        raise DistilkitError(f"'{source}' has several rows with the id '{commonest}': give each its own")
    return rows


def _check_answers(rows: Dataset, source: str) -> None:
    """Raise DistilkitError where an answer lacks its text or its place."""
    texts, starts = (pc.struct_field(rows.data.column("answers"), name) for name in ("text", "answer_start"))
    holes = sum(pc.list_flatten(values).null_count for values in (texts, starts))
    uneven = pc.not_equal(*map(pc.list_value_length, (texts, starts)))  # null where there is no list
    if not holes and not pc.any(pc.fill_null(uneven, True)).as_py():
        return
    for key, answer in zip(rows["id"], rows["answers"], strict=True):
        text, start = answer["text"], answer["answer_start"]
        if text is None or start is None or len(text) != len(start) or None in (*text, *start):
            raise DistilkitError(f"'{source}' has an answer without its text or its start at '{key}': mend it")


def check_labels(rows: Dataset, task: Task, source: str) -> None:
    """Raise DistilkitError where a row has a label outside the task's."""
    if task.kind == "span":
        return
    listed = isinstance(rows.features[task.label], List)
    if listed != (task.kind == "multi-label"):
        one = "lists" if listed else "one value a row"
        raise DistilkitError(
            f"'{source}' has {one} in {task.label}, which does not fit {task.kind}: see --label, --kind"
        )
    good = None if listed else {value for value in rows.unique(task.label) if label_to_target(task, value) is not None}
    for number, value in enumerate(rows[task.label], 1):
        if value in good if good is not None else label_to_target(task, value) is not None:
            continue
        hint = "a test split without labels can't be used" if str(value).startswith("-1") else "mend the row"
        raise DistilkitError(
            f"'{source}' has {task.label} {value!r} in row {number}, outside {task.name}'s ({allowed(task)}): {hint}"
        )
