"""The plots of a report: retention, size against latency and score, learning curves."""

import math
import re
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from distilkit.files import replacing, writing
from distilkit.formatting import format_percent
from distilkit.record import FAILURES, MetricName
from distilkit.reporting.models import Model, Results
from distilkit.reporting.summary import task_retention
from distilkit.reporting.tables import MAX_WIDE_TASKS, common_setting, headline_metrics
from distilkit.tasks.catalogue import TASKS
from distilkit.training.learning_curve import points
from distilkit.training.log import NON_LOSS_KEYS
from distilkit.wording import describe_setting, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Markers and line styles differ between models too. page.css has these colours, and others for dark mode.
COLORS = ("#1a5fb4", "#b4500a", "#1f7a3d", "#8a3ab9", "#0b7285", "#b3261e")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.")
INK, FAINT = "#3b4048", "#d5d9de"
VARIABLES = {INK: "ink-2", FAINT: "line", **{color: f"s{i}" for i, color in enumerate(COLORS)}}  # in page.css
WIDTH_INCHES, HEIGHT_INCHES = 3.9, 2.8  # small enough to be read at full size on a phone
LEGEND_ROW_INCHES = 0.17
LEGEND_CHARACTERS = 50  # the width of a legend
CURVE_POINTS = 80  # a longer curve is averaged over neighbours, which also removes noise
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "distilkit", "font.size": 9, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "grid.color": FAINT, "axes.grid": True,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.6,
    "text.parse_math": False,  # a name may contain a $
}  # fmt: skip
LOSS_NAMES = {"ce": "soft-target loss", "cos": "cosine loss", "mlm": "masked-LM loss", "task": "loss on the labels"}


class Plot(NamedTuple):
    """A plot: its file name, title, description in words, and figure."""

    name: str
    title: str
    description: str
    figure: "Figure"


def draw(results: Results) -> list[Plot]:
    """Draw the plots that the records have enough data for."""
    import matplotlib as mpl  # takes a while to load

    with mpl.rc_context(STYLE):
        return [*retention(results), *frontiers(results), *curves(results)]


def save(plot: Plot, directory: Path) -> None:
    """Write a plot as PNG and as SVG."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        with writing(directory), replacing(directory / f"{plot.name}.png") as partial:
            plot.figure.savefig(partial, format="png", dpi=200)
        with writing(directory), replacing(directory / f"{plot.name}.svg") as partial:
            plot.figure.savefig(partial, format="svg", metadata={"Date": None})


def inline_svg(plot: Plot) -> str:
    """Return a plot as an SVG element that uses the page's CSS variables and ids unique on the page."""
    import matplotlib as mpl

    text = StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({**STYLE, "svg.hashsalt": plot.name}):  # the ids of markers and clip paths are salted hashes
        plot.figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawing = text.getvalue()[text.getvalue().index("<svg") :]  # without the XML declaration
    for color, variable in VARIABLES.items():
        drawing = drawing.replace(color, f"var(--{variable})")
    return re.sub(r'<g id="[^"]*"', "<g", drawing)  # groups have the same ids in every plot; nothing refers to them


def canvas(height: float = HEIGHT_INCHES, **labels: Any) -> "tuple[Figure, Axes]":
    """Return a new figure with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    return figure, figure.add_subplot(**labels)


def color_and_marker(number: int) -> dict[str, Any]:
    """Return a model's colour and marker, the same in every plot."""
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}


def line_style(number: int) -> str:
    """Return a model's line style."""
    return LINES[number % len(LINES)]


def legend_label(name: str) -> str:
    """Shorten a model's long name for a legend in the middle; strip a leading _, which would hide it."""
    if len(name) > LEGEND_CHARACTERS:
        name = f"{name[:18]}…{name[1 - LEGEND_CHARACTERS + 18 :]}"
    return f" {name}" if name.startswith("_") else name


def legend(figure: "Figure", names: Sequence[str], **options: Any) -> None:
    """Draw a legend above a plot, in as many columns as fit; the figure grows with its rows."""
    columns = LEGEND_CHARACTERS // (max(len(legend_label(name)) for name in names) + 2)
    columns = max(1, min(columns, len(names), 3))
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW_INCHES * (math.ceil(len(names) / columns) - 1))
    figure.legend(loc="outside upper left", ncols=columns, **options)


def retention(results: Results) -> list[Plot]:
    """Draw each model's retention on each task, with its confidence interval if recorded."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    shown = [(number, model) for number, model in enumerate(results.models) if results.role(model) != "teacher"]
    tasks = list(dict.fromkeys(task for task, _ in headline_metrics(results.models)))
    tasks = [task for task in tasks if any(f"retention/{task}" in model.metrics for _, model in shown)]
    shown = [(number, model) for number, model in shown if any(f"retention/{task}" in model.metrics for task in tasks)]
    if not shown:
        return []
    figure, axes = canvas(1.1 + 0.24 * len(tasks) * len(shown), xlabel="share of the teacher's score")
    descriptions = []
    for place, (number, model) in enumerate(shown):
        shift = (place - (len(shown) - 1) / 2) * 0.7 / len(shown)
        label = legend_label(model.name)
        for row, task in enumerate(tasks):
            if (retained := model.metrics.get(f"retention/{task}")) is None:
                continue
            low, high = (model.metrics.get(f"retention/{task}/{end}", retained) for end in ("low", "high"))
            axes.plot([low, high], [row + shift] * 2, color=color_and_marker(number)["color"], linewidth=1.4)
            axes.plot([retained], [row + shift], linestyle="", markersize=6, label=label, **color_and_marker(number))
            label = "_"
            interval = f" ({format_percent(low)} to {format_percent(high)})" if low != high else ""
            descriptions.append(f"{model.name} {format_percent(retained)}{interval} on {results.task_name(task)}")
    axes.axvline(1.0, color=INK, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(tasks)), [results.task_name(task) for task in tasks])
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    legend(figure, [model.name for _, model in shown])
    return [Plot("retention", "Retention", f"Share of the teacher's score: {'; '.join(descriptions)}.", figure)]


def frontiers(results: Results) -> list[Plot]:
    """Draw scores against latency, one plot per task; with many tasks, one plot of mean retention."""
    models, tasks = results.models, headline_metrics(results.models)
    if len(tasks) > MAX_WIDE_TASKS:
        retained = {number: found for number, model in enumerate(models) if (found := task_retention(model))}
        # Means over different tasks cannot be compared.
        common = set[str]().union(*retained.values()).intersection(*retained.values())
        means = [(n, models[n], fmean(retained[n][task] for task in common)) for n in retained] if common else []
        return frontier("retention", f"mean retention, {len(common)} tasks", models, means)
    plots = []
    for task, metric in tasks:
        name = f"{task}/{metric}"
        scored = [(n, m, m.metrics[name]) for n, m in enumerate(models) if name in m.metrics]
        plots += frontier(
            task if task in TASKS else f"{task}-{metric}",
            f"{results.task_name(task)} {metric_name(metric)}",
            models,
            scored,
        )
    return plots


def frontier(name: str, words: str, models: Sequence[Model], scored: Sequence[tuple[int, Model, float]]) -> list[Plot]:
    """Draw a score against latency, or against size without a bench. A marker's area grows with the model's size."""
    setting = common_setting(models)
    cost, scale, unit = (f"{setting}/latency_ms_p50", 1.0, "ms") if setting else ("bytes", 1e-6, "MB")
    shown = [(number, model, score) for number, model, score in scored if cost in model.metrics]
    if len(shown) < 2:
        return []
    label = f"latency p50, ms ({describe_setting(setting)})" if setting else "size, MB"
    figure, axes = canvas(xlabel=label, ylabel=words)
    largest = max(model.metrics.get("bytes", 1.0) for _, model, _ in shown)
    for number, model, score in shown:
        area = 30 + 170 * model.metrics.get("bytes", largest) / largest
        axes.scatter(
            model.metrics[cost] * scale,
            score,
            s=area,
            alpha=0.85,
            label=legend_label(model.name),
            **color_and_marker(number),
        )
    axes.margins(0.15)
    legend(figure, [model.name for _, model, _ in shown], markerscale=0.6)
    title = f"{words[:1].upper()}{words[1:]} against {'latency' if setting else 'size'}"
    descriptions = "; ".join(f"{m.name} {score:.3f} at {m.metrics[cost] * scale:,.2f} {unit}" for _, m, score in shown)
    return [
        Plot(
            f"frontier-{name}",
            title,
            f"{title}; a marker's area grows with the size of the weights: {descriptions}.",
            figure,
        )
    ]


def curves(results: Results) -> list[Plot]:
    """Draw the learning curves: masked LM first, then each other loss term, for distillation and fine-tuning."""
    runs = [(number, model) for number, model in enumerate(results.models) if model.curve]
    text = [run for run in runs if {"mlm", "heldout_loss"} & keys(run)]
    plots = [learning_curve("learning-curve", "Masked-LM loss", text, masked_lm_key, heldout=True)] if text else []
    for name, group in (("learning-curve", text), ("finetuning-curve", [run for run in runs if run not in text])):
        found = dict.fromkeys(key for run in group for key in sorted(keys(run)))
        parts = [key for key in found if key not in NON_LOSS_KEYS | {"heldout_loss", "mlm", "loss"}]
        for part in parts or (["loss"] if group and group is not text else []):
            shown = [run for run in group if part in keys(run)]
            file = f"{name}-{part}".replace("/", "-").replace("_", "-")
            plots.append(learning_curve(file, curve_title(part), shown, lambda _, part=part: part))
    return plots


def curve_title(key: str) -> str:
    """Return a title for a key of train.jsonl: a loss term, or a metric of an evaluation."""
    if "/" in key or key.startswith("heldout"):
        title = key.replace("heldout_", "held-out ").replace("/", " ").replace("_", " ")
    else:
        title = LOSS_NAMES.get(key, f"training loss, {key}" if key != "loss" else "training loss")
    return title[:1].upper() + title[1:]


def keys(run: tuple[int, Model]) -> set[str]:
    """Return all keys in a run's train.jsonl."""
    return {key for line in run[1].curve for key in line if MetricName.parse(key).metric not in FAILURES}


def masked_lm_key(run: tuple[int, Model]) -> str:
    """Return the key to compare with the held-out loss: the masked-LM term, or the loss if it has no terms."""
    return "mlm" if keys(run) - NON_LOSS_KEYS - {"loss", "heldout_loss", "heldout_agreement"} else "loss"


def learning_curve(
    name: str, title: str, runs: Sequence[tuple[int, Model]], part: Callable[..., str], *, heldout: bool = False
) -> Plot:
    """Draw one loss term over tokens, all runs in one plot; beside the held-out loss it is faint."""
    from matplotlib.ticker import EngFormatter

    figure, axes = canvas(xlabel="tokens", ylabel=title[:1].lower() + title[1:])
    descriptions = []
    for run in runs:
        number, model = run
        label, drawn = legend_label(model.name), color_and_marker(number)
        if heldout and (read := points(model.curve, "heldout_loss", CURVE_POINTS)):
            axes.plot(
                *zip(*read, strict=True), label=label, markersize=4.5, zorder=3, linestyle=line_style(number), **drawn
            )
            descriptions.append(f"{model.name} {read[0][1]:.3f} to {read[-1][1]:.3f} over {read[-1][0]:,.0f} tokens")
            label = "_"
        if read := points(model.curve, part(run), CURVE_POINTS):
            faint = (
                {"alpha": 0.35, "linewidth": 0.9} if heldout else {"linestyle": line_style(number), "linewidth": 1.2}
            )
            axes.plot(*zip(*read, strict=True), label=label, color=drawn["color"], **faint)
            if label != "_":
                descriptions.append(
                    f"{model.name} {read[0][1]:.3f} to {read[-1][1]:.3f} over {read[-1][0]:,.0f} tokens"
                )
    axes.xaxis.set_major_formatter(EngFormatter())
    legend(figure, [model.name for _, model in runs])
    kind = "held out (marked) and in training (faint)" if heldout else "as training went on"
    return Plot(name, title, f"{title} {kind}: {'; '.join(descriptions)}.", figure)
