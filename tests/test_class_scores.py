"""class_scores: which metrics are of a class, and the tables that they make."""

import pytest

from distilkit.class_scores import ClassScore, class_tables, names_of_labels, note_numbered
from distilkit.progress import level


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


@pytest.mark.parametrize(
    ("labels", "names", "noted"),
    [
        (["a", "b c", "x/y"], ["a", "b c", "x_y"], ""),
        (["<=50K", ">50K"], ["_50K", "_50K-2"], "'>50K' is _50K-2: the name without a number is taken\n"),
        ([">50K", "<=50K"], ["_50K-2", "_50K"], "'>50K' is _50K-2:"),
        (["a/b", "a_b", "a=b", "a_b-2"], ["a_b-3", "a_b", "a_b-4", "a_b-2"], "'a/b' is a_b-3, 'a=b' is a_b-4:"),
        (
            ["max", "mean", "min"],
            ["max-2", "mean", "min-2"],
            "'max' is max-2, 'min' is min-2: min and max end the names of ranges over seeds\n",
        ),
        (
            ["min", "a/b", "a_b"],
            ["min-2", "a_b-2", "a_b"],
            "is taken; min and max end the names of ranges over seeds\n",
        ),
        (["x", "x"], ["x", "x-2"], "'x' is x-2:"),
    ],
)
def test_every_label_has_a_name_of_its_own(
    labels: list[str], names: list[str], noted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In any order of the labels; a label that can be a name keeps it. A note, once, names those with a number."""
    assert names_of_labels(labels) == names
    with level(quiet=False):
        note_numbered(labels)
        note_numbered(labels)
    written = capsys.readouterr().err
    assert written.count("in the names of metrics") == bool(noted)
    assert noted in written
