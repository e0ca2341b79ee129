"""Options about labelled rows, which `finetune` and `eval` share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilkit.options.spec import option
from distilkit.options.training import CommonOptions

TaskName = Literal[
    "cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli", "glue", "squad", "squad_v2", "imdb", "custom"
]
ScoredTaskName = Literal[
    "cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli", "glue", "squad", "squad_v2", "imdb", "custom",
    "sts", "retrieval",
]  # fmt: skip
AS_TRAINED = "(default: {}; eval: as the model was trained)"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TaskOptions(CommonOptions, panel="Task"):
    task: ScoredTaskName | None = option("Task; glue stands for all nine GLUE tasks, custom for your own rows.")
    data: Path | None = option(
        "Folder with train.* and validation.* (jsonl, tsv, csv, .gz too, or parquet), or a file of your own rows. For "
        "--task custom also a hub data set name[:config] (default: the task's hub data set).",
        None,
        metavar="PATH",
        is_path=True,
        panel="Input and output",
    )
    text: tuple[str, ...] | None = option(
        "Text column or columns, for --task custom; eval: also for sts and retrieval (default: guessed from the rows).",
        None,
        metavar="COL[,COL]",
    )
    label: str | None = option(
        "Label column, for --task custom: names, numbers or lists of names; or several columns of 0 and 1. eval: also "
        "the column of scores for sts (default: guessed from the rows).",
        None,
        metavar="COL[,COL]",
    )
    kind: Literal["classification", "multi-label", "regression", "tokens"] | None = option(
        "Label type for --task custom: one class for each row, several labels for each row, a number, or a tag for "
        "each word " + AS_TRAINED.format("inferred from the rows"),
        None,
    )
    validation_split: float | None = option(
        "Share of the training rows to hold out for validation, stratified by class and the same for every --seed "
        "(default: 0.1 if --task custom has no validation or test rows; eval: as the model was trained).",
        None,
        min=0.001,
        max=0.9,
    )
    metric: str | None = option(
        "Headline metric, such as f1_macro: it decides which weights are saved and is used to compare models "
        + AS_TRAINED.format("the task's first"),
        None,
        metavar="NAME",
    )
    max_length: int | None = option(
        "Tokens per example or window " + AS_TRAINED.format("the task's"), None, min=8, max=2**20
    )
    long: Literal["head", "head-tail", "windows"] | None = option(
        "How to shorten texts longer than --max-length (single-text tasks). head: keep the beginning. head-tail: keep "
        "the beginning (a quarter) and the end. windows: average the logits over windows of the whole text "
        + AS_TRAINED.format("head"),
        None,
    )
    stride: int | None = option(
        "Tokens that neighbouring windows of a long context share "
        + AS_TRAINED.format("128, at most a third of --max-length"),
        None,
        min=0,
        max=2**20,
        panel="SQuAD",
    )
    n_best: int | None = option(
        "Best start and end positions from which to choose an answer " + AS_TRAINED.format(20),
        None,
        min=1,
        max=2**20,
        panel="SQuAD",
    )
    max_answer_length: int | None = option(
        "Longest answer, in tokens " + AS_TRAINED.format(30), None, min=1, max=2**20, panel="SQuAD"
    )
    null_threshold: float | None = option(
        "Predict no answer if the null score exceeds the best span's by more than this (SQuAD 2.0) "
        + AS_TRAINED.format(0),
        None,
        min=-1e9,
        max=1e9,
        panel="SQuAD",
    )
