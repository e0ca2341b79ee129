"""The demo's chain, with a few steps where the real one takes hundreds."""

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


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record, list[str]]:
    """The directory, the record and what was said."""
    out, said, whole = tmp_path_factory.mktemp("demo") / "out", [], module.steps

    def short(*args: Any) -> Iterator[Any]:
        for name, command, step in whole(*args):
            yield name, command, replace(step, steps=3) if hasattr(step, "steps") else step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "steps", short)
        record = module.demo(DemoOptions(output=out), say=said.append)
    return out, record, said


def test_every_model_has_every_figure(ran: tuple[Path, Record, list[str]]) -> None:
    """Teacher, student and control times the six columns; the student is the smaller one."""
    _, record, _ = ran
    figures = {"parameters", "bytes", "heldout_loss", "accuracy", "retention", "latency_ms_p50"}

    assert set(record.metrics) == {f"{model}/{name}" for model in module.MODELS for name in figures}
    assert record.metrics["student/parameters"] == record.metrics["control/parameters"]
    assert record.metrics["student/parameters"] < record.metrics["teacher/parameters"]
    assert record.metrics["teacher/retention"] == 1.0


def test_every_directory_is_a_checkpoint(ran: tuple[Path, Record, list[str]]) -> None:
    """Plain from_pretrained reads each, and each says how it came about."""
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


def test_a_report_of_the_directory_has_scores_and_speeds(ran: tuple[Path, Record, list[str]], tmp_path: Path) -> None:
    """What eval and bench found lies beside the models, where report looks for it."""
    out, summary, _ = ran
    metrics = report(ReportOptions(directories=(str(out),), output=tmp_path / "report")).metrics
    for figure in ("custom/accuracy", "cpu/fp32/b1/l64/latency_ms_p50"):
        ours = {value for name, value in metrics.items() if name.partition("/")[2] == figure}
        theirs = {value for name, value in summary.metrics.items() if figure.endswith(name.partition("/")[2])}
        assert ours == theirs != set()


def test_the_commands_it_names_are_what_it_ran(ran: tuple[Path, Record, list[str]]) -> None:
    """Each spelled command parses, and the student's record holds the very options that were spelled."""
    out, _, said = ran
    spelled = [shlex.split(line.strip().removeprefix("$ ")) for line in said if line.strip().startswith("$ ")]
    help_of = {name: CliRunner().invoke(app, [name, "--help"]).stdout for name in COMMANDS}

    assert [words[1] for words in spelled] == [
        "distill",
        "init",
        "distill",
        "distill",
        *["finetune"] * 3,
        "eval",
        "bench",
    ]
    for words in spelled:
        flags = [word for word in words if word.startswith("--")]
        assert all(flag in help_of[words[1]] for flag in flags), words
    student = read_biography(out / "student")[-1].config
    assert f"--steps {student['steps']}" in " ".join(spelled[2])


def test_the_data_lie_beside_the_models(ran: tuple[Path, Record, list[str]]) -> None:
    """Text to read again, and labelled rows without a paragraph in both halves."""
    out, _, _ = ran
    rows = {
        split: [json.loads(line) for line in (out / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in ("train", "validation")
    }

    assert len((out / "corpus.txt").read_text(encoding="utf-8").split()) > 100_000
    assert not {row["text"] for row in rows["train"]} & {row["text"] for row in rows["validation"]}
    assert {row["label"] for row in rows["train"]} == {"language", *module.AREAS}
