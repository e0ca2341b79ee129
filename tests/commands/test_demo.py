"""demo, with three updates per training instead of hundreds."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel
from typer.testing import CliRunner

from distilkit.cli import app
from distilkit.commands import demo as module
from distilkit.commands.report import report
from distilkit.options.recipes import COMMANDS
from distilkit.options.report import DemoOptions, ReportOptions
from distilkit.record import Record, read_biography


def no_plots(_results: Any) -> list[Any]:
    """Plots take a second each, and have tests of their own."""
    return []


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record, list[str]]:
    """The directory, the record and the messages of a run."""
    out, messages, all_steps = tmp_path_factory.mktemp("demo") / "out", [], module.steps

    def short(*args: Any) -> Iterator[Any]:
        for name, command, step in all_steps(*args):
            yield name, command, replace(step, steps=3) if hasattr(step, "steps") else step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "steps", short)
        patch.setattr("distilkit.commands.report.draw", no_plots)
        record = module.demo(DemoOptions(output=out), say=messages.append)
    return out, record, messages


def test_every_model_has_every_metric(ran: tuple[Path, Record, list[str]]) -> None:
    """Teacher, student and baseline have six metrics each, and the student is smaller."""
    _, record, _ = ran
    names = {"parameters", "bytes", "heldout_loss", "accuracy", "retention", "latency_ms_p50"}

    assert set(record.metrics) == {f"{model}/{name}" for model in module.MODELS for name in names}
    assert record.metrics["student/parameters"] == record.metrics["control/parameters"]
    assert record.metrics["student/parameters"] < record.metrics["teacher/parameters"]
    assert record.metrics["teacher/retention"] == 1.0


def test_every_directory_is_a_checkpoint(ran: tuple[Path, Record, list[str]]) -> None:
    """from_pretrained opens each directory, and its record lists the commands that made it."""
    out, _, _ = ran
    for name in ("teacher", "extracted", "student", "control", "teacher-tuned", "student-tuned", "control-tuned"):
        AutoModel.from_pretrained(out / name)
        assert read_biography(out / name), name
    assert [entry.command for entry in read_biography(out / "student-tuned")] == [
        "distill",
        "init",
        "distill",
        "finetune",
    ]


def test_a_report_of_the_directory_has_scores_and_speeds(
    ran: tuple[Path, Record, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """report finds the records of eval and bench beside the models."""
    monkeypatch.setattr("distilkit.commands.report.draw", no_plots)
    out, summary, _ = ran
    metrics = report(ReportOptions(directories=(str(out),), output=tmp_path / "report")).metrics
    for figure in ("custom/accuracy", "cpu/fp32/b1/l64/latency_ms_p50"):
        ours = {value for name, value in metrics.items() if name.partition("/")[2] == figure}
        theirs = {value for name, value in summary.metrics.items() if figure.endswith(name.partition("/")[2])}
        assert ours == theirs != set()


def test_it_ends_with_a_page_and_three_sentences(ran: tuple[Path, Record, list[str]]) -> None:
    """The sentences have the figures of eval and bench, and say whether they can be chance."""
    out, record, messages = ran
    assert (out / "report" / "report.html").is_file()
    (said,) = (message for message in messages if "times as fast" in message)
    assert len(said.strip().splitlines()) == 3
    assert f"{record.metrics['student/retention']:.0%} of the teacher's accuracy" in said
    assert "chance explains it" in said or "which is significant" in said


def test_the_vocabulary_depends_on_the_text_alone() -> None:
    """Every word of the text can be written, and equally frequent words are ordered by name."""
    text = "b b a a c zebras stripes, bees"
    tokens = module.wordpieces(text)
    assert tokens == module.wordpieces(text)
    assert tokens.index("bees") < tokens.index("stripes") < tokens.index("zebras")
    assert {letter for letter in text if letter != " "} <= set(tokens)


def test_the_printed_commands_are_those_that_ran(ran: tuple[Path, Record, list[str]]) -> None:
    """Each printed command has valid flags, and the student's record has the printed number of steps."""
    out, _, messages = ran
    lines = "\n".join(messages).splitlines()
    printed = [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]
    help_of = {name: CliRunner().invoke(app, [name, "--help"]).stdout for name in COMMANDS}

    assert [words[1] for words in printed] == [
        "distill",
        "init",
        "distill",
        "distill",
        *["finetune"] * 3,
        "eval",
        "bench",
        "report",
    ]
    for words in printed:
        flags = [word for word in words if word.startswith("--")]
        assert all(flag in help_of[words[1]] for flag in flags), words
    student = read_biography(out / "student")[-1].config
    assert f"--steps {student['steps']}" in " ".join(printed[2])


def test_the_data_are_beside_the_models(ran: tuple[Path, Record, list[str]]) -> None:
    """There is a corpus, and labelled rows without a paragraph in both splits."""
    out, _, _ = ran
    rows = {
        split: [json.loads(line) for line in (out / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in ("train", "validation")
    }

    assert len((out / "corpus.txt").read_text(encoding="utf-8").split()) > 100_000
    assert not {row["text"] for row in rows["train"]} & {row["text"] for row in rows["validation"]}
    assert {row["label"] for row in rows["train"]} == {"language", *module.AREAS}
