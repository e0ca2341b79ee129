"""What is missing in a report, and the command that would supply it."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from distilkit.record import Record
from distilkit.reporting.models import Model, Results
from distilkit.reporting.provenance import reproduction_command, typed_options
from distilkit.reporting.records import task_checkpoints
from distilkit.reporting.summary import main_model, task_retention
from distilkit.reporting.tables import headline_metrics

TEACHER_OPTIONS = (
    *("teacher", "objective", "temperature", "ce_positions", "ce_until", "layer_map", "hidden_loss"),
    *("teacher_cache", "cache_size", "cache_maskings"),
)

SHARED_WITH_EVAL = ("task", "data", "text", "label", "kind", "max_length")


class NextStep(NamedTuple):
    """Something that is missing, with a command that would supply it if there is one."""

    text: str
    command: str = ""


def next_steps(results: Results, base: str) -> list[NextStep]:
    """List what a reader would want to know but the records do not contain.

    The commands are written as typed in the directory `base`.
    """
    main = main_model(results)
    return [
        *missing_benchmark(results, main, base),
        *missing_score(results, main, base),
        *(missing_comparisons(results, main, base) if main else []),
        *missing_curve(results),
    ]


def missing_comparisons(results: Results, main: Model, base: str) -> list[NextStep]:
    """Suggest what would show how good the main model is: a teacher, a baseline, several seeds."""
    return [
        *missing_retention(results, main, base),
        *missing_baseline(results, main, base),
        *single_seed(main, base),
    ]


def missing_benchmark(results: Results, main: Model | None, base: str) -> list[NextStep]:
    """Suggest a bench if there is none: of the fine-tuned models if there are any, so that all have the same head."""
    if any("/latency_ms_" in name for model in results.models for name in model.metrics):
        return []
    tuned = [model for model in results.models if headline_metrics([model])]
    teacher = results.teacher(main) if main else None
    named = [*([teacher] if teacher else []), *(model.location for model in tuned or results.models)]
    places = dict.fromkeys(
        str(next(iter(task_checkpoints(Path(place))), place)) for place in named
    )  # one task's checkpoint is timed
    words = [relative_path(place, base) for place in places]
    text = "No bench record, so latency and speed-up are unknown."
    return [NextStep(text, shlex.join(["distilkit", "bench", *words]))]


def missing_score(results: Results, main: Model | None, base: str) -> list[NextStep]:
    """Suggest a fine-tuning if no model was scored on a task."""
    if headline_metrics(results.models):
        return []
    place = relative_path((main or results.models[0]).location, base)
    command = shlex.join(["distilkit", "finetune", place, "--task", "NAME", "-o", f"{place}-NAME"])
    return [NextStep("No eval or finetune record, so the quality on tasks is unknown.", command)]


def missing_retention(results: Results, main: Model, base: str) -> list[NextStep]:
    """Suggest an eval against the teacher if the student was scored alone; name a missing interval."""
    retained = task_retention(main)
    if retained and all(f"retention/{task}/low" not in main.metrics for task in retained):
        return [NextStep("The eval record has no confidence interval for the retention.")]
    tuned = next((step for step in reversed(main.biography) if step.command == "finetune"), None)
    if retained or tuned is None:
        return []
    given = {name: value for name, value in typed_options(tuned).items() if name in SHARED_WITH_EVAL}
    teacher = next(
        (other for other in results.models if other is not main and not other.role and headline_metrics([other])), None
    )
    compared = teacher.location if teacher else "TEACHER"
    config = {**given, "models": [main.location], "against": compared}
    line = reproduction_command(Record(command="eval", config=config, metrics={}, environment={}), base)
    text = "No eval record against a teacher, so the retention is unknown."
    return [NextStep(text, line)]


def missing_baseline(results: Results, main: Model, base: str) -> list[NextStep]:
    """Suggest the same training without the teacher, to show the teacher's effect: fine-tuning, or masked LM."""
    if main.role != "student" or any(results.role(model) in main.control_roles for model in results.models):
        return []
    on_text = next((step for step in reversed(main.training) if step.config.get("objective") != "mlm"), None)
    made = on_text or main.taught_task
    if made is None or (on_text and made.environment.get("head", "masked-lm") != "masked-lm"):
        return []
    config: dict[str, Any] = {
        name: value
        for name, value in typed_options(made).items()
        if name not in TEACHER_OPTIONS and not name.startswith("alpha_")
    }
    config |= {"objective": "mlm"} if on_text else {}
    config |= {"output": f"{made.config.get('output', main.location)}-control"}
    line = reproduction_command(Record(command=made.command, config=config, metrics={}, environment={}), base)
    return [
        NextStep(
            "No baseline had the same training without the teacher, so the effect of the teacher is unknown.", line
        )
    ]


def single_seed(main: Model, base: str) -> list[NextStep]:
    """Suggest several seeds if a score comes from one."""
    own = main.history_since("init") or main.biography  # not the fine-tuning of its teacher
    every = (step for step in reversed(own) if step.command == "finetune")
    tuned = next((step for step in every if int(step.config.get("seeds") or 1) == 1), None)
    if tuned is None:
        return []
    config = {**typed_options(tuned), "seeds": 5, "output": f"{tuned.config.get('output', main.location)}-seeds"}
    line = reproduction_command(Record(command="finetune", config=config, metrics={}, environment={}), base)
    return [NextStep("Scores come from one seed, so the variation between seeds is unknown.", line)]


def missing_curve(results: Results) -> list[NextStep]:
    """Name trained models without a train.jsonl."""
    trained = ("distill", "finetune")
    names = [
        model.name
        for model in results.models
        if not model.curve
        and model.biography
        and model.biography[-1].command in trained
        and not task_checkpoints(Path(model.location))
    ]
    return [NextStep(f"No learning curve for {', '.join(names)}: train.jsonl is missing.")] if names else []


def relative_path(place: str, base: str) -> str:
    """Return a location as the report's commands write it."""
    return str(Path(place).relative_to(base)) if base and Path(place).is_relative_to(base) else place
