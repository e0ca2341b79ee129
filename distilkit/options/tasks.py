"""Options of `finetune` and `eval`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilkit.options.declare import argument, inherit, option
from distilkit.options.distill import DistillOptions
from distilkit.options.training import CommonOptions, TrainOptions


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TaskOptions(CommonOptions):
    task: str | None = option(
        "cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli, glue (all nine), squad, squad_v2, imdb or custom.",
        metavar="NAME",
    )
    data: Path | None = option(
        "Folder with train.* and validation.* (jsonl, tsv, csv, .gz too, or parquet), for --task custom also a hub "
        "data set name[:config] [default: the hub's data set].",
        None,
        metavar="DIR",
        place=True,
    )
    text: tuple[str, ...] | None = option("Text column or two, for --task custom.", None, metavar="COL[,COL]")
    label: str | None = option(
        "Label column, for --task custom: names, numbers or lists of names; or several columns of 0 and 1.",
        None,
        metavar="COL[,COL]",
    )
    kind: Literal["classification", "multi-label", "regression"] | None = option(
        "What --label says, for --task custom: a class, several, or a number [default: found from the rows; eval: as "
        "the model was trained].",
        None,
    )
    max_length: int | None = option(
        "Tokens per example or window [default: the task's; eval: as the model was trained].", None, min=8
    )
    long: Literal["head", "head-tail", "windows"] | None = option(
        "What is read of a text that is longer, where a row has one: its beginning, a quarter from its beginning and "
        "the rest from its end, or all of it, in windows whose logits are averaged [default: head; eval: as the model "
        "was trained].",
        None,
    )
    stride: int = option(
        "Tokens that two windows of a long context share (SQuAD) [default: 128; eval: as trained].",
        None,
        min=0,
        panel="SQuAD",
    )
    n_best: int = option(
        "Start and end positions that are combined (SQuAD) [default: 20; eval: as trained].", None, min=1, panel="SQuAD"
    )
    max_answer_length: int = option(
        "Longest answer in tokens (SQuAD) [default: 30; eval: as trained].", None, min=1, panel="SQuAD"
    )
    null_threshold: float = option(
        "Answer nothing where the null score exceeds the best span's by more than this (SQuAD 2.0) [default: 0; eval: "
        "as trained].",
        None,
        panel="SQuAD",
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FinetuneOptions(TaskOptions, TrainOptions):
    """Train a checkpoint on a labelled task, with or without a teacher that already knows it."""

    model: str = argument("Checkpoint to train: a directory or a hub id.", "MODEL")
    output: Path = option("Directory to write the trained model to.", short="-o", metavar="DIR")
    teacher: str | None = option(
        "Checkpoint already trained on the task, to learn from as well.", None, metavar="MODEL", place=True
    )
    seeds: int = option("Runs with seeds --seed, --seed + 1, …; the median one is kept.", 1, min=1)
    keep: Literal["best", "last"] | None = option(
        "Weights to keep: those of the evaluation with the best headline score, or the last ones [default: best; last "
        "where a test split is scored].",
        None,
    )
    patience: int | None = option(
        "Stop after so many evaluations without a better headline score [default: never].", None, min=1
    )
    evaluate_every: int | None = option(
        "Updates between two evaluations [default: an epoch's; with --keep last and no --patience only at the end].",
        None,
        min=1,
        panel="Training",
    )
    alpha_ce: float = option("Weight of the teacher's soft targets.", 0.5, min=0, panel="Objective")
    alpha_task: float = option("Weight of the labels, where a teacher is given.", 0.5, min=0, panel="Objective")
    alpha_hidden: float = inherit(DistillOptions, "alpha_hidden", 0.0, help="Weight of the distance of hidden states.")
    hidden_loss: Literal["mse", "cosine"] = inherit(DistillOptions, "hidden_loss", "mse")
    alpha_attention: float = inherit(
        DistillOptions, "alpha_attention", 0.0, help="Weight of the divergence of attention maps."
    )
    layer_map: tuple[int, ...] | None = inherit(
        DistillOptions,
        "layer_map",
        None,
        help="The teacher's layer (from 0) for each of the student's, for --alpha-hidden and --alpha-attention "
        "[default: evenly spread, last to last]; a single number is for the last.",
    )
    temperature: float = option("Temperature of the soft targets.", 2.0, min=1e-3, panel="Objective")
    # None until tasks.settle() puts the task's own value in its place (tasks.py: Task)
    batch_size: int = inherit(
        TrainOptions, "batch_size", None, help="Rows per device and forward pass [default: the task's]."
    )
    epochs: float = inherit(TrainOptions, "epochs", None, help="Passes over the training rows [default: the task's].")
    lr: float = inherit(TrainOptions, "lr", None, help="Peak learning rate [default: the task's].")
    warmup: float = inherit(TrainOptions, "warmup", 0.06)
    adam_beta2: float = inherit(TrainOptions, "adam_beta2", 0.999)
    adam_epsilon: float = inherit(TrainOptions, "adam_epsilon", 1e-8)
    max_grad_norm: float = inherit(TrainOptions, "max_grad_norm", 1.0)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EvalOptions(TaskOptions):
    """Score checkpoints on a task and against a teacher, or compare them with it on text without labels."""

    models: tuple[str, ...] = argument(
        "Checkpoints to score: directories or hub ids, or, for --task glue, a directory of one a task.",
        "[MODEL…]",
        (),
    )
    task: str | None = inherit(TaskOptions, "task", None, unless="agreement")
    against: str | None = option(
        "Teacher to compare with (adds retention and differences, with intervals of 95 %) [default: none; for "
        "--agreement the one that a model was made from].",
        None,
        metavar="MODEL",
        place=True,
    )
    control: tuple[str, ...] = option(
        "Checkpoint that the models should beat, made without the teacher, say; compared with it too.", (), place=True
    )
    predictions: Path | None = option(
        "Prediction file to score instead of models, {id: text} (.gz too), for squad and squad_v2.",
        None,
        metavar="FILE",
    )
    null_odds: Path | None = option(
        "What goes with --predictions for squad_v2, {id: log-odds of no answer}: adds the best thresholds.",
        None,
        metavar="FILE",
    )
    write_predictions: Path | None = option(
        "Folder for what the model says: GLUE's leaderboard files (test splits), SQuAD's predictions.json and "
        "null_odds.json, others' as TSV.",
        None,
        metavar="DIR",
    )
    agreement: str | None = option(
        "Text without labels to compare checkpoints with their teacher on, read like distill's --corpus: masked-LM "
        "models at masked tokens, classifiers by a document a row.",
        None,
        metavar="TEXT",
        place=True,
    )
    examples: Path | None = option(
        "File to write texts to where a model's answer differs most from its teacher's, a few of each slice "
        "(--agreement).",
        None,
        metavar="FILE.jsonl",
    )
    plot: Path | None = option(
        "File to draw to how often a model agrees with its teacher by its confidence and by the teacher's "
        "(--agreement).",
        None,
        metavar="FILE.svg|png",
    )
    require: tuple[str, ...] = option("Gate like 'sst2/accuracy>=0.90'; exit 3 where it is not met.", ())
    batch_size: int = option("Sequences per forward pass.", 32, min=1)
