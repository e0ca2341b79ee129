"""own_rows: text, label, kind and validation rows of a user's file are found, or one line says what is missing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distilkit.data.own_rows import with_own_rows, with_recorded_task, with_text_columns
from distilkit.errors import DistilkitError
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.predict import PredictOptions
from distilkit.record import record, write_biography

TICKETS = [
    {"id": f"T-{n}", "created": f"2026-01-{n:02}", "message": f"words about {n}", "category": "ab"[n % 2]}
    for n in range(1, 21)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        separator = "\t" if path.suffix == ".tsv" else ";"
        lines = [separator.join(map(str, row)) for row in ([*rows[0]], *(row.values() for row in rows))]
        path.write_text("\n".join(lines) + "\n")
    return path


def fill(data: Path, **options: Any) -> FinetuneOptions:
    return with_own_rows(FinetuneOptions(model="m", output=Path("o"), data=data, **options))


def columns(filled: Any) -> tuple[Any, ...]:
    return filled.task, filled.text, filled.label, filled.kind


@pytest.mark.parametrize("name", ["tickets.csv", "tickets.tsv", "tickets.jsonl"])
def test_columns_are_found_in_a_file_of_any_format(tmp_path: Path, name: str) -> None:
    """Ids and dates are neither text nor label; the task is custom, and a tenth of the rows is held out."""
    filled = fill(write(tmp_path / name, TICKETS))
    assert columns(filled) == ("custom", ("message",), "category", None)
    assert filled.validation_split == 0.1


@pytest.mark.parametrize(
    ("rows", "text", "label"),
    [
        ([{"review": "a b", "stars": n % 5} for n in range(20)], ("review",), "stars"),
        ([{"Text": f"a {n}", "Label": n % 2} for n in range(20)], ("Text",), "Label"),
        ([{"x": f"some words {n}", "team": "rb"[n % 2]} for n in range(20)], ("x",), "team"),
        ([{"title": "a", "body": f"long text {n}", "label": n % 2} for n in range(20)], ("body",), "label"),
        ([{"premise": "a", "hypothesis": "b", "label": n % 2} for n in range(9)], ("premise", "hypothesis"), "label"),
        ([{"t": f"a text {n}", "toxic": n % 2, "rude": n % 3 // 2} for n in range(20)], ("t",), "toxic,rude"),
        ([{"text": "a b", "labels": ["x", "y"][: n % 3]} for n in range(9)], ("text",), "labels"),
        ([{"text": f"a {n}", "ticket_category": "ab"[n % 2]} for n in range(9)], ("text",), "ticket_category"),
    ],
)
def test_usual_layouts(tmp_path: Path, rows: list[dict[str, Any]], text: tuple[str, ...], label: str) -> None:
    """Pairs, names of many kinds, columns of 0 and 1, lists of labels."""
    assert columns(fill(write(tmp_path / "rows.jsonl", rows)))[1:3] == (text, label)


@pytest.mark.parametrize("tags", ["ner_tags", "tags"])
def test_lists_of_words_are_tokens(tmp_path: Path, tags: str) -> None:
    """Rows of words and tags, and CoNLL files, need no --kind."""
    rows = [{"tokens": ["a", "b"], tags: ["O", "B-X"]}] * 9
    assert columns(fill(write(tmp_path / "rows.jsonl", rows))) == ("custom", ("tokens",), tags, "tokens")
    (tmp_path / "rows.conll").write_text("a O\nb B-X\n\n" * 9)
    assert columns(fill(tmp_path / "rows.conll")) == ("custom", ("tokens",), "ner_tags", "tokens")


def test_given_columns_win(tmp_path: Path) -> None:
    """Given columns are used as they are. The others are guessed from the remaining columns."""
    data = write(tmp_path / "tickets.csv", TICKETS)
    assert columns(fill(data, text=("created",)))[1:3] == (("created",), "category")
    assert columns(fill(data, label="created"))[1:3] == (("message",), "created")


def test_a_folder_with_validation_rows_holds_nothing_out(tmp_path: Path) -> None:
    """Neither beside validation.* nor beside test.*; a folder with one table of any name is that table."""
    write(tmp_path / "a/train.csv", TICKETS)
    assert fill(tmp_path / "a").validation_split == 0.1
    write(tmp_path / "a/test.jsonl", TICKETS)
    assert fill(tmp_path / "a").validation_split is None
    with pytest.raises(DistilkitError, match="--validation-split has no effect"):
        fill(tmp_path / "a", validation_split=0.2)
    write(tmp_path / "b/tickets.csv", TICKETS)
    assert fill(tmp_path / "b", validation_split=0.2).validation_split == 0.2


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (TICKETS, {"text": ("mesage",), "label": "categori"}, "no column 'mesage', 'categori' in .*it has id, created"),
        ([{"t": f"a b {n}", "x": n % 2, "y1": "ab"[n % 2]} for n in range(9)], {}, "labels .*may be x or y1.*--label"),
        ([{"t": f"a b {n}", "u": f"c {n}"} for n in range(9)], {}, "which column .* labels .*columns are t, u"),
        ([{"n": n, "label": n % 2} for n in range(9)], {}, "which column .* texts .*--text"),
        (TICKETS, {"text": ("message", "message")}, "column 'message' is named twice: check --text and --label"),
        (TICKETS, {"text": ("category",), "label": "category"}, "column 'category' is named twice"),
        (TICKETS, {"label": "category,category"}, "column 'category' is named twice"),
    ],
)
def test_what_cannot_be_guessed_is_said(
    tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    """In one line, with the columns that there are, and all wrong names at once."""
    with pytest.raises(DistilkitError, match=message):
        fill(write(tmp_path / "rows.jsonl", rows), **options)


def trained(tmp_path: Path, **options: Any) -> str:
    """Make a model whose record names its rows."""
    model = tmp_path / "model"
    model.mkdir()
    filled = fill(write(tmp_path / "tickets.csv", TICKETS), **options)
    write_biography(model, [record("finetune", filled, {})])
    return str(model)


def test_eval_takes_everything_from_the_record(tmp_path: Path) -> None:
    """Task, data, columns, split and metric of the training; other rows are scored whole."""
    model = trained(tmp_path, metric="f1_macro", validation_split=0.3)
    found = with_recorded_task(EvalOptions(models=(model,)), model)
    assert columns(found) == ("custom", ("message",), "category", None)
    assert (found.data, found.validation_split, found.metric) == (tmp_path / "tickets.csv", 0.3, "f1_macro")
    other = write(tmp_path / "other.csv", TICKETS)
    found = with_recorded_task(EvalOptions(models=(model,), data=other), model)
    assert (found.data, found.validation_split, found.label) == (other, None, "category")


def test_eval_needs_a_record_and_its_rows(tmp_path: Path) -> None:
    """Without them one line says what to give."""
    with pytest.raises(DistilkitError, match="no finetune record: name a task"):
        with_recorded_task(EvalOptions(models=(str(tmp_path),)), str(tmp_path))
    model = trained(tmp_path)
    (tmp_path / "tickets.csv").unlink()
    with pytest.raises(DistilkitError, match="no longer exists: give --data"):
        with_recorded_task(EvalOptions(models=(model,)), model)


def test_predict_reads_the_column_of_the_training(tmp_path: Path) -> None:
    """If the new rows lack it, their text is guessed; rows that hold lists of words alone need no --text either."""
    model = trained(tmp_path)
    mails = [{"id": n, "mail": f"a b {n}"} for n in range(3)]
    both = [{"tokens": ["a", "b"], "body": "a b"}]
    for rows, text in ((TICKETS, "message"), (mails, "mail"), ([{"tokens": ["a", "b"]}], "tokens"), (both, "body")):
        data = write(tmp_path / f"{text}.jsonl", rows)
        options = PredictOptions(model=model, data=data, output=Path("o.csv"))
        assert with_text_columns(options).text == (text,)
        with pytest.raises(DistilkitError, match=f"column '{text}' is named twice"):
            with_text_columns(replace(options, text=(text, text)))
