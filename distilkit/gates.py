"""Parse gates (--require), find the metrics they mean and check them."""

import math
import operator
import re
from collections.abc import Iterable
from typing import NamedTuple

from distilkit.errors import DistilkitError
from distilkit.record import COMPARISONS, FAILURES, MetricName

OTHERS = ("teacher", "control", "baseline")  # models that a gate means only by their full names
BASELINE = "baseline/"  # in front of the metrics of an earlier eval
OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def unmet_gates(requirements: tuple[str, ...], metrics: dict[str, float]) -> list[str]:
    """Return a line for each gate that is not met, with the value found.

    A gate is `NAME OP NUMBER`; OP is one of >= <= > <. NUMBER may be `baseline`, `baseline-0.01` or
    `baseline+0.01`, from the same metric of an earlier eval. NAME is the full name of a metric, its end (`speedup`
    means every metric whose name ends in `/speedup`), or the part before its last word (`retention` means every
    `retention/<task>`, but not `retention/<task>/low`). A gate applies to a teacher's or baseline's metric only if it
    gives the full name. A model that learned nothing meets no gate.
    Raises DistilkitError if a gate cannot be read or names no metric.
    """
    lines = []
    for gate in requirements:
        name, compare, bound = parse_gate(gate)
        matching = {key: metrics[key] for key in metrics_meant(name, metrics)}
        if not matching:
            raise _no_metric(gate, name, metrics)
        lines += [
            f"{gate}: there is no {key}, the teacher's score is 0 or less"
            for key in undefined_retentions(name, metrics)
        ]
        for key, value in matching.items():
            limit = bound(key, metrics)
            if not OPERATORS[compare](value, limit):
                against = f", the baseline's {metrics[BASELINE + key]:.6g}" if bound.relative else ""
                lines.append(f"{gate}: {key} is {value:.6g}{against}")
    return [*lines, *failed_models(metrics)] if requirements else []


def failed_models(metrics: Iterable[str]) -> list[str]:
    """Return a line for each scored model that learned nothing: no gate on it is met, whatever its scores."""
    parsed = [name for name in map(MetricName.parse, metrics) if name.metric in FAILURES and not name.seed]
    return [
        f"{name.task}: {'model ' + name.model if name.model else 'the model'} {FAILURES[name.metric]}"
        for name in parsed
        if not name.model.startswith(OTHERS)
    ]


def gate_words(gate: str) -> set[str]:
    """Return the words of the metric name in a gate."""
    return set(parse_gate(gate)[0].split("/"))


def check_gates(requirements: Iterable[str], metrics: Iterable[str]) -> None:
    """Raise DistilkitError if a gate cannot be read, or names none of the metrics that a command may return."""
    names = list(metrics)
    for gate in requirements:
        name, _, _ = parse_gate(gate)
        if not metrics_meant(name, names):
            raise _no_metric(gate, name, names)


def _no_metric(gate: str, name: str, metrics: Iterable[str]) -> DistilkitError:
    import difflib  # only an error needs it, and every --help would pay for it

    near = difflib.get_close_matches(name, list(metrics), n=5, cutoff=0.4) or sorted(metrics)
    return DistilkitError(f"--require '{gate}' names no metric: there are {', '.join(near[:5])}, …")


def undefined_retentions(name: str, metrics: Iterable[str]) -> list[str]:
    """Return the retentions that a gate on all of them would include if the teacher's score were above 0."""
    compared = [
        key for key in map(MetricName.parse, metrics) if (key.comparison, key.metric) == ("difference", "teacher")
    ]
    keys = [str(MetricName(key.model, f"retention/{key.task}")) for key in compared if not key.detail]
    return [key for key in keys if name == "retention" and key not in metrics]


def metrics_meant(name: str, metrics: Iterable[str]) -> list[str]:
    """Return the metrics that the name in a gate stands for."""
    if name in metrics:
        return [name]
    parsed = {key: MetricName.parse(key) for key in metrics}
    keys = [key for key, parts in parsed.items() if not parts.model.startswith(OTHERS)]
    if name.split("/", maxsplit=1)[0] not in COMPARISONS:  # these have the name of a task inside of theirs
        keys = [key for key in keys if not parsed[key].comparison]
    words = name.split("/")
    ends = [key for key in keys if key.split("/")[-len(words) :] == words]
    return ends or [key for key in keys if key.split("/")[-len(words) - 1 : -1] == words]


class Bound(NamedTuple):
    """The right side of a gate: a number, or with `relative` its distance from the same metric of the baseline."""

    number: float
    relative: bool = False

    def __call__(self, key: str, metrics: dict[str, float]) -> float:
        """Return the number that a metric is compared with. Raises DistilkitError if the baseline lacks it."""
        if self.relative and BASELINE + key not in metrics:
            raise DistilkitError(
                f"--require compares {key} with --baseline, which has no such metric: give another file"
            )
        return self.number + (metrics[BASELINE + key] if self.relative else 0.0)


def parse_gate(gate: str) -> tuple[str, str, Bound]:
    """Split 'sst2/accuracy>=0.90' into its name, comparison and bound."""
    match = re.fullmatch(r"\s*([^<>=\s]+)\s*(>=|<=|>|<)\s*(baseline)?\s*([-+.\deE]*)\s*", gate)
    try:
        name, compare, relative, text = match.groups()  # type: ignore[union-attr]
        number = float(text or ("0" if relative else "nan"))
        if not math.isfinite(number) or (relative and text and text[0] not in "+-"):
            raise ValueError("no such number")
        return name, compare, Bound(number, relative is not None)
    except (AttributeError, ValueError):
        raise DistilkitError(f"--require '{gate}' cannot be read: write it like 'sst2/accuracy>=0.90'") from None
