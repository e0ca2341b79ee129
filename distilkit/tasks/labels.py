"""Labels: what a task's are called, what each one trains, and which of a model's outputs stands for it."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset, List
from transformers import PretrainedConfig

from distilkit.errors import DistilkitError
from distilkit.tasks.catalogue import METRICS, SCALE, Kind, Task

PROBLEMS: dict[Kind, str] = {  # what a model's config calls them
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}
MANY = 20  # classes, from where on a label a row or two looks like a number or a text


def infer_labels(task: Task, rows: Dataset, source: str, kind: Kind | None = None) -> Task:
    """Return a custom task with its kind, found from the training rows unless given, and the labels found there.

    Lists of names are multi-label, fractions are regression, and all else are classes: numbers in order, or strings in
    order. Labels that stand in a column each keep the columns' order.
    Raises DistilkitError where there is one label only, and where the rows are of another kind.
    """
    values = distinct(rows, task.label)
    kind = kind or find_kind(rows, task.label)
    task = replace(task, kind=kind, metrics=METRICS[kind])
    where = f"--label {task.label}"
    if (kind == "multi-label") != isinstance(rows.features[task.label], List):
        wanted = "lists of names, or a column of 0 and 1 for each label" if kind == "multi-label" else "one value a row"
        raise DistilkitError(f"{where} does not fit --kind {kind} in '{source}': it needs {wanted}")
    numbers = all(isinstance(value, (int, float)) for value in values)
    names = list(dict.fromkeys(map(_spell, sorted(values) if numbers else sorted(values, key=str))))
    if len(names) < 2:
        held = repr(next(iter(values))) if values else "nothing"
        raise DistilkitError(f"{where} has the one value {held} in '{source}': give two or more")
    if kind == "regression":
        return task
    if any(isinstance(value, float) and not value.is_integer() for value in values):
        raise DistilkitError(f"{where} holds fractions in '{source}': give --kind regression")
    columns = task.label.split(",")
    if len(columns) > 1 and set(columns) <= set(rows.column_names):
        return replace(task, labels=tuple(columns))
    return replace(task, labels=tuple(names))


def find_kind(rows: Dataset, label: str) -> Kind:
    """Return what a label column says: a class, several classes, or a number."""
    if isinstance(rows.features[label], List):
        return "multi-label"
    values = distinct(rows, label)
    words = {value for value in values if isinstance(value, str) and _fraction(value) is None}
    if words and any(_fraction(value) for value in values):
        raise DistilkitError(
            f"--label {label} holds numbers, but {min(words)!r} too: mend that row, or give --kind classification"
        )
    if any(isinstance(value, float) and _fraction(value) for value in values):
        return "regression"
    if len(values) > max(MANY, len(rows) / 2):
        raise DistilkitError(
            f"--label {label} has {len(values)} different values in {len(rows)} rows: "
            "give --kind regression where they are numbers, --kind classification where they are classes"
        )
    return "classification"


def _fraction(value: Any) -> bool | None:
    """Say whether a number, which may be spelled as text, is a fraction; None where it is no number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return not number.is_integer() if math.isfinite(number) else None


def distinct(rows: Dataset, label: str) -> set[Any]:
    """Return the different values of a label column, or of its lists."""
    if isinstance(rows.features[label], List):
        return {entry for entries in rows[label] for entry in entries}
    return set(rows.unique(label))


def _spell(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def label_to_target(task: Task, value: Any) -> int | float | list[float] | None:
    """Return what a label trains: its place among the task's labels, or its number; None where it is neither.

    A list of labels becomes a 1.0 at each one's place and a 0.0 at the others'.
    """
    if task.kind == "multi-label":
        places = {_place(task, entry) for entry in value}
        return None if None in places else [float(place in places) for place in range(len(task.labels))]
    if task.kind == "regression":
        return _number(task, value)
    return _place(task, value)


def _number(task: Task, value: Any) -> float | None:
    low, high = SCALE.get(task.name, (-math.inf, math.inf))
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and low <= number <= high else None


def _place(task: Task, value: Any) -> int | None:
    """Return a label's place. A custom task's labels go by name; another's may be a name or, as on the hub, a place."""
    name = _spell(value)
    if name in task.labels:
        return task.labels.index(name)
    return int(name) if task.name != "custom" and name.isdecimal() and int(name) < len(task.labels) else None


def allowed(task: Task) -> str:
    """Spell what a task's labels may be."""
    if task.kind != "regression":
        return ", ".join(task.labels)
    return "{:g} to {:g}".format(*SCALE[task.name]) if task.name in SCALE else "numbers"


def labels_from_model(task: Task, config: PretrainedConfig, kind: Kind | None = None) -> Task:
    """Return a custom task with the labels that a trained model's config names, and the kind, unless it is given."""
    kinds: dict[str | None, Kind] = {problem: kind for kind, problem in PROBLEMS.items()}
    names = output_names(config)
    if all(re.fullmatch(r"LABEL_\d+", name) for name in names):  # which says nothing: rows have numbers then
        names = tuple(name.removeprefix("LABEL_") for name in names)
    problem = getattr(config, "problem_type", None)
    kind = kind or (kinds[problem] if problem else "classification" if len(names) > 1 else "regression")
    return replace(task, kind=kind, metrics=METRICS[kind], labels=() if kind == "regression" else names)


def label_order(task: Task, config: PretrainedConfig, name: str) -> list[int]:
    """Return which of a model's outputs stands for each of the task's labels, matched by name.

    Names that say nothing (LABEL_0, 0) count as being in the task's order.
    Raises DistilkitError where the model has other labels, or was trained to choose one where there may be several.
    """
    if task.kind == "span":
        return []
    problem = getattr(config, "problem_type", None)
    if problem and problem != PROBLEMS[task.kind]:
        raise DistilkitError(
            f"'{name}' was trained for {problem.replace('_', ' ')}, but {task.name} is {task.kind}: give another model"
        )
    theirs, mine = output_names(config), task.labels or ("LABEL_0",)
    order = match_names(theirs, mine)
    if order is None and len(theirs) == len(mine) and (are_generic_names(theirs) or task.kind == "regression"):
        order = list(range(len(mine)))
    if order is None:
        has = ", ".join(task.labels) or "one number"
        raise DistilkitError(
            f"'{name}' predicts {', '.join(theirs)}, but {task.name} has {has}: give a model trained on {task.name}"
        )
    return order


def match_names(names: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return where each of the wanted labels is among names, None where they are others.

    By their exact spelling, or else by their letters alone ("Not spam" is "not_spam").
    """
    plain = [_plain(name) for name in names], [_plain(name) for name in wanted]
    for have, want in ((list(names), list(wanted)), plain):  # by letters alone, "+" and "-" would be the same
        if len(set(have)) == len(have) and sorted(have) == sorted(want):
            return [have.index(name) for name in want]
    return None


def are_generic_names(names: Iterable[str]) -> bool:
    """Say whether labels are mere numbers, as transformers calls what nobody named."""
    return all(re.fullmatch(r"(label_)?\d+", _plain(name)) for name in names)


def output_names(config: PretrainedConfig) -> tuple[str, ...]:
    """Return the labels of a model's outputs, in their order."""
    names = {int(place): str(label) for place, label in (config.id2label or {}).items()}
    return tuple(names[place] for place in sorted(names))


def _plain(label: str) -> str:
    return re.sub(r"\W+", "_", label.strip().lower())


def match_label_order(student: PretrainedConfig, teacher: PretrainedConfig, name: str) -> list[int]:
    """Return which of the teacher's outputs stands for each of the student's, by their names.

    Names that say nothing (LABEL_0, 0) count as being in the other's order.
    Raises DistilkitError where the teacher, called `name`, has other labels.
    """
    ours, theirs = output_names(student), output_names(teacher)
    order = match_names(theirs, ours)
    silent = are_generic_names(ours) or are_generic_names(theirs) or len(ours) == 1
    if order is None and len(ours) == len(theirs) and silent:
        order = list(range(len(ours)))
    if order is None:
        raise DistilkitError(
            f"'{name}' predicts {', '.join(theirs)}, but the student {', '.join(ours)}: "
            "name a teacher of the same task with --against"
        )
    return order
