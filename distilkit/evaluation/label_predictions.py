"""Predicted labels of rows: their scores, and how they are written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilkit.evaluation import metrics
from distilkit.files import write_text
from distilkit.record import COLLAPSED
from distilkit.tasks.catalogue import Task


@dataclass(frozen=True)
class LabelPredictions:
    """A model's predictions for rows and the rows' labels, in order: classes or numbers (N,), or 0 and 1 (N, C)."""

    task: Task
    predicted: np.ndarray
    labels: np.ndarray | None = None  # None for rows without labels
    probabilities: np.ndarray | None = None  # (N, C); None for numbers

    def score(self) -> dict[str, float]:
        """Return the task's metrics, those of each class of a custom task, and any mark of collapsed() predictions."""
        assert self.labels is not None
        fails = not self.task.zero_shot and collapsed(self.predicted, self.labels)  # cosines and labels differ in scale
        values = {COLLAPSED: 1.0} if fails else {}
        for metric in self.task.metrics:
            values |= metrics.compute(metric, self.predicted.tolist(), self.labels.tolist())
        if self.task.name == "custom" and self.task.labels:
            values |= metrics.by_class(self.predicted, self.labels, self.task.labels)
        return values

    def row(self, number: int) -> dict[str, Any]:
        """Return a row's predicted label or labels, the probability of a predicted class, and that of every label."""
        predicted = self.predicted[number]
        if self.probabilities is None:
            return {"prediction": float(predicted)}
        chances = [round(float(chance), 6) for chance in self.probabilities[number]]
        each = {"probabilities": dict(zip(self.task.labels, chances, strict=True))}
        if self.task.kind == "multi-label":
            return {"prediction": [self.task.labels[n] for n in np.flatnonzero(predicted)], **each}
        return {"prediction": self.task.labels[predicted], "probability": chances[predicted], **each}

    def write(self, directory: Path, name: str, numbers: Sequence[int]) -> None:
        """Write NAME.tsv in the format of GLUE's leaderboard: one line per row with its number and prediction."""
        rows = zip(numbers, self.predicted, strict=True)
        lines = [f"{number}\t{_format_prediction(self.task, value)}\n" for number, value in rows]
        write_text(directory / f"{name}.tsv", "".join(["index\tprediction\n", *lines]))


def collapsed(predicted: np.ndarray, labels: np.ndarray) -> bool:
    """Return whether predictions (N,) or (N, C) are the same for every row although the labels are not.

    Numbers count as the same if their standard deviation is below 1 % of that of the labels.
    """
    spread, label_spread = (values.astype(float).std(axis=0).max() for values in (predicted, labels))
    return bool(label_spread > 0 and spread < 0.01 * label_spread)


def _format_prediction(task: Task, value: Any) -> str:
    """Format a prediction as GLUE's leaderboard does; for a custom task and IMDb write label names."""
    if task.kind == "regression":
        if task.scale is None:
            return f"{value:.9g}"  # all digits of fp32
        low, high = task.scale
        return f"{min(max(float(value), low), high):.3f}"
    if task.kind == "multi-label":
        return ",".join(label for label, flag in zip(task.labels, value, strict=True) if flag)
    return task.labels[value] if task.leaderboard_names or not task.tests else str(int(value))
