"""class_scores: which metrics are of a class, and the tables that they make."""

import pytest

from distilkit.class_scores import ClassScore, class_tables


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("custom/f1/billing", ClassScore("", "custom", "f1", "billing")),
        ("1/custom/recall/a b", ClassScore("1", "custom", "recall", "a b")),
        ("teacher/custom/confusion/a/b", ClassScore("teacher", "custom", "confusion", "a", "b")),
        ("custom/f1/a/count", ClassScore("", "custom", "f1", "a", "count")),
        ("custom/f1", None),
        ("custom/f1/min", None),
        ("mrpc/accuracy", None),
        ("retention/custom/f1_macro", None),
    ],
)
def test_names(name: str, found: ClassScore | None) -> None:
    """The range of a headline over seeds is no class."""
    assert ClassScore.parse(name) == found


def test_tables() -> None:
    """Scores by class and the confusion matrix of each model; ranges over seeds are left out."""
    metrics = {
        "0/custom/f1/a": 0.5,
        "0/custom/f1/a/count": 2.0,
        "0/custom/f1/a/min": 0.1,
        "0/custom/confusion/a/b": 1.0,
    }
    (key, table), *others = class_tables(metrics).items()
    assert (key, others) == ("0/custom", [])
    assert (table.scores, table.confusion) == ({"a": {"f1": 0.5, "count": 2.0}}, {"a": {"b": 1.0}})
