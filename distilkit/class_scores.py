"""The scores of each class among a record's metrics: precision, recall, F1, rows, and the confusion matrix."""

import re
from collections.abc import Mapping
from typing import NamedTuple

NAME = re.compile(
    r"(?:(?P<model>\d+|teacher|control(?:-\d+)?|baseline)/)?(?P<task>\w+)/"
    r"(?P<metric>precision|recall|f1|confusion)/(?P<label>[^/]+)(?:/(?P<detail>[^/]+))?(?:/(?:min|max))?"
)
ENDS = ("min", "max")  # of a range over seeds
SHOWN_CONFUSIONS = 20  # classes; a larger matrix does not fit a terminal


class ClassScore(NamedTuple):
    """The name of a class's score, such as custom/f1/billing, custom/f1/billing/count or custom/confusion/a/b.

    `confusion` is the number of rows of class `label` that are predicted as `detail`.
    """

    model: str
    task: str
    metric: str
    label: str
    detail: str = ""

    @classmethod
    def parse(cls, name: str) -> "ClassScore | None":
        """Parse the name of a metric; return None if the metric is not about a single class."""
        match = NAME.fullmatch(name)
        if match is None or match["label"] in ENDS:
            return None
        return cls(match["model"] or "", match["task"], match["metric"], match["label"], match["detail"] or "")


class ClassTable(NamedTuple):
    """The scores of one model by class, {label: {precision, recall, f1, count}}, and {true: {predicted: rows}}."""

    scores: dict[str, dict[str, float]]
    confusion: dict[str, dict[str, float]]


def label_in_name(label: str) -> str:
    """Return a label without the characters that have a meaning in the names of metrics and gates."""
    return re.sub(r"[/<>=]+", "_", " ".join(label.split()) or "_")


def class_tables(metrics: Mapping[str, float]) -> dict[str, ClassTable]:
    """Return the scores by class in a record's metrics, by model ("" for a single one) and task: "0/custom"."""
    tables: dict[str, ClassTable] = {}
    for name, value in metrics.items():
        found = ClassScore.parse(name)
        if found is None or name.rpartition("/")[2] in ENDS:
            continue
        table = tables.setdefault("/".join(filter(None, (found.model, found.task))), ClassTable({}, {}))
        if found.metric == "confusion":
            table.confusion.setdefault(found.label, {})[found.detail] = value
        else:
            table.scores.setdefault(found.label, {})[found.detail or found.metric] = value
    return tables
