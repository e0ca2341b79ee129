"""Labels: their names, their training targets, and the model output of each label."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset, List
from transformers import PretrainedConfig

from distilkit.errors import DistilkitError
from distilkit.tasks.catalogue import METRICS, WORD_METRICS, Kind, Task, headline_first
from distilkit.tasks.columns import LARGEST, label_name, to_number

PROBLEM_TYPES: dict[Kind, str] = {  # values of problem_type in a model's config
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}
OUTSIDE = "O"  # the tag of a word outside all entities
ENTITY_TAG = re.compile(r"[BIES]-.")
MANY_CLASSES = 20  # with more, and on average under two rows a class, labels may be numbers or free text


def infer_labels(task: Task, rows: Dataset, source: str, kind: Kind | None = None) -> Task:
    """Return a custom task with its labels and, unless `kind` is given, its kind, both inferred from training rows.

    Lists of names are multi-label, fractional numbers are regression, everything else is classification. Labels are
    sorted, numbers by value. If each label has its own column, labels keep the order of the columns.
    Raises DistilkitError if there are fewer than two labels, or if the rows do not fit the kind.
    """
    values = distinct_values(rows, task.label)
    kind = kind or infer_kind(rows, task.label)
    task = replace(task, kind=kind, metrics=METRICS[kind])
    option = f"--label {task.label}"
    if (kind in ("multi-label", "tokens")) != isinstance(rows.features[task.label], List):
        expected = "lists of names, or a 0/1 column for each label" if kind == "multi-label" else "one value per row"
        raise DistilkitError(f"{option} does not fit --kind {kind} in '{source}': it requires {expected}")
    flags = [name for name in rows.column_names if name not in (*task.text, task.label)]  # a column for each label
    names = flags or _sorted_names({label_name(value) for value in values})
    if len(names) < 2:
        found = f"only one value, {next(iter(values))!r}," if values else "no value"
        raise DistilkitError(f"{option} has {found} in '{source}': at least two are needed")
    if kind == "regression":
        return headline_first(task, task.headline)
    if any(isinstance(value, float) and not value.is_integer() for value in values):
        raise DistilkitError(f"{option} holds fractional numbers in '{source}': use --kind regression")
    return _with_labels(task, names)


def _with_labels(task: Task, names: Iterable[str]) -> Task:
    """Return a task with its labels; tags that mark no entities, such as parts of speech, have the metrics of words."""
    task = replace(task, labels=tuple(names))
    if task.kind == "tokens" and not marks_entities(task.labels):
        task = replace(task, metrics=WORD_METRICS)
    return headline_first(task, task.headline)


def marks_entities(labels: Iterable[str]) -> bool:
    """Return whether tags mark the beginning, inside, end or all of an entity, like B-PER, or the outside, O."""
    return all(label == OUTSIDE or ENTITY_TAG.match(label) for label in labels)


def _sorted_names(names: set[str]) -> list[str]:
    if all(_is_fractional(name) is not None for name in names):
        return sorted(names, key=lambda name: (float(name), name))
    return sorted(names)


def infer_kind(rows: Dataset, label: str) -> Kind:
    """Infer the kind of a label column from its values.

    Raises DistilkitError if the values are ambiguous: numbers mixed with words, or too many values for classes.
    """
    if isinstance(rows.features[label], List):
        return "multi-label"
    values = distinct_values(rows, label)
    words = {value for value in values if isinstance(value, str) and _is_fractional(value) is None}
    if words and any(_is_fractional(value) for value in values):
        raise DistilkitError(
            f"--label {label} holds numbers and also {min(words)!r}: fix that row, or use --kind classification"
        )
    if any(_is_fractional(value) for value in values):
        return "regression"
    if len(values) > max(MANY_CLASSES, len(rows) / 2):
        raise DistilkitError(
            f"--label {label} has {len(values)} different values in {len(rows)} rows: "
            "use --kind regression for numbers, or --kind classification for classes"
        )
    return "classification"


def _is_fractional(value: Any) -> bool | None:
    """Return whether a number, possibly written as text, has a fractional part; None if it is not a finite number."""
    number = to_number(value)
    return None if number is None else not number.is_integer()


def distinct_values(rows: Dataset, label: str) -> set[Any]:
    """Return the distinct values of a label column, or of the lists in it."""
    if isinstance(rows.features[label], List):
        return {entry for entries in rows[label] for entry in entries}
    return set(rows.unique(label))


def label_to_target(task: Task, value: Any) -> int | float | Sequence[float] | None:
    """Return the training target of a label: the id of a class, or a number; None if the task has no such label.

    A list of labels becomes a multi-hot list: 1.0 for each label in it, 0.0 for the others. A list of tags becomes a
    list of ids.
    """
    if task.kind == "tokens":
        tags = [label_id(task, entry) for entry in value]
        return None if None in tags else [tag for tag in tags if tag is not None]
    if task.kind == "multi-label":
        ids = {label_id(task, entry) for entry in value}
        return None if None in ids else [float(number in ids) for number in range(len(task.labels))]
    if task.kind == "regression":
        return _regression_target(task, value)
    return label_id(task, value)


def _regression_target(task: Task, value: Any) -> float | None:
    low, high = task.scale or (-LARGEST, LARGEST)
    number = to_number(value)
    return number if number is not None and low <= number <= high else None


def label_id(task: Task, value: Any) -> int | None:
    """Return the id of a label, given by name. Tasks with a fixed list of labels also take ids, as the hub has them."""
    name = label_name(value)
    whole = re.sub(r"\.0+$", "", name)  # 1.0 in a csv file stands for the class 1
    for known in (name, whole):
        if known in task.labels:
            return task.labels.index(known)
    name = whole
    return int(name) if task.name != "custom" and name.isdecimal() and int(name) < len(task.labels) else None


def describe_labels(task: Task) -> str:
    """List the labels of a task, or give the range of its numbers."""
    if task.kind != "regression":
        return ", ".join(task.labels)
    return "{:g} to {:g}".format(*task.scale) if task.scale else f"numbers up to {LARGEST:g}"


def labels_from_model(task: Task, config: PretrainedConfig, kind: Kind | None = None) -> Task:
    """Return a custom task with the labels and, unless `kind` is given, the kind from a fine-tuned model's config."""
    names = output_names(config)
    if all(re.fullmatch(r"LABEL_\d+", name) for name in names):  # transformers' default names: rows have numbers
        names = tuple(name.removeprefix("LABEL_") for name in names)
    kind = kind or output_kind(config)
    return _with_labels(replace(task, kind=kind, metrics=METRICS[kind]), () if kind == "regression" else names)


def output_kind(config: PretrainedConfig) -> Kind:
    """Return the kind of task that a classifier or tagger was trained for, by its config.

    Raises DistilkitError if its problem_type is none of transformers'.
    """
    if "TokenClassification" in "".join(getattr(config, "architectures", None) or ()):
        return "tokens"
    if kind := _recorded_kind(config):
        return kind
    return "classification" if len(output_names(config)) > 1 else "regression"


def _recorded_kind(config: PretrainedConfig) -> Kind | None:
    """Return the kind of task that problem_type in a config names, None without one."""
    problem_type = getattr(config, "problem_type", None)
    for kind, name in PROBLEM_TYPES.items():
        if name == problem_type:
            return kind
    if not problem_type:
        return None
    place = f"'{path}/config.json'" if (path := getattr(config, "name_or_path", "")) else "config.json"
    raise DistilkitError(
        f"{place} has problem_type {problem_type!r}: write one of {', '.join(PROBLEM_TYPES.values())}, or remove it"
    )


def label_order(task: Task, config: PretrainedConfig, name: str) -> list[int]:
    """Return the index of the model output for each of the task's labels, matched by name.

    Generic names (LABEL_0, 0) are taken to be in the task's order. `name` is the model's, for errors.
    Raises DistilkitError if the model has other labels, or was trained for another kind of task.
    """
    if not _fits_kind(task, config):
        raise DistilkitError(
            f"'{name}' was trained for {_recorded_kind(config)}, but {task.title} is {task.kind}: choose another model"
        )
    order = find_order(task, config)
    if order is None:
        expected = ", ".join(task.labels) or "one number"
        raise DistilkitError(
            f"'{name}' predicts {', '.join(output_names(config))}, but {task.title} has {expected}: "
            f"choose a model trained on {task.title}"
        )
    return order


def find_order(task: Task, config: PretrainedConfig) -> list[int] | None:
    """Return the index of the model output for each of the task's labels, None if the model has other outputs.

    The order is empty for spans, whose two outputs have no names.
    """
    if task.kind == "span":
        return []
    outputs, labels = output_names(config), task.labels or ("LABEL_0",)
    order = match_names(outputs, labels)
    if order is None and len(outputs) == len(labels) and (are_generic_names(outputs) or task.kind == "regression"):
        order = list(range(len(labels)))
    return order if _fits_kind(task, config) else None


def _fits_kind(task: Task, config: PretrainedConfig) -> bool:
    problem_type = getattr(config, "problem_type", None)
    return task.kind == "span" or not problem_type or problem_type == PROBLEM_TYPES.get(task.kind)


def match_names(names: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return the index of each of `wanted` in `names`; None if they are not the same names.

    Names match exactly, or else without regard to case and punctuation ("Not spam" and "not_spam").
    """
    normalised = [_normalise(name) for name in names], [_normalise(name) for name in wanted]
    for have, want in ((list(names), list(wanted)), normalised):  # exact first: normalising makes "+" and "-" equal
        if len(set(have)) == len(have) and sorted(have) == sorted(want):
            return [have.index(name) for name in want]
    return None


def are_generic_names(names: Iterable[str]) -> bool:
    """Return whether all names are numbers or transformers' default, LABEL_0."""
    return all(re.fullmatch(r"(label_)?\d+", _normalise(name)) for name in names)


def output_names(config: PretrainedConfig) -> tuple[str, ...]:
    """Return the label names of a model's outputs, in the order of the outputs."""
    names = {int(number): str(label) for number, label in (config.id2label or {}).items()}
    return tuple(names[number] for number in sorted(names))


def _normalise(label: str) -> str:
    return re.sub(r"\W+", "_", label.strip().lower())


def match_label_order(student: PretrainedConfig, teacher: PretrainedConfig, name: str) -> list[int]:
    """Return the index of the teacher output for each student output, matched by name.

    Generic names (LABEL_0, 0) are taken to be in the other model's order. `name` is the teacher's, for errors.
    Raises DistilkitError if the teacher has other labels.
    """
    student_names, teacher_names = output_names(student), output_names(teacher)
    order = match_names(teacher_names, student_names)
    unnamed = are_generic_names(student_names) or are_generic_names(teacher_names) or len(student_names) == 1
    if order is None and len(student_names) == len(teacher_names) and unnamed:
        order = list(range(len(student_names)))
    if order is None:
        raise DistilkitError(
            f"'{name}' predicts {', '.join(teacher_names)}, but the student predicts {', '.join(student_names)}: "
            "give a teacher of the same task (distill: --teacher; eval: --against)"
        )
    return order
