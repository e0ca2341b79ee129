"""A student and its teacher: what it takes for one to learn from the other."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint, vocabulary
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.record import read_biography, remembered_teacher


def teacher_name(config: DistillOptions) -> str:
    """Return the teacher that --teacher or the student's biography names."""
    name = config.teacher or remembered_teacher(config.student)
    if name is None:
        raise DistilkitError(f"'{config.student}' does not say what it was made from: name the teacher with --teacher")
    if config.teacher is None and Path(name).is_absolute() and not Path(name).exists():
        raise DistilkitError(
            f"the teacher that '{config.student}' was made from, '{name}', is gone: name one with --teacher"
        )
    return name


def open_teacher(
    config: DistillOptions, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Open the teacher, and refuse one that doesn't fit."""
    name = teacher_name(config)
    teacher = checkpoint.open_model(name, "masked-lm")
    theirs = checkpoint.open_tokenizer(name)
    if has_fewer_tokens(config.student):
        teacher, theirs = vocabulary.prune(teacher, vocabulary.shared_ids(tokenizer, theirs)), tokenizer
    check_pair(student, teacher, checkpoint.same_vocabulary(tokenizer, theirs))
    check_length(teacher, config.seq_length)
    return teacher


def has_fewer_tokens(student: str) -> bool:
    """Say whether a checkpoint's vocabulary was cut when it was made."""
    return any(entry.command == "init" and entry.config.get("vocabulary") for entry in read_biography(student))


def check_pair(student: PreTrainedModel, teacher: PreTrainedModel, same_vocabulary: bool) -> None:
    """Refuse a teacher from whom the student can't learn: another vocabulary, or the very same weights."""
    if not same_vocabulary or student.config.vocab_size != teacher.config.vocab_size:
        raise DistilkitError(
            "teacher and student have different vocabularies: give a --teacher with the student's tokenizer"
        )
    mine, theirs = student.state_dict(), teacher.state_dict()
    if mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine):
        raise DistilkitError(
            "teacher and student have identical weights, nothing to learn: make a student with distilkit init"
        )


def check_length(model: PreTrainedModel, seq_length: int) -> None:
    """Refuse blocks that are longer than the model's positions."""
    positions = checkpoint.max_tokens(model)
    if positions is not None and seq_length > positions:
        raise DistilkitError(f"--seq-length {seq_length} is longer than the model's {positions} positions: lower it")
