"""What is known about models: their biographies, the eval and bench records saved beside them, their train.jsonl."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilkit.encoders.sizes import weights_bytes, weights_of
from distilkit.errors import DistilkitError
from distilkit.record import COLLAPSED, MetricName, Record, read_biography
from distilkit.reporting.records import (
    MEASUREMENTS,
    biography,
    controls,
    curve,
    eval_and_bench_records,
    metrics_of,
    models_by_prefix,
    position,
    same_model,
    task_checkpoints,
)
from distilkit.tasks.catalogue import TASKS
from distilkit.tasks.rows import SCORED_ON_TEST

PARTS = ("", "extracted", "student", "control")
# a mark that finetune leaves on a seed, behind the task's name where it ran all of GLUE
MARK = re.compile(rf"((?P<task>\w+)/)?seed-(?P<seed>\d+)/(?P<what>diverged|{COLLAPSED})")


@dataclass(frozen=True)
class Model:
    """One model of a report: what it is called, what made it, what was measured about it."""

    name: str
    place: str  # an absolute path or a hub id
    biography: list[Record]
    facts: dict[str, float]  # metrics, named as in the records, without a position in front
    curve: list[dict[str, Any]]  # the lines of train.jsonl
    given: bool = True  # asked for, not only measured beside one that was

    def since(self, command: str) -> list[Record]:
        """Return the biography from the last record of a command on, [] where there is none."""
        places = [place for place, step in enumerate(self.biography) if step.command == command]
        return self.biography[places[-1] :] if places else []

    @property
    def training(self) -> list[Record]:
        """The `distill` records since the last `init`, all of them where there was no `init`."""
        return [step for step in self.since("init") or self.biography if step.command == "distill"]

    @property
    def tested(self) -> set[str]:
        """Return the tasks that the model was scored on with test rows, there being no validation rows."""
        return {task for step in self.biography for task in step.environment.get(SCORED_ON_TEST, "").split()}

    @property
    def part(self) -> str:
        """What the model is in a distillation: student, control (trained without a teacher), extracted, or neither."""
        if not self.since("init"):
            return ""
        taught = [step.config.get("objective") != "mlm" for step in self.training]
        return "student" if any(taught) else "control" if taught else "extracted"


@dataclass(frozen=True)
class Results:
    """What a report is about: its models, and the records that measured several of them side by side."""

    models: list[Model]
    measured: list[Record]

    def find(self, place: str | None) -> Model | None:
        """Return the model that a record names."""
        return next((model for model in self.models if place and same_model(model.place, place)), None)

    def teacher(self, model: Model) -> str | None:
        """Return what a model is compared with: the teacher of its eval, else the first of its bench, else of init."""
        for command, key in (("eval", "against"), ("bench", "models")):
            for found in reversed(self.measured):
                named = found.config.get(key) if found.command == command else None
                against = named[0] if isinstance(named, list) and named else named
                if against and not same_model(model.place, against) and position(found, model.place) is not None:
                    return str(against)
        born = model.since("init")
        return str(born[0].config["teacher"]) if born and born[0].config.get("teacher") else None

    def part(self, model: Model) -> str:
        """Say what a model is beside the others: teacher, student, control, extracted, or nothing of these."""
        taught = [self.teacher(other) for other in self.models if other.part]
        return model.part or ("teacher" if any(place and same_model(model.place, place) for place in taught) else "")


def read(directories: Sequence[str]) -> Results:
    """Read all that is known about the checkpoints in directories and about the models that they were measured beside.

    Raises DistilkitError for a directory that nothing is known about.
    """
    given = list(dict.fromkeys(path.absolute() for name in directories for path in checkpoints(Path(name))))
    folders = dict.fromkeys(
        [*(Path(name).absolute() for name in directories), *given, *(p for g in given for p in task_checkpoints(g))]
    )
    measured = [found for folder in folders for found in eval_and_bench_records(folder)]
    places = dict.fromkeys(map(str, given))
    for name in (name for found in measured for name in models_by_prefix(found).values()):
        if not any(same_model(place, name) for place in places):
            places[name] = None
    models = [
        Model(name, place, biography(Path(place)), facts(place, measured), curve(Path(place)), given=i < len(given))
        for i, (name, place) in enumerate(zip(labels(list(places)), places, strict=True))
    ]
    for model in models:
        if model.given and not (model.biography or model.facts or model.curve):
            raise DistilkitError(f"nothing to report in '{model.place}': give directories that distilkit wrote")
    return Results(models, measured)


def checkpoints(directory: Path) -> list[Path]:
    """Return the directory where it is one model's, else the checkpoints in it, ancestors first.

    A model may be a checkpoint for each of several tasks.
    """
    own = [step for step in read_biography(directory) if step.command not in ("demo", "report")]
    if own or weights_bytes(directory) or not directory.is_dir() or task_checkpoints(directory):
        return [directory]
    inside = [
        Model(str(path), str(path), read_biography(path), {}, [])
        for path in sorted(directory.iterdir())
        if path.is_dir()
    ]
    found = [model for model in inside if model.biography and weights_bytes(model.place)]
    found.sort(key=lambda model: (len(model.biography), PARTS.index(model.part)))
    if not found and eval_and_bench_records(directory):  # a place for what eval and bench found
        return []
    return [Path(model.place) for model in found] or [directory]


def labels(places: Sequence[str]) -> list[str]:
    """Call each model by its directory's name, with as much of the path as tells it apart; a hub id stays as it is."""
    chosen = list(places)
    for depth in (2, 1):
        ends = ["/".join(Path(place).parts[-depth:]) if Path(place).is_absolute() else place for place in places]
        chosen = [end if ends.count(end) == 1 else longer for end, longer in zip(ends, chosen, strict=True)]
    return ["".join(letter if letter.isprintable() else "�" for letter in name) for name in chosen]


def facts(place: str, measured: Sequence[Record]) -> dict[str, float]:
    """Return the metrics that are about a model: its size, those of its last record, those of eval and bench."""
    known: dict[str, Any] = {**weights_of(Path(place))}
    made = [step for step in read_biography(place) if step.command not in MEASUREMENTS]
    if made and made[-1].command != "init":  # init's are about two models
        known |= made[-1].metrics
    for step in [] if made else biography(Path(place)):
        if step.command == "finetune":  # seconds and losses are the task's, not the model's
            known |= {
                name: value for name, value in step.metrics.items() if MetricName.parse(name).task in prefixes(step)
            }
    for found in measured:
        known |= metrics_of(found, place)
    return {name: value for name, value in known.items() if isinstance(value, (int, float))}


def prefixes(done: Record) -> list[str]:
    """Return what the scores of a fine-tuning begin with."""
    return [prefix for prefix, _ in TASKS[done.config["task"]].splits] if done.config["task"] in TASKS else []


def differences(results: Results, model: Model) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return how far a model is from each control on each task: by (task, the control's name) the value and its bounds.

    Of the last eval that held the one against the other.
    """
    apart: dict[tuple[str, str], tuple[float, float, float]] = {}
    for found in results.measured:
        mine = metrics_of(found, model.place)
        for label, place in controls(found).items():
            other = results.find(place)
            if other is None or other is model:
                continue
            for name in map(MetricName.parse, mine):
                wanted = name.comparison == "difference" and name.metric == label and not name.detail
                low, high = (str(name._replace(detail=end)) for end in ("low", "high"))
                if wanted and low in mine:
                    apart[name.task, other.name] = mine[str(name)], mine[low], mine[high]
    return apart


def flaws(model: Model) -> list[str]:
    """Say which seeds a model's scores leave out since they diverged, and which collapsed."""
    said = []
    for step in (step for step in model.biography if step.command == "finetune"):
        for name in step.metrics:
            if mark := MARK.fullmatch(name):
                after = "is left out" if mark["what"] == "diverged" else "gives every row the same answer"
                task = mark["task"] or step.config.get("task")
                said.append(f"{task}: seed {mark['seed']} {mark['what']}, it {after}")
    said += [
        f"{name.removesuffix(f'/{COLLAPSED}')}: it gives every row the same answer"
        for name in model.facts
        if name.endswith(f"/{COLLAPSED}") and not MARK.fullmatch(name)
    ]
    return list(dict.fromkeys(said))


def scores_of(model: Model) -> Iterator[tuple[str, str]]:
    """Yield (task, metric) of every score of a model, as they come in its records."""
    tasks = {prefix for task in TASKS.values() for prefix, _ in task.splits} | {"glue", "custom"}
    for name in model.facts:
        _, task, metric, detail = MetricName.parse(name)
        if task in tasks and not detail and metric != COLLAPSED:
            yield task, metric
