"""Read CoNLL files: a word and its tags on each line, separated by spaces or tabs; a blank line between sentences."""

import re
from collections.abc import Iterator
from pathlib import Path

from distilkit.data.readers import read_lines
from distilkit.data.tables import REMEDY, Row, bad_row

ENDINGS = (".conll", ".txt", ".bio", ".iob", ".iob2")
WORDS, TAGS = "tokens", "ner_tags"  # the first column and the last, named as on the hub
MIDDLE = {1: ("pos_tags",), 2: ("pos_tags", "chunk_tags")}  # CoNLL 2003 has a word, two other tags and its entity
DOCUMENT = "-DOCSTART-"  # a line of CoNLL 2003 between documents
COMMENT = re.compile(r"#\s*(newdoc|newpar)(\s|$)|#\s*[^\s=]+\s+=(\s|$)")  # of CoNLL-U: `# newdoc`, `# sent_id = 1`


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns; [] if it has no sentence."""
    fields = next((fields for _, fields in _lines(path) if fields and not _is_aside(fields)), None)
    if fields is None:
        return []
    if len(fields) < 2:
        raise bad_row(
            path, "the first word", "has no tag", "write a word and its tag on each line, or name a table .csv or .tsv"
        )
    middle = len(fields) - 2
    return [WORDS, *MIDDLE.get(middle, tuple(f"column_{number}" for number in range(2, middle + 2))), TAGS]


def read_sentences(path: Path) -> Iterator[Row]:
    """Yield the sentences of a file, as {column: one entry for each word}.

    Raises DistilkitError, also midway, if a line has another number of columns than the first. It names the line.
    """
    names = column_names(path)
    words: list[list[str]] = []
    for number, fields in _lines(path):
        if fields and fields[0] != DOCUMENT and len(fields) == len(names):
            words.append(fields)
        elif fields and not _is_aside(fields):
            raise bad_row(path, f"line {number}", f"has {len(fields)} columns, the first has {len(names)}")
        elif not fields and words:
            yield _sentence(names, words)
            words = []
    if words:
        yield _sentence(names, words)


def _sentence(names: list[str], words: list[list[str]]) -> Row:
    return {name: list(column) for name, column in zip(names, zip(*words, strict=True), strict=True)}


def _is_aside(fields: list[str]) -> bool:
    return fields[0] == DOCUMENT or fields[0].startswith("#")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and columns of each line but comments; a word may hold spaces if tabs separate the columns."""
    first = next((line for _, line in _numbered(path) if line.split() and not _is_aside(line.split())), "")
    for number, line in _numbered(path):
        if not _is_comment(line, first):
            yield number, _fields(line)


def _fields(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t") if "\t" in line.strip() else line.split()


def _is_comment(line: str, first: str) -> bool:
    """Say whether a line without tabs is a comment: of CoNLL-U, or of other length than a first row with tabs."""
    if not line.startswith("#") or "\t" in line.rstrip():
        return False
    other_length = "\t" in first.strip() and len(_fields(line)) != len(_fields(first))
    return other_length or COMMENT.match(line) is not None


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    return enumerate(read_lines(path, f"'{path}'", REMEDY), 1)
