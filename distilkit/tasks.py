"""Task rows (nine GLUE tasks, SQuAD 1.1 and 2.0, IMDb, your own), and how a task's rows become batches."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distilkit import checkpoint
from distilkit.config import TaskConfig
from distilkit.errors import DistilkitError

Kind = Literal["classification", "regression", "span"]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TARGETS = ("labels", "start_positions", "end_positions")


@dataclass(frozen=True)
class Task:
    """A benchmark as a row: where its data are, which columns matter, what is predicted and how it is scored."""

    name: str
    kind: Kind
    text: tuple[str, ...]
    metrics: tuple[str, ...]  # the first is the headline
    labels: tuple[str, ...] = ()
    label: str = "label"
    dataset: str = ""  # on the hub; none for a custom task
    subset: str | None = None
    splits: tuple[tuple[str, str], ...] = ()  # (metric prefix, split); the task's own first
    fallback: str = ""  # the split to score where there is no validation split
    max_length: int = 128


def _glue(name: str, text: str, metrics: str, labels: str, kind: Kind = "classification", **more: Any) -> Task:
    words = tuple(text.split()), tuple(metrics.split()), tuple(labels.split())
    more = {"dataset": "nyu-mll/glue", "subset": name, "splits": ((name, "validation"),)} | more
    return Task(name, kind, *words, **more)


MNLI_SPLITS = (("mnli", "validation_matched"), ("mnli_mismatched", "validation_mismatched"))
GLUE = (
    _glue("cola", "sentence", "matthews_correlation", "unacceptable acceptable"),
    _glue("sst2", "sentence", "accuracy", "negative positive"),
    _glue("mrpc", "sentence1 sentence2", "f1 accuracy", "not_equivalent equivalent"),
    _glue("qqp", "question1 question2", "f1 accuracy", "not_duplicate duplicate"),
    _glue("stsb", "sentence1 sentence2", "pearson spearmanr", "", "regression"),
    _glue("mnli", "premise hypothesis", "accuracy", "entailment neutral contradiction", splits=MNLI_SPLITS),
    _glue("qnli", "question sentence", "accuracy", "entailment not_entailment"),
    _glue("rte", "sentence1 sentence2", "accuracy", "entailment not_entailment"),
    _glue("wnli", "sentence1 sentence2", "accuracy", "not_entailment entailment"),
)
TASKS = {task.name: task for task in GLUE} | {
    name: Task(
        name,
        "span",
        ("question", "context"),
        ("f1", "exact_match"),
        label="answers",
        dataset=f"rajpurkar/{name}",
        splits=((name, "validation"),),
        max_length=384,
    )
    for name in ("squad", "squad_v2")
}
TASKS["imdb"] = Task(
    "imdb",
    "classification",
    ("text",),
    ("accuracy",),
    ("neg", "pos"),
    dataset="stanfordnlp/imdb",
    splits=(("imdb", "validation"),),
    fallback="test",
    max_length=512,
)
SCALE = (0.0, 5.0)  # of STS-B, the one regression task


def resolve(config: TaskConfig) -> list[Task]:
    """Return the tasks that --task names: one, nine for `glue`, or a custom one made of --text and --label.

    A custom task has no labels yet: they come from the training rows (learn_labels) or from the model.
    Raises DistilkitError for an unknown name, and where --text, --label and --data do not go with it.
    """
    if config.task is None:
        raise DistilkitError("no task: name one with --task")
    if config.task == "custom":
        if not config.text or len(config.text) > 2 or not config.label or config.data is None:
            raise DistilkitError("--task custom needs --data, --label and one or two --text columns: give all three")
        splits = (("custom", "validation"),)
        return [
            Task("custom", "classification", config.text, ("accuracy", "f1_macro"), (), config.label, splits=splits)
        ]
    if config.text or config.label:
        raise DistilkitError(f"--text and --label are for --task custom, not for {config.task}: leave them out")
    if config.task == "glue":
        return list(GLUE)
    if config.task not in TASKS:
        names = (*TASKS, "glue", "custom")
        near = difflib.get_close_matches(config.task, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}"
        raise DistilkitError(f"no task '{config.task}': {hint}")
    return [TASKS[config.task]]


def learn_labels(task: Task, rows: Dataset, source: str) -> Task:
    """Return a custom task with the labels of its training rows: numbers in order, or strings in order.

    Raises DistilkitError where there is one label only, or where they are fractions.
    """
    values = rows.unique(task.label)
    if any(isinstance(value, float) and not value.is_integer() for value in values):
        raise DistilkitError(f"--label {task.label} holds fractions in '{source}': a custom task needs classes")
    if len(values) < 2:
        raise DistilkitError(f"--label {task.label} has the one value {values[0]!r} in '{source}': give two or more")
    numbers = all(isinstance(value, (int, float)) for value in values)
    return replace(task, labels=tuple(map(_spell, sorted(values) if numbers else sorted(values, key=str))))


def _spell(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def target(task: Task, value: Any) -> int | float | None:
    """Return what a label trains: its place among the task's labels, or its number; None where it is neither.

    A custom task's labels go by name. Another's may be a name or, as on the hub, a place.
    """
    try:
        if task.kind == "regression":
            return float(value) if SCALE[0] <= float(value) <= SCALE[1] else None
        name = _spell(value)
        if name in task.labels:
            return task.labels.index(name)
        return int(name) if task.name != "custom" and 0 <= int(name) < len(task.labels) else None
    except ValueError:
        return None


def label_order(task: Task, config: PretrainedConfig, name: str) -> list[int]:
    """Return which of a model's outputs stands for each of the task's labels, matched by name.

    Names that say nothing (LABEL_0, 0) count as being in the task's order.
    Raises DistilkitError where the model has other labels.
    """
    if task.kind == "span":
        return []
    width = 1 if task.kind == "regression" else len(task.labels)
    theirs = [_plain(label) for label in output_names(config)]
    mine = [_plain(label) for label in task.labels] or ["label_0"]
    if len(theirs) == width and sorted(theirs) == sorted(mine):
        return [theirs.index(label) for label in mine]
    silent = all(re.fullmatch(r"(label_)?\d+", label) for label in theirs)
    if len(theirs) == width and (silent or task.kind == "regression"):
        return list(range(width))
    has = ", ".join(task.labels) or "one number"
    raise DistilkitError(
        f"'{name}' predicts {', '.join(theirs)}, but {task.name} has {has}: give a model trained on {task.name}"
    )


def output_names(config: PretrainedConfig) -> tuple[str, ...]:
    """Return the labels of a model's outputs, in their order."""
    names = {int(place): str(label) for place, label in (config.id2label or {}).items()}
    return tuple(names[place] for place in sorted(names))


def _plain(label: Any) -> str:
    return re.sub(r"\W+", "_", str(label).strip().lower())


def input_names(model: PreTrainedModel) -> tuple[str, ...]:
    """List the tensors that a model takes: token_type_ids only where it tells two segments apart.

    The model is asked, not the tokenizer: since transformers 5 one of no class of its own names no token_type_ids.
    """
    takes = set(inspect.signature(model.forward).parameters)
    if getattr(model.config, "type_vocab_size", None) in (None, 0, 1):
        takes -= {"token_type_ids"}
    return tuple(name for name in INPUTS if name in takes)


def window_length(task: Task, config: TaskConfig, *models: PreTrainedModel) -> int:
    """Return the tokens per example: --max-length or the task's, no more than every model has positions for."""
    limits = [limit for limit in map(checkpoint.max_tokens, models) if limit is not None]
    return min([config.max_length or task.max_length, *limits])


def encode(
    rows: Dataset, task: Task, tokenizer: PreTrainedTokenizerBase, inputs: Sequence[str], max_length: int
) -> Dataset:
    """Tokenise labelled rows of a classification or regression task: `inputs` and `labels`, nothing padded."""
    segments = {"return_token_type_ids": "token_type_ids" in inputs, "return_attention_mask": True}

    def tokenise(batch: dict[str, list[Any]]) -> dict[str, Any]:
        texts = [list(map(str, batch[column])) for column in task.text]
        encoded = tokenizer(*texts, truncation=True, max_length=max_length, **segments)
        return {**encoded, "labels": [target(task, value) for value in batch[task.label]]}

    return rows.map(tokenise, batched=True, remove_columns=rows.column_names)


def collator(tokenizer: PreTrainedTokenizerBase) -> Callable[..., dict[str, Tensor]]:
    """Return the collate function that pads encoded rows to the longest and stacks their targets."""

    def collate(rows: list[dict[str, Any]], _: Any = None) -> dict[str, Tensor]:
        inputs = [_only(row, INPUTS) for row in rows]
        # the positions of answers are counted from the left, so padding must be on the right
        batch = tokenizer.pad(inputs, padding_side="right", return_tensors="pt")
        targets = {name: torch.tensor([row[name] for row in rows]) for name in _only(rows[0], TARGETS)}
        return {**batch, **targets}

    return collate


def _only(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}
