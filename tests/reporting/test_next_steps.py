"""What a report says is missing, and the commands that would supply it."""

import shlex
from itertools import pairwise
from pathlib import Path

from distilkit.options.distill import DistillOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.record import record, write_biography
from distilkit.reporting.models import read
from distilkit.reporting.next_steps import NextStep, next_steps
from distilkit.reporting.provenance import base_of, steps


def suggest(*directories: Path) -> list[NextStep]:
    """Return the next steps of a report on these directories."""
    results = read([str(directory) for directory in directories])
    return next_steps(results, base_of(step.record for step in steps(results)))


def test_after_an_init_alone_measurements_are_missing(tmp_path: Path) -> None:
    """A bench with the teacher and a fine-tuning are suggested, with paths relative to the outputs."""
    made = InitOptions(teacher="some/teacher", output=tmp_path / "a")
    (tmp_path / "a").mkdir()
    write_biography(tmp_path / "a", [record("init", made, {"teacher/parameters": 4e6, "student/parameters": 3e6})])
    assert [step.command for step in suggest(tmp_path / "a")] == [
        "distilkit bench some/teacher a",
        "distilkit finetune a --task NAME -o a-NAME",
    ]


def test_a_missing_baseline_and_eval_have_the_options_of_the_run(chain: Path) -> None:
    """The baseline repeats the student's training without a teacher; the eval has the options of the fine-tuning."""
    (chain / "eval.json").unlink()
    (chain / "bench.json").unlink()
    found = suggest(chain / "student-tuned")
    (baseline,) = (step.command for step in found if "baseline" in step.text)
    words = shlex.split(baseline)
    assert words[:3] == ["distilkit", "distill", "extracted"]
    assert {("--objective", "mlm"), ("--lr", "0.001"), ("-o", "student-control")} <= set(pairwise(words))
    assert not {"--alpha-ce", "--temperature", "--teacher"} & set(words)
    assert "distilkit eval student-tuned --data mrpc --task mrpc --against TEACHER" in [step.command for step in found]
    assert any("student-tuned" in step.text and "train.jsonl" in step.text for step in found)


def test_only_a_masked_lm_can_be_trained_without_labels_or_teacher(tmp_path: Path) -> None:
    """A distilled classifier gets no --objective mlm, and its teacher's fine-tuning is not its own single seed."""
    student = tmp_path / "student"
    student.mkdir()
    tuned = record("finetune", FinetuneOptions(model="a", task="mrpc", output=tmp_path / "t"), {"mrpc/f1": 0.8})
    born = record("init", InitOptions(teacher=str(tmp_path / "t"), output=tmp_path / "cut"), {})
    options = DistillOptions(student="cut", corpus="text", objective="soft-targets", output=student)
    learnt = record("distill", options, {}, head="sequence-classification")
    write_biography(student, [tuned, born, learnt])
    assert not {"No baseline", "Scores come"} & {" ".join(step.text.split()[:2]) for step in suggest(student)}


def test_a_student_of_a_task_teacher_lacks_the_same_fine_tuning_without_it(tmp_path: Path) -> None:
    """Layers that only `finetune --teacher` trained are a student; layers fine-tuned alone are its baseline."""
    born = record("init", InitOptions(teacher=str(tmp_path / "t"), output=tmp_path / "cut"), {})
    for name, teacher in (("student", str(tmp_path / "t")), ("alone", None)):
        (tmp_path / name).mkdir()
        options = FinetuneOptions(model="cut", task="mrpc", teacher=teacher, output=tmp_path / name, seeds=5)
        write_biography(tmp_path / name, [born, record("finetune", options, {"mrpc/f1": 0.8})])
    assert [model.role for model in read([str(tmp_path / "student"), str(tmp_path / "alone")]).models] == [
        "student",
        "extracted",
    ]
    (baseline,) = (step.command for step in suggest(tmp_path / "student") if "No baseline" in step.text)
    assert baseline == "distilkit finetune cut -o student-control --task mrpc --seeds 5"
    assert not any("No baseline" in step.text for step in suggest(tmp_path / "student", tmp_path / "alone"))


def test_one_seed_is_repeated_with_five(chain: Path) -> None:
    """The baseline's fine-tuning has one seed; several seeds go into another directory."""
    (step,) = (step for step in suggest(chain / "control-tuned") if "one seed" in step.text)
    assert {("--seeds", "5"), ("-o", "control-tuned-seeds")} <= set(pairwise(shlex.split(step.command)))


def test_a_complete_chain_has_a_baseline_and_measurements(chain: Path) -> None:
    """Only the learning curves of the fine-tuned models are missing."""
    assert [step.text for step in suggest(chain)] == [
        "No learning curve for teacher-tuned, student-tuned, control-tuned: train.jsonl is missing."
    ]
