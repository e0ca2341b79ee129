"""The scores of each class among a record's metrics: precision, recall, F1, rows, and the confusion matrix."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from distilkit.progress import say_once

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


def names_of_labels(labels: Sequence[str]) -> list[str]:
    """Return each label without the characters that have a meaning in the names of metrics and gates.

    A name that is taken gets a number, the same in any order of the labels: `<=50K` is _50K, and `>50K` is _50K-2.
    """
    taken, names = {*ENDS}, dict[int, str]()
    for place in sorted(range(len(labels)), key=lambda place: (labels[place] != _plain(labels[place]), labels[place])):
        name = _plain(labels[place])
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        names[place] = next(free for free in itertools.chain([name], numbered) if free not in taken)
        taken.add(names[place])
    return [names[place] for place in range(len(labels))]


def _plain(label: str) -> str:
    return re.sub(r"[/<>=]+", "_", " ".join(label.split()) or "_")


def note_numbered(labels: Sequence[str]) -> None:
    """Note, once in a command, which labels have a number in the names of metrics."""
    pairs = zip(labels, names_of_labels(labels), strict=True)
    if numbered := {label: name for label, name in pairs if name != _plain(label)}:
        shown = ", ".join(f"'{label}' is {name}" for label, name in numbered.items())
        of_ranges = {_plain(label) in ENDS for label in numbered}
        reasons = {False: "the name without a number is taken", True: "min and max end the names of ranges over seeds"}
        say_once(f"in the names of metrics, {shown}: {'; '.join(reasons[kind] for kind in sorted(of_ranges))}")


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
