"""Read a task's rows from a folder or the hub, and check them before anything long begins."""

import glob
import gzip
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import ClassLabel, Dataset, Value

from distilkit import squad
from distilkit.errors import DistilkitError
from distilkit.tasks import SCALE, Task, target

# GLUE's TSV files hold stray quotes, and pandas would read the words NA and null as nothing
READERS: dict[str, tuple[str, dict[str, Any]]] = {
    "jsonl": ("json", {}),
    "json": ("json", {}),
    "tsv": ("csv", {"sep": "\t", "quoting": 3, "keep_default_na": False}),
    "csv": ("csv", {"keep_default_na": False}),
    "parquet": ("parquet", {}),
}

datasets.disable_progress_bars()
datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what cannot be read is raised below, once


def read(task: Task, data: Path | None, split: str) -> Dataset:
    """Read a split from a folder, or from the hub where `data` is None, and check its columns and labels.

    Raises DistilkitError where the folder, the file or a column is missing, where a file is empty or can't be read,
    and where a row has no text or a label outside the task's.
    """
    if data is None:
        rows, source = _from_hub(task, split), f"{task.dataset} ({split})"
    else:
        path = find_file(task, data, split)
        rows, source = _from_file(task, path), str(path)
    _check_columns(rows, task, source)
    if task.kind != "span":
        _check_labels(rows, task, source)
    return rows


def read_validation(task: Task, data: Path | None) -> dict[str, Dataset]:
    """Read what a task is scored on: metric prefix -> rows. A folder may lack all splits but the first."""
    splits = dict(task.splits)
    if data is not None:
        splits = {
            prefix: split for prefix, split in task.splits if prefix == task.name or _candidates(task, data, split)
        }
    if task.fallback and (data is None or not _candidates(task, data, splits[task.name])):
        splits[task.name] = task.fallback
    return {prefix: read(task, data, split) for prefix, split in splits.items()}


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
    try:
        return datasets.load_dataset(task.dataset, task.subset, split=split)
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
                return Dataset.from_list(squad.flatten(json.load(file)), features=squad.FEATURES)
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
    raise DistilkitError(
        f"'{path}' cannot be read ({' '.join(reason.split())[:160]}): mend the file or give another --data"
    )


def _is_nested(head: bytes) -> bool:
    return re.match(rb'\s*\{\s*"(data|version)"\s*:', head) is not None


def _check_columns(rows: Dataset, task: Task, source: str) -> None:
    wanted = (*task.text, task.label, *(("id",) if task.kind == "span" else ()))
    for column in wanted:
        if column not in rows.column_names:
            hint = "check --text and --label" if task.name == "custom" else f"--task {task.name} needs it"
            raise DistilkitError(f"no column '{column}' in '{source}' (it has {', '.join(rows.column_names)}): {hint}")
        if rows.data.column(column).null_count:
            number = next(n for n, value in enumerate(rows[column], 1) if value is None)
            raise DistilkitError(f"'{source}' has no '{column}' in row {number}: fill it in or drop the row")
    for column in task.text if task.kind == "span" else (*task.text, task.label):
        if not isinstance(rows.features[column], (Value, ClassLabel)):
            raise DistilkitError(
                f"column '{column}' in '{source}' holds more than text or numbers: give a plain column"
            )


def _check_labels(rows: Dataset, task: Task, source: str) -> None:
    known = set(rows.unique(task.label))
    bad = {value for value in known if target(task, value) is None} if task.labels or task.kind == "regression" else ()
    if bad:
        number, value = next((n, value) for n, value in enumerate(rows[task.label], 1) if value in bad)
        has = f"{SCALE[0]:g} to {SCALE[1]:g}" if task.kind == "regression" else ", ".join(task.labels)
        hint = "a test split without labels can't be used" if str(value).startswith("-1") else "mend the row"
        raise DistilkitError(
            f"'{source}' has {task.label} {value!r} in row {number}, outside {task.name}'s ({has}): {hint}"
        )
