"""The command-line contract: streams, exit codes, recipes."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging
from typer.testing import CliRunner, Result

from distilkit import __version__
from distilkit.cli import app
from distilkit.commands import init
from distilkit.wording import describe


def run(*words: object) -> Result:
    """Run distilkit in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def without_date(result: Result) -> Any:
    """Return the record on stdout without the time at which it was made."""
    record = json.loads(result.stdout)
    assert record["environment"].pop("date")
    return record


def test_version() -> None:
    """One line on stdout."""
    assert run("--version").stdout == f"distilkit {__version__}\n"


def test_json_is_one_record_and_nothing_else(teacher: Path, tmp_path: Path) -> None:
    """stdout parses as one document with the contract's keys, the same as distilkit.json's last entry."""
    result = run("init", teacher, "-o", tmp_path / "student", "--json")
    record = json.loads(result.stdout)

    assert result.exit_code == 0
    assert record.keys() == {"schema", "command", "config", "metrics", "environment", "given"}
    assert record["schema"] == 1
    assert json.loads((tmp_path / "student" / "distilkit.json").read_text()) == [record]


def test_what_libraries_print_is_no_data(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to stderr, so that stdout stays one document."""
    truncate = init.truncate_shared

    def chatty(*words: Any) -> Any:
        sys.stdout.write("a library greets you\n")
        return truncate(*words)

    monkeypatch.setattr("distilkit.commands.init.truncate_shared", chatty)
    result = run("init", teacher, "-o", tmp_path / "student", "--json")
    assert json.loads(result.stdout)["command"] == "init"
    assert "a library greets you" in result.stderr


def test_table_shows_every_metric(teacher: Path, tmp_path: Path) -> None:
    """Without --json stdout is a table of the same record."""
    result = run("init", teacher, "-o", tmp_path / "student")
    metrics = json.loads((tmp_path / "student" / "distilkit.json").read_text())[0]["metrics"]

    assert all(describe(name).words.lower() in result.stdout for name in metrics)
    assert all(describe(name).write(value) in result.stdout for name, value in metrics.items())
    assert result.stdout.splitlines()[1].split() == ["layers", "kept", "0,3"]
    assert result.stderr.endswith(
        f"next: distilkit distill {tmp_path}/student --corpus TEXT -o {tmp_path}/student-distilled\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["init", "t", "-o", "out", "--layers", "0"],
        ["init", "t", "-o", "out", "--layers", "two"],
        ["init", "t", "-o", "out", "--strategy", "middle"],
        ["init", "t", "-o", "out", "--keep", "0,x"],
        ["init", "t"],
        ["distill", "s", "-o", "out"],
        ["finetune", "m", "-o", "out"],
        ["init", "t", "-o", ""],
        ["init", "", "-o", "out"],
        ["distill", "s", "--corpus", "", "-o", "out"],
        ["distill", "s", "--corpus", "c", "-o", "out", "--lr", "nan"],
        ["bench", "m", "--batch-sizes", "0"],
        ["finetune", "m", "--task", "sst3", "-o", "out"],
        ["init", "--unknown"],
        ["prune"],
    ],
)
def test_wrong_usage_exits_with_2(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage and one line, on stderr; nothing is written."""
    monkeypatch.chdir(tmp_path)
    result = run(*words)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: ")
    assert "Error" in result.stderr
    assert "\x1b" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_what_a_command_needs_is_named() -> None:
    """Without a task and without rows there is nothing to do; a recipe or a model's record may give either."""
    assert "'m' has no finetune record: name a task with --task" in run("eval", "m").stderr
    assert "missing option '--task or --data'" in run("finetune", "m", "-o", "out").stderr
    assert "no checkpoint directory" in run("eval", "./m", "--agreement", "text.txt").stderr


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda d: None, "no checkpoint directory"),
        (lambda d: d.mkdir(), "is not a checkpoint"),
        (lambda d: (d.mkdir(), (d / "config.json").write_text('{"model_type": "bert"}')), "no model.safetensors"),
        (lambda d: (d.mkdir(), (d / "config.json").write_text('{"model_type": "nosuch"}')), "cannot use"),
        (lambda d: (d.mkdir(), (d / "config.json").write_text("{")), "cannot use"),
    ],
)
def test_a_bad_teacher_is_one_line_and_exit_1(prepare: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    """Missing, empty and half-made directories are each named, and no output is left."""
    prepare(tmp_path / "teacher")
    result = run("init", tmp_path / "teacher", "-o", tmp_path / "student")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("distilkit: error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert not (tmp_path / "student").exists()


def test_hub_id_out_of_reach_names_a_local_directory() -> None:
    """Offline, a hub id ends in one line."""
    result = run("init", "some-org/some-bert", "-o", "unused")

    assert result.exit_code == 1
    assert "give a local directory" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_full_or_unwritable_disk_is_one_line(teacher: Path, tmp_path: Path) -> None:
    """An output below a file can't be made."""
    (tmp_path / "file").write_text("")
    result = run("init", teacher, "-o", tmp_path / "file" / "student")

    assert result.exit_code == 1
    assert result.stderr.startswith("distilkit: error: cannot write")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_nothing(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fills while the weights are written, the error is one line and the directory is gone."""
    import safetensors.torch

    def fill(*args: object, **kwargs: object) -> None:
        with open("/dev/full", "w") as device:
            device.write("x")
            device.flush()

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fill)
    assert safetensors.torch is not None
    result = run("init", teacher, "-o", tmp_path / "student")

    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert not (tmp_path / "student").exists()


def test_recipe_fills_in_and_the_command_line_wins(teacher: Path, tmp_path: Path) -> None:
    """default < recipe < typed."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[init]\nlayers = 3\nstrategy = "last"\n')
    result = run("init", teacher, "-o", tmp_path / "student", "--recipe", recipe, "--layers", 1, "--json")
    config = json.loads(result.stdout)["config"]

    assert (config["layers"], config["strategy"], config["seed"]) == (1, "last", 42)


def test_unknown_recipe_key_is_named(teacher: Path, tmp_path: Path) -> None:
    """With the nearest one that there is."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[init]\nlayer = 3\n")
    result = run("init", teacher, "-o", tmp_path / "student", "--recipe", recipe)

    assert result.exit_code == 1
    assert "unknown recipe key 'layer' (did you mean 'layers'?)" in result.stderr


def test_agreement_is_a_table_and_a_gate(teacher: Path, corpus: Path) -> None:
    """Slices and bins of confidence have tables of their own; a gate on agreement is one on the whole text."""
    words = ["eval", teacher, "--against", teacher, "--agreement", corpus, "--max-length", 16]
    result = run(*words, "--require", "agreement>=0.9", "--require", "agreement/ece<=0.5")
    titles = [line.split("  ")[0] for line in result.stdout.splitlines() if "  agreement" in line or "metric" in line]

    assert result.exit_code == 3  # it agrees, and is not sure of it
    assert result.stderr.count("gate not met") == 1
    assert titles == ["metric", "slice", "student's confidence", "teacher's confidence"]
    assert any(line.split()[0].startswith("frequency/") for line in result.stdout.splitlines() if line.strip())
    assert "/slices/" not in result.stdout


def test_recipes_lists_and_prints() -> None:
    """Both shipped recipes are there, and each prints as TOML."""
    names = run("recipes").stdout.split()

    assert {"distilbert-2019", "smoke"} <= set(names)
    assert "[distill]" in run("recipes", "distilbert-2019").stdout
    assert run("recipes", "nosuch").exit_code == 1


def test_a_bug_keeps_its_traceback(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only DistilkitError is turned into a line."""
    monkeypatch.setattr("distilkit.commands.init.truncate_shared", lambda *args: 1 / 0)
    result = run("init", teacher, "-o", tmp_path / "student")

    assert isinstance(result.exception, ZeroDivisionError)
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_exits_with_130(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """One line. It does not suggest --resume, because `init` has nothing to continue from."""

    def interrupt(*args: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("distilkit.commands.init.truncate_shared", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    result = run("init", teacher, "-o", tmp_path / "student")

    signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "distilkit: interrupted: the command stopped before its end"
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize(("words", "continues"), [([], True), (["--plan"], False)])
def test_only_a_run_that_can_continue_names_resume(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], continues: bool
) -> None:
    """train() has written a run checkpoint; that of a plan is gone."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("a run checkpoint is written")

    monkeypatch.setattr("distilkit.commands.call.run", interrupt)
    result = run("distill", teacher, "--corpus", "text", "-o", tmp_path / "student", *words)
    assert result.exit_code == 130
    assert ("--resume" in result.stderr) == continues


def test_module_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m distilkit` is the same program."""
    import runpy

    monkeypatch.setattr(sys, "argv", ["distilkit", "--version"])
    runpy.run_module("distilkit", run_name="__main__")
    assert capsys.readouterr().out == f"distilkit {__version__}\n"
    monkeypatch.setattr(sys, "argv", ["distilkit", "recipes"])
    runpy.run_module("distilkit", run_name="__main__")
    assert "smoke" in capsys.readouterr().out.split()


def test_quiet_shows_warnings_and_errors_alone(teacher: Path, tmp_path: Path) -> None:
    """stdout and the record are the same with and without."""
    loud = run("init", teacher, "-o", tmp_path / "student", "--json")
    (tmp_path / "student").rename(tmp_path / "first")
    quiet = run("init", teacher, "-o", tmp_path / "student", "--json", "-q")

    assert without_date(loud) == without_date(quiet)
    assert quiet.stderr == ""

    (tmp_path / "student").rename(tmp_path / "second")
    assert run("init", teacher, "-o", tmp_path / "student", "-q").stderr == ""


def test_verbose_shows_what_is_loaded_and_changes_no_record(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on stdout, which stays one document."""
    reported = io.StringIO()  # instead of the stderr that transformers found when it was imported
    monkeypatch.setattr(logging._default_handler, "stream", reported)
    usual = run("init", teacher, "-o", tmp_path / "student", "--json")
    (tmp_path / "student").rename(tmp_path / "first")
    assert "loading" not in reported.getvalue()
    verbose = run("init", teacher, "-o", tmp_path / "student", "--json", "-v")

    assert without_date(usual) == without_date(verbose)
    assert f"loading configuration file {teacher}" in reported.getvalue()


def test_a_full_stdout_is_one_line(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is done and kept; the exit code and the line say that the record was not printed."""

    def fill(*_words: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distilkit.cli.show", fill)
    result = run("init", teacher, "-o", tmp_path / "student", "--json")
    line = "distilkit: error: cannot write the record to standard output (No space left on device): free some space"
    assert result.exit_code == 1
    assert result.stderr.startswith(line)
    assert (tmp_path / "student/distilkit.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["recipes"]])
def test_a_full_stdout_is_one_line_for_plain_text(words: list[str]) -> None:
    """What is printed last is checked too, before the interpreter ends."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "distilkit", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    line = "distilkit: error: cannot write to standard output (No space left on device): write it elsewhere"
    assert done.stderr.splitlines() == [line]


def test_names_from_files_are_shown_not_obeyed(tmp_path: Path) -> None:
    """Escapes, line breaks and markup in a column's name are text, on one line."""
    (tmp_path / "rows").mkdir()
    row = json.dumps({"\x1b]0;x\x07[red]a\nb": 1, "label": 1}) + "\n"
    for split in ("train", "validation"):
        (tmp_path / f"rows/{split}.jsonl").write_text(row)
    result = run("finetune", "m", "--task", "sst2", "--data", tmp_path / "rows", "-o", tmp_path / "o")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "\x1b" not in result.stderr


def test_an_interrupt_while_libraries_load_is_one_line() -> None:
    """Ctrl-C in the first second, before a command starts, is no traceback."""
    code = "import signal, os, distilkit.signals as s; s.exit_on_interrupt(); os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "distilkit: interrupted\n")
