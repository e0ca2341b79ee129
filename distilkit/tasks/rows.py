"""Read a task's rows from a folder or the hub, and check them before a long run starts."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from datasets.fingerprint import Hasher

from distilkit.data import conll
from distilkit.data.readers import content_hash, file_type, one_line_errors, open_file, values_hash
from distilkit.data.split_files import find_file, split_files
from distilkit.data.tables import Row, column_names, parse_json, read_table
from distilkit.data.token_store import Batches, store_table
from distilkit.errors import DistilkitError
from distilkit.hub import hub_errors
from distilkit.progress import warn
from distilkit.tasks import squad
from distilkit.tasks.catalogue import Task
from distilkit.tasks.checks import check_columns, check_labels, check_questions, check_words, require_columns
from distilkit.tasks.columns import label_name, to_number, to_table
from distilkit.tasks.label_vectors import label_columns, with_label_names
from distilkit.tasks.validation_split import split_rows

REMEDY = "fix the file or use another --data"
VERSION = 2  # of the stored rows; a change in how they are read needs another
SPLIT_ROWS = "split_rows"  # key in a record's environment
SPLITS = ("train", "validation")
SCORED_ON_TEST = "scored_on_test_rows"  # key in a record's environment: the names of these tasks

datasets.disable_progress_bars()
datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # _read_file() raises one error for a bad file


def read_rows(task: Task, data: Path | None, split: str, *, labelled: bool = True) -> Dataset:
    """Read a split from the folder `data`, or from the hub, and check its columns and labels.

    The label column of a custom task comes back as names, numbers or lists of names (with_label_names). With
    `labelled` off, the label column is removed unchecked.
    Raises DistilkitError if the folder, the file or a column is missing, if a file is empty or unreadable, or if a row
    has no text or an unknown label.
    """
    splits = SPLITS if task.validation_split else ()  # both are parts of the training rows
    place = "train" if split in splits else split
    if _on_hub(task, data):
        rows, source = _read_hub(task, place), f"{task.dataset} ({place})"
    else:
        path = find_file_of(task, Path(str(data)), place)
        rows, source = _read_file(task, path, labelled=labelled), str(path)
    if task.name == "custom" and labelled:
        rows = with_label_names(rows, task, source)
    if not labelled:
        rows = rows.remove_columns([column for column in (task.label,) if column in rows.column_names])
    check_columns(rows, task, source, labelled=labelled)
    if not labelled:
        return rows
    if task.kind == "span":
        rows = check_questions(rows, source)
    if task.kind == "tokens":
        check_words(rows, task, source)
    if task.labels or task.kind == "regression":  # labels of a custom task are inferred from its training rows later
        check_labels(rows, task, source)
    return split_rows(rows, task, source)[splits.index(split)] if split in splits else rows


def read_validation(task: Task, data: Path | None) -> dict[str, Dataset]:
    """Read the rows that a task is scored on, by metric prefix."""
    return {prefix: read_rows(task, data, split) for prefix, split in scored_splits(task, data).items()}


def read_tests(task: Task, data: Path | None) -> dict[str, Dataset]:
    """Read the unlabelled rows of GLUE's leaderboard, by the name of its file. Missing splits give a warning.

    The diagnostic rows (AX) are scored with MNLI's model and lie in a folder `ax` beside MNLI's.
    """
    found = {}
    for file, subset, split in task.tests:
        folder = data.absolute().parent / subset if data and subset != task.name else data
        source = replace(task, subset=subset)
        if _has_split(source, folder, split):
            found[file] = read_rows(source, folder, split, labelled=False)
        else:
            warn(f"no {split}.* in '{folder}': {file}.tsv is not written")
    return found


def scored_splits(task: Task, data: Path | None) -> dict[str, str]:
    """Return the splits that a task is scored on, by metric prefix. Only the first of several splits is required."""
    if task.validation_split:
        return dict(task.splits)
    splits = {prefix: split for prefix, split in task.splits if prefix == task.name or _has_split(task, data, split)}
    if task.fallback and not _has_split(task, data, splits[task.name]):
        splits[task.name] = task.fallback
    if task.zero_shot and data is not None and data.is_file():  # a file is scored whatever its name
        return dict(task.splits)
    return splits


def with_score_column(task: Task, data: Path | None) -> Task:
    """Return a task on pairs with the column `score` as its label, if the file has that and no label."""
    if data is None:
        return task
    names = column_names(find_file_of(task, data, scored_splits(task, data)[task.name]))
    return replace(task, label="score") if task.label not in names and "score" in names else task


def tasks_scored_on_test(chosen: Iterable[Task], data: Path | None) -> dict[str, str]:
    """Return an entry for a record's environment that names the tasks scored on test rows; {} if there are none."""
    names = [task.name for task in chosen if task.fallback and "test" in scored_splits(task, data).values()]
    return {SCORED_ON_TEST: " ".join(names)} if names else {}


def fingerprint(task: Task, data: Path | None) -> dict[str, str]:
    """Return an entry for a record's environment: a hash of the file whose rows were split, {} if none was."""
    if not task.validation_split or data is None or _on_hub(task, data):
        return {}
    return {SPLIT_ROWS: content_hash([find_file_of(task, data, "train")], REMEDY)}


def hash_rows(rows: Dataset, task: Task) -> str:
    """Return a hash of the texts and labels of rows, whatever the format of their file.

    Of several labels a row, only the number counts: their names depend on the model.
    """
    columns = [*task.text, task.label]
    parts = (zip(*map(part.__getitem__, columns), strict=True) for part in rows.select_columns(columns).iter(1000))
    return values_hash([*map(str, texts), _written(label, task)] for part in parts for *texts, label in part)


def _written(label: Any, task: Task) -> Any:
    if task.kind == "multi-label":
        return len(label)
    if isinstance(label, list | dict):
        return label
    return to_number(label) if task.kind == "regression" else label_name(label)


def _on_hub(task: Task, data: Path | None) -> bool:
    return data is None or (task.name == "custom" and bool(task.dataset))


def _has_split(task: Task, data: Path | None, split: str) -> bool:
    if not _on_hub(task, data):
        return bool(split_files(task.name, task.kind, Path(str(data)), split))
    if task.name != "custom":
        return not task.fallback  # a task has a fallback because the hub lacks its validation split
    return split in _call_hub(task, datasets.get_dataset_split_names, task.dataset, task.subset)


def find_file_of(task: Task, data: Path, split: str) -> Path:
    """Return the file of a split; a file for a zero-shot task is scored whatever its name."""
    return data if task.zero_shot and data.is_file() else find_file(task.name, task.kind, data, split)


def _read_hub(task: Task, split: str) -> Dataset:
    rows: Dataset = _call_hub(task, datasets.load_dataset, task.dataset, task.subset, split=split)
    keys = () if task.name == "custom" else ("id", "idx")
    wanted = {*task.text, *label_columns(task, rows.column_names), *keys}
    return rows.select_columns([name for name in rows.column_names if name in wanted])


def _call_hub(task: Task, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with hub_errors(task.dataset, what="data set", remedy="use a folder as --data"):
        return function(*args, **kwargs)


def _read_file(task: Task, path: Path, *, labelled: bool) -> Dataset:
    """Read the columns of one file that a task needs, and store them by the content of the file."""
    source = f"'{path}'"
    with open_file(path, source, REMEDY) as file:
        head = file.read(4096)
        if not head.strip():
            raise DistilkitError(f"{source} is empty: {REMEDY}")
    nested = task.kind == "span" and file_type(path) == ".json" and _is_nested(head)
    quoted = task.name == "custom" or task.zero_shot
    sentences = file_type(path) in conll.ENDINGS
    names = list(squad.FEATURES) if nested else _columns(path, quoted=quoted, sentences=sentences)
    if not names:
        raise DistilkitError(f"{source} has no rows: {REMEDY}")
    labels = label_columns(task, names) if labelled else []
    keys = [name for name in ("id", "idx") if name in names and task.name != "custom" and name not in task.text]
    require_columns([*task.text, *labels, *(["id"] if task.kind == "span" else [])], names, task, str(path))

    def make() -> Batches:
        wanted = [*task.text, *keys, *labels]
        rows = _nested_rows(path) if nested else read_table(path, wanted, quoted=quoted)
        rows = conll.read_sentences(path) if sentences else rows
        with one_line_errors(source, REMEDY):
            table = to_table(rows, path, [*task.text, *keys], labels, kind=task.kind)
        if not len(table):
            raise DistilkitError(f"{source} has no rows: {REMEDY}")
        return table.schema, table.to_batches()

    layout = task.kind if task.kind in ("span", "tokens") else ""
    key = Hasher.hash((VERSION, content_hash([path], REMEDY), task.text, labels, keys, quoted, layout))
    return store_table(f"rows-{key}", make)


def _columns(path: Path, *, quoted: bool, sentences: bool) -> list[str]:
    return conll.column_names(path) if sentences else column_names(path, quoted=quoted)


def _nested_rows(path: Path) -> list[Row]:
    source = f"'{path}'"
    with open_file(path, source, REMEDY) as file:
        return _flatten_squad(parse_json(file.read()), source, REMEDY)


def _flatten_squad(document: Any, source: str, remedy: str) -> list[Row]:
    try:
        return squad.flatten(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise DistilkitError(f"{source} cannot be read (not SQuAD's layout: {error!r}): {remedy}") from None


def _is_nested(head: bytes) -> bool:
    return re.match(rb'\s*\{\s*"(data|version)"\s*:', head) is not None
