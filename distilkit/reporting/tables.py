"""The tables of a report, as text cells."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from distilkit.formatting import format_percent, format_score
from distilkit.record import BenchSetting, MetricName
from distilkit.reporting.models import Model, Results, differences, scores_of, seed_warnings
from distilkit.tasks.catalogue import TASKS
from distilkit.wording import DISPLAY_NAMES, describe_setting, metric_name

MAX_WIDE_TASKS = 2  # with more tasks, columns are narrow and plots show means
OTHER_METRICS = (
    "average",
    "f1_micro",
    "f1",
    "accuracy",
    "pearson",
)  # GLUE's, and a custom task's headline of each kind


class Cell(NamedTuple):
    """A table's cell: its text, and a smaller note below or behind it."""

    text: str
    note: str = ""


class Table(NamedTuple):
    """A table: title, caption, columns, rows. A row's first cell names it."""

    title: str
    caption: str
    heads: list[Cell]
    rows: list[list[Cell]]


def overview(results: Results) -> Table:
    """Return size, speed and headline scores of all models, one row each, without empty columns."""
    models = results.models
    columns: list[tuple[Cell, Callable[[Model], Cell]]] = [
        (Cell("Parameters", "millions"), lambda model: _number(model, "parameters", 1e-6, ",.1f")),
        (Cell("Size", "MB"), lambda model: _number(model, "bytes", 1e-6, ",.1f")),
    ]
    if chosen := common_setting(models):
        latency = f"{chosen}/latency_ms_p50"
        columns.append(
            (Cell("Latency", f"ms, {describe_setting(chosen)}"), lambda model: _number(model, latency, 1, ",.2f"))
        )
    columns.append((Cell("Speed-up", "median"), lambda model: _number(model, "speedup", 1, ".2f", "×")))
    columns.append((Cell("Held-out loss", "masked LM"), lambda model: _number(model, "heldout_loss", 1, ".3f")))
    columns.append((Cell("Agreement", "with the teacher"), lambda model: _number(model, "agreement", 1, ".3f")))
    columns.append((Cell("Cosine", "with the teacher"), lambda model: _number(model, "agreement/cosine", 1, ".3f")))
    for task, metric in headline_metrics(models):
        columns += task_columns(results, task, metric)
    filled = [(head, cell) for head, cell in columns if any(cell(model).text for model in models)]
    rows = [[Cell(model.name, _role(results, model)), *(cell(model) for _, cell in filled)] for model in models]
    return Table("Models", _caption(results), [Cell("Model"), *(head for head, _ in filled)], rows)


def task_columns(results: Results, task: str, metric: str) -> list[tuple[Cell, Callable[[Model], Cell]]]:
    """Return a column for a task's score and one for its retention, or one for both in a narrow table."""
    head, name = Cell(results.task_name(task), metric_name(metric)), f"{task}/{metric}"

    def retention(model: Model) -> Cell:
        return _retention(model, task) if (task, metric) in headline_metrics([model]) else Cell("")

    if len(headline_metrics(results.models)) > MAX_WIDE_TASKS:
        return [(head, lambda model: _score(model, name)._replace(note=retention(model).text))]
    return [(head, lambda model: _score(model, name)), (Cell("Retention", head.text), retention)]


def _role(results: Results, model: Model) -> str:
    role = results.role(model)
    return "" if role == model.name else role


def _caption(results: Results) -> str:
    models, sentences = results.models, []
    narrow = len(headline_metrics(models)) > MAX_WIDE_TASKS

    names = [MetricName.parse(name) for model in models for name in model.metrics]
    retentions = [name for name in names if name.comparison == "retention"]

    against = {str(found.config["against"]) for found in results.measured if found.config.get("against")}
    if against and retentions:
        where = "The retention (in parentheses) is" if narrow else "Retention is"
        interval = (
            ", with its 95 % confidence interval"
            if any(name.detail == "low" for name in retentions) and not narrow
            else ""
        )
        sentences.append(f"{where} the share of {_names(results, sorted(against))}'s score{interval}.")
    first = [found.config["models"][0] for found in results.measured if found.command == "bench"]
    if first and any(name == MetricName(metric="speedup") for name in names):
        sentences.append(f"Speed-ups are relative to {_names(results, first)}.")
    if any(name.detail == "min" for name in names) and not narrow:
        sentences.append("A score from several seeds is their median, with its range.")
    trained = [step.config for model in models for step in model.biography if step.command == "finetune"]
    if len({(one.get("data"), one.get("label")) for one in trained if one.get("task") == "custom"}) > 1:
        sentences.append("The custom tasks differ in data or labels, so their scores may not be comparable.")
    return " ".join(sentences)


def _names(results: Results, places: Iterable[str]) -> str:
    names = [model.name if (model := results.find(place)) else Path(place).name or place for place in places]
    return " and ".join(dict.fromkeys(names))


def scores(results: Results) -> Table:
    """Return every score, one row each. Retention and differences are in the row of the headline score."""
    apart = {model.name: differences(results, model) for model in results.models}
    baselines = list(dict.fromkeys(baseline for found in apart.values() for _, baseline in found))
    titles = ("Model", "Task", "Score", "Range over seeds", "Retention", "Interval")
    heads = [*map(Cell, titles), *(Cell("Difference", f"baseline: {baseline}") for baseline in baselines)]
    rows = []
    for model in results.models:
        for task, metric in sort_by_task(scores_of(model)):
            name, retention = f"{task}/{metric}", _retention(model, task)
            beside = [_difference(apart[model.name].get((task, baseline))) for baseline in baselines]
            if (task, metric) not in headline_metrics([model]):
                retention, beside = Cell(""), [Cell("") for _ in baselines]
            what = Cell(results.task_name(task), metric_name(metric))
            score = format_score(model.metrics[name]), bounds(model, name, "min", "max", format_score)
            rows.append([Cell(model.name), what, *map(Cell, (*score, retention.text, retention.note)), *beside])
    tested = [name for name in DISPLAY_NAMES if any(name in model.tested for model in results.models)]
    others = f"; of {' and '.join(DISPLAY_NAMES[name] for name in tested)} on test rows" if tested else ""
    flawed = [f" {model.name}, {warning}." for model in results.models for warning in seed_warnings(model)]
    caption = f"Scores are on the validation rows of each task{others}.{''.join(flawed)}"
    return drop_empty_columns(Table("Scores", caption, heads, rows))


def speeds(results: Results) -> Table:
    """Return what bench measured, one row per model and setting."""
    wanted = {
        "latency_ms_p50": ("Latency p50, ms", 1.0, ",.2f"), "latency_ms_p95": ("Latency p95, ms", 1.0, ",.2f"),
        "throughput_sequences_per_second": ("Sequences/s", 1.0, ",.1f"),
        "tokens_per_second": ("Tokens/s", 1.0, ",.0f"), "peak_memory_bytes": ("Peak memory, MB", 1e-6, ",.1f"),
    }  # fmt: skip
    heads = [Cell(text) for text in ("Model", "Setting", *(title for title, _, _ in wanted.values()), "Speed-up")]
    rows = []
    for setting in settings(results.models):
        for model in results.models:
            cells = [_number(model, f"{setting}/{name}", scale, form) for name, (_, scale, form) in wanted.items()]
            if any(cell.text for cell in cells):
                faster = _number(model, f"{setting}/speedup", 1, ".2f", "×")
                rows.append([Cell(model.name), Cell(describe_setting(setting)), *cells, faster])
    caption = "The models ran in turn on the same input. The speed-up is the median of the ratios of neighbouring runs."
    return drop_empty_columns(Table("Speed", caption, heads, rows))


def drop_empty_columns(table: Table) -> Table:
    """Return the table without the columns that have no text in any row."""
    filled = [i for i in range(len(table.heads)) if any(row[i].text for row in table.rows)]
    return table._replace(heads=[table.heads[i] for i in filled], rows=[[row[i] for i in filled] for row in table.rows])


def settings(models: Sequence[Model]) -> list[BenchSetting]:
    """Return bench's settings, sorted by device, precision, batch size and length."""
    subjects = {MetricName.parse(name).subject for model in models for name in model.metrics}
    return sorted(found for subject in subjects if (found := BenchSetting.parse(subject)))


def common_setting(models: Sequence[Model]) -> BenchSetting | None:
    """Return the first of the settings in which most models were measured, None without any."""
    counts = {
        setting: sum(f"{setting}/latency_ms_p50" in model.metrics for model in models) for setting in settings(models)
    }
    return max(counts, key=lambda setting: counts[setting]) if counts else None


def sort_by_task(found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sort (task, metric) pairs: tasks in GLUE's order, a task's headline metric first."""
    tasks = list(DISPLAY_NAMES)

    def rank(pair: tuple[str, str]) -> tuple[int, int, tuple[str, str]]:
        metrics = TASKS[pair[0]].metrics if pair[0] in TASKS else OTHER_METRICS
        place = metrics.index(pair[1]) if pair[1] in metrics else len(metrics)
        return tasks.index(pair[0]) if pair[0] in tasks else len(tasks), place, pair

    return sorted(set(found), key=rank)


def headline_metrics(models: Sequence[Model]) -> list[tuple[str, str]]:
    """Return the headline (task, metric) of each task that a model was scored on; GLUE's averages come last.

    There may be several for `custom`, one for each kind of label.
    """
    first = [dict(reversed(sort_by_task(scores_of(model)))) for model in models]  # the first of each task comes last
    return sort_by_task(pair for found in first for pair in found.items())


def _number(model: Model, name: str, scale: float, form: str, unit: str = "") -> Cell:
    value = model.metrics.get(name)
    return Cell("" if value is None else f"{value * scale:{form}}{unit}")


def _score(model: Model, name: str) -> Cell:
    value = model.metrics.get(name)
    return Cell("" if value is None else format_score(value), bounds(model, name, "min", "max", format_score))


def _retention(model: Model, task: str) -> Cell:
    retention = model.metrics.get(f"retention/{task}")
    note = bounds(model, f"retention/{task}", "low", "high", format_percent)
    return Cell("" if retention is None else format_percent(retention), note)


def _difference(apart: tuple[float, float, float] | None) -> Cell:
    """Format a difference, with its 95 % confidence interval as the note."""
    if apart is None:
        return Cell("")
    value, low, high = (f"{number:+.3f}" for number in apart)
    return Cell(value, f"{low} to {high}")


def bounds(model: Model, name: str, low: str, high: str, format_end: Callable[[float], str]) -> str:
    """Format the bounds of a metric's interval or range, "" if the record has none."""
    ends = [model.metrics.get(f"{name}/{end}") for end in (low, high)]
    return "" if None in ends else " to ".join(format_end(end) for end in ends if end is not None)
