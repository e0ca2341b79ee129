"""Bad text: one line of error, no traceback, the files untouched, nothing left in the cache."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from distilkit.data import corpus, readers
from distilkit.errors import DistilkitError

Maker = Callable[[Path], object]


def content(name: str, data: bytes) -> Maker:
    return lambda folder: (folder / name).write_bytes(data)


def damaged_parquet(folder: Path) -> None:
    path = folder / "a.parquet"
    pa.parquet.write_table(pa.table({"text": [f"the cat saw {n}" for n in range(6000)]}), path)
    data = bytearray(path.read_bytes())
    start = int(len(data) * 0.4)
    data[start : start + 40] = bytes(byte ^ 0xFF for byte in data[start : start + 40])
    path.write_bytes(bytes(data))


def parquet(values: pa.Array) -> Maker:
    return lambda folder: pa.parquet.write_table(pa.table({"text": values}), folder / "a.parquet")


CASES: dict[str, tuple[Maker, str]] = {
    "a null": (content("a.json", b"null\n"), "line 1 is not an object"),
    "a number": (content("a.jsonl", b"7\n"), "line 1 is not an object"),
    "a list of numbers": (content("a.json", b"[1, 2]"), "row 1 is not an object"),
    "deep nesting": (content("a.jsonl", b'{"text":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n"), "nested too deeply"),
    "deep list": (content("a.json", b"[" * 50_000 + b"]" * 50_000), "nested too deeply"),
    "half a character": (content("a.jsonl", b'{"text": "a \\ud83d b"}\n'), "line 1 holds half of a character"),
    "a cut-off line": (content("a.jsonl", b'{"text": "a"}\n{"text": "b\n'), "line 2"),
    "a list as text": (content("a.jsonl", b'{"text": ["a"]}\n'), "row 1 .*'text'"),
    "a huge number as text": (content("a.jsonl", b'{"text": 1e400}\n'), "row 1 .*'text'"),
    "no such column": (content("a.jsonl", b'{"body": "x"}\n'), "no column 'text' .*body"),
    "latin-1": (content("a.txt", "caf\u00e9\n".encode("latin-1")), "not UTF-8"),
    "utf-16": (content("a.txt", "cat\n".encode("utf-16")), "not UTF-8"),
    "no gzip": (content("a.txt.gz", b"plain text"), "cannot be read"),
    "half a gzip": (content("a.txt.gz", gzip.compress(os.urandom(9000))[:5000]), "cannot be read|not UTF-8"),
    "no parquet": (content("a.parquet", b"plain text"), "parquet"),
    "damaged parquet": (damaged_parquet, "cannot be read"),
    "parquet of bytes": (parquet(pa.array([b"\xff\xfe"])), "not UTF-8"),
    "parquet of numbers": (parquet(pa.array([1])), "row 1 .*'text'"),
    "parquet of nothing": (parquet(pa.array([None], pa.string())), "no text"),
    "a link to a device": (lambda folder: (folder / "a.txt").symlink_to("/dev/zero"), "a device or a pipe"),
    "a broken link": (lambda folder: (folder / "a.txt").symlink_to("/nowhere/at/all"), "a broken link"),
    "a pipe": (lambda folder: os.mkfifo(folder / "a.jsonl"), "a device or a pipe"),
    "two types": (lambda folder: [content(name, b"x\n")(folder) for name in ("a.txt", "b.jsonl")], "a.txt', 'b.jsonl"),
    "blank": (content("a.txt", b" \n\t\n"), "no text"),
    "nothing": (content("a.txt", b""), "no text"),
    "no such type": (content("a.doc", b"x"), r"\.txt"),
}


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize("read", [corpus.read_documents, corpus.stream_documents], ids=["loaded", "streamed"])
@pytest.mark.parametrize("case", CASES)
def test_bad_text_is_one_line(case: str, read: Callable[[str], object], tmp_path: Path, cache: Path) -> None:
    """Every kind of bad text ends in one line, whether it is loaded or streamed, and changes nothing."""
    folder = tmp_path / "text"
    folder.mkdir()
    make, phrase = CASES[case]
    make(folder)
    before = listing(folder)
    with pytest.raises(DistilkitError, match=phrase) as caught:
        for _ in read(str(folder)):  # type: ignore[attr-defined]
            pass
    assert "\n" not in str(caught.value)
    assert listing(folder) == before
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("name", ["d[0].txt", "a*b.txt", "a::b.txt", "a?.txt", "{x,y}.txt", "%41.txt"])
def test_a_path_is_no_pattern(name: str, tmp_path: Path, cache: Path) -> None:
    """Brackets, stars and colons in a name are part of it; a neighbour that the pattern would match is not read."""
    for other in ("d0.txt", "aXb.txt", "ab.txt", "x.txt", "A.txt"):
        (tmp_path / other).write_text("the neighbour\n", encoding="utf-8")
    (tmp_path / name).write_text("the right one\n", encoding="utf-8")
    assert corpus.read_documents(str(tmp_path / name))["text"][:] == ["the right one"]
    assert [row["text"] for row in corpus.stream_documents(str(tmp_path / name))] == ["the right one"]


@pytest.mark.parametrize("blank", ["", " ", "\t", " \t ", "\r"])
def test_blank_lines_may_hold_spaces(blank: str, tmp_path: Path, cache: Path) -> None:
    """A line of spaces and tabs separates documents as an empty line does."""
    (tmp_path / "a.txt").write_text(f"one\nstill one\n{blank}\ntwo\n", encoding="utf-8")
    assert corpus.read_documents(str(tmp_path / "a.txt"))["text"][:] == ["one\nstill one", "two"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_a_replaced_file_is_read_again(name: str, tmp_path: Path, cache: Path) -> None:
    """A file with the same path, size and time stamp, but other content, is not taken from the cache."""
    path = tmp_path / name
    for text in ("first one", "other one"):
        data = (json.dumps({"text": text}) if ".jsonl" in name else text).encode()
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith("gz") else data)
        os.utime(path, (10**9, 10**9))
        assert corpus.read_documents(str(path))["text"][:] == [text]


def test_only_the_text_is_read(tmp_path: Path, cache: Path) -> None:
    """Other fields may differ between rows and files, come late, or hold what text may not."""
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one", "n": 1}\n{"text": "two", "n": {"m": "\\ud83d"}}\n')
    (tmp_path / "b.jsonl").write_text(
        '{"text": "three", "other": [1e999, 12345678901234567890123]}\n', encoding="utf-8"
    )
    assert corpus.read_documents(str(tmp_path))["text"][:] == ["one", "two", "three"]


def test_a_long_line_is_bounded(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A long line of text becomes several documents, with a warning; a long line of JSON is refused."""
    for module in (readers, corpus, corpus.read_table.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "LINE_LIMIT", 100)
        else:
            monkeypatch.setattr(module, "LINE_LIMIT", 100)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"word " * 50))
    found = corpus.read_documents(str(tmp_path / "a.txt.gz"))["text"][:]
    assert "".join(found) == "word " * 50
    assert max(map(len, found)) == 100
    assert "cut into several" in capsys.readouterr().err
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "word " * 50}), encoding="utf-8")
    with pytest.raises(DistilkitError, match="line 1 has more than 100 characters"):
        corpus.read_documents(str(tmp_path / "a.jsonl"))


def test_unknown_tokens_are_counted(
    tmp_path: Path, cache: Path, tokenizer: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text of unknown tokens only is refused; a text with many gives a warning with their share."""
    from distilkit.data.blocks import pack_documents

    (tmp_path / "u.txt").write_text("\u4e2d\n" * 900, encoding="utf-8")
    with pytest.raises(DistilkitError, match="only unknown tokens"):
        pack_documents(corpus.read_documents(str(tmp_path / "u.txt")), tokenizer, 16)  # type: ignore[arg-type]
    (tmp_path / "h.txt").write_text("\u4e2d e\n" * 900, encoding="utf-8")
    pack_documents(corpus.read_documents(str(tmp_path / "h.txt")), tokenizer, 16)  # type: ignore[arg-type]
    assert "% of the tokens of" in capsys.readouterr().err


def test_a_stream_goes_on_from_a_document(tmp_path: Path) -> None:
    """A position names a file and a document in it, whatever the type of the files."""
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_text("".join(f'{{"text": "{number}{n}"}}\n' for n in range(4)), "utf-8")
    documents = corpus.stream_documents(str(tmp_path))
    seen = []
    for row in documents:
        seen.append(row["text"])
        if len(seen) == 6:
            break
    state = documents.state_dict()
    documents.load_state_dict(state)
    assert [row["text"] for row in documents] == ["12", "13", "20", "21", "22", "23"]
    assert [row["text"] for row in documents][:2] == ["00", "01"]
