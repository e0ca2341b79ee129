"""Suggest the command to run next, with the values that the record of the last command holds."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distilkit.options.declare import build, command_line
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FOR_TEACHER
from distilkit.options.recipes import COMMANDS
from distilkit.options.spec import fields_of
from distilkit.record import Record, read_biography

NOT_OF_TEACHER = (
    "teacher",
    "resume",
    "require",
    *FOR_TEACHER,
)  # options of a student's fine-tuning that its teacher's lacks
TASK_OPTIONS = ("task", "data", "text", "label", "kind", "max_length", "long")


def next_command(done: Record) -> str:
    """Return the command to suggest next, "" if there is none. Words in capitals are for the user to replace."""
    return NEXT[done.command](done) if done.command in NEXT else ""


def after_init(done: Record) -> str:
    """Suggest training the student: on its teacher's task if the teacher is fine-tuned, else on text."""
    if done.config.get("dry_run"):
        return ""
    student, teacher = done.config["output"], done.config.get("teacher")
    if tuned := last(teacher, "finetune"):
        return line("finetune", model=student, **task_of(tuned), teacher=teacher, output=free(student, "tuned"))
    if done.environment.get("head", "masked-lm") in ("masked-lm", "sentence-encoder", "encoder"):
        return line("distill", student=student, corpus="TEXT", output=free(student, "distilled"))
    return on_some_task(student)


def after_distill(done: Record) -> str:
    """Suggest comparing a classifier with its teacher, measuring a sentence encoder, or fine-tuning another student."""
    if done.config.get("plan"):
        return ""
    student, born = done.config["output"], last(done.config["output"], "init")
    teacher = str(done.config.get("teacher") or (born.config.get("teacher") if born else None) or "TEACHER")
    if done.config.get("objective") == "soft-targets" and (tuned := last(teacher, "finetune")):
        return line("eval", models=[student], **task_of(tuned), against=teacher)
    if done.environment.get("head") == "sentence-encoder":
        return line("bench", models=[teacher, student])
    return on_some_task(student)


def after_finetune(done: Record) -> str:
    """Suggest comparing a student with its fine-tuned teacher, or making a student of any other model."""
    model, born = done.config["output"], last(done.config["output"], "init")
    if done.config["task"] == "glue":
        return line("eval", models=[model], **task_of(done))
    if born is None:
        return line("init", teacher=model, output=free(model, "student"))
    teacher = str(done.config.get("teacher") or born.config.get("teacher") or "TEACHER")
    if last(teacher, "finetune"):
        return line("eval", models=[model], **task_of(done), against=teacher)
    beside = Path(teacher).exists() and os.access(Path(teacher).parent, os.W_OK)  # a hub id has a slash in it
    name = teacher if beside else Path(teacher).name
    alike = {key: value for key, value in done.given.items() if key not in NOT_OF_TEACHER and value is not None}
    return line("finetune", **alike | task_of(done) | {"model": teacher, "output": free(name, done.config["task"])})


def on_some_task(model: str) -> str:
    """Suggest fine-tuning on a task that the user fills in."""
    command = line("finetune", model=model, task="custom", output=free(model, "tuned"))
    return command.replace("--task custom", "--task NAME")


def after_eval(done: Record) -> str:
    """Suggest measuring the speed of teacher and student."""
    against = [done.config["against"]] if done.config.get("against") else []
    models = list(dict.fromkeys([*against, *done.config["models"]]))
    several = done.config.get("task") == "glue"  # there, one model is a folder of nine
    return line("bench", models=models) if models and not several else ""


def after_bench(done: Record) -> str:
    """Suggest extracting the student that a plan chose, or a report after a comparison."""
    if done.config.get("plan"):
        return chosen_student(done)
    places = [name for name in done.config["models"] if read_biography(name)]
    return line("report", directories=places, output=free("report")) if places else ""


def chosen_student(done: Record) -> str:
    """Suggest extracting the largest student within the budget of a plan."""
    if (number := done.metrics.get("chosen")) is None:
        return ""
    layers, tokens = int(done.metrics[f"{number:.0f}/layers"]), done.config["vocabulary"]
    pruned = {"vocabulary": str(tokens), "corpus": "TEXT"} if tokens else {}
    return line(
        "init", teacher=done.config["models"][0], layers=layers, architecture=done.config["architecture"], **pruned,
        output=free("student0"),
    )  # fmt: skip


NEXT = {
    "init": after_init, "distill": after_distill, "finetune": after_finetune, "eval": after_eval, "bench": after_bench,
}  # fmt: skip


def last(place: str | None, command: str) -> Record | None:
    """Return the last record of a command in a checkpoint's history, None without one."""
    return next((step for step in reversed(read_biography(place or "")) if step.command == command), None)


def task_of(done: Record) -> dict[str, Any]:
    """Return the options that say which rows a model was fine-tuned on, as they were given."""
    known = {item.name for item, _ in fields_of(EvalOptions)}
    given = done.given or {name: done.config.get(name) for name in TASK_OPTIONS}
    return {name: value for name, value in given.items() if name in known & set(TASK_OPTIONS) and value is not None}


def free(*parts: str) -> str:
    """Join the parts of a new directory's name with dashes; add a number if it is taken."""
    name = "-".join(parts)
    numbered: Iterator[str] = (name if n == 1 else f"{name}-{n}" for n in range(1, 1000))
    return next(name for name in numbered if not Path(name).exists())


def line(command: str, **options: Any) -> str:
    """Spell a command line; paths are relative if they lie below the working directory."""
    shown = {name: relative(value) for name, value in options.items()}
    return command_line(command, build(COMMANDS[command], shown))


def relative(value: Any) -> Any:
    """Return a value with the paths in it as they would be typed here."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(relative(entry) for entry in value)
    here = os.getcwd() + os.sep  # noqa: PTH109 - compared with text
    return value.removeprefix(here) if isinstance(value, str) else value
