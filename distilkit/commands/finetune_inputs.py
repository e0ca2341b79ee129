"""What all seeds of a fine-tuning share, read and checked before anything long starts."""

from dataclasses import dataclass, field
from typing import Any

import datasets
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.data.batches import Batches
from distilkit.distillation.layer_matching import LayerMatching, map_layers
from distilkit.distillation.task_objective import TaskLoss
from distilkit.distillation.teacher import TEACHER_PREFIX, TaskTeacher, open_task_teacher
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.options.tasks import FinetuneOptions
from distilkit.tasks import encoding, labels, squad
from distilkit.tasks.catalogue import HEADS, Task
from distilkit.tasks.checks import check_labels
from distilkit.tasks.rows import read_rows, read_validation, tasks_scored_on_test


@dataclass(frozen=True)
class Job:
    """The inputs that every seed of a fine-tuning shares."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    rows: Dataset  # encoded, to train on
    splits: dict[str, Dataset]  # to score on
    inputs: tuple[str, ...]
    teacher: TaskTeacher | None = None
    about: dict[str, str] = field(default_factory=dict)  # for the record

    def batches(self, config: FinetuneOptions) -> Batches:
        """Return the run's batches; rows of similar length share a batch."""
        own = self.teacher.tokenizer if self.teacher and self.teacher.prefix else None
        collate = encoding.collator(self.tokenizer, own, TEACHER_PREFIX)
        lengths = encoding.lengths(self.rows)
        return Batches(self.rows, collate, batch_size=config.batch_size, seed=config.seed, lengths=lengths)

    def objective(self, student: PreTrainedModel, config: FinetuneOptions) -> TaskLoss:
        """Return the objective."""
        teacher, more = self.teacher, dict[str, Any]()
        if teacher:
            more = {
                "teacher": teacher.model, "teacher_inputs": teacher.inputs, "order": teacher.order,
                "prefix": teacher.prefix, "alpha_task": config.alpha_task, "alpha_ce": config.alpha_ce,
                "temperature": config.temperature, "layer_weights": layer_weights(config),
                "layer_map": map_layers(config.layer_map, student, teacher.model) if layer_weights(config) else (),
                "hidden_loss": config.hidden_loss,
            }  # fmt: skip
        return TaskLoss(student, self.task.kind, self.inputs, **more)


def prepare(task: Task, config: FinetuneOptions) -> Job:
    """Read and check everything that a run needs, the teacher included, and encode the training rows.

    Raises DistilkitError if the teacher's labels differ from the student's, or, for SQuAD, its tokenizer.
    """
    rows = read_rows(task, config.data, "train")
    if task.name == "custom":
        task = labels.infer_labels(task, rows, str(config.data), config.kind)
        check_labels(rows, task, str(config.data))
    splits = read_validation(task, config.data)
    about = tasks_scored_on_test([task], config.data)  # read now, because the hub may be unreachable after the training
    student = open_student(task, config)
    tokenizer = checkpoint.open_tokenizer(config.model, student)
    inputs = encoding.input_names(student)
    if config.teacher is None:
        return Job(task, tokenizer, encode(rows, task, tokenizer, inputs, config, student), splits, inputs, about=about)
    teacher = open_task_teacher(config.teacher, task, tokenizer)
    if layer_weights(config) and teacher.prefix:
        raise DistilkitError(
            "--alpha-hidden and --alpha-attention compare token by token, and "
            f"'{config.teacher}' has another tokenizer: remove them"
        )
    if layer_weights(config):  # before the rows are encoded
        LayerMatching(
            student, teacher.model, layer_weights(config), map_layers(config.layer_map, student, teacher.model)
        )
    if not teacher.prefix:
        union = tuple(name for name in encoding.INPUTS if name in inputs + teacher.inputs)
        encoded = encode(rows, task, tokenizer, union, config, student, teacher.model)
    else:
        both = encode(rows, task, tokenizer, inputs, config, student), _own(rows, task, teacher, config)
        encoded = datasets.concatenate_datasets([*both], axis=1)
    return Job(task, tokenizer, encoded, splits, inputs, teacher, about)


def layer_weights(config: FinetuneOptions) -> dict[str, float]:
    """Return the weights of the losses on hidden states and attention, without those that are 0."""
    weights = {"hidden": config.alpha_hidden, "attention": config.alpha_attention}
    return {part: weight for part, weight in weights.items() if weight}


def open_student(task: Task, config: FinetuneOptions) -> PreTrainedModel:
    """Open the checkpoint with a head of the task's size, newly initialised unless it has one."""
    names = task.labels or (("LABEL_0", "LABEL_1") if task.kind == "span" else ("LABEL_0",))
    changes: dict[str, Any] = {
        "id2label": dict(enumerate(names)),
        "label2id": {label: place for place, label in enumerate(names)},
        "problem_type": labels.PROBLEM_TYPES.get(task.kind),
    }
    return checkpoint.open_model(config.model, HEADS[task.kind], new_head=True, **changes)


def encode(
    rows: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    inputs: tuple[str, ...],
    config: FinetuneOptions,
    *models: PreTrainedModel,
) -> Dataset:
    """Tokenise training rows, cut to the positions of every model that reads them."""
    length = encoding.window_length(task, config, *models)
    encoding.warn_if_shortened(task, config, length)
    if task.kind == "span":
        return squad.encode(rows, tokenizer, inputs, length, config.stride, training=True)
    return encoding.encode(rows, task, tokenizer, inputs, length, config.long)


def _own(rows: Dataset, task: Task, teacher: TaskTeacher, config: FinetuneOptions) -> Dataset:
    encoded = encode(rows, task, teacher.tokenizer, teacher.inputs, config, teacher.model)
    return encoded.remove_columns("labels").rename_columns({name: TEACHER_PREFIX + name for name in teacher.inputs})
