"""The labels of a custom task's rows as names: class ids, columns of 0 and 1, vectors of 0 and 1."""

from collections.abc import Sequence
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, List, Value

from distilkit.errors import DistilkitError
from distilkit.tasks.catalogue import Task
from distilkit.tasks.checks import require_columns

VECTORS = ("label", "labels")  # columns of vectors whose labels --label may name
FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def with_label_names(rows: Dataset, task: Task, source: str) -> Dataset:
    """Return a custom task's rows with label names in one column: ClassLabel ids become names, 0 and 1 lists of names.

    Each label may have its own column, or its own position in vectors such as [1, 0, 1]. Columns of single labels are
    not removed, because their order is the order of the labels.
    Raises DistilkitError if one of several label columns is missing, or holds anything but 0 and 1.
    """
    columns = label_columns(task, rows.column_names)
    require_columns(columns, rows.column_names, task, source)
    if len(columns) == 1:
        names = [] if task.kind == "tokens" else vector_names(rows, columns[0], task, source)
        if not names:
            return _with_class_names(rows, columns[0])
        rows, columns = _in_columns(rows, columns[0], names), names
    lists: list[list[str]] = [[] for _ in range(len(rows))]
    for name in columns:
        for number, value in enumerate(rows[name]):
            flag = FLAGS.get(str(value).strip().lower())
            if flag is None:
                raise DistilkitError(
                    f"'{source}' has {name} {value!r} in row {number + 1}: "
                    "with a column for each label, use 0 and 1 only"
                )
            lists[number] += [name] if flag else []
    return rows.add_column(task.label, lists, feature=List(Value("string")))


def label_columns(task: Task, names: Sequence[str]) -> list[str]:
    """Return the label columns among a file's columns: one, one for each label, or the vectors that --label names."""
    columns = [task.label] if task.label in names else task.label.split(",")
    if len(columns) > 1 and not set(columns) & set(names):
        return [name for name in VECTORS if name in names][:1] or columns
    return columns


def _in_columns(rows: Dataset, column: str, names: Sequence[str]) -> Dataset:
    """Return rows with a column for each label in place of their vectors."""
    vectors = rows[column][:]
    flags = Dataset.from_dict({name: [bool(vector[i]) for vector in vectors] for i, name in enumerate(names)})
    return datasets.concatenate_datasets([rows.remove_columns(column), flags], axis=1)


def vector_names(rows: Dataset, column: str, task: Task, source: str) -> list[str]:
    """Return the names of the labels of a column of vectors; [] if its lists hold labels themselves.

    Names come from --label a,b,c, from the model, from the file's ClassLabel, or are label_0, label_1, ….
    Raises DistilkitError for lists of numbers that are neither labels nor vectors of 0 and 1 of one length.
    """
    feature = rows.features.get(column)
    inner = feature.feature if isinstance(feature, List) else None
    if inner is None or not (isinstance(inner, ClassLabel) or inner.dtype != "string"):
        return []
    vectors = [vector for vector in rows[column] if vector is not None]
    widths = sorted({len(vector) for vector in vectors})
    repeated = next((n for n, vector in enumerate(vectors, 1) if len(set(vector)) < len(vector)), None)
    binary = all(value in (0, 1) for vector in vectors for value in vector)
    classes = inner.names if isinstance(inner, ClassLabel) else None
    width = len(task.labels or classes or ()) or widths[-1]
    if binary and widths == [width] and width > 1 and (repeated or not classes):
        return _names(task, classes, width)
    if repeated:  # a set of labels names none twice
        raise DistilkitError(
            f"'{source}' has {column} {vectors[repeated - 1]} in row {repeated}: "
            f"use vectors of 0 and 1 of one length, or lists of label names"
        )
    return []


def _names(task: Task, classes: Sequence[str] | None, width: int) -> list[str]:
    given = task.label.split(",")
    if len(given) > 1 and len(given) != width:
        raise DistilkitError(f"--label names {len(given)} labels, but the vectors hold {width}: name each")
    if len(given) > 1:
        return given
    return list(task.labels or classes or [f"label_{number}" for number in range(width)])


def _with_class_names(rows: Dataset, label: str) -> Dataset:
    feature = rows.features.get(label)
    is_list = isinstance(feature, List)
    classes = feature.feature if is_list else feature
    if not isinstance(classes, ClassLabel):
        return rows

    def name(value: int | None) -> Any:
        return str(value) if value is None or value < 0 else classes.int2str(value)  # -1: a hidden label of the hub

    names = [
        [name(entry) for entry in value or ()] if is_list else value if value is None else name(value)
        for value in rows[label]
    ]
    new_feature = List(Value("string")) if is_list else Value("string")
    return rows.remove_columns(label).add_column(label, names, feature=new_feature)
