"""The supported tasks: nine of GLUE, SQuAD 1.1 and 2.0, IMDb and custom ones, each with its published settings."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from distilkit.data.conll import TAGS, WORDS
from distilkit.encoders.contents import Head
from distilkit.errors import DistilkitError
from distilkit.options.tasks import TaskOptions
from distilkit.record import read_biography

V = TypeVar("V", bound=Any)
Kind = Literal["classification", "multi-label", "regression", "span", "tokens", "retrieval"]
HEADS: dict[Kind, Head] = {
    "classification": "sequence-classification",
    "multi-label": "sequence-classification",
    "regression": "sequence-classification",
    "span": "question-answering",
    "tokens": "token-classification",
    "retrieval": "encoder",
}
HUB_TASKS: dict[Kind, str] = {  # names of the kinds on the hub, in model cards
    "classification": "text-classification",
    "multi-label": "text-classification",
    "regression": "text-classification",
    "span": "question-answering",
    "tokens": "token-classification",
    "retrieval": "sentence-similarity",
}
METRICS: dict[Kind, tuple[str, ...]] = {  # of a custom task
    "classification": ("accuracy", "f1_macro"),
    "multi-label": ("f1_micro", "f1_macro", "accuracy"),
    "regression": ("pearson", "spearmanr"),
    "tokens": ("f1", "precision", "recall", "accuracy"),  # of entities; accuracy of words
}
MORE_METRICS: dict[Kind, tuple[str, ...]] = {"classification": ("matthews_correlation",)}  # for --metric
WORD_METRICS = ("accuracy", "f1_macro")  # of tags that mark no entities, such as parts of speech


@dataclass(frozen=True)
class Task:
    """A task: where its rows are, which columns it uses, what is predicted, and how predictions are scored."""

    name: str
    kind: Kind
    text: tuple[str, ...]  # one or two columns
    metrics: tuple[str, ...]  # the first is the headline
    labels: tuple[str, ...] = ()  # label names in the order of their ids; empty for regression and spans
    label: str = "label"  # the label column
    scale: tuple[float, float] | None = None  # lowest and highest label of a regression task, if known
    dataset: str = ""  # on the hub; empty for a custom task in a folder
    subset: str | None = None
    splits: tuple[tuple[str, str], ...] = ()  # (metric prefix, validation split); the task's own first
    tests: tuple[tuple[str, str, str], ...] = ()  # (file for GLUE's leaderboard, subset, split)
    fallback: str = ""  # the split to score if there is no validation split
    zero_shot: bool = False  # scored by the embeddings of a sentence encoder, without training
    validation_split: float = 0.0  # share of the training rows that are held out, if no file has validation rows
    data: str = ""  # the name of a custom task's file, folder or hub data set
    headline: str = ""  # a metric of the user's choice, which becomes the first
    leaderboard_names: bool = False  # GLUE's leaderboard expects label names, not ids
    # Defaults of options. GLUE's are those of transformers' run_glue.py (README of examples/pytorch/
    # text-classification). Devlin et al. 2018 (section 4.1) also use 32 rows and 3 epochs; 2e-5 is one of the four
    # learning rates that they tried.
    batch_size: int = 32
    lr: float = 2e-5
    epochs: float = 3.0
    max_length: int = 128
    long: str = "head"  # tools that load the checkpoint later keep the head of a long text too
    stride: int = 128  # this and the next three are from the BERT authors' run_squad.py
    n_best: int = 20
    max_answer_length: int = 30
    null_threshold: float = 0.0

    @property
    def title(self) -> str:
        """The task's name in messages; for a custom task, the name of its data."""
        return self.data or self.name

    @property
    def files(self) -> list[str]:
        """Names of the files that predictions are written to."""
        if self.kind == "span":
            return ["predictions.json", *(["null_odds.json"] if self.name == "squad_v2" else [])]
        return [f"{name}.tsv" for name, *_ in self.tests or self.splits]


def _glue(
    name: str, file: str, text: str, metrics: str, labels: str, kind: Kind = "classification", **more: Any
) -> Task:
    columns = tuple(text.split()), tuple(metrics.split()), tuple(labels.split())
    splits, tests = ((name, "validation"),), ((file, name, "test"),)
    more = {"dataset": "nyu-mll/glue", "subset": name, "splits": splits, "tests": tests} | more
    return Task(name, kind, *columns, **more)


MNLI: dict[str, Any] = {
    "splits": (("mnli", "validation_matched"), ("mnli_mismatched", "validation_mismatched")),
    "tests": (("MNLI-m", "mnli", "test_matched"), ("MNLI-mm", "mnli", "test_mismatched"), ("AX", "ax", "test")),
    "leaderboard_names": True,
}
GLUE = (
    _glue("cola", "CoLA", "sentence", "matthews_correlation", "unacceptable acceptable"),
    _glue("sst2", "SST-2", "sentence", "accuracy", "negative positive"),
    # run_glue.py's README trains the two smallest tasks, MRPC and WNLI, for 5 epochs.
    _glue("mrpc", "MRPC", "sentence1 sentence2", "f1 accuracy", "not_equivalent equivalent", epochs=5.0),
    _glue("qqp", "QQP", "question1 question2", "f1 accuracy", "not_duplicate duplicate"),
    _glue("stsb", "STS-B", "sentence1 sentence2", "pearson spearmanr", "", "regression", scale=(0.0, 5.0)),
    _glue("mnli", "MNLI-m", "premise hypothesis", "accuracy", "entailment neutral contradiction", **MNLI),
    _glue("qnli", "QNLI", "question sentence", "accuracy", "entailment not_entailment", leaderboard_names=True),
    _glue("rte", "RTE", "sentence1 sentence2", "accuracy", "entailment not_entailment", leaderboard_names=True),
    _glue("wnli", "WNLI", "sentence1 sentence2", "accuracy", "not_entailment entailment", epochs=5.0),
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
        # From run_qa.py's README (examples/pytorch/question-answering): BERT reaches F1 88.5 on SQuAD 1.1 with these.
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
    # From Sun et al. 2019 (arXiv 1905.05583, section 5.2).
    batch_size=24,
    lr=2e-5,
    epochs=4.0,
    max_length=512,
)
TASKS["sts"] = Task(
    "sts",
    "regression",
    ("sentence1", "sentence2"),
    ("spearmanr", "pearson"),
    dataset="nyu-mll/glue",
    subset="stsb",
    splits=(("sts", "validation"),),
    fallback="test",
    zero_shot=True,
)
TASKS["retrieval"] = Task(
    "retrieval",
    "retrieval",
    ("query", "passage"),
    ("ndcg_at_10", "mrr_at_10", "recall_at_1", "recall_at_10"),
    splits=(("retrieval", "test"),),
    zero_shot=True,
)
HUB_NAME = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?::([\w.-]+))?")


def resolve(options: TaskOptions) -> list[Task]:
    """Return the tasks of --task: one task, all nine for `glue`, or a custom task from --text and --label.

    The kind and labels of a custom task are set later, from the training rows (labels.infer_labels) or from the model
    (labels.labels_from_model).
    Raises DistilkitError if there is no task, or if --text, --label, --kind and --data do not fit it.
    """
    if options.task is None:
        raise DistilkitError("no task: name one with --task")
    if options.task == "custom":
        return [_custom_task(options)]
    task = TASKS.get(options.task)
    if task and task.zero_shot:
        return [headline_first(_with_columns(task, options), options.metric)]
    if options.text or options.label or options.kind or options.validation_split:
        raise DistilkitError(
            f"--text, --label, --kind and --validation-split require --task custom, not {options.task}: remove them"
        )
    chosen = list(GLUE) if options.task == "glue" else [TASKS[options.task]]
    return [headline_first(task, options.metric) for task in chosen]


def headline_first(task: Task, metric: str | None) -> Task:
    """Return a task with a metric as its headline; without one, the task as it is.

    Raises DistilkitError if the task has no such metric.
    """
    known = dict.fromkeys((*task.metrics, *MORE_METRICS.get(task.kind, ())))
    if metric and metric not in known:
        raise DistilkitError(f"--metric {metric} does not fit --task {task.name}: give one of {', '.join(known)}")
    return replace(task, metrics=tuple(dict.fromkeys((metric, *task.metrics)))) if metric else task


def _with_columns(task: Task, options: TaskOptions) -> Task:
    """Return a zero-shot task with the columns that were given."""
    if options.kind or options.long or options.validation_split:
        raise DistilkitError(f"--kind, --long and --validation-split do not apply to --task {task.name}: remove them")
    if options.text and len(options.text) != 2:
        raise DistilkitError(f"--text takes two columns for --task {task.name}: give both")
    return replace(task, text=options.text or task.text, label=options.label or task.label)


def _custom_task(options: TaskOptions) -> Task:
    tokens = options.kind == "tokens"
    text, label = options.text or (tokens and (WORDS,)), options.label or (tokens and TAGS)
    if not text or len(text) > 2 or not label or options.data is None:
        raise DistilkitError(
            "--task custom requires --data, --label and one or two --text columns: add what is missing"
        )
    if tokens and len(text) > 1:
        raise DistilkitError("--kind tokens takes one --text column, with the words of a sentence: give one")
    kind: Kind = "tokens" if tokens else "classification"
    task = Task(
        "custom",
        kind,
        text,
        METRICS[kind],
        label=label,
        splits=(("custom", "validation"),),
        fallback="test",
        validation_split=options.validation_split or 0.0,
        headline=options.metric or "",
        data=options.data.name,
    )
    name = HUB_NAME.fullmatch(str(options.data))
    if options.data.exists() or name is None:
        return task
    return replace(task, dataset=name.group(1), subset=name.group(2))


def task_of_pairs(name: str) -> str:
    """Return the task of two texts on which a checkpoint was fine-tuned, "" if its history has none."""
    for done in read_biography(name):
        task = str(done.config.get("task"))
        columns = TASKS[task].text if task in TASKS else done.config.get("text") or ()
        if done.command == "finetune" and len(columns) > 1:
            return task
    return ""


def glue_average_tasks(chosen: Sequence[Task]) -> dict[str, list[str]]:
    """Return the tasks in each GLUE average, by metric name; empty for a single task."""
    names = [task.name for task in chosen]
    without = [name for name in names if name != "wnli"]
    return {"glue/average": names, "glue/average_without_wnli": without} if len(chosen) > 1 else {}


def averages(scores: Mapping[str, V], chosen: Sequence[Task]) -> dict[str, V]:
    """Return the GLUE averages. Each task counts as the mean of its metrics, MNLI with its matched rows only."""
    means = {
        task.name: sum(scores[f"{task.name}/{metric}"] for metric in task.metrics) / len(task.metrics)
        for task in (chosen if len(chosen) > 1 else ())
    }
    return {name: sum(means[task] for task in names) / len(names) for name, names in glue_average_tasks(chosen).items()}
