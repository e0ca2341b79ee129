"""The example scripts run unchanged, with a stand-in for the distilkit command."""

import importlib
import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilkit.cli import app
from distilkit.options.recipes import recipe_text

EXAMPLES = Path(__file__).parent.parent / "examples"
# This stand-in passes the arguments to the test process, which has torch loaded, and returns its output and exit code.
STAND_IN = """#!/bin/sh
printf '%s\\n' "$@" >"$PIPES/words"
cat "$PIPES/stdout"
cat "$PIPES/stderr" >&2
exit "$(cat "$PIPES/code")"
"""


def serve(pipes: Path, commands: list[str]) -> None:
    """Run the commands that arrive through the pipes until an empty one arrives."""
    while words := (pipes / "words").read_text().splitlines():
        commands.append(words[0])
        result = CliRunner().invoke(app, words)
        for name, text in (("stdout", result.stdout), ("stderr", result.stderr), ("code", str(result.exit_code))):
            (pipes / name).write_text(text)


@pytest.fixture
def run(tmp_path: Path, teacher: Path, corpus: Path, prose: list[str]) -> Callable[..., tuple[int, str, list[str]]]:
    """Return a function that runs a script on tiny models and returns its exit code, stderr and commands."""
    for name in ("words", "stdout", "stderr", "code"):
        os.mkfifo(tmp_path / name)
    stand_in = tmp_path / "bin" / "distilkit"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    for task in ("sst2", "cola"):
        data = tmp_path / "data" / task
        data.mkdir(parents=True)
        lines = [json.dumps({"sentence": text, "label": n % 2}) + "\n" for n, text in enumerate(prose[:24])]
        for split in ("train", "validation"):
            (data / f"{split}.jsonl").write_text("".join(lines))

    def run(script: str = "ci.sh", **changes: str) -> tuple[int, str, list[str]]:
        commands: list[str] = []
        variables = {
            "TEACHER": teacher,
            "CORPUS": corpus,
            "DATA": tmp_path / "data/sst2",
            "OUT": tmp_path / "ci",
            "PIPES": tmp_path,
        }
        path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, **{name: str(value) for name, value in variables.items()}, **changes}
        server = threading.Thread(target=serve, args=(tmp_path, commands), daemon=True)
        server.start()
        done = subprocess.run(
            ["/bin/sh", EXAMPLES / script], env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        if server.is_alive():
            (tmp_path / "words").write_text("")
            server.join()
        return done.returncode, done.stderr, commands

    return run


CHAIN = ["init", "distill", "finetune", "finetune", "finetune", "eval", "bench"]


def test_ci_passes_if_its_gates_are_met(run: Callable[..., tuple[int, str, list[str]]], tmp_path: Path) -> None:
    """The whole chain runs and writes its metrics as JSON."""
    recipe = recipe_text("smoke").replace("[finetune]\nsteps = 4", "[finetune]\nlr = 3e-3\nsteps = 60")
    (tmp_path / "own.toml").write_text(recipe)  # a model that has learned nothing would meet no gate
    code, stderr, commands = run(KEEPS="0", SPEEDUP="0", RECIPE=str(tmp_path / "own.toml"))
    assert (code, commands) == (0, CHAIN), stderr
    found = json.loads((tmp_path / "ci/student-sst2/eval.json").read_text())["metrics"]
    assert {"retention/sst2", "retention/sst2/low", "difference/sst2/control"} <= set(found)
    assert "1/speedup" in json.loads((tmp_path / "ci/student-sst2/bench.json").read_text())["metrics"]


def test_ci_exits_with_3_after_all_gates(run: Callable[..., tuple[int, str, list[str]]]) -> None:
    """A gate that is not met is printed with its value. The next gate is tried, and the exit code is 3."""
    code, stderr, commands = run(KEEPS="9", SPEEDUP="0")
    assert (code, commands) == (3, CHAIN), stderr
    assert "gate not met: retention>=9: retention/sst2 is " in stderr


def test_ci_stops_at_an_error(run: Callable[..., tuple[int, str, list[str]]]) -> None:
    """An error other than an unmet gate stops the build at once, with the exit code of the command."""
    code, stderr, commands = run(TASK="nosuch", KEEPS="0")
    assert (code, commands) == (2, CHAIN[:3])
    assert "--task 'nosuch'" in stderr


@pytest.mark.slow
def test_the_table_has_teacher_students_and_baselines(
    run: Callable[..., tuple[int, str, list[str]]], tmp_path: Path
) -> None:
    """The table has a row per model. A second run repeats no training."""
    options = {
        "RECIPE": "smoke", "TUNING": "--recipe smoke", "TIMING": "--recipe smoke", "TASKS": "sst2 cola", "SEEDS": "2",
        "DATA": str(tmp_path / "data"), "OUT": str(tmp_path / "table"),
    }  # fmt: skip
    code, stderr, commands = run("table.sh", **options)
    assert code == 0, stderr
    assert commands == ["init", "distill", "distill", *(["finetune"] * 5 + ["eval"]) * 2, "bench", "report"]
    text = (tmp_path / "table/report/report.md").read_text()
    rows = [line.split("|")[1].split()[0] for line in text.partition("## Models")[2].splitlines() if "|" in line][2:9]
    assert rows == [
        "teacher", "tuned/student", "second-step", "extracted", "tuned/masked-lm", "table/student",
        "table/masked-lm",
    ]  # fmt: skip
    (tmp_path / "table/report").rename(tmp_path / "before")
    code, stderr, commands = run("table.sh", **options)
    assert (code, commands) == (0, ["eval", "eval", "bench", "report"]), stderr


def test_the_python_script_runs(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script goes from a teacher to a measured student. The wrong option at its end is an error of one line."""
    script = str(EXAMPLES / "python_api.py")
    monkeypatch.setattr(sys, "argv", [script, str(teacher), str(corpus), str(tmp_path / "out"), "2"])
    runpy.run_path(script, run_name="__main__")
    printed = capsys.readouterr().out
    assert "layers kept: 0,3" in printed
    assert "as expected: distilkit.init has no option 'layer' (did you mean 'layers'?)" in printed
    assert (tmp_path / "out/student/distilkit.json").exists()


@pytest.fixture
def reproduce(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that runs a script of `reproduce/` in this process and returns the commands that it calls."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "reproduce"))
    commands: list[str] = []

    def in_process(*words: str) -> str:
        commands.append(words[0])
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    monkeypatch.setattr(importlib.import_module("steps"), "distilkit", in_process)

    def reproduce(script: str, *words: object) -> list[str]:
        commands.clear()
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        runpy.run_path(str(EXAMPLES / "reproduce" / script), run_name="__main__")
        return [*commands]

    return reproduce


TEXT = """Yesterday the old Paris office of Jean Roux closed . London was never near Paris .
London has a river and I like London .
She saw the river near London , and the old office ."""


def test_names_are_tagged_by_their_capitals(reproduce: Callable[..., list[str]], tmp_path: Path) -> None:
    """Runs of capitals are names; the first word counts if it mostly has a capital elsewhere; "I" is no name."""
    (tmp_path / "text.txt").write_text(TEXT)
    reproduce("name_rows.py", tmp_path / "text.txt", tmp_path / "text.txt", tmp_path / "rows", "--rows", 3, 9, 1)
    rows = [json.loads(line) for line in (tmp_path / "rows/validation.jsonl").read_text().splitlines()]
    tagged = {
        " ".join(f"{word}/{tag[0]}" if tag != "O" else word for word, tag in zip(*row.values(), strict=True))
        for row in rows
    }
    assert tagged == {
        "yesterday the old paris/B office of jean/B roux/I closed .",
        "london/B was never near paris/B .",
        "london/B has a river and i like london/B .",
        "she saw the river near london/B , and the old office .",
    }
    train = {" ".join(json.loads(line)["tokens"]) for line in (tmp_path / "rows/train.jsonl").read_text().splitlines()}
    assert len(train) == 3
    assert (tmp_path / "rows/texts.txt").read_text().strip() not in train


def test_a_tagger_is_halved(
    reproduce: Callable[..., list[str]], teacher: Path, corpus: Path, tmp_path: Path, prose: list[str]
) -> None:
    """The table has a row for each model, and a second run trains nothing."""
    rows = [{"tokens": text.split(), "ner_tags": [f"LENGTH{len(word)}" for word in text.split()]} for text in prose[:9]]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("classifier.py", "--model", teacher, "--task", "custom", "--metric", "accuracy", "--data", tmp_path)
    words += ("--texts", corpus, "--finetune", "--kind tokens --steps 2", "--distill", "--steps 2 --batch-size 4")
    commands = reproduce(*words, "--out", tmp_path / "out")

    trained = ["finetune", "init", "distill", "finetune", "finetune", "finetune"]
    assert commands == [*trained, "eval", "bench", "report"]
    table = (tmp_path / "out/classifier.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == [
        "teacher", "unlabelled texts", "labels and teacher", "unlabelled texts, then labels", "baseline: untrained",
        "baseline: labels, no teacher",
    ]  # fmt: skip
    assert reproduce(*words, "--out", tmp_path / "out") == ["eval", "bench", "report"]
