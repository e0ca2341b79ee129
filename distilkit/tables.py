"""A record laid out for a person: tables of text, and the command to type next."""

import re
from typing import Any

from distilkit.record import Record

Rows = list[tuple[Any, ...]]
DETAIL = re.compile(  # what has a table of its own: slices of a text, and bins of confidence
    r"(?:(?P<model>\d+)/)?(?P<metric>agreement|difference)/"
    r"(?:slices/(?P<slice>[^/]+/[^/]+)|(?P<whose>student|teacher)_bins/(?P<bin>[^/]+))(?:/(?P<what>\w+))?"
)


def tabulate(done: Record) -> list[tuple[list[str], Rows]]:
    """Lay a record's metrics out: a column a model where names start with a model, else one column of values."""
    if done.command == "init":
        return [*ranking(done), sizes(done)]
    metrics = {name: value for name, value in done.metrics.items() if not DETAIL.fullmatch(name)}
    models = list(dict.fromkeys(name.partition("/")[0] for name in metrics))
    if done.command != "demo" and not all(model.isdigit() for model in models):
        return [(["metric", "value"], list(metrics.items())), *details(done)]
    names = list(dict.fromkeys(name.partition("/")[2] for name in metrics))
    rows = [(name, *(metrics.get(f"{model}/{name}") for model in models)) for name in names]
    return [(["metric", *models], rows), *details(done)]


def details(done: Record) -> list[tuple[list[str], Rows]]:
    """Lay out slices, the worst first, and bins of confidence: a table each, for each model."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in done.metrics.items():
        if match := DETAIL.fullmatch(name):
            title = f"{match['whose']}'s confidence" if match["whose"] else "slice"
            title = f"{match['model']}: {title}" if match["model"] else title
            row = found.setdefault(title, {}).setdefault(match["slice"] or match["bin"], {})
            row[{"high": "at most", "low": "at least"}.get(match["what"], match["what"] or match["metric"])] = value
    return [
        ([title, *next(iter(rows.values()))], [("",) * 4, *((entry, *row.values()) for entry, row in rows.items())])
        for title, rows in found.items()
    ]


def ranking(done: Record) -> list[tuple[list[str], Rows]]:
    """Lay out what a search measured, best first; nothing where there was none."""
    chosen = {name: layers for name, layers in done.environment.items() if name.startswith("strategies/")}
    rows = [
        (name.partition("/")[2], layers, done.metrics[f"{name}/loss"], done.metrics[f"{name}/agreement"])
        for name, layers in chosen.items()
    ]
    return [(["strategy", "layers", "masked-LM loss", "agreement"], [*rows, ("",) * 4])] if rows else []


def sizes(done: Record) -> tuple[list[str], Rows]:
    """Lay out teacher and student side by side, with the layers that were kept and dropped."""
    parts = [name.partition("/")[2] for name in done.metrics if name.startswith("teacher/")]
    rows: Rows = [(part, *(done.metrics.get(f"{model}/{part}") for model in ("teacher", "student"))) for part in parts]
    choice = [(f"layers {name}", "", done.environment.get(f"{name}_layers")) for name in ("kept", "dropped")]
    others = [(name, None, value) for name, value in done.metrics.items() if "/" not in name]
    return ["", "teacher", "student"], [*choice, *rows, *others]


def next_command(done: Record) -> str:
    """Return the command that the result of this one was made for."""
    if done.command != "init" or done.config["dry_run"]:
        return ""
    if done.environment.get("head") == "masked-lm":
        return f"distilkit distill {done.config['output']} --corpus TEXT -o DIR"
    return f"distilkit finetune {done.config['output']} --task NAME -o DIR"


def readable(value: float | str | None) -> str:
    """Spell a number for a person: whole ones with thousands separators, others to 6 digits."""
    if not isinstance(value, (int, float)):
        return value or ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"
