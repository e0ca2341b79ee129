"""The headline of a report: how the model was made, how much smaller and faster it is, and its retention."""

from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from distilkit.formatting import format_duration, format_millions, format_percent
from distilkit.record import FAILURES, MetricName
from distilkit.reporting.models import Model, Results, differences
from distilkit.reporting.records import position
from distilkit.reporting.tables import bounds, settings
from distilkit.wording import describe_setting

SIGNIFICANCE_NOTE = "baseline trained without a teacher; counted if the 95 % confidence interval excludes 0"


class Tile(NamedTuple):
    """One figure of the headline."""

    figure: str
    label: str
    detail: str = ""


def main_model(results: Results) -> Model | None:
    """Return the model that a report is about: the student with the most measurements, or else what init made."""

    def rank(model: Model) -> tuple[bool, bool, bool]:
        return model.role == "student", bool(task_retention(model)), "speedup" in model.metrics

    made = [model for model in results.models if model.role]
    return max(made, key=rank) if made else None


def title(results: Results) -> str:
    """Title a report by its main model."""
    main = main_model(results)
    if main is not None:
        return main.name
    return results.models[0].name if len(results.models) == 1 else f"{len(results.models)} models"


def description(results: Results, model: Model) -> str:
    """Describe how a model was made."""
    sentences, tuned = [], dict[str, list[str]]()
    for step in model.history_since("init") or model.biography:
        if step.command == "init":
            layers, depth = (step.metrics.get(f"{name}/layers") for name in ("student", "teacher"))
            share = f"{layers:.0f} of the {depth:.0f} layers" if layers and depth else "some of the layers"
            random = ", with random weights" if step.environment.get("weights") == "random" else ""
            sentences.append(f"{share} of {display_name(results, step.config.get('teacher'))}{random}")
        elif step.command == "distill":
            how = "trained on {} by masked LM alone" if step.config.get("objective") == "mlm" else "distilled on {}"
            amount = f", {step.metrics['tokens']:,.0f} tokens" if "tokens" in step.metrics else ""
            took = f" in {format_duration(step.metrics['seconds'])}" if "seconds" in step.metrics else ""
            sentences.append(how.format(display_name(results, step.config.get("corpus"))) + amount + took)
        elif step.command == "finetune":
            task = str(step.config.get("task", "a task"))
            taught = " with a task teacher" if step.config.get("teacher") else ""
            tuned.setdefault(taught, []).append(results.task_name(task))
    sentences += [f"fine-tuned on {', '.join(names)}{taught}" for taught, names in tuned.items()]
    text = "; ".join(sentences)
    return text[:1].upper() + text[1:] + "." if text else ""


def display_name(results: Results, place: str | None) -> str:
    """Return the display name of a recorded model: its name in the report, or else the last part of its path."""
    model = results.find(place)
    if model is not None:
        return model.name
    return "an unnamed one" if not place else Path(place).name if Path(place).is_absolute() else str(place)


def tiles(results: Results, model: Model) -> list[Tile]:
    """Return the headline figures that the records contain."""
    return [*size(results, model), *speed(results, model), *retention(results, model), *beside_baseline(results, model)]


def size(results: Results, model: Model) -> list[Tile]:
    """Compare a model's size with its teacher's."""
    teacher = results.find(results.teacher(model))
    small, large = model.metrics.get("parameters"), teacher.metrics.get("parameters") if teacher else None
    born = model.history_since("init")
    if large is None and born:  # two masked-LM models, so that heads do not count
        small, large = (born[0].metrics.get(f"{name}/parameters") for name in ("student", "teacher"))
    if not small or not large:
        return []
    change = "smaller" if small <= large else "larger"
    return [
        Tile(
            f"{abs(1 - small / large):.0%}", change, f"{format_millions(small)} of {format_millions(large)} parameters"
        )
    ]


def speed(results: Results, model: Model) -> list[Tile]:
    """Compare a model's speed with the first model of its bench."""
    ratio, cells = model.metrics.get("speedup"), settings([model])
    mine = [found for found in results.measured if position(found, model.location) is not None]
    measured = [found.config["models"][0] for found in mine if found.command == "bench"]
    if ratio is None or not measured:
        return []
    detail = describe_setting(cells[0]) if len(cells) == 1 else f"median of {len(cells)} settings"
    return [Tile(f"{ratio:.2f}×", f"as fast as {display_name(results, measured[-1])}", detail)]


def task_retention(model: Model) -> dict[str, float]:
    """Return the retention per task without WNLI, which no model learns; only GLUE's if there is one."""
    parsed = {name: MetricName.parse(name) for name in model.metrics}
    plain = {name: parts for name, parts in parsed.items() if parts.comparison == "retention" and not parts.metric}
    retained = {parts.task: model.metrics[name] for name, parts in plain.items() if not parts.detail}
    name = next((name for name in ("glue_without_wnli", "glue") if name in retained), None)
    if name or len(retained) < 2:
        return {name: retained[name]} if name else retained
    return {task: value for task, value in retained.items() if task != "wnli"}


def retention(results: Results, model: Model) -> list[Tile]:
    """Return the retention of the teacher's scores."""
    retained = task_retention(model)
    teacher = display_name(results, results.teacher(model))
    if len(retained) > 1:
        without = "retention/wnli" in model.metrics
        worst = min(retained, key=lambda task: retained[task])
        detail = f"mean of {len(retained)} tasks{', without WNLI' if without else ''}"
        detail += f"; lowest on {results.task_name(worst)}: {format_percent(retained[worst])}"
        return [Tile(format_percent(fmean(retained.values())), f"of {teacher}'s scores retained", detail)]
    return [
        Tile(
            format_percent(value),
            f"of {teacher}'s score retained",
            ", 95 % confidence interval ".join(filter(None, [results.task_name(task), interval])) + warning,
        )
        for task, value in retained.items()
        for interval in [bounds(model, f"retention/{task}", "low", "high", format_percent)]
        for warning in ["".join(f"; {words}" for mark, words in FAILURES.items() if f"{task}/{mark}" in model.metrics)]
    ]


def beside_baseline(results: Results, model: Model) -> list[Tile]:
    """Count the tasks on which a student is significantly better than a baseline: the interval excludes 0."""
    apart = differences(results, model) if model.role == "student" else {}
    for other in results.models:
        found = [bounds for (_, name), bounds in apart.items() if other.role == "baseline" and name == other.name]
        if found:
            better, worse = sum(low > 0 for _, low, _ in found), sum(high < 0 for _, _, high in found)
            return [
                Tile(
                    f"{better} of {len(found)}",
                    f"tasks significantly better than {other.name}",
                    f"{worse} worse; {SIGNIFICANCE_NOTE}",
                )
            ]
    return []
