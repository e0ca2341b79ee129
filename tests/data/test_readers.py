"""The errors of every reader become one line that names the file and the remedy."""

import gzip
import json
from pathlib import Path

import datasets
import pytest

from distilkit.data.readers import file_type, one_line_errors, open_file
from distilkit.errors import DistilkitError

WHOLE = gzip.compress(json.dumps({"a": list(range(1000))}).encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'{"a": '),
        ("a.json", b'{"a": "caf\xe9"}'),
        ("a.json.gz", b"plain text"),
        ("a.json.gz", WHOLE[: len(WHOLE) // 2]),
        ("a.json.gz", WHOLE[:20] + b"\xff" * 20 + WHOLE[40:]),
    ],
)
def test_a_damaged_json_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    """Cut off, in another encoding, not compressed, or damaged inside."""
    path = tmp_path / name
    path.write_bytes(content)
    with (
        pytest.raises(DistilkitError, match=rf"^--data '{path}' ") as caught,
        open_file(path, f"--data '{path}'", "fix") as file,
    ):
        json.load(file)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.json", "folder", "folder.gz"])
def test_what_cannot_be_opened_is_one_line(tmp_path: Path, name: str) -> None:
    """A file that does not exist, and a folder."""
    if name != "absent.json":
        (tmp_path / name).mkdir()
    with pytest.raises(DistilkitError, match=r"^here .*: fix$"), open_file(tmp_path / name, "here", "fix"):
        pass


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.parquet", b"plain text"), ("a.jsonl", b'{"a": 1}\n{"a": \n'), ("a.csv", b"a,b\n"), ("a.txt", b"caf\xe9\n")],
)
def test_what_datasets_cannot_read_is_one_line(tmp_path: Path, cache: Path, name: str, content: bytes) -> None:
    """Every format, loaded or streamed."""
    (tmp_path / name).write_bytes(content)
    reader = {"txt": "text", "jsonl": "json"}.get(name[2:], name[2:])
    with pytest.raises(DistilkitError, match=r"^here ") as caught, one_line_errors("here", "fix"):
        datasets.load_dataset(reader, data_files=str(tmp_path / name), split="train")

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), RuntimeError("a bug")])
def test_other_errors_pass(error: Exception) -> None:
    """A bug keeps its traceback."""
    with pytest.raises(type(error), match="a bug"), one_line_errors("here", "fix"):
        raise error


def test_a_full_disk_names_the_cache(cache: Path) -> None:
    """Not the file that was read."""
    with pytest.raises(DistilkitError, match="HF_DATASETS_CACHE"), one_line_errors("here", "fix"):
        raise datasets.exceptions.DatasetGenerationError from OSError(28, "No space left on device")


def test_the_type_of_a_file_is_before_gz() -> None:
    """a.jsonl and a.jsonl.gz are of one type."""
    assert [file_type(Path(name)) for name in ("a.jsonl", "b/a.jsonl.gz", "a")] == [".jsonl", ".jsonl", ""]
