"""The commands that made the models, as they can be typed again."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilkit.cli import app
from distilkit.commands import init as command
from distilkit.options.init import InitOptions
from distilkit.record import Record, record
from distilkit.reporting.models import read
from distilkit.reporting.provenance import machines, outcome, reproduction_command, steps, training_seconds


def test_each_command_is_listed_once_in_an_order_to_run_them(chain: Path) -> None:
    """Ancestors that models share come first, and paths are relative to the directory that contains all outputs."""
    done = steps(read([str(chain)]))
    commands = [shlex.split(step.command) for step in done]
    assert [step.command for step in done].count("distilkit init some/teacher -o extracted --seed 7") == 1
    made = [words[words.index("-o") + 1] for words in commands if "-o" in words]
    assert sorted(made) == ["control", "control-tuned", "extracted", "student", "student-tuned", "teacher-tuned"]
    for words in commands:
        if words[1] in ("distill", "finetune") and words[2] in made:
            assert made.index(words[2]) < made.index(words[words.index("-o") + 1])
    assert [words[1] for words in commands[-2:]] == ["eval", "bench"]
    outcomes = {step.title: step.outcome for step in done}
    assert outcomes["init: extracted"] == "largest output difference 0"
    assert outcomes["finetune: student-tuned"] == "30 s per seed, seeds 42 to 44, device cpu"
    assert outcomes["distill: student"] == (
        "300 tokens, 1 min 30 s, seed 42, last training loss 18.000, held-out loss 4.250"
    )


def test_a_bench_says_what_other_processes_used() -> None:
    """Its times are worth less if they used much."""
    done = Record(
        command="bench", config={}, metrics={}, environment={"threads": "2", "other_processes": "63% of the CPU time"}
    )
    assert outcome(done) == "threads 2, other processes used 63% of the CPU time"


def test_training_time_counts_every_seed(chain: Path) -> None:
    """Two distillations of 90 s, and fine-tunings of 30 s with 1, 3 and 1 seeds."""
    done = steps(read([str(chain)]))
    assert training_seconds(step.record for step in done) == 2 * 90 + 5 * 30


def test_machines_list_the_steps_that_ran_there(chain: Path) -> None:
    """Steps are numbered from 1; another machine is another entry."""
    done = steps(read([str(chain)]))
    moved = dataclasses.replace(done[1].record, environment={"machine": "other"})
    found = machines([done[0], done[1]._replace(record=moved), done[2]])
    assert [numbers for _, numbers in found] == [[1, 3], [2]]
    assert found[1][0] == {"machine": "other"}


def test_the_command_in_the_report_makes_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line from a record, when typed again, gives the options that the record was made from."""
    config = InitOptions(teacher="some/teacher id", output=Path("/made by/a b"), keep=(0, 3), strategy="last", seed=7)
    typed = []

    def init(given: InitOptions) -> Record:
        typed.append(given)
        return record("init", given, {})

    monkeypatch.setattr(command, "init", init)
    program, *words = shlex.split(reproduction_command(record("init", config, {})))
    result = CliRunner().invoke(app, words)
    assert (program, result.exit_code, [vars(given) for given in typed]) == ("distilkit", 0, [vars(config)])


def test_an_option_of_a_later_version_is_left_out() -> None:
    """It could not be typed here."""
    base = record("init", InitOptions(teacher="t", output=Path("/o")), {})
    newer = dataclasses.replace(base, config={**base.config, "later_option": 3})
    assert reproduction_command(newer) == reproduction_command(base)


def test_records_of_another_schema_are_read(tmp_path: Path) -> None:
    """A record with missing options, or of an unknown command, is written with the options that it has."""
    entries = [
        {"schema": 0, "command": "init", "config": {"teacher": "t"}, "metrics": {}, "environment": {}},
        {"command": "shrink", "config": {"factor": 2}, "metrics": {"parameters": 5e6}, "environment": {}, "later": 1},
    ]
    (tmp_path / "old").mkdir()
    (tmp_path / "old/distilkit.json").write_text(json.dumps(entries))
    results = read([str(tmp_path / "old")])
    assert [step.command for step in steps(results)] == ["distilkit init --teacher t", "distilkit shrink --factor 2"]
    assert results.models[0].metrics["parameters"] == 5e6


@pytest.mark.parametrize("home", ["/home/alice", "/Users/alice", "/root", str(Path.home())])
def test_home_directories_become_a_tilde_that_a_shell_expands(home: str) -> None:
    """A card names no user, and the command still works on the machine of the one who made it."""
    config = {"teacher": f"{home}/my models/t", "output": "/data/o", "layers": 2}
    line = reproduction_command(Record(command="init", config=config, metrics={}, environment={}), "/data")
    assert line == "distilkit init ~/'my models/t' -o o --layers 2"
    config["teacher"] = f"{home}/t"
    line = reproduction_command(Record(command="init", config=config, metrics={}, environment={}), "/data")
    assert line == "distilkit init ~/t -o o --layers 2"


def test_commands_run_where_the_report_was_made(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are relative to the working directory if all outputs lie below it, else to the lowest common directory."""
    results = read([str(chain)])
    assert "distilkit init some/teacher -o extracted --seed 7" in [step.command for step in steps(results)]
    monkeypatch.chdir(chain.parent)
    assert "distilkit init some/teacher -o chain/extracted --seed 7" in [step.command for step in steps(results)]
