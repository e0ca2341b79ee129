"""record: output directories that are whole or absent, biographies that come back, gates that hold."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from distilkit import __version__
from distilkit.errors import DistilkitError
from distilkit.files import claim
from distilkit.gates import parse_gate, unmet_gates
from distilkit.options.spec import argument
from distilkit.record import Record, read_biography, record, remembered_teacher, write_biography


@dataclass(frozen=True, kw_only=True)
class Config:
    teacher: str = argument("A place.", "TEACHER")
    output: Path
    task: str = "here"
    keep: tuple[int, ...] = (1, 2)


def write_and(error: BaseException, output: Path, name: str = "model.bin", **settings: object) -> None:
    """Claim a directory, write a file and a folder into it, and fail."""
    with claim(output, **settings) as out:
        (out / name).write_text("half")
        (out / "folder").mkdir()
        (out / "folder/file").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("bug"), DistilkitError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_nothing_behind(error: BaseException, existed: bool, tmp_path: Path) -> None:
    """A new directory is gone again, an empty one is empty again, and the error is the one that was raised."""
    output = tmp_path / "a"
    if existed:
        output.mkdir()
    with pytest.raises(type(error)):
        write_and(error, output)
    assert output.exists() == existed
    assert not existed or not list(output.iterdir())


def test_success_leaves_what_was_written(tmp_path: Path) -> None:
    """Parents are made too."""
    with claim(tmp_path / "a/b") as out:
        (out / "file").write_text("whole")
    assert (tmp_path / "a/b/file").read_text() == "whole"


@pytest.mark.parametrize("name", ["file", "folder/file", ".hidden"])
def test_a_directory_in_use_is_refused_untouched(name: str, tmp_path: Path) -> None:
    """Whatever is in it stays, and the message says what to do."""
    path = tmp_path / "a" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(DistilkitError, match="is not empty: choose another -o"):
        write_and(RuntimeError(), tmp_path / "a")
    assert path.read_text() == "mine"


def test_a_file_and_a_full_disk_are_errors_of_the_user(tmp_path: Path) -> None:
    """Neither an output that is a file nor an operating system's refusal ends in a traceback."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DistilkitError, match="choose another -o"):
        write_and(RuntimeError(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(DistilkitError, match="No space left on device"):
        write_and(OSError(28, "No space left on device"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_interrupted_run_with_a_checkpoint_is_kept_for_resume(tmp_path: Path) -> None:
    """With a file worth keeping the directory stays, --resume takes it, and a finished one isn't resumed."""
    output = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        write_and(KeyboardInterrupt(), output, name="checkpoint-1", keep="checkpoint-*")
    assert (output / "checkpoint-1").exists()
    with (
        pytest.raises(DistilkitError, match="holds something else than a run to go on with"),
        claim(output, resume=True, keep="checkpoint-*"),  # somebody else's checkpoint: no run.json
    ):
        pass
    assert (output / "checkpoint-1").exists()
    (output / "run.json").write_text("{}")
    with claim(output, resume=True, keep="checkpoint-*") as out:
        write_biography(out, [])
    with pytest.raises(DistilkitError, match="already finished"):
        write_and(RuntimeError(), output, resume=True)
    assert (output / "checkpoint-1").exists()


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


METRICS = {"sst2/accuracy": 0.9, "1/speedup": 1.5, "2/speedup": 2.5}


@pytest.mark.parametrize(
    ("gate", "failing"),
    [
        ("sst2/accuracy>=0.9", []),
        ("sst2/accuracy > 0.9", ["sst2/accuracy"]),
        ("sst2/accuracy<=0.9", []),
        ("sst2/accuracy<0.9", ["sst2/accuracy"]),
        ("accuracy>=0.95", ["sst2/accuracy"]),
        ("speedup>=2", ["1/speedup"]),
        ("speedup>=3e0", ["1/speedup", "2/speedup"]),
        ("2/speedup>=2", []),
    ],
)
def test_gates_compare_every_metric_that_they_name(gate: str, failing: list[str]) -> None:
    """A name without its prefix means every metric that ends in it; each one that fails is told with its value."""
    lines = unmet_gates((gate,), METRICS)
    assert lines == [f"{gate}: {name} is {METRICS[name]:.6g}" for name in failing]


COMPARED = {
    "0/sst2/accuracy": 0.8,
    "0/retention/sst2": 0.9,
    "0/retention/sst2/low": 0.7,
    "0/retention/squad/exact_match": 0.5,
    "0/squad/exact_match": 81.0,
    "1/retention/sst2": 0.95,
    "teacher/sst2/accuracy": 0.1,
    "control/retention/sst2": 0.1,
}


@pytest.mark.parametrize(
    ("gate", "failing"),
    [
        ("retention>=0.97", ["0/retention/sst2", "1/retention/sst2"]),
        ("retention>=0.92", ["0/retention/sst2"]),
        ("retention/sst2>=0.92", ["0/retention/sst2"]),
        ("retention/sst2/low>=0.8", ["0/retention/sst2/low"]),
        ("0/retention/sst2/low>=0.8", ["0/retention/sst2/low"]),
        ("exact_match>=80", []),
        ("exact_match>=82", ["0/squad/exact_match"]),
        ("retention/squad/exact_match>=0.8", ["0/retention/squad/exact_match"]),
        ("sst2/accuracy>=0.5", []),
        ("teacher/sst2/accuracy>=0.5", ["teacher/sst2/accuracy"]),
        ("control/retention/sst2>=0.5", ["control/retention/sst2"]),
    ],
)
def test_a_gate_on_retention_means_every_task(gate: str, failing: list[str]) -> None:
    """`retention` is every task's and no interval's bound; teachers and controls are gated by full name only."""
    assert unmet_gates((gate,), COMPARED) == [f"{gate}: {name} is {COMPARED[name]:.6g}" for name in failing]


def test_a_teacher_without_a_score_meets_no_gate() -> None:
    """Where there is nothing to keep, `retention` isn't met by the other tasks alone."""
    metrics = {"retention/sst2": 0.99, "difference/sst2/teacher": -0.01, "difference/cola/teacher": 0.0}

    lines = ["retention>=0.9: there is no retention/cola, the teacher's score is 0 or less"]
    assert unmet_gates(("retention>=0.9",), metrics) == lines
    assert unmet_gates(("retention/sst2>=0.9",), metrics) == []


@pytest.mark.parametrize("gate", ["", "accuracy", "accuracy=0.9", "accuracy>=", ">=0.9", "accuracy>=high", "a>=1e"])
def test_a_gate_that_cannot_be_read_is_refused(gate: str) -> None:
    """The message shows how one is written."""
    with pytest.raises(DistilkitError, match=r"write it like 'sst2/accuracy>=0\.90'"):
        parse_gate(gate)


@pytest.mark.parametrize(
    "check", [lambda: unmet_gates(("peedup>=1",), METRICS), lambda: unmet_gates(("speedup>=1",), {})]
)
def test_a_gate_that_names_no_metric_is_refused(check: Callable[[], object]) -> None:
    """Else a misspelt gate would always be met."""
    with pytest.raises(DistilkitError, match="names no metric"):
        check()
