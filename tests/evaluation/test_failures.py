"""Models that learned nothing are recognised by their scores."""

from dataclasses import replace
from typing import Any

import pytest
from datasets import Dataset

from distilkit.evaluation.failures import constant_score, failure_of, mark_failure
from distilkit.record import COLLAPSED, NO_BETTER
from distilkit.tasks.catalogue import METRICS, TASKS, Task

SST2 = TASKS["sst2"]
TOPICS = replace(SST2, name="custom", kind="multi-label", labels=("a", "b"), metrics=METRICS["multi-label"])


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        (SST2, [1, 1, 1, 0], 0.75),
        (TASKS["mrpc"], [1, 1, 0], 0.8),  # precision 2/3 and recall 1
        (TASKS["cola"], [1, 1, 0], 0.0),
        (TASKS["stsb"], [1.0, 2.0, 5.0], 0.0),
        (TOPICS, [["a"], ["a"], ["a", "b"]], 6 / 7),  # 3 of 3 given labels are right, of 4 labels
    ],
)
def test_constant_score(task: Task, labels: list[Any], expected: float) -> None:
    """The most frequent label, or set of labels, is predicted for every row."""
    assert constant_score(task, labels) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ({"sst2/accuracy": 0.75}, [1, 1, 1, 0], {f"sst2/{NO_BETTER}": 1.0}),
        ({"sst2/accuracy": 0.8}, [1, 1, 1, 0], {}),
        ({"sst2/accuracy": 0.75, f"sst2/{COLLAPSED}": 1.0}, [1, 1, 1, 0], {}),  # one mark is enough
        ({"sst2/accuracy": 1.0}, [1, 1], {}),  # nothing to tell apart
    ],
)
def test_mark_failure(scores: dict[str, float], labels: list[int], expected: dict[str, float]) -> None:
    """A score that a constant answer reaches too is marked, once."""
    assert mark_failure(SST2, Dataset.from_dict({"label": labels}), scores) == expected
    assert failure_of(scores | expected) == (NO_BETTER if expected else COLLAPSED if len(scores) > 1 else "")
