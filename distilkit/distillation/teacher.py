"""Find, open and check the teacher of a student: for text (`distill`) or for a task (`finetune`)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint, vocabulary
from distilkit.encoders.contents import Head
from distilkit.encoders.forward import input_names
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.record import remembered_teacher
from distilkit.tasks import labels
from distilkit.tasks.catalogue import HEADS, Task

TEACHER_PREFIX = "teacher_"  # begins the batch columns for a teacher with a tokenizer of its own


def teacher_name(options: DistillOptions) -> str:
    """Return the teacher given with --teacher, or recorded in the student's history."""
    name = options.teacher or remembered_teacher(options.student)
    if name is None:
        raise DistilkitError(f"'{options.student}' has no recorded teacher: specify one with --teacher")
    if options.teacher is None and Path(name).is_absolute() and not Path(name).exists():
        raise DistilkitError(
            f"the recorded teacher of '{options.student}', '{name}', no longer exists: specify one with --teacher"
        )
    return name


def open_teacher(
    options: DistillOptions,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    head: Head = "masked-lm",
) -> PreTrainedModel:
    """Open the teacher of a student that learns from blocks of text.

    If the student's vocabulary was pruned, the teacher's is pruned to the same tokens.
    Raises DistilkitError if the teacher does not fit the student.
    """
    name = teacher_name(options)
    teacher = checkpoint.open_model(name, head)
    theirs = checkpoint.open_tokenizer(name, teacher)
    teacher = vocabulary.to_vocabulary(teacher, theirs, tokenizer)
    if student.config.vocab_size != teacher.config.vocab_size:
        raise vocabulary.different_vocabularies()
    check_different(student, teacher)
    check_length(teacher, options.seq_length)
    return teacher


def adapt_teacher(
    teacher: PreTrainedModel, theirs: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a teacher that reads whole texts, with the tokenizer that it reads them with.

    That is the student's if the student's vocabulary was pruned from the teacher's, else the teacher's own.
    """
    if tokenizer.get_vocab().keys() < theirs.get_vocab().keys():
        return vocabulary.to_vocabulary(teacher, theirs, tokenizer), tokenizer
    return teacher, theirs


def check_different(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Raise DistilkitError if student and teacher have the same weights."""
    same = type(student) is type(teacher)
    mine, theirs = ((model if same else model.base_model).state_dict() for model in (student, teacher))
    if mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine):
        raise DistilkitError(
            "teacher and student have identical weights, so there is nothing to learn: "
            "make a student with distilkit init"
        )


def check_length(model: PreTrainedModel, seq_length: int | None) -> None:
    """Raise DistilkitError if --seq-length is given and exceeds the model's positions."""
    positions = checkpoint.max_tokens(model)
    if positions is not None and seq_length is not None and seq_length > positions:
        raise DistilkitError(f"--seq-length {seq_length} is longer than the model's {positions} positions: lower it")


@dataclass(frozen=True)
class TaskTeacher:
    """A model fine-tuned on the task, its tokenizer and inputs, and its output for each label of the task."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    inputs: tuple[str, ...]
    order: tuple[int, ...]
    prefix: str  # TEACHER_PREFIX, or "" if it shares the student's tokenizer


def open_task_teacher(name: str, task: Task, tokenizer: PreTrainedTokenizerBase) -> TaskTeacher:
    """Open a teacher fine-tuned on the task and match its outputs to the task's labels by name.

    Raises DistilkitError if it has other labels or, for spans, another tokenizer than the student's.
    """
    model = checkpoint.open_model(name, HEADS[task.kind])
    own = checkpoint.open_tokenizer(name, model, needs=["pad"])
    order = labels.label_order(task, model.config, name)
    same = checkpoint.same_vocabulary(tokenizer, own)
    if task.kind == "span" and not same:
        raise DistilkitError(
            f"--teacher '{name}' has another tokenizer than the student, so their answers start at different tokens: "
            "give a --teacher with the student's tokenizer"
        )
    return TaskTeacher(model, own, input_names(model), tuple(order), "" if same else TEACHER_PREFIX)
