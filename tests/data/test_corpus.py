"""Read documents from every format; refuse unusable text."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from distilkit.data import corpus
from distilkit.errors import DistilkitError

TEXTS = ["the first document", "a second one", "and the third"]


def write(path: Path) -> Path:
    """Write TEXTS in the format that the file's name says."""
    content = "".join(text + "\n" for text in TEXTS)
    if ".jsonl" in path.name:
        content = "".join(json.dumps({"text": text, "other": 1}) + "\n" for text in TEXTS)
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.table({"text": TEXTS}), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_reads_every_format(tmp_path: Path, name: str) -> None:
    """Every file type, plain and gzipped, yields the same documents."""
    assert corpus.read_documents(str(write(tmp_path / name)))["text"][:] == TEXTS


def test_blank_lines_separate_documents(tmp_path: Path) -> None:
    """In a text with blank lines, a document is the text between two of them, line breaks included."""
    (tmp_path / "a.txt").write_text("one\nstill one\n\ntwo\n\n", encoding="utf-8")

    assert [text.strip() for text in corpus.read_documents(str(tmp_path / "a.txt"))["text"]] == [
        "one\nstill one",
        "two",
    ]


def test_a_folder_is_read_in_name_order(tmp_path: Path) -> None:
    """Files of a folder and its subfolders are read in the order of their names."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.txt").write_text("two\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("one\n", encoding="utf-8")

    assert corpus.read_documents(str(tmp_path))["text"][:] == ["one", "two"]


@pytest.mark.parametrize("read", [corpus.read_documents, corpus.stream_documents])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "a.txt"),
        ("a.txt", b"\n\n  \n", "a.txt"),
        ("a.txt", "caf\u00e9 au lait\n".encode("latin-1"), "a.txt.*UTF-8"),
        ("a.jsonl", b'{"body": "x"}\n', "a.jsonl.*'text'.*body"),
        ("a.doc", b"x", "a.doc.*.txt"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl.*'text'"),
    ],
)
def test_unusable_text_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, words: str, read: Callable[[str], object]
) -> None:
    """Empty text, other encodings and missing columns end in one line that names the file."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistilkitError, match=words) as caught:
        read(str(tmp_path / name))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["./nowhere.txt", "nowhere.txt", "some/hub-data"])
def test_absent_text_is_refused_in_one_line(source: str) -> None:
    """A missing path and an unreachable hub id end in one line."""
    with pytest.raises(DistilkitError) as caught:
        corpus.read_documents(source)

    assert "\n" not in str(caught.value)
