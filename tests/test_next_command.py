"""The command that each command suggests, and that everything that distilkit prints to be typed can be typed."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from distilkit.cli import app
from distilkit.next_command import next_command
from distilkit.record import Record, read_biography

WORDS = {"billing": "pay the bill", "login": "forgot my password"}


def run(command: str) -> Result:
    """Type a command line."""
    words = shlex.split(command)
    assert words.pop(0) == "distilkit"
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{command}: {result.stderr}"
    return result


def suggested(result: Result) -> str:
    """Return the command that was suggested."""
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("next: "))
    return line.removeprefix("next: ")


@pytest.fixture(scope="module")
def chain(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder in which a classifier was fine-tuned and each suggested command typed; all command lines."""
    folder, mine = tmp_path_factory.mktemp("chain"), tmp_path_factory.mktemp("mine") / "my rows"
    mine.mkdir()
    lines = [json.dumps({"text": f"{words} {n}", "topic": topic}) for n in range(12) for topic, words in WORDS.items()]
    for split in ("train", "validation"):
        (mine / f"{split}.jsonl").write_text("\n".join(lines))
    teacher, rows = make_checkpoint(max_position_embeddings=128), shlex.quote(str(mine))
    typed = [f"distilkit finetune {teacher} --task custom --data {rows} --text text --label topic --steps 4 -o mine"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("distilkit.tasks.schedule.MIN_ROWS_SEEN", 100)  # fewer epochs
        while typed[-1]:
            result = run(typed[-1])
            typed.append(suggested(result) if "next: " in result.stderr else "")
    return folder, typed[:-1]


def test_what_is_suggested_leads_from_a_classifier_to_a_report(chain: tuple[Path, list[str]]) -> None:
    """Every suggestion runs as it stands: a student of one's own classifier, taught by it and compared with it."""
    folder, typed = chain
    assert [command.split()[1] for command in typed] == ["finetune", "init", "finetune", "eval", "bench", "report"]
    assert "--teacher mine " in typed[2]
    assert "--against mine" in typed[3]
    page = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "retained" in page
    assert "smaller" in page


@pytest.mark.slow
def test_what_a_report_and_a_card_print_can_be_typed(
    chain: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing runs where the models are; how it was made runs in an empty folder, and makes them again."""
    folder, typed = chain
    monkeypatch.chdir(folder)
    run(f"{typed[-1]} --card")  # again, in place of the page before
    page = Path("report/report.md").read_text(encoding="utf-8")
    missing, _, made = (commands(part) for part in page.partition("## How it was made"))
    assert set(commands(Path("mine-student-tuned/README.md").read_text(encoding="utf-8"))) <= set(made)
    assert [set(shlex.split(line)) for line in made[:2]] == [set(shlex.split(line)) for line in typed[:2]]
    assert missing
    for command in missing:
        run(command)
    monkeypatch.chdir(tmp_path)
    for command in made:
        run(command)


def commands(page: str) -> list[str]:
    """Return the command lines in a page."""
    return re.findall(r"^ *(distilkit \S+ .*)$", page, flags=re.MULTILINE)


def done(command: str, output: Path, environment: dict[str, str] | None = None, **config: Any) -> Record:
    """Make a record by hand."""
    return Record(command=command, config={"output": str(output), **config}, metrics={}, environment=environment or {})


@pytest.mark.parametrize(
    ("command", "config", "environment", "expected"),
    [
        ("init", {}, {"head": "masked-lm"}, "distilkit distill {out} --corpus TEXT -o {out}-distilled"),
        ("init", {}, {"head": "none"}, "distilkit finetune {out} -o {out}-tuned --task NAME"),
        ("init", {"dry_run": True}, {"head": "none"}, ""),
        ("init", {}, {"head": "sentence-encoder"}, "distilkit distill {out} --corpus TEXT -o {out}-distilled"),
        ("distill", {}, {}, "distilkit finetune {out} -o {out}-tuned --task NAME"),
        ("distill", {"teacher": "t"}, {"head": "sentence-encoder"}, "distilkit bench t {out}"),
        ("distill", {"plan": True}, {}, ""),
        ("finetune", {"task": "rte", "steps": None}, {}, "distilkit init {out} -o {out}-student"),
        ("finetune", {"task": "glue"}, {}, "distilkit eval {out} --task glue"),
        ("eval", {"models": ["a"], "against": "t", "task": "rte"}, {}, "distilkit bench t a"),
        ("eval", {"models": [], "task": "squad"}, {}, ""),
        ("bench", {"models": ["a", "b"]}, {}, ""),  # neither was made by distilkit
        ("report", {}, {}, ""),
    ],
)
def test_next_command(
    tmp_path: Path, command: str, config: dict[str, Any], environment: dict[str, str], expected: str
) -> None:
    """A masked-LM student or a sentence encoder is distilled, a classifier fine-tuned. A report is the end."""
    out = tmp_path / "out"
    assert next_command(done(command, out, environment, **config)) == expected.format(out=out)


def test_names_that_are_taken_are_not_suggested(tmp_path: Path) -> None:
    """Otherwise the suggested command would be refused."""
    (tmp_path / "out-student").mkdir()
    assert next_command(done("finetune", tmp_path / "out", task="rte")).endswith("out-student-2")


def test_a_student_of_an_untuned_teacher_needs_the_teacher_on_the_task(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention compares with a teacher that was fine-tuned on the same rows."""
    monkeypatch.chdir(tmp_path)
    student, given = tmp_path / "student", {"task": "rte", "data": "rte", "lr": 1e-3}
    run(f"distilkit init {make_checkpoint()} -o student")
    made = done("finetune", student, task="rte")
    told = next_command(Record(**{**vars(made), "given": given}))
    teacher = read_biography(student)[0].config["teacher"]
    assert told == f"distilkit finetune {teacher} -o {teacher}-rte --data rte --task rte --lr 0.001"

    monkeypatch.setattr("os.access", lambda *_: False)  # a teacher in a folder that cannot be written to
    assert f"-o {Path(teacher).name}-rte " in next_command(made)
