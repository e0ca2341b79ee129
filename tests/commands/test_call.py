"""The commands as Python functions: options as keywords, checked as on the command line."""

import errno
import inspect
from pathlib import Path
from typing import Any

import pytest

import distilkit
from distilkit import DistilkitError
from distilkit.options.recipes import COMMANDS
from distilkit.options.spec import fields_of
from distilkit.progress import say


def test_a_function_runs_its_command(teacher: Path, tmp_path: Path) -> None:
    """It returns the record that is written; paths may be Path or text, and lists any sequence."""
    done = distilkit.init(teacher, output=str(tmp_path / "student"), keep=[0, 3])

    assert isinstance(done, distilkit.Record)
    assert done.config["keep"] == [0, 3]
    assert (tmp_path / "student/distilkit.json").is_file()


@pytest.mark.parametrize(
    ("command", "arguments", "keywords", "words"),
    [
        ("init", (), {}, "missing option 'teacher'"),
        ("init", ("t",), {"output": None}, "missing option 'output'"),
        ("finetune", ("m",), {"output": "o", "task": None}, "missing option 'task or data'"),
        ("init", ("t",), {"output": "o", "strateg": "first"}, "no option 'strateg'.*'strategy'"),
        ("init", ("t",), {"output": "o", "layers": 0}, "--layers 0: give a number from 1"),
        ("init", ("t",), {"output": ""}, "--output '': give a value that is not empty"),
        ("init", ("t", "u"), {"output": "o"}, "'u'"),
        ("eval", (["a", "b"],), {"task": "rte"}, "MODEL.*give text"),
        ("eval", (None,), {"task": "rte"}, "MODEL.*give text"),
        ("demo", ("o",), {}, "'o'"),
    ],
)
def test_a_wrong_call_is_one_line(
    command: str, arguments: tuple[Any, ...], keywords: dict[str, Any], words: str
) -> None:
    """DistilkitError, never another exception, and before anything is loaded."""
    with pytest.raises(DistilkitError, match=words) as error:
        getattr(distilkit, command)(*arguments, **keywords)
    assert "\n" not in str(error.value)


def test_quiet_ends_with_the_call(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The next notes are shown again, whether the call succeeds or fails."""
    distilkit.init(teacher, output=tmp_path / "student", quiet=True)
    with pytest.raises(DistilkitError):
        distilkit.init(tmp_path / "nosuch", output=tmp_path / "other", quiet=True)
    capsys.readouterr()
    say("a note")

    assert capsys.readouterr().err == "a note\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_options(command: str) -> None:
    """The signature has every option but --json, which is about stdout; `evaluate` is another name of `eval`."""
    parameters = inspect.signature(getattr(distilkit, command)).parameters

    assert [*parameters] == [item.name for item, _ in fields_of(COMMANDS[command]) if item.name != "json"]
    assert inspect.signature(distilkit.evaluate) == inspect.signature(distilkit.eval)


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (MemoryError(), "out of memory: use a smaller model"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (OSError(errno.EIO, "Input/output error", "a.txt"), r"cannot use 'a.txt' \(Input/output error\)"),
    ],
    ids=["python", "torch", "system", "disk"],
)
def test_system_errors_are_one_line(
    raised: Exception,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """--verbose shows the original error; without it there is no traceback."""

    def fail(_options: Any) -> None:
        raise raised

    monkeypatch.setattr("distilkit.commands.init.init", fail)
    for verbose in (False, True):
        with pytest.raises(DistilkitError, match=words):
            distilkit.init("m", output=tmp_path / "o", verbose=verbose)
        assert ("Traceback" in capsys.readouterr().err) == verbose


def test_a_lack_of_memory_names_the_options_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("distilkit.commands.evaluate.evaluate", fail)
    with pytest.raises(DistilkitError, match="out of memory: lower --batch-size or --max-length, use a smaller model"):
        distilkit.eval("m", task="sst2", data=tmp_path)


def test_a_bug_stays_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_options: Any) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr("distilkit.commands.init.init", fail)
    with pytest.raises(RuntimeError, match="unexpected"):
        distilkit.init("m", output=tmp_path / "o")
