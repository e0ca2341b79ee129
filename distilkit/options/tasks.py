"""Options of `finetune` and `eval`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distilkit.options.spec import argument, option
from distilkit.options.training import CommonOptions, TeacherOptions, TrainOptions

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
        "Folder with train.* and validation.* (jsonl, tsv, csv, .gz too, or parquet). For --task custom also a hub "
        "data set name[:config], for sts and retrieval also a file (default: the task's hub data set).",
        None,
        metavar="DIR",
        is_path=True,
        panel="Input and output",
    )
    text: tuple[str, ...] | None = option(
        "Text column or columns, for --task custom (default: tokens with --kind tokens).", None, metavar="COL[,COL]"
    )
    label: str | None = option(
        "Label column, for --task custom: names, numbers or lists of names; or several columns of 0 and 1 "
        "(default: ner_tags with --kind tokens).",
        None,
        metavar="COL[,COL]",
    )
    kind: Literal["classification", "multi-label", "regression", "tokens"] | None = option(
        "Label type for --task custom: one class, several classes, a number, or a tag for each word "
        + AS_TRAINED.format("inferred from the rows"),
        None,
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
    stride: int = option(
        "Tokens that neighbouring windows of a long context share "
        + AS_TRAINED.format("128, at most a third of --max-length"),
        None,
        min=0,
        max=2**20,
        panel="SQuAD",
    )
    n_best: int = option(
        "Start and end positions to combine " + AS_TRAINED.format(20), None, min=1, max=2**20, panel="SQuAD"
    )
    max_answer_length: int = option(
        "Longest answer, in tokens " + AS_TRAINED.format(30), None, min=1, max=2**20, panel="SQuAD"
    )
    null_threshold: float = option(
        "Predict no answer if the null score exceeds the best span's by more than this (SQuAD 2.0) "
        + AS_TRAINED.format(0),
        None,
        min=-1e9,
        max=1e9,
        panel="SQuAD",
    )


# None: the task's published setting, or what tasks/schedule.py derives from it
TASK_DEFAULTS: dict[str, Any] = {"batch_size": None, "epochs": None, "lr": None, "warmup": None}
FOR_TEACHER = ("alpha_ce", "alpha_task", "alpha_hidden", "alpha_attention", "hidden_loss", "layer_map", "temperature")
FOR_MODELS = ("max_length", "stride", "n_best", "max_answer_length")
FOR_TASKS = (
    *("data", "text", "label", "kind", "long", "stride", "n_best", "max_answer_length", "null_threshold"),
    *("control", "predictions", "null_odds", "write_predictions", "passages_from"),
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FinetuneOptions(
    TaskOptions,
    TeacherOptions,
    TrainOptions,
    panel="Training",
    defaults=TASK_DEFAULTS | {"adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_grad_norm": 1.0},
    helps={
        "batch_size": "Rows per device and forward pass (default: the task's).",
        "epochs": "Passes over the training rows (default: the task's; more for few rows).",
        "lr": "Peak learning rate (default: the task's; higher for encoders that are narrower than BERT-base).",
        "warmup": "Share of the updates in which the learning rate rises; it then falls linearly to 0 (default: 0.06; "
        "0.1 if --lr or --epochs are adapted).",
    },
):
    """Train a checkpoint on a labelled task, with or without a task teacher."""

    usage = (
        "distilkit finetune student --task sst2 -o student-sst2",
        "distilkit finetune student --task sst2 -o student2-sst2 --teacher teacher-sst2 --seeds 3",
        "distilkit finetune student --task custom --data tickets/ --text message --label category -o student-tickets",
    )

    model: str = argument("Checkpoint to train: a directory or a hub id.", "MODEL")
    task: TaskName | None = option("Task; glue stands for all nine GLUE tasks, custom for your own rows.", panel="Task")
    output: Path = option(
        "Directory to write the trained model to.", short="-o", metavar="DIR", panel="Input and output"
    )
    teacher: str | None = option(
        "Teacher already trained on the task, to learn from in addition to the labels.",
        None,
        metavar="MODEL",
        is_path=True,
        panel="Input and output",
    )
    seeds: int = option(
        "Number of runs, with seeds --seed, --seed + 1, …; the run with the median score is kept.", 1, min=1, max=10**6
    )
    keep: Literal["best", "last"] | None = option(
        "Weights to keep: those with the best headline score, or those at the end of training (default: best; last if "
        "a test split is scored).",
        None,
    )
    patience: int | None = option(
        "Stop after this many evaluations without a better headline score (default: never).", None, min=1, max=2**40
    )
    evaluate_every: int | None = option(
        "Updates between two evaluations (default: one epoch; with --keep last and no --patience only at the end).",
        None,
        min=1,
        max=2**40,
    )
    require: tuple[str, ...] = option(
        "Gate such as 'sst2/accuracy>=0.90'; exit code 3 if it is not met. Repeatable.", ()
    )
    alpha_ce: float = option("Weight of the teacher's soft targets.", 0.5, min=0, max=1e9, panel="Objective")
    alpha_task: float = option("Weight of the labels if there is a teacher.", 0.5, min=0, max=1e9, panel="Objective")
    alpha_hidden: float = option(
        "Weight of the distance between hidden states.", 0.0, min=0, max=1e9, panel="Objective"
    )
    alpha_attention: float = option(
        "Weight of the divergence between attention maps.", 0.0, min=0, max=1e9, panel="Objective"
    )

    def rules(self) -> Iterator[str]:
        if self.teacher is None:
            yield from self.unused(FOR_TEACHER, "needs a teacher: give one as --teacher, or remove it")
        if self.seed + self.seeds > 2**32:
            yield "--seeds counts past the largest seed, 4294967295: lower --seed or --seeds"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EvalOptions(TaskOptions, panel="Comparison"):
    """Score checkpoints on a task, and compare them with a teacher.

    With --agreement, compare them with their teacher on text without labels.
    """

    usage = (
        "distilkit eval student-sst2 --task sst2 --against teacher-sst2",
        "distilkit eval student-sst2 --task sst2 --against teacher-sst2 --require 'retention/sst2>=0.97'",
        "distilkit eval student --agreement heldout.txt",
    )

    models: tuple[str, ...] = argument(
        "Checkpoints to score: directories or hub ids. For --task glue: a directory with one checkpoint per task.",
        "[MODEL…]",
        (),
    )
    task: ScoredTaskName | None = option(
        "Task; glue stands for all nine GLUE tasks, custom for your own rows. For sentence encoders: sts, the "
        "similarity of text pairs, and retrieval, which passages answer a query.",
        None,
        required_unless="agreement",
        panel="Task",
    )
    against: str | None = option(
        "Teacher to compare with: adds retention and differences, with 95 % confidence intervals (default: none; for "
        "--agreement the recorded teacher).",
        None,
        metavar="MODEL",
        is_path=True,
    )
    control: tuple[str, ...] = option(
        "Baseline checkpoint to compare with too, for example one trained without the teacher. Repeatable.",
        (),
        is_path=True,
    )
    predictions: Path | None = option(
        "Prediction file to score instead of models, {id: text} (.gz too), for squad and squad_v2.",
        None,
        metavar="FILE",
        panel="SQuAD",
    )
    null_odds: Path | None = option(
        "With --predictions for squad_v2: file {id: log-odds of no answer}; adds the best thresholds.",
        None,
        metavar="FILE",
        panel="SQuAD",
    )
    write_predictions: Path | None = option(
        "Write predictions to this folder: GLUE leaderboard files (test splits), predictions.json and null_odds.json "
        "for SQuAD, TSV for other tasks.",
        None,
        metavar="DIR",
        panel="Input and output",
    )
    passages_from: str | None = option(
        "Encoder of the passages for --task retrieval, for example the teacher (default: each MODEL itself).",
        None,
        metavar="MODEL",
        is_path=True,
    )
    agreement: str | None = option(
        "Text without labels on which to compare checkpoints with their teacher. Same formats as for distill. "
        "Masked-LM models are compared at masked tokens, classifiers with one document per row.",
        None,
        metavar="TEXT",
        is_path=True,
    )
    examples: Path | None = option(
        "Write texts on which a model differs most from its teacher to this file, a few from each slice (requires "
        "--agreement).",
        None,
        metavar="FILE.jsonl",
    )
    plot: Path | None = option(
        "Write a reliability diagram to this file: agreement against student and teacher confidence (requires "
        "--agreement).",
        None,
        metavar="FILE.svg|png",
    )
    baseline: Path | None = option(
        "Record of an earlier eval (from --json, or kept beside the checkpoint). Its metrics are shown, and gates may "
        "use them.",
        None,
        metavar="FILE",
        is_path=True,
    )
    require: tuple[str, ...] = option(
        "Gate such as 'sst2/accuracy>=0.90', or with --baseline 'sst2/accuracy>=baseline-0.01'; exit code 3 if it is "
        "not met. Repeatable.",
        (),
    )
    batch_size: int = option("Sequences per forward pass.", 32, min=1, max=2**20, panel="Advanced")

    def rules(self) -> Iterator[str]:
        if not self.baseline and any("baseline" in gate for gate in self.require):
            yield "--require compares with an earlier eval: give its record as --baseline"
        if not self.agreement and (self.examples or self.plot):
            yield "--examples and --plot require --agreement: give a text"
        if self.agreement and not self.models:
            yield "--agreement compares a MODEL with its teacher: give one"
        if not self.task:
            yield from self.unused(FOR_TASKS, "requires --task: give one, or remove it")
            return
        yield from self._rules_of_retrieval()
        if self.control and not self.against:
            yield "--control requires a teacher: give one as --against"
        if self.null_odds and not (self.predictions and self.task == "squad_v2"):
            yield "--null-odds requires --predictions and --task squad_v2: remove it"
        if self.write_predictions and len(self.models) != 1:
            yield "--write-predictions takes exactly one MODEL"
        if not self.predictions and not self.models:
            yield "no MODEL: give one or more, or a SQuAD prediction file as --predictions"
        if self.predictions:
            yield from self._rules_of_predictions()

    def _rules_of_retrieval(self) -> Iterator[str]:
        if self.passages_from and self.task != "retrieval":
            yield f"--passages-from requires --task retrieval, not {self.task}: remove it"
        if self.task == "retrieval" and not self.data:
            yield "--task retrieval requires --data: a file of pairs, SQuAD's JSON, or a folder of BEIR"
        if self.task == "retrieval" and self.label:
            yield "--label does not apply to --task retrieval: remove it"

    def _rules_of_predictions(self) -> Iterator[str]:
        if self.models or self.against:
            yield "--predictions is scored without a model: remove MODEL and --against"
        yield from self.unused(FOR_MODELS, "applies to models, and --predictions is scored without one: remove it")
        if not self.null_odds:
            yield from self.unused(("null_threshold",), "applies to models and --null-odds: give one of them")
        if self.task not in ("squad", "squad_v2"):
            yield f"--predictions requires --task squad or squad_v2, not {self.task}: remove it"
