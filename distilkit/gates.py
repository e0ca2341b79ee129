"""Parse gates (--require), find the metrics they mean and check them."""

import operator
import re
from collections.abc import Iterable

from distilkit.errors import DistilkitError

COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def unmet_gates(requirements: tuple[str, ...], metrics: dict[str, float]) -> list[str]:
    """Return a line for each gate that isn't met, with the value found.

    A gate is `NAME OP NUMBER`, OP one of >= <= > <. NAME is a metric's full name, or leaves out a prefix (`speedup`
    means every metric whose name ends in `/speedup`), or else its last part (`retention`: every `retention/<task>`, but
    not `retention/<task>/low`). Metrics of a teacher or control, which nothing is asked of, go by full name only.
    Raises DistilkitError where a gate can't be read or names no metric.
    """
    lines = []
    for gate in requirements:
        name, compare, bound = parse_gate(gate)
        matching = {key: metrics[key] for key in metrics_meant(name, metrics)}
        if not matching:
            import difflib  # here, because --help would pay for it

            near = difflib.get_close_matches(name, metrics, n=5, cutoff=0.4) or sorted(metrics)
            raise DistilkitError(f"--require '{gate}' names no metric: there are {', '.join(near[:5])}, …")
        lines += [
            f"{gate}: there is no {key}, the teacher's score is 0 or less"
            for key in undefined_retentions(name, metrics)
        ]
        lines += [
            f"{gate}: {key} is {value:.6g}" for key, value in matching.items() if not COMPARISONS[compare](value, bound)
        ]
    return lines


def undefined_retentions(name: str, metrics: Iterable[str]) -> list[str]:
    """Return the retentions that a gate on all of them would mean, were there a score to keep."""
    pairs = (re.fullmatch(r"((?:\d+/)?)difference/([^/]+)/teacher", key) for key in metrics)
    keys = [f"{pair[1]}retention/{pair[2]}" for pair in pairs if pair]
    return [key for key in keys if name == "retention" and key not in metrics]


def metrics_meant(name: str, metrics: Iterable[str]) -> list[str]:
    """Return the metrics that a gate's name means."""
    keys = [key for key in metrics if not re.match(r"(teacher|control(-\d+)?)/", key)]
    if name.partition("/")[0] not in ("retention", "difference"):  # which are named after what they compare
        keys = [key for key in keys if not re.match(r"(\d+/)?(retention|difference)/", key)]
    parents = {key: "/" + key.rpartition("/")[0] for key in keys}
    return (
        [key for key in metrics if key == name]
        or [key for key in keys if key.endswith("/" + name)]
        or [key for key, parent in parents.items() if parent.endswith("/" + name)]
    )


def parse_gate(gate: str) -> tuple[str, str, float]:
    """Split 'sst2/accuracy>=0.90' into its name, comparison and bound."""
    match = re.fullmatch(r"\s*([^<>=\s]+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*", gate)
    try:
        return match.group(1), match.group(2), float(match.group(3))  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        raise DistilkitError(f"--require '{gate}' can't be read: write it like 'sst2/accuracy>=0.90'") from None
