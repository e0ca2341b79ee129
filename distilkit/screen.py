"""Show a record on the terminal: tables, and the suggested next command."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilkit.class_scores import SHOWN_CONFUSIONS, ClassScore, class_tables
from distilkit.formatting import format_duration, format_gibibytes, format_number, printable
from distilkit.next_command import next_command, relative
from distilkit.progress import say
from distilkit.record import BenchSetting, MetricName, Record, baselines_by_prefix, json_text
from distilkit.wording import DISPLAY_NAMES, describe, describe_setting, plan_names

if TYPE_CHECKING:
    from rich.text import Text

PLANNED = ("parameters", "bytes", "latency_ms", "speedup", "distill_seconds")  # columns of a plan
REPORTED = ("parameters", "bytes", "speedup", "heldout_loss", "heldout_agreement", "heldout_cosine")  # with the scores
COMPARED = "compared"
NAMED = ("metric", COMPARED, "")  # first columns that hold names of metrics
Rows = list[tuple[Any, ...]]
DETAIL = re.compile(  # what has a table of its own: slices of a text, and bins of confidence
    r"(?:(?P<model>\d+)/)?(?P<metric>agreement|difference)/"
    r"(?:slices/(?P<slice>[^/]+/[^/]+)|(?P<whose>student|teacher)_bins/(?P<bin>[^/]+))(?:/(?P<what>\w+))?"
)


def tabulate(done: Record) -> list[tuple[list[str], Rows]]:
    """Return a record's metrics as tables: one column per model if names start with a model, else one of values."""
    if done.command == "init":
        return [*ranking(done), sizes(done)]
    if done.config.get("plan"):
        return [students(done) if done.command == "bench" else planned(done)]
    metrics = {
        name: value for name, value in done.metrics.items() if not DETAIL.fullmatch(name) and not ClassScore.parse(name)
    }
    if done.command == "report":  # the page has the rest
        metrics = {name: value for name, value in metrics.items() if is_reported(MetricName.parse(name))}
    if done.command in ("eval", "export"):
        plain = replace(done, metrics=metrics)
        return [comparison(plain), *intervals(plain), *averages(plain), *classes(done), *details(done)]
    parsed = {MetricName.parse(name): value for name, value in metrics.items()}
    models = list(dict.fromkeys(name.model for name in parsed))
    if done.command != "demo":
        if not all(model.isdigit() for model in models):
            return [(["metric", "value"], list(metrics.items())), *averages(done), *classes(done), *details(done)]
        models.sort(key=int)  # a bench record begins with speed-ups, which the first model has not
    names = list(dict.fromkeys(name._replace(model="") for name in parsed))
    rows: Rows = [(str(name), *(parsed.get(name._replace(model=model)) for model in models)) for name in names]
    table = (["metric", *(column_title(done, model) for model in models)], rows)
    return [table] if done.command == "report" else [table, *details(done)]


def is_reported(name: MetricName) -> bool:
    """Say whether a report shows a metric on the terminal: sizes, scores and retention, without ranges."""
    if not name.subject:
        return name.metric in REPORTED
    return not name.detail and (name.subject in DISPLAY_NAMES or name.subject.startswith("retention/"))


def details(done: Record) -> list[tuple[list[str], Rows]]:
    """Return tables of slices, the worst first, and of confidence bins, for each model."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in done.metrics.items():
        if match := DETAIL.fullmatch(name):
            title = f"{match['whose']}'s confidence" if match["whose"] else "slice"
            title = f"{match['model']}: {title}" if match["model"] else title
            row = found.setdefault(title, {}).setdefault(match["slice"] or match["bin"], {})
            row[{"high": "at most", "low": "at least"}.get(match["what"], match["what"] or match["metric"])] = value
    return [
        ([title, *next(iter(rows.values()))], [(entry, *row.values()) for entry, row in rows.items()])
        for title, rows in found.items()
    ]


def classes(done: Record) -> list[tuple[list[str], Rows]]:
    """Return for each model a table of the scores by class, and its confusion matrix if it is small enough."""
    tables: list[tuple[list[str], Rows]] = []
    for key, table in class_tables(done.metrics).items():
        model = column_title(done, key.split("/")[0]) if "/" in key else ""
        if "/" in key and not key.split("/")[0].isdigit():  # of the teacher or a baseline: --json has them
            continue
        title = f"{model}: class" if model else "class"
        columns = ("precision", "recall", "f1")
        rows: Rows = [
            (label, *(f"{100 * values[name]:.1f} %" for name in columns), f"{values['count']:,.0f}")
            for label, values in table.scores.items()
        ]
        tables.append(([title, "precision", "recall", "F1", "rows"], rows))
        if table.confusion and len(table.scores) <= SHOWN_CONFUSIONS:
            names = list(table.scores)
            cells: Rows = [
                (true, *(f"{table.confusion.get(true, {}).get(name, 0):,.0f}" for name in names)) for true in names
            ]
            header = [f"{model}: true ↓ predicted →" if model else "true ↓ predicted →", *names]
            tables.append((header, cells))
    return tables


def ranking(done: Record) -> list[tuple[list[str], Rows]]:
    """Return the candidates of a layer search, best first."""
    chosen = {name: layers for name, layers in done.environment.items() if name.startswith("strategies/")}
    rows = [
        (name.partition("/")[2], layers, done.metrics[f"{name}/loss"], done.metrics[f"{name}/agreement"])
        for name, layers in chosen.items()
    ]
    return [(["strategy", "layers", "masked-LM loss", "agreement"], rows)] if rows else []


def comparison(done: Record) -> tuple[list[str], Rows]:
    """Return scores, one column per checkpoint: models by position, then teacher and baselines."""
    columns: dict[str, dict[str, float]] = {}
    for name, value in done.metrics.items():
        parts = MetricName.parse(name)
        if not parts.comparison:
            columns.setdefault(parts.model, {})[str(parts._replace(model=""))] = value
    names = dict.fromkeys(name for column in columns.values() for name in column)
    alone = (short_names(done.config.get("models") or []) or ["model"])[0] if len(columns) > 1 else "value"
    if done.command == "export" and len(columns) > 1:
        alone = "exported"
    return (
        ["metric", *(column_title(done, label) or alone for label in columns)],
        [(name, *(column.get(name) for column in columns.values())) for name in names],
    )


def column_title(done: Record, model: str) -> str:
    """Title a model's column by its directory, with its role if it has one."""
    models = done.config.get("models") or []
    if f"model/{model}" in done.environment:  # of a report
        return done.environment[f"model/{model}"]
    if model.isdigit() and int(model) < len(models):
        return short_names(models)[int(model)]
    if model == "teacher" and (compared := done.config.get("against") or done.config.get("model")):
        return f"teacher: {Path(compared).name}" if done.command == "eval" else Path(compared).name
    baselines = baselines_by_prefix(done.config.get("control"))
    if model == "baseline" and done.config.get("baseline"):
        return f"earlier: {Path(done.config['baseline']).name}"
    if model in baselines:
        return f"baseline: {Path(baselines[model]).name}"
    return "baseline" if model == "control" else model


def short_names(models: Sequence[str]) -> list[str]:
    """Return the last parts of models' paths, or the whole paths if those are not unique."""
    names = [Path(model).name for model in models]
    return names if len(set(names)) == len(names) else list(models)


def intervals(done: Record) -> list[tuple[list[str], Rows]]:
    """Return retention and differences with their confidence intervals, one table for each of several models."""
    tables: dict[str, Rows] = {}
    for name, parts in ((name, MetricName.parse(name)) for name in done.metrics):
        if parts.comparison and not parts.detail:
            title = f"{column_title(done, parts.model)}: " if parts.model.isdigit() else ""
            shown = str(parts._replace(model="" if title else parts.model))
            values = (done.metrics.get(name + bound) for bound in ("", "/low", "/high"))
            tables.setdefault(title, []).append((shown, *values))
    return [([f"{title}{COMPARED}", "value", "95 % from", "to"], rows) for title, rows in tables.items()]


def averages(done: Record) -> list[tuple[list[str], Rows]]:
    """Return the tasks in each average."""
    rows: Rows = [(name, tasks) for name, tasks in done.environment.items() if name.startswith("glue/")]
    return [(["average", "of"], rows)] if rows else []


def sizes(done: Record) -> tuple[list[str], Rows]:
    """Return teacher and student side by side, with the layers that were kept and dropped."""
    parsed = map(MetricName.parse, done.metrics)
    parts = [str(name._replace(model="")) for name in parsed if name.model == "teacher"]
    rows: Rows = [(part, *(done.metrics.get(f"{model}/{part}") for model in ("teacher", "student"))) for part in parts]
    facts = {"layers kept": "kept_layers", "layers dropped": "dropped_layers", "weights": "weights"}
    choice = [(title, "", done.environment[key]) for title, key in facts.items() if key in done.environment]
    others = [(name, None, value) for name, value in done.metrics.items() if "/" not in name]
    return ["", "teacher", "student"], [*choice, *rows, *others]


def planned(done: Record) -> tuple[list[str], Rows]:
    """Return what a run would take, in readable units."""
    found = done.metrics
    memory = f"{format_gibibytes(found['peak_memory_bytes'])} of {format_gibibytes(found['memory_bytes'])} GiB"
    rows: Rows = [(name, found[name]) for name in ("updates", "epochs", "tokens") if name in found]
    rows += [("tokens per second", round(found["tokens_per_second"])), ("training", format_duration(found["seconds"]))]
    rows += [("held-out text", format_duration(found["heldout_seconds"])), ("peak memory", memory)]
    return ["plan", ""], rows


def students(done: Record) -> tuple[list[str], Rows]:
    """Return the teacher of a plan and its students, a row each, in readable units."""
    settings = (BenchSetting.parse(MetricName.parse(name).subject) for name in done.metrics)
    latency = next(f"latency, {describe_setting(setting)}" for setting in settings if setting)
    rows: Rows = []
    for number, name in plan_names(done.metrics).items():
        own = {key: done.metrics.get(f"{number}/{key}") for key in PLANNED}
        cells = ("" if value is None else describe(key).write(value) for key, value in own.items())
        rows.append((name, *cells, "← chosen" if done.metrics.get("chosen") == int(number) else ""))
    return ["plan", "parameters", "size", latency, "speed-up", f"distill, {done.config['tokens']:,} tokens", ""], rows


def show(done: Record, *, as_json: bool) -> None:
    """Print a record on stdout: as one JSON document, or as tables."""
    if as_json:
        print(json_text(done.to_json()))
        return
    from rich.console import Console
    from rich.table import Table

    data = Path(done.config.get("data") or done.environment.get("rows") or "custom task").name
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    for number, (header, rows) in enumerate(tabulate(done)):
        what = header[0].rpartition(": ")[2]
        if number:
            console.print()
        table = Table(*header, box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*in_words(row, data if what in NAMED else None, compare=what != COMPARED))
        console.print(table)
    for line in outcome(done):
        say(line)


def in_words(row: tuple[Any, ...], data: str | None, *, compare: bool) -> "list[Text]":
    """Return a row's cells as texts: the metric in words, values with their units, the best of several in bold.

    `data` is the name of the data set, None for a table whose first column does not name metrics.
    """
    from rich.text import Text

    if data is None or not all(cell is None or isinstance(cell, (int, float)) for cell in row[1:]):
        return [Text(format_number(cell)) for cell in row]
    shown = describe(str(row[0]), data)
    values = [cell for cell in row[1:] if cell is not None]
    best = max(values, key=lambda value: shown.better * value) if shown.better and values else None
    bold = compare and len(set(values)) > 1
    cells = ["" if cell is None else printable(shown.write(cell)) for cell in row[1:]]
    styles = ["bold" if bold and cell == best else "" for cell in row[1:]]
    return [Text(printable(shown.words)), *(Text(text, style) for text, style in zip(cells, styles, strict=True))]


def outcome(done: Record) -> Iterator[str]:
    """Yield the lines below the tables: what was written, and what to do next."""
    unwritten = done.config.get("dry_run") or (done.command == "distill" and done.config.get("plan"))
    if (output := done.config.get("output")) and not unwritten:
        slash = "" if done.command == "predict" else os.sep
        yield f"written: {relative(output)}{slash}{'report.html' if done.command == 'report' else ''}"
    if command := next_command(done):
        yield f"next: {command}"
