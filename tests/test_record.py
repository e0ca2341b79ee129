"""What a command did, and what a checkpoint remembers of it."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from distilkit import __version__
from distilkit.errors import DistilkitError
from distilkit.options.spec import argument
from distilkit.record import Record, read_biography, record, remembered_teacher, write_biography


@dataclass(frozen=True, kw_only=True)
class Config:
    teacher: str = argument("A place.", "TEACHER")
    output: Path
    task: str = "here"
    keep: tuple[int, ...] = (1, 2)


def test_a_biography_comes_back_as_it_was(tmp_path: Path) -> None:
    """Records are read as written, oldest first; a directory without one has no past."""
    first = record("init", Config(teacher="teacher", output=tmp_path), {"layers": 6.0}, kept_layers="0,2")
    second = record("distill", Config(teacher="teacher", output=tmp_path), {"heldout_loss": 1.5})
    write_biography(tmp_path, [first, second])
    assert read_biography(tmp_path) == [first, second]
    content = json.loads((tmp_path / "distilkit.json").read_text())
    assert [list(entry) for entry in content] == [["schema", "command", "config", "metrics", "environment"]] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["distilkit.json"]
    assert read_biography(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("text", ["{", '{"command": "init"}', "[1]", '[{"command": "init"}]'])
def test_a_damaged_biography_is_named(text: str, tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "distilkit.json").write_text(text)
    with pytest.raises(DistilkitError, match=r"distilkit\.json' is damaged"):
        read_biography(tmp_path)


def test_a_later_schema_is_still_read(tmp_path: Path) -> None:
    """Keys that this version doesn't know are left out."""
    known = record("init", Config(teacher="t", output=tmp_path), {})
    (tmp_path / "distilkit.json").write_text(json.dumps([known.to_json() | {"later": 1}]))
    assert read_biography(tmp_path) == [known]


def test_local_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path typed in one directory is found from another; a hub id stays what it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert record("init", Config(teacher="here", output=Path("out")), {}).config == {
        "teacher": str(tmp_path / "here"),
        "output": str(tmp_path / "out"),
        "task": "here",  # which is no place, though a directory is called so
        "keep": [1, 2],
    }
    assert record("init", Config(teacher="org/model", output=Path("out")), {}).config["teacher"] == "org/model"


def test_the_environment_says_what_ran_where() -> None:
    """Python, torch and transformers are recorded, and what the command adds."""
    import torch
    import transformers

    found = record("init", Config(teacher="t", output=Path("o")), {}, device="cpu").environment
    assert (found["torch"], found["transformers"]) == (torch.__version__, transformers.__version__)
    assert found["device"] == "cpu"
    assert found.get("distilkit", __version__) == __version__


def test_the_teacher_is_the_last_one_named(tmp_path: Path) -> None:
    """The newest init or distill with a teacher counts, unless other commands are asked for."""
    steps: list[tuple[str, str | None]] = [("init", "a"), ("distill", "b"), ("distill", None), ("finetune", "c")]
    write_biography(
        tmp_path,
        [Record(command=name, config={"teacher": who}, metrics={}, environment={}) for name, who in steps],
    )
    assert remembered_teacher(tmp_path) == "b"
    assert remembered_teacher(tmp_path, ("finetune",)) == "c"
    assert remembered_teacher(tmp_path / "elsewhere") is None
