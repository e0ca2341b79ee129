"""Queries and passages: pairs, BEIR's folder, SQuAD's JSON, refusals."""

import json
from pathlib import Path

import pytest

from distilkit.errors import DistilkitError
from distilkit.progress import level
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
    with pytest.raises(DistilkitError, match=r"names '3' in line 1, which '.*corpus.jsonl' lacks"):
        read_retrieval(tmp_path)


@pytest.mark.parametrize("column", ["label", "score"])
def test_graded_pairs(tmp_path: Path, column: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Grade 0 is no answer, but a passage to choose from; the highest grade counts; a note counts the rest."""
    rows = [("a", "x", "1"), ("a", "y", "0"), ("b", "y", "0"), ("c", "x", "0.5"), ("c", "x", "2"), ("c", "x", "1")]
    path = write(tmp_path / "q.csv", f"query,passage,{column}", *map(",".join, rows))
    with level(quiet=False):
        assert read_retrieval(path) == RetrievalRows(["a", "c"], ["x", "y"], [{0: 1.0}, {0: 2.0}])
    assert capsys.readouterr().err == "1 of 3 queries are left out: none of their grades is above 0\n"


@pytest.mark.parametrize("values", [("1", "yes"), ("0", "-3.5"), ("0", ""), ("nan", "1"), ("1", "1e19")])
def test_other_columns_are_no_grades(
    tmp_path: Path, values: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A column `label` of classes, logits or blank cells is ignored with one note; `score` may have the grades."""
    path = write(tmp_path / "q.csv", "query,passage,label", f"a,x,{values[0]}", f"b,y,{values[1]}")
    with level(quiet=False):
        assert read_retrieval(path) == RetrievalRows(["a", "b"], ["x", "y"], [{0: 1.0}, {1: 1.0}])
    assert capsys.readouterr().err.count("the column 'label' of") == 1
    write(path, "query,passage,label,score", f"a,x,{values[0]},2", f"b,y,{values[1]},0")
    assert read_retrieval(path).relevant == [{0: 2.0}]


DOCUMENTS = [{"_id": "d1", "text": "x"}, {"_id": "d2", "text": "y"}]
QUESTIONS = [{"_id": "q1", "text": "a"}, {"_id": "q2", "text": "b"}]


@pytest.mark.parametrize(
    ("file", "rows", "message"),
    [
        ("qrels/test.tsv", ["q1\td1\tnan", "q2\td2\t1"], "'nan' as the grade in line 1"),
        ("qrels/test.tsv", ["query-id\tcorpus-id\tscore", "q1\td1\tinf"], "'inf' as the grade in line 2"),
        ("qrels/test.tsv", ["q1\td1\t1e308", "q1\td2\t1e308"], "'1e308' as the grade in line 1"),
        ("qrels/test.tsv", ["q1\td1\t1_0"], "'1_0' as the grade in line 1"),
        ("qrels/test.tsv", ["q1\td1\tx", "q2\td2\t1"], "'x' as the grade in line 1"),
        ("qrels/test.tsv", ["q1\td1", "q2\td2\t1"], "no query, passage and grade in line 1"),
        ("corpus.jsonl", [*DOCUMENTS, {"_id": "d1", "text": "z"}], "the _id 'd1' again in row 3, with another text"),
        ("queries.jsonl", [*QUESTIONS, {"_id": "q2", "text": "c"}], "the _id 'q2' again in row 3"),
        ("corpus.jsonl", [{"_id": "d1", "title": ["a"], "text": "x"}], "title that is no text in row 1"),
        ("corpus.jsonl", [{"_id": ["d1"], "text": "x"}], "no _id or no text in row 1"),
        ("queries.jsonl", [{"_id": "q1", "text": " "}], "no text in the query 'q1'"),
    ],
)
def test_bad_files_of_beir_are_refused(tmp_path: Path, file: str, rows: list[object], message: str) -> None:
    """A grade that is no number, a repeated id, a blank query: one line names the file and the place."""
    write(tmp_path / "corpus.jsonl", *DOCUMENTS)
    write(tmp_path / "queries.jsonl", *QUESTIONS)
    write(tmp_path / "qrels/test.tsv", "q1\td1\t1", "q2\td2\t1")
    assert read_retrieval(tmp_path).relevant == [{0: 1.0}, {1: 1.0}]
    write(tmp_path / file, *rows)
    with pytest.raises(DistilkitError, match=message) as caught:
        read_retrieval(tmp_path)
    assert file in str(caught.value)


def test_harmless_flaws_of_beir(tmp_path: Path) -> None:
    """A blank query that no judgement names is ignored, and so is a row that is written twice."""
    write(tmp_path / "corpus.jsonl", *DOCUMENTS, DOCUMENTS[0])
    write(tmp_path / "queries.jsonl", *QUESTIONS, {"_id": "q3", "text": ""}, QUESTIONS[1])
    write(tmp_path / "qrels/test.tsv", "q1\td1\t1", "q2\td2\t1")
    assert read_retrieval(tmp_path) == RetrievalRows(["a", "b"], ["x", "y"], [{0: 1.0}, {1: 1.0}])


def test_squad(tmp_path: Path) -> None:
    """Questions are queries and their paragraphs passages; a question without an answer has no passage."""
    answers = [{"text": "x", "answer_start": 0}]
    questions = [{"id": "1", "question": " who ", "answers": answers}, {"id": "2", "question": "why", "answers": []}]
    document = {"data": [{"paragraphs": [{"context": "x y", "qas": questions}]}]}
    path = write(tmp_path / "dev-v2.0.json", document)
    assert read_retrieval(path) == RetrievalRows(["who"], ["x y"], [{0: 1.0}])
    with pytest.raises(DistilkitError, match="has no query with a passage"):
        read_retrieval(write(tmp_path / "empty.json", {"data": []}))
