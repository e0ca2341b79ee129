"""A model of a report: its history, the eval and bench records saved beside it, and its learning curve."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilkit.encoders.sizes import count_weights, weights_bytes
from distilkit.errors import DistilkitError
from distilkit.record import FAILURES, MetricName, Record, baselines_by_prefix, read_biography
from distilkit.reporting.records import (
    MEASUREMENTS,
    biography,
    eval_and_bench_records,
    metrics_of,
    models_by_prefix,
    position,
    same_model,
    task_checkpoints,
)
from distilkit.tasks.catalogue import TASKS
from distilkit.tasks.rows import SCORED_ON_TEST
from distilkit.training.log import read_log
from distilkit.wording import task_name

# What the metrics `seed-N/diverged` and so on mean, in words.
SEED_MARKS = {"diverged": "diverged and does not count", **FAILURES}
ROLES = ("", "extracted", "student", "baseline")


@dataclass(frozen=True)
class Model:
    """One model of a report: its name, how it was made, and what was measured."""

    name: str
    location: str  # an absolute path or a hub id
    biography: list[Record]
    metrics: dict[str, float]  # named as in the records, without a position in front
    curve: list[dict[str, Any]]  # the lines of train.jsonl
    given: bool = True  # named on the command line, not only measured beside such a model

    def history_since(self, command: str) -> list[Record]:
        """Return the history from the last record of a command on, [] without one."""
        places = [place for place, step in enumerate(self.biography) if step.command == command]
        return self.biography[places[-1] :] if places else []

    @property
    def training(self) -> list[Record]:
        """The `distill` records since the last `init`; all of them without an `init`."""
        return [step for step in self.history_since("init") or self.biography if step.command == "distill"]

    @property
    def taught_task(self) -> Record | None:
        """The last fine-tuning with a task teacher since the last `init`."""
        own = self.history_since("init")
        return next((step for step in reversed(own) if step.command == "finetune" and step.config.get("teacher")), None)

    @property
    def tested(self) -> set[str]:
        """The tasks that the model was scored on with test rows, for lack of validation rows."""
        return {task for step in self.biography for task in step.environment.get(SCORED_ON_TEST, "").split()}

    @property
    def role(self) -> str:
        """The model's role: student, baseline (trained on text without a teacher), extracted (neither), or ""."""
        if not self.history_since("init"):
            return ""
        taught = [step.config.get("objective") != "mlm" for step in self.training]
        return "student" if any(taught) or self.taught_task else "baseline" if taught else "extracted"

    @property
    def control_roles(self) -> tuple[str, ...]:
        """The roles of models that show what a student's teacher is worth: trained in the same way without it."""
        return ("baseline",) if self.training else ("baseline", "extracted")


@dataclass(frozen=True)
class Results:
    """What a report is about: its models, and the records that measured several of them side by side."""

    models: list[Model]
    measured: list[Record]

    def task_name(self, prefix: str) -> str:
        """Return the name of a task; own rows are called by their file if all models have the same."""
        files = {name for model in self.models if (name := own_rows(model.biography))}
        return task_name(prefix, files.pop() if len(files) == 1 else "")

    def find(self, place: str | None) -> Model | None:
        """Return the model that a record names."""
        return next((model for model in self.models if place and same_model(model.location, place)), None)

    def teacher(self, model: Model) -> str | None:
        """Return the model to compare with: its eval's teacher, its bench's first model, or init's teacher."""
        for command, key in (("eval", "against"), ("bench", "models")):
            for found in reversed(self.measured):
                named = found.config.get(key) if found.command == command else None
                against = named[0] if isinstance(named, list) and named else named
                if against and not same_model(model.location, against) and position(found, model.location) is not None:
                    return str(against)
        born = model.history_since("init")
        return str(born[0].config["teacher"]) if born and born[0].config.get("teacher") else None

    def role(self, model: Model) -> str:
        """Return a model's role among the others: teacher, student, baseline, extracted, or ""."""
        taught = [self.teacher(other) for other in self.models if other.role]
        return model.role or ("teacher" if any(place and same_model(model.location, place) for place in taught) else "")


def read(directories: Sequence[str]) -> Results:
    """Read everything known about the checkpoints in directories, and about the models measured beside them.

    Raises DistilkitError for a directory without any record.
    """
    given = list(dict.fromkeys(path.absolute() for name in directories for path in checkpoints(Path(name))))
    folders = dict.fromkeys(
        [*(Path(name).absolute() for name in directories), *given, *(p for g in given for p in task_checkpoints(g))]
    )
    measured = list[Record]()
    for found in (found for folder in folders for found in eval_and_bench_records(folder)):
        if found not in measured:  # a record of several models is saved beside each of them
            measured.append(found)
    measured.sort(key=lambda found: found.environment.get("date", ""))  # the newest counts
    places = dict.fromkeys(map(str, given))
    for name in (name for found in measured for name in models_by_prefix(found).values()):
        if not any(same_model(place, name) for place in places):
            places[name] = None
    models = [
        Model(
            name,
            place,
            biography(Path(place)),
            collect_metrics(place, measured),
            read_log(Path(place)),
            given=i < len(given),
        )
        for i, (name, place) in enumerate(zip(labels(list(places)), places, strict=True))
    ]
    if not measured and not any(model.biography or model.curve for model in models):
        raise DistilkitError(f"no records in '{directories[0]}': give directories that distilkit wrote")
    for model in models:
        if model.given and not (model.biography or model.metrics or model.curve):
            raise DistilkitError(f"nothing to report in '{model.location}': give directories that distilkit wrote")
    return Results(models, measured)


def checkpoints(directory: Path) -> list[Path]:
    """Return the directory itself if it is one model, else the checkpoints in it, ancestors first.

    A model may consist of one checkpoint per task.
    """
    own = [step for step in read_biography(directory) if step.command not in ("demo", "report")]
    if own or weights_bytes(directory) or not directory.is_dir() or task_checkpoints(directory):
        return [directory]
    inside = [
        Model(str(path), str(path), read_biography(path), {}, [])
        for path in sorted(directory.iterdir())
        if path.is_dir()
    ]
    found = [model for model in inside if model.biography and weights_bytes(model.location)]
    found.sort(key=lambda model: (len(model.biography), ROLES.index(model.role)))
    if not found and eval_and_bench_records(directory):  # a folder for eval and bench records
        return []
    return [Path(model.location) for model in found] or [directory]


def labels(places: Sequence[str]) -> list[str]:
    """Name each model by its directory, with as much of the path as makes the name unique; hub ids stay as they are."""
    chosen = list(places)
    for depth in (2, 1):
        ends = ["/".join(Path(place).parts[-depth:]) if Path(place).is_absolute() else place for place in places]
        chosen = [end if ends.count(end) == 1 else longer for end, longer in zip(ends, chosen, strict=True)]
    return ["".join(letter if letter.isprintable() else "�" for letter in name) for name in chosen]


def collect_metrics(place: str, measured: Sequence[Record]) -> dict[str, float]:
    """Collect the metrics of a model: its size, those of its last record, and those of eval and bench."""
    known: dict[str, Any] = {**count_weights(Path(place))}
    made = [step for step in read_biography(place) if step.command not in MEASUREMENTS]
    if made and made[-1].command != "init":  # init's metrics are about two models
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
    """Return the metric prefixes of a fine-tuning's scores."""
    task = done.config.get("task")
    return [prefix for prefix, _ in TASKS[task].splits] if task in TASKS else []


def differences(results: Results, model: Model) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return the differences to each baseline on each task: (task, name of the baseline) -> value, low, high.

    They come from the last eval that compared the two.
    """
    apart: dict[tuple[str, str], tuple[float, float, float]] = {}
    for found in results.measured:
        mine = metrics_of(found, model.location)
        for label, place in baselines_by_prefix(found.config.get("control")).items():
            other = results.find(place)
            if other is None or other is model:
                continue
            for name in map(MetricName.parse, mine):
                wanted = name.comparison == "difference" and name.metric == label and not name.detail
                low, high = (str(name._replace(detail=end)) for end in ("low", "high"))
                if wanted and {low, high} <= mine.keys():
                    apart[name.task, other.name] = mine[str(name)], mine[low], mine[high]
    return apart


def own_rows(biography: Sequence[Record]) -> str:
    """Return the file or folder name of the rows of a model's last fine-tuning, "" for a hub data set."""
    tuned = next((step for step in reversed(biography) if step.command == "finetune"), None)
    place = Path(str(tuned.config.get("data") or "")) if tuned else Path()
    return place.name if place.is_absolute() else ""  # records have local paths in full


def seed_warnings(model: Model) -> list[str]:
    """Return a warning for each seed that diverged, and so does not count, or that collapsed."""
    warnings = []
    for step in (step for step in model.biography if step.command == "finetune"):
        for name in map(MetricName.parse, step.metrics):
            if name.seed and name.metric in SEED_MARKS:
                task = name.task if name.task != name.subject else step.config.get("task")
                warnings.append(f"{task}: seed {name.seed} {SEED_MARKS[name.metric]}")
    warnings += [
        f"{name.task}: it {FAILURES[name.metric]}"
        for name in map(MetricName.parse, model.metrics)
        if name.metric in FAILURES and not name.seed
    ]
    return list(dict.fromkeys(warnings))


def scores_of(model: Model) -> Iterator[tuple[str, str]]:
    """Yield (task, metric) for each score of a model, in the order of its records."""
    tasks = {prefix for task in TASKS.values() for prefix, _ in task.splits} | {"glue", "custom"}
    for name in model.metrics:
        _, task, metric, detail = MetricName.parse(name)
        if task in tasks and not detail and metric not in FAILURES:
            yield task, metric
