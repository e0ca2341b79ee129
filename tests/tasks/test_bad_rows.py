"""Rows are read as they are written; bad rows end in one line that names the row, and change nothing."""

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from distilkit.errors import DistilkitError
from distilkit.options.evaluate import EvalOptions
from distilkit.tasks.catalogue import TASKS, Task, resolve
from distilkit.tasks.labels import infer_labels
from distilkit.tasks.rows import read_rows

[CUSTOM] = resolve(EvalOptions(models=("m",), task="custom", text=("text",), label="label", data=Path()))
SQUAD = TASKS["squad"]
ANSWER = {"text": ["Ann"], "answer_start": [0]}


def csv(text: str) -> tuple[str, bytes]:
    return "train.csv", text.encode()


def jsonl(*rows: object) -> tuple[str, bytes]:
    return "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()


def question(**changes: object) -> tuple[str, bytes]:
    return jsonl({"id": "1", "question": "who?", "context": "Ann left.", "answers": ANSWER} | changes)


BAD: dict[str, tuple[tuple[str, bytes], str]] = {
    "a field too many": (csv("text,label\na,x\nb,c,y\n"), "row 2, line 3 has 3 fields, but the header has 2"),
    "a field too few": (csv("id,text,label\n1,a,x\n2,b\n"), "row 2, line 3 has 2 fields"),
    "a trailing comma": (csv("text,label\na,x,\n"), "row 1, line 2 has 3 fields"),
    "tsv of other width": (("train.tsv", b"text\tlabel\na\tx\nb\n"), "row 2, line 3 has 1 field"),
    "an open quote": (csv('text,label\n"a,x\nb,y\n'), "line 3"),
    "a column twice": (csv("text,label,label\na,x,y\n"), "column 'label' twice"),
    "no such columns": (csv("body,class\na,x\n"), "no column 'text', 'label' in .*body, class"),
    "only a header": (csv("text,label\n"), "has no rows"),
    "latin-1": (("train.csv", "text,label\ncaf\u00e9,x\n".encode("latin-1")), "not UTF-8"),
    "an empty label": (csv("text,label\na,x\nb,\n"), "no 'label' in row 2"),
    "a null text": (jsonl({"text": "a", "label": "x"}, {"text": None, "label": "y"}), "no 'text' in row 2"),
    "a missing text": (jsonl({"text": "a", "label": "x"}, {"label": "y"}), "no 'text' in row 2"),
    "a label of objects": (jsonl({"text": "a", "label": {"x": 1}}), r"'label' in .*nested values \(row 1\)"),
    "a label of lists of lists": (jsonl({"text": "a", "label": [["x"]]}), "nested values"),
    "a text of lists": (jsonl({"text": ["a"], "label": "x"}), "'text' in .*nested values"),
    "labels and lists": (jsonl({"text": "a", "label": ["x"]}, {"text": "b", "label": "y"}), "row 2: use lists"),
    "vectors of two lengths": (
        jsonl({"text": "a", "label": [1, 0, 1]}, {"text": "b", "label": [1, 0]}), "vectors of 0 and 1 of one length",
    ),
    "vectors of shares": (jsonl({"text": "a", "label": [0.5, 0.5, 0.0]}), "vectors of 0 and 1"),
    "half a character": (jsonl({"text": "a \ud83d", "label": "x"}), "line 1 holds half of a character"),
    "half a character as a label": (jsonl({"text": "a", "label": ["\udc00"]}), "line 1 holds half of a character"),
    "deep nesting": (("train.jsonl", b'{"text":' + b"[" * 30_000 + b"]" * 30_000 + b"}\n"), "nested too deeply"),
    "not an object": (("train.jsonl", b"null\n"), "line 1 is not an object"),
}  # fmt: skip
BAD_SQUAD = {
    "an offset of 30 digits": (question(answers={"text": ["Ann"], "answer_start": [10**30]}), "another layout"),
    "an offset of text": (question(answers={"text": ["Ann"], "answer_start": ["x"]}), "another layout"),
    "answers of numbers": (question(answers=7), "another layout"),
    "a context of objects": (question(context={"a": 1}), "column 'context'"),
    "half a character": (question(context="Ann \ud83d left."), "half of a character"),
    "half a character, nested": (
        (
            "train.json",
            json.dumps(
                {
                    "data": [
                        {"paragraphs": [{"context": "A \ud83d", "qas": [{"id": "1", "question": "q", "answers": []}]}]}
                    ]
                }
            ).encode(),
        ),
        "half of a character",
    ),
    "deep nesting": (("train.json", b'{"data": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"), "too deeply"),
    "data of numbers": (("train.json", b'{"data": [1]}'), "not SQuAD's layout"),
}
CASES = [(CUSTOM, *case) for case in BAD.values()] + [(SQUAD, *case) for case in BAD_SQUAD.values()]


@pytest.mark.parametrize(("task", "file", "phrase"), CASES, ids=[*BAD, *(f"squad: {name}" for name in BAD_SQUAD)])
def test_bad_rows_are_one_line(task: Task, file: tuple[str, bytes], phrase: str, tmp_path: Path, cache: Path) -> None:
    """The line names the file and, where there is one, the row; the file is untouched and the cache stays empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / file[0]).write_bytes(file[1])
    with pytest.raises(DistilkitError, match=phrase) as caught:
        read_rows(task, folder, "train")
    assert "\n" not in str(caught.value)
    assert file[0] in str(caught.value)
    assert (folder / file[0]).read_bytes() == file[1]
    assert [path.name for path in folder.iterdir()] == [file[0]]


def read(folder: Path, *files: tuple[str, bytes], task: Task = CUSTOM) -> Any:
    for name, data in files:
        (folder / name).write_bytes(data)
    return read_rows(task, folder, "train")


def test_text_and_labels_are_as_written(tmp_path: Path, cache: Path) -> None:
    """01 stays 01, dates and numbers stay text, and a word that comes late is a label as the others are."""
    rows = [f"{n % 3:02d},2021-03-{n % 28 + 1:02d},{n if n < 10_500 else 'A'}" for n in range(11_000)]
    found = read(tmp_path, csv("label,text,id\n" + "\n".join([*rows, "late,0.10,1"]) + "\n"))
    assert infer_labels(CUSTOM, found, "x", "classification").labels == ("00", "01", "02", "late")
    assert found["text"][0] == "2021-03-01"
    assert found["text"][-1] == "0.10"


def test_numbers_of_json_are_as_written(tmp_path: Path, cache: Path) -> None:
    """A number as text has the digits of the file; 0 and "0" are one label; long integers keep all digits."""
    found = read(
        tmp_path,
        (
            "train.jsonl",
            b'{"text": 0.10, "label": 0}\n{"text": 1, "label": "0"}\n{"text": 1e5, "label": 1234567890123456789012}\n',
        ),
    )
    assert found["text"][:] == ["0.10", "1", "1e5"]
    assert infer_labels(CUSTOM, found, "x", "classification").labels == ("0", "1234567890123456789012")


VALUES: dict[str, tuple[Callable[[], pa.Array], list[str]]] = {
    "dictionary": (lambda: pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    "large_string": (lambda: pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
    "string_view": (lambda: pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    "binary": (lambda: pa.array([b"a", "\u00e9".encode()]), ["a", "\u00e9"]),
    "date": (lambda: pa.array([0, 1], pa.int32()).cast(pa.date32()), ["1970-01-01", "1970-01-02"]),
    "timestamp": (lambda: pa.array([0, 1], pa.timestamp("s")), ["1970-01-01 00:00:00", "1970-01-01 00:00:01"]),
    "int": (lambda: pa.array([7, 8]), ["7", "8"]),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("column", ["text", "label"])
def test_parquet_columns(kind: str, column: str, tmp_path: Path, cache: Path) -> None:
    """Every type of a column is read as text and as labels, with columns of other types beside it."""
    make, expected = VALUES[kind]
    columns = {"text": pa.array(["x", "y"]), "label": pa.array(["p", "q"]), "beside": pa.array([{"a": [1]}, None])}
    pa.parquet.write_table(pa.table(columns | {column: make()}), tmp_path / "train.parquet")
    found = read(tmp_path)
    assert [str(value) for value in found[column]] == expected
    assert found.column_names == ["text", "label"]


@pytest.mark.parametrize(
    "values", [[[1, 0, 1], [0, 0, 1]], [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], [[True, False, True], [False, False, True]]]
)
@pytest.mark.parametrize(("label", "names"), [("label", ("label_0", "label_1", "label_2")), ("a,b,c", ("a", "b", "c"))])
def test_vectors_are_several_labels(
    values: list[list[float]], label: str, names: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    """A vector of 0 and 1 has a place for each label, also for one that no row has."""
    task = replace(CUSTOM, label=label)
    found = read(tmp_path, jsonl(*({"text": "x", "label": value} for value in values)), task=task)
    inferred = infer_labels(task, found, "x")
    assert (inferred.kind, inferred.labels) == ("multi-label", names)
    assert found[label][:] == [[names[0], names[2]], [names[2]]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.csv", 'text;label\n"a; b\nc";x\nd;y\n'),
        ("train.csv", '\ufefftext|label\r\n"a; b\nc"|x\r\nd|y\r\n'),
        ("train.tsv", 'text\tlabel\n"a; b\nc"\tx\nd\ty\n'),
        ("train.CSV", 'text,label\n"a; b\nc",x\n\nd,y\n'),
    ],
)
def test_separators_and_quotes_are_found(name: str, text: str, tmp_path: Path, cache: Path) -> None:
    """Commas, semicolons, bars and tabs separate; quoted cells may hold them and line breaks."""
    (tmp_path / name.lower()).write_bytes(text.encode())
    found = read(tmp_path)
    assert (found["text"][:], found["label"][:]) == (["a; b\nc", "d"], ["x", "y"])


def test_a_replaced_file_is_read_again(tmp_path: Path, cache: Path) -> None:
    """Same path, size and time stamp, other content: the new rows are read."""
    for value in ("x", "y"):
        (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(jsonl({"text": "a", "label": value})[1], mtime=0))
        os.utime(tmp_path / "train.jsonl.gz", (10**9, 10**9))
        assert read_rows(CUSTOM, tmp_path, "train")["label"][:] == [value]
