"""validation_split: the held-out rows are the same each time, share no text with the others, and keep the classes."""

from collections import Counter
from dataclasses import replace

import pytest
from datasets import Dataset

from distilkit.errors import DistilkitError
from distilkit.tasks.catalogue import METRICS, Task
from distilkit.tasks.validation_split import choose, split_rows

TASK = Task("custom", "classification", ("text",), METRICS["classification"], validation_split=0.1)


def rows_of(labels: list[object], texts: list[str] | None = None) -> Dataset:
    return Dataset.from_dict({"text": texts or [f"text {n}" for n in range(len(labels))], "label": labels})


def test_every_class_keeps_its_share() -> None:
    """Of 60, 30 and 10 rows, a tenth each; every row is in one part, and the parts are the same again."""
    rows = rows_of(["a"] * 60 + ["b"] * 30 + ["c"] * 10)
    train, held_out = split_rows(rows, TASK, "f")
    assert Counter(held_out["label"]) == {"a": 6, "b": 3, "c": 1}
    assert sorted([*train["text"], *held_out["text"]]) == sorted(rows["text"])
    assert split_rows(rows, TASK, "f")[1]["text"][:] == held_out["text"][:]


def test_rows_with_the_same_text_stay_together() -> None:
    """Where every text stands four times, a tenth of the texts is held out, each with all its rows."""
    rows = rows_of(["a", "b"] * 50, [f"text {n // 4}" for n in range(100)])
    train, held_out = split_rows(rows, replace(TASK, validation_split=0.2), "f")
    assert (len(train), len(held_out)) == (80, 20)
    assert not set(train["text"]) & set(held_out["text"])
    with pytest.raises(DistilkitError, match="only 1 different texts"):
        split_rows(rows_of(["a", "b"] * 50, ["same"] * 100), TASK, "f")


@pytest.mark.parametrize("labels", [[n / 7 for n in range(50)], [["a"], ["b", "a"]] * 25, ["a"] * 50])
def test_labels_without_classes(labels: list[object]) -> None:
    """Numbers, lists and a single label are split by chance."""
    assert [len(part) for part in split_rows(rows_of(labels), TASK, "f")] == [45, 5]


def test_rare_classes() -> None:
    """A class of one row is trained on; more classes than held-out rows make more of these."""
    assert choose(["a"] * 20 + ["b"], 2) < set(range(20))
    assert len(choose([name for name in "abcdefgh" for _ in range(4)], 3)) == 8


def test_too_few_rows() -> None:
    """One line says so."""
    with pytest.raises(DistilkitError, match="only 4 different texts, too few for --validation-split"):
        split_rows(rows_of(["a", "b", "a", "b"]), TASK, "f")
