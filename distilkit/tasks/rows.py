"""Read a task's rows from a folder or the hub, and check them before anything long begins."""

import glob
import gzip
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import ClassLabel, Dataset, List, Value

from distilkit.errors import DistilkitError
from distilkit.progress import warn
from distilkit.tasks import squad
from distilkit.tasks.catalogue import Task
from distilkit.tasks.checks import FLAGS, _check_columns, _require, check_labels, check_questions

# GLUE's TSV files hold stray quotes, and pandas would read the words NA and null as nothing
READERS: dict[str, tuple[str, dict[str, Any]]] = {
    "jsonl": ("json", {}),
    "json": ("json", {}),
    "tsv": ("csv", {"sep": "\t", "quoting": 3, "keep_default_na": False}),
    "csv": ("csv", {"keep_default_na": False}),
    "parquet": ("parquet", {}),
}
TESTED = "scored_on_test_rows"  # in a record's environment: which tasks

datasets.disable_progress_bars()
datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what cannot be read is raised below, once


def read(task: Task, data: Path | None, split: str, *, labelled: bool = True) -> Dataset:
    """Read a split from a folder, or from the hub where the task's rows are there, and check its columns and labels.

    With `labelled` off the label column is left out, whatever it holds.

    A custom task's label column comes out as names or numbers, or as lists of names (spell_out).
    Raises DistilkitError where the folder, the file or a column is missing, where a file is empty or can't be read,
    and where a row has no text or a label outside the task's.
    """
    if _on_hub(task, data):
        rows, source = _from_hub(task, split), f"{task.dataset} ({split})"
    else:
        path = find_file(task, Path(str(data)), split)
        rows, source = _from_file(task, path), str(path)
    if task.name == "custom":
        rows = with_label_names(rows, task, source)
    if not labelled:
        rows = rows.remove_columns([column for column in (task.label,) if column in rows.column_names])
    _check_columns(rows, task, source, labelled=labelled)
    if not labelled:
        return rows
    if task.kind == "span":
        rows = check_questions(rows, source)
    if task.labels or task.kind == "regression":  # a custom task has none yet when its training rows are read
        check_labels(rows, task, source)
    return rows


def read_validation(task: Task, data: Path | None) -> dict[str, Dataset]:
    """Read what a task is scored on: metric prefix -> rows."""
    return {prefix: read(task, data, split) for prefix, split in scored_splits(task, data).items()}


def read_tests(task: Task, data: Path | None) -> dict[str, Dataset]:
    """Read the rows that GLUE's leaderboard scores, without labels: its file's name -> rows, of the splits there are.

    The diagnostic rows (AX), which MNLI's model answers, are in a folder `ax` beside MNLI's.
    """
    found = {}
    for file, subset, split in task.tests:
        folder = data.absolute().parent / subset if data and subset != task.name else data
        there = replace(task, subset=subset)
        if _has(there, folder, split):
            found[file] = read(there, folder, split, labelled=False)
        else:
            warn(f"no {split}.* in '{folder}': {file}.tsv is not written")
    return found


def scored_splits(task: Task, data: Path | None) -> dict[str, str]:
    """Return what a task is scored on: metric prefix -> split. A folder may lack all splits but the first."""
    splits = {prefix: split for prefix, split in task.splits if prefix == task.name or _has(task, data, split)}
    if task.fallback and not _has(task, data, splits[task.name]):
        splits[task.name] = task.fallback
    return splits


def tasks_scored_on_test(chosen: Iterable[Task], data: Path | None) -> dict[str, str]:
    """Return what a record has to say of tasks that are scored on test rows, {} where none is."""
    names = [task.name for task in chosen if task.fallback and "test" in scored_splits(task, data).values()]
    return {TESTED: " ".join(names)} if names else {}


def _on_hub(task: Task, data: Path | None) -> bool:
    return data is None or (task.name == "custom" and bool(task.dataset))


def _has(task: Task, data: Path | None, split: str) -> bool:
    if not _on_hub(task, data):
        return bool(_candidates(task, Path(str(data)), split))
    if task.name != "custom":
        return not task.fallback  # the tasks that have one have it because the hub has no such split
    return split in _ask_hub(task, datasets.get_dataset_split_names, task.dataset, task.subset)


def _candidates(task: Task, data: Path, split: str) -> list[Path]:
    endings = [f".{name}{gz}" for name in READERS for gz in ("", ".gz") if name + gz != "parquet.gz"]
    found = [data / (split + ending) for ending in endings if (data / (split + ending)).is_file()]
    if task.kind == "span" and not found:  # SQuAD's own names: train-v1.1.json, dev-v2.0.json.gz, …
        stems = ("train",) if split == "train" else (split, "dev")
        named = sorted(path for stem in stems for path in data.glob(f"{stem}*.json*"))
        version = "v2" if task.name == "squad_v2" else "v1"
        found = [path for path in named if f"-{version}" in path.name] or [p for p in named if "-v" not in p.name]
    return found


def find_file(task: Task, data: Path, split: str) -> Path:
    """Return the one file of a split in a folder."""
    if not data.is_dir():
        raise DistilkitError(f"no folder '{data}': give one with train.* and {task.splits[0][1]}.* as --data")
    found = _candidates(task, data, split)
    if not found:
        wanted = f"{split}.{{{','.join(READERS)}}}"
        raise DistilkitError(f"no {wanted} (.gz too) for {task.name} in --data '{data}': put one there")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DistilkitError(f"--data '{data}' has several files for {split} ({names}): keep one")
    return found[0]


def _from_hub(task: Task, split: str) -> Dataset:
    rows: Dataset = _ask_hub(task, datasets.load_dataset, task.dataset, task.subset, split=split)
    return rows


def _ask_hub(task: Task, question: Callable[..., Any], *words: Any, **more: Any) -> Any:
    try:
        return question(*words, **more)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".:")
        raise DistilkitError(f"cannot read '{task.dataset}' from the hub ({reason}): give a folder as --data") from None


def _from_file(task: Task, path: Path) -> Dataset:
    """Read one file; what the readers of four formats raise on bad input becomes one line."""
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    builder, options = READERS[ending[1:]]
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            nested = task.kind == "span" and ending == ".json" and _is_nested(file.read(4096))
            file.seek(0)
            if not file.read(64).strip():
                raise DistilkitError(f"'{path}' is empty: put rows into it or give another --data")
            file.seek(0)
            if nested:
                found = squad.flatten(json.load(file))
                if not found:
                    raise DistilkitError(f"'{path}' has no rows: put some into it or give another --data")
                return Dataset.from_list(found, features=squad.FEATURES)
        rows = datasets.load_dataset(builder, data_files=glob.escape(str(path)), split="train", **options)
        rows.data.table.validate(full=True)  # or bytes that are not UTF-8 come up much later
        return rows
    except datasets.exceptions.DatasetGenerationError as error:
        reason = str(error.__cause__ or error)
    except (UnicodeDecodeError, json.JSONDecodeError, pa.ArrowInvalid, gzip.BadGzipFile, EOFError) as error:
        reason = str(error)
    except (KeyError, TypeError) as error:
        reason = f"not SQuAD's layout, {error!r} is missing or misplaced"
    except ValueError as error:
        if "corresponds to no data" not in str(error):
            raise
        raise DistilkitError(f"'{path}' has no rows: put some into it or give another --data") from None
    except PermissionError as error:
        reason = str(error.strerror)
    raise DistilkitError(
        f"'{path}' cannot be read ({' '.join(reason.split())[:160]}): mend the file or give another --data"
    )


def _is_nested(head: bytes) -> bool:
    return re.match(rb'\s*\{\s*"(data|version)"\s*:', head) is not None


def with_label_names(rows: Dataset, task: Task, source: str) -> Dataset:
    """Return a custom task's rows with one column of label names: numbered classes by name, several columns as lists.

    Raises DistilkitError where one of several columns is missing, or holds anything but 0 and 1.
    """
    columns = task.label.split(",")
    if task.label in rows.column_names or len(columns) == 1:
        feature = rows.features.get(task.label)
        listed = isinstance(feature, List)
        classes = feature.feature if listed else feature
        if not isinstance(classes, ClassLabel):
            return rows

        def name(value: int | None) -> str | None:
            return str(value) if value is None or value < 0 else classes.int2str(value)  # -1: hidden on the hub

        names = [
            [name(entry) for entry in value or ()] if listed else value if value is None else name(value)
            for value in rows[task.label]
        ]
        spelled = List(Value("string")) if listed else Value("string")
        return rows.remove_columns(task.label).add_column(task.label, names, feature=spelled)
    _require(columns, rows, task, source)
    for column in columns:
        values = enumerate(rows[column], 1)
        wrong = next(((n, value) for n, value in values if isinstance(value, list) or value not in FLAGS), None)
        if wrong:
            raise DistilkitError(
                f"'{source}' has {column} {wrong[1]!r} in row {wrong[0]}: a column for each label holds 0 or 1"
            )
    flags = zip(*(rows[column] for column in columns), strict=True)
    lists = [[name for name, value in zip(columns, row, strict=True) if FLAGS[value]] for row in flags]
    return rows.add_column(task.label, lists, feature=List(Value("string")))
