"""Parse gates (--require) and limits (--budget), find the metrics they mean and check them."""

import math
import operator
import re
from collections.abc import Collection, Iterable, Sequence
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
            f"{gate}: there is no {key}, because the teacher's score is 0 or less"
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


def check_gates(requirements: Iterable[str], metrics: Iterable[str], option: str = "--require") -> None:
    """Raise DistilkitError if a gate cannot be read, or names none of the metrics that a command may return."""
    names = list(metrics)
    for gate in requirements:
        name, _, _ = parse_gate(gate, option)
        if not metrics_meant(name, names):
            raise _no_metric(gate, name, names, option)


def check_relative_gates(requirements: Iterable[str], names: Collection[str], baseline: Collection[str]) -> None:
    """Raise DistilkitError if a gate compares with a baseline that lacks the metrics of a model.

    `names` are the metrics that a command may return.
    """
    for gate in requirements:
        name, _, bound = parse_gate(gate)
        compared, known = (
            {MetricName.parse(key).model for key in metrics_meant(name, keys)} for keys in (names, baseline)
        )
        if bound.relative and (not known or compared - known):
            raise DistilkitError(
                f"--baseline has no metric for --require '{gate}' of every model: give the record of another eval"
            )


def _no_metric(gate: str, name: str, metrics: Iterable[str], option: str = "--require") -> DistilkitError:
    import difflib  # only an error needs it, and every --help would pay for it

    near = difflib.get_close_matches(name, list(metrics), n=5, cutoff=0.4) or sorted(metrics)
    return DistilkitError(f"{option} '{gate}' names no metric: give one such as {', '.join(near[:5])}")


def undefined_retentions(name: str, metrics: Iterable[str]) -> list[str]:
    """Return the retention metrics that are missing because the teacher's score is 0 or less, for a gate on all."""
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
    if name.split("/", maxsplit=1)[0] not in COMPARISONS:  # the name of a comparison contains the name of its task
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
                f"--require compares {key} with --baseline, which has no such metric: give the record of another eval"
            )
        return self.number + (metrics[BASELINE + key] if self.relative else 0.0)


def parse_gate(gate: str, option: str = "--require") -> tuple[str, str, Bound]:
    """Split 'sst2/accuracy>=0.90' into its name, comparison and bound. A limit of --budget has no baseline."""
    match = re.fullmatch(r"\s*([^<>=\s][^<>=]*?)\s*(>=|<=|>|<)\s*(baseline)?\s*([-+.\deE]*)\s*", gate)
    try:
        name, compare, relative, text = match.groups()  # type: ignore[union-attr]
        number = float(text or ("0" if relative else "nan"))
        if not math.isfinite(number) or (relative and (option != "--require" or (text and text[0] not in "+-"))):
            raise ValueError("no such number")
        return name, compare, Bound(number, relative is not None)
    except (AttributeError, ValueError):
        example = "sst2/accuracy>=0.90" if option == "--require" else "latency_ms<=10"
        raise DistilkitError(f"{option} '{gate}' cannot be read: write it like '{example}'") from None


def choose_largest(budget: Sequence[str], metrics: dict[str, float]) -> str | None:
    """Return the number of the student with the most parameters within all limits of --budget, None if there is none.

    A limit is written like a gate, and its name means metrics of one student.
    """
    students = metrics_by_student(metrics)
    within = [number for number, own in students.items() if not excesses(budget, own)]
    return max(within, key=lambda number: students[number]["parameters"], default=None)


def unmet_budget(budget: Sequence[str], metrics: dict[str, float]) -> list[str]:
    """Return a line that names the student nearest to the budget if none is within it, else no line."""
    if not budget or choose_largest(budget, metrics):
        return []
    students = metrics_by_student(metrics)
    nearest = min(students.values(), key=lambda own: max(share for _, share in excesses(budget, own)))
    reasons = "; ".join(line for line, _ in excesses(budget, nearest))
    return [f"no student is within --budget; the nearest has {nearest['layers']:.0f} layers ({reasons})"]


def metrics_by_student(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return the metrics of each student of a plan by its number; number 0 is the teacher."""
    students: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        number, _, own = name.partition("/")
        if number.isdecimal() and number != "0":
            students.setdefault(number, {})[own] = value
    return students


def excesses(budget: Sequence[str], own: dict[str, float]) -> list[tuple[str, float]]:
    """Return a line for each limit that a student exceeds, and by which share of the limit it does."""
    found = []
    for limit in budget:
        name, compare, bound = parse_gate(limit, "--budget")
        if not (keys := metrics_meant(name, own)):
            found.append((f"{limit}: not measured on this machine", math.inf))
        for key in keys:
            if not OPERATORS[compare](own[key], bound.number):
                miss = abs(own[key] - bound.number) / max(abs(bound.number), 1e-9)
                found.append((f"{limit}: {key} is {own[key]:.6g}", miss))
    return found
