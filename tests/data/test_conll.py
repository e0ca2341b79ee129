"""CoNLL files: the layout of 2003, two columns, documents, comments, refusals."""

from pathlib import Path

import pytest

from distilkit.data import conll
from distilkit.errors import DistilkitError


def test_the_layout_of_2003(tmp_path: Path) -> None:
    """Four columns have the names of the hub's data set, and lines between documents are no sentences."""
    path = tmp_path / "train.txt"
    path.write_text("-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\n. . O O\n")
    assert conll.column_names(path) == ["tokens", "pos_tags", "chunk_tags", "ner_tags"]
    first, second = conll.read_sentences(path)
    assert first == {
        "tokens": ["EU", "rejects"],
        "pos_tags": ["NNP", "VBZ"],
        "chunk_tags": ["B-NP", "B-VP"],
        "ner_tags": ["B-ORG", "O"],
    }
    assert second["tokens"] == ["."]


def test_two_columns_with_tabs(tmp_path: Path) -> None:
    """A word may hold spaces, comments are skipped, and a hash sign with a tag is a word."""
    path = tmp_path / "dev.conll"
    path.write_text("# id 1 of 2\nNew York\tB-LOC\r\n#\tO\r\n")
    assert list(conll.read_sentences(path)) == [{"tokens": ["New York", "#"], "ner_tags": ["B-LOC", "O"]}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# sent_id = x\nEU\tNNP\tB-NP\tB-ORG\n\n# text = EU\nEU\tNNP\tB-NP\tO\n", [["EU"], ["EU"]]),
        ("EU\tO\n# newdoc\n\n# x y\n#x\n#\tO\n", [["EU"], ["#"]]),
        ("EU\tO\n#tag O\n# = O\n# O\n", [["EU", "#tag", "#"]]),
        ("# newdoc\nEU O\n\n# newpar\n# O\n#1 O\n", [["EU"], ["#", "#1"]]),
        ("# newdoc id = a\n# sent_id = 4\nEU NNP B-NP O\n\n# sent_id = 5\n# SYM B-NP O\n", [["EU"], ["#"]]),
        ("# = O\nEU NNP O\n", [["#", "EU"]]),
    ],
)
def test_comments_are_no_words(tmp_path: Path, text: str, words: list[list[str]]) -> None:
    """Comments with as many fields as the rows have columns; a hash sign with tags stays a word."""
    path = tmp_path / "train.conll"
    path.write_text(text)
    assert [row["tokens"] for row in conll.read_sentences(path)] == words


@pytest.mark.parametrize(("text", "named"), [("a O\nb c O\n", "line 2 has 3 columns"), ("a\nb\n", "has no tag")])
def test_refusals_name_the_line(tmp_path: Path, text: str, named: str) -> None:
    """A line with another number of columns than the first, or without a tag, is refused."""
    path = tmp_path / "train.conll"
    path.write_text(text)
    with pytest.raises(DistilkitError, match=named):
        list(conll.read_sentences(path))
