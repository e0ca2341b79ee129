"""Checks of a task's rows: empty cells, unknown labels, SQuAD's layout."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from distilkit.errors import DistilkitError
from distilkit.options.evaluate import EvalOptions
from distilkit.tasks.catalogue import TASKS, Kind, resolve
from distilkit.tasks.checks import check_labels
from distilkit.tasks.rows import read_rows

[CUSTOM_TASK] = resolve(EvalOptions(models=("m",), task="custom", text=("title",), label="kind", data=Path()))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("train.csv", "title,kind\nx,pos\ny,\n"),
        ("train.csv", "title,kind\nx,1.5\ny,\n"),
        ("train.jsonl", '{"title": "x", "kind": ["a"]}\n{"title": "y", "kind": ["b", null]}\n'),
        ("train.jsonl", '{"title": "x", "kind": 1.5}\n{"title": "y", "kind": NaN}\n'),
    ],
)
def test_empty_labels_are_refused(tmp_path: Path, file: str, text: str) -> None:
    """An empty cell, a null in a list and NaN are refused with their column and row."""
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(DistilkitError, match=f"{file}' .*'kind' in row 2"):
        read_rows(CUSTOM_TASK, tmp_path, "train")


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("regression", "big", "'x' has kind 'big' in row 1"),
        ("multi-label", "a", "'x' .*--label and --kind"),
        ("classification", ["a"], "'x' .*--label and --kind"),
    ],
)
def test_labels_of_another_kind_are_refused(kind: Kind, value: object, message: str) -> None:
    """Rows whose labels do not fit the kind of the task are refused."""
    rows = Dataset.from_dict({"kind": [value]})
    with pytest.raises(DistilkitError, match=message):
        check_labels(rows, replace(CUSTOM_TASK, kind=kind, labels=("a", "b")), "x")


def write_questions(folder: Path, **changes: object) -> None:
    """Write two rows in SQuAD's layout, with other values for some columns."""
    row = {"question": "who?", "context": "Ann left.", "answers": {"text": ["Ann"], "answer_start": [0]}}
    rows = [{**row, "id": number, **changes} for number in (1, 2)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_numeric_ids_become_text(tmp_path: Path) -> None:
    """Ids are text, as in SQuAD's own files."""
    write_questions(tmp_path)
    rows = read_rows(TASKS["squad"], tmp_path, "train")
    assert rows["id"][:] == ["1", "2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "x"}, "several rows with the id 'x'"),
        ({"answers": [{"text": "Ann", "answer_start": 0}]}, "answers in another layout"),
        ({"answers": "Ann"}, "answers in another layout"),
        ({"answers": {"text": ["Ann"], "answer_start": ["0"]}}, "answers in another layout"),
        ({"answers": {"text": ["Ann", "she"], "answer_start": [0]}}, "question '1'"),
        ({"answers": {"text": [None, "Ann"], "answer_start": [0, 0]}}, "question '1'"),
        ({"question": ["who?"]}, "column 'question'"),
    ],
)
def test_questions_that_cannot_be_scored_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    """They are refused when they are read, not at the first evaluation."""
    write_questions(tmp_path, **changes)
    with pytest.raises(DistilkitError, match=message):
        read_rows(TASKS["squad"], tmp_path, "train")


def test_hidden_labels_are_refused(tmp_path: Path) -> None:
    """A label of -1, which stands for a hidden one, gives an error that suggests another split."""
    features = Features({"title": Value("string"), "kind": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"title": ["a", "b"], "kind": [-1, 0]}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DistilkitError, match=r"kind '-1' in row 1, .*split with labels"):
        read_rows(replace(CUSTOM_TASK, labels=("no", "yes")), tmp_path, "train")
