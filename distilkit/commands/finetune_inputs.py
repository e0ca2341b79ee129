"""What all seeds of a fine-tuning share: read, checked and encoded before the training starts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.class_scores import note_numbered
from distilkit.data.batches import Batches
from distilkit.distillation.layer_matching import LayerMatching, map_layers
from distilkit.distillation.task_objective import TaskLoss
from distilkit.distillation.teacher import TEACHER_PREFIX, TaskTeacher, open_task_teacher
from distilkit.encoders import checkpoint
from distilkit.encoders.forward import INPUTS, input_names
from distilkit.errors import DistilkitError
from distilkit.evaluation.scoring import is_by_class, score_names, scored_classes
from distilkit.gates import check_gates
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.spec import flag
from distilkit.tasks import encoding, labels, squad, tagging
from distilkit.tasks.catalogue import HEADS, Task
from distilkit.tasks.checks import check_labels
from distilkit.tasks.rows import fingerprint, read_rows, read_validation, tasks_scored_on_test
from distilkit.tasks.schedule import BASE_LAYERS, BASE_WIDTH, WARMUP, Schedule, default_schedule
from distilkit.tasks.settings import TaskSettings

TOTALS = (  # the metrics of a run beside its scores
    *("updates", "loss", "tokens", "seconds", "tokens_per_second", "peak_memory_bytes"),
    *("kept_evaluation", "parameters"),
)


def check_known_gates(chosen: Sequence[Task], options: FinetuneOptions) -> None:
    """Raise DistilkitError if a gate names a metric that the run cannot have; class metrics are checked later."""
    names = [*score_names(chosen), *TOTALS]
    gates = [gate for gate in options.require if not is_by_class(gate, options)]
    check_gates(gates, [*names, *(f"{name}/{end}" for name in names for end in ("min", "max"))])


@dataclass(frozen=True)
class TrainingInputs:
    """What every seed of a fine-tuning shares."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    rows: Dataset  # encoded training rows
    splits: dict[str, Dataset]  # rows to score, by metric prefix
    input_names: tuple[str, ...]  # the student's input tensors
    settings: TaskSettings
    schedule: Schedule  # for what the options leave open
    teacher: TaskTeacher | None = None
    about: dict[str, str] = field(default_factory=dict)  # entries for the record's environment
    given: FinetuneOptions | None = None  # the options before defaults were filled in

    def given_to(self, run: FinetuneOptions) -> FinetuneOptions | None:
        """Return the given options of one run of several."""
        return self.given and replace(self.given, output=run.output, seed=run.seed, seeds=run.seeds)

    def choices(self) -> Iterator[str]:
        """Yield a line for each choice that was left to the command: columns, validation rows, schedule."""
        given, task, rows = self.given, self.task, len(self.rows)
        if task.name == "custom" and not (given and given.text and given.label):
            noun = {"multi-label": "labels", "tokens": "tags"}.get(task.kind, "classes")
            kind = f"{len(task.labels)} {noun}" if task.labels else "a number"
            yield f"text: {', '.join(task.text)}, label: {task.label} ({kind})"
        if task.validation_split:
            held_out = len(self.splits[task.name])
            yield f"validation: {held_out} of {held_out + rows:,} rows are held out (--validation-split)"
        if adapted := self.adapted_settings():
            yield f"adapted to the model and {rows:,} rows: {adapted} (published settings: --recipe bert-glue)"

    def adapted_settings(self) -> str:
        """Spell the settings that were adapted to the model and the rows, "" if all are given or as published."""
        published = Schedule(self.task.lr, self.task.epochs, WARMUP)
        given = {name for name in Schedule._fields if getattr(self.given, name) is not None}
        given |= {"epochs"} if self.given and self.given.steps else set()
        return " ".join(
            f"{flag(name)} {value:g}"
            for name, value in self.schedule._asdict().items()
            if name not in given and value != getattr(published, name)
        )

    def batches(self, options: FinetuneOptions) -> Batches:
        """Return the run's batches; rows of similar length share a batch."""
        own = self.teacher.tokenizer if self.teacher and self.teacher.prefix else None
        collate = encoding.collator(self.tokenizer, own, TEACHER_PREFIX)
        lengths = encoding.lengths(self.rows)
        return Batches(self.rows, collate, batch_size=options.batch_size, seed=options.seed, lengths=lengths)

    def objective(self, student: PreTrainedModel, options: FinetuneOptions) -> TaskLoss:
        """Return the student's loss on labels and, with a teacher, the weighted distillation losses."""
        teacher, weights = self.teacher, layer_weights(options)
        by_class = self.class_weights() if options.class_weights == "balanced" else None
        if teacher is None:
            return TaskLoss(student, self.task.kind, self.input_names, class_weights=by_class)
        return TaskLoss(
            student,
            self.task.kind,
            self.input_names,
            teacher=teacher.model,
            teacher_inputs=teacher.inputs,
            order=teacher.order,
            prefix=teacher.prefix,
            alpha_task=options.alpha_task,
            alpha_ce=options.alpha_ce,
            temperature=options.temperature,
            layer_weights=weights,
            layer_map=map_layers(options.layer_map, student, teacher.model) if weights else (),
            hidden_loss=options.hidden_loss,
            class_weights=by_class,
        )

    def class_weights(self) -> Tensor:
        """Return the weight of each class, (C,), so that all classes count the same: rows / (classes x its rows)."""
        labels = self.rows["labels"][:]
        return torch.tensor(compute_class_weight("balanced", classes=np.unique(labels), y=labels), dtype=torch.float)


def prepare(task: Task, options: FinetuneOptions) -> TrainingInputs:
    """Read and check everything that a run needs, the teacher included, and encode the training rows.

    Raises DistilkitError if something is missing, or if the teacher does not fit the task and the student.
    """
    rows = read_rows(task, options.data, "train")
    if task.name == "custom":
        task = labels.infer_labels(task, rows, str(options.data), options.kind)
        check_labels(rows, task, str(options.data))
        note_numbered(scored_classes(task))
    if options.class_weights == "balanced" and task.kind != "classification":
        raise DistilkitError(f"--class-weights requires one class per row, not {task.kind}: remove it")
    splits = read_validation(task, options.data)
    about = tasks_scored_on_test([task], options.data)  # the hub may be unreachable when the training is over
    about |= fingerprint(task, options.data)
    # Opened here to check its weights before anything long starts. Each seed opens it again, with a head of its own.
    student = open_student(task, options)
    tokenizer = checkpoint.open_tokenizer(options.model, student, needs=["pad"])
    settings = TaskSettings.of(options)
    names = input_names(student)
    teacher = open_task_teacher(options.teacher, task, tokenizer) if options.teacher else None
    if teacher:
        check_layer_losses(student, teacher, options)
    for prefix, scored in splits.items() if task.kind == "tokens" else ():
        length = encoding.window_length(settings, student)
        places = tagging.encode(scored, task, tokenizer, names, length)[tagging.PLACES]
        tagging.warn_if_lost(places, prefix, tagging.SCORED)
    encoded = encode_training_rows(rows, task, tokenizer, student, teacher, settings)
    width = getattr(student.config, "hidden_size", BASE_WIDTH)
    layers = getattr(student.config, "num_hidden_layers", BASE_LAYERS)
    schedule = default_schedule(task, width=width, layers=layers, rows=len(rows))
    return TrainingInputs(task, tokenizer, encoded, splits, names, settings, schedule, teacher, about)


def open_student(task: Task, options: FinetuneOptions) -> PreTrainedModel:
    """Open the checkpoint with a head of the task's size.

    A head that was trained on the same labels is kept, its outputs in the task's order; else it is newly initialised.
    """
    names = task.labels or (("LABEL_0", "LABEL_1") if task.kind == "span" else ("LABEL_0",))
    changes: dict[str, Any] = {
        "id2label": dict(enumerate(names)),
        "label2id": {label: i for i, label in enumerate(names)},
        "problem_type": labels.PROBLEM_TYPES.get(task.kind),
    }
    outputs = labels.find_order(task, checkpoint.open_config(options.model))
    return checkpoint.open_model(options.model, HEADS[task.kind], new_head=True, outputs=outputs, **changes)


def check_layer_losses(student: PreTrainedModel, teacher: TaskTeacher, options: FinetuneOptions) -> None:
    """Raise DistilkitError if --alpha-hidden or --alpha-attention cannot compare student and teacher."""
    weights = layer_weights(options)
    if weights and teacher.prefix:
        raise DistilkitError(
            "--alpha-hidden and --alpha-attention compare token by token, and "
            f"'{options.teacher}' has another tokenizer: remove them"
        )
    if weights:
        LayerMatching(student, teacher.model, weights, map_layers(options.layer_map, student, teacher.model))


def layer_weights(options: FinetuneOptions) -> dict[str, float]:
    """Return the weights of the losses on hidden states and attention, without those that are 0."""
    weights = {"hidden": options.alpha_hidden, "attention": options.alpha_attention}
    return {term: weight for term, weight in weights.items() if weight}


def encode_training_rows(
    rows: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    student: PreTrainedModel,
    teacher: TaskTeacher | None,
    settings: TaskSettings,
) -> Dataset:
    """Tokenise the training rows for the student and the teacher.

    If the teacher has a tokenizer of its own, its columns begin with TEACHER_PREFIX. Otherwise both models share the
    columns, which are the inputs of either.
    """
    names = input_names(student)
    if teacher is None:
        return encode(rows, task, tokenizer, names, settings, student)
    if not teacher.prefix:
        union = tuple(name for name in INPUTS if name in names + teacher.inputs)
        return encode(rows, task, tokenizer, union, settings, student, teacher.model)
    encoded = encode(rows, task, tokenizer, names, settings, student)
    theirs = encode(rows, task, teacher.tokenizer, teacher.inputs, settings, teacher.model)
    theirs = theirs.select_columns([name for name in theirs.column_names if name in (*teacher.inputs, tagging.PLACES)])
    theirs = theirs.rename_columns({name: TEACHER_PREFIX + name for name in theirs.column_names})
    return datasets.concatenate_datasets([encoded, theirs], axis=1)


def encode(
    rows: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    inputs: tuple[str, ...],
    settings: TaskSettings,
    *models: PreTrainedModel,
) -> Dataset:
    """Tokenise training rows, cut to the positions of all models that read them."""
    length = encoding.window_length(settings, *models)
    encoding.warn_if_shortened(settings, length)
    if task.kind == "span":
        encoded = squad.encode(rows, tokenizer, inputs, length, settings.stride, training=True)
    elif task.kind == "tokens":
        encoded = tagging.encode(rows, task, tokenizer, inputs, length)
        tagging.warn_if_lost(encoded[tagging.PLACES], "the training rows", "nothing is learned from them")
    else:
        encoded = encoding.encode(rows, task, tokenizer, inputs, length, settings.long)
    encoding.check_tokens(encoded, tokenizer, "the training rows")
    return encoded
