"""Recognise a model that has learned nothing: it always gives the same answer, or does no better than that."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from datasets import Dataset

from distilkit.evaluation import metrics
from distilkit.record import FAILURES, NO_BETTER, MetricName
from distilkit.tasks.catalogue import Task
from distilkit.tasks.labels import label_to_target, marks_entities


def failure_of(names: Iterable[str]) -> str:
    """Return the metric in `names` that marks a model that learned nothing, "" if there is none."""
    return next((metric for metric in (MetricName.parse(name).metric for name in names) if metric in FAILURES), "")


def mark_failure(task: Task, rows: Dataset, scores: Mapping[str, float]) -> dict[str, float]:
    """Return the metric that marks a model no better than a constant prediction on `rows`; {} for a better model.

    If all rows have the same label, a constant prediction is perfect, so no model is marked.
    """
    headline = f"{task.name}/{task.metrics[0]}"
    if failure_of(scores) or task.kind == "span":
        return {}
    constant = constant_score(task, rows[task.label][:])
    return {f"{task.name}/{NO_BETTER}": 1.0} if scores[headline] <= constant < 1 else {}


def constant_score(task: Task, labels: Iterable[Any]) -> float:
    """Return the headline score of predicting the most frequent label (of a multi-label task: set) for every row."""
    if task.kind == "regression" or (task.kind == "tokens" and marks_entities(task.labels)):
        return 0.0  # the correlation of a constant, or the F1 of a tagger that finds no entity
    if task.kind == "tokens":
        labels = chain.from_iterable(labels)
        task = replace(task, kind="classification")
    targets = [label_to_target(task, label) for label in labels]
    keys = [tuple(target) if isinstance(target, list) else target for target in targets]
    answer = targets[keys.index(Counter(keys).most_common(1)[0][0])]
    return metrics.compute(task.metrics[0], [answer] * len(targets), targets)[task.metrics[0]]
