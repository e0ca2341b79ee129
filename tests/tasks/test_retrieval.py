"""Queries and passages: pairs, BEIR's folder, SQuAD's JSON, refusals."""

import json
from pathlib import Path

import pytest

from distilkit.errors import DistilkitError
from distilkit.tasks.retrieval import RetrievalRows, read_retrieval


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_pairs(tmp_path: Path) -> None:
    """Equal texts are one query or one passage; --text names the columns; a folder has validation.*."""
    rows = [{"q": "a", "p": "x"}, {"q": "b", "p": "x"}, {"q": "a", "p": "y"}]
    write(tmp_path / "validation.jsonl", *rows)
    assert read_retrieval(tmp_path, ("q", "p")) == RetrievalRows(["a", "b"], ["x", "y"], [{0: 1, 1: 1}, {0: 1}])
    with pytest.raises(DistilkitError, match="no column 'query'"):
        read_retrieval(tmp_path / "validation.jsonl")


def test_beir(tmp_path: Path) -> None:
    """Titles stand before texts, grades stay, queries without a judged passage are not scored."""
    write(tmp_path / "corpus.jsonl", {"_id": "1", "title": "T", "text": "x"}, {"_id": "2", "text": "y"})
    write(tmp_path / "queries.jsonl", *({"_id": f"q{n}", "text": f"query {n}"} for n in range(3)))
    write(tmp_path / "qrels/test.tsv", "query-id\tcorpus-id\tscore", "q1\t2\t2", "q1\t1\t1", "q0\t1\t0")
    assert read_retrieval(tmp_path) == RetrievalRows(["query 1"], ["T x", "y"], [{1: 2.0, 0: 1.0}])
    write(tmp_path / "qrels/test.tsv", "q1 0 3 1")
    with pytest.raises(DistilkitError, match=r"names '3' in row 1, which '.*corpus.jsonl' lacks"):
        read_retrieval(tmp_path)


def test_squad(tmp_path: Path) -> None:
    """Questions are queries and their paragraphs passages; a question without an answer has no passage."""
    answers = [{"text": "x", "answer_start": 0}]
    questions = [{"id": "1", "question": " who ", "answers": answers}, {"id": "2", "question": "why", "answers": []}]
    document = {"data": [{"paragraphs": [{"context": "x y", "qas": questions}]}]}
    path = write(tmp_path / "dev-v2.0.json", document)
    assert read_retrieval(path) == RetrievalRows(["who"], ["x y"], [{0: 1.0}])
    with pytest.raises(DistilkitError, match="has no query with a passage"):
        read_retrieval(write(tmp_path / "empty.json", {"data": []}))
