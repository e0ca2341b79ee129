"""How a task's rows are cut and scored: as given, as the model was trained, or as published for the task."""

from dataclasses import dataclass, fields
from typing import Any

from distilkit.errors import DistilkitError
from distilkit.options.spec import flag
from distilkit.options.tasks import TaskOptions
from distilkit.record import read_biography
from distilkit.tasks.catalogue import Task

SPAN_OPTIONS = ("stride", "n_best", "max_answer_length", "null_threshold")


@dataclass(frozen=True)
class TaskSettings:
    """The options that have a default per task, each with a value. For their meaning see the options."""

    batch_size: int
    max_length: int
    long: str
    stride: int
    n_best: int
    max_answer_length: int
    null_threshold: float

    @classmethod
    def of(cls, options: TaskOptions) -> "TaskSettings":
        """Return the settings of options in which they are all filled in."""
        return cls(**{item.name: getattr(options, item.name) for item in fields(cls)})


def with_task_defaults(task: Task, options: TaskOptions) -> TaskSettings:
    """Return the given settings, and the task's for every one that was not given.

    Raises DistilkitError if an option does not fit the task: --long with two text columns, SQuAD's options elsewhere.
    """
    return _fill(task, options, {})


def with_training_settings(task: Task, options: TaskOptions, directory: str) -> TaskSettings:
    """Return settings to score a checkpoint with: given ones first, then those of its training, then the task's.

    Raises DistilkitError as with_task_defaults() does.
    """
    records = [done.config for done in read_biography(directory) if done.command == "finetune"]
    trained = records[-1] if records and records[-1].get("task") == task.name else {}
    return _fill(task, options, trained)


def _fill(task: Task, options: TaskOptions, trained: dict[str, Any]) -> TaskSettings:
    names = [item.name for item in fields(TaskSettings)]
    given = {name: getattr(options, name) for name in names}
    defaults = {name: getattr(task, name) for name in names} | {k: v for k, v in trained.items() if v is not None}
    values = {name: defaults[name] if value is None else value for name, value in given.items()}
    if task.kind == "span" and given["stride"] is None:
        values["stride"] = min(values["stride"], values["max_length"] // 3)  # the published share: 128 of 384
    for name in SPAN_OPTIONS:
        if task.kind != "span" and given[name] is not None:
            raise DistilkitError(f"{flag(name)} requires --task squad or squad_v2, not {task.name}: remove it")
    if values["long"] != "head" and task.kind == "tokens":
        raise DistilkitError(f"--long {values['long']} does not fit --kind tokens: remove it and split long sentences")
    if values["long"] != "head" and len(task.text) > 1:
        raise DistilkitError(
            f"--long {values['long']} requires a task with one text column, but {task.name} has two: remove --long"
        )
    return TaskSettings(**values)
