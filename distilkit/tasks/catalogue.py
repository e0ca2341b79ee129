"""Task rows: nine of GLUE, SQuAD 1.1 and 2.0, IMDb and your own, each with its published settings."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.options.spec import flag
from distilkit.options.tasks import EvalOptions, FinetuneOptions, TaskOptions
from distilkit.record import read_biography

C = TypeVar("C", EvalOptions, FinetuneOptions)
V = TypeVar("V", bound=Any)
Kind = Literal["classification", "multi-label", "regression", "span"]
HEADS: dict[Kind, checkpoint.Head] = {
    "classification": "sequence-classification",
    "multi-label": "sequence-classification",
    "regression": "sequence-classification",
    "span": "question-answering",
}
METRICS: dict[Kind, tuple[str, ...]] = {  # of a custom task
    "classification": ("accuracy", "f1_macro"),
    "multi-label": ("f1_micro", "f1_macro", "accuracy"),
    "regression": ("pearson", "spearmanr"),
}
SPAN_OPTIONS = ("stride", "n_best", "max_answer_length", "null_threshold")
SETTINGS = ("batch_size", "lr", "epochs", "max_length", "long", *SPAN_OPTIONS)  # what a config may leave to the task


@dataclass(frozen=True)
class Task:
    """A benchmark as a row: where its data are, which columns matter, what is predicted and how it is scored."""

    name: str
    kind: Kind
    text: tuple[str, ...]
    metrics: tuple[str, ...]  # the first is the headline
    labels: tuple[str, ...] = ()
    label: str = "label"
    dataset: str = ""  # on the hub; none for a custom task
    subset: str | None = None
    splits: tuple[tuple[str, str], ...] = ()  # (metric prefix, split); the task's own first
    tests: tuple[tuple[str, str, str], ...] = ()  # (file for GLUE's leaderboard, subset, split)
    fallback: str = ""  # the split to score where there is no validation split
    # Settings, unless given: GLUE's are those of transformers' run_glue.py (README of examples/pytorch/
    # text-classification), of which 32 rows and 3 epochs are Devlin et al. 2018's too (section 4.1; 2e-5 is one of the
    # four rates that they tried).
    batch_size: int = 32
    lr: float = 2e-5
    epochs: float = 3.0
    max_length: int = 128
    long: str = "head"  # what other tools, which know nothing of the training, will read of a long text too
    stride: int = 128  # this and the next three: of the BERT authors' run_squad.py
    n_best: int = 20
    max_answer_length: int = 30
    null_threshold: float = 0.0

    @property
    def files(self) -> list[str]:
        """The names of the files that predictions are written to."""
        if self.kind == "span":
            return ["predictions.json", *(["null_odds.json"] if self.name == "squad_v2" else [])]
        return [f"{name}.tsv" for name, *_ in self.tests or self.splits]


def _glue(
    name: str, file: str, text: str, metrics: str, labels: str, kind: Kind = "classification", **more: Any
) -> Task:
    words = tuple(text.split()), tuple(metrics.split()), tuple(labels.split())
    splits, tests = ((name, "validation"),), ((file, name, "test"),)
    more = {"dataset": "nyu-mll/glue", "subset": name, "splits": splits, "tests": tests} | more
    return Task(name, kind, *words, **more)


MNLI: dict[str, Any] = {
    "splits": (("mnli", "validation_matched"), ("mnli_mismatched", "validation_mismatched")),
    "tests": (("MNLI-m", "mnli", "test_matched"), ("MNLI-mm", "mnli", "test_mismatched"), ("AX", "ax", "test")),
}
GLUE = (
    _glue("cola", "CoLA", "sentence", "matthews_correlation", "unacceptable acceptable"),
    _glue("sst2", "SST-2", "sentence", "accuracy", "negative positive"),
    _glue(
        "mrpc", "MRPC", "sentence1 sentence2", "f1 accuracy", "not_equivalent equivalent", epochs=5.0
    ),  # "tiny": its README
    _glue("qqp", "QQP", "question1 question2", "f1 accuracy", "not_duplicate duplicate"),
    _glue("stsb", "STS-B", "sentence1 sentence2", "pearson spearmanr", "", "regression"),
    _glue("mnli", "MNLI-m", "premise hypothesis", "accuracy", "entailment neutral contradiction", **MNLI),
    _glue("qnli", "QNLI", "question sentence", "accuracy", "entailment not_entailment"),
    _glue("rte", "RTE", "sentence1 sentence2", "accuracy", "entailment not_entailment"),
    _glue("wnli", "WNLI", "sentence1 sentence2", "accuracy", "not_entailment entailment", epochs=5.0),  # likewise
)
TASKS = {task.name: task for task in GLUE} | {
    name: Task(
        name,
        "span",
        ("question", "context"),
        ("f1", "exact_match"),
        label="answers",
        dataset=f"rajpurkar/{name}",
        splits=((name, "validation"),),
        # run_qa.py's README (examples/pytorch/question-answering), with which BERT has an F1 of 88.5 on 1.1
        batch_size=12,
        lr=3e-5,
        epochs=2.0,
        max_length=384,
    )
    for name in ("squad", "squad_v2")
}
TASKS["imdb"] = Task(
    "imdb",
    "classification",
    ("text",),
    ("accuracy",),
    ("neg", "pos"),
    dataset="stanfordnlp/imdb",
    splits=(("imdb", "validation"),),
    fallback="test",
    # Sun et al. 2019 (arXiv 1905.05583, section 5.2)
    batch_size=24,
    lr=2e-5,
    epochs=4.0,
    max_length=512,
)
SCALE = {"stsb": (0.0, 5.0)}  # what a number may be, where that is known
HUB_NAME = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?::([\w.-]+))?")


def resolve(config: TaskOptions) -> list[Task]:
    """Return the tasks that --task names: one, nine for `glue`, or a custom one made of --text and --label.

    A custom task has neither kind nor labels yet: they come from the training rows (labels.learn) or from the model.
    Raises DistilkitError for an unknown name, and where --text, --label, --kind and --data do not go with it.
    """
    if config.task is None:
        raise DistilkitError("no task: name one with --task")
    if config.task == "custom":
        return [_custom(config)]
    if config.text or config.label or config.kind:
        raise DistilkitError(f"--text, --label and --kind are for --task custom, not for {config.task}: leave them out")
    if config.task == "glue":
        return list(GLUE)
    return [TASKS[config.task]]


def _custom(config: TaskOptions) -> Task:
    if not config.text or len(config.text) > 2 or not config.label or config.data is None:
        raise DistilkitError("--task custom needs --data, --label and one or two --text columns: give all three")
    task = Task(
        "custom", "classification", config.text, METRICS["classification"], label=config.label,
        splits=(("custom", "validation"),), fallback="test",
    )  # fmt: skip
    name = HUB_NAME.fullmatch(str(config.data))
    if config.data.exists() or name is None:
        return task
    return replace(task, dataset=name.group(1), subset=name.group(2))


def with_task_defaults(task: Task, config: FinetuneOptions) -> FinetuneOptions:
    """Return a config with the task's own value for every setting that was not given.

    Raises DistilkitError where --long is given for rows of two texts.
    """
    return _fill(task, config, {})


def with_training_settings(task: Task, config: EvalOptions, directory: str) -> EvalOptions:
    """Return a config to score a checkpoint with: what is not given is as it was trained, else as the task has it."""
    records = [done.config for done in read_biography(directory) if done.command == "finetune"]
    trained = records[-1] if records and records[-1]["task"] == task.name else {}
    return _fill(task, config, trained)


def _fill(task: Task, config: C, before: dict[str, Any]) -> C:
    given = {name: getattr(config, name) for name in SETTINGS if hasattr(config, name)}
    own = {name: getattr(task, name) for name in given} | {k: v for k, v in before.items() if v is not None}
    values = {name: own[name] if value is None else value for name, value in given.items()}
    for name in SPAN_OPTIONS:
        if task.kind != "span" and given[name] is not None:
            raise DistilkitError(f"{flag(name)} is for --task squad and squad_v2, not for {task.name}: leave it out")
    if values["long"] != "head" and len(task.text) > 1:
        raise DistilkitError(f"--long {values['long']} is for rows of one text, and {task.name} has two: leave it out")
    return replace(config, **values)


def glue_average_tasks(chosen: Sequence[Task]) -> dict[str, list[str]]:
    """Return which tasks each of the GLUE averages is over; there is none for a single task."""
    names = [task.name for task in chosen]
    without = [name for name in names if name != "wnli"]
    return {"glue/average": names, "glue/average_without_wnli": without} if len(chosen) > 1 else {}


def averages(scores: Mapping[str, V], chosen: Sequence[Task]) -> dict[str, V]:
    """Return the GLUE averages of all nine tasks: a task counts the mean of its metrics, MNLI that of matched."""
    means = {
        task.name: sum(scores[f"{task.name}/{metric}"] for metric in task.metrics) / len(task.metrics)
        for task in (chosen if len(chosen) > 1 else ())
    }
    return {name: sum(means[task] for task in names) / len(names) for name, names in glue_average_tasks(chosen).items()}
