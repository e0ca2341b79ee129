"""Pairs: which teacher a checkpoint is compared with on plain text, and whether the two can be compared."""

from typing import NamedTuple

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint, vocabulary
from distilkit.encoders.checkpoint import Head
from distilkit.errors import DistilkitError
from distilkit.record import read_biography, remembered_teacher
from distilkit.tasks import labels
from distilkit.tasks.catalogue import TASKS
from distilkit.training.devices import device

LENGTH = 128  # tokens, where the biography doesn't say how many a model was trained with


class Opened(NamedTuple):
    """A checkpoint under its name as typed."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class Pair(NamedTuple):
    """The names of a checkpoint and of its teacher, and the head that both have."""

    student: str
    teacher: str
    head: Head

    def open(self) -> tuple[Opened, Opened]:
        """Load both, in this process's memory or on its GPU; a masked-LM teacher with the student's tokens alone."""
        models = [(name, checkpoint.open_model(name, self.head)) for name in (self.student, self.teacher)]
        student, teacher = (
            Opened(name, model.eval().to(device()), checkpoint.open_tokenizer(name, model)) for name, model in models
        )
        return student, _with_tokens_of(student, teacher) if self.head == "masked-lm" else teacher


def find_pair(name: str, against: str | None) -> Pair:
    """Pair a checkpoint with the teacher given, or with the one that its biography remembers.

    Raises DistilkitError where there is none, and where the two don't give answers that can be compared.
    """
    mine = checkpoint.open_config(name)
    head = checkpoint.head_of(mine)
    if head not in ("masked-lm", "sequence-classification"):
        raise DistilkitError(
            f"'{name}' has the head {head}, but --agreement compares masked-LM models and classifiers: use --task"
        )
    if getattr(mine, "problem_type", None) == "multi_label_classification":
        raise DistilkitError(f"'{name}' gives a text several labels, but --agreement compares one answer: use --task")
    _refuse_two_texts(name)
    teacher = against or remembered_teacher(name, ("init", "distill") if head == "masked-lm" else ("finetune",))
    if teacher is None:
        raise DistilkitError(f"'{name}' does not say which teacher it should be like: name one with --against")
    theirs = checkpoint.head_of(checkpoint.open_config(teacher))
    if theirs != head:
        raise DistilkitError(
            f"'{name}' has the head {head}, but '{teacher}' {theirs}: name a teacher of the same kind with --against"
        )
    return Pair(name, teacher, head)


def _refuse_two_texts(name: str) -> None:
    for entry in read_biography(name):
        task = entry.config.get("task")
        columns = TASKS[task].text if task in TASKS else entry.config.get("text") or ()
        if entry.command == "finetune" and len(columns) > 1:
            raise DistilkitError(
                f"'{name}' was trained on rows of two texts ({task}), but --agreement reads one a row: use --task"
            )


def trained_length(name: str) -> int:
    """Return the tokens a row that a checkpoint was last trained with, 128 where its biography doesn't say."""
    for entry in reversed(read_biography(name)):
        if length := entry.config.get("max_length") or entry.config.get("seq_length"):
            return int(length)
    return LENGTH


def _with_tokens_of(student: Opened, teacher: Opened) -> Opened:
    model, ours, theirs = teacher.model, student.tokenizer, teacher.tokenizer
    if not checkpoint.same_vocabulary(ours, theirs) and ours.get_vocab().keys() <= theirs.get_vocab().keys():
        model = vocabulary.prune(model, vocabulary.shared_ids(ours, theirs)).eval().to(device())
    elif not checkpoint.same_vocabulary(ours, theirs) or student.model.config.vocab_size != model.config.vocab_size:
        raise DistilkitError(
            f"'{student.name}' and '{teacher.name}' have different vocabularies: "
            "name a teacher with the same tokenizer with --against"
        )
    return Opened(teacher.name, model, ours)


def match(student: PretrainedConfig, teacher: PretrainedConfig, name: str) -> list[int]:
    """Return which of the teacher's outputs stands for each of the student's, by their names.

    Names that say nothing (LABEL_0, 0) count as being in the other's order.
    Raises DistilkitError where the teacher, called `name`, has other labels.
    """
    ours, theirs = labels.output_names(student), labels.output_names(teacher)
    order = labels.match_names(theirs, ours)
    silent = labels.are_generic_names(ours) or labels.are_generic_names(theirs) or len(ours) == 1
    if order is None and len(ours) == len(theirs) and silent:
        order = list(range(len(ours)))
    if order is None:
        raise DistilkitError(
            f"'{name}' predicts {', '.join(theirs)}, but the student {', '.join(ours)}: "
            "name a teacher of the same task with --against"
        )
    return order
